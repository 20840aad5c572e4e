"""Upkeep: what is swept and what stays, what is removed when its time is over, what is packed."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import aexp
from aexp._findings import MANY_PACKS
from aexp._layout import experiment_ref, trash_ref

Git = Callable[..., str]
Fsck = Callable[[Path], None]
DAY = 86_400
CRASH = """
import asyncio, os, sys
import aexp

async def main(path):
    repository = await aexp.Repository(path).open()
    for name in sys.argv[2:]:
        experiment = await repository.experiment(name).init()
        await experiment.log_metric("m", 1.0)
        await experiment.flush()
        if name.startswith("saved"):
            await experiment.save()
    await asyncio.sleep(0.3)  # the journal says that they are saved
    print("ready", flush=True)
    os._exit(0)

asyncio.run(main(sys.argv[1]))
"""


def crash(path: Path, *names: str) -> None:
    """Let a process begin experiments, save those that are called so, and die without closing."""
    subprocess.run([sys.executable, "-c", CRASH, path, *names], check=True, stdout=subprocess.DEVNULL)


async def saved(repository: aexp.Repository, name: str) -> aexp.Record:
    """Save an experiment in which one point was logged."""
    async with repository.experiment(name) as experiment:
        await experiment.log_metric("m", 1.0)
    assert experiment.record is not None
    return experiment.record


def sessions(path: Path, place: str = "sessions") -> list[str]:
    """The sessions in a place."""
    return sorted(os.listdir(path / ".git" / "aexp" / place))


# ---- dead sessions ----


async def test_nothing_is_done_where_nothing_is_left(repo_path: Path, repository: aexp.Repository) -> None:
    """In a repository without experiments upkeep does nothing, and makes no folder."""
    done = await repository.maintain()

    assert done == aexp.Maintenance()
    assert not (repo_path / ".git" / "aexp").exists()


async def test_what_dead_programs_left_is_swept(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """A dead session in which all is saved is put away with its anchors; one that left something open is told, and stays."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    crash(repo_path, "saved-one")
    crash(repo_path, "saved-two", "open")
    first, second = sessions(repo_path)
    anchors = git("for-each-ref", "--format=%(refname)", f"refs/aexp/wip/{first}", cwd=repo_path).split()

    done = await repository.maintain()

    assert (done.retired, done.anchors) == ((first,), tuple(anchors))
    assert [(each.name, each.session) for each in done.interrupted] == [("open", second)]
    assert not done.failures
    assert (sessions(repo_path), sessions(repo_path, "done")) == ([second], [first])
    assert anchors
    assert git("for-each-ref", f"refs/aexp/wip/{second}", cwd=repo_path)
    assert [record.name for record in await repository.recover()] == ["open"]
    assert len(await repository.experiments()) == 3
    assert (await repository.maintain()).interrupted == ()
    fsck(repo_path)


