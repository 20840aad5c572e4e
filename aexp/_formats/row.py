"""A record as a row of the index: what its commit alone says of it, and back."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, Final, NamedTuple
from zlib import crc32

import orjson
from attrs import field, frozen

from .._layout import split_experiment_ref
from .._lifecycle import Status
from .._packing import packed, unpacked_later
from .._values import Record
from .account import code_from_json, code_to_json, failure_from_json, failure_to_json
from .artifacts import artifact_from_json, artifact_to_json
from .experiment import Others
from .params import from_json, to_json

VERSION: Final = 3
"""What rows and tables look like, and how a record is derived from its commit: who changes one of them adds one."""

DIGEST: Final = 16
"""How many bytes the id of an `Others` has."""

_STATUS: Final = {status.value: status for status in Status}


class Row(NamedTuple):
    """What the index keeps of a record. It is a function of the commit (and of aexp's folder in it) alone."""

    rev: str
    head: bytes
    """JSON: the fields that every listing needs."""
    params: bytes
    """JSON: parameters by file, without those of `others`."""
    metrics: bytes
    """JSON: metrics by file, without those of `others`."""
    needs: bytes
    """The ids of the objects it was read from, one behind the other: where one is missing, the experiment is damaged."""
    others: bytes
    """The id of the `Others` that it shares with its like; empty when there is nothing to share."""


def checksum(*parts: bytes) -> int | None:
    """Return a checksum of *parts*, another for every version; None when they are not even bytes."""
    try:
        return crc32(b"\0".join(parts), VERSION)
    except TypeError:
        return None


def sound_rows(found: Iterable[Sequence[Any]]) -> list[Row]:
    """Return the rows of *found*, each with its checksum behind it, that are as they were written.

    A disk, or another program, may have changed a byte of the index.
    """
    return [
        Row(rev, head, params, metrics, needs, others)
        for rev, head, params, metrics, needs, others, sum in found
        if type(rev) is str and checksum(rev.encode(), head, params, metrics, needs, others) == sum
    ]


@frozen(eq=False, repr=False)
class Found:
    """A record as its commit tells it, with what the commit says besides: who made it, and where it was read."""

    record: Record
    """With the status that stands in the commit."""
    session: str = ""
    needs: bytes = b""
    """The ids of the commit and of all that was read of it, one behind the other."""
    others: Others = field(factory=Others)
    """What it shares with its like: parameters and metrics that are not the experiment's own."""
    whole: bool = True
    """False when it may read otherwise another time, though the commit is the same: it is no row then."""


class Packer:
    """Records into rows; what many of them share is packed once."""

    def __init__(self) -> None:
        self.others: dict[bytes, Others] = {}
        """What the rows made so far share, by its id."""
        self._ids: dict[Others, bytes] = {}

    def __call__(self, found: Found) -> Row | None:
        """Return the row of a sound record; None when JSON cannot hold it: half a surrogate pair in a file's name."""
        record = found.record
        head = [
            record.id,
            record.status,
            record.tags,
            record.message,
            record.created.isoformat(),
            None if record.ended is None else record.ended.isoformat(),
            record.duration,
            record.checkpoints,
            [artifact_to_json(each) for each in record.artifacts],
            failure_to_json(record.error),
            None if record.code is None else code_to_json(record.code),
            found.session,
        ]
        own = packed(record)
        return None if own is None else Row(record.rev, orjson.dumps(head), *own, found.needs, self._id(found.others))

    def _id(self, others: Others) -> bytes:
        id = self._ids.get(others)
        if id is None:
            nothing = not (others.params or others.metrics or others.needs)
            id = b"" if nothing else blake2b(pack_others(others), digest_size=DIGEST).digest()
            self._ids[others] = id
            if id:
                self.others[id] = others
        return id


def pack_others(others: Others) -> bytes:
    """Return *others* as bytes; raise `ValueError` or `TypeError` for what JSON cannot hold."""
    return orjson.dumps([to_json(dict(others.params)), to_json(dict(others.metrics)), others.needs.hex()])


def unpack_others(packed: bytes) -> Others:
    """Undo `pack_others`."""
    params, metrics, needs = orjson.loads(packed)
    return Others(from_json(params), from_json(metrics), needs=bytes.fromhex(needs))


class Unpacker:
    """Rows into records; what many of them share, *others* by their id, is there once."""

    def __init__(self, others: Mapping[bytes, Others]) -> None:
        self._others = {b"": Others(), **others}

    def __call__(self, ref: str, row: Row) -> tuple[Record, str]:
        """Return the record that stands on *ref*, with the status of its commit, and the session that made it."""
        id, status, tags, message, created, ended, duration, checkpoints, artifacts, error, code, session = (
            orjson.loads(row.head)
        )
        baseline, name = split_experiment_ref(ref)
        values = (
            *(name, id, row.rev, ref, baseline, _STATUS[status]),
            None if error is None else failure_from_json(error),
            tuple(tags),
            message,
            datetime.fromisoformat(created),
            None if ended is None else datetime.fromisoformat(ended),
            duration,
            tuple(checkpoints),
            None if code is None else code_from_json(code),
            tuple([artifact_from_json(each) for each in artifacts]) if artifacts else (),
            None,
        )
        return unpacked_later(values, self._others[row.others], row.params, row.metrics), session
