"""What dvc.yaml, dvc.lock and `.dvc` files name, as DVC reads them (interop reference, sections 2 and 4)."""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import evolve, frozen

from .._layout import PARAMS

SECTIONS: Final = frozenset({"params", "metrics", "plots", "artifacts", "stages"})
STAGE: Final = frozenset(
    {
        "cmd",
        "wdir",
        "deps",
        "params",
        "outs",
        "metrics",
        "plots",
        "frozen",
        "meta",
        "desc",
        "always_changed",
    }
)
LOCKED: Final = frozenset({"path", "hash", "md5", "size", "nfiles", "isexec"})
TRACKED: Final = LOCKED | {"cache", "desc", "type", "labels", "meta", "remote", "push", "persist"}


@frozen
class Data:
    """A file or a folder that DVC watches: its path, and the content that its lock file says it has."""

    path: str
    hash: str | None = None
    size: int | None = None
    nfiles: int | None = None
    cached: bool = True
    source: bool = False
    """Whether it comes from outside, not out of a stage."""
    dep: bool = False
    """Whether a stage reads it; else it is made, or tracked."""


@frozen
class Named:
    """What one file names, by paths from the top of the tree, in DVC's order.

    `exact` says that nothing stands there which DVC might understand in another way than this module does.
    """

    params: tuple[tuple[str, tuple[str, ...] | None], ...] = ()
    """Parameter files of stages, each with the keys that are meant; None means all."""
    metrics: tuple[tuple[str, str | None], ...] = ()
    """Metric files of stages, each with the hash of its content when DVC keeps that in its cache."""
    whole_params: tuple[str, ...] = ()
    whole_metrics: tuple[str, ...] = ()
    deps: tuple[Data, ...] = ()
    outs: tuple[Data, ...] = ()
    exact: bool = True


def named(path: str, content: Mapping[str, Any], lock: Mapping[str, Any]) -> Named:
    """Return what the dvc.yaml at *path* names; *lock* is what the dvc.lock beside it holds.

    Expressions (`${...}`) are not resolved: what a stage with some has named is taken from *lock*, where DVC wrote it.
    """
    folder = posixpath.dirname(path)
    reading = _Reading(content.keys() <= SECTIONS)
    whole = {
        section: tuple(_place(folder, each) for each in _list(content, section) if isinstance(each, str))
        for section in ("params", "metrics")
    }
    locks = lock.get("stages")
    stages = content.get("stages")
    for name, stage in stages.items() if isinstance(stages, Mapping) else ():
        if isinstance(stage, Mapping):
            reading.stage(folder, str(name), stage, locks if isinstance(locks, Mapping) else {})
    inside = all(_inside(each) for paths in whole.values() for each in paths)
    return Named(
        params=tuple(_merged(reading.params).items()),
        metrics=tuple(reading.metrics.items()),
        whole_params=whole["params"],
        whole_metrics=whole["metrics"],
        deps=tuple(reading.deps),
        outs=tuple(reading.outs),
        exact=reading.exact and inside and _well_formed(content),
    )


def tracked(path: str, content: Mapping[str, Any]) -> Named:
    """Return what the `.dvc` file at *path* tracks."""
    folder = posixpath.dirname(path)
    outs = [each for each in _list(content, "outs") if isinstance(each, Mapping)]
    exact = content.keys() <= {"outs", "desc", "meta"} and all(
        each.keys() <= TRACKED and _known(each) and _inside(str(each.get("path", ".."))) for each in outs
    )
    data = (_data(_place(folder, str(each.get("path"))), each, cached=each.get("cache", True)) for each in outs)
    return Named(outs=tuple(evolve(each, source=True) for each in data), exact=exact)


