"""What an experiment holds laid into a checkout, and what a program has made of it taken out again."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Final

from attrs import define, field, frozen

from . import _outs
from ._applied import parents
from ._beneath import Beneath
from ._capture import printable, snapshot
from ._checkouts import Checkout
from ._clearing import open_up
from ._datacache import cache_of, local_config, outs_of
from ._files import Breath, write_all
from ._formats.files import Files, encoded, said_of
from ._formats.gitobjects import EXECUTABLE, GITLINK, SYMLINK, Kind, object_id
from ._formats.journal import Extents
from ._formats.journal import Kind as JournalKind
from ._formats.params import load_params
from ._git import run
from ._layout import PIPELINE
from ._names import leads_out, work_tree_fault
from ._outs import Put, Taken
from ._sessions import read_extents
from ._store import Store
from ._values import Settings
from .errors import AexpError

Laying = tuple[int, bytes] | None
Laid = dict[str, Laying]
"""What was laid into a checkout, by path: mode and blob id, None for what was taken away."""

LARGE: Final = 2**20
"""A file of DVC of more bytes is not looked at."""
_FORCED: Final = ("metrics", "plots", "params")


@frozen(eq=False)
class Wanted:
    """What is taken from a checkout besides the files that changed, and the bounds."""

    settings: Settings
    outs: tuple[str, ...]
    laid: Mapping[str, tuple[int, bytes] | None]


@define(eq=False)
class Harvest(Taken):
    """What was taken from a checkout, and the outs that were not there."""

    outs: list[str] = field(factory=list)


# ---- in ----


def held(store: Store, number: int, extents: Extents) -> dict[str, tuple[int, bytes | None]]:
    """Return the files that experiment *number* of this session holds beside its code: (mode, content) by path."""
    assert store.session is not None
    files = Files()
    for kind, payload in read_extents(store.session.path, store.session.id, extents, number, None):
        if kind in (JournalKind.FILE, JournalKind.LOG):
            files.add(kind, payload)
    folder = store.settings.folder
    return {path: each for path, each in files.found().items() if not path.startswith(f"{folder}/")}


def lay(checkout: Checkout, files: Mapping[str, tuple[int, bytes | None]]) -> Laid:
    """Make *files* stand in the checkout, over what is there."""
    laid: Laid = {}
    breath, scratch = Breath(), os.path.join(checkout.folder, "file")
    with Beneath(checkout.path) as ground:
        for path in [path for path, (_, content) in files.items() if content is None]:
            breath()
            _take_away(ground, path)
            laid[path] = None
        for path, (mode, content) in files.items():
            breath()
            if content is None:
                continue
            _make_room(ground, path)
            _write(scratch, mode, content)
            ground.put(scratch, path, scratch)
            laid[path] = mode, object_id(Kind.BLOB, content)
    return laid


def _take_away(ground: Beneath, path: str) -> None:
    if ground.kind(path) != "folder":
        ground.remove(path)
        return
    for name in ground.names(path):
        _take_away(ground, f"{path}/{name}")
    ground.remove_folder(path)


def _make_room(ground: Beneath, path: str) -> None:
    parent = path.rpartition("/")[0]
    blocker = ground.blocker(path)
    if blocker is not None:
        ground.remove(blocker)
    ground.make_folders(parent)
    if ground.kind(path) == "folder":
        _take_away(ground, path)


def _write(path: str, mode: int, content: bytes) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
    if mode == SYMLINK:
        os.symlink(content, os.fsencode(path))
        return
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777 if mode == EXECUTABLE else 0o666
    )
    try:
        write_all(descriptor, content)
    finally:
        os.close(descriptor)


# ---- DVC ----


def furnish(checkout: Checkout, worktree: str | None, home: Mapping[str, str]) -> None:
    """Let DVC in the checkout use the cache of the user's *worktree*, and bring the data that its files name.

    Data that the cache does not hold is left out, as `dvc exp run` does. *home* is the environment.
    """
    if worktree is None:
        return
    listed = run(checkout.handle, "ls-files", "-z", "--cached", "--others", "--", "*.dvc", "*dvc.lock", "*.dvc/config")
    paths = sorted({os.fsdecode(path) for path in listed.split(b"\0")[:-1]})
    roots = [path.removesuffix(".dvc/config") for path in paths if f"/{path}".endswith("/.dvc/config")]
    with Beneath(checkout.path) as ground:
        for root in roots:
            if ground.kind(f"{root}.dvc") == "folder":
                text = local_config(os.path.join(worktree, root), home, checkout.site)
                _write(os.path.join(checkout.folder, "file"), 0, text.encode())
                ground.put(os.path.join(checkout.folder, "file"), f"{root}.dvc/config.local", "")
        for path in paths:
            above = max((root for root in roots if path.startswith(root)), key=len, default=None)
            if above is not None and not f"/{path}".endswith("/.dvc/config"):
                with suppress(AexpError, OSError):  # DVC says better what is wrong with its files
                    _bring(checkout, ground, path, os.path.join(worktree, above), home)


def _bring(checkout: Checkout, ground: Beneath, path: str, root: str, home: Mapping[str, str]) -> None:
    """Bring the data that the file at *path*, a `.dvc` file or a dvc.lock, speaks of."""
    cache, breath = cache_of(root, home), Breath()
    for out in outs_of(path, _read(ground, path), _read(ground, f"{path.removesuffix('.lock')}.yaml")):
        if work_tree_fault(out.path) is not None or "://" in out.path or ground.kind(out.path) is not None:
            continue
        files = {out.path: (out.md5, out.executable)}
        if out.md5.endswith(".dir"):
            manifest = cache.manifest(out.md5)
            if manifest is None:
                continue
            ground.make_folders(out.path)
            files = {f"{out.path}/{name}": (md5, False) for name, md5 in manifest.items()}
        for place, (md5, executable) in files.items():
            breath()
            scratch = os.path.join(checkout.folder, "file")
            with suppress(FileNotFoundError):
                os.unlink(scratch)
            if ground.kind(place) is None and (
                cache.link_out(md5, scratch) or cache.copy_out(md5, scratch, executable=executable)
            ):
                ground.make_folders(place.rpartition("/")[0])
                ground.put(scratch, place, "")


def _read(ground: Beneath, path: str) -> Mapping[str, object]:
    """Return what a file of DVC says; nothing when it cannot be read."""
    found = ground.stat(path)
    if found is None or ground.kind(path) != "file" or found.st_size > LARGE:
        return {}
    with suppress(AexpError, OSError):
        return load_params(ground.read(path), f"{path}.yaml")
    return {}


# ---- out ----


def reap(checkout: Checkout, wanted: Wanted, put: Put, settle: Callable[[], object]) -> Harvest:
    """Put what has changed in the checkout since it was lent, what dvc.yaml names, and the outs that are there.

    Files that Git ignores are taken only when one of the last two names them. Data of DVC stays in its cache.
    Raises `CheckoutLost` when the checkout is no longer there.
    """
    checkout.check()
    taken = Harvest()
    for path in open_up(checkout.path):
        if path != ".git" and not path.startswith(".git/"):
            taken.skipped.append((printable(path), "not a regular file"))
    room = wanted.settings.capture_limit - _changed(checkout, wanted, taken, put, settle)
    with Beneath(checkout.path) as ground:
        taken.outs += [path for path in wanted.outs if ground.kind(path) is None]
        there = [path for path in wanted.outs if ground.kind(path) is not None]
        named = [path for path in _named(checkout, ground, wanted) if path not in (*taken.files, *there)]
    more = _outs.take_from(checkout.path, wanted.settings, [*there, *named], room, put, settle)
    taken.files += more.files
    taken.skipped += more.skipped
    return taken


def _changed(checkout: Checkout, wanted: Wanted, taken: Harvest, put: Put, settle: Callable[[], object]) -> int:
    """Put what differs from what was laid into the checkout, by Git's own filters; return how many bytes that is."""
    scratch = os.path.join(checkout.folder, "capture")
    shutil.rmtree(scratch, ignore_errors=True)
    os.mkdir(scratch)
    found = snapshot(checkout.handle, "all", wanted.settings, scratch, bounded=True)
    taken.skipped += [(each.path, each.reason) for each in found.skipped if not _is_dvcs(each.path)]
    edits, size, gathered = _beside_laid(checkout, wanted.laid, found.edits, {path for path, _ in taken.skipped}), 0, 0
    breath = Breath()
    for path, edit in edits.items():
        breath()
        if _is_dvcs(path) or (edit is not None and edit[0] == GITLINK):
            continue
        if not _outs.is_text(path):
            taken.skipped.append((printable(path), _outs.NO_TEXT))
            continue
        if edit is None:
            put(path, None)
            taken.files.append(path)
            continue
        content = found.blobs[edit[1]]() if edit[1] in found.blobs else _blob(checkout, edit[1])
        reason = leads_out(path, os.fsdecode(content)) if edit[0] == SYMLINK else None
        if reason is not None:
            taken.skipped.append((path, reason))
            continue
        put(path, _text(content), *said_of(edit[0]))
        taken.files.append(path)
        size, gathered = size + len(content), gathered + len(content)
        if gathered > _outs.BATCH:
            settle()
            gathered = 0
    return size


