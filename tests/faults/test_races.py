"""Several processes in one repository, and the user's own Git beside them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import aexp

pytestmark = pytest.mark.races

SAVER = """
import asyncio, json, sys
import aexp

async def main(path, names):
    outcome = {}
    async with aexp.Repository(path) as repository:
        begun = [await repository.experiment(name, params={"who": sys.argv[2]}).init() for name in names]
        for experiment in begun:
            await experiment.log_metric("loss", 0.5)
        print("ready", flush=True)
        sys.stdin.readline()
        for experiment, answer in zip(begun, await asyncio.gather(*(e.save() for e in begun), return_exceptions=True)):
            outcome[experiment.name] = answer.rev if isinstance(answer, aexp.Record) else type(answer).__name__
    print(json.dumps(outcome), flush=True)

asyncio.run(main(sys.argv[1], json.loads(sys.argv[3])))
"""
HOLDER = """
import asyncio, os, sys
import aexp

async def main(path):
    repository = await aexp.Repository(path).open()
    experiment = await repository.experiment("held", params={"lr": 0.1}).init()
    for step in range(10):
        await experiment.log_metric("loss", step * 0.5, step)
    await experiment.flush()
    if "fork" in sys.argv and os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())  # whole: both write into one pipe, and `print` may write a line in parts
        os.kill(os.getpid(), 19)
    os.write(1, b"ready\\n")
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1]))
"""
RECOVERER = """
import asyncio, json, sys
import aexp

async def main(path):
    async with aexp.Repository(path) as repository:
        print(json.dumps([record.name for record in await repository.recover()]))

