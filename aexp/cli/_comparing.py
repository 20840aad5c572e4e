"""`aexp diff`: what two experiments, or any two commits, differ in."""

from typing import Annotated

from rich.text import Text

import aexp

from . import _output, _screen, _shapes, _tables
from ._options import Commit, Json, Place, Precision, flag
from ._words import NONE, cell, visible

COLOURS = {"added": "green", "removed": "red", "changed": ""}
PATCH = {"+++": "bold", "---": "bold", "diff": "bold", "@@": "cyan", "+": "green", "-": "red"}


async def diff(
    left: Commit,
    right: Commit | None = None,
    /,
    *,
    patch: Annotated[bool, flag("Print the changes of files, too, as `git diff` does.", "--patch", "-p")] = False,
    md: Annotated[bool, flag("Print tables in Markdown.", "--md")] = False,
    precision: Precision = 5,
    json: Json = False,
    place: Place,
) -> None:
    """Print what differs between two experiments or other commits: metrics, parameters, files; one is compared with HEAD."""
    old, new = ("HEAD", left) if right is None else (left, right)
    async with aexp.Repository(place) as repository:
        found = await repository.compare(old, new, patch=patch)
    for side in (found.left, found.right):
        if side.damaged is not None:
            _output.say(f"some of {visible(side.name)} cannot be read: {side.damaged}")
    if json:
        _output.write_json(_shapes.comparison(found))
        return
    if not found:
        _output.say(f"{found.left.name} and {found.right.name} are equal")
        return
    header = [visible(found.left.name), visible(found.right.name), "Change"]
    screen = _screen.screen()
    for title, changes in (("Metric", found.metrics), ("Param", found.params)):
        rows = [_row(name, change, precision) for name, change in changes.items()]
        if rows and md:
            _output.write(_tables.markdown([title, *header], rows))
        elif rows:
            parts = zip([title, *header], zip(*rows, strict=True), strict=True)
            _screen.draw(
                screen, _tables.table([_tables.Part([head], cells, right=head != title) for head, cells in parts])
            )
    for file in found.files:
        _screen.draw(screen, Text(f"{file.kind:<8} {visible(file.path)}", COLOURS[file.kind]))
    for line in (found.patch or "").splitlines():
        if _screen.is_terminal():  # else as it is, for `git apply`
            _screen.draw(screen, Text(visible(line), _colour(line)))
        else:
            _output.write(line)


def _row(name: str, change: aexp.Change, precision: int) -> list[str]:
    old, new = (
        cell(value, precision) if change.kind in ("changed", kind) else NONE
        for value, kind in ((change.old, "removed"), (change.new, "added"))
    )
    return [visible(name), old, new, cell(change.difference, precision)]


def _colour(line: str) -> str:
    """Return the colour that `git diff` gives to a line."""
    return next((colour for start, colour in PATCH.items() if line.startswith(start)), "")