def _text(content: bytes) -> str:
    breath, slices = Breath(), []
    for each in encoded(content):
        breath()
        slices.append(each)
    return "".join(slices)


def _beside_laid(
    checkout: Checkout,
    laid: Mapping[str, tuple[int, bytes] | None],
    edits: Mapping[str, Laying],
    skipped: Collection[str],
) -> dict[str, Laying]:
    """Return how the checkout differs from its tree with the files *laid* over it; *edits* is how it differs from the tree.

    Laid files that Git ignores are left to who names them.
    """
    found = {path: edit for path, edit in edits.items() if path not in laid or edit != laid[path]}
    silent = [path for path in laid if path not in edits and path not in skipped]
    listed = run(checkout.handle, "ls-files", "-z", "--stage").split(b"\0")[:-1] if silent else ()
    made = {os.fsdecode(path): about.split(b" ") for about, _, path in (line.partition(b"\t") for line in listed)}
    with Beneath(checkout.path) as ground:
        for path in silent:
            if ground.kind(path) in (None, "folder"):
                if laid[path] is not None:
                    found[path] = None
            elif path in made:
                found[path] = int(made[path][0], 8), bytes.fromhex(made[path][1].decode())
    return found


def _blob(checkout: Checkout, id: bytes) -> bytes:
    return run(checkout.handle, "cat-file", "blob", id.hex())


