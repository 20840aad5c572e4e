"""What a work tree must hold to be an experiment's: gathered from Git, and for data from DVC's files; nothing is changed."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from attrs import frozen

from ._applied import Blob, Data, Wish, clash, parents
from ._beneath import Beneath
from ._datacache import DataCache, Out, cache_of, outs_of, spare_of
from ._differences import tree_differences
from ._files import Breath
from ._formats.experiment import is_carried
from ._formats.gitobjects import FOLDER, GITLINK, SYMLINK, Entry
from ._formats.params import load_params
from ._formats.plan import Step
from ._formats.status import parse_status
from ._git import Handle, read_object, resolve_commit, run, settings_of
from ._names import guard, leads_out, work_tree_fault
from ._undo import is_ours
from ._values import Skipped
from .errors import InvalidParams, NoBaseline, UnsafePath

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_STATUS = ("--porcelain=v2", "-z", "--no-renames", "--ignore-submodules=all", "--untracked-files=no")
_FILES = ("core.hookspath", "core.attributesfile", "core.excludesfile", "core.fsmonitor")
"""Settings whose value is a path that Git runs, or takes settings from."""

ReadTree = Callable[[bytes], Mapping[bytes, Entry]]


@frozen(eq=False, repr=False)
class Habits:
    """How Git is set up here, as far as it matters to files: *guarded* are those it takes settings and hooks from."""

    filemode: bool
    ignore_case: bool
    sparse: bool
    guarded: frozenset[str]


def habits_of(handle: Handle) -> Habits:
    """Return how Git is set up here."""
    switches = {"core.filemode": "true", "core.ignorecase": "false", "core.sparsecheckout": "false"}
    top, guarded = handle.worktree or "", set[str]()
    for origin, key, value in settings_of(handle):
        if key in switches:
            switches[key] = value
        file = os.path.join(top, origin.removeprefix("file:")) if origin.startswith("file:") else top
        found = [file]
        if key in _FILES:
            found.append(os.path.join(top, os.path.expanduser(value)))
        if key == "include.path" or (key.startswith("includeif.") and key.endswith(".path")):
            found.append(os.path.join(os.path.dirname(file), os.path.expanduser(value)))
        for path in found:
            guarded |= {
                os.path.relpath(each, top).casefold() for each in (os.path.normpath(path), os.path.realpath(path))
            }
    inside = frozenset(path for path in guarded if not path.startswith("..") and path != ".")
    true = {key for key, value in switches.items() if value.lower() in ("true", "yes", "on", "1", "")}
    return Habits("core.filemode" in true, "core.ignorecase" in true, "core.sparsecheckout" in true, inside)


@frozen(eq=False, repr=False)
class Target:
    """What the work tree is to become: the experiment's tree, as far as *paths* ask for it."""

    handle: Handle
    read_tree: ReadTree
    tree: str
    habits: Habits
    paths: Collection[str] | None
    """The files and folders that were asked for by name; None for all."""

    def gather(self, ground: Beneath, ours: Mapping[str, Step]) -> Wish:
        """Return what shall stand where; *ours* are the last steps of earlier applies, whose files go if they are unchanged."""
        wish, links = self._differing()
        for path, step in ours.items():
            if path in wish.wanted:
                continue
            entry = self.entry(self.tree, path)
            if entry is not None and entry.mode not in (FOLDER, GITLINK):  # HEAD has it, too
                wish.head[path] = wish.wanted[path] = Blob(entry.mode, entry.id)
            elif is_ours(step, ground):
                wish.wanted[path] = None
        self._choose(wish)
        self._check(wish)
        self._leave(wish, links, ground)
        return wish

    def _differing(self) -> tuple[Wish, set[str]]:
        """Return every path in which the experiment, HEAD and the work tree are not all equal, and which are submodules."""
        wish, links = Wish(), set[str]()
        for each in tree_differences(self.handle, self._head(), self.tree):
            path = os.fsdecode(each.path)
            if path in wish.wanted:
                raise UnsafePath(path, "it stands twice in the experiment's tree")
            if GITLINK in (each.old and each.old[0], each.new and each.new[0]):
                links.add(path)
                wish.skip(path, "a submodule; see `git submodule`")
                continue
            if each.old is None and each.new is not None and is_carried(path, each.new[1]):
                continue  # whoever uses DVC here has it
            if each.old is not None:
                wish.head[path] = Blob(*each.old)
            wish.wanted[path] = None if each.new is None else Blob(*each.new)
        for change in parse_status(run(self.handle, "status", *_STATUS)):
            path = os.fsdecode(change.path)
            if change.head is not None and change.head[0] != GITLINK and path not in wish.head:
                wish.head[path] = wish.wanted[path] = Blob(*change.head)
        return wish, links

    def _head(self) -> str:
        try:
            return resolve_commit(self.handle, "HEAD")[1]
        except NoBaseline:
            return EMPTY_TREE

    def entry(self, tree: str, path: str) -> Entry | None:
        """Return what stands at *path* in *tree*; None for nothing."""
        entry = Entry(b"", FOLDER, bytes.fromhex(tree))
        if tree == EMPTY_TREE:
            return None
        for part in os.fsencode(path).split(b"/"):
            found = self.read_tree(entry.id).get(part) if entry.mode == FOLDER else None
            if found is None:
                return None
            entry = found
        return entry

    def _choose(self, wish: Wish) -> None:
        """Drop what was not asked for; raise `FileNotFoundError` for what neither the experiment nor HEAD has."""
        if self.paths is None:
            return
        for path in self.paths:
            fault = work_tree_fault(path)
            if fault is not None:
                raise UnsafePath(path, fault)
            if self.entry(self.tree, path) is None and self.entry(self._head(), path) is None:
                raise FileNotFoundError(2, "neither the experiment nor HEAD has it", path)
        for path in [path for path in wish.wanted if not self._asked(path)]:
            del wish.wanted[path]
        wish.skipped[:] = [each for each in wish.skipped if self._asked(each.path)]

    def _asked(self, path: str) -> bool:
        return self.paths is None or any(path == each or path.startswith(f"{each}/") for each in self.paths)

    def _check(self, wish: Wish) -> None:
        """Raise `UnsafePath` when the experiment holds what no work tree may be given."""
        breath = Breath()
        written = [path for path, wanted in wish.wanted.items() if wanted is not None]
        for path in written:
            breath()
            fault = work_tree_fault(path)
            if fault is not None:
                raise UnsafePath(path, fault)
        found = clash(written, ignore_case=self.habits.ignore_case)
        if found is not None:
            raise UnsafePath(found[1], f"it and {found[0]!r} cannot both stand on this disk")

    def _leave(self, wish: Wish, links: Collection[str], ground: Beneath) -> None:
        """Leave alone what is not ours to change unless it was asked for by name."""
        outside = self._sparse() if self.habits.sparse else None
        nested: dict[str, bool] = {}
        breath = Breath()
        for path in list(wish.wanted):
            breath()
            wanted, above = wish.wanted[path], parents(path)
            reason = self.refusal(path)
            if (
                reason is None
                and isinstance(wanted, Blob)
                and wanted.mode == SYMLINK
                and path not in (self.paths or ())
            ):
                reason = leads_out(path, os.fsdecode(read_object(self.handle, wanted.id)[1]))
            for folder in above:
                if folder not in nested:
                    nested[folder] = ground.kind(f"{folder}/.git") is not None
            if any(folder in links or nested[folder] for folder in above):
                reason = "inside another repository"
            if reason is None and outside is not None and outside(path) and ground.stat(path) is None:
                if wanted == wish.head.get(path):
                    del wish.wanted[path]
                    continue
                reason = "outside of the sparse checkout"
            if reason is not None:
                wish.skip(path, reason)

    def refusal(self, path: str) -> str | None:
        """Say why *path* is left alone; None when it is not, or was asked for by name."""
        return None if self.paths is not None and path in self.paths else guard(path, self.habits.guarded)

    def _sparse(self) -> Callable[[str], bool]:
        """Return what says whether a path is outside of the sparse checkout: by its flag, or by what is beside it."""
        flags: dict[str, bool] = {}
        folders: dict[str, bool] = {"": False}
        breath = Breath()
        for line in run(self.handle, "ls-files", "-t", "-z").split(b"\0")[:-1]:
            breath()
            path, away = os.fsdecode(line[2:]), line[:1] == b"S"
            flags[path] = away
            for folder in parents(path):
                folders[folder] = folders.get(folder, True) and away

        def outside(path: str) -> bool:
            known = flags.get(path)
            return (
                folders[next((each for each in reversed(parents(path)) if each in folders), "")]
                if known is None
                else known
            )

        return outside


