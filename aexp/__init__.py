"""Experiment tracking on Git, native to asyncio: parameters, metrics and code of every experiment in a commit of its own.

async with aexp.Repository(".") as repository:
    async with repository.experiment("lr-0.1", params={"lr": 0.1}) as experiment:
        await experiment.log_metric("loss", 0.5, step=0)
    print(experiment.record.rev)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from . import errors as errors
from ._beginning import init as init
from ._data import Artifact as Artifact
from ._exchanged import Progress as Progress
from ._exchanged import Push as Push
from ._exchanged import RemoteExperiment as RemoteExperiment
from ._exchanged import Transfer as Transfer
from ._exchanged import TransferProgress as TransferProgress
from ._experiment import Experiment as Experiment
from ._lifecycle import State as State
from ._lifecycle import Status as Status
from ._repository import Repository as Repository
from ._values import Code as Code
from ._values import CompletedProcess as CompletedProcess
from ._values import Failure as Failure
from ._values import Interrupted as Interrupted
from ._values import Record as Record
from ._values import Records as Records
from ._values import Series as Series
from ._values import Settings as Settings
from ._values import Skipped as Skipped
from .errors import AexpError as AexpError
from .errors import AmbiguousName as AmbiguousName
from .errors import ApplyPending as ApplyPending
from .errors import BranchExists as BranchExists
from .errors import CheckoutLost as CheckoutLost
from .errors import CommandFailed as CommandFailed
from .errors import DataMissing as DataMissing
from .errors import DirtyWorkspace as DirtyWorkspace
from .errors import DiskFailed as DiskFailed
from .errors import DiskFull as DiskFull
from .errors import Diverged as Diverged
from .errors import ExperimentNotFound as ExperimentNotFound
from .errors import ForkedError as ForkedError
from .errors import GitError as GitError
from .errors import GitNotFound as GitNotFound
from .errors import InvalidName as InvalidName
from .errors import InvalidParams as InvalidParams
from .errors import InvalidQuery as InvalidQuery
from .errors import InvalidTransition as InvalidTransition
from .errors import JournalCorrupt as JournalCorrupt
from .errors import JournalFailed as JournalFailed
from .errors import MissingExtra as MissingExtra
from .errors import NameTaken as NameTaken
from .errors import NoBaseline as NoBaseline
from .errors import NothingApplied as NothingApplied
from .errors import NotOwner as NotOwner
from .errors import PointsLost as PointsLost
from .errors import QueueFull as QueueFull
from .errors import ReadOnlyRepository as ReadOnlyRepository
from .errors import RemoteError as RemoteError
from .errors import RepositoryClosed as RepositoryClosed
from .errors import RepositoryNotFound as RepositoryNotFound
from .errors import TooManyOpenFiles as TooManyOpenFiles
from .errors import UnsafePath as UnsafePath
from .errors import UnsupportedRepository as UnsupportedRepository

if TYPE_CHECKING:
    from ._applied import Applied as Applied
    from ._applied import Undone as Undone
    from ._comparison import Change as Change
    from ._comparison import Comparison as Comparison
    from ._comparison import FileChange as FileChange
    from ._comparison import Side as Side
    from ._events import Event as Event
    from ._events import EventKind as EventKind
    from ._events import Running as Running
    from ._findings import Finding as Finding
    from ._findings import Maintenance as Maintenance
    from ._lineage import Baseline as Baseline
    from ._lineage import Checkpoint as Checkpoint
    from ._lineage import Reference as Reference
    from ._secrets import SecretRedacted as SecretRedacted
    from ._secrets import redacted as redacted

__version__ = "0.1.0.dev0"

__all__ = [
    "AexpError",
    "AmbiguousName",
    "Applied",
    "ApplyPending",
    "Artifact",
    "Baseline",
    "BranchExists",
    "Change",
    "CheckoutLost",
    "Checkpoint",
    "Code",
    "CommandFailed",
    "Comparison",
    "CompletedProcess",
    "DataMissing",
    "DirtyWorkspace",
    "DiskFailed",
    "DiskFull",
    "Diverged",
    "Event",
    "EventKind",
    "Experiment",
    "ExperimentNotFound",
    "Failure",
    "FileChange",
    "Finding",
    "ForkedError",
    "GitError",
    "GitNotFound",
    "Interrupted",
    "InvalidName",
    "InvalidParams",
    "InvalidQuery",
    "InvalidTransition",
    "JournalCorrupt",
    "JournalFailed",
    "Maintenance",
    "MissingExtra",
    "NameTaken",
    "NoBaseline",
    "NotOwner",
    "NothingApplied",
    "PointsLost",
    "Progress",
    "Push",
    "QueueFull",
    "ReadOnlyRepository",
    "Record",
    "Records",
    "Reference",
    "RemoteError",
    "RemoteExperiment",
    "Repository",
    "RepositoryClosed",
    "RepositoryNotFound",
    "Running",
    "SecretRedacted",
    "Series",
    "Settings",
    "Side",
    "Skipped",
    "State",
    "Status",
    "TooManyOpenFiles",
    "Transfer",
    "TransferProgress",
    "Undone",
    "UnsafePath",
    "UnsupportedRepository",
    "__version__",
    "errors",
    "init",
    "redacted",
]

_LATE: Final = {
    "Applied": "_applied",
    "Baseline": "_lineage",
    "Change": "_comparison",
    "Checkpoint": "_lineage",
    "Comparison": "_comparison",
    "Event": "_events",
    "EventKind": "_events",
    "FileChange": "_comparison",
    "Finding": "_findings",
    "Maintenance": "_findings",
    "Reference": "_lineage",
    "Running": "_events",
    "SecretRedacted": "_secrets",
    "Side": "_comparison",
    "Undone": "_applied",
    "redacted": "_secrets",
}
"""Values that few programs name, and the rooms that they come from: imported when they are asked for."""


def __getattr__(name: str) -> Any:
    """Return a value that is imported when it is asked for."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATE[name]}", __name__), name)


def __dir__() -> list[str]:
    """Return all that `aexp` shows."""
    return list(__all__)
