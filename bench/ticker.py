"""Figures of the event loop: how late a 1 ms ticker is beside experiments that log and save."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
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


async def lateness_beside(work: Callable[[], Awaitable[object]]) -> list[float]:
    """How late the ticker was, tick by tick, while `work` was going on."""
    lateness: list[float] = []
    ticker = asyncio.create_task(tick(lateness))
    await asyncio.sleep(0.1)
    lateness.clear()
    await work()
    await asyncio.sleep(0.01)
    ticker.cancel()
    return lateness


def figures(name: str, lateness: list[float], *, held: bool) -> list[Figure]:
    """The figures of one ticker; `held` against the targets, or for comparison only."""
    return [
        Figure(f"ticker {name}: p50", percentile(lateness, 0.5), "ms"),
        Figure(f"ticker {name}: p99", percentile(lateness, 0.99), "ms", at_most=5 if held else None),
        Figure(f"ticker {name}: max", max(lateness), "ms", at_most=20 if held else None),
    ]


async def start_all(work: Work, start: Start, count: int) -> None:
    """Work in `count` tasks."""
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(work(start, number))


async def watch(path: Path, count: int) -> list[Figure]:
    """The ticker beside nothing, beside tasks that only sleep, and beside the same tasks with an experiment each."""
    result = figures("beside an idle loop", await lateness_beside(lambda: asyncio.sleep(3)), held=False)
    for name, work in {"paced": work_paced, "all at once": work_at_once}.items():
        async with aexp.Repository(path) as repository:

            def experiment(number: int, name: str = name, repository: aexp.Repository = repository) -> aexp.Experiment:
                return repository.experiment(f"{name.replace(' ', '-')}-{number}", params={"seed": number})

            sleeping = await lateness_beside(partial(start_all, work, nothing, count))
            working = await lateness_beside(partial(start_all, work, experiment, count))
        result += figures(f"beside {count:,} tasks without aexp, {name}", sleeping, held=False)
        result += figures(f"beside {count:,} experiments, {name}", working, held=work is work_paced)
    return result


def measure(quick: bool) -> list[Figure]:
    """A thousand experiments that log 100 points each from their own tasks, and save."""
    with folder() as path:
        return asyncio.run(watch(make_repository(path / "repository"), 100 if quick else 1_000))
