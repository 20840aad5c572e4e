"""Every error that aexp raises: one tree, importable from `aexp` itself.

Each error carries its data as attributes, is also the built-in exception it is a kind of, and
its message names the cause and the remedy.

    AexpError
    ├── RepositoryNotFound       (FileNotFoundError)   no Git repository at or above the path
    ├── UnsupportedRepository    (ValueError)          a kind of repository that cannot be used
    ├── ReadOnlyRepository       (PermissionError)     the repository cannot be written
    ├── RepositoryClosed         (RuntimeError)        used before `open()` or after `aclose()`
    ├── NoBaseline               (LookupError)         the baseline names no commit
    ├── GitNotFound              (FileNotFoundError)   no usable `git` program
    ├── GitError                 (RuntimeError)        Git refused, for a reason not listed here
    ├── InvalidName              (ValueError)          a name that Git, DVC or a disk cannot hold
    ├── NameTaken                (FileExistsError)     another experiment has this name
    ├── BranchExists             (FileExistsError)     a branch has this name already
    ├── ExperimentNotFound       (LookupError)         no experiment of this name, ref or rev
    │   └── AmbiguousName                              several experiments have this name
    ├── InvalidTransition        (RuntimeError)        a call out of order
    ├── CommandFailed            (RuntimeError)        a program that an experiment ran did not end well
    ├── CheckoutLost             (RuntimeError)        a private checkout vanished while it was in use
    ├── NotOwner                 (RuntimeError)        a live session owns the experiment
    ├── ForkedError              (RuntimeError)        used in a forked child
    ├── QueueFull                (RuntimeError)        more points than the disk takes
    ├── JournalCorrupt           (ValueError)          a journal damaged in the middle
    ├── DiskFailed               (OSError)             the disk refuses, and not for want of space
    │   └── JournalFailed                              the journal cannot be written
    │       └── PointsLost                             a repository was closed with points that could not be written
    ├── DiskFull                 (OSError)             no space left
    ├── TooManyOpenFiles         (OSError)             the limit of open files is reached
    ├── InvalidParams            (ValueError)          parameters that cannot be kept
    ├── InvalidQuery             (ValueError)          a query that cannot be understood
    ├── MissingExtra             (ImportError)         an optional library is not installed
    ├── DirtyWorkspace           (RuntimeError)        work would be overwritten that is not committed
    ├── ApplyPending             (RuntimeError)        another apply or undo has not ended
    ├── NothingApplied           (LookupError)         no apply that could be undone
    ├── DataMissing              (FileNotFoundError)   data that is not where it should be
    ├── UnsafePath               (ValueError)          a path that leaves its place
    ├── RemoteError              (OSError)             a Git remote that cannot be used, or that refuses
    └── Diverged                 (RuntimeError)        another experiment stands on the other side
"""

import errno
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from ._secrets import redacted
from ._wording import REMEDIES, RemoteFault, cause_of, listed, pointed_at


class AexpError(Exception):
    """The root of the tree: catch it to catch everything that aexp itself raises. Its text shows no secrets."""

    def __str__(self) -> str:
        return redacted(super().__str__())


class RepositoryNotFound(AexpError, FileNotFoundError):
    """There is no Git repository at `path` or above it."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"no Git repository at {path} or above it; run `git init` there, or pass another path")


class UnsupportedRepository(AexpError, ValueError):
    """The repository at `path` needs `feature`, which aexp cannot use."""

    def __init__(self, path: str, feature: str, remedy: str) -> None:
        self.path = path
        self.feature = feature
        super().__init__(f"the repository at {path} cannot be used: {feature}; {remedy}")


class ReadOnlyRepository(AexpError, PermissionError):
    """`path`, which an experiment must write, cannot be written; reading still works."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(
            f"{path} cannot be written, so nothing can start or change here; check owner and mount options"
        )


