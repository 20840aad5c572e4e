"""Figures of many open experiments: threads, children, file descriptors and memory."""

import asyncio
import gc
import os
from pathlib import Path

from attrs import frozen
from figures import Figure
from scratch import folder, make_repository

import aexp

PROC = Path("/proc/self")
POOL = 8  # the pool of threads for the whole process starts its threads when they are first needed


@frozen
class Usage:
    """What this process holds."""

    threads: int
    children: int
    descriptors: int
    bytes: int

    @classmethod
    def now(cls) -> "Usage":
        """What this process holds now, garbage collected."""
        gc.collect()
        tasks = list((PROC / "task").iterdir())
        children = sum(len((task / "children").read_text().split()) for task in tasks)
        resident = int((PROC / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return cls(len(tasks), children, len(list((PROC / "fd").iterdir())), resident)

    def since(self, before: "Usage", count: int, what: str) -> list[Figure]:
        """What `count` experiments have added."""
        return [
            Figure(f"threads added by {count:,} {what}", self.threads - before.threads, "", at_most=POOL),
            Figure(f"children added by {count:,} {what}", self.children - before.children, "", at_most=0),
            Figure(f"descriptors added by {count:,} {what}", self.descriptors - before.descriptors, "", at_most=0),
            Figure(
                f"memory for each of {count:,} {what}", (self.bytes - before.bytes) / count / 1024, "KB", at_most=12
            ),
        ]


async def start(repository: aexp.Repository, number: int) -> aexp.Experiment:
    """An open experiment."""
    return await repository.experiment(f"open-{number}", params={"lr": 0.1, "seed": number}).init()


async def hold(path: Path, count: int) -> list[Figure]:
    """Open `count` experiments, log to each, and look at the process at both moments."""
    async with aexp.Repository(path) as repository:
        first = await start(repository, count)
        await first.log_metric("loss", 0.5, step=0)
        await first.flush()
        before = Usage.now()
        held = [await start(repository, number) for number in range(count)]
        opened = Usage.now()
        for step in range(10):
            for experiment in held:
                await experiment.log_metrics({"loss": 1 / (step + 1), "acc": step / 10}, step=step)
            await first.flush()  # one queue and one journal for all: what was logged before is written
        logged = Usage.now()
        for experiment in [*held, first]:
            await experiment.discard()
    return [
        *opened.since(before, count, "open experiments"),
        *logged.since(before, count, "that have logged 20 points"),
    ]


def measure(quick: bool) -> list[Figure]:
    """Ten thousand experiments at once; nothing where there is no /proc."""
    if not (PROC / "task").exists():
        return []
    with folder() as path:
        return asyncio.run(hold(make_repository(path / "repository"), 1_000 if quick else 10_000))
