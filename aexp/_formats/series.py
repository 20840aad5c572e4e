"""Points of metrics: their values, the columns they travel in, the TSV and the summary they are saved as."""

import io
import operator
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite, nan
from typing import Any, Final, SupportsFloat

import orjson
from attrs import define, field

from .._values import Pause, Series, nothing

Number = float | int | bool
EXACT: Final = 2**53
"""The largest integer up to which every integer is a float64 of its own (IEEE 754)."""
_WORDS: Final = {"True": 1.0, "False": 0.0}
SLICE: Final = 2000
"""Rows made at a time, so that a caller in a thread can give the interpreter away in between."""


def number(value: object) -> Number:
    """Return *value* as a float, or as the int or bool it is; raise `TypeError` for what is not a number.

    An int beyond 2**53 becomes the nearest float. Anything with `.item()` (numpy, torch) or `__float__`
    (Decimal, Fraction) is converted once; strings are refused.
    """
    kind = type(value)
    if kind is float or kind is bool:
        return value  # type: ignore[return-value]
    if isinstance(value, int):
        return _integer(int(value))
    if isinstance(value, (str, bytes, bytearray, complex)) or value is None:
        raise TypeError(f"a metric's value is a number, not {value!r}")
    item = getattr(value, "item", None)
    if callable(item):
        return _scalar(item(), value)
    if hasattr(value, "__float__"):
        return _float64(value)
    raise TypeError(f"a metric's value is a number, not {kind.__name__}")


def _scalar(value: object, given: object) -> Number:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float) or (type(value) is type(given) and hasattr(value, "__float__")):  # numpy.longdouble
        return float(value)
    raise TypeError(f"a metric's value is one number, not {type(given).__name__} holding {type(value).__name__}")


def _integer(value: int) -> Number:
    return value if -EXACT <= value <= EXACT else _float64(value)


def _float64(value: SupportsFloat) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a metric's value is a float64; this number is larger than any") from None


def index(step: object) -> int:
    """Return *step* as an int of 64 bits; raise `TypeError` or `ValueError` for anything else."""
    value = operator.index(step)  # type: ignore[arg-type]
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"a step is an integer of 64 bits, not {value}")
    return int(value)


def moment(value: object) -> float:
    """Return *value*, seconds since 1970, as a finite float; raise `TypeError` or `ValueError` otherwise."""
    seconds = float(number(value))
    if not isfinite(seconds):
        raise ValueError(f"a timestamp is a finite number of seconds since 1970, not {seconds}")
    return seconds


def encode_values(values: list[Number]) -> list[Number | str]:
    """Return *values* as JSON can hold them: NaN and infinities become the strings "nan", "inf", "-inf"."""
    if isfinite(sum(values)):
        return values  # type: ignore[return-value]
    return [value if isfinite(value) else str(float(value)) for value in values]


def decode_value(value: Number | str) -> Number:
    """Undo `encode_values` for one value."""
    return float(value) if isinstance(value, str) else value


@define
class Points:
    """The points of one metric in the order they were logged; `stamps` maps a position to its timestamp."""

    steps: list[int] = field(factory=list)
    values: list[Number] = field(factory=list)
    stamps: dict[int, float] = field(factory=dict)

    def extend(self, column: list[Any]) -> None:
        """Add what a journal's column `[steps, values]` or `[steps, values, stamps]` holds."""
        if len(column) > 2:
            offset = len(self.steps)
            self.stamps.update((offset + position, stamp) for position, stamp in column[2])
        self.steps += column[0]
        values = column[1]
        self.values += [decode_value(value) for value in values] if str in map(type, values) else values

    def ordered(self) -> "Points":
        """Return the points ordered by step, those of one step in the order they were logged."""
        steps = self.steps
        if sorted(steps) == steps:
            return self
        order = sorted(range(len(steps)), key=steps.__getitem__)
        stamps = {place: self.stamps[position] for place, position in enumerate(order) if position in self.stamps}
        return Points([steps[position] for position in order], [self.values[position] for position in order], stamps)


@define(eq=False, repr=False)
class Curve:
    """The points of one metric on their way to a `Series`.

    In arrays, because a million numbers of Python's, made or let go at once, keep every other thread waiting for 20 ms.
    """

    steps: "array[int]" = field(factory=lambda: array("q"))
    values: "array[float]" = field(factory=lambda: array("d"))
    stamps: "array[float]" = field(factory=lambda: array("d"))
    """NaN where there is none; as far as the last piece of points that had one."""
    _ordered: bool = True

    def extend(self, steps: list[int], values: list[Any], stamps: Sequence[tuple[int, float]] = ()) -> None:
        """Add what a journal's column holds."""
        offset = len(self.steps)
        self._ordered = self._ordered and sorted(steps) == steps and (not offset or self.steps[-1] <= steps[0])
        self.steps.extend(steps)
        self.values.extend(map(decode_value, values) if str in map(type, values) else values)
        if stamps:
            self._fill(len(self.steps))
            for position, stamp in stamps:
                self.stamps[offset + position] = stamp

    def _fill(self, size: int) -> None:
        missing = array("d", [nan]) * (size - len(self.stamps))
        if self.stamps:
            self.stamps.extend(missing)
        else:
            self.stamps = missing

    def append(self, later: "Curve") -> None:
        """Add the points of another curve behind those that are here."""
        offset = len(self.steps)
        joint = not offset or not later.steps or self.steps[-1] <= later.steps[0]
        self._ordered = self._ordered and later._ordered and joint
        self.steps.extend(later.steps)
        self.values.extend(later.values)
        if later.stamps:
            self._fill(offset)
            self.stamps.extend(later.stamps)

    def series(self, pause: Pause = nothing) -> Series:
        """Return the points as a `Series`, ordered by step, those of one step in the order they were logged."""
        self._fill(len(self.steps))
        if self._ordered:
            return Series(self.steps, self.values, self.stamps)
        steps, values, stamps = array("q"), array("d"), array("d")
        for places in _order(self.steps, pause):
            steps.extend(map(self.steps.__getitem__, places))
            values.extend(map(self.values.__getitem__, places))
            stamps.extend(map(self.stamps.__getitem__, places))
        return Series(steps, values, stamps)


