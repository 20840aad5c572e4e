"""`aexp watch`: what runs now, in any process, and what happens to it."""

import json as codec
import math
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final

from attrs import define, field
from rich.console import Group
from rich.live import Live
from rich.text import Text

import aexp

from . import _output, _screen, _shapes, _sparks, _tables
from ._options import Json, Place, Precision, flag
from ._words import cell, count, length, plain, precise, visible

LINES: Final = 6
"""How many of the last events stand below the table."""
COURSE: Final = 60
"""How many values of a metric are kept for its course."""
QUIET: Final = frozenset({aexp.EventKind.METRICS, aexp.EventKind.CLOSED})
"""What is seen in the table, and needs no line of its own."""
OVER: Final = frozenset(
    {aexp.EventKind.SAVED, aexp.EventKind.KEPT, aexp.EventKind.DISCARDED, aexp.EventKind.INTERRUPTED}
)
"""After this, an experiment is no longer running."""


async def watch(
    *,
    once: Annotated[bool, flag("Print what runs now, and end.", "--once")] = False,
    precision: Precision = 5,
    json: Json = False,
    place: Place,
) -> None:
    """Show the experiments that run, of this and other processes, and what happens to them, until Ctrl-C."""
    async with aexp.Repository(place) as repository:
        if once:
            _once(await repository.running(), precision, json=json)
        elif json or not _screen.is_terminal():
            async for event in repository.watch():
                _tell(event, precision, json=json)
        else:
            await _live(repository, precision)


def _once(running: list[aexp.Running], precision: int, *, json: bool) -> None:
    if json:
        _output.write_json([_shapes.running(each) for each in running])
    elif running:
        view = View(precision)
        for each in running:
            view.running[each.id] = each
        screen = _screen.screen()
        _screen.draw(screen, view.table(_now(), _screen.room(screen)))
    else:
        _output.say("no experiment is running")


def _tell(event: aexp.Event, precision: int, *, json: bool) -> None:
    """Print an event as a line, at once."""
    if json:
        _output.write(codec.dumps(plain(_shapes.event(event))))
    else:
        line = said(event, precision, _now())
        if line is not None:
            _output.write(line.plain)
    _output.flush()


async def _live(repository: aexp.Repository, precision: int) -> None:
    """Keep a table on the terminal up to date; it stays there when Ctrl-C ends it."""
    screen, view = _screen.screen(), View(precision)
    with Live(console=screen, auto_refresh=True, refresh_per_second=4, get_renderable=lambda: view.drawn(screen.width)):
        async for event in repository.watch():
            view.take(event, _now())


def _now() -> datetime:
    return datetime.now().astimezone()


def said(event: aexp.Event, precision: int, now: datetime) -> Text | None:
    """Return the line that tells of an event; None for the end of a session."""
    experiment = event.experiment
    if experiment is None:
        return None
    line = Text(f"{precise(now, now)}  ")
    line.append(f"{event.kind.value:<11}", _tables.COLOURS.get(str(experiment.status)))
    line.append(f"  {visible(experiment.name)}", "bold")
    match event.kind:
        case aexp.EventKind.METRICS:
            line.append(f"  step {experiment.step}  {_values(experiment.summary, precision)}")
        case aexp.EventKind.PARAMS:
            line.append(f"  {cell(experiment.params, precision)}")
        case aexp.EventKind.DESCRIBED:
            line.append(f"  {visible(', '.join(experiment.tags))}  {visible(experiment.message)}")
        case aexp.EventKind.ENDED:
            line.append(f"  {experiment.status}")
            if experiment.error is not None:
                line.append(f"  {visible(str(experiment.error))}", "red")
        case aexp.EventKind.CHECKPOINT | aexp.EventKind.SAVED if event.rev is not None:
            line.append(f"  {event.rev[:7]}")
    return line


def _values(summary: Mapping[str, float | int | bool], precision: int) -> str:
    return "  ".join(f"{visible(name)} {cell(value, precision)}" for name, value in summary.items())


@define
class View:
    """What the live view knows: what is running, the course of its metrics, and the last events."""

    precision: int
    running: dict[str, aexp.Running] = field(factory=dict)
    courses: dict[tuple[str, str], deque[float]] = field(factory=dict)
    lines: deque[Text] = field(factory=lambda: deque(maxlen=LINES))

    def take(self, event: aexp.Event, now: datetime) -> None:
        """Take in an event."""
        experiment = event.experiment
        if experiment is None:
            return
        if event.kind in OVER:
            self.running.pop(experiment.id, None)
            for key in [key for key in self.courses if key[0] == experiment.id]:
                del self.courses[key]
        else:
            self.running[experiment.id] = experiment
        if event.kind is aexp.EventKind.METRICS:
            for name, value in experiment.summary.items():
                course = self.courses.setdefault((experiment.id, name), deque(maxlen=COURSE))
                course.append(float(value) if math.isfinite(value) else math.nan)
        line = None if event.kind in QUIET else said(event, self.precision, now)
        if line is not None:
            self.lines.append(line)

    def drawn(self, width: int) -> Group:
        """Return the table and the lines below it, in a terminal of *width* characters."""
        for line in self.lines:
            line.truncate(width)
        if not self.running:
            return Group(Text("no experiment is running; Ctrl-C ends the watch", "dim"), *self.lines)
        head = Text(f"{count(len(self.running), 'experiment')} running; Ctrl-C ends the watch", "dim")
        return Group(head, self.table(_now(), width), *self.lines)

    def table(self, now: datetime, room: int | None) -> Group:
        """Return a table of what is running, with as many metrics as there is room for."""
        rows = list(self.running.values())
        names = dict.fromkeys(name for each in rows for name in each.summary)
        first = [
            _tables.Part(["Experiment"], [visible(each.name) for each in rows], styles=["bold"] * len(rows)),
            _tables.Part(["For"], [length((now - each.created).total_seconds()) for each in rows]),
            _tables.Part(["Step"], [str(each.step) for each in rows], right=True),
        ]
        metrics = [
            _tables.Part([visible(name)], self._cells(rows, name), head=_tables.HEADS["metric"]) for name in names
        ]
        last = [
            _tables.Part(["Points"], [f"{each.points:,}" for each in rows], right=True),
            _tables.Part(["Process"], [f"{each.pid} on {visible(each.host)}" for each in rows]),
        ]
        return _tables.table(_tables.fitted(first, [*metrics, *last], room))

    def _cells(self, rows: list[aexp.Running], name: str) -> list[str]:
        return [
            f"{cell(each.summary[name], self.precision):<9} "
            f"{_sparks.sparkline(list(self.courses.get((each.id, name), ())))}"
            if name in each.summary
            else ""
            for each in rows
        ]
