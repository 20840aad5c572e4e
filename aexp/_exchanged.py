"""What is exchanged with remotes, as the public API tells of it: what became of experiments, and how far work is."""

from datetime import datetime
from typing import Literal, Protocol

from attrs import frozen

Outcome = Literal["new", "updated", "up to date", "forced", "diverged", "refused"]
"""How the transfer of an experiment ended; see `Transfer`."""

DataState = Literal["none", "transferred", "not transferred"]
"""What became of the data that an experiment's commit references (its artifacts and other files that DVC tracks)."""


@frozen(kw_only=True)
class Transfer:
    """What became of one experiment in `push` or `pull`.

    `outcome` is `new`; `updated` (what stood there is part of the experiment's own commits); `up to date`; `forced`
    (it was replaced); `diverged` (another experiment stands there, and stays); or `refused`, with the `reason`.
    `found` is the rev that stood there before, None where none did or where the remote does not say.
    """

    name: str
    ref: str
    rev: str
    outcome: Outcome
    found: str | None = None
    reason: str = ""
    data: DataState = "none"
    """`not transferred` with data=False, and where DVC's configuration names no remote for data (`core.remote`)."""


@frozen(kw_only=True)
class RemoteExperiment:
    """An experiment on a remote: what its ref says, without fetching anything."""

    name: str
    ref: str
    rev: str
    baseline: str


@frozen(kw_only=True)
class TransferProgress:
    """How far a transfer is: `done` of `total` (None: not known) in this phase of Git's, and the bytes it has moved."""

    phase: str
    done: int
    total: int | None = None
    bytes: int | None = None


class Progress(Protocol):
    """What `push`, `pull` and `log_artifact` tell how far they are: called on the event loop, at most ten times a second."""

    def __call__(self, progress: TransferProgress, /) -> object:
        """Take the news; what is raised here ends the transfer, and is raised to its caller."""


PushState = Literal["waiting", "pushed", "refused"]
"""How the automatic push of an experiment stands; see `Push`."""


@frozen(kw_only=True)
class Push:
    """How the automatic push of an experiment stands, as far as this repository knows, and since when.

    `waiting` until the remote has it, with the `reason` when the last try failed; `pushed`; or `refused`: trying again
    is of no use before somebody does something about the `reason`, so only the next session does. *remote* is without
    credentials.
    """

    remote: str
    state: PushState
    since: datetime
    reason: str = ""