class RepositoryClosed(AexpError, RuntimeError):
    """A repository was used before `open()` or after `aclose()`."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"the repository at {path} is not open; use it inside `async with aexp.Repository(...)`")


class NoBaseline(AexpError, LookupError):
    """`baseline` names no commit, so there is nothing for an experiment to start from."""

    def __init__(self, baseline: str, remedy: str = "make a first commit, or pass `baseline=` with a commit") -> None:
        self.baseline = baseline
        super().__init__(f"{baseline} names no commit; {remedy}")


class GitNotFound(AexpError, FileNotFoundError):
    """No `git` program of a version that aexp can use is on the PATH."""

    def __init__(self, found: str) -> None:
        self.found = found
        super().__init__(f"aexp needs the git program, version 2.31 or newer, on the PATH; found {found}")


class GitError(AexpError, RuntimeError):
    """Git refused `action`; `detail` is what it said."""

    def __init__(self, action: str, detail: str) -> None:
        self.action = action
        self.detail = detail
        super().__init__(f"Git could not {action}: {detail}")


class InvalidName(AexpError, ValueError):
    """`name` cannot be the name of a `kind` (experiment, metric, file, tag): `reason` says why."""

    def __init__(self, kind: str, name: object, reason: str) -> None:
        self.kind = kind
        self.name = name
        self.reason = reason
        super().__init__(f"{name!r} cannot be the name of {kind}: {reason}")


class NameTaken(AexpError, FileExistsError):
    """An experiment called `name` exists on the same baseline; `rev` is its commit, None while it is open."""

    def __init__(
        self,
        name: str,
        rev: str | None,
        remedy: str = "choose another name, or pass force=True to replace it (restore() brings back what is replaced)",
    ) -> None:
        self.name = name
        self.rev = rev
        holder = "an open experiment" if rev is None else f"the saved experiment {rev[:10]}"
        super().__init__(f"the name {name!r} is taken by {holder} on the same baseline; {remedy}")


class BranchExists(AexpError, FileExistsError):
    """The branch `branch` exists, at the commit `rev`; nothing was changed."""

    def __init__(self, branch: str, rev: str) -> None:
        self.branch = branch
        self.rev = rev
        super().__init__(f"the branch {branch!r} exists, at {rev[:10]}; pass another name, or delete that one first")


class ExperimentNotFound(AexpError, LookupError):
    """No experiment is called `name`."""

    def __init__(self, name: str, remedy: str = "`await repository.experiments()` lists what is there") -> None:
        self.name = name
        super().__init__(f"no experiment {name!r}; {remedy}")


class AmbiguousName(ExperimentNotFound):
    """`name` stands on several baselines; `matches` holds the full refs, each of which is accepted."""

    def __init__(self, name: str, matches: Collection[str]) -> None:
        self.matches: tuple[str, ...] = tuple(matches)
        super().__init__(name, f"it stands on several baselines, pass one of the full refs: {', '.join(self.matches)}")


class InvalidTransition(AexpError, RuntimeError):
    """`action` is not possible in `state`; nothing was changed."""

    def __init__(self, action: str, state: str, remedy: str) -> None:
        self.action = action
        self.state = state
        super().__init__(f"cannot {action} an experiment that is {state}: {remedy}")


class CommandFailed(AexpError, RuntimeError):
    """The program `command` ended with `returncode`, which is minus the signal that killed it; `stderr` is its last words.

    One that cannot be started has 127 when there is no such program or folder and 126 when it may not be executed, as
    in shells.
    """

    def __init__(self, command: Sequence[str], returncode: int, reason: str, stderr: bytes = b"") -> None:
        self.command: tuple[str, ...] = tuple(command)
        self.returncode = returncode
        self.stderr = stderr
        super().__init__(f"`{shlex.join(command)}` {reason}")

    @property
    def exit_code(self) -> int:
        """What a shell's `$?` would be: the exit code, or 128 and the signal."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode


class NotOwner(AexpError, RuntimeError):
    """The experiment `name` belongs to a session that is alive; `holder` says whose it is."""

    def __init__(self, name: str, holder: str) -> None:
        self.name = name
        self.holder = holder
        super().__init__(f"the experiment {name!r} is held by {holder}; end that program first, or wait for it")


class ForkedError(AexpError, RuntimeError):
    """A forked child used its parent's experiment."""

    def __init__(self) -> None:
        super().__init__("this process was forked from the one that owns the experiment; open a Repository of its own")


class QueueFull(AexpError, RuntimeError):
    """The queue already holds `capacity` points that are not yet written; the point was not taken."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        remedy = "`await log_metric(...)` waits for room, Settings.queue_capacity raises the limit"
        super().__init__(f"{capacity} points wait to be written and the disk does not keep up; {remedy}")


class JournalCorrupt(AexpError, ValueError):
    """The journal segment `path` is damaged at byte `offset` and goes on after it."""

    def __init__(self, path: str, offset: int) -> None:
        self.path = path
        self.offset = offset
        remedy = "nothing was changed; recover(salvage=True) keeps every record that can be read"
        super().__init__(f"the journal {path} is damaged at byte {offset}, with good records after it; {remedy}")


class DiskFailed(AexpError, OSError):
    """The disk refused at `path`; `errno` says why. What was acknowledged before stands."""

    def __init__(
        self, path: str, cause: OSError, remedy: str = "mend the disk and call again, what was saved stands"
    ) -> None:
        self.path = path
        super().__init__(cause.errno, f"{path}: {cause_of(cause)}; {remedy}")


class JournalFailed(DiskFailed):
    """The journal cannot be written any more; what was logged since is still in memory."""

    def __init__(self, path: str, cause: OSError) -> None:
        super().__init__(path, cause, "the journal cannot be written; free or mend the disk and save again")


class PointsLost(JournalFailed):
    """A repository was closed while the disk refused, for `close_timeout`: the last `count` points and records are lost."""

    def __init__(self, path: str, cause: OSError, count: int) -> None:
        self.count = count
        lost = f"the last {count} points and other records could not be written before closing and are lost"
        DiskFailed.__init__(self, path, cause, f"{lost}; all before them are in the journal, recover() finds them")


class DiskFull(AexpError, OSError):
    """No space is left where `path` should be written; nothing was lost."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(errno.ENOSPC, f"no space left to write {path}; free some and call again, nothing was lost")


