"""Tables: lines and columns drawn for a terminal of any width, or written as Markdown and CSV."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from attrs import field, frozen
from rich.cells import cell_len
from rich.console import Group
from rich.text import Span, Text

import aexp

from . import _grid
from ._grid import Column, Kind
from ._tree import Line, status
from ._words import visible

HEADS: Final[Mapping[Kind, str]] = {"metric": "black on cornsilk1", "param": "black on light_cyan1"}
"""The colours that DVC gives to titles (`dvc.compare.show_diff`, `dvc.commands.experiments.show`)."""
COLOURS: Final[Mapping[str, str]] = {
    "finished": "green",
    "failed": "red",
    "cancelled": "yellow",
    "interrupted": "magenta",
    "running": "cyan",
    "damaged": "bold red",
}
GAP: Final = 2
"""How many blanks stand between two columns."""
_LARGE: Final = 1_000_000
EDGE: Final = 1
"""How many blanks stand before the first column."""
NARROW: Final = 48
"""Below this width, in characters, there is no room for the time."""
NARROWEST: Final = 32
"""Below this width there is no room for the status."""


@frozen(eq=False)
class Part:
    """A column as it is drawn: the lines of its title, its cells, and how they are coloured."""

    title: Sequence[str]
    cells: Sequence[str]
    head: str = "bold"
    styles: Sequence[str] | None = None
    right: bool = False
    """Whether the cells stand at the right, as numbers do."""
    width: int = field(init=False)
    """How many places the widest of them takes."""

    @width.default
    def _widest(self) -> int:
        return max(map(_places, (*self.title, *self.cells)), default=0)


def _places(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)


@frozen(eq=False)
class Drawn:
    """A table, and the columns for which it has no room."""

    table: Group
    left_out: tuple[Column, ...]


def draw(
    lines: Sequence[Line],
    columns: Sequence[Column],
    *,
    room: int | None,
    precision: int,
    asked: Callable[[str], bool],
    beside: Mapping[str, Sequence[str]],
) -> Drawn:
    """Return a table that is at most *room* characters wide, None for any; *beside* is what stands behind values.

    Where room is scarce, columns that are *asked* for come first, then those that tell experiments apart.
    """
    parts = _first(lines, room)
    whole = {each.name: _values(lines, each, precision, beside.get(each.name), fold=False) for each in columns}
    left = _LARGE if room is None else room - EDGE - sum(part.width + GAP for part in parts)
    if sum(part.width + GAP for part in whole.values()) <= left:
        return Drawn(table([*parts, *whole.values()]), ())
    drawn = {each.name: _values(lines, each, precision, beside.get(each.name), fold=True) for each in columns}
    taken = _grid.fit(_grid.ranked(columns, asked), left, lambda column: drawn[column.name].width + GAP)
    names = {column.name for column in taken}
    parts += [drawn[column.name] for column in columns if column.name in names]
    return Drawn(table(parts), tuple(column for column in columns if column.name not in names))


def _first(lines: Sequence[Line], room: int | None) -> list[Part]:
    """Return the columns that every table begins with, as far as there is room."""
    widest = None if room is None else max(room // 3, 12)
    leads = [_grid.shortened(line.lead, widest) for line in lines]
    parts = [Part(["Experiment"], leads, styles=["bold" if line.place is None else "" for line in lines])]
    if room is None or room >= NARROW:
        parts.append(Part(["Created"], [line.created for line in lines]))
    if room is None or room >= NARROWEST:
        statuses = [line.status for line in lines]
        parts.append(Part(["Status"], statuses, styles=[COLOURS.get(status, "") for status in statuses]))
    return parts


def _values(lines: Sequence[Line], column: Column, precision: int, beside: Sequence[str] | None, *, fold: bool) -> Part:
    texts = _grid.texts(column, precision, _grid.WIDEST if fold else None)
    if beside is not None:
        longest = max(map(_places, texts), default=0)
        texts = [f"{_padded(text, longest)} {more}" for text, more in zip(texts, beside, strict=True)]
    title = visible(column.title)
    folds = _grid.folded(title, max(map(_places, texts), default=0)) if fold else [title]
    numbers = all(isinstance(value, int | float | None) for value in column.values)
    cells = [_at(texts, line) for line in lines]
    return Part(folds, cells, head=HEADS[column.kind], right=numbers and beside is None)


def fitted(first: Sequence[Part], more: Sequence[Part], room: int | None) -> list[Part]:
    """Return the parts of *first*, then of *more*, that *room* is enough for."""
    left = _LARGE if room is None else room - EDGE
    taken = []
    for part in (*first, *more):
        if part.width + GAP <= left:
            taken.append(part)
            left -= part.width + GAP
    return taken


def table(parts: Sequence[Part]) -> Group:
    """Return the table of these columns, a line of text for each row (decision 0022)."""
    rule = Text(f" {'─' * (sum(part.width + GAP for part in parts) - GAP + EDGE)}")
    high = max(len(part.title) for part in parts)
    titles = [["", *[""] * (high - len(part.title)), *part.title][-high:] for part in parts]
    heads = [_line(parts, [title[row] for title in titles], [part.head for part in parts]) for row in range(high)]
    rows = zip(*(part.cells for part in parts), strict=True)
    styles = zip(*(part.styles or [""] * len(part.cells) for part in parts), strict=True)
    return Group(rule, *heads, rule, *map(partial(_line, parts), rows, styles), rule)


def _line(parts: Sequence[Part], cells: Sequence[str], styles: Sequence[str]) -> Text:
    """Return a row; what is styled is styled over the whole width of its column."""
    texts, spans, place = [" " * EDGE], [], EDGE
    for part, text, style in zip(parts, cells, styles, strict=True):
        padded = _padded(text, part.width, right=part.right)
        if style and text:
            spans.append(Span(place, place + len(padded), style))
        texts += (padded, " " * GAP)
        place += len(padded) + GAP
    line = "".join(texts[:-1])
    return Text(line if styles[-1] and cells[-1] else line.rstrip(), spans=spans, no_wrap=True)


def tree_markdown(lines: Sequence[Line], columns: Sequence[Column], precision: int) -> str:
    """Return the tree in Markdown, with every column."""
    texts = [_grid.texts(column, precision, None) for column in columns]
    header = ["Experiment", "Created", "Status", *(visible(column.title) for column in columns)]
    return markdown(
        header, [[line.lead, line.created, line.status, *(_at(each, line) for each in texts)] for line in lines]
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in GitHub's Markdown."""
    safe = [[text.replace("\\", "\\\\").replace("|", "\\|") for text in row] for row in (header, *rows)]
    widths = [max(3, *map(_places, column)) for column in zip(*safe, strict=True)]
    head, *body = ["| " + " | ".join(map(_padded, row, widths)) + " |" for row in safe]
    return "\n".join([head, f"|{'|'.join('-' * (width + 2) for width in widths)}|", *body])


def _at(texts: Sequence[str], line: Line) -> str:
    return "" if line.place is None else texts[line.place]


def _padded(text: str, width: int, *, right: bool = False) -> str:
    blanks = " " * (width - _places(text))
    return blanks + text if right else text + blanks


def whole(records: Sequence[aexp.Record], columns: Sequence[Column]) -> tuple[list[str], list[list[Any]]]:
    """Return the title and the rows of a table with every column and every digit."""
    rows = [
        [record.name, record.rev, record.baseline, record.created, status(record), *values]
        for record, *values in zip(records, *(column.values for column in columns), strict=True)
    ]
    return ["name", "rev", "baseline", "created", "status", *(column.name for column in columns)], rows


def missing(left_out: Sequence[Column], total: int) -> str:
    """Return the line that says which columns have no room."""
    names = [visible(column.name) for column in left_out[:3]]
    more = ", ..." if len(left_out) > len(names) else ""
    return (
        f"no room for {len(left_out):,} of {total:,} columns ({', '.join(names)}{more}); "
        "--drop PATTERN makes some, --keep PATTERN puts others first, --csv has them all"
    )
