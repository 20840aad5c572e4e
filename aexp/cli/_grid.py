"""Records as columns: which there are, which matter most, and which have room. Pure: no terminal is needed."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Final, Literal

from attrs import evolve, frozen
from rich.cells import cell_len, set_cell_size

from ._words import cell

Kind = Literal["metric", "param"]
KINDS: Final[Mapping[str, Kind]] = {"metrics.": "metric", "params.": "param"}
WIDEST: Final = 24
"""How many characters of a value or of a part of a title are shown, where room is scarce."""
LINES: Final = 3
"""How many lines a title has at most."""


@frozen(eq=False)
class Column:
    """The values of a metric or parameter, None where a record has none; *name* is what a query calls it."""

    name: str
    kind: Kind
    values: Sequence[Any]
    title: str = ""

    @property
    def varies(self) -> bool:
        """Say whether not all its values are the same."""
        first = self.values[0] if self.values else None
        return any(type(value) is not type(first) or value != first for value in self.values)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns of metrics, then those of parameters, of *rows* as `Records.to_dicts()` makes them."""
    names = dict.fromkeys(name for row in rows for name in row)
    found = [
        Column(name, kind, [row.get(name) for row in rows])
        for prefix, kind in KINDS.items()
        for name in names
        if name.startswith(prefix)
    ]
    short = Counter(_short(column.name) for column in found)
    return [
        evolve(column, title=_short(column.name) if short[_short(column.name)] == 1 else column.name)
        for column in found
    ]


def _short(name: str) -> str:
    return name.partition(".")[2]


def chosen(
    found: Sequence[Column], *, keep: Sequence[str] = (), drop: Sequence[str] = (), only_changed: bool = False
) -> list[Column]:
    """Return the columns without those that match *drop* or, on *only_changed*, do not vary; *keep* overrules both.

    Both are regular expressions, looked for in the name that a query uses. Raises `ValueError` for what is none.
    """
    kept, dropped = matcher(keep), matcher(drop)
    return [
        column
        for column in found
        if kept(column.name) or not (dropped(column.name) or (only_changed and not column.varies))
    ]


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return what says whether one of the regular *patterns* is found in a name; raise `ValueError` for what is none."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return lambda name: any(each.search(name) for each in compiled)


def ranked(found: Iterable[Column], asked: Callable[[str], bool]) -> list[Column]:
    """Return the columns by what they tell: those that are *asked* for, those that vary, the others.

    Among equals a metric and a parameter take turns, and the step comes last.
    """
    ranks: list[dict[Kind, list[Column]]] = [{"metric": [], "param": []} for _ in range(4)]
    for column in found:
        rank = 0 if asked(column.name) else 3 if column.name == "metrics.step" else 1 if column.varies else 2
        ranks[rank][column.kind].append(column)
    turns = [zip_longest(rank["metric"], rank["param"]) for rank in ranks]
    return [column for column in chain.from_iterable(chain(*turns)) if column is not None]


def fit(order: Sequence[Column], room: int, width: Callable[[Column], int]) -> list[Column]:
    """Return the columns, from the first of *order* on, whose *width* together is at most *room*."""
    taken = []
    for column in order:
        needed = width(column)
        if needed <= room:
            taken.append(column)
            room -= needed
    return taken


def texts(column: Column, precision: int, widest: int | None = WIDEST) -> list[str]:
    """Return the cells of a column, each at most *widest* characters long."""
    return [shortened(cell(value, precision), widest) for value in column.values]


def shortened(text: str, widest: int | None) -> str:
    """Return *text* with its middle left out where it takes more than *widest* places in a terminal."""
    if widest is None or cell_len(text) <= widest:
        return text
    tail = (widest - 1) // 2
    return f"{set_cell_size(text, widest - 1 - tail)}…{set_cell_size(text[::-1], tail)[::-1]}"


def folded(title: str, width: int) -> list[str]:
    """Return a title as at most `LINES` lines, broken behind a `.`, `/`, `_` or `-`, of *width* or little more."""
    parts = [shortened(part, WIDEST) for part in re.findall(r"[^./_-]*[./_-]+|[^./_-]+", title)]
    lines = _filled(parts, max([width, *map(len, parts)]))
    if len(lines) > LINES:
        lines = _filled(parts, WIDEST)
    return lines if len(lines) <= LINES else [shortened(f"…{lines[-LINES]}", WIDEST), *lines[1 - LINES :]]


def _filled(parts: Sequence[str], width: int) -> list[str]:
    lines = [""]
    for part in parts:
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines
