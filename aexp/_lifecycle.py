"""The life of an experiment as a table: which action is legal in which state, and where it leads."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from .errors import InvalidTransition


class State(StrEnum):
    """Where an experiment object stands."""

    UNINITIALIZED = "uninitialized"
    ACTIVE = "active"
    COMPLETED = "completed"
    PERSISTED = "persisted"


class Status(StrEnum):
    """How the work of an experiment stands, or ended; `interrupted` is what recovery writes for a process that died."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Action(StrEnum):
    """What can be asked of an experiment; the value is the word that an error uses."""

    INIT = "init"
    SET_PARAMS = "set parameters of"
    LOG = "log to"
    RUN = "run a program for"
    DESCRIBE = "tag or describe"
    FLUSH = "flush"
    CHECKPOINT = "make a checkpoint of"
    COMPLETE = "complete"
    SAVE = "save"
    DISCARD = "discard"


TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = MappingProxyType(
    {
        (State.UNINITIALIZED, Action.INIT): State.ACTIVE,
        (State.ACTIVE, Action.SET_PARAMS): State.ACTIVE,
        (State.ACTIVE, Action.LOG): State.ACTIVE,
        (State.ACTIVE, Action.RUN): State.ACTIVE,
        (State.ACTIVE, Action.DESCRIBE): State.ACTIVE,
        (State.ACTIVE, Action.FLUSH): State.ACTIVE,
        (State.ACTIVE, Action.CHECKPOINT): State.ACTIVE,
        (State.ACTIVE, Action.COMPLETE): State.COMPLETED,
        (State.ACTIVE, Action.SAVE): State.PERSISTED,
        (State.ACTIVE, Action.DISCARD): State.UNINITIALIZED,
        (State.COMPLETED, Action.DESCRIBE): State.COMPLETED,
        (State.COMPLETED, Action.FLUSH): State.COMPLETED,
        (State.COMPLETED, Action.SAVE): State.PERSISTED,
        (State.COMPLETED, Action.DISCARD): State.UNINITIALIZED,
        (State.PERSISTED, Action.FLUSH): State.PERSISTED,
        (State.PERSISTED, Action.SAVE): State.PERSISTED,
    }
)
"""Every legal pair of state and action, with the state that follows; a pair that is missing is illegal."""

_REMEDIES: Final[Mapping[State, str]] = MappingProxyType(
    {
        State.UNINITIALIZED: "call `await experiment.init()` first, or use `async with`",
        State.ACTIVE: "it is running; complete, save or discard it first",
        State.COMPLETED: "it takes no more data; save or discard it",
        State.PERSISTED: "it is saved; start a new experiment",
    }
)


def after(state: State, action: Action) -> State:
    """Return the state that follows *action* in *state*; raise `InvalidTransition` when there is none."""
    try:
        return TRANSITIONS[state, action]
    except KeyError:
        raise InvalidTransition(action.value, state.value, _REMEDIES[state]) from None


def is_ending(status: Status) -> bool:
    """Say whether *status* is one that a program may give to `complete()`."""
    return status in (Status.FINISHED, Status.FAILED, Status.CANCELLED)
