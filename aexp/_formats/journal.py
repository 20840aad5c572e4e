"""The lines of a journal: `crc32 SP json LF`, where the JSON is `[sequence, kind, payload]`.

The checksum is seeded with session and segment, so that a copied or recycled block is not accepted.
JSON holds no raw line feed, so the next line is found again after damage.
"""

import re
import zlib
from array import array
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import accumulate, chain
from typing import Any, Final, NamedTuple

import orjson


class Kind(StrEnum):
    """What a record says. All but `SEGMENT` speak of the experiment whose number stands first in the payload."""

    SEGMENT = "segment"
    """The first record of a file: format, session, segment."""
    BEGIN = "begin"
    PARAMS = "params"
    POINTS = "points"
    STEP = "step"
    FILE = "file"
    """Path, content in base 64 (None: what stands there is taken away); True when it is executable, "link" for a symbolic link."""
    LOG = "log"
    """Path, and what is added to the end of the file there."""
    JOINED = "joined"
    """Session, number and extents of a program that joined, and its summary, highest step and count of points.

    Its points and files stand at this place; they lie in the session's folder, which is now in ours.
    """
    PLACES = "places"
    """Where earlier records of `CONTENT` lie (`encode_places`); extents lead to it instead of to each of them."""
    OUTS = "outs"
    """The outs that are still to be taken, and what was left out, with the reasons."""
    ARTIFACT = "artifact"
    """An artifact whose content is in its store, and True when Git ignores its path already."""
    PLOT = "plot"
    """How data points are drawn that were logged as a file."""
    TAGS = "tags"
    MESSAGE = "message"
    END = "end"
    INTENT = "intent"
    SAVED = "saved"
    KEPT = "kept"
    DISCARDED = "discarded"
    RESUMED = "resumed"
    MOVED = "moved"


CONTENT: Final = frozenset({Kind.POINTS, Kind.FILE, Kind.LOG, Kind.JOINED})
"""What an experiment's extents lead to."""


class Line(NamedTuple):
    """One record of a journal, and where it stands in its segment."""

    sequence: int
    kind: str
    payload: Any
    offset: int
    length: int


VERSION: Final = 1


_BULK: Final = re.compile(rb'\[([0-9]+),"(points|file|log|places)",\[([0-9]+),')


def seed(session: str, segment: int) -> int:
    """Return what the checksums of a segment start from."""
    return zlib.crc32(f"{session}:{segment}".encode())


def encode_body(sequence: int, kind: str, payload: object) -> bytes:
    """Return the JSON of a record; *payload* holds only what JSON can, with integers of 64 bits."""
    return orjson.dumps([sequence, kind, payload])


def encode_line(body: bytes, start: int) -> bytes:
    """Return the line of a record's *body* in the segment whose checksums start from *start*."""
    return b"%08x %b\n" % (zlib.crc32(body, start), body)


def header(session: str, segment: int, sequence: int) -> bytes:
    """Return the first line of a segment, which repeats the *sequence* of the record before it."""
    payload = {"format": VERSION, "session": session, "segment": segment}
    return encode_line(encode_body(sequence, Kind.SEGMENT, payload), seed(session, segment))


def decode_line(line: bytes, start: int, *, skim: bool = False) -> tuple[int, str, Any] | None:
    """Return (sequence, kind, payload) of a *line*; None when it is torn or damaged.

    *skim* leaves points and files where they are: of such a payload only the number is returned.
    """
    if len(line) < 10 or line[8:9] != b" " or not line.endswith(b"\n"):
        return None
    body = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(body, start):
        return None
    if skim and (bulk := _BULK.match(body)) is not None:
        return int(bulk[1]), bulk[2].decode(), [int(bulk[3])]
    sequence, kind, payload = orjson.loads(body)
    return sequence, kind, payload


class Reader:
    """Reads the segments of one session in order, and tells a torn tail from damage.

    Sequence numbers have no gaps. Bytes that are no record, followed by nothing or by the very next record, are the
    rest of a write that was cut off: normal. So is a gap that a later segment fills: a sync had failed, and what it may
    have lost was written again there. A record that stands nowhere, with a later one behind it, is damage.
    """

    def __init__(self, session: str, *, salvage: bool = False, skim: bool = False) -> None:
        self.session, self.salvage, self.skim = session, salvage, skim
        self.sequence = 0
        """The last good record."""
        self.torn: tuple[int, int] | None = None
        """Segment and offset of the first bytes behind the last good record that are none."""
        self._gap: tuple[int, int] | None = None
        self._beyond = 0
        """A record behind the gap: once the reading has got there, the gap is filled."""
        self._lost: tuple[int, int] | None = None

    @property
    def damaged(self) -> tuple[int, int] | None:
        """Segment and offset where the first record is missing, when all segments are read."""
        return self._lost or (self._gap if self._beyond > self.sequence else None)

    def read(self, segment: int, lines: Iterable[bytes], later: int | None = None, offset: int = 0) -> Iterator[Line]:
        """Yield the good records of *segment* that were not read before, up to the first gap; salvage goes on after it.

        All records after *later* stand again in segments that follow; salvage must know that, to leave them to those.
        The first of *lines* stands at *offset*.
        """
        start = seed(self.session, segment)
        for line in lines:
            place, offset = (segment, offset), offset + len(line)
            record = decode_line(line, start, skim=self.skim)
            if record is None:
                self.torn = self.torn or place
                continue
            sequence, kind, _ = record
            if sequence > self.sequence + (kind != Kind.SEGMENT):  # a header repeats the number of the record before it
                if self.sequence >= self._beyond:
                    self._gap = self.torn or place
                self._beyond = max(self._beyond, sequence)
                if not self.salvage or (later is not None and later < sequence):
                    return
                self._lost = self._lost or self._gap
            if kind != Kind.SEGMENT and sequence > self.sequence:
                self.sequence, self.torn = sequence, None
                yield Line(*record, place[1], len(line))