class TooManyOpenFiles(AexpError, OSError):
    """The process or the machine has no file descriptor left for `path`."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(errno.EMFILE, f"too many open files to open {path}; close some or raise `ulimit -n`")


class InvalidParams(AexpError, ValueError):
    """Parameters that cannot be kept; `file` and `line` say where, when they come from a file."""

    def __init__(self, reason: str, *, file: str | None = None, line: int | None = None) -> None:
        self.reason = reason
        self.file = file
        self.line = line
        place = "" if file is None else f"{file}{'' if line is None else f':{line}'}: "
        super().__init__(f"{place}{reason}")


class InvalidQuery(AexpError, ValueError):
    """The query `text` cannot be understood at `column`, counted from 1 through the whole text: `reason` says why."""

    def __init__(self, text: str, column: int, reason: str) -> None:
        self.text = text
        self.column = column
        self.reason = reason
        super().__init__(f"{reason}; at column {column} of the query\n{pointed_at(text, column - 1)}")


class MissingExtra(AexpError, ImportError):
    """`library` is not installed; the extra `extra` of aexp brings it."""

    def __init__(self, extra: str, library: str) -> None:
        self.extra = extra
        self.library = library
        super().__init__(f"{library} is not installed; `pip install 'aexp[{extra}]'` brings it", name=library)


class DirtyWorkspace(AexpError, RuntimeError):
    """The files at `paths` hold what is in no commit, and would be overwritten; nothing was changed."""

    def __init__(
        self,
        paths: Collection[str],
        remedy: str = "commit or stash it, or pass force=True, which keeps it for undo_apply()",
    ) -> None:
        self.paths: tuple[str, ...] = tuple(paths)
        super().__init__(
            f"what is in no commit would be overwritten at {listed(self.paths)}; nothing was changed; {remedy}"
        )


class CheckoutLost(AexpError, RuntimeError):
    """The private checkout at `path` was removed or replaced while it was in use, so what was made there is lost."""

    def __init__(self, path: str) -> None:
        self.path = path
        remedy = "a program must leave its folder; isolated=False runs it in the work tree"
        super().__init__(f"the checkout at {path} was removed or replaced, so nothing is taken from it; {remedy}")


class ApplyPending(AexpError, RuntimeError):
    """The apply or undo of the experiment `name` has not ended: it is under way, or its process died in the middle."""

    def __init__(self, name: str, *, alive: bool) -> None:
        self.name = name
        self.alive = alive
        state, remedy = (
            ("is under way in another process or thread", "try again when it has ended")
            if alive
            else ("was cut off in the middle", "`await repository.undo_apply()` brings back what was there before")
        )
        super().__init__(f"an apply{f' of {name!r}' if name else ''} {state}; {remedy}")


class NothingApplied(AexpError, LookupError):
    """No experiment was applied to the work tree at `path` that could be undone."""

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"nothing was applied to {path} that is not undone already; an apply is kept for 15 days")


class DataMissing(AexpError, FileNotFoundError):
    """The data at `paths`, in a work tree or of an experiment, is not there, not whole, or not what it should be."""

    def __init__(self, paths: Collection[str], reason: str) -> None:
        self.paths: tuple[str, ...] = tuple(paths)
        self.reason = reason
        super().__init__(f"data is missing at {listed(self.paths)}: {reason}")


class UnsafePath(AexpError, ValueError):
    """`path` leaves the place it belongs to, or names something that must not be written."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path!r} is not a safe path: {reason}")


class RemoteError(AexpError, OSError):
    """The remote `remote`, of Git or for data, cannot be used, or refuses.

    `kind` says what is wrong: `unknown` (nothing is there), `unsafe` (it is no remote that may be used),
    `authentication`, `unreachable`, `timeout`, `refused` (by the remote's hooks or rules), `hostile` (it sent what no
    repository may hold), `failed` (none of these). `detail` is what Git said. `transfers` are those it refused some of.
    """

    def __init__(
        self, remote: str, kind: RemoteFault, detail: str, transfers: Sequence[Any] = (), remedy: str = ""
    ) -> None:
        self.remote = remote
        self.kind = kind
        self.detail = detail
        self.transfers: tuple[Any, ...] = tuple(transfers)
        super().__init__(f"the remote {remote!r}: {detail}; {remedy or REMEDIES[kind]}")


class Diverged(AexpError, RuntimeError):
    """The other side holds something else under the `names`: another experiment, or commits that are not on this side.

    They were left as they are. `transfers` holds a `Transfer` for each experiment: all that could be transferred were.
    """

    def __init__(self, remote: str, names: Sequence[str], transfers: Sequence[Any], *, pulling: bool) -> None:
        self.remote = remote
        self.names: tuple[str, ...] = tuple(names)
        self.transfers: tuple[Any, ...] = tuple(transfers)
        holds = f"the remote {remote!r} holds something else as {listed(self.names)} than this repository"
        remedy = "or pass force=True to replace it here (what is replaced stays in refs/aexp/trash)"
        if not pulling:
            remedy = "pull it if it is a later state of the same, or pass force=True to replace it there"
        super().__init__(f"{holds}; it was left alone, all others were transferred; rename one of the two, {remedy}")
