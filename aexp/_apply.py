"""Applying an experiment to the work tree as one transaction: look, decide, keep what goes, then change it."""

import os
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from attrs import define, field, frozen

from . import _undo
from ._applied import Applied, Blob, Choice, Data, Decision, Seen, Wish, clash, decide, matches, parents
from ._beneath import Beneath
from ._datacache import DataCache
from ._differences import find_commit
from ._files import Breath, translating, write_new
from ._formats.gitobjects import SYMLINK, Kind, object_id
from ._formats.plan import Content, Plan, Step
from ._formats.status import quoted
from ._git import Handle, read_object, resolve_commit, run
from ._undo import Mark, Shelf, drop, is_ours, take_back
from ._wishes import Habits, ReadTree, Target, gather_data, habits_of
from .errors import DirtyWorkspace, UnsafePath

_INDEX = ("-c", "core.splitIndex=false", "-c", "core.sparseCheckout=false", "-c", "core.hooksPath=/dev/null")
"""For an index of ours: nothing beside it, nothing left out of it, and no hook that hears of it."""


@define(eq=False, repr=False)
class Surroundings:
    """What stands where something is wished, and what is in the way of it."""

    seen: dict[str, Seen] = field(factory=dict)
    cleared: dict[str, int] = field(factory=dict)
    """Folders that must go because a file takes their place, with their modes."""
    signatures: dict[str, tuple[int, int, int] | None] = field(factory=dict)


@frozen(eq=False, repr=False)
class _Order:
    """An apply that is asked for."""

    handle: Handle
    name: str
    rev: str
    force: bool
    habits: Habits


def apply(
    handle: Handle,
    read_tree: ReadTree,
    name: str,
    *,
    force: bool,
    paths: Collection[str] | None,
    home: Mapping[str, str],
) -> Applied:
    """Make the work tree of *handle* what the commit that *name* means holds; HEAD and the index stay as they are.

    Raises before anything is changed; what fails later is taken back. *home* is the environment, where DVC looks for
    its configuration.
    """
    with _undo.shelf(handle, name) as shelf:
        shelf.check_whole()
        called, _, rev = find_commit(handle, name)
        tree = resolve_commit(handle, rev)[1]
        order = _Order(handle, called, rev, force, habits_of(handle))
        with translating(handle.worktree), Beneath(handle.worktree or "") as ground:
            target = Target(handle, read_tree, tree, order.habits, paths)
            ours = _written_before(shelf)
            wish = target.gather(ground, ours)
            caches = gather_data(target, wish, ground, home)
            around = _look(handle, wish, caches, ours, ground)
            decision = decide(wish, around.seen, filemode=order.habits.filemode)
            _refuse(order, wish, decision)
            return _carry_out(order, wish, decision, around, caches, shelf, ground)


def _written_before(shelf: Shelf) -> dict[str, Step]:
    """Return by path the last step that an apply, not yet undone, has made there."""
    found: dict[str, Step] = {}
    for mark in reversed(shelf.marks):
        for step in mark.plan.steps:
            found.setdefault(step.path, step)
    return found


def _refuse(order: _Order, wish: Wish, decision: Decision) -> None:
    written = [path for path, wanted in wish.wanted.items() if wanted is not None]
    found = clash(written, ignore_case=order.habits.ignore_case)
    if found is not None:
        raise UnsafePath(found[1], f"it and {found[0]!r} cannot both stand on this disk")
    if decision.conflicts and not order.force:
        raise DirtyWorkspace(decision.conflicts)


# ---- look ----


def _look(
    handle: Handle, wish: Wish, caches: Mapping[str, DataCache], ours: Mapping[str, Step], ground: Beneath
) -> Surroundings:
    """Look at every path that is wished for, and at what is in its way, which is then wished away."""
    around, breath = Surroundings(), Breath()
    waiting, regular = list(wish.wanted), list[str]()
    for path in waiting:  # it grows
        breath()
        if path in around.seen:
            continue
        around.signatures[path] = _signature(path, ground)
        kind, wanted = ground.kind(path), wish.wanted[path]
        if isinstance(wanted, Data) and kind != "file" and not caches[path].holds(wanted.md5):
            wish.missing.append(path)  # so nothing may go to make room for it
            wanted = wish.wanted[path] = None
            kind = None
        if wanted is not None and kind is None and (blocker := ground.blocker(path)) is not None:
            wish.wanted.setdefault(blocker, None)
            waiting.append(blocker)
        if wanted is not None and kind == "folder":
            waiting += _clear(path, wish, around, ground)
        if kind == "other" and wanted is not None:
            raise UnsafePath(path, "what stands there is neither a file, a folder nor a link; move it away")
        around.seen[path] = Seen()
        if kind == "link":
            target = ground.target(path)
            id = object_id(Kind.BLOB, os.fsencode(target))
            linked = path in caches and target.startswith(f"{caches[path].folder}/")  # a link that DVC made
            around.seen[path] = Seen("link", id=id, ours=linked or (path in ours and is_ours(ours[path], ground)))
        elif kind == "file":
            regular.append(path)
    ids = iter(_ids(handle, [path for path in regular if path not in caches]))
    for path in regular:
        breath()
        found = ground.stat(path)
        if found is None or not stat.S_ISREG(found.st_mode):
            raise DirtyWorkspace([path], "it is being changed by another program; try again")
        executable, mine = bool(found.st_mode & 0o100), path in ours and is_ours(ours[path], ground)
        if path in caches:
            around.seen[path] = Seen("file", executable, md5=ground.digest(path, "md5")[0], ours=mine)
            _consult(path, wish, around.seen[path], caches[path])
        else:
            around.seen[path] = Seen("file", executable, next(ids), ours=mine)
    for path, cache in caches.items():
        wanted = wish.wanted[path]
        if isinstance(wanted, Data) and not matches(wanted, around.seen[path]) and cache.path(wanted.md5) is None:
            wish.missing.append(path)
            del wish.wanted[path]
    return around


