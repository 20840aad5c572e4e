"""A line that is cut or that stalls anywhere: refs are old or new on both sides, and nothing is left."""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Git = Callable[..., str]
Refs = Callable[..., dict[str, str]]
Leftovers = Callable[[Path], list[str]]
Check = Callable[[Path], None]

pytestmark = [pytest.mark.remotes, pytest.mark.timeout(180)]

Proxy = Any  # that of conftest.py
SIZE = 12_000  # bytes of noise in each experiment
NAMES = ("one", "two", "three")


def settled(check: Callable[[], object], seconds: float = 5.0) -> bool:
    """Say whether *check* becomes false in time: a server notices later than we that the line is gone."""
    end = time.monotonic() + seconds
    while check() and time.monotonic() < end:
        time.sleep(0.02)
    return not check()


@pytest.mark.parametrize("stall", [False, True], ids=["cut", "stalled"])
@pytest.mark.parametrize("verb", ["push", "pull"])
async def test_wherever_the_line_fails_all_is_old_or_new(
    repo_path: Path,
    remote: Path,
    other_path: Path,
    proxy: Proxy,
    git: Git,
    refs_of: Refs,
    leftovers: Leftovers,
    fsck: Check,
    verb: str,
    stall: bool,
) -> None:
    """Cut or stalled after any few kilobytes, a transfer raises `RemoteError`, both sides are sound, and again it works."""
    settings = aexp.Settings(connect_timeout=0.6, stall_timeout=0.6)
    async with (
        aexp.Repository(repo_path, settings=settings) as near,
        aexp.Repository(other_path, settings=settings) as far,
    ):
        for name in NAMES:
            async with near.experiment(name) as experiment:
                await experiment.log_file("noise.bin", os.urandom(SIZE))
        wanted = refs_of(repo_path)
        if verb == "pull":
            proxy.set(2**30, stall=False)
            await near.push()
        target = remote if verb == "push" else other_path
        step = 9000 if stall else 2500
        limit, failures, done = 300, 0, False
        while not done:
            for ref in refs_of(target):
                git("update-ref", "-d", ref, cwd=target)
            forget_objects(git, target)
            proxy.set(limit, stall=stall)
            done = await succeeded(near.push() if verb == "push" else far.pull())
            failures += not done
            found = refs_of(target)
            assert found.items() <= wanted.items()
            if verb == "pull":
                assert found == (wanted if done else {})
            for path in (repo_path, other_path):
                assert leftovers(path) == []
            assert settled(lambda: [each for each in leftovers(remote) if not each.startswith("objects/tmp_objdir-")])
            fsck(remote)
            fsck(other_path)
            limit += step
        assert refs_of(target) == wanted
        git("prune", "--expire=now", cwd=remote)  # a git that receives over a cut line leaves its own quarantine
        assert leftovers(remote) == []
        assert failures >= (3 if stall else 12)


async def succeeded(call: Awaitable[list[aexp.Transfer]]) -> bool:
    """Say whether the transfer came to its end; what it raises otherwise must say that the line is to blame."""
    try:
        transfers = await call
    except aexp.RemoteError as error:
        if error.kind not in ("unreachable", "timeout"):
            raise
        return False
    return {each.outcome for each in transfers} <= {"new", "up to date"}


def forget_objects(git: Git, path: Path) -> None:
    """Drop every object that no ref holds, so that the next transfer has all to carry."""
    git("reflog", "expire", "--expire=now", "--all", cwd=path)
    git("-c", "gc.auto=0", "repack", "-a", "-d", "-q", cwd=path)
    git("prune", "--expire=now", cwd=path)
