"""Reading saved experiments: from a ref to a record, a series, a file."""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from attrs import evolve

from . import _sessions
from ._files import Breath
from ._formats.experiment import commit_id, damaged_record, foreign_record, parse_json, record
from ._formats.gitobjects import FOLDER, Commit, Entry, Kind, parse_commit, parse_tree
from ._formats.series import parse_tsv
from ._git import Handle, read_object, resolve_commit
from ._layout import ACCOUNT, EXPERIMENTS, INTERNAL, METRICS, SERIES, parse_experiment_ref
from ._lifecycle import Status
from ._names import metric_file
from ._pipelines import Pipelines
from ._refs import list_refs
from ._values import Record, Series
from .errors import AexpError, AmbiguousName, ExperimentNotFound, GitError

T = TypeVar("T")


def experiment_refs(handle: Handle, baseline: str | None = None) -> dict[str, str]:
    """Return the ref of every experiment with the rev it holds ("" where it is damaged), of one *baseline* or of all."""
    prefix = EXPERIMENTS if baseline is None else f"{EXPERIMENTS}{baseline[:2]}/{baseline[2:]}/"
    refs = list_refs(handle, prefix)
    return {ref: rev for ref, rev in refs.items() if parse_experiment_ref(ref) and not ref.startswith(INTERNAL)}


def find(handle: Handle, name: str) -> tuple[str, str]:
    """Return (ref, rev) of the experiment that *name* means: its name, its full ref, its rev or the start of it.

    Raises `ExperimentNotFound`, or `AmbiguousName` with the full refs when it stands on several baselines.
    """
    return match(experiment_refs(handle), name)


def match(refs: Mapping[str, str], name: str) -> tuple[str, str]:
    """Return (ref, rev) of the experiment among *refs* that *name* means, as `find` does."""
    if name in refs:
        return name, refs[name]
    matches = [ref for ref in refs if ref.endswith(f"/{name}") and ref.rpartition("/")[2] == name]
    if not matches and len(name) >= 4:
        matches = [ref for ref, rev in refs.items() if rev.startswith(name)]
    if not matches:
        raise ExperimentNotFound(name)
    if len(matches) > 1:
        raise AmbiguousName(name, sorted(matches))
    return matches[0], refs[matches[0]]


def choose(library: Pipelines, folder: str, choice: Callable[[Iterable[Record]], T], baseline: str | None = None) -> T:
    """Return what *choice* makes of the records of every experiment, of one *baseline* (any name of a commit) or of all."""
    rev = None if baseline is None else resolve_commit(library.handle, baseline)[0]
    return choice(_one_by_one(read_records(library, folder, rev)))


def _one_by_one(records: Iterable[Record]) -> Iterator[Record]:
    breath = Breath()
    for each in records:
        breath()
        yield each


def get(library: Pipelines, name: str, folder: str) -> Record:
    """Return the record of the experiment that *name* means."""
    return read_record(library, *find(library.handle, name), folder)


def history(library: Pipelines, name: str, metric: str | None, folder: str) -> dict[str, Series]:
    """Return the series of *metric*, or of every metric, of the experiment that *name* means."""
    return read_history(library, find(library.handle, name)[1], metric, folder)


def file(library: Pipelines, name: str, path: str) -> bytes:
    """Return the content of the file *path* in the experiment that *name* means."""
    return read_file(library.handle, find(library.handle, name)[1], path)


def read_records(library: Pipelines, folder: str, baseline: str | None = None) -> list[Record]:
    """Return the record of every experiment, the newest last; one that cannot be read is there, too, as damaged."""
    breath, found = Breath(), []
    for ref, rev in experiment_refs(library.handle, baseline).items():
        breath()
        found.append(read_record(library, ref, rev, folder))
    return sorted(found, key=lambda each: (each.created, each.name))


def read_record(library: Pipelines, ref: str, rev: str, folder: str) -> Record:
    """Return the record of the experiment whose *ref* holds *rev*."""
    if not rev:
        return damaged_record(rev, ref, "its ref is empty or no ref")
    try:
        commit = _commit(library.handle, rev)
        others = library.others(commit.tree, folder)
        own = _own(library.handle, commit, folder)
        if own is None:
            return foreign_record(rev, ref, commit, library.others(commit.tree, ""))
        return _as_it_stands(library.handle, record(rev, ref, *own, folder, others), own[0])
    except GitError as error:
        return damaged_record(rev, ref, f"{error.action}: {error.detail}")
    except (AexpError, FileNotFoundError, KeyError, TypeError, ValueError) as error:
        return damaged_record(rev, ref, f"its files cannot be read: {error}")


