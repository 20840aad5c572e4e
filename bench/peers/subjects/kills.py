"""A process that is killed (SIGKILL) after 500 points: how many of them a reader finds afterwards."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from subjects.job import Case, Job, Measures

POINTS, NAME = 500, "killed"
WORKER = Path(__file__).parents[1] / "worker.py"


def cases(quick: bool) -> list[Case]:
    """Killed at once after a loop with no pause, after one with a pause of 1 ms a step, and after a second of rest."""
    ways = [{"pause_ms": 0, "rest_ms": 0}, {"pause_ms": 1, "rest_ms": 0}, {"pause_ms": 0, "rest_ms": 1_000}]
    return ways[1:2] if quick else ways


def left_out(peer: str, case: Case) -> str | None:
    """Why this is not measured."""
    if peer == "dvc":
        return "has no series of points"
    return "" if peer in {"mlflow_batches", "dvclive"} else None


async def die(job: Job) -> None:
    """Log and be killed."""
    async with job.tracker() as tracker:
        run = await tracker.open(NAME, {"lr": 0.1})
        for step in range(POINTS):
            await tracker.log(run, step, {"loss": 1 / (step + 1)})
            if job.case["pause_ms"]:
                await asyncio.sleep(job.case["pause_ms"] / 1000)
        await asyncio.sleep(job.case["rest_ms"] / 1000)
        os.kill(os.getpid(), signal.SIGKILL)


async def measure(job: Job) -> Measures:
    """Start a process that dies, wait for what it left behind, and read."""
    done = subprocess.run([sys.executable, str(WORKER), "die", *sys.argv[2:]], check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == -signal.SIGKILL, done
    await asyncio.sleep(2)
    async with job.tracker() as tracker:
        return {"kept": await tracker.kept(NAME)}
