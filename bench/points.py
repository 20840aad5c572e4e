"""Figures of logging: points until they are safe on disk, beside a loop that writes them as lines of JSON."""

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from figures import Figure, compare
from scratch import folder, make_repository

import aexp

Log = Callable[[aexp.Experiment, Sequence[float]], Coroutine[Any, Any, None]]


def bare(path: Path, experiments: int, values: Sequence[float]) -> float:
    """Seconds of a plain loop that writes the same points, and syncs them once."""
    start = time.perf_counter()
    with path.open("w") as file:
        for _ in range(experiments):
            for step, value in enumerate(values):
                file.write(json.dumps({"name": "train/loss", "step": step, "value": value}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - start


async def log_nowait(experiment: aexp.Experiment, values: Sequence[float]) -> None:
    """Log without waiting; a point for which there is no room waits, and with it the loop gets its turn."""
    for step, value in enumerate(values):
        try:
            experiment.log_metric_nowait("train/loss", value, step)
        except aexp.QueueFull:
            await experiment.log_metric("train/loss", value, step)


async def log_awaited(experiment: aexp.Experiment, values: Sequence[float]) -> None:
    """Log and wait for each point to be accepted."""
    for step, value in enumerate(values):
        await experiment.log_metric("train/loss", value, step)


async def ours(path: Path, experiments: int, values: Sequence[float], log: Log) -> float:
    """Seconds to log `values` to each experiment, every one from its own task, until `flush()` has returned."""
    async with aexp.Repository(path) as repository:
        held = [await repository.experiment(f"log-{number}").init() for number in range(experiments)]
        await asyncio.to_thread(os.sync)
        start = time.perf_counter()
        await asyncio.gather(*(log(experiment, values) for experiment in held))
        await asyncio.gather(*(experiment.flush() for experiment in held))
        seconds = time.perf_counter() - start
        for experiment in held:
            await experiment.discard()
    return seconds


def turn(experiments: int, values: Sequence[float], log: Log) -> tuple[float, float]:
    """Seconds of ours and of the bare loop, one after the other, each in a fresh folder."""
    with folder() as path:
        theirs = bare(path / "points.jsonl", experiments, values)
    with folder() as path:
        return asyncio.run(ours(make_repository(path / "repository"), experiments, values, log)), theirs


def measure(quick: bool) -> list[Figure]:
    """A million points, into one experiment and into a thousand, with both ways to log."""
    figures = []
    sizes = [(1, 100_000), (100, 1_000)] if quick else [(1, 1_000_000), (1_000, 1_000)]
    for experiments, count in sizes:
        values = [random.random() for _ in range(count)]
        for name, log in {"log_metric_nowait": log_nowait, "await log_metric": log_awaited}.items():
            turns = [turn(experiments, values, log) for _ in range(3 if quick else 5)]
            mine, theirs = zip(*turns, strict=True)
            label = f"{name}, {experiments:,} x {count:,} points and flush"
            figures.append(compare(label, mine, theirs, "s", at_most=0.6))
    return figures