async def test_a_living_session_is_left_alone(repo_path: Path, git: Git) -> None:
    """What a working program has open, its anchors, packs and locks, is not upkeep's to touch."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    async with aexp.Repository(repo_path) as busy, aexp.Repository(repo_path) as repository:
        async with busy.experiment("it") as experiment:
            await experiment.log_metric("m", 1.0)
            (session,) = sessions(repo_path)
            folder = repo_path / ".git" / "aexp" / "sessions" / session
            pack = repo_path / ".git" / "objects" / "pack"
            value = folder / "ref-0"
            value.write_text("0" * 40 + "\n")
            theirs = [
                repo_path / ".git/refs/exps/other.lock",
                pack / f"tmp_pack_aexp-{session}-1",
                pack / "pack-1.keep",
            ]
            theirs[0].parent.mkdir(exist_ok=True)
            os.link(value, theirs[0])
            theirs[1].write_text("half")
            theirs[2].write_text(f"aexp {session}\n")
            before = git("for-each-ref", cwd=repo_path)
            for each in (busy, repository):
                done = await each.maintain()
                assert (done.retired, done.swept, done.anchors, done.interrupted) == ((), (), (), ())
            assert git("for-each-ref", cwd=repo_path) == before
            for path in (*theirs, value):
                path.unlink()
        assert (await repository.get("it")).metrics["m"] == 1.0


async def test_locks_and_packs_of_the_dead_are_swept(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Upkeep takes locks, half-written packs, keeps and anchors of sessions that are over, and nobody else's."""
    crash(repo_path, "open")
    (dead,) = sessions(repo_path)
    common, gone = repo_path / ".git", "0" * 32
    pack = common / "objects" / "pack"
    value = common / "aexp" / "sessions" / dead / "ref-0"
    value.write_text("0" * 40 + "\n")
    lock = common / "refs" / "exps" / "x.lock"
    lock.parent.mkdir(exist_ok=True)
    os.link(value, lock)
    swept = [lock, pack / f"tmp_idx_aexp-{gone}-7", pack / f"pack-{'a' * 40}.keep"]
    swept[1].write_text("half")
    swept[2].write_text(f"aexp {gone}\n")
    theirs = [common / "refs/heads/y.lock", pack / "tmp_pack_abc123", pack / f"pack-{'b' * 40}.keep"]
    for path in theirs:
        path.write_text("not ours\n")
    git("update-ref", f"refs/aexp/wip/{gone}/1", "HEAD", cwd=repo_path)

    done = await repository.maintain()

    assert sorted(done.swept) == sorted(str(path.relative_to(common)) for path in swept)
    assert done.anchors == (f"refs/aexp/wip/{gone}/1",)
    assert not [path for path in swept if path.exists()]
    assert all(path.exists() for path in theirs)
    assert [each.name for each in done.interrupted] == ["open"]


async def test_a_damaged_journal_is_told_and_kept(repository: aexp.Repository, repo_path: Path) -> None:
    """Where a dead session's journal is damaged, that is among the failures, and all else is done."""
    crash(repo_path, "open")
    crash(repo_path, "saved")
    damaged, whole = sessions(repo_path)
    segment = repo_path / ".git" / "aexp" / "sessions" / damaged / "journal-000001.log"
    content = bytearray(segment.read_bytes())
    content[content.index(b"\n") + 20] ^= 1
    segment.write_bytes(content)

    done = await repository.maintain()

    assert done.retired == (whole,)
    assert len(done.failures) == 1
    assert damaged in done.failures[0]
    assert sessions(repo_path) == [damaged]
    assert bytes(content) == segment.read_bytes()


# ---- what is old ----


