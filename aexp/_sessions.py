"""Sessions on disk: the folder, the lock and the journal of each Repository that writes, living or dead."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, BinaryIO, Final

from attrs import define, field, frozen

from ._files import Breath, lock, make_folders, move_folder, read, sync, sync_folder, translating, write_all, write_new
from ._formats.account import Account, Intent, begun, intent_from_json, told
from ._formats.journal import (
    CONTENT,
    Extents,
    Kind,
    Reader,
    decode_line,
    decode_places,
    encode_body,
    encode_line,
    header,
    seed,
)
from ._layout import FORMAT, ROOT, segment_name, segment_number
from ._ways import Join
from .errors import JournalCorrupt, UnsupportedRepository

LIVE: Final = "sessions"
DONE: Final = "done"
TMP: Final = "tmp"
JOINED: Final = "joined"
"""The folder in a session's folder where the sessions stand that joined it."""
JOINS: Final = "joins"
"""What `owner.lock` says of the experiment that its session joins."""
LOCK: Final = "owner.lock"
HALF_MADE: Final = 60.0
"""Seconds after which a session that is not yet whole, and that nobody holds, was left by a dead process."""


@define(eq=False, repr=False)
class Session:
    """A session's folder, held through its lock until `close`."""

    id: str
    path: str
    _descriptor: int | None

    @property
    def held(self) -> bool:
        """Say whether this process holds it."""
        return self._descriptor is not None

    def close(self) -> None:
        """Let it go. A forked child closes its copy, too: else the session would outlive its owner."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def session_joins(join: Join) -> dict[str, Any]:
    """Return what `owner.lock` says of a session that follows *join*."""
    return {JOINS: {"experiment": join.experiment, "session": join.session}}


def create(common: str, id: str, about: Mapping[str, Any]) -> Session:
    """Make the folder of a new session, whole or not at all, and hold it."""
    root = os.path.join(common, ROOT)
    made, path = os.path.join(root, TMP, id), os.path.join(root, LIVE, id)
    descriptor: int | None = None
    with translating(root):
        try:
            make_folders(os.path.dirname(path))
            make_folders(os.path.dirname(made))
            check_format(root, f"{made}.format")
            os.mkdir(made)
            write_new(os.path.join(made, LOCK), json.dumps(about).encode() + b"\n")
            descriptor = lock(os.path.join(made, LOCK))
            if descriptor is None:  # we slept so long that `sweep` took us for dead
                raise FileNotFoundError(made)
            sync_folder(made)
            move_folder(made, path)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            if descriptor is not None:
                os.close(descriptor)
            raise
    return Session(id, path, descriptor)


def check_format(root: str, temporary: str) -> None:
    path = os.path.join(root, "format")
    try:
        found = read(path).decode(errors="replace").strip()
    except FileNotFoundError:
        found = ""
    if not found:  # absent, or cut off by a power failure before its content was synced
        write_new(temporary, f"{FORMAT}\n".encode())
        os.replace(temporary, path)
        sync_folder(root)
    elif found != FORMAT:
        raise UnsupportedRepository(root, f"its aexp folder has format {found}", "use a newer aexp")


def names(common: str, place: str = LIVE) -> list[str]:
    """Return the ids of the sessions in *place* (`LIVE` or `DONE`), oldest first: ids begin with their time."""
    try:
        return sorted(os.listdir(os.path.join(common, ROOT, place)))
    except FileNotFoundError:
        return []


def claim(common: str, id: str, place: str = LIVE) -> Session | None:
    """Take over the session *id* if nobody holds it; None when its owner lives or it is gone."""
    path = os.path.join(common, ROOT, place, id)
    with translating(path):
        descriptor = lock(os.path.join(path, LOCK))
    return None if descriptor is None else Session(id, path, descriptor)


def holder(common: str, id: str) -> str:
    """Say in words who holds the session *id*."""
    try:
        about = json.loads(read(os.path.join(common, ROOT, LIVE, id, LOCK)))
        return f"process {about['pid']} of {about['user']} on {about['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def retire(common: str, session: Session) -> None:
    """Put a session whose experiments have all ended away among the done, and let it go."""
    target = os.path.join(common, ROOT, DONE)
    with translating(target):
        make_folders(target)
        os.utime(session.path)
        move_folder(session.path, os.path.join(target, session.id))
    session.close()


def forget(common: str, session: Session) -> None:
    """Remove a session in which nothing was ever begun; whole, because one without its lock would look alive for ever."""
    gone = os.path.join(common, ROOT, TMP, session.id)
    try:
        os.rename(session.path, gone)
        shutil.rmtree(gone, ignore_errors=True)
    finally:
        session.close()


def sweep(common: str) -> list[str]:
    """Remove what processes left that were killed while they made or forgot a session: nothing was begun in it.

    Returns the paths.
    """
    swept = []
    for name in names(common, TMP):
        path = os.path.join(common, ROOT, TMP, name)
        with suppress(FileNotFoundError):
            if time.time() - os.stat(path).st_mtime < HALF_MADE:
                continue
            if os.path.isfile(path):
                os.unlink(path)
                swept.append(path)
                continue
            session = claim(common, name, TMP)
            if session is not None or not os.path.exists(os.path.join(path, LOCK)):
                shutil.rmtree(path)
                swept.append(path)
            if session is not None:
                session.close()
    return swept


@frozen(eq=False, repr=False)
class Ledger:
    """What the journal of a session tells: accounts, intents and extents by number, and where it ends."""

    accounts: dict[int, Account] = field(factory=dict)
    intents: dict[int, tuple[int, Intent]] = field(factory=dict)
    """The last intent of each experiment whose commit is not known to stand, with its sequence number."""
    extents: dict[int, Extents] = field(factory=dict)
    sequence: int = 0
    segment: int = 0

    def open(self) -> list[Account]:
        """Return the experiments that were neither saved, discarded nor moved."""
        return [a for a in self.accounts.values() if a.complete and a.fate in ("", Kind.KEPT)]

    def ended(self) -> bool:
        """Say whether nothing in the session waits to be saved."""
        return not self.open()


def read_ledger(path: str, id: str, *, salvage: bool = False) -> Ledger:
    """Read the journal in the session folder *path*.

    A torn tail is normal. Raises `JournalCorrupt` for damage in the middle, unless *salvage* keeps what is readable.
    """
    accounts: dict[int, Account] = {}
    intents: dict[int, tuple[int, Intent]] = {}
    extents: dict[int, Extents] = {}
    reader, last, breath = Reader(id, salvage=salvage, skim=True), 0, Breath()
    with translating(path):
        numbers = segments(path)
        later = begins(numbers, headers(path, id, numbers)) if salvage else {}
        for last in numbers:
            with open(os.path.join(path, segment_name(last)), "rb") as file:
                for line in reader.read(last, file, later.get(last)):
                    breath()
                    _learn(line.kind, line.payload, line.sequence, accounts, intents)
                    if line.kind in CONTENT:
                        extents.setdefault(line.payload[0], Extents(limit=2**16)).add(last, line.offset, line.length)
    if reader.damaged is not None and not salvage:
        raise JournalCorrupt(os.path.join(path, segment_name(reader.damaged[0])), reader.damaged[1])
    return Ledger(accounts, intents, extents, reader.sequence, last)


def headers(path: str, id: str, numbers: Sequence[int]) -> dict[int, int]:
    """Return, for each segment whose header can be read, the number of the record before its first."""
    found: dict[int, int] = {}
    for segment in numbers:
        with suppress(FileNotFoundError), open(os.path.join(path, segment_name(segment)), "rb") as file:
            first = decode_line(file.readline(), seed(id, segment))
            if first is not None and first[1] == Kind.SEGMENT:
                found[segment] = first[0]
    return found


def begins(numbers: Sequence[int], found: Mapping[int, int]) -> dict[int, int]:
    """Return, for each segment, the number of the record after which the segments that follow hold all."""
    later: dict[int, int] = {}
    number: int | None = None
    for segment in reversed(numbers):
        if number is not None:
            later[segment] = number
        number = found.get(segment, number)
    return later


def _learn(
    kind: str, payload: Any, sequence: int, accounts: dict[int, Account], intents: dict[int, tuple[int, Intent]]
) -> None:
    number = payload[0] if isinstance(payload, list) else 0
    if kind == Kind.BEGIN:
        accounts[number] = begun(payload)
    elif kind == Kind.INTENT:
        intents[number] = (sequence, intent_from_json(payload))
    elif number in accounts:
        accounts[number] = told(accounts[number], kind, payload)
        if kind == Kind.SAVED:
            intents.pop(number, None)


def segments(path: str) -> list[int]:
    """Return the numbers of the segments in the session folder *path*, in order."""
    return sorted(number for name in os.listdir(path) if (number := segment_number(name)) is not None)


def read_extents(path: str, id: str, extents: Extents, number: int, until: int | None) -> Iterator[tuple[str, Any]]:
    """Yield (kind, payload) of the records of experiment *number* that lie in *extents*, up to the sequence *until*.

    Raises `JournalCorrupt` when one of them cannot be read any more.
    """
    for segment, ranges in groupby(_unfolded(path, id, extents, number), key=itemgetter(0)):
        file_path = os.path.join(path, segment_name(segment))
        with translating(file_path), open(file_path, "rb") as file:
            for _, start, stop in ranges:
                file.seek(start)
                for sequence, kind, payload in _lines(file, file_path, start, stop, seed(id, segment), number):
                    if kind not in CONTENT or not (until is None or sequence < until):
                        continue
                    if kind == Kind.JOINED:
                        yield from _brought(path, payload)
                    else:
                        yield kind, payload


def _unfolded(path: str, id: str, extents: Extents, number: int) -> Iterator[tuple[int, int, int]]:
    """Yield the ranges of *extents* with those that a record of the journal lists, which stands first and may lead to another."""
    ranges, later, mark = (
        list(extents),
        list[list[tuple[int, int, int]]](),
        b',"%b",[%d,' % (Kind.PLACES.encode(), number),
    )
    while ranges:
        segment, start, stop = ranges[0]
        file_path = os.path.join(path, segment_name(segment))
        with translating(file_path), open(file_path, "rb") as file:
            head = os.pread(file.fileno(), 64, start)
            if mark not in head:
                break
            record = decode_line(os.pread(file.fileno(), stop - start, start), seed(id, segment))
        if record is None:
            raise JournalCorrupt(file_path, start)
        later.append(ranges[1:])
        ranges = decode_places(record[2][1])
    return chain(ranges, *reversed(later))


def _brought(path: str, payload: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a program that joined has logged, as records of the experiment that it joined."""
    number, session, its_number, ranges, _ = payload
    place = joined_folder(path, session)
    for kind, its_payload in read_extents(place, session, Extents(map(tuple, ranges)), its_number, None):
        yield kind, [number, *its_payload[1:]]


