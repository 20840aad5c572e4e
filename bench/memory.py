"""Memory: very many points logged to many experiments that are open at once, all of them saved."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from scratch import folder, git, make_repository

import aexp

CHUNK = 50
"""Points of one experiment before it is the turn of the next."""


def resident() -> float:
    """The resident memory of this process now, in MB of 10**6 bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak() -> float:
    """The most that it ever was (`VmHWM`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("/proc tells no VmHWM")


async def log(experiment: aexp.Experiment, first: int, last: int) -> None:
    """Log the points of the steps from `first` to `last`."""
    for step in range(first, last):
        await experiment.log_metric("train/loss", 1 / (step + 1), step)


async def fill(path: Path, experiments: int, points: int, *, together: bool = True) -> dict[str, float]:
    """Log `points` to each of `experiments`, by turns or one after the other, and save all at once; say what it took."""
    found: dict[str, float] = {"experiments": experiments, "points": experiments * points, "imported": resident()}
    async with aexp.Repository(path) as repository:
        start = time.perf_counter()
        held = [await repository.experiment(f"run-{number:05}").init() for number in range(experiments)]
        rounds = range(0, points, CHUNK) if together else [0]
        for first in rounds:
            last = min(points, first + CHUNK) if together else points
            for experiment in held:
                await log(experiment, first, last)
            await asyncio.sleep(0)
            if first % (CHUNK * 200) == 0:
                print(f"  {experiments * last:>12,} points, {resident():.0f} MB", file=sys.stderr, flush=True)
        await held[0].flush()
        found |= {"seconds to log": time.perf_counter() - start, "logged": resident()}
        start = time.perf_counter()
        await asyncio.gather(*(experiment.save() for experiment in held))
        found |= {"seconds to save": time.perf_counter() - start, "peak": peak()}
        start = time.perf_counter()
    found |= {"seconds to close": time.perf_counter() - start}
    async with aexp.Repository(path) as repository:
        series = (await repository.history(f"run-{experiments - 1:05}"))["train/loss"]
        assert list(series.steps) == list(range(points))
        assert series.values[-1] == 1 / points
    assert len(git(path, "for-each-ref", "refs/exps").splitlines()) == experiments
    return found


def main() -> None:
    """Print what it took, as JSON; the arguments are experiments, points of each, and "apart" to log them one by one."""
    experiments, points = int(sys.argv[1]), int(sys.argv[2])
    with folder() as place:
        path = make_repository(place / "repository")
        print(json.dumps(asyncio.run(fill(path, experiments, points, together="apart" not in sys.argv[3:]))))


if __name__ == "__main__":
    main()
