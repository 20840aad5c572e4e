"""What is asked of records: which of them (`where`), in which order (`sort`), how many, and which is the best."""

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar

from ._fields import MISSING, Get, is_number
from ._language import Reader
from ._packing import pack_again
from ._values import Pause, Record, nothing
from .errors import ExperimentNotFound

T_co = TypeVar("T_co", covariant=True)
Mode = Literal["min", "max"]


class Choice(Protocol[T_co]):
    """Makes something of records; the mappings that it looks into, they leave packed again."""

    def __call__(self, records: Iterable[Record], pause: Pause = nothing) -> T_co:
        """Return it; call *pause* for every record or two."""
        ...


def compile_where(text: str) -> Callable[[Record], bool]:
    """Return the test that *text* describes; it raises nothing, for any record.

    A field that a record does not have makes every comparison false, and so does a comparison of different types.
    Raises `InvalidQuery`, which points at the column, for anything that is not of the language.
    """
    reader = Reader(text, text)
    get = reader.term(reader.expression(), 0).get
    return lambda record: bool(get(record))


def compile_sort(keys: str | Sequence[str]) -> Choice[list[Record]]:
    """Return what puts records in the order of *keys*: one field or several, each descending behind a `-`.

    Equal records keep their order. Those that lack the field, or have None or NaN there, come last in both
    directions; numbers come before text, text before times, and these before lists. Raises `InvalidQuery`.
    """
    orders = [_order(key) for key in ([keys] if isinstance(keys, str) else keys)]

    def order(records: Iterable[Record], pause: Pause = nothing) -> list[Record]:
        found: list[Record] = []
        columns: list[list[_Ranked]] = [[] for _ in orders]
        for record in records:
            found.append(record)
            for column, (get, _) in zip(columns, orders, strict=True):
                column.append(_ranked(get(record)))
        places: Sequence[int] = range(len(found))
        for column, (_, descending) in zip(reversed(columns), reversed(orders), strict=True):
            places = _ordered(places, column, descending, pause)
        return [found[place] for place in places]

    return order


def compile_select(
    *, where: str | None = None, sort: str | Sequence[str] | None = None, limit: int | None = None
) -> Choice[list[Record]]:
    """Return what keeps of any records those that *where* describes, ordered by *sort*, the first *limit* of them.

    Raises `InvalidQuery`, and `ValueError` for a negative limit.
    """
    keep = None if where is None else compile_where(where)
    order = compile_sort(() if sort is None else sort)
    if limit is not None and operator.index(limit) < 0:
        raise ValueError(f"a limit is at least 0, not {limit}")

    def choose(records: Iterable[Record], pause: Pause = nothing) -> list[Record]:
        return order(_kept(records, keep, pause), pause)[:limit]

    return choose


def compile_best(metric: str, mode: Mode = "max", where: str | None = None) -> Choice[Record]:
    """Return what finds the record with the largest or smallest value of *metric* among those that *where* describes.

    NaN is no value; of equal ones the first is the best. What is returned raises `ExperimentNotFound` when no record
    has the metric. Raises `InvalidQuery`, and `ValueError` for another mode.
    """
    keep = None if where is None else compile_where(where)
    if mode not in ("min", "max"):
        raise ValueError(f"mode is one of min, max, not {mode!r}")
    better: Callable[[Any, Any], bool] = operator.gt if mode == "max" else operator.lt

    def best(records: Iterable[Record], pause: Pause = nothing) -> Record:
        found: Record | None = None
        value: Any = None
        for record in _kept(records, keep, pause):
            measured = record.metrics.get(metric)
            if is_number(measured) and (value is None or better(measured, value)):
                found, value = record, measured
        if found is None:
            of = "" if where is None else f" of those where {where}"
            raise ExperimentNotFound(f"best {metric}", f"none{of} has a number as its metric {metric!r}")
        return found

    return best


def select(
    records: Iterable[Record],
    *,
    where: str | None = None,
    sort: str | Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Record]:
    """Return the *records* that *where* describes, ordered by *sort*, the first *limit* of them."""
    return compile_select(where=where, sort=sort, limit=limit)(records)


def best_of(records: Iterable[Record], metric: str, mode: Mode = "max", where: str | None = None) -> Record:
    """Return the record with the best value of *metric*; raise `ExperimentNotFound` when none has it."""
    return compile_best(metric, mode, where)(records)


def _kept(records: Iterable[Record], keep: Callable[[Record], bool] | None, pause: Pause) -> Iterator[Record]:
    """Yield the records that are to be kept; what was looked into by then, here or there, is packed again."""
    for record in records:
        pause()
        if keep is None or keep(record):
            yield record
        pack_again(record)


# ---- order ----


def _order(key: str) -> tuple[Get, bool]:
    body = key.lstrip()
    descending = body.startswith("-")
    reader = Reader(key, key.replace("-", " ", 1) if descending else key)
    node = reader.expression()
    if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        reader.refuse(node, "a key to sort by is one field, like metrics.acc, or -metrics.acc for the largest first")
    return reader.term(node, 0).get, descending


_Ranked = tuple[int | None, Any]


def _ordered(places: Sequence[int], column: Sequence[_Ranked], descending: bool, pause: Pause) -> list[int]:
    present: list[int] = []
    absent: list[int] = []
    keys: list[Any] = list(column)
    for place in places:
        pause()
        (absent if column[place][0] is None else present).append(place)
    if len({column[place][0] for place in present}) == 1:  # values of one type need no rank, and compare faster
        for place in present:
            pause()
            keys[place] = column[place][1]
    present.sort(key=keys.__getitem__, reverse=descending)
    return present + absent


def _ranked(value: Any) -> _Ranked:
    """Return the rank of the value's type, None for no value, and what stands for it among those of its type."""
    if is_number(value):
        return 0, value
    if value is None or value is MISSING or isinstance(value, float):
        return None, None
    if isinstance(value, str):
        return 1, value
    if isinstance(value, datetime):
        return 2, value.timestamp()  # of times with and without a zone, which have no order
    try:
        return 3, repr(value)
    except ValueError:  # it holds a number of more digits than Python writes
        return 3, ""
