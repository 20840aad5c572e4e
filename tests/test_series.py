"""Points of metrics: what counts as a number, and the columns, tables and summaries they go through unharmed."""

import math
import struct
from array import array
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aexp._formats.series import (
    EXACT,
    SLICE,
    Number,
    Points,
    collect,
    decode_value,
    encode_values,
    flat,
    index,
    moment,
    nested,
    number,
    parse_tsv,
    tsv,
)

NUMBERS = st.one_of(st.floats(), st.integers(-EXACT, EXACT), st.booleans())
STEPS = st.integers(-(2**63), 2**63 - 1)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)


class Level(IntEnum):
    """An int by another name."""

    LOW = 7


class Ratio(float):
    """A float by another name."""


class Scalar:
    """What torch calls a tensor of no dimensions."""

    def __init__(self, held: object) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"Scalar({self.held!r})"

    def item(self) -> object:
        """Return what it holds."""
        return self.held


def bits(value: float) -> bytes:
    """The eight bytes of a float64."""
    return struct.pack("<d", value)


# ---- what counts as a number ----


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (0.1, 0.1),
        (-0.0, -0.0),
        (5e-324, 5e-324),
        (math.inf, math.inf),
        (math.nan, math.nan),
        (3, 3),
        (True, True),
        (False, False),
        (EXACT, EXACT),
        (-EXACT, -EXACT),
        (EXACT + 1, 2.0**53),
        (EXACT + 3, 2.0**53 + 4),
        (-(10**30), -1e30),
        (Level.LOW, 7),
        (Ratio(0.5), 0.5),
        (Decimal("0.1"), 0.1),
        (Decimal("Infinity"), math.inf),
        (Fraction(1, 3), 1 / 3),
        (np.float64(0.1), 0.1),
        (np.float32(0.1), 0.10000000149011612),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.25), 0.25),
        (np.int8(-1), -1),
        (np.uint64(2**64 - 1), 2.0**64),
        (np.bool_(True), True),
        (np.array(2.5), 2.5),
        (np.array([[4]]), 4),
        (Scalar(1.5), 1.5),
        (Scalar(2), 2),
        (Scalar(True), True),
        (Scalar(Ratio(0.5)), 0.5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_number_is_taken_as_it_is_meant(given: Any, kept: Number) -> None:
    """An int, a bool or a float stays what it is, bit for bit; other types of number become the one they hold."""
    taken = number(given)

    assert type(taken) is type(kept)
    assert bits(taken) == bits(kept)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        *[
            (value, TypeError)
            for value in ("1", "", b"1", bytearray(b"1"), None, 1j, [], [1.0], {}, (1,), object(), int)
        ],
        *[(Scalar(held), TypeError) for held in ("1", None, 1j, [1.0])],
        *[(value, TypeError) for value in (np.str_("1"), np.datetime64(0, "s"), np.complex128(1))],
        *[(value, ValueError) for value in (10**400, Fraction(10**400), Scalar(10**400), np.array([1.0, 2.0]))],
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else type(value).__name__,
)
def test_what_is_no_number_is_refused(given: Any, kind: type[Exception]) -> None:
    """Texts, containers and complex numbers raise `TypeError`; what no float64 can hold raises `ValueError`."""
    with pytest.raises(kind):
        number(given)


@pytest.mark.parametrize(
    ("given", "kind"), [(1.0, TypeError), ("1", TypeError), (None, TypeError), (2**63, ValueError)]
)
def test_a_step_is_an_integer_of_64_bits(given: Any, kind: type[Exception]) -> None:
    """Anything that Python takes for an index is a step; floats, even whole ones, and larger integers are not."""
    assert [index(value) for value in (-(2**63), 2**63 - 1, np.int32(5), True)] == [-(2**63), 2**63 - 1, 5, 1]
    with pytest.raises(kind):
        index(given)


@pytest.mark.parametrize(("given", "kind"), [(math.nan, ValueError), (-math.inf, ValueError), ("1", TypeError)])
def test_a_timestamp_is_a_finite_number(given: Any, kind: type[Exception]) -> None:
    """Any finite number of seconds is a timestamp, and becomes a float."""
    assert [(moment(value), type(moment(value))) for value in (1, Decimal("1.5"))] == [(1.0, float), (1.5, float)]
    with pytest.raises(kind):
        moment(given)


# ---- columns ----


