"""The way to one Git remote, for as long as one call lasts: checked, without prompts, with limits, and what it lists."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import define, field, frozen

from ._children import Limits, Said, converse, outside
from ._exchanged import RemoteExperiment, Transfer, TransferProgress
from ._files import Stopped
from ._git import Handle, open_handle, remotes, setting
from ._layout import EXPERIMENTS
from ._remotes import check_remote, explained, fault_of, parse_progress, parse_refs, redacted
from .errors import RemoteError

OFTEN: Final = 0.1
"""Seconds between two reports of progress, at least."""
_ALWAYS: Final = ("-c", "protocol.ext.allow=never", "-c", "core.abbrev=40")
"""`ext` runs any command; full revs are what a report of `git push` is read for."""


@define(eq=False, repr=False)
class Teller:
    """Hears Git's progress lines, and tells of one every `OFTEN` at most, and of the last."""

    tell: Callable[[TransferProgress], None]
    _due: float = 0.0
    _untold: TransferProgress | None = None

    def hear(self, line: str) -> None:
        """Hear one line."""
        if (progress := parse_progress(line)) is not None:
            self._untold = progress
            if time.monotonic() >= self._due:
                self.finish()

    def finish(self) -> None:
        """Tell what was held back."""
        untold, self._untold = self._untold, None
        if untold is not None:
            self._due = time.monotonic() + OFTEN
            self.tell(untold)


@frozen(eq=False, repr=False)
class Line:
    """The way to one remote, for as long as one call lasts: checked, in a thread of its own, with a handle of its own."""

    handle: Handle
    remote: str
    limits: Limits
    extra: Mapping[str, str]
    stopped: Callable[[], bool]
    teller: Teller
    memory: dict[bytes, bool] = field(factory=dict)
    """What is known of trees and files: whether they reference data."""

    def ask(
        self,
        *arguments: str,
        input: bytes = b"",
        extra: Mapping[str, str] | None = None,
        flooded: Callable[[], bool] | None = None,
    ) -> Said:
        """Run `git` beside the remote; return what it says, good or bad.

        Raises `RemoteError` when it falls silent, lists without end, or is *flooded*; `Stopped`.
        """
        said = converse(
            self.handle,
            *_ALWAYS,
            *arguments,
            extra={**self.extra, **(extra or {})},
            limits=self.limits,
            stopped=self.stopped,
            input=input,
            heard=self.teller.hear,
            flooded=flooded,
        )
        self.teller.finish()
        if said.ending == "stopped":
            raise Stopped
        if said.ending == "silent":
            raise RemoteError(
                redacted(self.remote), "timeout", f"it said nothing for too long; {explained(said.words)}"
            )
        if said.ending == "flood":
            raise RemoteError(redacted(self.remote), "hostile", "it sends more than is taken (pull_limit)")
        return said

    def failure(self, said: Said, transfers: Sequence[Transfer] = ()) -> RemoteError:
        """Return the error that the words of a failed Git mean."""
        return RemoteError(redacted(self.remote), fault_of(said.words), explained(said.words), transfers)


def open_line(
    path: str,
    remote: str,
    limits: Limits,
    variables: Mapping[str, str],
    stopped: Callable[[], bool],
    tell: Callable[[TransferProgress], None],
) -> Line:
    """Open the repository at *path* for one call, and check *remote*; *variables* is the environment."""
    handle = open_handle(path)
    is_folder = os.path.isdir(remote)
    remote = check_remote(remote, remotes(handle), is_folder=is_folder)
    if is_folder and remote not in remotes(handle):
        remote = os.path.abspath(remote)  # the child starts elsewhere
    extra = outside(variables, setting(handle, "core.sshCommand"), limits.first)
    return Line(handle, remote, limits, extra, stopped, Teller(tell))


def listed(line: Line, pattern: str = f"{EXPERIMENTS}*") -> dict[str, RemoteExperiment]:
    """Return the experiments on the remote whose refs match *pattern*, by ref."""
    said = line.ask("ls-remote", "--refs", "--", line.remote, pattern)
    if said.code:
        raise line.failure(said)
    return parse_refs(said.out.decode("utf-8", "surrogateescape"))
