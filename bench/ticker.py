"""Figures of the event loop: how late a 1 ms ticker is beside experiments that log and save."""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from figures import Figure, percentile
from scratch import folder, make_repository

import aexp

TICK = 0.001
POINTS = 100
Start = Callable[[int], "AbstractAsyncContextManager[aexp.Experiment | None]"]

Work = Callable[[Start, int], Coroutine[Any, Any, None]]


async def tick(lateness: list[float]) -> None:
    """Sleep for 1 ms at a time, without end, and note in ms how much longer each sleep took."""
    before = time.perf_counter()
    while True:
        await asyncio.sleep(TICK)
        now = time.perf_counter()
        lateness.append((now - before - TICK) * 1000)
        before = now


async def work_paced(start: Start, number: int) -> None:
    """An experiment among many: a point every 50 ms or so, and its end when it is done."""
    await asyncio.sleep(random.uniform(0, 1))
    async with start(number) as experiment:
        for step in range(POINTS):
            await asyncio.sleep(random.uniform(0, 0.1))
            if experiment is not None:
                await experiment.log_metric("train/loss", random.random(), step)


async def work_at_once(start: Start, number: int) -> None:
    """The hardest case: all start, log and end in the same moment; most of it is what the tasks themselves cost."""
    async with start(number) as experiment:
        for step in range(POINTS):
            await asyncio.sleep(0)
            if experiment is not None:
                await experiment.log_metric("train/loss", random.random(), step)


def nothing(_number: int) -> AbstractAsyncContextManager[None]:
    """No experiment."""
    return nullcontext()


@contextmanager
def collector_watched() -> Iterator[list[float]]:
    """The passes of the garbage collector in the block, in ms: no thread of the process runs during one."""
    passes, begun = [0.0], [0.0]

    def note(phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            begun[0] = time.perf_counter()
        else:
            passes.append((time.perf_counter() - begun[0]) * 1000)

    gc.callbacks.append(note)
    try:
        yield passes
    finally:
        gc.callbacks.remove(note)


async def figures_beside(name: str, work: Callable[[], Awaitable[object]], *, held: bool = False) -> list[Figure]:
    """How late the ticker was while `work` was going on; `held` against the targets, or for comparison only."""
    lateness: list[float] = []
    ticker = asyncio.create_task(tick(lateness))
    await asyncio.sleep(0.1)
    gc.collect()
    await asyncio.sleep(0.01)
    lateness.clear()
    with collector_watched() as passes:
        await work()
        await asyncio.sleep(0.01)
    ticker.cancel()
    return [
        Figure(f"ticker {name}: p50", percentile(lateness, 0.5), "ms"),
        Figure(f"ticker {name}: p99", percentile(lateness, 0.99), "ms", at_most=5 if held else None),
        Figure(f"ticker {name}: p99.9", percentile(lateness, 0.999), "ms"),
        Figure(f"ticker {name}: max", max(lateness), "ms", at_most=20 if held else None),
        Figure(f"ticker {name}: longest garbage collection", max(passes), "ms"),
    ]


async def start_all(work: Work, start: Start, count: int) -> None:
    """Work in `count` tasks."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(work(start, number))


async def watch(path: Path, count: int) -> list[Figure]:
    """The ticker beside nothing, beside tasks that only sleep, and beside the same tasks with an experiment each."""
    result = await figures_beside("beside an idle loop", lambda: asyncio.sleep(3))
    for name, work in {"paced": work_paced, "all at once": work_at_once}.items():
        async with aexp.Repository(path) as repository:

            def experiment(number: int, name: str = name, repository: aexp.Repository = repository) -> aexp.Experiment:
                return repository.experiment(f"{name.replace(' ', '-')}-{number}", params={"seed": number})

            bare, ours = partial(start_all, work, nothing, count), partial(start_all, work, experiment, count)
            result += await figures_beside(f"beside {count:,} tasks without aexp, {name}", bare)
            result += await figures_beside(f"beside {count:,} experiments, {name}", ours, held=work is work_paced)
    result += await after_freeze(path, count)
    return result


async def after_freeze(path: Path, count: int) -> list[Figure]:
    """The same paced experiments in a program that tells the collector, once, to leave what it imported alone."""
    gc.collect()
    gc.freeze()
    try:
        async with aexp.Repository(path) as repository:

            def experiment(number: int) -> aexp.Experiment:
                return repository.experiment(f"frozen-{number}", params={"seed": number})

            ours = partial(start_all, work_paced, experiment, count)
            return await figures_beside(f"beside {count:,} experiments, paced, after gc.freeze()", ours, held=True)
    finally:
        gc.unfreeze()


def measure(quick: bool) -> list[Figure]:
    """A thousand experiments that log 100 points each from their own tasks, and save."""
    with folder() as path:
        return asyncio.run(watch(make_repository(path / "repository"), 100 if quick else 1_000))