class _Reading:
    """What the stages read so far name."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.params: list[tuple[str, tuple[str, ...] | None]] = []
        self.metrics: dict[str, str | None] = {}
        self.deps: list[Data] = []
        self.outs: list[Data] = []

    def stage(self, folder: str, name: str, stage: Mapping[str, Any], locks: Mapping[str, Any]) -> None:
        """Add what a stage names."""
        several = "foreach" in stage or "matrix" in stage
        body = stage.get("do", stage) if several else stage
        if not isinstance(body, Mapping):
            self.exact = False
            return
        written = [
            lock
            for key, lock in locks.items()
            if isinstance(lock, Mapping) and (key == name or (several and str(key).startswith(f"{name}@")))
        ]
        wdir = body.get("wdir") or "."
        home = _place(folder, wdir) if isinstance(wdir, str) and "${" not in wdir else folder
        if several or _templated(body):
            self.exact = False
            for lock in written or [{}]:
                self._resolved(home, body, lock)
            return
        lock = written[0] if written else {}
        self.exact &= body.keys() <= STAGE and "cmd" in body and re.fullmatch(r"[\w-]+", name) is not None
        self._params(home, body)
        self._data(home, body, lock)

    def _params(self, home: str, body: Mapping[str, Any]) -> None:
        merged: list[tuple[str, tuple[str, ...] | None]] = []
        for each in _list(body, "params"):
            if isinstance(each, str):
                merged.append((PARAMS, (each,)))
            elif isinstance(each, Mapping):
                merged += [
                    (str(path), tuple(map(str, keys)) if isinstance(keys, list) and keys else None)
                    for path, keys in each.items()
                ]
        files = _merged(merged)
        self.exact &= all(_inside(_place(home, path)) for path in files)
        self.exact &= not any(re.search(r"[*?\[\]!]", key) for keys in files.values() for key in keys or ())
        self.params += [(_place(home, path), keys) for path, keys in files.items()]

    def _data(self, home: str, body: Mapping[str, Any], lock: Mapping[str, Any]) -> None:
        locked = {
            section: {str(each["path"]): each for each in _list(lock, section) if _is_entry(each)}
            for section in ("deps", "outs")
        }
        self.exact &= all(
            each.keys() <= LOCKED and _known(each) for entries in locked.values() for each in entries.values()
        )
        for path in _list(body, "deps"):
            self.exact &= isinstance(path, str) and _inside(_place(home, path))
            if isinstance(path, str):
                self.deps.append(evolve(_data(_place(home, path), locked["deps"].get(path, {})), dep=True))
        for path, flags in _outs(body, "outs"):
            self.exact &= _inside(_place(home, path))
            self.outs.append(_data(_place(home, path), locked["outs"].get(path, {}), cached=flags.get("cache", True)))
        for path, flags in _outs(body, "metrics"):
            self.exact &= _inside(_place(home, path))
            data = _data(_place(home, path), locked["outs"].get(path, {}))
            self.metrics.setdefault(data.path, data.hash if flags.get("cache", True) else None)

    def _resolved(self, home: str, body: Mapping[str, Any], lock: Mapping[str, Any]) -> None:
        """Add what a stage with expressions names, from what DVC wrote down when it last ran it."""
        params = lock.get("params")
        for path, keys in params.items() if isinstance(params, Mapping) else ():
            self.params.append((_place(home, str(path)), tuple(map(str, keys)) if isinstance(keys, Mapping) else None))
        hashes = {str(each["path"]): each.get("md5") for each in _list(lock, "outs") if _is_entry(each)}
        for pattern, flags in _outs(body, "metrics"):
            for path in _matching(pattern, hashes):
                self.metrics.setdefault(_place(home, path), hashes.get(path) if flags.get("cache", True) else None)


def _matching(pattern: str, paths: Iterable[str]) -> Iterator[str]:
    if "${" not in pattern:
        yield pattern
        return
    parts = re.split(r"\$\{[^}]*\}", pattern)
    yield from (path for path in paths if re.fullmatch(".+".join(map(re.escape, parts)), path))


def _merged(files: Iterable[tuple[str, tuple[str, ...] | None]]) -> dict[str, tuple[str, ...] | None]:
    """Return the keys that are meant of each file; a file that is meant whole once is meant whole."""
    merged: dict[str, tuple[str, ...] | None] = {}
    for path, keys in files:
        before = merged.get(path, ())
        merged[path] = None if keys is None or before is None else (*before, *keys)
    return merged


def walk_order(path: str) -> list[tuple[bool, bytes]]:
    """Return the key that sorts paths as DVC walks a commit: the files of a folder, then the folders, as Git sorts them."""
    *folders, last = path.encode("utf-8", "surrogateescape").split(b"/")
    return [*((True, folder + b"/") for folder in folders), (False, last)]


def merge_named(
    found: Sequence[Named], default: str | None
) -> tuple[dict[str, tuple[str, ...] | None], dict[str, str | None]]:
    """Return the parameter files (with the keys meant) and the metric files that all of *found* name, in DVC's order.

    A metric file has the hash of its content where DVC's cache holds it. *default* is a parameter file that counts
    without being named.
    """
    of_stages = [each for one in found for each in one.params]
    whole = [(path, None) for one in found for path in one.whole_params]
    metrics: dict[str, str | None] = {}
    for path, hash in (each for one in found for each in one.metrics):
        metrics.setdefault(path, hash)
    for path in (path for one in found for path in one.whole_metrics):
        metrics.setdefault(path, None)
    return _merged([*of_stages, *whole, *([] if default is None else [(default, None)])]), metrics


def _data(path: str, entry: Mapping[str, Any], *, cached: Any = True) -> Data:
    return Data(path, entry.get("md5"), entry.get("size"), entry.get("nfiles"), bool(cached))


def _known(entry: Mapping[str, Any]) -> bool:
    """Say whether *entry* has values of the types that DVC writes."""
    return (
        entry.get("hash", "md5") == "md5"
        and isinstance(entry.get("md5"), str | None)
        and all(isinstance(entry.get(key), int | None) for key in ("size", "nfiles"))
        and isinstance(entry.get("cache", True), bool)
    )


def _outs(body: Mapping[str, Any], section: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for each in _list(body, section):
        if isinstance(each, str):
            yield each, {}
        elif isinstance(each, Mapping):
            for path, flags in each.items():
                yield str(path), flags if isinstance(flags, Mapping) else {}


def _is_entry(value: object) -> bool:
    return isinstance(value, Mapping) and "path" in value


def _list(content: Mapping[str, Any], section: str) -> list[Any]:
    found = content.get(section)
    return found if isinstance(found, list) else []


def _templated(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_templated(each) for pair in value.items() for each in pair)
    if isinstance(value, list):
        return any(map(_templated, value))
    return isinstance(value, str) and "${" in value


def _place(folder: str, path: str) -> str:
    return path if "://" in path else posixpath.normpath(posixpath.join(folder, path))


def _inside(path: str) -> bool:
    """Say whether *path* stays in the tree: no `../`, no root, no URL."""
    return "://" not in path and "${" not in path and not path.startswith(("/", "../")) and path not in ("..", ".")


_PLOT: Final = frozenset({"x", "y", "x_label", "y_label", "title", "template"})
_ARTIFACT: Final = frozenset({"path", "type", "desc", "labels", "meta"})


def _well_formed(content: Mapping[str, Any]) -> bool:
    """Say whether the sections have the shape that DVC's schema wants; it refuses the whole tree otherwise."""
    lists = (content.get(section) or [] for section in ("params", "metrics", "plots"))
    if not all(isinstance(each, list) for each in lists) or _templated({**content, "stages": {}}):
        return False
    plots: list[Any] = content.get("plots") or []
    artifacts = content.get("artifacts") or {}
    return (
        all(isinstance(each, str) for section in ("params", "metrics") for each in content.get(section) or [])
        and all(isinstance(each, str) or (isinstance(each, Mapping) and _is_plot(each)) for each in plots)
        and isinstance(artifacts, Mapping)
        and all(
            isinstance(each, Mapping) and each.keys() <= _ARTIFACT and "path" in each for each in artifacts.values()
        )
    )


def _is_plot(plot: Mapping[str, Any]) -> bool:
    return all(flags is None or (isinstance(flags, Mapping) and flags.keys() <= _PLOT) for flags in plot.values())