# ---- data ----


def gather_data(target: Target, wish: Wish, ground: Beneath, home: Mapping[str, str]) -> dict[str, DataCache]:
    """Add to *wish* the data of every `.dvc` file and dvc.lock that is to be written; return the cache that each is in.

    Data that the file of HEAD and that of the work tree speak of in the same way is left as it is. *home* is the
    environment.
    """
    caches: dict[str, DataCache] = {}
    for path in [path for path in wish.wanted if path.endswith(".dvc") or path.rpartition("/")[2] == "dvc.lock"]:
        wanted = wish.wanted[path]
        if not isinstance(wanted, Blob) or wanted.mode == SYMLINK:
            continue
        try:
            new = _outs(target, path, read_object(target.handle, wanted.id)[1])
        except InvalidParams as error:
            wish.skipped.append(Skipped(path, f"its data: {error.reason}"))
            continue
        head = wish.head.get(path)
        here = _outs_if_any(target, path, ground.read(path) if ground.kind(path) == "file" else b"")
        there = {} if head is None else _outs_if_any(target, path, read_object(target.handle, head.id)[1])
        root = next((each for each in (*reversed(parents(path)), "") if ground.kind(f"{each}/.dvc".lstrip("/"))), "")
        cache = cache_of(os.path.join(ground.top, root), home, spare_of(target.handle.common))
        for out in new.values():
            before = [outs[out.path] for outs in (here, there) if out.path in outs and outs[out.path].md5 != out.md5]
            known = out.path in here and out.path in there
            if before or not known or ground.kind(out.path) is None:
                for place, data in _files(target, wish, out, before, cache):
                    wish.wanted[place] = data
                    caches[place] = cache
    return caches