class Extents:
    """Where in a journal the records of one experiment lie: ranges of bytes, of bounded number.

    Once there are many, the writer of a journal folds the older ones into a record of their own, which a range leads to
    (`fold`). Who does not write joins neighbours when there are *limit*; a joined range also covers records of other
    experiments, which the reader passes over. So an experiment can log without end in constant memory.
    """

    __slots__ = ("_limit", "_places", "_size")
    MANY: Final = 256
    """From how many ranges on they are to be folded."""
    LIMIT: Final = 4096

    def __init__(self, ranges: Iterable[tuple[int, int, int]] = (), *, limit: int = LIMIT) -> None:
        # Flat, three numbers a range: a tuple for each would be most of what a session leaves to the garbage collector.
        self._places, self._limit = array("q", chain.from_iterable(ranges)), limit
        self._size = _covered(self._places)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield (segment, first byte, byte after the last) in order."""
        return zip(*[iter(self._places[:])] * 3, strict=True)

    def __len__(self) -> int:
        """Return how many bytes the experiment's own records take."""
        return self._size

    def add(self, segment: int, offset: int, length: int) -> bool:
        """Add a record, in the order in which they are written; say whether there are many ranges now."""
        places = self._places
        self._size += length
        if places and places[-1] == offset and places[-3] == segment:
            places[-1] = offset + length
            return False
        places.extend((segment, offset, offset + length))
        if len(places) > 3 * self._limit:
            self._places = _joined(places)
        return len(places) > 3 * self.MANY

    def copy(self) -> "Extents":
        """Return the ranges as they are now."""
        same = Extents(self, limit=self._limit)
        same._size = self._size
        return same

    def cut(self, segment: int, offset: int) -> None:
        """Forget what lies at or after *offset* of *segment*: it is going to be written again elsewhere."""
        kept = array("q")
        for s, start, stop in self:
            if (s, start) < (segment, offset):
                kept.extend((s, start, min(stop, offset) if s == segment else stop))
        self._size -= _covered(self._places) - _covered(kept)
        self._places = kept

    def before(self, segment: int, offset: int) -> "array[int]":
        """Return the ranges, flat, that end before *offset* of *segment*, but for the last, which may still grow."""
        places = self._places
        count = max(0, len(places) - 3)
        while count and (places[count - 3], places[count - 1]) > (segment, offset):
            count -= 3
        return places[:count]

    def fold(self, ranges: "array[int]", place: tuple[int, int, int]) -> None:
        """Let the one range *place*, where a record lists them, stand for *ranges*, unless these were joined meanwhile."""
        if self._places[: len(ranges)] == ranges:
            self._places = array("q", place) + self._places[len(ranges) :]


def _covered(places: "array[int]") -> int:
    return sum(places[2::3]) - sum(places[1::3])


def _joined(places: "array[int]") -> "array[int]":
    """Join each pair of neighbours that lie in one segment."""
    joined = array("q")
    for place in range(0, len(places), 6):
        pair = places[place : place + 6]
        if len(pair) == 6 and pair[0] == pair[3]:
            joined.extend((pair[0], pair[1], pair[5]))
        else:
            joined.extend(pair)
    return joined


def encode_places(places: "array[int]") -> list[list[int]]:
    """Return flat ranges as JSON holds them: a list for each segment, with its number, and from bound to bound the way."""
    runs: list[list[int]] = []
    last = 0
    for segment, start, stop in zip(*[iter(places)] * 3, strict=True):
        if not runs or runs[-1][0] != segment:
            runs.append([segment])
            last = 0
        runs[-1] += (start - last, stop - start)
        last = stop
    return runs


def decode_places(runs: list[list[int]]) -> list[tuple[int, int, int]]:
    """Undo `encode_places`; the ranges as (segment, first byte, byte after the last)."""
    found: list[tuple[int, int, int]] = []
    for segment, *ways in runs:
        bounds = list(accumulate(ways))
        found += zip([segment] * (len(bounds) // 2), bounds[::2], bounds[1::2], strict=True)
    return found
