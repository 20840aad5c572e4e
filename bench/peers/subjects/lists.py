"""Listing all runs with their parameters and last values, for the first time and again."""

import statistics

from subjects.job import Case, Job, Measures, timed
from subjects.saves import save_many

AGAIN = 5
SLOW = {
    "dvc": (1_000, "10,000 take minutes the first time"),
    "tensorboard": (1_000, "every run is read whole"),
    "mlflow": (1_000, "making so many takes minutes"),
    "trackio": (100, "making so many takes minutes"),
}


def cases(quick: bool) -> list[Case]:
    """How many there are."""
    return [{"existing": existing} for existing in ([10] if quick else [100, 1_000, 10_000])]


def left_out(peer: str, case: Case) -> str | None:
    """Why this is not measured."""
    if peer in {"dvclive", "dvclive_apart", "mlflow_batches"}:
        return ""
    if peer == "wandb":
        return "runs that are offline cannot be listed"
    most, reason = SLOW.get(peer, (case["existing"], ""))
    return reason if case["existing"] > most else None


async def fill(job: Job) -> None:
    """Save so many."""
    async with job.tracker() as tracker:
        for first in range(0, job.case["existing"], 500):
            await save_many(tracker, f"run-{first}", min(500, job.case["existing"] - first))


async def measure(job: Job) -> Measures:
    """With no cache, the tracker opened anew within the time; then again, in the same process."""
    tracker = job.tracker()
    tracker.forget()

    async def first() -> None:
        await tracker.__aenter__()
        assert await tracker.count() == job.case["existing"]

    cold = await timed(first())
    again = [await timed(tracker.count()) for _ in range(AGAIN)]
    await tracker.__aexit__(None, None, None)
    return {"first_ms": cold * 1000, "again_ms": statistics.median(again) * 1000}
