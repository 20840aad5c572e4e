"""What is told of experiments under way: how each stands, and what has just happened to it."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from ._lifecycle import Status
from ._values import Failure


class EventKind(StrEnum):
    """What happened. All but `CLOSED` are about one experiment."""

    RUNNING = "running"
    """It was running when the watch began."""
    BEGUN = "begun"
    RESUMED = "resumed"
    """It had been left, and goes on."""
    PARAMS = "params"
    DESCRIBED = "described"
    """It has other tags, or another message."""
    METRICS = "metrics"
    """Points were logged, one or many: they are told together, at most ten times a second."""
    CHECKPOINT = "checkpoint"
    ENDED = "ended"
    """Its work is done; it is not saved yet."""
    SAVED = "saved"
    KEPT = "kept"
    """It was left unsaved for `resume()`, as `on_error="keep"` asks for."""
    DISCARDED = "discarded"
    INTERRUPTED = "interrupted"
    """Its process died; `resume()` or `recover()` takes it up."""
    CLOSED = "closed"
    """A session is gone: its repository was closed, or what it left was recovered."""


@frozen(kw_only=True)
class Running:
    """How an experiment stands that is not saved yet, of this or of another process.

    `status` is `running` until its work has ended. `summary` holds the last value of each metric, `step` the highest
    step so far, `points` how many were logged. `host`, `user` and `pid` say where it runs; 0 is a process unknown.
    """

    name: str
    id: str
    ref: str
    baseline: str
    status: Status
    created: datetime
    ended: datetime | None = None
    error: Failure | None = None
    session: str
    host: str = ""
    user: str = ""
    pid: int = 0
    tags: tuple[str, ...] = ()
    message: str = ""
    checkpoints: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(factory=dict)
    summary: Mapping[str, float | int | bool] = field(factory=dict)
    step: int = 0
    points: int = 0


@frozen(kw_only=True)
class Event:
    """Something that happened, in this or in another process: to `experiment`, as it stood right after.

    `rev` is the commit of a checkpoint or of a saved experiment. `experiment` is None when a session has closed.
    """

    kind: EventKind
    session: str
    experiment: Running | None = None
    rev: str | None = None