def _is_dvcs(path: str) -> bool:
    """Say whether DVC keeps its own things at *path*, or we those for it."""
    return any(f"/.dvc/{name}/" in f"/{path}/" for name in ("config.local", "tmp", "cache"))


def _named(checkout: Checkout, ground: Beneath, wanted: Wanted) -> list[str]:
    """Return what Git ignores and the experiment holds, or the top level of a dvc.yaml names: `dvc exp run` commits that, too."""
    listed = run(checkout.handle, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", f"*{PIPELINE}")
    named: dict[str, None] = dict.fromkeys(wanted.laid)
    for pipeline in sorted({os.fsdecode(path) for path in listed.split(b"\0")[:-1]}):
        if f"/{pipeline}".endswith(f"/{PIPELINE}") and not pipeline.startswith(f"{wanted.settings.folder}/"):
            folder, sections = os.path.dirname(pipeline), _read(ground, pipeline)
            named |= dict.fromkeys(
                os.path.normpath(os.path.join(folder, each))
                for section in _FORCED
                for each in _paths(sections.get(section))
            )
    paths = [path for path in named if work_tree_fault(path) is None and ground.kind(path) in ("file", "folder")]
    if not paths:
        return []
    ignored = run(checkout.handle, "ls-files", "-z", "--others", "--ignored", "--exclude-standard").split(b"\0")[:-1]
    known = {each for path in map(os.fsdecode, ignored) for each in (path, *parents(path))}
    return [path for path in paths if path in known]


def _paths(section: object) -> Iterator[str]:
    """Yield the paths that a section of a dvc.yaml names: a list of texts and mappings, or one mapping."""
    each: Collection[object] = section if isinstance(section, (list, dict)) else ()
    for entry in each:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            yield from (key for key in entry if isinstance(key, str))