def _commit(handle: Handle, rev: str) -> Commit:
    kind, content = read_object(handle, rev)
    if kind is not Kind.COMMIT:
        raise GitError(f"read the commit {rev}", "it is no commit")
    return parse_commit(content)


def _own(handle: Handle, commit: Commit, folder: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Return experiment.json and metrics.json if aexp made the commit; what an older commit left there does not count."""
    id = commit_id(commit.message)
    if id is None:
        return None
    files = _tree(handle, _at(handle, commit.tree, folder).id)
    experiment = parse_json(_blob(handle, files, ACCOUNT))
    return (experiment, parse_json(_blob(handle, files, METRICS))) if experiment["id"] == id else None


def unfinished(handle: Handle, rev: str, folder: str) -> str | None:
    """Return the session that made the checkpoint *rev*; None when *rev* is no checkpoint of ours, or cannot be read."""
    try:
        own = _own(handle, _commit(handle, rev), folder)
    except (AexpError, FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return str(own[0].get("session", "")) if own is not None and own[0].get("status") == Status.RUNNING else None


def _as_it_stands(handle: Handle, found: Record, experiment: Mapping[str, Any]) -> Record:
    """Return a checkpoint's record as interrupted when the session that made it here is over."""
    if found.status is Status.RUNNING and not _sessions.is_alive(handle.common, experiment.get("session", "")):
        return evolve(found, status=Status.INTERRUPTED)
    return found


def _tree(handle: Handle, id: bytes | str) -> dict[bytes, Entry]:
    kind, content = read_object(handle, id)
    if kind is not Kind.TREE:
        raise GitError("read a tree", "it is no tree")
    return parse_tree(content)


def _blob(handle: Handle, files: Mapping[bytes, Entry], name: str) -> bytes:
    entry = files.get(name.encode())
    if entry is None:
        raise GitError(f"read {name}", "the commit does not hold it")
    return read_object(handle, entry.id)[1]


def _at(handle: Handle, tree: str, path: str) -> Entry:
    entry = Entry(b"", FOLDER, bytes.fromhex(tree))
    for part in path.split("/"):
        found = _tree(handle, entry.id).get(part.encode("utf-8", "surrogateescape")) if entry.mode == FOLDER else None
        if found is None:
            raise FileNotFoundError(path)
        entry = found
    return entry


def read_file(handle: Handle, rev: str, path: str) -> bytes:
    """Return the content of the file *path* in the commit *rev*; raise `FileNotFoundError` when it is not there."""
    entry = _at(handle, _commit(handle, rev).tree, path)
    if entry.mode == FOLDER:
        raise IsADirectoryError(path)
    return read_object(handle, entry.id)[1]


def read_history(library: Pipelines, rev: str, metric: str | None, folder: str) -> dict[str, Series]:
    """Return the series of *metric*, or of every metric, of the commit *rev*; a metric that is not there gives none.

    They lie where aexp and DVCLive lay them: beside each metric file, below `plots/metrics`. Where two are called the
    same, aexp's own counts, or the one whose value the record has.
    """
    handle, tree = library.handle, _commit(library.handle, rev).tree
    found = dict(_series_in(handle, tree, folder, metric, own=True))
    if metric is not None and found:
        return found
    places = dict.fromkeys(posixpath.dirname(path) for path in library.others(tree, folder).metrics)
    others: dict[str, Series] = {}
    for place in places or ("dvclive",):
        others.update(_series_in(handle, tree, place, metric, own=False))
    return {**found, **{name: series for name, series in others.items() if name not in found}}


def _series_in(handle: Handle, tree: str, place: str, metric: str | None, *, own: bool) -> Iterator[tuple[str, Series]]:
    try:
        entry = _at(handle, tree, posixpath.join(place, SERIES))
    except FileNotFoundError:
        return
    if entry.mode != FOLDER:
        return
    wanted = None if metric is None else metric_file(metric) if own else f"{metric}.tsv"
    breath = Breath()
    for path, id in _files_below(handle, entry, ""):
        if path.endswith(".tsv") and wanted in (None, path):
            breath()
            try:
                name, series = parse_tsv(read_object(handle, id)[1])
            except ValueError:
                if own:
                    raise
                continue  # a table of somebody else's
            yield (name if own else path[:-4]), series


def _files_below(handle: Handle, entry: Entry, prefix: str) -> Iterator[tuple[str, bytes]]:
    for name, child in _tree(handle, entry.id).items():
        path = f"{prefix}{name.decode('utf-8', 'surrogateescape')}"
        if child.mode == FOLDER:
            yield from _files_below(handle, child, f"{path}/")
        else:
            yield path, child.id
