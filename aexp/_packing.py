"""Records that leave their mappings packed: made, looked into, packed again (decision 0011)."""

from collections.abc import Sequence
from typing import Any

from ._exchanged import Push
from ._values import Record, Source

_SOURCE: Any = Record._source
"""The slot itself: to ask a record for what is not set costs ten times as much."""


class _Draft(Record):
    """A record while it is made: its fields can be set, and at a tenth of what it costs to go around a frozen class."""

    __slots__ = ()
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__


def unpacked_later(values: Sequence[Any], source: Source, params: bytes, metrics: bytes) -> Record:
    """Return a record with *values* for all its fields, in order, but the mappings and `push`.

    These *source* makes of *params* and *metrics* when they are asked for.
    """
    record: Any = _Draft.__new__(_Draft)
    record.name, record.id, record.rev, record.ref, record.baseline, record.status, record.error = values[:7]
    record.tags, record.message, record.created, record.ended, record.duration, record.checkpoints = values[7:13]
    record.code, record.artifacts, record.damaged, record.push = *values[13:], None
    record._source, record._params, record._metrics = source, params, metrics
    record.__class__ = Record
    return record  # type: ignore[no-any-return]


def pack_again(record: Record) -> None:
    """Let go of the mappings that a query made of what *record* left packed; whoever asks for them has them made anew."""
    try:
        _SOURCE.__get__(record)
    except AttributeError:  # they were given
        return
    for name in ("params", "metrics"):
        try:  # noqa: SIM105  # ten thousand times, and twice as fast as `suppress`
            object.__delattr__(record, name)
        except AttributeError:
            pass


def with_push(record: Record, push: Push | None) -> None:
    """Say of a *record* that was just made, and that nobody else has, how its push stands."""
    object.__setattr__(record, "push", push)


def packed(record: Record) -> tuple[bytes, bytes] | None:
    """Return what *record* keeps of its own parameters and metrics; None when its mappings were given."""
    return (record._params, record._metrics) if hasattr(record, "_source") else None
