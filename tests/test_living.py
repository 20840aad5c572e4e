"""Reading journals that others write: full segments, failed syncs, torn tails, killed writers, and which name wins."""

import asyncio
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import aexp
from aexp._living import Living

WRITER = """
import asyncio, sys
import aexp

async def main():
    settings = aexp.Settings(segment_size=int(sys.argv[2]), write_interval=0.005)
    async with aexp.Repository(sys.argv[1], settings=settings) as repository:
        experiment = await repository.experiment("it").init()
        for step in range(10**9):
            await experiment.log_metric("m", float(step), step)
            if step % 100 == 0:
                await experiment.flush()
                print(step, flush=True)

asyncio.run(main())
"""


async def logged(experiment: aexp.Experiment, first: int, after: int) -> None:
    """Log the points *first* to *after* - 1 of `m`, each with its step for its value."""
    for step in range(first, after):
        await experiment.log_metric("m", float(step), step)


def values(series: dict[str, aexp.Series]) -> list[float]:
    """The values of `m`."""
    return list(series["m"].values)


# ---- history of what is not saved ----


async def test_all_that_was_logged_here_is_there(repository: aexp.Repository) -> None:
    """`history` has every point accepted before it was asked for, by name, id and ref, with steps and timestamps."""
    experiment = await repository.experiment("it").init()
    for count in range(1, 30):
        await experiment.log_metrics({"m": float(count), "train/loss": count / 7}, count, timestamp=1000.0 + count)
        for name in ("it", experiment.id, experiment.ref):
            series = await repository.history(name)
            assert series.keys() == {"m", "train/loss"}
            assert list(series["train/loss"].values) == [each / 7 for each in range(1, count + 1)]
            assert list(series["m"].steps) == list(range(1, count + 1))
            assert list(series["m"].timestamps) == [1000.0 + each for each in range(1, count + 1)]
        assert (await repository.history("it", "m")).keys() == {"m"}
        with pytest.raises(KeyError, match="loss"):
            await repository.history("it", "loss")
    running = await repository.history("it")
    await experiment.save()
    assert await repository.history("it") == running


async def test_another_process_is_read_while_it_writes(repository: aexp.Repository, repo_path: Path) -> None:
    """The series of another process's experiment is a prefix of what it logs, and grows."""
    pipe = asyncio.subprocess.PIPE
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, repo_path, "100000", stdout=pipe)
    assert writer.stdout is not None
    last = 0
    for _ in range(10):
        flushed = int(await writer.stdout.readline())
        found = values(await repository.history("it"))
        assert found == [float(step) for step in range(len(found))]
        assert len(found) >= max(flushed, last)
        last = len(found)
    writer.kill()
    await writer.wait()


async def test_what_was_left_is_read_before_it_is_recovered(repo_path: Path) -> None:
    """An interrupted experiment has its full series, by name, id and ref, before and after `recover()`."""
    async with aexp.Repository(repo_path) as dying:
        experiment = await dying.experiment("it").init()
        await logged(experiment, 0, 5)
        rev = await experiment.make_checkpoint()
        await logged(experiment, 5, 10)
    async with aexp.Repository(repo_path) as repository:
        for name in ("it", experiment.id, experiment.ref):
            assert values(await repository.history(name)) == [float(step) for step in range(10)]
        assert values(await repository.history(rev)) == [float(step) for step in range(5)]
        await repository.recover()
        assert values(await repository.history("it")) == [float(step) for step in range(10)]


async def test_which_one_a_name_means(repo_path: Path) -> None:
    """A running experiment goes before a saved one of its name, and that before one that was left; revs and ids decide."""
    async with aexp.Repository(repo_path) as dying:
        left = await dying.experiment("it").init()
        await left.log_metric("m", 1.0)
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it") as saved:
            await saved.log_metric("m", 2.0)
        assert saved.record is not None
        assert values(await repository.history("it")) == [2.0]
        running = await repository.experiment("it", force=True).init()
        await running.log_metric("m", 3.0)
        for name in ("it", running.id, running.ref):
            assert values(await repository.history(name)) == [3.0]
        assert values(await repository.history(saved.record.rev)) == [2.0]
        assert values(await repository.history(left.id)) == [1.0]
        await running.discard()
        assert values(await repository.history("it")) == [2.0]


async def test_two_running_of_one_name_are_ambiguous(repo_path: Path, git: Callable[..., str]) -> None:
    """Of two running experiments with one name, each is found by its ref, or else by its id; `AmbiguousName` says so."""
    async with aexp.Repository(repo_path) as one, aexp.Repository(repo_path) as two:
        first = await one.experiment("it").init()
        await first.log_metric("m", 1.0)
        second = await two.experiment("it").init()
        await second.log_metric("m", 2.0)
        await asyncio.gather(first.flush(), second.flush())
        with pytest.raises(aexp.AmbiguousName) as told:
            await one.history("it")
        assert sorted(told.value.matches) == sorted([first.id, second.id])
        await second.discard()
        git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
        third = await two.experiment("it").init()
        await third.log_metric("m", 3.0)
        await third.flush()
        with pytest.raises(aexp.AmbiguousName) as told:
            await one.history("it")
        assert sorted(told.value.matches) == sorted([first.ref, third.ref])
        assert values(await one.history(third.ref)) == [3.0]


