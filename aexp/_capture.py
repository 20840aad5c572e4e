"""The code an experiment starts with, as a tree: taken from the work tree without touching the user's index."""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from typing import Final

from attrs import define, field, frozen

from ._files import Breath, translating
from ._formats.gitobjects import EXECUTABLE, FILE, GITLINK, SYMLINK, Kind, is_git_folder, object_id, parse_commit
from ._formats.status import Change, parse_status, quoted
from ._git import Handle, read_object, read_quarantined, read_ref, resolve_commit, run
from ._layout import DVC_BASELINE, DVC_HEAD
from ._values import CodeMode, Settings, Skipped
from .errors import GitError

RACY: Final = 2.0
"""A file that changed less than this many seconds before it was looked at may change again unseen."""
MANY: Final = 20_000
"""Above this many tracked files one `git status` is cheaper than looking at each in Python."""
TRIES: Final = 3
MEANWHILE: Final = 1.0
"""Seconds to wait for DVC to put HEAD back, which takes it a few milliseconds."""

Edits = dict[str, tuple[int, bytes] | None]


def baseline_of(handle: Handle, spec: str) -> tuple[str, str]:
    """Return (rev, tree) of the commit that an experiment starts from when *spec* is asked for; raise `NoBaseline`.

    While DVC saves an experiment, HEAD is for a moment the commit that it makes; what is meant is the one that it
    started from, which DVC itself takes for HEAD meanwhile (`dvc.scm.resolve_rev`).
    """
    end = time.monotonic() + MEANWHILE
    while True:
        found = resolve_commit(handle, spec)
        if spec != "HEAD" or not handle.repo.head_is_detached:
            return found
        parents = parse_commit(read_object(handle, found[0])[1]).parents
        if parents == (read_ref(handle, DVC_BASELINE),):
            return resolve_commit(handle, parents[0])
        if parents != (read_ref(handle, DVC_HEAD),) or time.monotonic() > end:
            return found  # the user's own
        time.sleep(0.01)


@frozen(eq=False, repr=False)
class Snapshot:
    """What to lay over HEAD's tree: edits by path, the blobs they need, and what was left out."""

    edits: Edits
    blobs: dict[bytes, Callable[[], bytes]]
    skipped: tuple[Skipped, ...]
    quarantine: str | None
    """The folder that holds the blobs until they are packed; `discard` removes it."""

    def discard(self) -> None:
        """Remove the temporary copies."""
        if self.quarantine is not None:
            shutil.rmtree(self.quarantine, ignore_errors=True)


@define(eq=False, repr=False)
class Watch:
    """Knows whether the tracked files may have changed since they were last captured."""

    _state: object = field(default=None)
    _paths: list[str] = field(factory=list)
    _index: object = field(default=None)

    def unchanged(self, handle: Handle) -> bool:
        """Look at every tracked file; say whether all are as they were at the last call, and could not have changed unseen.

        One `stat` a file instead of a `git status`. Size, times and inode of each count, as they do for Git.
        """
        before, self._state = self._state, self._look(handle)
        return self._state is not None and before == self._state

    def _look(self, handle: Handle) -> object:
        assert handle.worktree is not None
        index = _signature(os.path.join(handle.repo.path, "index"))
        if index is None or index != self._index:
            listing = run(handle, "ls-files", "-z")
            self._paths = [os.path.join(handle.worktree, os.fsdecode(path)) for path in listing.split(b"\0")[:-1]]
            self._index = index
        if index is None or len(self._paths) > MANY:
            return None
        latest = (time.time() - RACY) * 1e9
        breath, seen = Breath(), []
        for path in self._paths:
            breath()
            signature = _signature(path)
            if signature is not None and (max(signature[:2]) > latest or stat.S_ISDIR(signature[4])):
                return None  # of a submodule the folder does not tell when its commit changed
            seen.append(signature)
        return index, seen


