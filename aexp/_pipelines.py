"""The parameter and metric files that a tree's dvc.yaml files name, as DVC finds them (interop reference, section 2)."""

import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import Factory, define, field, frozen

from . import _dvc
from ._data import Artifact
from ._files import Breath, read
from ._formats.artifacts import described, found_artifacts
from ._formats.experiment import Others
from ._formats.gitobjects import FOLDER, SYMLINK, Entry, Kind, parse_tree, tree_entries
from ._formats.params import is_json, load_values, plain_params
from ._formats.pipeline import Named, merge_named, named, tracked, walk_order
from ._git import Handle, object_size, read_object
from ._layout import LOCK, METRICS, PARAMS, PIPELINE
from ._presence import Presence
from .errors import GitError, InvalidParams

if TYPE_CHECKING:
    from ._datacache import Out

K = TypeVar("K")
V = TypeVar("V")
MOST: Final = 4096
"""How many trees, and how many files, are remembered."""
FILES: Final = 1_000
"""How many files the dvc.yaml files of one experiment may name."""
SIZE: Final = 1_000_000
"""How many bytes one of them may have: what is read in a second."""
TOTAL: Final = 2_000_000
"""How many bytes they may have in all."""
EXPANDED: Final = 250_000
"""How large one of them may be as YAML (`_formats.yaml`), which takes a second, too."""


@frozen(eq=False, repr=False)
class _Content:
    """What a parameter or metric file holds, and whether DVC would say the same of it, value by value."""

    values: Mapping[str, Any]
    exact: bool


