"""What is asked of records: which of them (`where`), in which order (`sort`), how many, and which is the best."""

import ast
import operator
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from ._fields import MISSING, Get, is_number
from ._language import Reader
from ._values import Record
from .errors import ExperimentNotFound

Mode = Literal["min", "max"]


def compile_where(text: str) -> Callable[[Record], bool]:
    """Return the test that *text* describes; it raises nothing, for any record.

    A field that a record does not have makes every comparison false, and so does a comparison of different types.
    Raises `InvalidQuery`, which points at the column, for anything that is not of the language.
    """
    reader = Reader(text, text)
    get = reader.term(reader.expression(), 0).get
    return lambda record: bool(get(record))


def compile_sort(keys: str | Sequence[str]) -> Callable[[Iterable[Record]], list[Record]]:
    """Return what puts records in the order of *keys*: one field or several, each descending behind a `-`.

    Equal records keep their order. Those that lack the field, or have None or NaN there, come last in both
    directions; numbers come before text, text before times, and these before lists. Raises `InvalidQuery`.
    """
    orders = [_order(key) for key in ([keys] if isinstance(keys, str) else keys)]

    def order(records: Iterable[Record]) -> list[Record]:
        found = list(records)
        for get, descending in reversed(orders):
            found = _ordered(found, get, descending)
        return found

    return order


def compile_select(
    *, where: str | None = None, sort: str | Sequence[str] | None = None, limit: int | None = None
) -> Callable[[Iterable[Record]], list[Record]]:
    """Return what keeps of any records those that *where* describes, ordered by *sort*, the first *limit* of them.

    Raises `InvalidQuery`, and `ValueError` for a negative limit.
    """
    keep = None if where is None else compile_where(where)
    order = list if sort is None else compile_sort(sort)
    if limit is not None and operator.index(limit) < 0:
        raise ValueError(f"a limit is at least 0, not {limit}")
    return lambda records: order(records if keep is None else filter(keep, records))[:limit]


def compile_best(metric: str, mode: Mode = "max", where: str | None = None) -> Callable[[Iterable[Record]], Record]:
    """Return what finds the record with the largest or smallest value of *metric* among those that *where* describes.

    NaN is no value; of equal ones the first is the best. What is returned raises `ExperimentNotFound` when no record
    has the metric. Raises `InvalidQuery`, and `ValueError` for another mode.
    """
    keep = None if where is None else compile_where(where)
    if mode not in ("min", "max"):
        raise ValueError(f"mode is one of min, max, not {mode!r}")
    choose: Callable[..., Record | None] = max if mode == "max" else min

    def best(records: Iterable[Record]) -> Record:
        measured = (record for record in records if is_number(record.metrics.get(metric)))
        found = choose(
            filter(keep, measured) if keep else measured, key=lambda each: each.metrics[metric], default=None
        )
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


# ---- order ----


def _order(key: str) -> tuple[Get, bool]:
    body = key.lstrip()
    descending = body.startswith("-")
    reader = Reader(key, key.replace("-", " ", 1) if descending else key)
    node = reader.expression()
    if not isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
        reader.refuse(node, "a key to sort by is one field, like metrics.acc, or -metrics.acc for the largest first")
    return reader.term(node, 0).get, descending


def _ordered(records: Sequence[Record], get: Get, descending: bool) -> list[Record]:
    present, absent = [], []
    for record in records:
        rank, value = _ranked(get(record))
        if rank is None:
            absent.append(record)
        else:
            present.append((rank, value, record))
    alike = len({rank for rank, _, _ in present}) == 1
    present.sort(key=operator.itemgetter(1) if alike else operator.itemgetter(0, 1), reverse=descending)
    return [record for _, _, record in present] + absent


def _ranked(value: Any) -> tuple[int | None, Any]:
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
