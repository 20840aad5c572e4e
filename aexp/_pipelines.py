"""The parameter and metric files that a tree's dvc.yaml files name, as DVC finds them (interop reference, section 2)."""

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import define, field, frozen

from . import _dvc
from ._datacache import cache_of
from ._files import read
from ._formats.experiment import Others
from ._formats.gitobjects import FOLDER, SYMLINK, Entry, Kind, parse_tree
from ._formats.params import SIZE, is_json, load_values, plain_params
from ._formats.pipeline import Named, merge_named, named, tracked, walk_order
from ._git import Handle, read_object
from ._layout import LOCK, METRICS, PARAMS, PIPELINE
from .errors import GitError, InvalidParams

MOST: Final = 4096
"""How many trees are remembered."""


@frozen(eq=False)
class _Content:
    """What a parameter or metric file holds, and whether DVC would say the same of it, value by value."""

    values: Mapping[str, Any]
    exact: bool


@define(eq=False)
class Pipelines:
    """Reads trees, and remembers by object id, so that what a thousand experiments share is read once."""

    handle: Handle
    _below: dict[bytes, tuple[tuple[str, bytes], ...]] = field(factory=dict)
    _read: dict[tuple[bytes, str], _Content | InvalidParams] = field(factory=dict)
    _unsaved: Mapping[bytes, tuple[Kind, bytes]] = field(factory=dict)
    _known: dict[tuple[str, str, bool], Others] = field(factory=dict)
    _defaults: dict[tuple[bytes, str], Others] = field(factory=dict)

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
        known = self._known.get((tree, folder, data))
        if known is None:
            self._unsaved = unsaved or {}
            try:
                known = self._found_in(tree, folder, data)
            except GitError as error:
                known = Others(damaged=f"{error.action}: {error.detail}")
            finally:
                self._unsaved = {}
            if len(self._known) > MOST:
                self._known.clear()
            if known.damaged is None:  # what is damaged may be mended
                self._known[tree, folder, data] = known
        return known

    def knows_dvc(self, tree: str) -> bool:
        """Say whether there is a DVC repository in *tree*, at its top or below."""
        root = self._tree(bytes.fromhex(tree))
        return _dvc.FOLDER.encode() in root or any(path.endswith("/") for path, _ in self._walk(root, "", ""))

    def _found_in(self, tree: str, folder: str, data: bool) -> Others:
        root = self._tree(bytes.fromhex(tree))
        found = [(path, id) for path, id in self._walk(root, "", folder) if data or path.endswith(PIPELINE)]
        default = root.get(PARAMS.encode())
        if found:
            return self._look(root, found, folder)
        key = (b"" if default is None else default.id, folder)  # all that counts is one file, which most trees share
        if key not in self._defaults:
            self._defaults[key] = self._look(root, (), folder)
        return self._defaults[key]

    def _object(self, id: bytes) -> tuple[Kind, bytes]:
        return self._unsaved.get(id) or read_object(self.handle, id)

    def _look(self, root: Mapping[bytes, Entry], found: Sequence[tuple[str, bytes]], folder: str) -> Others:
        problems: list[str] = []
        names: dict[str, Named] = {}
        for path, id in found:
            try:
                names[path] = self._named(root, path, id)
            except InvalidParams as error:
                problems.append(str(error))
        if folder:
            own = (f"{folder}/{PARAMS}", f"{folder}/{METRICS}")
            names[f"{folder}/{PIPELINE}"] = Named(whole_params=own[:1], whole_metrics=own[1:])
        ordered = [names[path] for path in sorted(names, key=walk_order)]
        wanted, measured = merge_named(ordered, PARAMS if PARAMS.encode() in root else None)
        params = dict(self._contents(root, wanted, {}, problems, folder))
        metrics = dict(self._contents(root, dict.fromkeys(measured), measured, problems, folder))
        exact = all(each.exact for each in ordered)
        exact &= all(each.exact for each in (*params.values(), *metrics.values()))
        return Others(
            {path: each.values for path, each in params.items()},
            {path: _measured(each.values) for path, each in metrics.items()},
            next(iter(problems), None),
            tuple(data for each in ordered for data in (*each.deps, *each.outs)),
            exact and not problems and params.keys() == wanted.keys() and metrics.keys() == measured.keys(),
        )

    def _named(self, root: Mapping[bytes, Entry], path: str, id: bytes) -> Named:
        """Return what the dvc.yaml or `.dvc` file at *path* names; another name is a folder of a DVC repository inside."""
        if not path.endswith(PIPELINE):
            return Named(exact=False) if path.endswith("/") else tracked(path, self._load(id, path).values)
        content = self._load(id, path).values
        lock: Mapping[str, Any] = {}
        for place, entry in (
            self._files(root, posixpath.join(posixpath.dirname(path), LOCK)) if "stages" in content else ()
        ):
            lock = self._load(entry, place).values
        return named(path, content, lock)

    def _contents(
        self,
        root: Mapping[bytes, Entry],
        paths: Mapping[str, Sequence[str] | None],
        hashes: Mapping[str, str | None],
        problems: list[str],
        folder: str,
    ) -> Iterator[tuple[str, _Content]]:
        for path, keys in paths.items():
            if folder and path in (f"{folder}/{PARAMS}", f"{folder}/{METRICS}"):
                yield path, _Content({}, True)
                continue
            try:
                here = list(self._files(root, path))
                for place, id in here:
                    content = self._load(id, place)
                    exact = content.exact and place == path  # DVC lists the files of a folder in an order of its own
                    yield place, _Content(content.values if keys is None else _chosen(content.values, keys), exact)
                if not here and (hash := hashes.get(path)):
                    yield from self._cached(path, hash)
            except InvalidParams as error:
                problems.append(str(error))

    def _cached(self, path: str, hash: str) -> Iterator[tuple[str, _Content]]:
        tops = filter(None, (self.handle.worktree, os.path.dirname(self.handle.common)))
        for root in _dvc.roots_above(path, tops):
            place = cache_of(root, os.environ).path(hash)
            if place is not None and os.path.getsize(place) <= SIZE:
                yield path, _parsed(read(place), path)
                return

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
            for name in self._tree(entry.id):
                yield from self._files(root, f"{path}/{name.decode('utf-8', 'surrogateescape')}")
        elif entry is not None and entry.mode != SYMLINK:  # a link may lead anywhere
            yield path, entry.id

    def _walk(self, entries: Mapping[bytes, Entry], prefix: str, folder: str) -> Iterator[tuple[str, bytes]]:
        """Yield the path and the id of what DVC looks into, but for what is in *folder*."""
        for entry in entries.values():
            path = f"{prefix}{entry.name.decode('utf-8', 'surrogateescape')}"
            if entry.mode != FOLDER:
                if path.endswith(_dvc.FOLDER) or entry.name == PIPELINE.encode():
                    yield path, entry.id
            elif path == folder:
                continue
            elif folder.startswith(f"{path}/"):
                yield from self._walk(self._tree(entry.id), f"{path}/", folder)
            elif entry.name == _dvc.FOLDER.encode() and prefix:
                yield f"{path}/", entry.id
            else:
                below = self._below.get(entry.id)
                if below is None:
                    below = self._below[entry.id] = tuple(self._walk(self._tree(entry.id), "/", ""))
                yield from ((f"{path}{place}", id) for place, id in below)

    def _tree(self, id: bytes) -> dict[bytes, Entry]:
        kind, content = self._object(id)
        return parse_tree(content) if kind is Kind.TREE else {}

    def _load(self, id: bytes, path: str) -> _Content:
        key = (id, posixpath.splitext(path)[1])
        if key not in self._read:
            try:
                self._read[key] = _parsed(self._object(id)[1], path)
            except InvalidParams as error:
                self._read[key] = error
        found = self._read[key]
        if isinstance(found, InvalidParams):
            raise found
        return found


def _parsed(content: bytes, path: str) -> _Content:
    values = load_values(content, path)
    if isinstance(values, int | float | str):  # DVC takes a file that holds but a number for a metric
        return _Content({posixpath.splitext(posixpath.basename(path))[0]: values}, False)
    return _Content(plain_params(values, path), is_json(values) and not path.endswith(".py"))  # it may hold a set


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