def _lines(
    file: BinaryIO, path: str, place: int, stop: int, checksum: int, number: int
) -> Iterator[tuple[int, str, Any]]:
    """Yield the records of experiment *number* between *place*, where *file* stands, and *stop*."""
    mark, breath = b",[%d," % number, Breath()
    while place < stop:
        breath()
        line = file.readline()
        if mark in line[:64]:
            record = decode_line(line, checksum)
            if record is None:
                raise JournalCorrupt(path, place)
            if record[2][0] == number:
                yield record
        if not line:
            raise JournalCorrupt(path, place)
        place += len(line)


def append(session: Session, ledger: Ledger, records: Sequence[tuple[str, object]]) -> list[int]:
    """Write *records* to a new segment of a session that has no writer; return their sequence numbers.

    A new segment, because truncating a torn one would destroy evidence and appending to it would hide it.
    """
    segment = (segments(session.path) or [0])[-1] + 1
    known = read_ledger(session.path, session.id, salvage=True) if segment != ledger.segment + 1 else ledger
    sequence, checksum = known.sequence, seed(session.id, segment)
    lines, numbers = [header(session.id, segment, sequence)], []
    for kind, payload in records:
        sequence += 1
        numbers.append(sequence)
        lines.append(encode_line(encode_body(sequence, kind, payload), checksum))
    path = os.path.join(session.path, segment_name(segment))
    with translating(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, b"".join(lines))
            sync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(session.path)
    return numbers


