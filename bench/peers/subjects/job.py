"""What a fresh process is given to do, and what it looks at in itself."""

import asyncio
import gc
import importlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trackers.tracker import Tracker

Case = dict[str, int]
Measures = dict[str, float]
PROC = Path("/proc")


@dataclass(frozen=True)
class Job:
    """One measurement of one tracker in a fresh process, whose current folder is `folder`."""

    adapter: str
    imports: str
    case: Case
    folder: Path

    def tracker(self) -> Tracker:
        """The tracker over the folder; its adapter is `module:Class`."""
        module, name = self.adapter.split(":")
        kind: Callable[[Path], Tracker] = getattr(importlib.import_module(f"trackers.{module}"), name)
        return kind(self.folder)


async def timed(work: Awaitable[object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


class Ticker:
    """How late a task wakes that sleeps for 1 ms at a time: what other tasks of the loop have to bear."""

    TICK = 0.001

    def __init__(self) -> None:
        self._late: list[float] = []

    async def __aenter__(self) -> "Ticker":
        """Begin to tick."""
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0.05)
        gc.collect()
        await asyncio.sleep(0.01)
        self._late.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop; a stall that is going on is counted."""
        await asyncio.sleep(0.01)
        self._task.cancel()

    async def _tick(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(self.TICK)
            now = time.perf_counter()
            self._late.append((now - before - self.TICK) * 1000)
            before = now

    def measures(self, prefix: str) -> Measures:
        """Percentiles in ms."""
        ordered = sorted(self._late)
        shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
        return {
            f"{prefix}_{name}_ms": ordered[min(len(ordered) - 1, int(share * len(ordered)))]
            for name, share in shares.items()
        }


def held(children: bool = True) -> Measures:
    """Threads, descriptors and resident memory of this process and, with `children`, of all that it started."""
    gc.collect()
    totals = {"processes": 0.0, "threads": 0.0, "descriptors": 0.0, "bytes": 0.0}
    waiting = [str(os.getpid())]
    while waiting:
        process = PROC / waiting.pop()
        with suppress(FileNotFoundError, PermissionError):
            tasks = list((process / "task").iterdir())
            totals["processes"] += 1
            totals["threads"] += len(tasks)
            totals["descriptors"] += len(list((process / "fd").iterdir()))
            totals["bytes"] += int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            if children:
                waiting += [child for task in tasks for child in (task / "children").read_text().split()]
    return totals


def for_each(before: Mapping[str, float], after: Mapping[str, float], count: int) -> Measures:
    """What each of `count` has added."""
    return {f"{name}_each": (after[name] - before[name]) / count for name in before}
