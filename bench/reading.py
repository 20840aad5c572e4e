"""Figures of reading at scale: listing 10,000 records with the index and without, asking, and the event loop beside it."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pygit2
from figures import Figure, compare
from scratch import folder, git, make_repository
from ticker import figures_beside

import aexp

GROUP = 1_000
WHERE, SORT = "params.lr < 0.9 and metrics['train/loss'] > 0.1", "-metrics.acc"


async def fill(path: Path, count: int) -> None:
    """Save `count` experiments, in groups."""
    async with aexp.Repository(path) as repository:

        async def run(number: int) -> None:
            params = {"lr": random.random(), "seed": number, "model": {"depth": number % 7, "width": 64}}
            tags = [["small"], ["small", "again"], []][number % 3]
            async with repository.experiment(f"run-{number:06}", params=params, tags=tags) as experiment:
                for step in range(3):
                    await experiment.log_metrics({"train/loss": random.random(), "acc": random.random()}, step)

        for first in range(0, count, GROUP):
            await asyncio.gather(*(run(number) for number in range(first, min(count, first + GROUP))))


def index_of(path: Path) -> Path:
    """Where the index of the repository at `path` is."""
    return path / ".git" / "aexp" / "index.sqlite"


async def cold(path: Path, count: int) -> float:
    """Seconds to list all, in a repository just opened, without an index; it is written meanwhile."""
    index_of(path).unlink(missing_ok=True)
    async with aexp.Repository(path) as repository:
        return await timed(repository.experiments, count)


async def timed(read: Callable[[], Awaitable[aexp.Records]], at_least: int) -> float:
    """Seconds of `read`, which must find so many."""
    start = time.perf_counter()
    found = await read()
    seconds = time.perf_counter() - start
    assert len(found) >= at_least
    return seconds


def bare_git(path: Path, revs: Sequence[str]) -> float:
    """Seconds of a loop that reads, of the same commits, the two files that a record is made of."""
    repository = pygit2.Repository(str(path))
    start = time.perf_counter()
    found: list[Any] = []
    for rev in revs:
        commit: Any = repository[rev]
        inside = commit.tree / "aexp"
        found.append([orjson.loads((inside / name).data) for name in ("experiment.json", "metrics.json")])
    return time.perf_counter() - start


def bare_index(path: Path, count: int) -> float:
    """Seconds to read all rows of the index, whole, and to parse the JSON in them."""
    start = time.perf_counter()
    with closing(sqlite3.connect(index_of(path))) as file:
        rows = file.execute("SELECT * FROM records").fetchall()
        found = [[orjson.loads(cell) for cell in row[2:5]] for row in rows]
    seconds = time.perf_counter() - start
    assert len(found) == count
    return seconds


async def contend(path: Path, count: int, rounds: int) -> list[Figure]:
    """Ours and the bare loops, by turns."""
    name = f"list {count:,} records"
    revs = git(path, "for-each-ref", "--format=%(objectname)", "refs/exps").split()
    pairs = [(await cold(path, count), bare_git(path, revs)) for _ in range(rounds)]
    figures = [versus(f"{name}, the first time, beside reading the commits", pairs, at_most=4)]
    async with aexp.Repository(path) as repository:
        plain, asked = repository.experiments, partial(repository.experiments, where=WHERE, sort=SORT)
        await plain()
        pairs = [(await timed(plain, count), bare_index(path, count)) for _ in range(2 * rounds)]
        figures.append(versus(f"{name} with the index, beside reading it whole", pairs, at_most=4))
        pairs = [(await timed(asked, count // 2), await timed(plain, count)) for _ in range(2 * rounds)]
        figures.append(versus(f"{name} with where and sort, beside all of them", pairs, at_most=2))
    return figures


def versus(name: str, pairs: Sequence[tuple[float, float]], **target: float) -> Figure:
    """The figure of rounds of ours and bare."""
    ours, bare = ([seconds * 1000 for seconds in side] for side in zip(*pairs, strict=True))
    return compare(name, ours, bare, "ms", **target)


async def watch(path: Path, count: int) -> list[Figure]:
    """How late a ticker is beside reading: the first time, with the index, with where and sort."""
    index_of(path).unlink()
    async with aexp.Repository(path) as repository:
        plain, asked = repository.experiments, partial(repository.experiments, where=WHERE, sort=SORT)
        ways = {"for the first time": plain, "with the index": plain, "with where and sort": asked}
        figures = []
        for name, read in ways.items():
            figures += await figures_beside(f"beside listing {count:,} records {name}", read, held=True)
        return figures


async def fill_large(path: Path, points: int, files: int) -> None:
    """Save an experiment of one long series, and one that differs from HEAD in many files."""
    async with aexp.Repository(path) as repository:
        async with repository.experiment("long") as experiment:
            for step in range(points):
                await experiment.log_metric("loss", step * 0.37, step)
        for number in range(files):
            file = path / "many" / str(number // 500) / f"{number}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("many\n")
        git(path, "add", "many")
        async with repository.experiment("many") as experiment:
            await experiment.log_metric("loss", 1.0)


async def watch_large(path: Path) -> list[Figure]:
    """How late a ticker is beside reading what is large: a series of 15 MB, a file of it, and many files that differ."""
    async with aexp.Repository(path) as repository:
        ways = {
            "history() of a million points": partial(repository.history, "long"),
            "read() of as many": partial(repository.read, "long", "aexp/plots/metrics/loss.tsv"),
            "compare() of 50,000 files": partial(repository.compare, "HEAD", "many"),
        }
        return [
            figure for name, read in ways.items() for figure in await figures_beside(f"beside {name}", read, held=True)
        ]


def measure(quick: bool) -> list[Figure]:
    """Ten thousand records in packs; and, unless it is to be quick, what is large."""
    count = 1_000 if quick else 10_000
    with folder() as path:
        asyncio.run(fill(make_repository(path / "repository"), count))
        git(path / "repository", "gc", "--quiet")
        figures = asyncio.run(contend(path / "repository", count, 3 if quick else 5))
        figures += asyncio.run(watch(path / "repository", count))
    if not quick:
        with folder() as path:
            asyncio.run(fill_large(make_repository(path / "repository"), 1_000_000, 50_000))
            figures += asyncio.run(watch_large(path / "repository"))
    return figures
