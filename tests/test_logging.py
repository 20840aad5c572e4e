"""What an experiment takes in: points of metrics, files, tags and a message, and how they come back."""

import asyncio
import enum
import itertools
import math
import operator
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aexp

Git = Callable[..., str]


class Tensor:
    """A scalar as torch and jax have them: `.item()` gives what it holds."""

    def __init__(self, value: object) -> None:
        self._value = value

    def item(self) -> object:
        """Return what it holds."""
        return self._value


class Level(enum.IntEnum):
    """An int with a name."""

    HIGH = 3


class Celsius(float):
    """A float with a unit."""


VALUES: dict[str, tuple[Any, Any]] = {
    "float": (0.1, 0.1),
    "int": (7, 7),
    "true": (True, True),
    "false": (False, False),
    "zero": (0, 0),
    "-0.0": (-0.0, -0.0),
    "nan": (math.nan, math.nan),
    "inf": (math.inf, math.inf),
    "-inf": (-math.inf, -math.inf),
    "smallest": (5e-324, 5e-324),
    "denormal": (2.2250738585072009e-308, 2.2250738585072009e-308),
    "largest": (1.7976931348623157e308, 1.7976931348623157e308),
    "2**53": (2**53, 2**53),
    "-2**53": (-(2**53), -(2**53)),
    "2**53+1": (2**53 + 1, float(2**53)),
    "2**70": (2**70, float(2**70)),
    "IntEnum": (Level.HIGH, 3),
    "subclass of float": (Celsius(21.5), 21.5),
    "numpy.float64": (np.float64(0.1), 0.1),
    "numpy.float32": (np.float32(0.1), float(np.float32(0.1))),
    "numpy.longdouble": (np.longdouble(1.5), 1.5),
    "numpy.int64": (np.int64(7), 7),
    "numpy.uint64": (np.uint64(2**64 - 1), float(2**64)),
    "numpy.bool": (np.bool_(True), True),
    "array of no dimension": (np.array(2.5), 2.5),
    "array of one": (np.array([2.5]), 2.5),
    "Decimal": (Decimal("0.1"), 0.1),
    "Fraction": (Fraction(1, 4), 0.25),
    "tensor of float": (Tensor(0.5), 0.5),
    "tensor of int": (Tensor(2**70), float(2**70)),
    "tensor of bool": (Tensor(True), True),
}
NO_NUMBERS: list[Any] = [
    *["1", "", b"1", bytearray(b"1"), None, 1j, [], [1.0], (1,), {}, object(), float],
    *[Tensor("1"), Tensor(None), Tensor(1j), Tensor([1.0]), np.datetime64("2026-01-01"), np.str_("1"), np.complex64(1)],
]
NO_FLOAT64: list[Any] = [10**400, Tensor(-(10**400)), Decimal("sNaN"), np.array([1.0, 2.0])]
BAD_NAMES = [
    "",
    "/",
    "a//b",
    "/a",
    "a/",
    ".",
    "..",
    "a/../b",
    "a/.",
    "a\nb",
    "a\0b",
    "\x7f",
    "a\x85b",
    "\ud800",
    "x" * 256,
]


def bits(value: float) -> bytes:
    """The eight bytes of a float64; one NaN is as good as another."""
    return b"nan" if math.isnan(value) else struct.pack(">d", value)


@pytest.mark.parametrize("kind", VALUES)
async def test_a_number_is_kept_exactly(repository: aexp.Repository, kind: str) -> None:
    """Any kind of number comes back exactly: an int or bool as what it is in the summary, all as float64 in the series."""
    given, kept = VALUES[kind]
    async with repository.experiment("it") as experiment:
        await experiment.log_metric("m", given)
        experiment.log_metrics_nowait({"group/m": given})
        before = dict(experiment.summary)
    assert experiment.record is not None
    history = await repository.history("it")

    for name in ("m", "group/m"):
        for value in (before[name], experiment.record.metrics[name]):
            assert type(value) is type(kept)
            assert bits(value) == bits(kept)
        assert [bits(value) for value in history[name].values] == [bits(float(kept))]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
async def test_what_is_no_number_is_refused_at_the_call(repository: aexp.Repository, value: Any) -> None:
    """What is no real number raises `TypeError` where it is logged, and nothing of it is logged."""
    await refused(repository, value, TypeError)


@pytest.mark.parametrize("value", NO_FLOAT64, ids=lambda value: type(value).__name__)
async def test_a_number_that_is_no_float64_is_refused_at_the_call(repository: aexp.Repository, value: Any) -> None:
    """A number that no float64 stands for raises `ValueError` where it is logged, and nothing of it is logged."""
    await refused(repository, value, ValueError)


