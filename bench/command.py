"""Figures of the command line: how long until it answers."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from figures import Figure, compare
from scratch import folder, make_repository

import aexp

RECORDS = 1000
BARE = ("-c", "import cyclopts, rich")
"""What the command stands on, and no more."""
COMMAND = ("-m", "aexp_command")


async def fill(path: Path, count: int) -> None:
    """Save `count` experiments, each with a parameter and a metric."""
    async with aexp.Repository(path) as repository, asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(repository, number))


async def one(repository: aexp.Repository, number: int) -> None:
    """Save one experiment."""
    async with repository.experiment(f"e-{number}", params={"lr": number}) as experiment:
        await experiment.log_metric("loss", 1 / (number + 1), 0)


def seconds(arguments: Sequence[str], path: Path) -> float:
    """The wall time of a fresh interpreter with these arguments, in `path`."""
    environment = os.environ | {"PYTHONPATH": str(Path(aexp.__file__).parents[1])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the others were compiled when they were installed
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=path, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(quick: bool) -> list[Figure]:
    """Fresh processes by turns; the bare one imports what every command line of this kind imports."""
    with folder() as place:
        path = make_repository(place / "repository")
        asyncio.run(fill(path, RECORDS))
        targets = {"aexp --help": (("--help",), 1.5), f"aexp list of {RECORDS:,}": (("list",), 3.0)}
        calls = {"bare": BARE} | {name: (*COMMAND, *words) for name, (words, _) in targets.items()}
        rounds = [{name: seconds(call, path) for name, call in calls.items()} for _ in range(6 if quick else 22)]
    times = {name: [each[name] * 1000 for each in rounds[1:]] for name in calls}
    return [compare(name, times[name], times["bare"], "ms", at_most=at_most) for name, (_, at_most) in targets.items()]
