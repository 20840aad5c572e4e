"""The bytes of a journal: what is written is read, and what is damaged is told from what was cut off."""

import random
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aexp._formats.batch import Column, Encoder, Stream
from aexp._formats.journal import Extents, Kind, Line, Reader, decode_line, encode_body, encode_line, header, seed
from aexp._formats.series import Points, collect
from aexp._layout import segment_name
from aexp._sessions import read_extents, read_ledger
from aexp.errors import JournalCorrupt

SESSION = "0190b5a0c0007000800000000000abcd"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)  # fmt: skip


def line(sequence: int, kind: str, payload: object, segment: int = 1, session: str = SESSION) -> bytes:
    """The line of a record."""
    return encode_line(encode_body(sequence, kind, payload), seed(session, segment))


def mixed(first: int = 1, count: int = 20, segment: int = 1) -> list[bytes]:
    """The header and the records of a segment, of every kind of length and content."""
    payloads: list[tuple[Kind, list[Any]]] = [
        (Kind.POINTS, [1, {"loss": [[0, 1], [0.5, "nan"]]}]),
        (Kind.STEP, [2, 7]),
        (Kind.FILE, [1, "notes/é.txt", "NM&qnZ!92pZv"]),
        (Kind.TAGS, [2, []]),
        (Kind.POINTS, [2, {"a/b": [[-1], [True], [[0, 1.5]]]}]),
        (Kind.MESSAGE, [1, "Joined\nlines"]),
    ]
    records = [line(n, *payloads[n % len(payloads)], segment) for n in range(first, first + count)]
    return [header(SESSION, segment, first - 1), *records]


def read(segments: Sequence[bytes], *, salvage: bool = False) -> tuple[list[Line], Reader]:
    """What a reader finds in the segments, counted from 1."""
    reader, firsts, found = Reader(SESSION, salvage=salvage), [], list[Line]()
    for number, content in enumerate(segments, 1):
        first = decode_line(content[: content.find(b"\n") + 1], seed(SESSION, number))
        firsts.append(2**63 if first is None or first[1] != Kind.SEGMENT else first[0])
    for number, content in enumerate(segments, 1):
        found += reader.read(number, BytesIO(content), min(firsts[number:], default=None))
    return found, reader


def sequences(segments: Sequence[bytes], *, salvage: bool = False) -> list[int]:
    """The numbers of the records that a reader finds."""
    return [each.sequence for each in read(segments, salvage=salvage)[0]]


def offsets(lines: Sequence[bytes]) -> list[int]:
    """Where each line begins."""
    return [sum(map(len, lines[:place])) for place in range(len(lines))]


# ---- lines ----


def test_the_bytes_of_a_journal_are_these() -> None:
    """A line is a seeded CRC-32 in hex, a space, and JSON; journals of today can be read tomorrow."""
    assert seed(SESSION, 1) == zlib.crc32(f"{SESSION}:1".encode())
    assert header(SESSION, 1, 0) == (
        b'6f6c00cc [0,"segment",{"format":1,"session":"0190b5a0c0007000800000000000abcd","segment":1}]\n'
    )
    assert line(5, Kind.POINTS, [1, {"train/loss": [[0, 1], [0.1, "inf"]]}]) == (
        b'af5be349 [5,"points",[1,{"train/loss":[[0,1],[0.1,"inf"]]}]]\n'
    )
    assert line(6, Kind.TAGS, [2, ["a\nb", "é"]], 2) == '3ab822ee [6,"tags",[2,["a\\nb","é"]]]\n'.encode()


@given(st.integers(0, 2**63), st.sampled_from(Kind), JSON, st.text("0123456789abcdef"), st.integers(1, 10**7))
def test_what_is_encoded_is_decoded(sequence: int, kind: Kind, payload: object, session: str, segment: int) -> None:
    """Any record comes back as it was, in one line, and only for its own session and segment."""
    encoded = line(sequence, kind, payload, segment, session)

    assert encoded.count(b"\n") == 1
    assert decode_line(encoded, seed(session, segment)) == (sequence, kind, payload)
    assert decode_line(encoded, seed(session, segment + 1)) is None
    assert decode_line(encoded, seed(session + "0", segment)) is None
    assert decode_line(encoded[:-1], seed(session, segment)) is None


# ---- one segment ----


def test_a_whole_journal_is_read() -> None:
    """Every record is found where it stands, and nothing is called torn or damaged."""
    lines = mixed()
    found, reader = read([b"".join(lines)])

    assert [(each.offset, each.length) for each in found] == list(zip(offsets(lines), map(len, lines), strict=True))[1:]
    assert [each.sequence for each in found] == list(range(1, 21))
    assert (reader.sequence, reader.torn, reader.damaged) == (20, None, None)