async def test_a_history_without_points(repository: aexp.Repository) -> None:
    """A running experiment in which nothing was logged has no series; what does not exist is not found."""
    await repository.experiment("it").init()
    assert await repository.history("it") == {}
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.history("other")


async def test_a_series_is_taken_without_a_copy(repository: aexp.Repository) -> None:
    """Numpy looks at the very memory of a series, running or saved; pandas and polars take that."""
    experiment = await repository.experiment("it").init()
    await logged(experiment, 0, 100)
    running = (await repository.history("it"))["m"]
    await experiment.save()
    for series in (running, (await repository.history("it"))["m"]):
        columns = {name: np.asarray(getattr(series, name)) for name in ("steps", "values", "timestamps")}
        assert [column.dtype for column in columns.values()] == [np.int64, np.float64, np.float64]
        for name, column in columns.items():
            address, length = getattr(series, name).buffer_info()
            assert (column.ctypes.data, len(column)) == (address, length)
        assert pd.DataFrame(columns)["values"].to_list() == list(series.values)
        assert pl.DataFrame(columns)["steps"].to_list() == list(series.steps)


async def test_steps_out_of_order_are_sorted(repository: aexp.Repository) -> None:
    """A running experiment's series is ordered by step, those of one step in the order they were logged."""
    experiment = await repository.experiment("it").init()
    for value, step in enumerate([5, 1, 3, 1, 5]):
        await experiment.log_metric("m", float(value), step, timestamp=float(value))
        await experiment.flush()
    series = (await repository.history("it"))["m"]
    assert (list(series.steps), list(series.values)) == ([1, 1, 3, 5, 5], [1.0, 3.0, 2.0, 0.0, 4.0])
    assert list(series.timestamps) == list(series.values)
    await experiment.save()
    assert (await repository.history("it"))["m"] == series


# ---- journals that others write ----


def read_all(living: Living, *, tell: bool = False) -> list[aexp.Event]:
    """Read until nothing is new."""
    events, more = list[aexp.Event](), True
    while more:
        some, more = living.read(dead=True, tell=tell)
        events += some
    return events


def segments(repo_path: Path) -> int:
    """How many files the journals of living sessions have."""
    return len(list(repo_path.glob(".git/aexp/sessions/*/journal-*.log")))


@pytest.mark.parametrize("size", [300, 1000])
async def test_segments_may_turn_while_they_are_read(repo_path: Path, size: int) -> None:
    """A journal in many segments is read as one, however many turned between two looks."""
    small = aexp.Settings(segment_size=size, write_interval=0.001)
    async with aexp.Repository(repo_path, settings=small) as repository, aexp.Repository(repo_path) as other:
        experiment = await repository.experiment("it").init()
        for first in range(0, 400, 20):
            await logged(experiment, first, first + 20)
            await experiment.flush()
            assert values(await other.history("it")) == [float(step) for step in range(first + 20)]
        assert segments(repo_path) > 3
        async with aexp.Repository(repo_path) as late:
            assert values(await late.history("it")) == [float(step) for step in range(400)]


def kill_and_compare(repo_path: Path, pause: float, size: int) -> None:
    """Kill a writer after *pause* seconds; what was read before, while and after is a prefix, and what is recovered."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, repo_path, str(size)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        end, seen = time.monotonic() + pause, 0
        living = Living(str(repo_path / ".git"))
        while time.monotonic() < end:
            read_all(living)
            running = living.running()[0]
            assert (running.points, running.summary["m"]) == (running.step + 1, float(running.step))
            assert running.points >= seen
            seen = running.points
        writer.kill()
        said = [int(line) for line in writer.stdout]
    living = Living(str(repo_path / ".git"))
    read_all(living)
    series = living.history("it", None, left=True)
    assert series is not None
    assert values(series) == [float(step) for step in range(len(series["m"]))]
    assert len(series["m"]) > max([seen - 1, *said])


async def recovered(repo_path: Path) -> list[float]:
    """The values of the one experiment that a dead process left, before and after it is recovered."""
    async with aexp.Repository(repo_path) as repository:
        before = await repository.history("it")
        (record,) = await repository.recover()
        assert await repository.history(record.name) == before
        return values(before)


@pytest.mark.faults
@pytest.mark.parametrize("size", [2000, 64 * 2**20])
def test_killed_writers_leave_what_is_read(repo_path: Path, size: int) -> None:
    """Whenever a writer is killed, what is read of its journal is a prefix of what it logged, as `recover` saves it."""
    kill_and_compare(repo_path, random.uniform(0, 0.5), size)
    found = asyncio.run(recovered(repo_path))
    assert found == [float(step) for step in range(len(found))]


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(300)
def test_many_killed_writers_leave_what_is_read(template: Path, tmp_path: Path) -> None:
    """The same, thirty times."""
    for number in range(30):
        path = Path(shutil.copytree(template, tmp_path / str(number)))
        kill_and_compare(path, random.uniform(0, 1), random.choice([500, 5000, 64 * 2**20]))
        found = asyncio.run(recovered(path))
        assert found == [float(step) for step in range(len(found))]
