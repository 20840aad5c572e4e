"""Artifacts of experiments: where they may stand, and where their content is kept."""

import os
import posixpath
from collections.abc import Iterator, Mapping
from typing import Final

from attrs import frozen

from ._beneath import Beneath
from ._datacache import DataCache, cache_of, spare_of
from ._files import read
from ._formats.gitobjects import EXECUTABLE, FILE, FOLDER, Entry, find_entry
from ._formats.params import load_params
from ._git import Handle, read_object, run
from ._layout import PIPELINE, ROOT, WORKSPACES
from ._names import check_file_path
from ._store import Store
from ._values import Code, StrPath
from .errors import GitError, InvalidParams, UnsafePath

OWN: Final = ("dvc.yaml", "dvc.lock", ".dvcignore", ".gitignore", ".gitattributes")
"""Files that Git and DVC read themselves."""
MOST: Final = 4096
"""How many answers about paths are remembered."""


@frozen(eq=False)
class Spot:
    """Where an artifact stands: the work tree, the path in it, the store for it, and whether Git ignores it already."""

    top: str
    path: str
    cache: DataCache
    ignored: bool
    left_out: frozenset[str] = frozenset()
    """Files in it, by their paths in the work tree, that a `.dvcignore` names."""


def locate(
    store: Store, code: Code, baseline: str, path: StrPath, home: Mapping[str, str], here: str | None = None
) -> Spot:
    """Find the artifact *path*, relative to the top of the work tree or absolute inside it; *home* is the environment.

    *here* is the current folder of a program that joined. A private checkout that it or an absolute *path* lies in
    takes the place of the work tree. Raises
    `UnsafePath` when it lies outside, in the folders of Git or DVC, is tracked in the experiment's tree *code*,
    or would overlap with what DVC tracks there.
    """
    given = os.fspath(path)
    above = os.path.dirname(given) if isinstance(given, str) and os.path.isabs(given) else here
    top = _checkout(store.handle.common, above) or store.handle.worktree
    if top is None:
        raise UnsafePath(given, "the repository has no work tree; pass a path of one that has")
    place = check_file_path(_inside(top, path), folder=store.settings.folder)
    parts = place.split("/")
    if ".dvc" in parts or parts[-1].endswith(".dvc") or parts[-1] in OWN:
        raise UnsafePath(place, "Git or DVC keeps its own files under this name")
    with Beneath(top) as ground:
        blocker = ground.blocker(place)
    if blocker is not None:
        raise UnsafePath(place, f"{blocker} is no folder of the work tree; links are not followed")
    key = (code.tree, code.mode, baseline, place, *_ignoring(store.handle, top, place))
    ignored = store.spots.get(key)
    if ignored is None:  # a thousand experiments of the same code ask once
        _check_untracked(store, code, baseline, place)
        ignored = _is_ignored(store, code.tree, top, place)
        if len(store.spots) >= MOST:
            store.spots.clear()
        store.spots[key] = ignored
    left_out = _left_out(store.handle, top, place)
    if place in left_out:
        raise UnsafePath(place, "a .dvcignore names it, so DVC would not see it")
    return Spot(top, place, keeping_place(store.handle, place, home), ignored, left_out)


def _left_out(handle: Handle, top: str, place: str) -> frozenset[str]:
    """Return the files at or below *place* that a `.dvcignore` above them names; its patterns are those of Git."""
    for folder in ("", *(place[:end] for end, letter in enumerate(place) if letter == "/")):
        path = os.path.join(top, folder, ".dvcignore")
        lines = read(path).splitlines() if os.path.isfile(path) and not os.path.islink(path) else ()
        if any(line.strip() and not line.startswith(b"#") for line in lines):  # `dvc init` writes one of comments
            listing = ("ls-files", "--others", "--ignored", "-z", "--exclude-per-directory=.dvcignore")
            said = run(handle, *listing, "--", f":(top,literal){place}", folder=top)
            return frozenset(os.fsdecode(said).split("\0")) - {""}
    return frozenset()


def _ignoring(handle: Handle, top: str, place: str) -> Iterator[tuple[int, int, int] | None]:
    """Yield what the disk says of each file that may say what Git ignores."""
    folders = [place[:end] for end, letter in enumerate(place) if letter == "/"]
    for path in (f"{handle.common}/info/exclude", *(os.path.join(top, each, ".gitignore") for each in ("", *folders))):
        try:
            found = os.lstat(path)
        except OSError:
            yield None
        else:
            yield found.st_mtime_ns, found.st_size, found.st_ino


