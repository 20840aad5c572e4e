"""Saving a short run: alone and a hundred at once, in small and large trees, with few and many saved before."""

import statistics
from typing import Any

from subjects.job import Case, Job, Measures, timed
from trackers.tracker import Tracker

SINGLES, GROUP, STEPS = 5, 100, 5
COPIES = True
NO_GIT = {"plain", "mlflow", "trackio", "wandb", "tensorboard"}


def cases(quick: bool) -> list[Case]:
    """Files in the tree, and experiments already there."""
    if quick:
        return [{"files": 10, "existing": 10}]
    return [{"files": files, "existing": existing} for files in (10, 5_000) for existing in (10, 100, 1_000)]


def left_out(peer: str, case: Case) -> str | None:
    """Why this is not measured."""
    if peer in {"mlflow_batches", "dvclive_apart"}:
        return ""
    if peer == "mlflow" and case["existing"] > 100 and case["files"] == 10:
        return "making so many takes minutes"
    if peer in NO_GIT and case["files"] > 10:
        return "keeps no code, so the files in the tree do not matter"
    if peer in {"trackio", "wandb", "tensorboard", "plain"} and case["existing"] > 10:
        return "keeps runs apart, so that those already there do not matter" if peer != "trackio" else ""
    return None


async def fill(job: Job) -> None:
    """Save what is there before."""
    async with job.tracker() as tracker:
        await save_many(tracker, "before", job.case["existing"])


async def begin(tracker: Tracker, name: str) -> Any:
    """A run that has logged a little."""
    run = await tracker.open(name, {"lr": 0.1, "seed": len(name)})
    for step in range(STEPS):
        await tracker.log(run, step, {"loss": 1 / (step + 1), "acc": step / 10})
    return run


async def save_many(tracker: Tracker, name: str, count: int) -> None:
    """Begin and end `count` runs."""
    await tracker.close_all([await begin(tracker, f"{name}-{number}") for number in range(count)])


async def measure(job: Job) -> Measures:
    """One after another, begun and ended; then a hundred at once; the first of a process does not count."""
    async with job.tracker() as tracker:
        await tracker.close(await begin(tracker, "first"))
        begun, ended = [], []
        for number in range(SINGLES):
            runs: list[Any] = []

            async def start(name: str, runs: list[Any] = runs) -> None:
                runs.append(await begin(tracker, name))

            begun.append(await timed(start(f"single-{number}")))
            ended.append(await timed(tracker.close(runs[0])))
        result = {
            "close_ms": statistics.median(ended) * 1000,
            "whole_ms": statistics.median(map(sum, zip(begun, ended, strict=True))) * 1000,
        }
        if not job.adapter.startswith(("of_dvc", "of_wandb")):  # a hundred of these take minutes, and gain nothing
            group = [await begin(tracker, f"group-{number}") for number in range(GROUP)]
            result["group_ms"] = await timed(tracker.close_all(group)) / GROUP * 1000
        return result