def _consult(path: str, wish: Wish, seen: Seen, cache: DataCache) -> None:
    if not matches(wish.wanted[path], seen) and cache.holds(seen.md5):
        wish.cached[path] = seen.md5


def _clear(path: str, wish: Wish, around: Surroundings, ground: Beneath) -> list[str]:
    """Wish away all that is in the folder at *path*, where a file is to stand; return what is new to the wish."""
    files, folders = _undo.below(ground, path)
    for each in (*files, *folders):
        if each.rpartition("/")[2] == ".git":
            raise UnsafePath(each, "a repository of its own stands where a file is to be written; move it away")
        if ground.kind(each) == "other":
            raise UnsafePath(each, "what stands there is neither a file, a folder nor a link; move it away")
    for folder in folders:
        found = ground.stat(folder)
        around.cleared[folder] = stat.S_IMODE(found.st_mode) if found else 0o755
    new = [each for each in files if each not in wish.wanted]
    wish.wanted.update(dict.fromkeys(new))
    return new


def _ids(handle: Handle, paths: Sequence[str]) -> list[bytes]:
    """Return the id of the blob that Git would make of each file, by the filters of this repository."""
    if not paths:
        return []
    lines = b"".join(quoted(os.fsencode(path)) + b"\n" for path in paths)
    return [bytes.fromhex(line) for line in run(handle, "hash-object", "--stdin-paths", input=lines).decode().split()]


# ---- keep, and change ----


def _carry_out(
    order: _Order,
    wish: Wish,
    decision: Decision,
    around: Surroundings,
    caches: Mapping[str, DataCache],
    shelf: Shelf,
    ground: Beneath,
) -> Applied:
    mark: Mark | None = None
    making = shelf.begin()
    try:
        sources = _fetch(order, decision.choices, making, caches)
        choices = [each for each in decision.choices if each.wanted is None or each.path in sources]
        lost = [each.path for each in decision.choices if each.wanted is not None and each.path not in sources]
        if choices:
            plan = _plan(order, choices, sources, around, making, shelf.worktree, ground)
            _keep(plan.steps, decision.conflicts, making, ground)
            mark = shelf.commit(making, plan)
    finally:
        if mark is None:
            shutil.rmtree(making, ignore_errors=True)
    if mark is not None:
        _change_or_take_back(mark, sources, around, ground)
    return Applied(
        name=order.name,
        rev=order.rev,
        written=tuple(each.path for each in choices if each.wanted is not None),
        removed=tuple(each.path for each in choices if each.wanted is None),
        unchanged=decision.unchanged,
        missing=tuple(sorted([*wish.missing, *lost])),
        skipped=tuple(sorted(wish.skipped, key=lambda each: each.path)),
        undo=None if mark is None else mark.path,
    )


def _fetch(order: _Order, choices: Sequence[Choice], making: str, caches: Mapping[str, DataCache]) -> dict[str, str]:
    """Make in the folder *making* all that is to be written; return by path where it is there. Lost data has no source.

    `git checkout-index` writes, by the attributes and filters of the work tree as it is: the index that it is given
    holds no attributes of the experiment.
    """
    sources: dict[str, str] = {}
    entries: list[bytes] = []
    breath = Breath()
    for number, choice in enumerate(choices):
        breath()
        wanted, made = choice.wanted, f"new/{number}"
        if isinstance(wanted, Data):
            if caches[choice.path].copy_out(wanted.md5, os.path.join(making, made), executable=wanted.executable):
                sources[choice.path] = made
        elif isinstance(wanted, Blob):
            by_git = wanted.mode != SYMLINK and choice.path.rpartition("/")[2].casefold() != ".gitattributes"
            sources[choice.path] = f"tree/{choice.path}" if by_git else made
            if by_git:
                entries.append(b"%o %b\t%b\0" % (wanted.mode, wanted.id.hex().encode(), os.fsencode(choice.path)))
                continue
            content = read_object(order.handle, wanted.id)[1]
            if wanted.mode == SYMLINK:
                os.symlink(content, os.path.join(os.fsencode(making), made.encode()))
            else:
                write_new(os.path.join(making, made), content, mode=wanted.mode & 0o777 | 0o066)
    if entries:
        extra = {"GIT_INDEX_FILE": os.path.join(making, "index")}
        run(order.handle, *_INDEX, "update-index", "-z", "--index-info", input=b"".join(entries), extra=extra)
        run(order.handle, *_INDEX, "checkout-index", "--all", "--force", f"--prefix={making}/tree/", extra=extra)
    return sources


