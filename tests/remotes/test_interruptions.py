"""A transfer may be cancelled, may stall, and its process may be killed: all is old or new, and nothing is left."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import aexp

Git = Callable[..., str]
Saved = Callable[..., Awaitable[list[aexp.Record]]]
Refs = Callable[..., dict[str, str]]
Leftovers = Callable[[Path], list[str]]
Check = Callable[[Path], None]

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to find children in")

STORY = """
import asyncio, sys
import aexp

async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        print("go", flush=True)
        await getattr(repository, sys.argv[2])()

asyncio.run(main())
"""


def slow_down(git: Git, path: Path, *, before: float = 0.0, after: float = 0.0) -> None:
    """Let the remote of *path* wait before it answers, or before it closes the line when it has."""
    for what in ("uploadpack", "receivepack"):
        program = what.replace("pack", "-pack")
        git(
            "config",
            f"remote.origin.{what}",
            f'slow() {{ sleep {before}; git-{program} "$@"; sleep {after}; }}; slow',
            cwd=path,
        )


def children() -> list[str]:
    """The commands of all processes below this one that run; one that has ended and waits to be reaped does not."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            state, parent, *_ = (place / "stat").read_text().rpartition(")")[2].split()
            if state not in "ZX":
                parents[int(place.name)] = int(parent)
                commands[int(place.name)] = (
                    (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    ours = {os.getpid()}
    while new := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= new
    return [commands[pid] for pid in ours if pid != os.getpid() and re.search("git|sleep", commands.get(pid, ""))]


def told(path: Path, verb: str, seconds: float) -> int:
    """Tell the story in a process of its own, which is killed so many seconds after it began; return how it ended."""
    with subprocess.Popen([sys.executable, "-c", STORY, path, verb], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def age(path: Path) -> None:
    """Let a minute pass for what was being put away: so long `recover()` takes it for the work of a living process."""
    for half_gone in (path / ".git" / "aexp" / "tmp").glob("*"):
        os.utime(half_gone, (0, 0))


def is_gits_own(leftover: str) -> bool:
    """Say whether it is a quarantine of a receiving Git that was killed in a folder of ours; its gc sweeps it."""
    return leftover.startswith("objects/tmp_objdir-")


async def natively(call: Awaitable[list[aexp.Transfer]], delay: float) -> bool:
    """Cancel the task of the call after *delay*; say whether it was done before."""
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait((task,), timeout=delay)
    if done:
        task.result()
        return True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return False


async def twice(call: Awaitable[list[aexp.Transfer]], delay: float) -> bool:
    """Cancel the task of the call after *delay*, and again a moment later."""
    task = asyncio.ensure_future(call)
    done, _ = await asyncio.wait((task,), timeout=delay)
    if done:
        task.result()
        return True
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return False


async def by_scope(call: Awaitable[list[aexp.Transfer]], delay: float) -> bool:
    """Make the call in a scope of anyio's that is cancelled after *delay*."""
    with anyio.move_on_after(delay) as scope:
        await call
    return not scope.cancelled_caught


async def by_timeout(call: Awaitable[list[aexp.Transfer]], delay: float) -> bool:
    """Make the call under an `asyncio.timeout` of *delay*."""
    try:
        async with asyncio.timeout(delay):
            await call
    except TimeoutError:
        return False
    return True


@pytest.mark.remotes
@pytest.mark.parametrize("way", [natively, twice, by_scope, by_timeout])
@pytest.mark.parametrize("verb", ["push", "pull"])
async def test_cancelled_at_any_moment_all_is_old_or_new(
    repository: aexp.Repository,
    other: aexp.Repository,
    repo_path: Path,
    remote: Path,
    other_path: Path,
    git: Git,
    saved: Saved,
    refs_of: Refs,
    leftovers: Leftovers,
    fsck: Check,
    way: Callable[[Awaitable[list[aexp.Transfer]], float], Awaitable[bool]],
    verb: str,
) -> None:
    """However and whenever push or pull is cancelled, every ref is as before or as after, and no process or file is left."""
    records = await saved(repository, *(f"try-{number}" for number in range(5)))
    wanted = {record.ref: record.rev for record in records}
    if verb == "pull":
        await repository.push()
    target = remote if verb == "push" else other_path
    slow_down(git, repo_path if verb == "push" else other_path, before=0.02, after=0.02)
    delay, done = 0.0, False
    while not done:
        for ref in refs_of(target):
            git("update-ref", "-d", ref, cwd=target)
        done = await way(repository.push() if verb == "push" else other.pull(), delay)
        assert children() == []
        found = refs_of(target)
        assert found.items() <= wanted.items()
        if verb == "pull":
            assert found in ({}, wanted)
        for path in (repo_path, remote, other_path):
            assert [each for each in leftovers(path) if not is_gits_own(each)] == []
        delay += 0.012
    assert refs_of(target) == wanted
    assert delay > 0.05  # it was cancelled at several places
    for path in (repo_path, remote, other_path):
        fsck(path)


@pytest.mark.parametrize("verb", ["push", "pull", "remote_experiments"])
async def test_a_cancelled_transfer_ends_at_once(
    repository: aexp.Repository, repo_path: Path, remote: Path, git: Git, saved: Saved, verb: str
) -> None:
    """A transfer that waits for its remote ends promptly when it is cancelled, with every process it started."""
    await saved(repository, "one")
    slow_down(git, repo_path, before=60)
    task = asyncio.ensure_future(getattr(repository, verb)())
    await asyncio.sleep(0.5)
    assert any("sleep" in each for each in children())
    begun = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert time.monotonic() - begun < 2
    assert getattr(caught.value, "__notes__", []) == []
    assert children() == []


@pytest.mark.parametrize("verb", ["push", "pull", "remote_experiments"])
async def test_a_remote_that_says_nothing_is_given_up(
    repo_path: Path, remote: Path, git: Git, saved: Saved, verb: str
) -> None:
    """A remote that does not answer within the connect_timeout is told as a timeout, and nothing of it is left."""
    slow_down(git, repo_path, before=60)
    async with aexp.Repository(repo_path, settings=aexp.Settings(connect_timeout=0.5)) as repository:
        await saved(repository, "one")
        with pytest.raises(aexp.RemoteError, match="connect_timeout") as caught:
            await getattr(repository, verb)()
    assert caught.value.kind == "timeout"
    assert children() == []


async def test_a_remote_that_stalls_is_given_up(
    repo_path: Path, remote: Path, git: Git, saved: Saved, refs_of: Refs
) -> None:
    """A remote that falls silent in the middle is given up after the stall_timeout; what it accepted stands, and again works."""
    hook = remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho one moment >&2\nsleep 60\n")
    hook.chmod(0o755)
    async with aexp.Repository(repo_path, settings=aexp.Settings(stall_timeout=0.5)) as repository:
        await saved(repository, "one")
        with pytest.raises(aexp.RemoteError) as caught:
            await repository.push()
        assert caught.value.kind == "timeout"
        assert refs_of(remote) == {}
        hook.unlink()
        assert [each.outcome for each in await repository.push()] == ["new"]


@pytest.mark.remotes
@pytest.mark.timeout(180)
@pytest.mark.parametrize("verb", ["push", "pull"])
async def test_killed_at_any_moment_nothing_is_half(
    repository: aexp.Repository,
    repo_path: Path,
    remote: Path,
    other_path: Path,
    git: Git,
    saved: Saved,
    refs_of: Refs,
    leftovers: Leftovers,
    fsck: Check,
    verb: str,
) -> None:
    """When the process is killed, every ref is old or new, and `recover()` sweeps what it left."""
    records = await saved(repository, *(f"try-{number}" for number in range(5)))
    wanted = {record.ref: record.rev for record in records}
    if verb == "pull":
        await repository.push()
    source, target = (repo_path, remote) if verb == "push" else (other_path, other_path)
    slow_down(git, source, after=0.1)
    delay, code = 0.0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        for ref in refs_of(target):
            git("update-ref", "-d", ref, cwd=target)
        code = await asyncio.to_thread(told, source, verb, delay)
        await asyncio.sleep(0.3)  # what the child of the dead process still does
        assert refs_of(target).items() <= wanted.items()
        fsck(target)
        age(source)
        async with aexp.Repository(source) as survivor:
            assert await survivor.recover() == []
        assert leftovers(source) == []
        delay += 0.04
    assert code == 0
    assert refs_of(target) == wanted


async def test_the_loop_lives_while_a_hundred_are_transferred(
    repository: aexp.Repository, other: aexp.Repository, saved: Saved
) -> None:
    """While a hundred experiments are pushed and pulled, the event loop is never away for long."""
    await saved(repository, *(f"try-{number}" for number in range(100)))
    away = [0.0]

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.002)
            away.append(time.perf_counter() - last)
            last = time.perf_counter()

    ticker = asyncio.ensure_future(tick())
    await repository.push()
    await other.pull()
    ticker.cancel()
    assert sorted(away)[len(away) * 99 // 100] < 0.1
