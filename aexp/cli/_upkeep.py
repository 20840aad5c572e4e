"""`aexp maintain` and `aexp doctor`: what keeps a repository in shape, and what is wrong with it."""

from rich.text import Text

import aexp

from . import _output, _screen, _shapes
from ._commands import as_commands
from ._options import Json, Place
from ._words import count, size, visible

COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}
UNSOUND = 1
"""The exit code of `aexp doctor` where it found an error."""


async def maintain(*, json: Json = False, place: Place) -> None:
    """Sweep what dead programs left, remove journals and trash whose time is over, join packs; safe at any time."""
    async with aexp.Repository(place) as repository:
        done = await repository.maintain()
    if json:
        _output.write_json(_shapes.maintenance(done))
        return
    for text in told(done) or ["there was nothing to do"]:
        _output.write(text)
    for failure in done.failures:
        _output.say(visible(failure))
    if done.interrupted:
        _output.say(
            f"{count(len(done.interrupted), 'experiment')} interrupted; `aexp recover` saves them as they stand"
        )


def told(done: aexp.Maintenance) -> list[str]:
    """Return a line for each kind of thing that was done."""
    counted = {
        "session of a dead program put away": done.retired,
        "leftover of dead programs swept": done.swept,
        "ref of code no longer needed removed": done.anchors,
        "journal removed": done.journals,
        "experiment removed from the trash": done.trash,
    }
    lines = [f"{len(things):,} {_many(what, len(things))}" for what, things in counted.items() if things]
    if done.packs_before != done.packs_after:
        lines.append(f"{done.packs_before:,} packs joined to {done.packs_after:,}")
    if done.packed_refs:
        lines.append(f"{count(done.packed_refs, 'ref')} joined in one file")
    if done.freed:
        lines.append(f"{size(done.freed)} freed")
    return lines


def _many(what: str, number: int) -> str:
    noun, _, rest = what.partition(" ")
    return what if number == 1 else f"{noun}s {rest}"


async def doctor(*, json: Json = False, place: Place) -> int:
    """Look at Git, the repository, locks, leftovers, records, DVC and the disk, and say what to do; changes nothing."""
    async with aexp.Repository(place) as repository:
        found = await repository.diagnose()
    if json:
        _output.write_json([_shapes.finding(each) for each in found])
    else:
        screen = _screen.screen()
        width = max(len(each.subject) for each in found)
        for each in found:
            _screen.draw(screen, _line(each, width))
    return UNSOUND if any(each.level == "error" for each in found) else 0


def _line(found: aexp.Finding, width: int) -> Text:
    line = Text(f"{found.level:<8}", COLOURS[found.level])
    line.append(f"{visible(found.subject):<{width + 2}}", "bold")
    line.append(visible(found.text))
    if found.remedy is not None:
        line.append(f"; {visible(as_commands(found.remedy))}")
    return line