def _checkout(common: str, here: str | None) -> str | None:
    """Return the private checkout that *here* lies in; None when it lies in none (`_checkouts.py`)."""
    if here is None:
        return None
    home = os.path.join(os.path.realpath(common), ROOT, WORKSPACES, "")
    id, _, below = os.path.realpath(here).removeprefix(home).partition("/")
    if not os.path.realpath(here).startswith(home) or below.partition("/")[0] != "tree":
        return None
    return os.path.join(home, id, "tree")


def _inside(top: str, path: StrPath) -> str:
    text = os.fspath(path)
    if not isinstance(text, str) or not os.path.isabs(text):
        return text
    real = os.path.realpath(os.path.dirname(text))  # the last part may be a link, which is told later
    for above, given in ((top, os.path.normpath(text)), (os.path.realpath(top), f"{real}/{os.path.basename(text)}")):
        found = os.path.relpath(given, above)
        if found != ".." and not found.startswith("../"):
            return found
    raise UnsafePath(text, f"it lies outside of the work tree {top}")


def _check_untracked(store: Store, code: Code, baseline: str, place: str) -> None:
    above = [place[:end] for end, letter in enumerate(place) if letter == "/"]
    for each in above:
        entry = _entry(store, code.tree, each)
        if entry is not None and entry.mode != FOLDER:
            raise UnsafePath(place, f"{each} is a file in the experiment's tree")
        if _entry(store, code.tree, f"{each}.dvc") is not None:
            raise UnsafePath(place, f"DVC tracks {each} as a whole; log that, or `dvc remove {each}.dvc`")
    tracked = _entry(store, code.tree, place)
    if tracked is not None and (code.mode != "all" or _entry(store, _tree_of(store, baseline), place) is not None):
        raise UnsafePath(
            place, "Git tracks it, so it is in the commit already; `git rm -r --cached` it first, and commit"
        )
    for folder in ("", *above):
        stage = _producer(store, code.tree, folder, place)
        if stage is not None:
            raise UnsafePath(
                place, f"it is an out of the stage {stage} in {posixpath.join(folder, PIPELINE)}, where DVC tracks it"
            )


def _tree_of(store: Store, rev: str) -> str:
    return read_object(store.handle, rev)[1][5:45].decode()


def _entry(store: Store, tree: str, path: str) -> Entry | None:
    return find_entry(bytes.fromhex(tree), path, store.read_tree)


def _producer(store: Store, tree: str, folder: str, place: str) -> str | None:
    """Return the stage of the dvc.yaml in *folder* whose outs *place* would overlap with."""
    entry = _entry(store, tree, posixpath.join(folder, PIPELINE))
    if entry is None or entry.mode not in (FILE, EXECUTABLE):
        return None
    try:
        stages = load_params(read_object(store.handle, entry.id)[1], PIPELINE).get("stages")
    except InvalidParams:
        return None  # DVC cannot read it either
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        about = stage.get("do", stage) if isinstance(stage, dict) else {}
        if not isinstance(about, dict):
            continue
        base = posixpath.join(folder, str(about.get("wdir", "")))
        for section in ("outs", "metrics", "plots"):
            given = about.get(section)
            for each in given if isinstance(given, list) else ():
                out = posixpath.normpath(posixpath.join(base, next(iter(each), "") if isinstance(each, dict) else each))
                if f"{place}/".startswith(f"{out}/") or f"{out}/".startswith(f"{place}/"):
                    return str(name)
    return None


def _is_ignored(store: Store, tree: str, top: str, place: str) -> bool:
    """Say whether Git ignores *place* by something that the commit will hold too, or that holds for all repositories here."""
    try:
        asked = ("check-ignore", "-v", "-z", "--no-index", "--stdin")
        said = run(store.handle, *asked, input=os.fsencode(place) + b"\0", folder=top)
    except GitError as error:
        if error.detail != "exit 1":  # what git-check-ignore(1) ends with when nothing is ignored
            raise
        return False
    source, _, pattern, *_ = os.fsdecode(said).split("\0")
    if pattern.startswith("!"):
        return False
    return posixpath.basename(source) != ".gitignore" or _entry(store, tree, source) is not None


def keeping_place(handle: Handle, place: str, home: Mapping[str, str]) -> DataCache:
    """Return the store for the artifact at *place*: the cache of DVC, or where there is none, one in the Git directory.

    In a checkout that lives in the Git directory, and goes with its experiment, it is the cache of the main work tree.
    """
    top, common = handle.worktree or "", handle.common
    if os.path.realpath(top).startswith(os.path.join(os.path.realpath(common), "")):
        top = os.path.dirname(common.rstrip("/"))
    folders = place.split("/")[:-1]
    for end in range(len(folders), -1, -1):
        root = os.path.join(top, *folders[:end])
        if os.path.isdir(os.path.join(root, ".dvc")) and not os.path.islink(os.path.join(root, ".dvc")):
            return cache_of(root, home, spare_of(common))
    return DataCache(spare_of(common))