asyncio.run(main(sys.argv[1]))
"""


def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
    """A process that runs *program*."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line that *process* prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def race(path: Path, names: list[list[str]]) -> list[dict[str, str]]:
    """Let one process for each list of names begin them all, then save them all at the same time; the outcomes."""
    processes = [start(SAVER, path, number, json.dumps(each)) for number, each in enumerate(names)]
    assert [line_of(process) for process in processes] == ["ready"] * len(names)
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outcomes = [json.loads(process.communicate(timeout=50)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(names)
    return outcomes


@contextmanager
def upkeep(path: Path) -> Iterator[None]:
    """Collect and pack the repository again and again, meanwhile."""
    loop = "while true; do git gc --quiet --prune=now; git pack-refs --all --prune; done"
    process = subprocess.Popen(["sh", "-c", loop], cwd=path, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def holder(repo_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds an experiment of ten points open."""
    process = start(HOLDER, repo_path)
    assert line_of(process) == "ready"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("processes", "count"), [(3, 20), (16, 4)])
async def test_of_many_that_want_a_name_one_gets_it(
    repo_path: Path, fsck: Callable[[Path], None], processes: int, count: int
) -> None:
    """Three processes, or sixteen, save the same names at once: each name has one winner, and no loser's data is lost."""
    names = [f"race-{number}" for number in range(count)]

    outcomes = race(repo_path, [names] * processes)

    async with aexp.Repository(repo_path) as repository:
        revs = {record.name: record.rev for record in await repository.experiments()}
        for name in names:
            answers = sorted(outcome[name] for outcome in outcomes)
            assert answers.count("NameTaken") == processes - 1
            assert revs[name] in answers
        recovered = await repository.recover()
        assert len(recovered) == count * (processes - 1)
        assert len(await repository.experiments()) == count * processes
    fsck(repo_path)


async def test_collecting_and_packing_beside_loses_nothing(
    repo_path: Path, git: Callable[..., str], fsck: Callable[[Path], None]
) -> None:
    """While four processes save 20 experiments each, `git gc --prune=now` and `git pack-refs` destroy none."""
    with upkeep(repo_path):
        outcomes = race(repo_path, [[f"of-{who}-{number}" for number in range(20)] for who in range(4)])

    saved = {name: rev for outcome in outcomes for name, rev in outcome.items()}
    async with aexp.Repository(repo_path) as repository:
        records = await repository.experiments()
        assert {record.name: record.rev for record in records} == saved
        assert all(record.damaged is None and record.metrics["loss"] == 0.5 for record in records)
    for left in (repo_path / ".git").rglob("*.lock"):  # of the git that was killed
        left.unlink()
    fsck(repo_path)


async def test_recovering_at_once_recovers_once(repo_path: Path, fsck: Callable[[Path], None]) -> None:
    """Four processes that recover the same dead session save its experiment once between them."""
    process = start(HOLDER, repo_path)
    assert line_of(process) == "ready"
    process.kill()
    process.communicate()

    told = [start(RECOVERER, repo_path) for _ in range(4)]
    recovered = [name for each in told for name in json.loads(each.communicate(timeout=50)[0])]

    assert recovered == ["held"]
    async with aexp.Repository(repo_path) as repository:
        (record,) = await repository.experiments()
        assert record.status is aexp.Status.INTERRUPTED
        assert len((await repository.history("held"))["loss"]) == 10
    fsck(repo_path)


async def test_recoverers_that_are_killed_leave_the_rest_to_others(
    repo_path: Path, fsck: Callable[[Path], None]
) -> None:
    """Of ten dead sessions each is recovered once, also when two of four processes that recover them are killed in the middle."""
    holders = [start(HOLDER.replace('"held"', f'"held-{number}"'), repo_path) for number in range(10)]
    for process in holders:
        assert line_of(process) == "ready"
        process.kill()
        process.communicate()

    recoverers = [start(RECOVERER, repo_path) for _ in range(4)]
    refs = repo_path / ".git" / "refs" / "exps"
    for number, process in enumerate(recoverers[:2], 1):
        while process.poll() is None and len(list(refs.rglob("held-*"))) < number:
            pass
        process.kill()
    for process in recoverers:
        process.communicate(timeout=50)

    async with aexp.Repository(repo_path) as repository:
        await repository.recover()
        assert await repository.interrupted() == []
        records = await repository.experiments()
        assert sorted(record.name for record in records) == [f"held-{number}" for number in range(10)]
        assert {record.status for record in records} == {aexp.Status.INTERRUPTED}
        for record in records:
            assert len((await repository.history(record.name))["loss"]) == 10
    fsck(repo_path)


@pytest.mark.parametrize("stopped", [False, True])
async def test_what_a_living_process_holds_cannot_be_resumed(
    holder: "subprocess.Popen[str]", repository: aexp.Repository, stopped: bool
) -> None:
    """An experiment of a process that lives, or is only stopped, is refused with `NotOwner`; of a dead one it is taken."""
    if stopped:
        holder.send_signal(signal.SIGSTOP)
    with pytest.raises(aexp.NotOwner, match="process"):
        await repository.resume("held")
    assert await repository.recover() == []

    holder.kill()
    holder.wait()
    experiment = await repository.resume("held")
    await experiment.log_metric("loss", 9.0, 10)
    record = await experiment.save()

    assert record.params["lr"] == 0.1
    assert list((await repository.history("held"))["loss"].steps) == list(range(11))


async def test_a_forked_child_does_not_keep_its_parents_session(repository: aexp.Repository, repo_path: Path) -> None:
    """When the owner is killed its experiment can be resumed, even while a forked child of it lives."""
    process = start(HOLDER, repo_path, "fork")
    child, ready = sorted([line_of(process), line_of(process)])
    assert ready == "ready"
    process.kill()
    process.wait()
    try:
        assert (await repository.resume("held")).summary == {"loss": 4.5}
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.communicate()


WORKERS = """
import asyncio, multiprocessing, os, sys
import aexp

def forked(experiment, repository, path, pipe):
    told = []
    for call in (experiment.save, experiment.flush, experiment.discard, lambda: experiment.set_params(a=1),
                 lambda: experiment.log_metric("loss", 9.0), repository.experiments, repository.aclose):
        try:
            asyncio.run(asyncio.wait_for(call(), 20))
            told.append("done")
        except BaseException as error:
            told.append(type(error).__name__)
    pipe.send(told)

async def own(path, name):
    async with aexp.Repository(path) as repository, repository.experiment(name) as experiment:
        await experiment.log_metric("loss", 1.0)

def spawned(path, name):
    asyncio.run(own(path, name))

async def main(path):
    async with aexp.Repository(path) as repository:
        async with repository.experiment("parent") as experiment:
            await experiment.log_metric("loss", 0.0, 0)
            ours, theirs = multiprocessing.Pipe()
            context = multiprocessing.get_context("fork")
            children = [context.Process(target=forked, args=(experiment, repository, path, theirs)),
                        context.Process(target=os._exit, args=(0,)),
                        context.Process(target=spawned, args=(path, "of-a-fork")),
                        multiprocessing.get_context("spawn").Process(target=spawned, args=(path, "of-a-spawn"))]
            for child in children:
                child.start()
            for step in range(1, 100):
                await experiment.log_metric("loss", float(step), step)
                await asyncio.sleep(0.005)
            for child in children:
                await asyncio.to_thread(child.join)
            assert [child.exitcode for child in children] == [0] * 4, [child.exitcode for child in children]
            print(*ours.recv(), flush=True)
            await experiment.log_metric("loss", 100.0, 100)

if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
"""


def test_children_of_multiprocessing_harm_nobody(repo_path: Path, tmp_path: Path, fsck: Callable[[Path], None]) -> None:
    """A forked child that uses its parent's experiment is told so, and never waits for ever; it, or a spawned one, can work with its own repository."""
    program = tmp_path / "program.py"
    program.write_text(WORKERS)
    done = subprocess.run([sys.executable, program, repo_path], capture_output=True, text=True, check=False, timeout=50)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ForkedError"] * 6 + ["done"]
    fsck(repo_path)

    async def look() -> None:
        async with aexp.Repository(repo_path) as repository:
            assert await repository.interrupted() == []
            records = await repository.experiments()
            assert sorted(record.name for record in records) == ["of-a-fork", "of-a-spawn", "parent"]
            assert list((await repository.history("parent"))["loss"].steps) == list(range(101))

    asyncio.run(look())


async def test_history_may_be_rewritten_meanwhile(
    repository: aexp.Repository, repo_path: Path, git: Callable[..., str], fsck: Callable[[Path], None]
) -> None:
    """The baseline survives an amended commit, an expired reflog, a collection and a cleaning while work goes on."""
    async with repository.experiment("long") as experiment:
        await experiment.log_metric("loss", 1.0)
        git("commit", "--quiet", "--amend", "--message=another", cwd=repo_path)
        git("reflog", "expire", "--expire=now", "--all", cwd=repo_path)
        git("gc", "--quiet", "--prune=now", cwd=repo_path)
        (repo_path / "new.txt").write_text("untracked\n")
        git("stash", "--include-untracked", "--quiet", cwd=repo_path)
        git("clean", "-xfdq", cwd=repo_path)
        await asyncio.sleep(0.1)

    record = await repository.get("long")
    assert git("cat-file", "-t", record.baseline, cwd=repo_path) == "commit"
    assert git("rev-parse", f"{record.rev}^", cwd=repo_path) == record.baseline
    fsck(repo_path)


HASTY = """
import asyncio, sys
import aexp

async def main(path, names):
    async with aexp.Repository(path) as repository:
        while names:
            for name in list(names):
                try:
                    await repository.rename(name, f"{name}-renamed")
                    names.remove(name)
                except (aexp.ExperimentNotFound, aexp.NotOwner, aexp.GitError):
                    pass

asyncio.run(main(sys.argv[1], sys.argv[2:]))
"""


async def test_a_rename_beside_a_save_leaves_one(repo_path: Path, fsck: Callable[[Path], None]) -> None:
    """Experiments that are renamed in the moment that their refs stand are saved once, under the new name."""
    names = [f"e{number}" for number in range(40)]
    hasty = start(HASTY, repo_path, *names)
    told = race(repo_path, [names[:20], names[20:]])
    hasty.communicate(timeout=50)

    assert hasty.returncode == 0
    saved = {name: rev for each in told for name, rev in each.items()}
    async with aexp.Repository(repo_path) as repository:
        assert await repository.recover() == []
        records = await repository.experiments()
    assert {record.name: record.rev for record in records} == {f"{name}-renamed": rev for name, rev in saved.items()}
    assert len(records) == len(names)
    fsck(repo_path)
