"""What an apply keeps on disk so that it can be taken back: its plan, what it replaces; and the taking back."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from attrs import frozen

from . import _sessions
from ._applied import Undone
from ._beneath import Beneath
from ._files import Breath, lock, make_folders, move_folder, read, remove, sync_folder, translating, write_new
from ._formats.plan import Plan, Step, decode_plan, encode_plan
from ._git import Handle
from ._layout import ROOT
from .errors import ApplyPending, DirtyWorkspace, GitError, NothingApplied, UnsafePath, UnsupportedRepository

PLACE: Final = "applied"
KEPT_FOR: Final = 15 * 86400
"""Seconds that what an apply replaced is kept."""
_PATIENCE: Final = 5.0
"""Seconds that an apply waits for another one."""
_HALF: Final = ".making"
_GONE: Final = ".gone"
_EDITED: Final = "edited-"


@frozen(eq=False, repr=False)
class Mark:
    """One apply on disk: a folder that holds its plan, and what it replaced, numbered as the steps are."""

    path: str
    plan: Plan

    @property
    def done(self) -> bool:
        """Say whether all of it was done, and none of it taken back."""
        return os.path.exists(f"{self.path}/done") and not os.path.exists(f"{self.path}/undoing")

    def kept(self, number: int) -> str:
        """Return where the file that step *number* replaced is."""
        return f"{self.path}/kept/{number}"

    def scratch(self, number: int) -> str:
        """Return the name beside a file under which its new content may stand for a moment."""
        return f".aexp-{os.path.basename(self.path)}-{number}"

    def set(self, word: str) -> None:
        """Note *word*, durably."""
        with suppress(FileExistsError):
            write_new(f"{self.path}/{word}", b"")
        sync_folder(self.path)


@frozen(eq=False, repr=False)
class Shelf:
    """The applies of one work tree, the newest last, while nobody else may apply or undo."""

    folder: str
    worktree: str
    marks: Sequence[Mark]

    def check_whole(self) -> None:
        """Raise `ApplyPending` when the last apply or undo was cut off."""
        if self.marks and not self.marks[-1].done:
            raise ApplyPending(self.marks[-1].plan.name, alive=False)

    def begin(self) -> str:
        """Make the folder for a new apply, not yet a mark; its content is swept if it never becomes one."""
        path = os.path.join(self.folder, f"{time.time_ns():020d}{_HALF}")
        for part in ("kept", "new", "tree"):
            os.makedirs(os.path.join(path, part), mode=0o700)
        return path

    def commit(self, making: str, plan: Plan) -> Mark:
        """Turn a folder into a mark: what it keeps and the plan are on the disk before the work tree is touched."""
        breath, lines = Breath(), []
        for line in encode_plan(plan):
            breath()
            lines.append(line)
        write_new(f"{making}/plan", b"".join(lines))
        sync_folder(f"{making}/kept")
        sync_folder(making)
        path = making.removesuffix(_HALF)
        move_folder(making, path)
        return Mark(path, plan)


@contextmanager
def shelf(handle: Handle, name: str = "") -> Iterator[Shelf]:
    """Hold the applies of the work tree of *handle*; raise `UnsupportedRepository` without one, `ApplyPending` while another works."""
    if handle.worktree is None:
        raise UnsupportedRepository(
            handle.common, "it is bare, so it has no work tree", "apply in a clone or worktree of it"
        )
    root = os.path.join(handle.common, ROOT)
    folder = os.path.join(root, PLACE)
    with translating(folder):
        make_folders(folder)
        path = os.path.join(folder, "lock")
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        held, end = lock(path), time.monotonic() + _PATIENCE
        while held is None:
            if time.monotonic() > end:
                raise ApplyPending(name, alive=True)
            time.sleep(0.02)
            held = lock(path)
        try:
            remove(f"{folder}/format{_HALF}")  # what a killed process left
            _sessions.check_format(root, f"{folder}/format{_HALF}")
            worktree = os.path.relpath(os.path.realpath(handle.repo.path), handle.common)
            yield Shelf(folder, worktree, _sweep(handle.common, folder, worktree))
        finally:
            os.close(held)


def _sweep(common: str, folder: str, worktree: str) -> list[Mark]:
    """Return the marks of *worktree*; remove what never became one, and what is old but for the last of each work tree."""
    marks: dict[str, list[Mark]] = {}
    oldest = time.time() - KEPT_FOR
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.endswith((_HALF, _GONE)) or (name.startswith(_EDITED) and os.stat(path).st_mtime < oldest):
            shutil.rmtree(path, ignore_errors=True)
        elif name.isdigit():
            mark = Mark(path, _read_plan(path))
            marks.setdefault(mark.plan.worktree, []).append(mark)
    for place, found in marks.items():
        gone = not os.path.isdir(os.path.join(common, place))
        for mark in list(found if gone else found[:-1]):
            if int(os.path.basename(mark.path)) < oldest * 1e9:
                drop(mark)
                found.remove(mark)
    return marks.get(worktree, [])


def expire(handle: Handle) -> list[str]:
    """Remove what applies have kept for long enough; return the paths. Nothing while another one applies or undoes."""
    folder = os.path.join(handle.common, ROOT, PLACE)
    if handle.worktree is None or not os.path.isdir(folder):
        return []
    before = set(os.listdir(folder))
    with suppress(ApplyPending), shelf(handle):
        pass
    return [os.path.join(folder, name) for name in sorted(before.difference(os.listdir(folder)))]


def _read_plan(path: str) -> Plan:
    try:
        return decode_plan(_one_by_one(read(f"{path}/plan").splitlines()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GitError(
            "read what an apply kept", f"{path} is damaged ({error}); what was replaced is there; move it away to go on"
        ) from error


def _one_by_one(lines: Iterable[bytes]) -> Iterator[bytes]:
    breath = Breath()
    for line in lines:
        breath()
        yield line


def drop(mark: Mark) -> None:
    """Forget *mark*, and what it keeps."""
    os.rename(mark.path, f"{mark.path}{_GONE}")  # a half-removed folder must not look like a mark
    shutil.rmtree(f"{mark.path}{_GONE}", ignore_errors=True)


def undo(handle: Handle, *, force: bool = False) -> Undone:
    """Put back what the last apply to the work tree of *handle* replaced, whether it was done or cut off.

    Killed at any point, doing it again finishes it. Raises `DirtyWorkspace` when a file was edited since, unless
    *force* is set, which moves such files into a folder of the common Git directory.
    """
    with shelf(handle) as found:
        if not found.marks:
            raise NothingApplied(handle.worktree or "")
        mark = found.marks[-1]
        with translating(handle.worktree), Beneath(handle.worktree or "") as ground:
            return take_back(mark, ground, force=force)


def take_back(mark: Mark, ground: Beneath, *, force: bool = False) -> Undone:
    """Put back what *mark* replaced, and forget it."""
    plan, breath = mark.plan, Breath()
    for number, step in enumerate(plan.steps):
        breath()
        ground.remove(f"{step.path.rpartition('/')[0]}/{mark.scratch(number)}".lstrip("/"))
    edited = _edited(mark, ground)
    if edited and not force:
        raise DirtyWorkspace(
            edited,
            "it was changed after the apply; move it away, or pass force=True, which keeps it in a folder of .git",
        )
    for path in edited:
        if any(part.casefold() == ".git" for part in path.split("/")):
            raise UnsafePath(path, "a repository stands where files are to come back; move it away")
    mark.set("undoing")
    aside = f"{os.path.dirname(mark.path)}/{_EDITED}{os.path.basename(mark.path)}" if edited else None
    if aside is not None:
        os.makedirs(aside, mode=0o700, exist_ok=True)
        for path in edited:
            name = os.fsdecode(os.fsencode(os.path.basename(path))[:200])
            ground.take(path, os.path.join(aside, f"{len(os.listdir(aside)):06d}-{name}"))
        sync_folder(aside)
    _put_back(mark, ground)
    drop(mark)
    restored = tuple(step.path for step in plan.steps)
    return Undone(name=plan.name, rev=plan.rev, restored=restored, kept=aside)


def _put_back(mark: Mark, ground: Beneath) -> None:
    plan, breath = mark.plan, Breath()
    for step in plan.steps:
        breath()
        if step.before is None and ground.kind(step.path) != "folder":  # the folder that is there again, or still
            ground.remove(step.path)
    for path in reversed(plan.made):
        ground.remove_folder(path)
    for path, mode in plan.removed:
        ground.make_folders(path)
        ground.make_folder(path, mode)
    for number, step in enumerate(plan.steps):
        breath()
        if step.before is None or not os.path.lexists(mark.kept(number)):
            continue
        if ground.kind(step.path) == "folder":  # nothing but empty folders is left in it
            for folder in reversed(below(ground, step.path)[1]):
                ground.remove_folder(folder)
        ground.make_folders(step.path.rpartition("/")[0])
        ground.put(mark.kept(number), step.path, mark.scratch(number))


def _edited(mark: Mark, ground: Beneath) -> list[str]:
    """Return what is in the way of what was: files that are neither as the apply left them nor as they were before it."""
    found: list[str] = []
    breath = Breath()
    written = {step.path for step in mark.plan.steps if step.after is not None}
    for number, step in enumerate(mark.plan.steps):
        breath()
        blocker = ground.blocker(step.path)
        if blocker is not None:
            if step.before is not None and blocker not in written:
                found.append(blocker)
        elif ground.kind(step.path) == "folder" and step.before is not None:
            found += [each for each in below(ground, step.path)[0] if each not in written]
        elif not (is_after(step, ground) or _is_before(mark, number, step, ground)):
            found.append(step.path)
    for path, _ in mark.plan.removed:
        blocker = ground.blocker(f"{path}/")
        if blocker is not None and blocker not in written:
            found.append(blocker)
    return list(dict.fromkeys(found))


def is_after(step: Step, ground: Beneath) -> bool:
    """Say whether at the path of *step* stands what it put there, or nothing."""
    kind = ground.kind(step.path)
    if kind is None or step.after is None or kind != step.after.kind:
        return kind is None
    if kind == "link":
        return ground.target(step.path) == step.after.text
    return ground.digest(step.path, "sha1") == (step.after.text, step.after.size)


def is_ours(step: Step, ground: Beneath) -> bool:
    """Say whether at the path of *step* stands what it put there."""
    return step.after is not None and ground.kind(step.path) is not None and is_after(step, ground)


def _is_before(mark: Mark, number: int, step: Step, ground: Beneath) -> bool:
    """Say whether at the path of *step* still, or again, stands what stood there before."""
    kind, kept = ground.kind(step.path), mark.kept(number)
    if kind == "folder" and step.before is None:
        return True  # nothing is put there
    if step.before is None or kind != step.before:
        return False
    if not os.path.lexists(kept):
        return True  # it was put back by an undo that was cut off
    if kind == "link":
        return os.path.islink(kept) and os.readlink(kept) == ground.target(step.path)
    there, here = os.lstat(kept), ground.stat(step.path)
    if here is not None and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
        return True
    with Beneath(os.path.dirname(kept)) as keeping:
        return keeping.digest(os.path.basename(kept), "sha1") == ground.digest(step.path, "sha1")


def below(ground: Beneath, folder: str) -> tuple[list[str], list[str]]:
    """Return (files and links, folders) below *folder*, which is among the folders; each before what is in it."""
    files: list[str] = []
    folders = [folder]
    for name in ground.names(folder):
        path = f"{folder}/{name}"
        if ground.kind(path) == "folder":
            more, deeper = below(ground, path)
            files += more
            folders += deeper
        else:
            files.append(path)
    return files, folders