def _order(steps: "array[int]", pause: Pause) -> Iterator[Sequence[int]]:
    """Yield the places of *steps* in their order, in pieces that are small unless many steps are equal.

    Sorted in one go, a million would keep every other thread waiting for half a second.
    """
    bounds = sorted({*steps[::SLICE]})
    pieces = [array("q") for _ in range(len(bounds) + 1)]
    for place, step in enumerate(steps):
        if not place % SLICE:
            pause()
        pieces[bisect_right(bounds, step)].append(place)
    for piece in pieces:
        pause()
        yield piece if len(piece) < 2 else sorted(piece, key=steps.__getitem__)


def collect(payloads: Iterable[Mapping[str, list[Any]]], into: dict[str, Points]) -> None:
    """Add the columns of journal records to *into*, by metric, in the order they first appear."""
    for payload in payloads:
        for name, column in payload.items():
            points = into.get(name)
            if points is None:
                points = into[name] = Points()
            points.extend(column)


def tsv(name: str, points: Points) -> Iterator[bytes]:
    """Yield the TSV of a metric in slices, as DVCLive lays it out: `[timestamp<TAB>]step<TAB>name`, a row a point.

    Timestamps are in milliseconds, as DVCLive writes them, and stand only where one was given.
    """
    import csv

    points = points.ordered()
    header = ["timestamp", "step", name] if points.stamps else ["step", name]
    line = io.StringIO()
    csv.writer(line, delimiter="\t", lineterminator="\n").writerow(header)
    yield line.getvalue().encode()
    stamps = points.stamps
    if not stamps:
        for first in range(0, len(points.steps), SLICE):
            yield _rows(points.steps[first : first + SLICE], points.values[first : first + SLICE])
        return
    for position, (step, value) in enumerate(zip(points.steps, points.values, strict=True)):
        stamp = f"{stamps[position] * 1000:.3f}".rstrip("0").rstrip(".") if position in stamps else ""
        yield f"{stamp}\t{step}\t{value!r}\n".encode()


def _rows(steps: list[int], values: list[Number]) -> bytes:
    """Return the rows of a TSV, each value as `repr` writes it.

    orjson writes a finite float64 in the same digits, and a third of the time; but it spells exponents its own way.
    """
    if set(map(type, values)) == {float} and isfinite(sum(values)):
        written = orjson.dumps(values)
        if b"e" not in written and b"0.0000" not in written:
            columns = orjson.dumps(steps)[1:-1].split(b","), written[1:-1].split(b",")
            return b"\n".join(map(b"\t".join, zip(*columns, strict=True))) + b"\n"
    return "".join([f"{step}\t{value!r}\n" for step, value in zip(steps, values, strict=True)]).encode()


def parse_tsv(content: bytes, pause: Pause = nothing) -> tuple[str, Series]:
    """Return (name of the value column, series) of a TSV that aexp or DVCLive wrote; raise `ValueError` otherwise."""
    import csv

    try:
        return _table(csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8", newline=""), delimiter="\t"), pause)
    except (csv.Error, OverflowError) as error:  # a field of more than 128 KiB; a step of more than 64 bits
        raise ValueError(str(error)) from None


def _table(rows: Iterator[list[str]], pause: Pause) -> tuple[str, Series]:
    header = next(rows, [])
    if "step" not in header or len(header) < 2:
        raise ValueError("the first line of a series names a step and a value")
    place = header.index("step")
    stamped = place > 0 and header[0] == "timestamp"
    curve = Curve()
    while piece := list(islice(rows, SLICE // 4)):
        pause()
        if set(map(len, piece)) != {len(header)}:
            raise ValueError(f"a row that has not the {len(header)} fields which belong in it")
        first, *_ = columns = list(zip(*piece, strict=True))
        stamps = [(position, float(stamp) / 1000) for position, stamp in enumerate(first) if stamp] if stamped else ()
        curve.extend(list(map(int, columns[place])), _floats(columns[-1]), stamps)
    return header[-1], curve.series(pause)


def _floats(texts: Sequence[str]) -> list[float]:
    try:
        return list(map(float, texts))
    except ValueError:
        return [_WORDS[text] if text in _WORDS else float(text) for text in texts]


def nested(summary: Mapping[str, Number | str]) -> dict[str, Any]:
    """Return flat metrics as nested groups; a name that is both a metric and a group keeps its members flat."""
    tree: dict[str, Any] = {}
    for name, value in summary.items():
        *groups, last = name.split("/")
        node = tree
        for depth in range(len(groups)):
            if "/".join(groups[: depth + 1]) in summary:
                break
            node = node.setdefault(groups[depth], {})
        else:
            node[last] = value
            continue
        tree[name] = value
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested metrics as a flat mapping, groups joined by `/`; "nan" and "inf" become the floats they name."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if type(value) is float or type(value) is int:  # as most are; to ask for a mapping takes as long as the rest
            found[name] = value
        elif type(value) is dict or isinstance(value, Mapping):
            found.update(flat(value, f"{name}/"))
        else:
            found[name] = float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value
    return found