async def test_old_journals_and_old_trash_are_removed(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """Journals are kept for 15 days and removed experiments for 14; a day later they are gone, a day before not."""
    now = time.time()
    for _ in range(2):
        async with aexp.Repository(repo_path) as other:
            record = await saved(other, f"of-{_}")
    old, young = sessions(repo_path, "done")
    for id, days in ((old, 16), (young, 14)):
        os.utime(repo_path / ".git" / "aexp" / "done" / id, (now - days * DAY, now - days * DAY))
    ref = experiment_ref(record.baseline, "gone")
    places = {days: trash_ref(int(1000 * (now - days * DAY)), ref) for days in (15, 13)}
    for place in places.values():
        git("update-ref", place, record.rev, cwd=repo_path)

    done = await repository.maintain()

    assert (done.journals, done.trash) == ((old,), (places[15],))
    assert done.freed > 0
    assert sessions(repo_path, "done") == [young]
    assert git("for-each-ref", "--format=%(refname)", "refs/aexp/trash", cwd=repo_path) == places[13]
    assert (await repository.restore("gone")).rev == record.rev
    fsck(repo_path)


async def test_old_applies_are_forgotten(repository: aexp.Repository, repo_path: Path) -> None:
    """What an apply replaced is kept for 15 days, and then only of the last one."""
    for number in range(2):
        async with repository.experiment(f"it-{number}") as experiment:
            await experiment.log_file("new.txt", f"{number}\n")
    for number in range(2):
        await repository.apply(f"it-{number}", force=True)
    folder = repo_path / ".git" / "aexp" / "applied"
    marks = sorted(name for name in os.listdir(folder) if name.isdigit())
    assert len(marks) == 2
    for mark in marks:
        (folder / mark).rename(folder / f"{int(mark) - 16 * DAY * 10**9:020d}")

    done = await repository.maintain()

    assert len(done.swept) == 1
    assert len([name for name in os.listdir(folder) if name.isdigit()]) == 1


# ---- what is many ----


def pack_one(path: Path, git: Git, number: int) -> str:
    """Make a pack of one blob that nothing points to; its id."""
    blob = git("hash-object", "-w", "--stdin", cwd=path, input=f"blob {number}\n")
    git("pack-objects", "--quiet", ".git/objects/pack/pack", cwd=path, input=f"{blob}\n")
    (path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    return blob


async def test_many_packs_become_few(repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck) -> None:
    """Packs are joined when they are many; kept ones stay, and no object is lost, also none that nobody points to."""
    record = await saved(repository, "it")
    assert (await repository.maintain()).packs_after == 1
    blobs = [pack_one(repo_path, git, number) for number in range(MANY_PACKS + 10)]
    folder = repo_path / ".git" / "objects" / "pack"
    kept = sorted(folder.glob("*.pack"))[:3]
    for path in kept:
        path.with_suffix(".keep").write_text("somebody's\n")

    done = await repository.maintain()

    assert not done.failures
    assert done.packs_before == MANY_PACKS + 10 + 1 - 3
    assert done.packs_after < MANY_PACKS / 2
    assert all(path.exists() for path in kept)
    for blob in blobs:
        assert git("cat-file", "-t", blob, cwd=repo_path) == "blob"
    assert await repository.get("it") == record
    again = await repository.maintain()
    assert (again.packs_before, again.packs_after) == (done.packs_after, done.packs_after)
    for path in kept:
        path.with_suffix(".keep").unlink()
    fsck(repo_path)


async def test_many_loose_refs_become_one_file(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """When more than a thousand experiments have a ref file each, they share one afterwards, and all are listed."""
    record = await saved(repository, "it")
    folder = (repo_path / ".git" / record.ref).parent
    for number in range(1100):
        (folder / f"copy-{number}").write_text(f"{record.rev}\n")

    done = await repository.maintain()

    assert done.packed_refs == 1102  # with the anchor of this session
    assert len(git("for-each-ref", "refs/exps", cwd=repo_path).splitlines()) == 1101
    assert not [name for _, _, names in os.walk(folder.parent) for name in names]
    assert (await repository.rename("copy-7", "seven")).rev == record.rev
    assert len(await repository.remove(*(f"copy-{number}" for number in range(100, 200)))) == 100
    assert len(await repository.experiments()) == 1001


# ---- beside others ----

WORKER = """
import asyncio, json, sys, time
import aexp

async def main(path, who, seconds):
    told = {}
    async with aexp.Repository(path) as repository:
        number, end = 0, time.time() + seconds
        while time.time() < end:
            if who.startswith("upkeep"):
                done = await repository.maintain()
                told[str(number)] = list(done.failures)
            else:
                names = [f"{who}-{number}-{each}" for each in range(3)]
                for name in names:
                    async with repository.experiment(name) as experiment:
                        await experiment.log_metric("m", number)
                    told[name] = experiment.record.rev
                await repository.rename(names[0], names[0] + "-renamed")
                told[names[0] + "-renamed"] = told.pop(names[0])
                await repository.remove(names[1])
                rev = told.pop(names[1])
                if number % 2:
                    told[names[1]] = (await repository.restore(names[1])).rev
                    assert told[names[1]] == rev
            number += 1
    print(json.dumps(told))

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""


@contextmanager
def packing(path: Path) -> Iterator[None]:
    """Pack refs again and again, meanwhile."""
    loop = "while [ ! -e stop ]; do git pack-refs --all --prune; sleep 0.02; done"
    process = subprocess.Popen(["sh", "-c", loop], cwd=path)
    try:
        yield
    finally:
        (path / "stop").touch()
        process.wait()


@pytest.mark.races
async def test_upkeep_beside_working_programs_loses_nothing(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """Three programs save, rename, remove and restore while two maintain and Git packs refs and repacks: all stands."""
    for number in range(MANY_PACKS + 5):
        pack_one(repo_path, git, number)
    command = [sys.executable, "-c", WORKER, str(repo_path)]
    names = ["a", "b", "c", "upkeep-1", "upkeep-2"]
    processes = [await asyncio.create_subprocess_exec(*command, name, "5", stdout=subprocess.PIPE) for name in names]
    with packing(repo_path):
        told = [json.loads((await process.communicate())[0]) for process in processes]

    assert [process.returncode for process in processes] == [0] * 5
    assert [failure for each in told[3:] for failures in each.values() for failure in failures] == []
    saved_by = {name: rev for each in told[:3] for name, rev in each.items()}
    records = await repository.experiments()
    assert {record.name: record.rev for record in records} == saved_by
    assert not [record.damaged for record in records if record.damaged]
    assert saved_by
    fsck(repo_path)


CHANGER = """
import asyncio, json, sys
import aexp

async def main(path, who, names):
    told = {}
    async with aexp.Repository(path) as repository:
        print("ready", flush=True)
        sys.stdin.readline()
        for name in names:
            for verb, call in (("rename", lambda: repository.rename(name, f"{name}-by-{who}")), ("remove", lambda: repository.remove(name))):
                if (verb == "remove") == name.startswith("r"):
                    try:
                        await call()
                        told[name] = "won"
                    except aexp.AexpError as error:
                        told[name] = type(error).__name__
    print(json.dumps(told))

asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
"""


@pytest.mark.races
async def test_of_many_that_change_one_experiment_one_wins(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """Three programs rename and remove the same experiments while refs are packed: one wins each, nobody's ref is lost."""
    names = [f"{kind}-{number}" for number in range(12) for kind in ("n", "r")]
    records = {name: await saved(repository, name) for name in [*names, "bystander"]}
    command = [sys.executable, "-c", CHANGER, str(repo_path)]
    processes = [
        await asyncio.create_subprocess_exec(
            *command, str(who), json.dumps(names), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for who in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    with packing(repo_path):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
        told = [json.loads((await process.communicate())[0]) for process in processes]

    for name in names:
        answers = sorted(each[name] for each in told)
        assert answers == ["ExperimentNotFound", "ExperimentNotFound", "won"], name
    standing = {record.name: record.rev for record in await repository.experiments()}
    winners = {name: next(who for who in range(3) if told[who][name] == "won") for name in names}
    assert standing == {"bystander": records["bystander"].rev} | {
        f"{name}-by-{winners[name]}": records[name].rev for name in names if name.startswith("n")
    }
    for name in names:
        if name.startswith("r"):
            assert (await repository.restore(name)).rev == records[name].rev
    fsck(repo_path)


async def test_a_cancelled_upkeep_ends_what_it_began(repository: aexp.Repository, repo_path: Path, fsck: Fsck) -> None:
    """Cancelled at any moment, upkeep, a look and a change end, and leave no thread and no half."""
    await saved(repository, "it")
    for call in (repository.maintain, repository.diagnose, lambda: repository.rename("it", "it")):
        for delay in (0.0, 0.001, 0.01):
            task = asyncio.ensure_future(call())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None
    assert [record.name for record in await repository.experiments()] == ["it"]
    fsck(repo_path)


async def test_a_cancelled_change_did_nothing_or_all(repository: aexp.Repository, repo_path: Path, fsck: Fsck) -> None:
    """A removal that is cancelled, and a restoring, leave the experiment in one of two places, whole."""
    record = await saved(repository, "it")
    for delay in (0.0, 0.001, 0.003, 0.006, 0.01):
        for call in (repository.remove, repository.restore):
            task = asyncio.ensure_future(call("it"))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() or task.exception() is None or isinstance(task.exception(), LookupError)
            try:
                assert await repository.get("it") == record
            except aexp.ExperimentNotFound:
                assert await repository.restore("it") == record
    fsck(repo_path)
