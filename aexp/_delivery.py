"""Bringing experiments that wait to be pushed by themselves to their remote."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from attrs import frozen

from . import _outbox, _transfers
from ._children import Limits
from ._exchanged import Transfer
from ._files import Stopped
from ._freight import Freight
from ._git import open_handle
from ._lines import open_line
from ._records import experiment_refs
from ._remotes import redacted
from .errors import AexpError, DataMissing, Diverged, ExperimentNotFound, RemoteError

LATE: Final = 3600.0
"""Seconds after which the ref of a commit that was announced is not about to stand any more."""
LASTING: Final = ("authentication", "unknown", "unsafe")
"""Faults of a remote that somebody must mend: trying again soon is of no use."""


@frozen
class Delivered:
    """How a try went: whether another process is at it, and what was the trouble, which may be a lasting one."""

    busy: bool = False
    trouble: str = ""
    lasting: bool = False


def deliver(
    path: str,
    remote: str,
    limits: Limits,
    variables: Mapping[str, str],
    again: bool,
    stopped: Callable[[], bool],
) -> Delivered:
    """Push what waits for *remote*, and what comes in meanwhile; with *again* also what was refused the last time.

    What becomes of each is added to the list, and so is why the remote cannot be spoken to: that is returned, too, and
    nothing is raised but `Stopped`. Another process that is at it already is left alone.
    """
    handle = open_handle(path)
    common, name = handle.common, redacted(remote)
    states = ("waiting", "refused") if again else ("waiting",)
    known = _outbox.pushes_of(common)
    if known is None or not known.revs(name, *states):
        return Delivered()
    try:
        held = _outbox.hold(common)
        if held is None:
            return Delivered(busy=True)
        try:
            done: list[str] = []
            while (wanted := _standing(common, name, experiment_refs(handle), states)) and wanted != done:
                _push(path, remote, limits, variables, stopped, common, wanted)
                states, done = ("waiting",), wanted
            if name in known.trouble:
                _outbox.tell(common, [("well", "", "")], name)
            _outbox.shorten(common, experiment_refs(handle).values())
        finally:
            os.close(held)
    except Stopped:
        raise
    except (AexpError, OSError, ValueError) as error:
        words = f"{error.kind}: {error.detail}" if isinstance(error, RemoteError) else str(error)
        reason = redacted(words or type(error).__name__)
        with suppress(OSError):
            _outbox.tell(common, [("trouble", "", reason)], name)
        return Delivered(trouble=reason, lasting=isinstance(error, RemoteError) and error.kind in LASTING)
    return Delivered()


def _standing(common: str, remote: str, refs: Mapping[str, str], states: Sequence[str]) -> list[str]:
    """Return the refs of what is to be pushed; what no ref holds any more is forgotten, whatever it was called then."""
    by_rev, pushes = {rev: ref for ref, rev in refs.items()}, _outbox.pushes_of(common)
    if pushes is None:
        return []
    revs = pushes.revs(remote, *states)
    late = datetime.fromtimestamp(time.time() - LATE, UTC)
    gone = [("gone", rev, "") for rev in revs if rev not in by_rev and pushes.known[rev].since < late]
    if gone:
        _outbox.tell(common, gone, remote)
    return [by_rev[rev] for rev in revs if rev in by_rev]


def _push(
    path: str,
    remote: str,
    limits: Limits,
    variables: Mapping[str, str],
    stopped: Callable[[], bool],
    common: str,
    refs: Sequence[str],
) -> None:
    """Push *refs* together; where the data of some is missing, the others go without them."""
    transfers: Sequence[Transfer]
    road = open_line(path, remote, limits, variables, stopped, lambda _: None)
    try:
        transfers = _transfers.push(road, refs, force=False, freight=Freight(variables))
    except (Diverged, RemoteError) as error:
        if not error.transfers:
            raise
        transfers = error.transfers
    except ExperimentNotFound:  # it was removed or renamed a moment ago
        return
    except DataMissing as error:
        if len(refs) == 1:
            rev = experiment_refs(road.handle).get(refs[0], "")
            _outbox.tell(common, [("refused", rev, redacted(str(error)))], redacted(remote))
            return
        for part in (refs[: len(refs) // 2], refs[len(refs) // 2 :]):
            _push(path, remote, limits, variables, stopped, common, part)
        return
    told = [_said(each) for each in transfers if each.rev]
    _outbox.tell(common, told, redacted(remote))


def _said(each: Transfer) -> tuple[str, str, str]:
    if each.outcome == "diverged":
        return "refused", each.rev, "another experiment of this name stands there; `push(force=True)` replaces it"
    return ("refused", each.rev, redacted(each.reason)) if each.outcome == "refused" else ("pushed", each.rev, "")