async def refused(repository: aexp.Repository, value: Any, kind: type[Exception]) -> None:
    """Log the value in every way; each must raise, and nothing be left of it."""
    experiment = await repository.experiment("it").init()
    with pytest.raises(kind):
        await experiment.log_metric("m", value)
    with pytest.raises(kind):
        experiment.log_metric_nowait("m", value)
    with pytest.raises(kind):
        await experiment.log_metrics({"good": 1.0, "m": value})
    with pytest.raises(kind):
        experiment.log_metrics_nowait({"good": 1.0, "m": value})
    assert experiment.summary == {}
    assert (await experiment.save()).metrics == {"step": 0}
    assert await repository.history("it") == {}


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
async def test_a_bad_metric_name_is_refused_at_the_call(repository: aexp.Repository, name: str) -> None:
    """A metric name that has no place below a folder raises `InvalidName`; of several metrics none is logged then."""
    experiment = await repository.experiment("it").init()
    with pytest.raises(aexp.InvalidName) as told:
        await experiment.log_metric(name, 1.0)
    assert told.value.name == name
    with pytest.raises(aexp.InvalidName):
        await experiment.log_metrics({"good": 1.0, name: 1.0})
    with pytest.raises(TypeError):
        await experiment.log_metric(7, 1.0)  # type: ignore[arg-type]

    assert (await experiment.save()).metrics == {"step": 0}


async def test_points_come_back_in_the_order_of_their_steps(repository: aexp.Repository) -> None:
    """Steps may come in any order; a series is ordered by step, and points of one step stay as they were logged."""
    async with repository.experiment("it") as experiment:
        for step, value in [
            (5, 0.5),
            (-1, 0.1),
            (5, 0.6),
            (2**63 - 1, 0.9),
            (-(2**63), 0.0),
            (operator.index(np.int64(3)), 0.3),
        ]:
            await experiment.log_metric("m", value, step)
    series = (await repository.history("it", "m"))["m"]

    assert list(series.steps) == [-(2**63), -1, 3, 5, 5, 2**63 - 1]
    assert list(series.values) == [0.0, 0.1, 0.3, 0.5, 0.6, 0.9]
    assert experiment.record is not None
    assert experiment.record.metrics == {"m": 0.3, "step": 2**63 - 1}, "the last value logged, the highest step"


@pytest.mark.parametrize(
    ("step", "kind"), [(1.5, TypeError), ("1", TypeError), (2**63, ValueError), (-(2**70), ValueError)]
)
async def test_a_step_is_an_integer_of_64_bits(repository: aexp.Repository, step: Any, kind: type[Exception]) -> None:
    """A step that is no integer of 64 bits is refused where it is given, and nothing is logged."""
    experiment = await repository.experiment("it").init()
    with pytest.raises(kind):
        await experiment.log_metric("m", 1.0, step)
    with pytest.raises(kind):
        await experiment.log_metrics({"m": 1.0}, step)
    with pytest.raises(kind):
        experiment.step = step

    assert (experiment.step, dict(experiment.summary)) == (0, {})
    await experiment.discard()


async def test_the_step_that_is_not_given_is_the_current_one(repository: aexp.Repository) -> None:
    """Without a step the experiment's own counts: it begins at 0, `next_step()` counts it up, and it may be set."""
    async with repository.experiment("it") as experiment:
        await experiment.log_metric("m", 0.0)
        assert experiment.next_step() == 1
        await experiment.log_metrics({"m": 0.1})
        experiment.step = 10
        assert experiment.next_step() == experiment.step == 11
        experiment.log_metric_nowait("m", 0.2)
        await experiment.log_metric("m", 0.3, 5)
        assert experiment.step == 11
        experiment.log_metrics_nowait({"m": 0.4})

    assert list((await repository.history("it"))["m"].steps) == [0, 1, 5, 11, 11]
    assert experiment.record is not None
    assert experiment.record.metrics["step"] == 11


async def test_timestamps_are_kept_where_they_were_given(repository: aexp.Repository) -> None:
    """A timestamp comes back to the microsecond, beside its point; where none was given there is NaN."""
    moments = [1_790_000_000.123456, 0.0, -1.5, 1_790_000_001]
    async with repository.experiment("it") as experiment:
        for step, moment in enumerate(moments):
            await experiment.log_metric("m", step, step, timestamp=moment)
        await experiment.log_metric("m", 9.0, 1)
        await experiment.log_metric("plain", 1.0)
    history = await repository.history("it")
    stamps = history["m"].timestamps

    assert list(history["m"].steps) == [0, 1, 1, 2, 3]
    assert [stamps[0], stamps[1], stamps[3], stamps[4]] == pytest.approx(moments, abs=1e-6, rel=0)
    assert math.isnan(stamps[2])
    assert math.isnan(history["plain"].timestamps[0])


