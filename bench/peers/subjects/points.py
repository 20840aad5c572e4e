"""Logging: ten metrics a step into one run, until all of it is kept."""

from subjects.job import Case, Job, Measures, timed

METRICS = 10
SLOW = {
    "dvclive_apart": (10_000, "each step reads the whole run again, so that 100,000 points take minutes"),
    "mlflow": (10_000, "100,000 take minutes"),
}


def cases(quick: bool) -> list[Case]:
    """Two sizes, as one peer does not manage the large one."""
    return [{"points": points} for points in ([1_000] if quick else [10_000, 100_000])]


def left_out(peer: str, case: Case) -> str | None:
    """Why this is not measured."""
    if peer in {"dvc", "dvclive"}:
        return ""
    most, reason = SLOW.get(peer, (case["points"], ""))
    return reason if case["points"] > most else None


async def measure(job: Job) -> Measures:
    """Seconds of the loop, and until the run has ended; it is open before."""
    rows = [
        (step, {f"train/metric{number}": 1 / (step + number + 1) for number in range(METRICS)})
        for step in range(job.case["points"] // METRICS)
    ]
    async with job.tracker() as tracker:
        run = await tracker.open("one", {"lr": 0.1})
        loop = await timed(tracker.log_all(run, rows))
        end = await timed(tracker.close(run))
    return {"loop_s": loop, "whole_s": loop + end}
