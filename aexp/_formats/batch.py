"""From what is queued to the records of a journal: points become columns, one record an experiment."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import groupby
from typing import Any, Final

import orjson
from attrs import define, field

from .journal import Extents, Kind, encode_body, encode_places
from .series import encode_values

SLICE: Final = 2_000
"""Points sorted into columns at a time, about half a millisecond; the caller gives the interpreter away in between."""

WIDTH: Final = 4
"""Places an item takes in the queue, which is flat: a tuple for each point would be half the work of logging it, and
what the garbage collector looks at.

An item is column, step, value, timestamp; or None, kind, payload, stream or future.
"""


@define(eq=False, repr=False)
class Stream:
    """What the journal knows of one open experiment: its number, and where its points and files lie."""

    number: int
    extents: Extents = field(factory=Extents)
    files: frozenset[str] = frozenset()
    """The paths of its files."""
    highest: int = 0
    """The highest step of any point that was encoded."""
    joined: int = 0
    """How many bytes programs that joined have in their journals."""
    folding: bool = False
    """Whether a `Fold` of it is under way."""


@define(eq=False, repr=False)
class Column:
    """The points of one metric that are on their way; only the encoder touches them."""

    stream: Stream
    name: str
    data: list[Any] | None = None
    """Steps and values in turn; None while there are no points, so that an idle experiment holds little for the
    garbage collector to look at."""
    stamps: list[tuple[int, float]] | None = None
    """Pairs of a position and its timestamp, where there are any."""

    def taken(self) -> list[list[Any]]:
        """Return steps, values and, where there are any, timestamps, as the journal holds them; leave none."""
        data, stamps = self.data or [], self.stamps
        self.data = self.stamps = None
        return (
            [data[::2], encode_values(data[1::2])] if stamps is None else [data[::2], encode_values(data[1::2]), stamps]
        )


@define(eq=False, repr=False)
class Fold:
    """A record on its way to the disk that is to stand for the older ranges of a stream: where it lies, once it does.

    It is asked to note and to forget its place as the extents of a stream are.
    """

    stream: Stream
    ranges: "array[int]"
    place: tuple[int, int, int] | None = None

    @property
    def extents(self) -> "Fold":
        """What notes the place."""
        return self

    def add(self, segment: int, offset: int, length: int) -> bool:
        """Note the place."""
        self.place = (segment, offset, offset + length)
        return False

    def cut(self, segment: int, offset: int) -> None:
        """Forget the place when it lies behind *offset* of *segment*: the record is going to be written again."""
        if self.place is not None and self.place[:2] >= (segment, offset):
            self.place = None

    def settle(self, segment: int, offset: int) -> bool:
        """Take the place of the ranges when all before *offset* of *segment* is synced, and the record too; say so."""
        if self.place is None or (self.place[0], self.place[2]) > (segment, offset):
            return False
        self.stream.extents.fold(self.ranges, self.place)
        self.stream.folding = False
        return True


@define(eq=False, repr=False)
class Entry:
    """A record on its way to the disk; one without a body only asks to be told when all before it is synced."""

    body: bytes
    sequence: int
    stream: Stream | Fold | None = None
    written: "Future[int] | None" = None


def rewritten(body: bytes, stream: Stream | Fold | None) -> Entry:
    """Return the entry of a record that is to be written once more; nobody waits for it any longer."""
    return Entry(body, int(body[1 : body.index(b",")]), stream)


def waiting(queue: Sequence[Any], pending: Sequence[Entry]) -> int:
    """Return how many points and other records are in *queue* and *pending*, but for counters and calls of `flush`."""
    queued = zip(queue[::WIDTH], queue[1::WIDTH], queue[2::WIDTH], strict=False)
    count: int = sum(
        column is not None or (kind != Kind.STEP and payload is not None) for column, kind, payload in queued
    )
    for _, kind, payload in (orjson.loads(entry.body) for entry in pending if entry.body):
        if kind == Kind.POINTS:
            count += sum(len(columns[0]) for columns in payload[1].values())
        elif kind != Kind.STEP:
            count += 1
    return count


class Encoder:
    """Numbers the records of a journal; `sequence` is the last number given."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self._dirty: list[Column] = []
        self._steps: dict[int, int] = {}

    def encode(self, batch: Sequence[Any]) -> Iterator[list[Entry]]:
        """Yield the records of the items in *batch*, flat as in the queue, slice by slice; each slice is short work."""
        for begin in range(0, len(batch), WIDTH * SLICE):
            yield self._sorted(batch[begin : begin + WIDTH * SLICE])
        yield self._settled()

    def _sorted(self, places: Sequence[Any]) -> list[Entry]:
        entries: list[Entry] = []
        for column, step, value, extra in zip(*[iter(places)] * WIDTH, strict=True):
            if column is None:
                if step is Kind.STEP:  # a counter: the last of a batch tells all
                    self._steps[value[0]] = value[1]
                else:
                    entries += self._settled()
                    entries.append(self._record(step, value, extra))
                continue
            data = column.data
            if data is None:
                column.data = data = [step, value]
                self._dirty.append(column)
            else:
                data += (step, value)
            if extra is not None:
                column.stamps = column.stamps or []
                column.stamps.append((len(data) // 2 - 1, extra))
        return entries

    def folds(self, streams: Iterable[Any], segment: int, synced: int) -> list[Entry]:
        """Return records that are to stand for the ranges of *streams* which are synced: up to *synced* in *segment*."""
        entries = []
        for stream in streams:
            ranges = stream.extents.before(segment, synced)
            if not stream.folding and len(ranges) > 3 * Extents.MANY // 2:
                stream.folding = True
                body = self._body(Kind.PLACES, [stream.number, encode_places(ranges)])
                entries.append(Entry(body, self.sequence, Fold(stream, ranges)))
        return entries

    def _record(self, kind: str, payload: object, extra: "Stream | Future[int] | None") -> Entry:
        body = b"" if payload is None else self._body(kind, payload)
        if isinstance(extra, Future):
            return Entry(body, self.sequence, None, extra)
        return Entry(body, self.sequence, extra)

    def _settled(self) -> list[Entry]:
        """Make one record an experiment of the columns that hold points, and empty them."""
        entries = []
        self._dirty.sort(key=_number)  # not sorted into a mapping for each: a thousand at once would age together
        for number, group in groupby(self._dirty, key=_number):
            columns = list(group)
            points, stream = {column.name: column.taken() for column in columns}, columns[0].stream
            stream.highest = max(stream.highest, *(max(taken[0]) for taken in points.values()))
            entries.append(self._record(Kind.POINTS, [number, points], stream))
        entries += [Entry(self._body(Kind.STEP, [number, step]), self.sequence) for number, step in self._steps.items()]
        self._dirty, self._steps = [], {}
        return entries

    def _body(self, kind: str, payload: object) -> bytes:
        self.sequence += 1
        return encode_body(self.sequence, kind, payload)


def _number(column: Column) -> int:
    return column.stream.number
