"""Experiment tracking on Git, native to asyncio: parameters, metrics and code of every experiment in a commit of its own.

async with aexp.Repository(".") as repository:
    async with repository.experiment("lr-0.1", params={"lr": 0.1}) as experiment:
        await experiment.log_metric("loss", 0.5, step=0)
    print(experiment.record.rev)
"""

from . import errors as errors
from ._beginning import init as init
from ._experiment import Experiment as Experiment
from ._lifecycle import State as State
from ._lifecycle import Status as Status
from ._repository import Repository as Repository
from ._values import Code as Code
from ._values import Failure as Failure
from ._values import Interrupted as Interrupted
from ._values import Progress as Progress
from ._values import Record as Record
from ._values import Records as Records
from ._values import RemoteExperiment as RemoteExperiment
from ._values import Series as Series
from ._values import Settings as Settings
from ._values import Skipped as Skipped
from ._values import Transfer as Transfer
from ._values import TransferProgress as TransferProgress
from .errors import AexpError as AexpError
from .errors import AmbiguousName as AmbiguousName
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
from .errors import NotOwner as NotOwner
from .errors import QueueFull as QueueFull
from .errors import ReadOnlyRepository as ReadOnlyRepository
from .errors import RemoteError as RemoteError
from .errors import RepositoryClosed as RepositoryClosed
from .errors import RepositoryNotFound as RepositoryNotFound
from .errors import TooManyOpenFiles as TooManyOpenFiles
from .errors import UnsafePath as UnsafePath
from .errors import UnsupportedRepository as UnsupportedRepository

__version__ = "0.1.0.dev0"

__all__ = [
    "AexpError",
    "AmbiguousName",
    "Code",
    "DiskFull",
    "Diverged",
    "Experiment",
    "ExperimentNotFound",
    "Failure",
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
    "MissingExtra",
    "NameTaken",
    "NoBaseline",
    "NotOwner",
    "Progress",
    "QueueFull",
    "ReadOnlyRepository",
    "Record",
    "Records",
    "RemoteError",
    "RemoteExperiment",
    "Repository",
    "RepositoryClosed",
    "RepositoryNotFound",
    "Series",
    "Settings",
    "Skipped",
    "State",
    "Status",
    "TooManyOpenFiles",
    "Transfer",
    "TransferProgress",
    "UnsafePath",
    "UnsupportedRepository",
    "__version__",
    "errors",
    "init",
]