@given(st.lists(NUMBERS))
@example([1e308, 1e308])  # finite, though their sum is not
@example([math.inf, -math.inf])
@example([EXACT] * 3)
def test_values_survive_the_journal(values: list[Number]) -> None:
    """Every float64, and every int and bool, comes out of JSON as the same type with the same bits."""
    text = orjson.dumps(encode_values(values))
    came = [decode_value(value) for value in orjson.loads(text)]

    assert [(type(value), bits(value)) for value in came] == [
        (type(value), bits(math.nan if value != value else value)) for value in values
    ]


@given(st.lists(st.lists(st.tuples(st.sampled_from("ab"), STEPS, NUMBERS, st.none() | st.floats(0, 4e9)))))
def test_records_add_up_to_what_was_logged(records: list[list[tuple[str, int, Number, float | None]]]) -> None:
    """Columns of one record after the other give each metric's points in the order of logging, each with its timestamp."""
    payloads: list[dict[str, list[Any]]] = []
    for record in records:
        columns: dict[str, list[Any]] = {}
        for name, step, value, stamp in record:
            steps, values, stamps = columns.setdefault(name, [[], [], []])
            if stamp is not None:
                stamps.append((len(steps), stamp))
            steps.append(step)
            values.append(value)
        payloads.append(
            {name: [s, encode_values(v), t] if t else [s, encode_values(v)] for name, (s, v, t) in columns.items()}
        )
    found: dict[str, Points] = {}
    collect(orjson.loads(orjson.dumps(payloads)), found)

    for name in "ab":
        points = found.get(name, Points())
        logged = [point for record in records for point in record if point[0] == name]
        assert points.steps == [step for _, step, _, _ in logged]
        assert [bits(value) for value in points.values] == [bits(math.nan if v != v else v) for _, _, v, _ in logged]
        assert points.stamps == {place: stamp for place, (*_, stamp) in enumerate(logged) if stamp is not None}


# ---- tables ----


@given(NAMES, st.lists(st.tuples(st.integers(-5, 5) | STEPS, NUMBERS, st.none() | st.integers(0, 2**42)), max_size=30))
def test_a_table_holds_a_series_exactly(name: str, logged: list[tuple[int, Number, int | None]]) -> None:
    """A series read from its table has the same bits, ordered by step, points of one step in the order of logging."""
    points = Points(
        [step for step, _, _ in logged],
        [value for _, value, _ in logged],
        {place: stamp / 1000 for place, (_, _, stamp) in enumerate(logged) if stamp is not None},
    )
    ordered = sorted(logged, key=lambda point: point[0])
    found, series = parse_tsv(b"".join(tsv(name, points)))

    assert found == name
    assert series.steps == array("q", [step for step, _, _ in ordered])
    assert list(map(bits, series.values)) == [bits(math.nan if v != v else v) for _, v, _ in ordered]
    assert list(map(bits, series.timestamps)) == [bits(math.nan if t is None else t / 1000) for *_, t in ordered]


@given(st.floats(0, 4e9))
def test_a_table_holds_a_timestamp_to_the_microsecond(stamp: float) -> None:
    """A timestamp read from a table is within a microsecond of the one that was given."""
    _, series = parse_tsv(b"".join(tsv("loss", Points([0], [1.0], {0: stamp}))))

    assert abs(series.timestamps[0] - stamp) <= 1e-6


def test_a_table_is_as_dvclive_lays_it_out() -> None:
    """Tabs, line feeds, a header with the metric's name; timestamps in milliseconds, and only where one was given."""
    points = Points([2, 0, 1], [True, 0.1, math.nan])
    stamped = Points([0, 1], [1, 2.5], {1: 1767225600.25})

    assert b"".join(tsv("train/loss", points)) == b"step\ttrain/loss\n0\t0.1\n1\tnan\n2\tTrue\n"
    assert b"".join(tsv('a "b"', stamped)) == b'timestamp\tstep\t"a ""b"""\n\t0\t1\n1767225600250\t1\t2.5\n'
    assert b"".join(tsv("none", Points())) == b"step\tnone\n"


NEAR_ONE = st.floats(0.0001, 1e15) | st.floats(-1e15, -0.0001)


@given(st.lists(NEAR_ONE | st.floats() | st.booleans() | st.integers(-(2**53), 2**53)) | st.lists(NEAR_ONE, min_size=1))
def test_every_value_of_a_tsv_is_written_as_repr_writes_it(values: list[float]) -> None:
    """The rows of a series hold the shortest digits of each number, in Python's spelling, whatever the others are."""
    rows = b"".join(tsv("loss", Points(list(range(len(values))), list(values)))).decode().splitlines()[1:]
    assert rows == [f"{step}\t{value!r}" for step, value in enumerate(values)]


