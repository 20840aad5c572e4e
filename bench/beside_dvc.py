"""Figures of listing beside DVC: `experiments()` and `dvc.api.exp_show()` over the same experiments, call against call.

Cold means that neither has looked at these commits: DVC's cache of experiments and our index are removed, and the
repository is opened anew, within the time. Warm calls are repeated calls of one process; ours are made on a repository
that stays open, which DVC's API does not have. No figures where DVC is not installed.
"""

import asyncio
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from figures import Figure
from reading import fill, index_of
from scratch import folder, git, make_repository

import aexp


async def timed(call: Callable[[], Awaitable[aexp.Records]], count: int) -> float:
    """Seconds of a call of ours, which must find all."""
    start = time.perf_counter()
    found = await call()
    seconds = time.perf_counter() - start
    assert len(found) == count
    return seconds


async def opened_anew(path: Path) -> aexp.Records:
    """What a program does that has just started."""
    async with aexp.Repository(path) as repository:
        return await repository.experiments()


def timed_theirs(path: Path, count: int) -> float:
    """Seconds of a call of DVC's, which must find all."""
    import dvc.api  # noqa: PLC0415  # only where it is installed

    start = time.perf_counter()
    rows = dvc.api.exp_show(repo=str(path))
    seconds = time.perf_counter() - start
    assert sum(row["Experiment"] is not None for row in rows) == count
    return seconds


def forget(path: Path) -> None:
    """Remove what both keep of commits that they have read."""
    index_of(path).unlink(missing_ok=True)
    shutil.rmtree(path / ".dvc" / "tmp" / "exps" / "cache", ignore_errors=True)


async def contend(path: Path, count: int, rounds: int) -> list[Figure]:
    """By turns, each cold and then five times warm."""
    cold, warm = [], []
    for _ in range(rounds):
        forget(path)
        cold.append((await timed(partial(opened_anew, path), count), timed_theirs(path, count)))
        async with aexp.Repository(path) as repository:
            await repository.experiments()
            warm += [(await timed(repository.experiments, count), timed_theirs(path, count)) for _ in range(5)]
    return [
        times_faster(f"list {count:,} experiments for the first time, beside DVC", cold, 100),
        times_faster(f"list {count:,} experiments again, beside DVC", warm, 20),
    ]


def times_faster(name: str, pairs: list[tuple[float, float]], at_least: float) -> Figure:
    """How many times as long DVC takes."""
    mine, other = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    return Figure(name, mine, "ms", other, ratio, at_least=at_least)


def measure(quick: bool) -> list[Figure]:
    """A thousand experiments in a repository that DVC knows."""
    if find_spec("dvc") is None:
        return []
    count = 1_000
    with folder() as path:
        repository = make_repository(path / "repository")
        (repository / ".dvc").mkdir()
        (repository / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
        (repository / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
        git(repository, "add", ".dvc")
        git(repository, "commit", "--quiet", "--message=dvc")
        asyncio.run(fill(repository, count))
        git(repository, "gc", "--quiet")
        return asyncio.run(contend(repository, count, 1 if quick else 3))
