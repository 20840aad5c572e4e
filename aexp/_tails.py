"""Reading one journal while another writes it: without their locks, and each byte once.

A session's owner appends whole lines, goes on in a new segment when one is full or its sync has failed, and renames the
folder when it ends. So a line without its end is not there yet; a segment is complete as soon as there is a later one;
and what stands twice is read once, by its sequence number.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from attrs import define, field

from . import _sessions
from ._events import EventKind, Running
from ._files import Breath, read
from ._formats.account import Account, begun, told
from ._formats.experiment import moment
from ._formats.journal import Extents, Kind, Line, Reader
from ._formats.series import Curve, Number, decode_value
from ._layout import segment_name
from ._lifecycle import Status
from .errors import JournalCorrupt

PROBE: Final = 1.0
"""Seconds between two looks whether a session's owner lives, and whether a dead session has changed."""
GATHER: Final = 0.1
"""Seconds over which what is logged to an experiment is told as one event."""
_AT_ONCE: Final[Mapping[str, EventKind]] = MappingProxyType(
    {
        Kind.END: EventKind.ENDED,
        Kind.KEPT: EventKind.KEPT,
        Kind.DISCARDED: EventKind.DISCARDED,
        Kind.RESUMED: EventKind.RESUMED,
    }
)
_GATHERED: Final[Mapping[str, EventKind]] = MappingProxyType(
    {
        Kind.POINTS: EventKind.METRICS,
        Kind.JOINED: EventKind.METRICS,
        Kind.PARAMS: EventKind.PARAMS,
        Kind.TAGS: EventKind.DESCRIBED,
        Kind.MESSAGE: EventKind.DESCRIBED,
    }
)


@define(eq=False, repr=False)
class Standing:
    """How an experiment stands, and where its points lie."""

    account: Account
    summary: dict[str, Number] = field(factory=dict)
    step: int = 0
    points: int = 0
    extents: Extents = field(factory=Extents)

    def learn(self, line: Line, segment: int) -> None:
        """Learn from a record of the journal."""
        if line.kind == Kind.JOINED:
            self._take_in(*line.payload[4])
            self.extents.add(segment, line.offset, line.length)
        if line.kind != Kind.POINTS:
            self.account = told(self.account, line.kind, line.payload)
            return
        for name, column in line.payload[1].items():
            self.summary[name] = decode_value(column[1][-1])
            highest = max(column[0])
            self.step = max(self.step, highest)
            self.points += len(column[0])
        self.extents.add(segment, line.offset, line.length)

    def _take_in(self, last: Mapping[str, Number | str], step: int, points: int) -> None:
        """Take in what a program brought that joined."""
        self.summary.update((name, decode_value(value)) for name, value in last.items())
        self.step, self.points = max(self.step, step), self.points + points


News = tuple[EventKind, Standing, str | None]
"""What happened, to whom, and the commit that was made."""