def is_alive(common: str, id: str) -> bool:
    """Say whether the session *id* is held by a living process of a machine that sees this folder."""
    if not id or not os.path.isdir(os.path.join(common, ROOT, LIVE, id)):
        return False
    session = claim(common, id)
    if session is None:
        return True
    session.close()
    return False


def opened_in(common: str, ref: str) -> tuple[str, Account] | None:
    """Return the session, living or dead, in which the experiment of *ref* is open, and its account; None for none."""
    for id in names(common):
        with suppress(OSError):  # it is being put away
            for account in read_ledger(folder(common, id), id, salvage=True).open():
                if account.ref == ref:
                    return id, account
    return None


def folder(common: str, id: str, place: str = LIVE) -> str:
    """Return the folder of the session *id*."""
    return os.path.join(common, ROOT, place, id)


def joined_folder(path: str, id: str) -> str:
    """Return where the session *id* stands that joined an experiment of the session in the folder *path*."""
    return os.path.join(path, JOINED, id)


def joins(path: str) -> Mapping[str, str]:
    """Say which `experiment` of which `session` the session in the folder *path* joins; empty when none, or it is gone."""
    try:
        found = json.loads(read(os.path.join(path, LOCK))).get(JOINS)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_live(common: str, session: Session) -> bool:
    """Say whether *session* stands among those that are not put away."""
    return session.path == folder(common, session.id)
