"""Tables: lines and columns drawn for a terminal of any width, or written as Markdown and CSV."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from attrs import frozen
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

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
    """A column as it is drawn: its title, its cells, and how wide the widest of them is."""

    title: Text
    cells: Sequence[Text]
    justify: Literal["left", "right"] = "left"

    @property
    def width(self) -> int:
        """How many characters wide it is."""
        return max([cell_len(line) for line in self.title.plain.split("\n")] + [each.cell_len for each in self.cells])


@frozen(eq=False)
class Drawn:
    """A table, and the columns for which it has no room."""

    table: Table
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
    leads = [Text(_grid.shortened(line.lead, widest), "bold" if line.place is None else "") for line in lines]
    parts = [Part(Text("Experiment"), leads)]
    if room is None or room >= NARROW:
        parts.append(Part(Text("Created"), [Text(line.created) for line in lines]))
    if room is None or room >= NARROWEST:
        parts.append(Part(Text("Status"), [Text(line.status, COLOURS.get(line.status, "")) for line in lines]))
    return parts


def _values(lines: Sequence[Line], column: Column, precision: int, beside: Sequence[str] | None, *, fold: bool) -> Part:
    texts = _grid.texts(column, precision, _grid.WIDEST if fold else None)
    if beside is not None:
        longest = max(map(cell_len, texts), default=0)
        texts = [f"{text}{' ' * (longest - cell_len(text))} {more}" for text, more in zip(texts, beside, strict=True)]
    cells = [Text("" if line.place is None else texts[line.place]) for line in lines]
    widest = max((each.cell_len for each in cells), default=0)
    title = visible(column.title)
    folds = _grid.folded(title, widest) if fold else [title]
    numbers = all(isinstance(value, int | float | None) for value in column.values)
    return Part(Text("\n".join(folds), HEADS[column.kind]), cells, "right" if numbers and not beside else "left")


def fitted(first: Sequence[Part], more: Sequence[Part], room: int | None) -> list[Part]:
    """Return the parts of *first*, then of *more*, that *room* is enough for."""
    left = _LARGE if room is None else room - EDGE
    taken = []
    for part in (*first, *more):
        if part.width + GAP <= left:
            taken.append(part)
            left -= part.width + GAP
    return taken


def table(parts: Sequence[Part]) -> Table:
    """Return the table of these columns."""
    drawn = Table(box=box.HORIZONTALS, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for part in parts:
        drawn.add_column(part.title, width=part.width, justify=part.justify, no_wrap=True, overflow="crop")
    for row in zip(*(part.cells for part in parts), strict=True):
        drawn.add_row(*row)
    return drawn


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
    widths = [max(3, *map(cell_len, column)) for column in zip(*safe, strict=True)]
    head, *body = ["| " + " | ".join(map(_padded, row, widths)) + " |" for row in safe]
    return "\n".join([head, f"|{'|'.join('-' * (width + 2) for width in widths)}|", *body])


def _at(texts: Sequence[str], line: Line) -> str:
    return "" if line.place is None else texts[line.place]


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))


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
