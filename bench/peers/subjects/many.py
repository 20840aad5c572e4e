"""Many runs open at once in one event loop, each logged to from a task of its own."""

import asyncio
import random
from typing import Any

from subjects.job import Case, Job, Measures, Ticker, for_each, held, timed
from trackers.tracker import Tracker

STEPS, METRICS = 20, 2
SLOW = {
    "dvclive_apart": (100, "a thousand take many minutes"),
    "mlflow": (100, "a thousand take many minutes"),
    "trackio": (100, "a thousand take many minutes"),
}


def cases(quick: bool) -> list[Case]:
    """A hundred and a thousand."""
    return [{"runs": runs} for runs in ([10] if quick else [100, 1_000])]


def left_out(peer: str, case: Case) -> str | None:
    """Why this is not measured; DVC and DVCLive, as they save DVC experiments, have one run at a time."""
    if peer in {"dvc", "dvclive"}:
        return "one run at a time: parameters and metrics are files of the one work tree"
    if peer == "mlflow_batches":
        return ""
    most, reason = SLOW.get(peer, (case["runs"], ""))
    return reason if case["runs"] > most else None


async def work(tracker: Tracker, run: Any) -> None:
    """Log, and let the others have their turn after each step."""
    for step in range(STEPS):
        await tracker.log(run, step, {f"metric{number}": random.random() for number in range(METRICS)})
        await asyncio.sleep(0)


async def measure(job: Job) -> Measures:
    """Open all, log, look at what they hold, end all; how late a ticker is meanwhile."""
    count = job.case["runs"]
    async with job.tracker() as tracker:
        first = await tracker.open("first", {"lr": 0.1})  # what the tracker holds once
        await tracker.log(first, 0, {"metric0": 0.5})
        before, runs = held(), list[Any]()

        async def open_all() -> None:
            for number in range(count):
                runs.append(await tracker.open(f"run-{number}", {"lr": 0.1, "seed": number}))
                await asyncio.sleep(0)

        async with Ticker() as ticker:
            opening = await timed(open_all())
        result = {"open_s": opening, **ticker.measures("opening")}
        async with Ticker() as ticker:
            logging = await timed(asyncio.gather(*(work(tracker, run) for run in runs)))
        result |= {"log_s": logging, "point_us": logging / count / STEPS / METRICS * 1e6, **ticker.measures("logging")}
        result |= for_each(before, held(), count)
        async with Ticker() as ticker:
            ending = await timed(tracker.close_all([first, *runs]))
        return result | {"close_s": ending, **ticker.measures("ending")}
