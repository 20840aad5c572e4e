"""Figures of private checkouts of 5,000 files, beside `git worktree add` of the same files."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from figures import Figure, compare
from scratch import folder, git, make_repository

import aexp

FILES = 5_000


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


async def visit(repository: aexp.Repository) -> tuple[float, float]:
    """Milliseconds that a workspace takes to open, and, after one file was changed in it, to close."""
    async with repository.experiment() as experiment:
        start = time.perf_counter()
        async with experiment.workspace() as path:
            opened = time.perf_counter()
            (path / "area0" / "part0" / "module0.py").write_text("value = 1  # changed\n")
            closing = time.perf_counter()
        return (opened - start) * 1000, (time.perf_counter() - closing) * 1000


async def contend(path: Path, rounds: int) -> list[Figure]:
    """By turns: a worktree, a checkout from nothing, and one that was used before."""
    bare, first, again, closing = [], [], [], []
    for number in range(rounds):
        worktree = path.with_name(f"worktree-{number}")
        bare.append(timed(lambda to=worktree: git(path, "worktree", "add", "--quiet", "--detach", str(to))))  # type: ignore[misc]
        git(path, "worktree", "remove", "--force", str(worktree))
        async with aexp.Repository(path, settings=aexp.Settings(idle_workspaces=0)) as repository:
            first.append((await visit(repository))[0])
        async with aexp.Repository(path) as repository:
            await visit(repository)
            opened, closed = await visit(repository)
            again.append(opened)
            closing.append(closed)
        async with aexp.Repository(path, settings=aexp.Settings(idle_workspaces=0)) as repository:
            await visit(repository)  # nothing waits any more
    return [
        compare(f"open a workspace of {FILES:,} files, beside git worktree add", first, bare, "ms", at_most=1.5),
        compare(f"open the next one of {FILES:,} files, beside git worktree add", again, bare, "ms", at_most=0.45),
        compare(f"take from a workspace of {FILES:,} files, and clean it", closing, bare, "ms"),
    ]


def measure(quick: bool) -> list[Figure]:
    """A repository of 5,000 files."""
    with folder() as path:
        repository = make_repository(path / "repository", FILES)
        return asyncio.run(contend(repository, 3 if quick else 7))