def test_a_long_table_comes_in_slices() -> None:
    """Whoever writes a long table can pause between slices of it."""
    parts = list(tsv("loss", Points(list(range(SLICE * 3 + 1)), [0.5] * (SLICE * 3 + 1))))

    assert [part.count(b"\n") for part in parts] == [1, SLICE, SLICE, SLICE, 1]


@pytest.mark.parametrize(
    ("text", "name", "steps", "values", "timestamps"),
    [
        ("step\tloss\n0\t0.5\n1\t0.25\n", "loss", [0, 1], [0.5, 0.25], [math.nan, math.nan]),
        ("step\tloss\r\n0\t0.5\r\n", "loss", [0], [0.5], [math.nan]),  # written on Windows
        ("timestamp\tstep\tacc\n1700000000123\t3\t1\n", "acc", [3], [1.0], [1700000000.123]),
        ("timestamp\tstep\tstep\n1000\t3\t4\n", "step", [3], [4.0], [1.0]),
        ("step\ttimestamp\n3\t4\n", "timestamp", [3], [4.0], [math.nan]),
        (
            "step\tloss\n0\tTrue\n1\tFalse\n2\tnan\n3\t-inf\n",
            "loss",
            [0, 1, 2, 3],
            [1, 0, math.nan, -math.inf],
            [math.nan] * 4,
        ),
        ("step\tloss\n5\t1\n2\t2\n5\t3\n", "loss", [2, 5, 5], [2, 1, 3], [math.nan] * 3),
    ],
)
def test_a_table_of_dvclive_is_read(
    text: str, name: str, steps: list[int], values: list[float], timestamps: list[float]
) -> None:
    """Tables that DVCLive wrote, on any system, with timestamps or without, are read as they were meant."""
    found, series = parse_tsv(text.encode())

    assert found == name
    assert list(series.steps) == steps
    assert list(map(bits, series.values)) == list(map(bits, map(float, values)))
    assert list(map(bits, series.timestamps)) == list(map(bits, timestamps))


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "\n",
            "loss\n",
            "step\n1\n",
            "epoch\tloss\n",
            "step\tloss\n1\n",
            "step\tloss\n1\t2\t3\n",
            "step\tloss\n\n",
        ],
        *["step\tloss\n1.5\t2\n", "step\tloss\n1\thigh\n", "step\tloss\n1\t\n", f"step\tloss\n{2**63}\t1\n"],
        *["timestamp\tstep\tloss\nnoon\t1\t1\n", f"step\tloss\n1\t{'1' * 200_000}\n", f"step\tloss\n{'1' * 5000}\t1\n"],
    ],
    ids=lambda text: repr(text[:30]),
)
def test_what_is_no_table_is_refused(text: str) -> None:
    """A file that is no table of a series raises `ValueError`."""
    with pytest.raises(ValueError, match=r"\w"):
        parse_tsv(text.encode())


@given(st.one_of(st.binary(), st.text(st.sampled_from('steploss\t\n\r"0123.-\x00 é')).map(str.encode)))
def test_reading_a_table_either_reads_or_refuses(content: bytes) -> None:
    """Whatever stands in a file, reading it as a table ends in a series or in `ValueError`."""
    for text in (content, b"step\tloss\n" + content):
        try:
            _, series = parse_tsv(text)
        except ValueError:
            continue
        assert len(series.steps) == len(series.values) == len(series.timestamps)


# ---- the summary ----


def test_metrics_are_nested_by_their_groups() -> None:
    """`a/b` stands in the group `a`; where `a` is itself a metric, its members stand beside it under their whole name."""
    summary = {"step": 3, "train/loss": 0.5, "train/acc/top1": 1, "a": 1.0, "a/b": 2, "a/b/c": 3, "x/y/z": 4, "x/y": 5}

    assert nested(summary) == {
        "step": 3,
        "train": {"loss": 0.5, "acc": {"top1": 1}},
        "a": 1.0,
        "a/b": 2,
        "a/b/c": 3,
        "x/y/z": 4,
        "x": {"y": 5},
    }
    assert flat({"a": {"b": {"c": "nan"}, "d": "inf"}, "e": "-inf", "f": "other", "g": {}}) == {
        "a/b/c": pytest.approx(math.nan, nan_ok=True),
        "a/d": math.inf,
        "e": -math.inf,
        "f": "other",
    }


@given(st.dictionaries(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), st.integers()))
def test_nesting_can_be_undone(summary: dict[str, int]) -> None:
    """Whatever the names, as groups or as metrics or as both, flattening the nested summary gives it back, whole."""
    assert flat(nested(summary)) == summary