@pytest.mark.parametrize(("moment", "kind"), [(math.nan, ValueError), (math.inf, ValueError), ("now", TypeError)])
async def test_a_timestamp_is_a_finite_number(repository: aexp.Repository, moment: Any, kind: type[Exception]) -> None:
    """A timestamp that is no finite number of seconds is refused, and nothing is logged."""
    experiment = await repository.experiment("it").init()
    with pytest.raises(kind):
        await experiment.log_metric("m", 1.0, timestamp=moment)
    with pytest.raises(kind):
        await experiment.log_metrics({"m": 1.0}, timestamp=moment)

    assert experiment.summary == {}
    await experiment.discard()


POINT = st.tuples(
    st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3),
    st.floats() | st.integers(-(2**53), 2**53) | st.booleans(),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    points=st.dictionaries(st.sampled_from(["a", "b/c", "b/c/d", "x y\u00e9"]), st.lists(POINT, min_size=1), max_size=3)
)
def test_every_float64_makes_the_round_trip(repo_path: Path, points: dict[str, list[tuple[int, float]]]) -> None:
    """From the call through journal, commit and a reader that knows neither, every float64 comes back bit by bit."""

    async def round_trip() -> dict[str, aexp.Series]:
        async with aexp.Repository(repo_path) as repository:
            async with repository.experiment() as experiment:
                for name, series in points.items():
                    for step, value in series:
                        await experiment.log_metric(name, value, step)
            return await aexp_history(experiment)

    async def aexp_history(experiment: aexp.Experiment) -> dict[str, aexp.Series]:
        async with aexp.Repository(repo_path) as reader:
            return await reader.history(experiment.ref)

    history = asyncio.run(round_trip())

    assert history.keys() == points.keys()
    for name, series in points.items():
        expected = sorted(series, key=lambda point: point[0])
        assert list(history[name].steps) == [step for step, _ in expected]
        assert [bits(value) for value in history[name].values] == [bits(float(value)) for _, value in expected]


async def test_logging_does_not_suspend(repository: aexp.Repository) -> None:
    """While the queue has room, `await log_metric(...)` does not give the event loop to anybody."""
    experiment = await repository.experiment("it").init()
    for coroutine in (experiment.log_metric("m", 1.0, 0), experiment.log_metrics({"m": 2.0}, 1)):
        with pytest.raises(StopIteration):
            coroutine.send(None)

    assert (await experiment.save()).metrics == {"m": 2.0, "step": 1}


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Threads take turns every microsecond, so that what can go wrong between two of them does."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


async def test_nothing_is_lost_from_many_threads(repository: aexp.Repository, busy_threads: None) -> None:
    """Points that many threads log at once are all in the saved experiment, those of each thread in their order."""
    count, threads = 4_000, 8
    async with repository.experiment("it") as experiment:

        def log(thread: int) -> None:
            for step in range(count):
                experiment.log_metric_nowait("shared", thread, step)
                experiment.log_metrics_nowait({f"own/{thread}": step})

        workers = [threading.Thread(target=log, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            await asyncio.to_thread(worker.join)
    history = await repository.history("it")

    assert list(history["shared"].steps) == [step for step in range(count) for _ in range(threads)]
    assert sum(history["shared"].values) == count * sum(range(threads))
    for thread in range(threads):
        assert list(history[f"own/{thread}"].values) == list(range(count))


async def test_steps_counted_in_many_threads_are_distinct_numbers(
    repository: aexp.Repository, busy_threads: None
) -> None:
    """`next_step()` may be called from any thread, and gives each number once."""
    experiment = await repository.experiment("it").init()
    taken: list[int] = []
    workers = [
        threading.Thread(target=lambda: taken.extend([experiment.next_step() for _ in range(2_000)])) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join)

    assert sorted(taken) == list(range(1, 16_001))
    await experiment.discard()


def log_until_full(experiment: aexp.Experiment, steps: "itertools.count[int]") -> None:
    """Log without pause until the queue is full."""
    for step in steps:
        experiment.log_metric_nowait("nowait", step, step)


async def test_a_full_queue_refuses_or_makes_wait(repo_path: Path) -> None:
    """When the queue is full, `log_metric_nowait` raises `QueueFull` and takes nothing; `log_metric` waits for room."""
    settings = aexp.Settings(queue_capacity=10)
    async with aexp.Repository(repo_path, settings=settings) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.flush()
            taken = itertools.count()
            with pytest.raises(aexp.QueueFull) as told:
                log_until_full(experiment, taken)
            count = next(taken) - 1  # one more was counted, and refused
            assert told.value.capacity == 10
            assert experiment.summary["nowait"] == count - 1
            for step in range(200):
                await experiment.log_metrics({"a": step, "b": step}, step)
        history = await repository.history("it")

    assert list(history["nowait"].values) == list(range(count))
    assert list(history["a"].values) == list(history["b"].values) == list(range(200))
