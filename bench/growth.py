"""Growth: what each call costs as a repository fills, and with the size of the tree, all through the public API."""

import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from figures import percentile
from scratch import folder, git, make_repository
from ticker import tick

import aexp

GROUP = 1_000
"""How many are open at once while a repository fills."""
BATCH = 100
WHERE, SORT = "params.lr < 0.1 and metrics['train/loss'] > 0.1", "-metrics.acc"
Row = dict[str, float]


class Filled:
    """A repository that fills with experiments, and what it costs at each size."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self.held: aexp.Repository | None = None

    async def one(self, repository: aexp.Repository) -> aexp.Experiment:
        """An experiment under way, with a few points."""
        self.count += 1
        params = {"lr": random.random(), "seed": self.count, "model": {"depth": self.count % 7}}
        experiment = await repository.experiment(f"run-{self.count:07}", params=params).init()
        for step in range(3):
            await experiment.log_metrics({"train/loss": random.random(), "acc": random.random()}, step)
        return experiment

    async def fill(self, size: int) -> float:
        """Save experiments until there are `size`; return the seconds it took."""
        start = time.perf_counter()
        async with aexp.Repository(self.path) as repository:
            while self.count < size:
                held = [await self.one(repository) for _ in range(min(GROUP, size - self.count))]
                await asyncio.gather(*(experiment.save() for experiment in held))
        return time.perf_counter() - start

    async def measure(self, rounds: int) -> Row:
        """What each call costs now, in ms."""
        row: Row = {}
        start = time.perf_counter()
        async with aexp.Repository(self.path) as repository:
            row["open"] = since(start)
            late: list[float] = []
            ticker = asyncio.create_task(tick(late))
            row["save one"] = statistics.median([await self.alone(repository) for _ in range(rounds)])
            row["save one of 100"] = statistics.median([await self.group(repository) for _ in range(rounds // 4 + 1)])
            name = f"run-{self.count:07}"
            row["list, first time"] = await timed(repository.experiments)
            row["list"] = await timed(repository.experiments, 5)
            row["list, where and sort"] = await timed(
                lambda: repository.experiments(where=WHERE, sort=SORT, limit=20), 5
            )
            row["get"] = await timed(lambda: repository.get(name), 5)
            row["push one"] = await timed(lambda: repository.push(name, remote="there"))
            ticker.cancel()
            row |= {"tick late, p99.9": percentile(late, 0.999), "tick late, max": max(late)}
        return row | self.sizes()

    async def alone(self, repository: aexp.Repository) -> float:
        """Save one experiment; return the ms."""
        experiment = await self.one(repository)
        await experiment.flush()
        return await timed(experiment.save)

    async def group(self, repository: aexp.Repository) -> float:
        """Save a hundred at once; return the ms for each."""
        held = [await self.one(repository) for _ in range(BATCH)]
        await held[0].flush()
        start = time.perf_counter()
        await asyncio.gather(*(experiment.save() for experiment in held))
        return since(start) / BATCH

    def sizes(self) -> Row:
        """What lies on the disk: counts, and MB."""
        common = self.path / ".git"
        packed = common / "packed-refs"
        return {
            "packs": len(list((common / "objects" / "pack").glob("*.pack"))),
            "loose refs": sum(len(names) for _, _, names in os.walk(common / "refs" / "exps")),
            "MB of packs": size_of(common / "objects"),
            "MB of packed-refs": packed.stat().st_size / 1e6 if packed.exists() else 0,
            "MB of the index": size_of(common / "aexp" / "index.sqlite"),
            "MB of journals": size_of(common / "aexp" / "done"),
        }

    async def upkeep(self) -> Row:
        """Seconds of `maintain()` and of `git gc`, and what a single save costs afterwards."""
        async with aexp.Repository(self.path) as repository:
            start = time.perf_counter()
            await repository.maintain()
            row = {"s of maintain": time.perf_counter() - start}
            row["save one after maintain"] = statistics.median([await self.alone(repository) for _ in range(10)])
            row["list after maintain"] = await timed(repository.experiments, 3)
        start = time.perf_counter()
        git(self.path, "gc", "--quiet")
        return (
            row | {"s of git gc": time.perf_counter() - start} | {f"{k} after gc": v for k, v in self.sizes().items()}
        )


def since(start: float) -> float:
    """Milliseconds since `start`."""
    return (time.perf_counter() - start) * 1000


async def timed(call: Callable[[], Awaitable[object]], rounds: int = 1) -> float:
    """Milliseconds that `call` takes, the median of `rounds`."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        await call()
        found.append(since(start))
    return statistics.median(found)


def size_of(path: Path) -> float:
    """The size of a file, or of all below a folder, in MB."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files) / 1e6


async def grow(sizes: Sequence[int], rounds: int = 20) -> list[Row]:
    """Fill one repository to each of `sizes`, and measure; then maintain it, and collect its garbage."""
    with folder() as place:
        path = make_repository(place / "repository")
        git(place, "init", "--quiet", "--bare", str(place / "remote"))
        git(path, "remote", "add", "there", str(place / "remote"))
        git(path, "push", "--quiet", "there", "HEAD")
        filled, rows = Filled(path), list[Row]()
        for size in sizes:
            seconds, before = await filled.fill(size), filled.count
            rows.append({"experiments": before, "s to fill": seconds} | await filled.measure(rounds))
            tell(rows[-1])
        rows.append({"experiments": filled.count} | await filled.upkeep())
        tell(rows[-1])
        return rows


async def trees(sizes: Sequence[int], rounds: int = 20) -> list[Row]:
    """What a save costs in repositories of so many files, by turns; the first turn, which reads the tree, does not count."""
    with folder() as place:
        filled = [Filled(make_repository(place / f"files-{size}", size)) for size in sizes]
        found: list[list[tuple[float, float]]] = [[] for _ in sizes]
        for each in filled:
            each.held = await aexp.Repository(each.path).open()
        for _ in range(rounds + 1):
            for each, times in zip(filled, found, strict=True):
                assert each.held is not None
                times.append((await each.alone(each.held), await each.group(each.held)))
        for each in filled:
            assert each.held is not None
            await each.held.aclose()
        rows = []
        for size, times in zip(sizes, found, strict=True):
            alone, group = (statistics.median(side) for side in zip(*times[1:], strict=True))
            rows.append({"files": size, "save one": alone, "save one of 100": group})
            tell(rows[-1])
        return rows


def tell(row: Row) -> None:
    """Show a row to whoever waits."""
    print("  " + ", ".join(f"{name}: {value:,.4g}" for name, value in row.items()), file=sys.stderr, flush=True)
