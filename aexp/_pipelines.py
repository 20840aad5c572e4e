"""The parameter and metric files that a tree's dvc.yaml files name, as DVC finds them (interop reference, section 2)."""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from attrs import Factory, define, field

from ._formats.experiment import Others
from ._formats.gitobjects import FOLDER, Entry, Kind, parse_tree
from ._formats.params import load_params
from ._git import Handle, Presence, object_size, read_object
from ._layout import PARAMS, PIPELINE
from .errors import GitError, InvalidParams

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


@define(eq=False)
class Pipelines:
    """Reads trees, and remembers by object id, so that what a thousand experiments share is read once."""

    handle: Handle
    presence: Presence = field(default=Factory(lambda self: Presence(self.handle), takes_self=True))
    _below: dict[bytes, tuple[tuple[str, bytes], ...]] = field(factory=dict)
    _read: dict[tuple[bytes, str], Mapping[str, Any] | InvalidParams] = field(factory=dict)
    _unsaved: Mapping[bytes, tuple[Kind, bytes]] = field(factory=dict)
    _known: dict[tuple[Entry, ...], Others] = field(factory=dict)
    _defaults: dict[bytes, Others] = field(factory=dict)
    _used: set[bytes] = field(factory=set)
    _size: int = 0
    _count: int = 0
    _last: tuple[str, Mapping[bytes, Entry]] = ("", {})

    def others(self, tree: str, folder: str, unsaved: Mapping[bytes, tuple[Kind, bytes]] | None = None) -> Others:
        """Return what the dvc.yaml files of *tree* name, but for the one in aexp's own *folder*, and the root's params.yaml.

        *unsaved* holds objects that are not in the repository yet. What cannot be read is said in `damaged`.
        """
        self._unsaved = unsaved or {}
        try:
            root = {name: entry for name, entry in self.root(tree).items() if name != folder.encode()}
            key = tuple(root.values())  # experiments that started from the same code differ in aexp's folder only
            known = self._known.get(key)
            if known is None:
                known = self._found_in(root)
                if known.damaged is None:  # what is damaged may be mended
                    _remember(self._known, key, known)
            return known
        except GitError as error:
            return Others(damaged=f"{error.action}: {error.detail}")
        finally:
            self._unsaved = {}

    def root(self, tree: str) -> Mapping[bytes, Entry]:
        """Return the entries of *tree*, the root of a commit; the last one is remembered."""
        if self._last[0] != tree:
            self._last = tree, self._tree(bytes.fromhex(tree))
        return self._last[1]

    def _found_in(self, root: Mapping[bytes, Entry]) -> Others:
        found = tuple(self._pipelines(root.values()))
        default = root.get(PARAMS.encode())
        if not found:  # all that counts is one file, which most trees share
            return self._alone(default, root)
        return self._look(root, found)

    def _alone(self, default: Entry | None, root: Mapping[bytes, Entry]) -> Others:
        id = b"" if default is None else default.id
        if id not in self._defaults:
            _remember(self._defaults, id, self._look(root, ()))
        return self._defaults[id]

    def _object(self, id: bytes) -> tuple[Kind, bytes]:
        return self._unsaved.get(id) or read_object(self.handle, id)

    def _look(self, root: Mapping[bytes, Entry], found: tuple[tuple[str, bytes], ...]) -> Others:
        named: dict[str, dict[str, list[str] | None]] = {"params": {}, "metrics": {}}
        problems: list[str] = []
        self._used.clear()
        self._size = self._count = 0
        for path, id in found:
            try:
                sections = self._load(id, path)
            except InvalidParams as error:
                problems.append(str(error))
                continue
            for section, files in named.items():
                for place, keys in _paths(sections, section):
                    files[posixpath.normpath(posixpath.join(posixpath.dirname(path), place))] = keys
        named["params"].setdefault(PARAMS, None)
        params = dict(self._contents(root, named["params"], problems))
        metrics = {path: _measured(tree) for path, tree in self._contents(root, named["metrics"], problems)}
        return Others(params, metrics, next(iter(problems), None), b"".join(sorted(self._used)))

    def _contents(
        self, root: Mapping[bytes, Entry], paths: Mapping[str, list[str] | None], problems: list[str]
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for path, keys in paths.items():
            for place, id in self._files(root, path):
                if self._count > FILES:
                    problems.append(f"{path}: one of more than {FILES:,} files that are named in all")
                    return
                try:
                    content = self._load(id, place)
                except InvalidParams as error:
                    problems.append(str(error))
                else:
                    yield place, content if keys is None else _chosen(content, keys)

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
        elif entry is not None:
            yield path, entry.id

    def _files_below(self, id: bytes, path: str) -> Iterator[tuple[str, bytes]]:
        for entry in self._tree(id).values():
            place = f"{path}/{entry.name.decode('utf-8', 'surrogateescape')}"
            if entry.mode == FOLDER:
                yield from self._files_below(entry.id, place)
            else:
                yield place, entry.id

    def _pipelines(self, entries: Any, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        for entry in entries:
            name = entry.name.decode("utf-8", "surrogateescape")
            if entry.mode == FOLDER:
                below = self._below.get(entry.id)
                if below is None:
                    below = tuple(self._pipelines(self._tree(entry.id).values()))
                    _remember(self._below, entry.id, below)
                yield from ((f"{prefix}{name}/{path}", id) for path, id in below)
            elif name == PIPELINE:
                yield f"{prefix}{name}", entry.id

    def _tree(self, id: bytes) -> dict[bytes, Entry]:
        self._used.add(id)
        kind, content = self._object(id)
        return parse_tree(content) if kind is Kind.TREE else {}

    def _load(self, id: bytes, path: str) -> Mapping[str, Any]:
        self._used.add(id)
        self._count += 1
        self._size += self._measure(id, path)
        if self._size > TOTAL:
            raise InvalidParams(f"with the others it has more than {TOTAL:,} bytes", file=path)
        key = (id, posixpath.splitext(path)[1])
        found = self._read.get(key)
        if found is None:
            try:
                found = load_params(self._object(id)[1], path, limit=SIZE, expanded=EXPANDED)
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


def _paths(sections: Mapping[str, Any], section: str) -> Iterator[tuple[str, list[str] | None]]:
    """Yield (path, keys) of what a dvc.yaml names: of stages first, so that a whole file wins over some keys of it."""
    stages = sections.get("stages")
    for stage in stages.values() if isinstance(stages, dict) else ():
        given = stage.get(section) if isinstance(stage, dict) else None
        for each in given if isinstance(given, list) else ():
            if isinstance(each, dict):
                for path, keys in each.items():
                    if "${" not in path:
                        yield path, keys if section == "params" and isinstance(keys, list) else None
            elif isinstance(each, str) and section == "metrics" and "${" not in each:
                yield each, None
    given = sections.get(section)
    for each in given if isinstance(given, list) else ():
        if isinstance(each, str):
            yield each, None


def _chosen(content: Mapping[str, Any], keys: list[Any]) -> dict[str, Any]:
    """Return the part of *content* that dotted *keys* name, nested as it was."""
    chosen: dict[str, Any] = {}
    for key in map(str, keys):
        value: Any = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        node, (*groups, last) = chosen, key.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
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