@define(eq=False, repr=False)
class Pipelines:
    """Reads trees, and remembers by object id, so that what a thousand experiments share is read once."""

    handle: Handle
    presence: Presence = field(default=Factory(lambda self: Presence(self.handle), takes_self=True))
    _below: dict[bytes, tuple[tuple[str, bytes], ...]] = field(factory=dict)
    _read: dict[tuple[bytes, str], _Content | InvalidParams] = field(factory=dict)
    _unsaved: Mapping[bytes, tuple[Kind, bytes]] = field(factory=dict)
    _known: dict[tuple[str, bool, tuple[Entry, ...]], Others] = field(factory=dict)
    _defaults: dict[tuple[str, bytes], Others] = field(factory=dict)
    _used: set[bytes] = field(factory=set)
    _size: int = 0
    _count: int = 0
    _missing: bool = False
    _last: tuple[str, Mapping[bytes, Entry]] = ("", {})

    def others(
        self,
        tree: str,
        folder: str,
        unsaved: Mapping[bytes, tuple[Kind, bytes]] | None = None,
        *,
        data: bool = False,
    ) -> Others:
        """Return what the dvc.yaml files of *tree* name, but for the one in aexp's own *folder*, and the root's params.yaml.

        *unsaved* holds objects that are not in the repository yet. With *data* the `.dvc` files count, too. What cannot
        be read is said in `damaged`.
        """
        self._unsaved = unsaved or {}
        try:
            root = {name: entry for name, entry in self.root(tree).items() if name != folder.encode()}
            key = folder, data, tuple(root.values())  # experiments of the same code differ in aexp's folder only
            known = self._known.get(key)
            if known is None:
                known = self._found_in(root, folder, data)
                if known.damaged is None and known.whole:  # what is damaged may be mended
                    _remember(self._known, key, known)
            return known
        except GitError as error:
            return Others(damaged=f"{error.action}: {error.detail}")
        finally:
            self._unsaved = {}

    def artifacts(self, tree: str) -> tuple[Artifact, ...]:
        """Return what *tree* references of data: the outs of `.dvc` files and of dvc.lock, the first `FILES` of them.

        What a dvc.yaml says of one in `artifacts` is taken over; what cannot be read is passed over.
        """
        from ._datacache import outs_of

        root, self._size, self._count = self.root(tree), 0, 0
        outs: dict[str, Out] = {}
        told: dict[str, Mapping[str, Any]] = {}
        for path, id in islice(self._walk(root.values(), "", ""), FILES):
            try:
                content = {} if path.endswith("/") else self._load(id, path).values
                if path.endswith(PIPELINE):
                    told |= described(posixpath.dirname(path), content)
                    for place, lock in self._files(root, posixpath.join(posixpath.dirname(path), LOCK)):
                        outs |= {each.path: each for each in outs_of(place, self._load(lock, place).values, content)}
                else:
                    outs |= {each.path: each for each in outs_of(path, content, {})}
            except (GitError, InvalidParams):
                continue
        return found_artifacts(list(outs.values())[:FILES], told)

    def root(self, tree: str) -> Mapping[bytes, Entry]:
        """Return the entries of *tree*, the root of a commit; the last one is remembered."""
        if self._last[0] != tree:
            self._last = tree, self._tree(bytes.fromhex(tree))
        return self._last[1]

    def knows_dvc(self, tree: str) -> bool:
        """Say whether there is a DVC repository in *tree*, at its top or below."""
        root = self.root(tree)
        return _dvc.FOLDER.encode() in root or any(path.endswith("/") for path, _ in self._walk(root.values(), "", ""))

    def _found_in(self, root: Mapping[bytes, Entry], folder: str, data: bool) -> Others:
        found = [(path, id) for path, id in self._walk(root.values(), "", folder) if data or path.endswith(PIPELINE)]
        if found:
            return self._look(root, found, folder)
        default = root.get(PARAMS.encode())
        key = folder, b"" if default is None else default.id  # all that counts is one file, which most trees share
        if key not in self._defaults:
            _remember(self._defaults, key, self._look(root, (), folder))
        return self._defaults[key]

    def _object(self, id: bytes) -> tuple[Kind, bytes]:
        return self._unsaved.get(id) or read_object(self.handle, id)

    def _look(self, root: Mapping[bytes, Entry], found: Sequence[tuple[str, bytes]], folder: str) -> Others:
        problems: list[str] = []
        names: dict[str, Named] = {}
        self._used.clear()
        self._size = self._count = 0
        self._missing = False
        for path, id in found:
            try:
                names[path] = self._named(root, path, id)
            except InvalidParams as error:
                problems.append(str(error))
        own = f"{folder}/{PARAMS}", f"{folder}/{METRICS}"
        if folder:
            names[f"{folder}/{PIPELINE}"] = Named(whole_params=own[:1], whole_metrics=own[1:])
        ordered = [names[path] for path in sorted(names, key=walk_order)]
        wanted, measured = merge_named(ordered, PARAMS if PARAMS.encode() in root else None)
        places = _taken(wanted, own[0]), _taken(measured, own[1])
        params = dict(self._contents(root, wanted, {}, problems))
        metrics = dict(self._contents(root, dict.fromkeys(measured), measured, problems))
        exact = all(each.exact for each in ordered)
        exact &= all(each.exact for each in (*params.values(), *metrics.values()))
        return Others(
            {path: each.values for path, each in params.items()},
            {path: _measured(each.values) for path, each in metrics.items()},
            next(iter(problems), None),
            b"".join(sorted(self._used)),
            not self._missing,
            tuple(data for each in ordered for data in (*each.deps, *each.outs)),
            places,
            exact and not problems and params.keys() == wanted.keys() and metrics.keys() == measured.keys(),
        )

    def _named(self, root: Mapping[bytes, Entry], path: str, id: bytes) -> Named:
        """Return what the dvc.yaml or `.dvc` file at *path* names; another name is a folder of a DVC repository inside."""
        if not path.endswith(PIPELINE):
            return Named(exact=False) if path.endswith("/") else tracked(path, self._load(id, path).values)
        content = self._load(id, path).values
        lock: Mapping[str, Any] = {}
        if "stages" in content:
            for place, entry in self._files(root, posixpath.join(posixpath.dirname(path), LOCK)):
                lock = self._load(entry, place).values
        return named(path, content, lock)

    def _contents(
        self,
        root: Mapping[bytes, Entry],
        paths: Mapping[str, Sequence[str] | None],
        hashes: Mapping[str, str | None],
        problems: list[str],
    ) -> Iterator[tuple[str, _Content]]:
        for path, keys in paths.items():
            there = False
            for place, id in self._files(root, path):
                there = True
                if self._count > FILES:
                    problems.append(f"{path}: one of more than {FILES:,} files that are named in all")
                    return
                try:
                    content = self._load(id, place)
                except InvalidParams as error:
                    problems.append(str(error))
                else:
                    exact = content.exact and place == path  # DVC lists the files of a folder in an order of its own
                    yield place, _Content(content.values if keys is None else _chosen(content.values, keys), exact)
            if not there and (hash := hashes.get(path)):
                yield from self._cached(path, hash, problems)

    def _cached(self, path: str, hash: str, problems: list[str]) -> Iterator[tuple[str, _Content]]:
        """Yield what DVC's cache holds of a metric file that is not in Git, as metrics of stages are by default."""
        from ._datacache import cache_of

        tops = filter(None, (self.handle.worktree, os.path.dirname(self.handle.common)))
        for root in _dvc.roots_above(path, tops):
            place = cache_of(root, os.environ).path(hash)
            if place is not None and os.path.getsize(place) <= SIZE:
                try:
                    yield path, _parsed(read(place), path)
                except InvalidParams as error:
                    problems.append(str(error))
                return
        self._missing = True

    def _files(self, root: Mapping[bytes, Entry], path: str) -> Iterator[tuple[str, bytes]]:
        """Yield (path, id) of the file at *path*, or of every file below the folder there."""
        entries: Mapping[bytes, Entry] = root
        *folders, last = path.encode("utf-8", "surrogateescape").split(b"/")
        for name in folders:
            entry = entries.get(name)
            if entry is None or entry.mode != FOLDER:
                return
            entries = self._tree(entry.id)
        entry = entries.get(last)
        if entry is not None and entry.mode == FOLDER:
            yield from self._files_below(entry.id, path)
        elif entry is not None and entry.mode != SYMLINK:  # a link may lead anywhere
            yield path, entry.id

    def _files_below(self, id: bytes, path: str) -> Iterator[tuple[str, bytes]]:
        for entry in self._tree(id).values():
            place = f"{path}/{entry.name.decode('utf-8', 'surrogateescape')}"
            if entry.mode == FOLDER:
                yield from self._files_below(entry.id, place)
            elif entry.mode != SYMLINK:
                yield place, entry.id

    def _walk(self, entries: Iterable[Entry], prefix: str, folder: str) -> Iterator[tuple[str, bytes]]:
        """Yield the path and the id of what DVC looks into, but for what is in *folder*."""
        for entry in entries:
            path = f"{prefix}{entry.name.decode('utf-8', 'surrogateescape')}"
            if entry.mode != FOLDER:
                if path.endswith(_dvc.FOLDER) or entry.name == PIPELINE.encode():
                    yield path, entry.id
            elif path == folder:
                continue
            elif folder.startswith(f"{path}/"):
                yield from self._walk(self._entries(entry.id), f"{path}/", folder)
            elif entry.name == _dvc.FOLDER.encode() and prefix:
                yield f"{path}/", entry.id
            else:
                below = self._below.get(entry.id)
                if below is None:
                    below = tuple(self._walk(self._entries(entry.id), "/", ""))
                    _remember(self._below, entry.id, below)
                yield from ((f"{path}{place}", id) for place, id in below)

    def _entries(self, id: bytes) -> Iterator[Entry]:
        """Yield the entries of a folder, however large, one by one."""
        kind, content = self._object(id)
        return tree_entries(content, Breath()) if kind is Kind.TREE else iter(())

    def _tree(self, id: bytes) -> dict[bytes, Entry]:
        self._used.add(id)
        kind, content = self._object(id)
        return parse_tree(content) if kind is Kind.TREE else {}

    def _load(self, id: bytes, path: str) -> _Content:
        self._used.add(id)
        self._count += 1
        self._size += self._measure(id, path)
        if self._size > TOTAL:
            raise InvalidParams(f"with the others it has more than {TOTAL:,} bytes", file=path)
        key = (id, posixpath.splitext(path)[1])
        found = self._read.get(key)
        if found is None:
            try:
                found = _parsed(self._object(id)[1], path)
            except InvalidParams as error:
                found = error
            _remember(self._read, key, found)
        if isinstance(found, InvalidParams):
            raise found
        return found

    def _measure(self, id: bytes, path: str) -> int:
        """Return the size of a file; raise `InvalidParams` when it is too large to be read."""
        unsaved = self._unsaved.get(id)
        size = object_size(self.handle, id) if unsaved is None else len(unsaved[1])
        if size > SIZE:
            raise InvalidParams(f"{size:,} bytes are more than the limit of {SIZE:,}", file=path)
        return size


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Put *value* into *known*, which begins anew when it is full."""
    if len(known) >= MOST:
        known.clear()
    known[key] = value


def _taken(paths: dict[str, Any], path: str) -> int:
    """Take *path* out of *paths*, and return where it was; 0 when it was not there."""
    place = list(paths).index(path) if path in paths else 0
    paths.pop(path, None)
    return place


def _parsed(content: bytes, path: str) -> _Content:
    values = load_values(content, path, limit=SIZE, expanded=EXPANDED)
    if isinstance(values, int | float | str):  # DVC takes a file that holds but a number for a metric
        return _Content({posixpath.splitext(posixpath.basename(path))[0]: values}, exact=False)
    exact = is_json(values) and not path.endswith(".py")  # Python may hold a set, which we know as a list
    return _Content(plain_params(values, path), exact)


def _chosen(content: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return the part of *content* that dotted *keys* name, nested as it was; what is not there is left out."""
    chosen: dict[str, Any] = {}
    for key in keys:
        value: Any = content
        *groups, last = key.split(".")
        for group in groups:
            value = value.get(group) if isinstance(value, Mapping) else None
        if not isinstance(value, Mapping) or last not in value:
            continue
        node = chosen
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value[last]
    return chosen


def _measured(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return what DVC takes for metrics: numbers, strings and mappings; lists, nulls and empty mappings are dropped."""
    kept: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            below = _measured(value)
            if below:
                kept[key] = below
        elif isinstance(value, (int, float, str)):
            kept[key] = value
    return kept
