"""Figures of hashing: artifacts whose content is in the store already, beside `md5sum` of the same files.

In seconds of the processor, which is what a core does, whoever else wants it; and by the clock, with as many `md5sum` at
once as we use threads.
"""

import asyncio
import os
import resource
import subprocess
import time
from pathlib import Path

from figures import Figure, compare
from scratch import folder, make_repository

import aexp

LARGE = 400 * 2**20
MANY = 10_000
SIZE = 64 * 2**10


Seconds = tuple[float, float]
"""By the clock, and of the processor."""


def spent() -> float:
    """Seconds of the processor that this process and its children have had."""
    told = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in told)


def bare(paths: list[Path], cores: int) -> Seconds:
    """What `md5sum` over `paths` takes, on `cores` cores."""
    names = b"\0".join(bytes(path) for path in paths)
    command = ["xargs", "-0", "-n", "200", "-P", str(cores), "md5sum"]
    start, before = time.perf_counter(), spent()
    subprocess.run(command, input=names, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, spent() - before


async def ours(path: Path, name: str) -> Seconds:
    """What it takes to log an artifact that nobody has hashed in this repository object, but whose content is in the store."""
    async with aexp.Repository(path) as repository:
        experiment = await repository.experiment(code="none").init()
        start, before = time.perf_counter(), spent()
        await experiment.log_artifact(name)
        seconds = time.perf_counter() - start, spent() - before
        await experiment.discard()
    return seconds


def measure(quick: bool) -> list[Figure]:
    """Throughput of a large file, and of a folder of files of 64 KiB."""
    large, many, rounds = (LARGE // 4, MANY // 4, 3) if quick else (LARGE, MANY, 5)
    cores = os.cpu_count() or 1
    with folder() as place:
        path = make_repository(place / "repository")
        (path / "large").write_bytes(os.urandom(2**20) * (large >> 20))
        (path / "many").mkdir()
        files = [path / "many" / f"{number:06}" for number in range(many)]
        block = os.urandom(SIZE - 8)
        for number, file in enumerate(files):
            file.write_bytes(number.to_bytes(8, "big") + block)
        time.sleep(0.1)
        for name in ("large", "many"):
            asyncio.run(ours(path, name))
        figures = []
        for name, paths, used in (("large", [path / "large"], 1), ("many", files, min(4, cores))):
            pairs = [(asyncio.run(ours(path, name)), bare(paths, used)) for _ in range(rounds)]
            size = large if name == "large" else many * SIZE
            title = "hash a file of" if name == "large" else f"hash {many:,} files of 64 KiB, in all"
            for unit, at_most in (("s", None), ("s CPU", 1.3)):
                sides = [[each[side][unit == "s CPU"] for each in pairs] for side in (0, 1)]
                title_here = f"{title} {size >> 20} MiB, beside md5sum" + f", {used} at once" * (unit == "s")
                figures.append(compare(title_here, *sides, unit, at_most=at_most))
    return figures