def _signature(path: str) -> tuple[int, int, int, int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_mode


def snapshot(handle: Handle, mode: CodeMode, settings: Settings, scratch: str, *, bounded: bool = False) -> Snapshot:
    """Take the changes of the work tree against HEAD: those of tracked files, for "all" also untracked ones.

    With *bounded*, against the index, and the bounds of untracked files hold for tracked ones, too. `git` does the looking and the filtering (line ends, LFS) with its own reading of the index, so split and sparse
    indexes, a held `index.lock` and half-staged files make no difference; it writes blobs into *scratch* only.
    """
    assert handle.worktree is not None
    untracked = "all" if mode == "all" else "no"
    flags = ("--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=dirty", f"--untracked-files={untracked}")
    for left in reversed(range(TRIES)):
        said = run(handle, "status", *flags)
        changes = list(parse_status(_beyond_index(said) if bounded else said))
        try:
            return _taken(handle, changes, settings, scratch, bounded=bounded)
        except (GitError, FileNotFoundError):
            if not left:  # a file can vanish between status and reading, but not for ever
                raise
    raise AssertionError("unreachable")


def _beyond_index(said: bytes) -> bytes:
    """Return what *said*, by `git status`, says of paths in which the work tree is not as the index."""
    return b"\0".join(line for line in said.split(b"\0") if line[:2] != b"1 " or line[3:4] != b".")


def _taken(handle: Handle, changes: Sequence[Change], settings: Settings, scratch: str, *, bounded: bool) -> Snapshot:
    edits: Edits = {}
    skipped: list[Skipped] = []
    regular: list[tuple[Change, int]] = []
    blobs: dict[bytes, Callable[[], bytes]] = {}
    room = settings.capture_limit
    for change in changes:
        path = os.fsdecode(change.path)
        if path == settings.folder or path.startswith(f"{settings.folder}/"):
            continue
        found = _lstat(handle, change)
        reason = _refusal(change, found, settings, room, bounded=bounded)
        if reason is None and bounded and found is not None and stat.S_ISREG(found.st_mode):
            reason = None if os.access(_place(handle, change), os.R_OK) else "it cannot be read"
        if reason is not None:
            skipped.append(Skipped(printable(path), reason))
        elif found is None:
            edits[path] = None
        elif change.is_submodule or stat.S_ISDIR(found.st_mode):
            edits[path] = (GITLINK, _checked_out(handle, path))
        elif stat.S_ISLNK(found.st_mode):
            content = os.fsencode(os.readlink(_place(handle, change)))
            edits[path] = (SYMLINK, object_id(Kind.BLOB, content))
            blobs[object_id(Kind.BLOB, content)] = lambda content=content: content  # type: ignore[misc]
        else:
            room -= 0 if change.tracked and not bounded else found.st_size
            mode = EXECUTABLE if found.st_mode & 0o100 else FILE
            regular.append((change, change.mode if change.tracked else mode))  # Git knows core.fileMode
    quarantine = tempfile.mkdtemp(prefix="capture-", dir=scratch) if regular else None
    try:
        for (change, mode), id in zip(regular, _hashed(handle, regular, quarantine), strict=True):
            edits[os.fsdecode(change.path)] = (mode, id)
            blobs[id] = lambda id=id: read_quarantined(quarantine or "", id)  # type: ignore[misc]
    except BaseException:
        Snapshot(edits, blobs, (), quarantine).discard()
        raise
    return Snapshot(edits, blobs, tuple(skipped), quarantine)


def _lstat(handle: Handle, change: Change) -> os.stat_result | None:
    if change.mode == 0:
        return None
    with translating():
        return os.lstat(_place(handle, change))


def _place(handle: Handle, change: Change) -> bytes:
    return os.path.join(os.fsencode(handle.worktree or ""), change.path)


def _refusal(
    change: Change, found: os.stat_result | None, settings: Settings, room: int, *, bounded: bool
) -> str | None:
    if found is None or stat.S_ISLNK(found.st_mode) or change.is_submodule:
        return None
    if stat.S_ISDIR(found.st_mode):
        return None if change.tracked else "a repository of its own"
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    name = os.path.basename(os.fsdecode(change.path)).lower()
    if change.tracked:
        large = bounded and (found.st_size > settings.file_limit or found.st_size > room)
        return f"larger than {min(room, settings.file_limit)} bytes" if large else None
    if any(fnmatch(name, pattern.lower()) for pattern in settings.secret_files):
        return "the name of a file that holds secrets"
    if any(map(is_git_folder, change.path.split(b"/"))):
        return "Git's own folder, on some file system"
    if found.st_size > settings.file_limit:
        return f"larger than {settings.file_limit} bytes"
    return "too much untracked data" if found.st_size > room else None


def _checked_out(handle: Handle, path: str) -> bytes:
    folder = os.path.join(handle.worktree or "", path)
    return bytes.fromhex(run(handle, "rev-parse", "HEAD", folder=folder).decode().strip())


def _hashed(handle: Handle, regular: Sequence[tuple[Change, int]], quarantine: str | None) -> Iterator[bytes]:
    if quarantine is None:
        return iter(())
    extra = {"GIT_OBJECT_DIRECTORY": quarantine}  # no alternates: what the user staged may be collected, so copy it
    paths = b"".join(quoted(change.path) + b"\n" for change, _ in regular)
    said = run(handle, "-c", "core.fsync=none", "hash-object", "-w", "--stdin-paths", input=paths, extra=extra)
    return iter([bytes.fromhex(line) for line in said.decode().split()])


def printable(path: str) -> str:
    """Return *path* as a text that any file can hold: bytes that are not UTF-8 are spelled out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