def test_a_torn_tail_is_normal() -> None:
    """Wherever a journal is cut off, all records before the cut are read, and it is not called damaged."""
    lines = mixed()
    content, places = b"".join(lines), offsets(lines)
    for length in range(len(content)):
        whole = sum(place + len(each) <= length for place, each in zip(places, lines, strict=True))
        for salvage in (False, True):
            found, reader = read([content[:length]], salvage=salvage)
            assert [each.sequence for each in found] == list(range(1, whole))
            assert reader.damaged is None
            assert reader.torn == ((1, places[whole]) if length > places[whole] else None)


def test_every_flipped_bit_is_found() -> None:
    """A flipped bit costs the record it is in: the last one is a torn tail, any other is damage at exactly its offset."""
    lines = mixed()
    content, places = bytearray(b"".join(lines)), offsets(lines)
    for bit in range(8 * len(content)):
        content[bit // 8] ^= 1 << bit % 8
        hit = max(n for n, place in enumerate(places) if place <= bit // 8)
        lost = {hit, hit + 1} if content[places[hit] + len(lines[hit]) - 1] != 10 else {hit}  # the line feed is gone
        missing = sorted(lost & set(range(1, 21)))
        found, reader = read([bytes(content)])
        kept, salvage = read([bytes(content)], salvage=True)
        assert [each.sequence for each in found] == list(range(1, missing[0] if missing else 21))
        assert [each.sequence for each in kept] == [n for n in range(1, 21) if n not in missing]
        assert reader.damaged == salvage.damaged == ((1, places[hit]) if missing and missing[-1] < 20 else None)
        assert reader.torn == ((1, places[hit]) if missing else None)
        content[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("place", [1, 7, 19])
def test_damage_on_the_disk_is_loud(tmp_path: Path, place: int) -> None:
    """A flipped bit in a file raises `JournalCorrupt` with the file and the offset; salvage keeps all other records."""
    lines = mixed()
    where = offsets(lines)[place]
    content = bytearray(b"".join(lines))
    content[where + 20] ^= 4
    (tmp_path / segment_name(1)).write_bytes(content)
    with pytest.raises(JournalCorrupt) as told:
        read_ledger(str(tmp_path), SESSION)
    ledger = read_ledger(str(tmp_path), SESSION, salvage=True)

    assert (told.value.path, told.value.offset) == (str(tmp_path / segment_name(1)), where)
    assert ledger.sequence == 20
    assert sum(map(len, ledger.extents.values())) == sum(
        len(each)
        for n, each in enumerate(lines)
        if n != place and (b'"points"' in each or b'"file"' in each)
    )  # fmt: skip


def test_copied_blocks_are_refused() -> None:
    """Whole lines of another session, or of another segment of the same one, are no records of this one."""
    lines = mixed()
    for stranger in (line(11, Kind.STEP, [1, 1], 2), line(11, Kind.STEP, [1, 1], 1, SESSION[::-1])):
        assert sequences([b"".join(lines[:11]) + stranger]) == list(range(1, 11))
        assert sequences([b"".join(lines[:11]) + stranger + b"".join(lines[11:])]) == list(range(1, 21))
    assert sequences([b"", b"".join(lines)]) == []


# ---- several segments ----


def test_a_record_lost_at_the_end_of_a_segment_is_loud() -> None:
    """A segment that lost its last records is damaged when the next one says that there were more."""
    first, second = mixed(), b"".join(mixed(21, 5, segment=2))
    for stop in (11, 19, 20):
        content = b"".join(first[:stop]) + first[stop][:-5]
        for following in (second, mixed(21, 0, segment=2)[0]):
            found, reader = read([content, following])
            assert [each.sequence for each in found] == list(range(1, stop))
            assert reader.damaged == (1, offsets(first)[stop])
        assert sequences([content, second], salvage=True) == [*range(1, stop), *range(21, 26)]
        for salvage in (False, True):
            assert sequences(
                [b"".join(first[: stop + 1]), b"", b"".join(mixed(stop + 1, 5, segment=3))], salvage=salvage
            ) == list(range(1, stop + 6))


def test_a_segment_that_was_written_again_is_read_once() -> None:
    """Records that stand in two segments, because a sync had failed, count once, in order."""
    first, second = mixed(), mixed(11, 20, segment=2)
    for stop in range(11, 22):
        for rest in (b"", second[1][:9], b"\0" * 100):
            contents = [b"".join(first[:stop]) + rest, b"".join(second)]
            found, reader = read(contents)
            assert [each.sequence for each in found] == list(range(1, 31))
            assert reader.damaged is None


@settings(max_examples=200)
@given(st.data())
def test_what_a_failed_sync_lost_is_found_again(data: st.DataObject) -> None:
    """Whatever pages a segment lost after its last good sync, the segment that was written instead fills the gap."""
    contents, written = [], 0
    for segment in range(1, data.draw(st.integers(2, 5)) + 1):
        lines = mixed(written + 1, data.draw(st.integers(0, 12)), segment)
        synced = data.draw(st.integers(0, len(lines) - 1))
        content = bytearray(b"".join(lines))
        for place in data.draw(st.lists(st.integers(len(b"".join(lines[: synced + 1])), len(content)), max_size=3)):
            content[place : place + 40] = bytes(len(content[place : place + 40]))
        contents.append(bytes(content))
        written += synced
    contents.append(b"".join(mixed(written + 1, 30, segment=len(contents) + 1)))
    for salvage in (False, True):
        found, reader = read(contents, salvage=salvage)
        assert [each.sequence for each in found] == list(range(1, written + 31))
        assert reader.damaged is None


def test_what_was_never_written_again_is_damage() -> None:
    """When a process died while it wrote a bad segment again, what stands only behind the gap is told, not dropped."""
    first, places = mixed(), offsets(mixed())
    gap = b"".join(first[:8]) + b"\0" * 30 + b"\n" + b"".join(first[12:])
    _, reader = read([gap, b"".join(mixed(6, 3, segment=2))])
    _, filled = read([gap, b"".join(mixed(6, 15, segment=2))])

    _, again = read([gap, b"".join([*mixed(6, 3, 2), *mixed(6, 5, 2)[5:]]), b"".join(mixed(9, 3, segment=3))])

    assert reader.damaged == again.damaged == (1, places[8])
    assert again.sequence == 11
    assert filled.damaged is None


# ---- where the records of one experiment lie ----


def test_neighbouring_records_are_one_range() -> None:
    """An experiment that logs alone needs one range of bytes a segment, however much it logs."""
    extents = Extents()
    for segment in (1, 2):
        for place in range(10_000):
            extents.add(segment, place * 50, 50)

    assert list(extents) == [(1, 0, 500_000), (2, 0, 500_000)]
    assert len(extents) == 1_000_000


def test_what_is_cut_is_forgotten() -> None:
    """What is going to be written again leaves the ranges, down to the byte; a copy made before stays as it was."""
    extents = Extents([(1, 0, 50), (1, 90, 120), (2, 0, 10), (2, 40, 90), (2, 100, 110)])
    before = extents.copy()
    extents.cut(2, 60)
    assert list(extents) == [(1, 0, 50), (1, 90, 120), (2, 0, 10), (2, 40, 60)]
    extents.cut(2, 60)
    extents.cut(2, 40)
    assert list(extents) == [(1, 0, 50), (1, 90, 120), (2, 0, 10)]
    extents.cut(2, 0)
    extents.add(3, 7, 5)

    assert list(extents) == [(1, 0, 50), (1, 90, 120), (3, 7, 12)]
    assert len(before) == 50 + 30 + 10 + 50 + 10


def test_joined_ranges_still_give_one_experiment(tmp_path: Path) -> None:
    """However many experiments log in turn, the ranges of one stay few and give its records, in order, and no others."""
    dice, sequence, extents = random.Random(7), 0, defaultdict[int, Extents](Extents)
    logged: dict[int, list[tuple[str, Any]]] = defaultdict(list)
    for segment in (1, 2, 3):
        content = bytearray(header(SESSION, segment, sequence))
        for _ in range(6000):
            sequence, number = sequence + 1, dice.choice([1, 2, 12, 112])
            kind = dice.choice([Kind.POINTS, Kind.POINTS, Kind.FILE, Kind.TAGS])
            payload = [
                number,
                [1, [2, 12]] if kind == Kind.TAGS else f",[{dice.choice([1, 2, 12])}," * dice.randrange(9),
            ]
            record = line(sequence, kind, payload, segment)
            if kind != Kind.TAGS:
                extents[number].add(segment, len(content), len(record))
                logged[number].append((kind, payload))
            content += record
        (tmp_path / segment_name(segment)).write_bytes(content)
    ledger = read_ledger(str(tmp_path), SESSION)

    for number in (1, 2, 12, 112):
        for known in (extents[number], ledger.extents[number]):
            assert len(list(known)) <= Extents.LIMIT + 3
            assert list(read_extents(str(tmp_path), SESSION, known, number, None)) == logged[number]
    half = list(read_extents(str(tmp_path), SESSION, extents[2], 2, 9000))
    assert half == logged[2][: len(half)]
    assert 0.4 < len(half) / len(logged[2]) < 0.6


def test_a_range_that_cannot_be_read_is_loud(tmp_path: Path) -> None:
    """A record that was there and is damaged now, or a file that is too short, raises `JournalCorrupt` with the place."""
    lines = mixed()
    path = tmp_path / segment_name(1)
    places, content = offsets(lines), b"".join(lines)
    for bad, offset in ((content.replace(b'"nan"', b'"inf"'), places[6]), (content[: places[6]], places[6])):
        path.write_bytes(bad)
        extents = Extents([(1, places[6], places[7])])
        with pytest.raises(JournalCorrupt) as told:
            list(read_extents(str(tmp_path), SESSION, extents, 1, None))
        assert (told.value.path, told.value.offset) == (str(path), offset)


# ---- from the queue to records ----

POINT = st.tuples(st.just("point"), st.integers(0, 2), st.sampled_from(["a", "b"]), st.integers(0, 9), st.floats())
TOLD = st.tuples(st.sampled_from([Kind.TAGS, Kind.STEP, Kind.FILE, "barrier"]), st.integers(0, 2), st.integers(0, 99))


def items(
    events: Sequence[tuple[Any, ...]], columns: dict[tuple[int, str], Column], streams: list[Stream]
) -> Iterator[tuple[Any, ...]]:
    """What the queue holds after the events."""
    for what, number, *rest in events:
        if what == "point":
            name, step, value = rest
            yield columns[number, name], step, value, value if step % 2 and value == value else None
        elif what == "barrier":
            yield None, Kind.SEGMENT, None, Future[int]()
        else:
            yield None, what, [number, *rest], streams[number] if what == Kind.FILE else None


@given(st.lists(st.lists(POINT | TOLD, max_size=40), max_size=5))
def test_any_interleaving_is_told_in_order(batches: list[list[tuple[Any, ...]]]) -> None:
    """Each experiment's points come out in the order they went in, around its other records, numbered without a gap."""
    streams = [Stream(number) for number in range(3)]
    columns = {(number, name): Column(streams[number], name) for number in range(3) for name in "ab"}
    encoder, bodies, asked = Encoder(41), list[bytes](), 0
    seen: dict[int, dict[str, Points]] = defaultdict(dict)
    told: list[tuple[str, list[Any], list[int]]] = []
    for batch in batches:
        for entries in encoder.encode(list(chain.from_iterable(items(batch, columns, streams)))):
            for entry in entries:
                if not entry.body:
                    asked += 1
                    assert entry.written is not None
                    continue
                bodies.append(entry.body)
                record = decode_line(encode_line(entry.body, 0), 0)
                assert record is not None
                sequence, kind, payload = record
                assert sequence == entry.sequence == 41 + len(bodies)
                if kind == Kind.POINTS:
                    assert entry.stream is streams[payload[0]]
                    collect([payload[1]], seen[payload[0]])
                else:
                    told.append((kind, payload, [sum(len(p.steps) for p in seen[n].values()) for n in range(3)]))
    events = [event for batch in batches for event in batch]
    expected, counts = list[tuple[str, list[Any], list[int]]](), [0, 0, 0]
    for what, number, *rest in events:
        if what == "point":
            counts[number] += 1
        elif what not in ("barrier", Kind.STEP):
            expected.append((what, [number, *rest], list(counts)))

    assert [each for each in told if each[0] != Kind.STEP] == expected
    assert asked == sum(event[0] == "barrier" for event in events)
    assert encoder.sequence == 41 + len(bodies)
    for number in range(3):
        last = [event[2] for event in events if event[:2] == (Kind.STEP, number)][-1:]
        assert [payload[1] for kind, payload, _ in told if kind == Kind.STEP and payload[0] == number][-1:] == last
        for name in "ab":
            points = [event[3:] for event in events if event[:3] == ("point", number, name)]
            found = seen[number].get(name, Points())
            assert list(zip(found.steps, map(repr, found.values), strict=True)) == [(s, repr(v)) for s, v in points]
            assert list(found.stamps) == [n for n, (s, v) in enumerate(points) if s % 2 and v == v]
