"""Upkeep that goes on by itself: packs and refs stay few, nobody waits for it, and whatever ends it loses nothing."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import aexp
from aexp._findings import MANY_PACKS, MANY_REFS, many_refs

Git = Callable[..., str]
Fsck = Callable[[Path], None]
WORKER = """
import asyncio, sys
import aexp

async def main(path, who):
    async with aexp.Repository(path) as repository:
        for number in range(10_000):
            async with repository.experiment(f"{who}-{number}") as experiment:
                await experiment.log_metric("m", number)
            print(experiment.record.rev, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""
SLOW_GIT = """#!/bin/sh
case "$*" in
*repack*) echo $$ > "$SLOW_GIT"; exec sleep 60 ;;
*) exec "$REAL_GIT" "$@" ;;
esac
"""


def fill_packs(path: Path, git: Git, count: int = MANY_PACKS + 10) -> None:
    """Put many packs of one object each into the repository, as as many programs that save once would."""
    for number in range(count):
        blob = git("hash-object", "-w", "--stdin", cwd=path, input=f"{number} {os.urandom(8).hex()}\n")
        git("pack-objects", "--quiet", ".git/objects/pack/pack", cwd=path, input=f"{blob}\n")
        (path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()


def packs(path: Path) -> int:
    """How many packs there are."""
    return len(list((path / ".git" / "objects" / "pack").glob("*.pack")))


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until the condition holds; raise `TimeoutError` after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def save(repository: aexp.Repository, name: str) -> aexp.Record:
    """Save an experiment."""
    async with repository.experiment(name) as experiment:
        await experiment.log_metric("m", 1.0)
    assert experiment.record is not None
    return experiment.record


async def test_many_packs_are_joined_unasked(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """Where packs are many, the first save of a program is enough to have them joined, while it goes on."""
    fill_packs(repo_path, git)
    record = await save(repository, "it")
    await until(lambda: packs(repo_path) < MANY_PACKS / 2)

    assert await repository.get("it") == record
    assert (await save(repository, "again")).baseline == record.baseline
    fsck(repo_path)


async def test_many_refs_get_one_file_unasked(repository: aexp.Repository, repo_path: Path) -> None:
    """Where loose refs are many, they soon share a file, and every experiment is listed before, meanwhile and after."""
    record = await save(repository, "it")
    folder = (repo_path / ".git" / record.ref).parent
    for number in range(MANY_REFS + 100):
        (folder / f"copy-{number}").write_text(f"{record.rev}\n")
    async with aexp.Repository(repo_path) as another:
        await save(another, "last")
        while any(folder.iterdir()) if folder.exists() else False:
            assert len(await another.experiments()) == MANY_REFS + 102
    assert len(await repository.experiments()) == MANY_REFS + 102


def test_the_more_refs_are_packed_the_more_may_be_loose() -> None:
    """`packed-refs` is written anew when a tenth of it has gathered beside it, so that the work stays linear."""
    assert many_refs(0) == many_refs(10**6) == MANY_REFS
    assert 0.05 < many_refs(110 * 100_000) / 100_000 < 0.15


async def test_it_can_be_turned_off(repo_path: Path, git: Git) -> None:
    """With `Settings(upkeep=False)` nothing is joined until somebody asks."""
    fill_packs(repo_path, git)
    async with aexp.Repository(repo_path, settings=aexp.Settings(upkeep=False)) as repository:
        await save(repository, "it")
        await asyncio.sleep(0.5)
    assert packs(repo_path) == MANY_PACKS + 11

    async with aexp.Repository(repo_path, settings=aexp.Settings(upkeep=False)) as repository:
        await repository.maintain()
    assert packs(repo_path) < MANY_PACKS / 2


async def test_a_program_that_saves_often_leaves_few_packs(repo_path: Path, fsck: Fsck) -> None:
    """Hundreds of single saves, each a pack, leave no more packs than every look-up can bear, and lose nothing."""
    async with aexp.Repository(repo_path) as repository:
        revs = [(await save(repository, f"e-{number}")).rev for number in range(200)]
        await until(lambda: packs(repo_path) <= MANY_PACKS + 30)
        assert sorted(record.rev for record in await repository.experiments()) == sorted(revs)
    fsck(repo_path)


async def test_closing_does_not_wait_for_it(
    repo_path: Path, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Git that takes a minute is stopped when the repository closes, within two seconds, and nobody is left."""
    fill_packs(repo_path, git)
    real, note = shutil.which("git"), tmp_path / "pid"
    assert real is not None
    (tmp_path / "git").write_text(SLOW_GIT)
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("REAL_GIT", real)
    monkeypatch.setenv("SLOW_GIT", str(note))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async with aexp.Repository(repo_path) as repository:
        await save(repository, "it")
        await until(lambda: note.exists() and note.read_text() != "")
        start = time.monotonic()
        await save(repository, "beside")
        saved = time.monotonic() - start
        start = time.monotonic()
    assert saved < 2
    assert time.monotonic() - start < 5
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)

    async with aexp.Repository(repo_path) as repository:  # the lock is free: another one may try
        task = asyncio.ensure_future(repository.maintain())
        note.unlink()
        await until(note.exists)
        os.kill(int(note.read_text() or "0") or 2**22, signal.SIGKILL)
        assert (await task).failures
        assert len(await repository.experiments()) == 2


@pytest.mark.races
async def test_several_programs_and_kills_lose_nothing(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """Three programs save and look after packs at once, and are killed in the middle: what was told as saved stands."""
    told = list[str]()
    for turn in range(4):
        fill_packs(repo_path, git, MANY_PACKS)
        command = [sys.executable, "-c", WORKER, str(repo_path)]
        programs = [
            await asyncio.create_subprocess_exec(*command, f"{turn}-{each}", stdout=subprocess.PIPE)
            for each in range(3)
        ]
        for program in programs:
            assert program.stdout is not None
            told.append((await program.stdout.readline()).decode().strip())  # it has begun, and looks after packs now
        await asyncio.sleep(0.1 * turn)
        for program in programs:
            program.kill()
        for program in programs:
            out, _ = await program.communicate()
            told += out.decode().splitlines()
    async with aexp.Repository(repo_path) as repository:
        await repository.recover()
        assert not (await repository.maintain()).failures
        assert set(told) <= {record.rev for record in await repository.experiments()}
        assert not [record for record in await repository.experiments() if record.damaged]
    assert told
    assert packs(repo_path) < MANY_PACKS + 30
    fsck(repo_path)


async def test_cancelled_at_any_moment_all_is_well(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """A program that is cancelled while packs are joined ends at once, and the repository is whole."""
    for number, delay in enumerate((0.0, 0.01, 0.05, 0.1, 0.2)):
        fill_packs(repo_path, git)

        async def work(number: int = number) -> None:
            async with aexp.Repository(repo_path) as repository:
                await save(repository, f"it-{number}")
                await asyncio.sleep(30)

        task = asyncio.ensure_future(work())
        await until(lambda number=number: bool(git("for-each-ref", f"refs/exps/**/it-{number}", cwd=repo_path)))  # type: ignore[misc]
        await asyncio.sleep(delay)
        task.cancel()
        start = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < 5
    async with aexp.Repository(repo_path) as repository:
        assert len(await repository.experiments()) == 5
    fsck(repo_path)