@define(eq=False, repr=False)
class Tail:
    """What is known of one session, and how far its journal is read."""

    common: str
    id: str
    holder: Mapping[str, Any]
    alive: bool = True
    place: str = _sessions.LIVE
    looked: float = -PROBE
    """When its owner was last looked for, by the monotonic clock."""
    drained: bool = False
    """Whether all was read that was there."""
    part: bool = False
    """Whether it joined a session that still stands: what is logged here belongs to an experiment there."""
    mourned: bool = False
    """Whether it was told what a dead session left."""
    _reader: Reader = field(init=False)
    _segment: int = 0
    _offset: int = 0
    _standing: dict[int, Standing] = field(factory=dict)
    _gathered: dict[tuple[int, EventKind], None] = field(factory=dict)
    _told: float = 0.0

    def __attrs_post_init__(self) -> None:
        """Begin at the beginning."""
        self._reader = Reader(self.id, salvage=True)

    @property
    def joins(self) -> str:
        """The id of the experiment that it joined; empty when it joined none."""
        found = self.holder.get(_sessions.JOINS)
        return str(found.get("experiment", "")) if isinstance(found, dict) else ""

    @property
    def path(self) -> str:
        """The session's folder."""
        return _sessions.folder(self.common, self.id, self.place)

    def read(self, until: float) -> Iterator[News]:
        """Read on, soon after *until* of the monotonic clock at most, and yield what has happened."""
        breath, self.drained = Breath(), True
        numbers, headers = self._segments()
        if _sessions.begins(numbers, headers).get(self._segment, self._reader.sequence) < self._reader.sequence:
            self._read_again()
        else:
            for line in self._lines(numbers, headers):
                breath()
                yield from self._learned(line)
                if time.monotonic() > until:
                    self.drained = False
                    break
        if self.drained or time.monotonic() - self._told >= GATHER:
            self._told = time.monotonic()
            gathered, self._gathered = self._gathered, {}
            for number, kind in gathered:
                yield kind, self._standing[number], None

    def under_way(self) -> list[Standing]:
        """Return the experiments that are neither saved nor left."""
        return [each for each in self._complete() if self.alive and not each.account.fate]

    def left(self) -> list[Standing]:
        """Return the experiments that were left behind: kept, or open when the owner died."""
        fates = (Kind.KEPT,) if self.alive else ("", Kind.KEPT)
        return [each for each in self._complete() if each.account.fate in fates]

    def _complete(self) -> list[Standing]:
        return [each for each in self._standing.values() if each.account.complete]

    def running(self, standing: Standing) -> Running:
        """Return how an experiment of this session stands, for others to keep."""
        account, holder = standing.account, self.holder
        status = Status.INTERRUPTED if not self.alive and account.status is Status.RUNNING else account.status
        return Running(
            name=account.name,
            id=account.id,
            ref=account.ref,
            baseline=account.baseline,
            status=status,
            created=moment(account.created),
            ended=None if account.ended is None else moment(account.ended),
            error=account.error,
            session=self.id,
            host=str(holder.get("host", "")),
            user=str(holder.get("user", "")),
            pid=holder["pid"] if isinstance(holder.get("pid"), int) else 0,
            tags=account.tags,
            message=account.message,
            checkpoints=account.checkpoints,
            params=account.params,
            summary=dict(standing.summary),
            step=max(standing.step, account.step),
            points=standing.points,
        )

    def curves(self, standing: Standing, metric: str | None, into: dict[str, Curve]) -> None:
        """Add the points of *metric*, or of every metric, as far as the journal is read."""
        try:
            found = self._curves(standing, metric, self.path)
        except FileNotFoundError:  # the session has ended just now
            found = self._curves(standing, metric, _sessions.folder(self.common, self.id, _sessions.DONE))
        except JournalCorrupt:
            self._read_again()
            found = self._curves(self._standing[standing.account.number], metric, self.path)
        for name, curve in found.items():
            if name in into:
                into[name].append(curve)
            else:
                into[name] = curve

    def _read_again(self) -> None:
        """Read all from the beginning: a sync has failed, and what it may have lost stands again in a later segment."""
        self._reader, self._segment, self._offset, self._standing = Reader(self.id, salvage=True), 0, 0, {}
        breath = Breath()
        for line in self._lines(*self._segments()):
            breath()
            for _ in self._learned(line):
                pass
        self._gathered = {(each.account.number, EventKind.METRICS): None for each in self.under_way()}

    def _curves(self, standing: Standing, metric: str | None, path: str) -> dict[str, Curve]:
        breath, curves = Breath(), dict[str, Curve]()
        number = standing.account.number
        for kind, payload in _sessions.read_extents(path, self.id, standing.extents, number, None):
            breath()
            for name, column in payload[1].items() if kind == Kind.POINTS else ():
                if metric in (None, name):
                    curves.setdefault(name, Curve()).extend(*column)
        return curves

    def _learned(self, line: Line) -> Iterator[News]:
        number = line.payload[0] if isinstance(line.payload, list) else 0
        standing = self._standing.get(number)
        if line.kind == Kind.BEGIN:
            account, kind = begun(line.payload), EventKind.BEGUN
            if standing is None:
                standing = self._standing[number] = Standing(account)
            else:  # resumed by the session that kept or discarded it
                standing.account, kind = account, EventKind.RESUMED
            if account.complete:
                yield kind, standing, None
        elif standing is not None:
            standing.learn(line, self._segment)
            if standing.account.complete:
                yield from self._heard(number, standing, line)
            if standing.account.fate in (Kind.SAVED, Kind.MOVED):
                del self._standing[number]

    def _heard(self, number: int, standing: Standing, line: Line) -> Iterator[News]:
        if line.kind in _GATHERED:
            self._gathered[number, _GATHERED[line.kind]] = None
            return
        if line.kind == Kind.SAVED:
            kind, rev = (EventKind.SAVED if line.payload[2] else EventKind.CHECKPOINT), line.payload[1]
        elif line.kind in _AT_ONCE:
            kind, rev = _AT_ONCE[line.kind], None
        elif line.kind == Kind.MOVED:
            kind, rev = None, None
        else:
            return
        for before in [each for each in self._gathered if each[0] == number]:
            del self._gathered[before]
            yield before[1], standing, None
        if kind is not None:
            yield kind, standing, rev

    def _segments(self) -> tuple[list[int], dict[int, int]]:
        """Return the segments that may hold something new, and the headers of those that are new."""
        try:
            numbers = [number for number in _sessions.segments(self.path) if number >= self._segment]
        except FileNotFoundError:  # the folder has moved; the next look finds it
            return [], {}
        return numbers, {} if numbers == [self._segment] else _sessions.headers(self.path, self.id, numbers)

    def _lines(self, numbers: Sequence[int], headers: Mapping[int, int]) -> Iterator[Line]:
        later = _sessions.begins(numbers, headers)
        for number in numbers:
            path = os.path.join(self.path, segment_name(number))
            with suppress(FileNotFoundError):  # moved, or it could not be begun
                if number == self._segment:
                    if os.stat(path).st_size <= self._offset:
                        continue
                elif number not in headers:  # it is being made, or its maker died
                    continue
                with open(path, "rb") as file:
                    if number != self._segment:
                        self._segment, self._offset = number, 0
                    file.seek(self._offset)
                    lines = self._whole(file, later.get(number))
                    yield from self._reader.read(number, lines, later.get(number), self._offset)

    def _whole(self, file: BinaryIO, later: int | None) -> Iterator[bytes]:
        """Yield the lines that have an end, and do not stand again in a later segment."""
        for line in file:
            if not line.endswith(b"\n") or (later is not None and _sequence(line) > later):
                return
            self._offset += len(line)
            yield line


def _sequence(line: bytes) -> int:
    """Return the number of the record in *line*, 0 when it holds none."""
    match = re.match(rb"[0-9a-f]{8} \[([0-9]{1,19}),", line)
    return 0 if match is None else int(match[1])


def holder(path: str) -> Mapping[str, Any]:
    """Return what the session in the folder *path* says of its owner; empty when it cannot be read."""
    try:
        about = json.loads(read(os.path.join(path, _sessions.LOCK)))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}