def _plan(
    order: _Order,
    choices: Sequence[Choice],
    sources: Mapping[str, str],
    around: Surroundings,
    making: str,
    worktree: str,
    ground: Beneath,
) -> Plan:
    steps: list[Step] = []
    breath = Breath()
    with Beneath(making) as made:
        for choice in choices:
            breath()
            after: Content | None = None
            if choice.wanted is not None:
                source = sources[choice.path]
                if isinstance(choice.wanted, Blob) and choice.wanted.mode == SYMLINK:
                    after = Content("link", made.target(source))
                else:
                    after = Content("file", *made.digest(source, "sha1"))
            steps.append(Step(choice.path, choice.before, after))
    needed = {folder for step in steps if step.after is not None for folder in parents(step.path)}
    new = sorted(folder for folder in needed if ground.kind(folder) != "folder")
    gone = around.cleared | _emptied(steps, needed, around.cleared, ground)
    return Plan(order.name, order.rev, worktree, steps, new, sorted(gone.items()))


def _emptied(
    steps: Sequence[Step], needed: Collection[str], cleared: Mapping[str, int], ground: Beneath
) -> dict[str, int]:
    """Return, with their modes, the folders in which nothing will be left: Git knows no empty folders."""
    leaving = {step.path for step in steps if step.after is None} | set(cleared)
    gone: dict[str, int] = {}
    for folder in sorted({each for path in leaving for each in parents(path)}, key=lambda path: -path.count("/")):
        found = ground.stat(folder)
        if folder in needed or folder in cleared or found is None or not stat.S_ISDIR(found.st_mode):
            continue
        if all(f"{folder}/{name}" in leaving for name in ground.names(folder)):
            gone[folder] = stat.S_IMODE(found.st_mode)
            leaving.add(folder)
    return gone


def _keep(steps: Sequence[Step], precious: Collection[str], making: str, ground: Beneath) -> None:
    """Keep what goes: a second name for each file, so that nothing is copied; on the disk, if it is nowhere else."""
    breath, dear = Breath(), set(precious)
    for number, step in enumerate(steps):
        breath()
        kept = os.path.join(making, "kept", str(number))
        if step.before == "link":
            os.symlink(ground.target(step.path), kept)
        elif step.before == "file":
            ground.keep(step.path, kept, durable=step.path in dear)


def _change_or_take_back(mark: Mark, sources: Mapping[str, str], around: Surroundings, ground: Beneath) -> None:
    try:
        for step in mark.plan.steps:
            _check_unchanged(step, around, ground)
    except DirtyWorkspace:
        drop(mark)  # nothing was changed yet
        raise
    try:
        _change(mark, sources, around, ground)
        mark.set("done")
    except Exception as error:
        try:
            take_back(mark, ground)
        except Exception as failure:
            error.add_note(f"and it could not be taken back: {failure}; `undo_apply()` tries again")
        raise
    for part in ("tree", "new"):
        shutil.rmtree(os.path.join(mark.path, part), ignore_errors=True)
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(mark.path, "index"))


def _check_unchanged(step: Step, around: Surroundings, ground: Beneath) -> None:
    if around.signatures.get(step.path) != _signature(step.path, ground):
        raise DirtyWorkspace([step.path], "another program is changing it; try again")


def _change(mark: Mark, sources: Mapping[str, str], around: Surroundings, ground: Beneath) -> None:
    """Change the work tree: what goes first, then what comes; a file that is replaced is there at every moment."""
    plan, breath = mark.plan, Breath()
    for step in plan.steps:
        breath()
        if step.after is None:
            _check_unchanged(step, around, ground)
            ground.remove(step.path)
    for folder, _ in reversed(plan.removed):
        ground.remove_folder(folder)
    for folder in plan.made:
        ground.make_folder(folder)
    for number, step in enumerate(plan.steps):
        breath()
        if step.after is None:
            continue
        source = os.path.join(mark.path, sources[step.path])
        if step.before is None:
            ground.put_new(source, step.path, mark.scratch(number))
        else:
            _check_unchanged(step, around, ground)
            ground.put(source, step.path, mark.scratch(number))


def _signature(path: str, ground: Beneath) -> tuple[int, int, int] | None:
    """Return what changes when the file at *path* is changed or replaced; None when nothing or a folder is there."""
    found = ground.stat(path)
    if found is None or stat.S_ISDIR(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