def _outs_if_any(target: Target, path: str, content: bytes) -> dict[str, Out]:
    try:
        return _outs(target, path, content)
    except InvalidParams:
        return {}


def _outs(target: Target, path: str, content: bytes) -> dict[str, Out]:
    pipeline: Mapping[str, Any] = {}
    if path.endswith("dvc.lock"):
        entry = target.entry(target.tree, f"{path.removesuffix('lock')}yaml")
        pipeline = load_params(read_object(target.handle, entry.id)[1], "dvc.yaml") if entry else {}
    return {out.path: out for out in outs_of(path, load_params(content, f"{path}.yaml"), pipeline)}


def _files(
    target: Target, wish: Wish, out: Out, before: Sequence[Out], cache: DataCache
) -> Iterator[tuple[str, Data | None]]:
    """Yield what shall stand where for *out*; files of the folder *before* that are no longer in it go."""
    if "://" in out.path or out.path.startswith(("/", "../")) or out.path == "..":
        wish.skipped.append(Skipped(out.path, "data outside of the repository"))
        return
    fault = work_tree_fault(out.path)
    if fault is not None:
        raise UnsafePath(out.path, fault)
    if not out.md5.endswith(".dir"):
        files: Mapping[str, Data | None] = {out.path: Data(out.md5, out.executable)}
    else:
        manifest = cache.manifest(out.md5)
        if manifest is None:
            wish.missing.append(out.path)
            return
        files = {f"{out.path}/{path}": None for each in before for path in cache.manifest(each.md5) or {}}
        files |= {f"{out.path}/{path}": Data(md5) for path, md5 in manifest.items()}
    for path, data in files.items():
        if path in wish.wanted or target.entry(target.tree, path) is not None:
            continue  # it is in Git, too
        reason = target.refusal(path)
        if reason is not None:
            wish.skipped.append(Skipped(path, reason))
        else:
            yield path, data
