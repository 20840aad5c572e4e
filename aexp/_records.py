"""Reading saved experiments: from a ref to a record, a series, a file."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import evolve

from . import _outbox, _sessions
from ._files import Breath
from ._formats.experiment import commit_id, damaged_record, foreign_record, parse_account, parse_json, record
from ._formats.gitobjects import FOLDER, Entry, Kind, parse_brief, parse_commit, parse_tree
from ._formats.row import Found, Packer, Row, Unpacker
from ._formats.series import parse_tsv
from ._git import Handle, read_object, resolve_commit
from ._index import Index
from ._layout import ACCOUNT, EXPERIMENTS, INTERNAL, METRICS, SERIES, parse_experiment_ref
from ._lifecycle import Status
from ._names import metric_file
from ._packing import with_push
from ._pipelines import Pipelines
from ._query import Choice
from ._refs import list_refs, refs_called
from ._values import Record, Series
from ._ways import is_of
from .errors import AexpError, AmbiguousName, ExperimentNotFound, GitError

if TYPE_CHECKING:
    from ._formats.pushes import Pushes

T_co = TypeVar("T_co", covariant=True)
MOST: Final = 50_000_000
"""How many bytes aexp's own files may have."""
BATCH: Final = 1_000
"""How many records are read before they are put into the index: what a killed process may lose of its work."""

_DAMAGE: Final = (
    AexpError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What reading the files of others may raise."""
PLAIN: Final = re.compile(r"(?!\.)[^/\0\n\ud800-\udfff]{1,63}")
"""A name that every file system takes for a file, in however many bytes; others are looked for among all."""


def experiment_refs(handle: Handle, baseline: str | None = None) -> dict[str, str]:
    """Return the ref of every experiment with the rev it holds ("" where it is damaged), of one *baseline* or of all."""
    prefix = EXPERIMENTS if baseline is None else f"{EXPERIMENTS}{baseline[:2]}/{baseline[2:]}/"
    return _of_experiments(list_refs(handle, prefix))


def _of_experiments(refs: Mapping[str, str]) -> dict[str, str]:
    """Return those of *refs* that are of experiments, and not what DVC keeps beside them."""
    breath, found, tops = Breath(), dict[str, str](), dict[str, bool]()
    for ref, rev in refs.items():
        breath()
        top = ref.rpartition("/")[0]
        fits = tops.get(top)
        if fits is None:
            fits = tops[top] = bool(parse_experiment_ref(ref)) and not ref.startswith(INTERNAL)
        if fits:
            found[ref] = rev
    return found


def find(handle: Handle, name: str) -> tuple[str, str]:
    """Return (ref, rev) of the experiment that *name* means: its name, its full ref, its rev or the start of it.

    Raises `ExperimentNotFound`, or `AmbiguousName` with the full refs when it stands on several baselines.
    """
    if PLAIN.fullmatch(name) and (refs := _of_experiments(refs_called(handle, EXPERIMENTS, name))):
        return match(refs, name)
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


def choose(library: Pipelines, folder: str, choice: Choice[T_co], baseline: str | None = None) -> T_co:
    """Return what *choice* makes of the records of every experiment, of one *baseline* (any name of a commit) or of all."""
    rev = None if baseline is None else resolve_commit(library.handle, baseline)[0]
    return choice(read_records(library, folder, rev), Breath())


def get(library: Pipelines, name: str, folder: str) -> Record:
    """Return the record of the experiment that *name* means."""
    return read_record(library, *find(library.handle, name), folder, _outbox.pushes_of(library.handle.common))


def history(library: Pipelines, name: str, metric: str | None, folder: str) -> dict[str, Series]:
    """Return the series of *metric*, or of every metric, of the experiment that *name* means."""
    return read_history(library, find(library.handle, name)[1], metric, folder)


def file(library: Pipelines, name: str, path: str) -> bytes:
    """Return the content of the file *path* in the experiment that *name* means."""
    return read_file(library.handle, find(library.handle, name)[1], path)


def read_records(library: Pipelines, folder: str, baseline: str | None = None) -> list[Record]:
    """Return the record of every experiment, the newest last; one that cannot be read is there, too, as damaged."""
    refs = experiment_refs(library.handle, baseline)
    with closing(Index(library.handle.common, folder)) as index:
        found = _listed(library, refs, folder, index, whole=baseline is None)
    return _oldest_first(found)


def _oldest_first(records: Sequence[Record]) -> list[Record]:
    breath, keys = Breath(), list[tuple[float, str, int]]()
    for place, each in enumerate(records):
        breath()
        keys.append((each.created.timestamp(), each.name, place))
    keys.sort()  # numbers are compared in no time; and rows come in the order they were written, nearly this one
    return [records[place] for _, _, place in keys]


def _listed(library: Pipelines, refs: Mapping[str, str], folder: str, index: Index, *, whole: bool) -> list[Record]:
    """Return the records that stand on *refs*: from the index what it holds, the others from Git, and so into it."""
    breath, records, unused, pushes = Breath(), list[Record](), 0, _outbox.pushes_of(library.handle.common)
    waiting = {rev: ref for ref, rev in refs.items() if rev}
    others = index.others()
    unpack, are_there = Unpacker(others), library.presence
    are_there.look()
    sound = {id for id, each in others.items() if are_there(each.needs)} | {b""}
    for some in index.rows(None if whole else list(waiting)):
        for row in some:
            breath()
            if row.rev not in waiting:
                unused += 1
            elif row.others in sound and are_there(row.needs):
                records.append(_as_it_stands(library.handle, *unpack(waiting.pop(row.rev), row), pushes))
    known, pack = {record.rev: record.ref for record in records}, Packer()
    news = [(ref, rev) for ref, rev in refs.items() if known.get(rev) != ref]  # a commit may stand on two refs
    for place in range(0, len(news), BATCH):
        rows: dict[str, Row] = {}
        records += _read_anew(library, news[place : place + BATCH], folder, pack, rows, pushes)
        index.add([row for rev, row in rows.items() if rev not in known], pack.others)
    if whole and unused > len(refs) + BATCH:
        index.prune(set(refs.values()))
    return records


def _read_anew(
    library: Pipelines,
    news: Sequence[tuple[str, str]],
    folder: str,
    pack: Packer,
    rows: dict[str, Row],
    pushes: "Pushes | None",
) -> Iterator[Record]:
    """Yield the records of *news*, (ref, rev) each, and put the rows of those that are sound into *rows*, by rev."""
    breath = Breath()
    for ref, rev in news:
        breath()
        found = _found(library, ref, rev, folder)
        row = None if found.record.damaged or not found.whole else pack(found)
        if row is not None:
            rows[rev] = row
        yield _as_it_stands(library.handle, found.record, found.session, pushes)


def read_record(library: Pipelines, ref: str, rev: str, folder: str, pushes: "Pushes | None" = None) -> Record:
    """Return the record of the experiment whose *ref* holds *rev*, with how its push stands by *pushes*."""
    found = _found(library, ref, rev, folder)
    return _as_it_stands(library.handle, found.record, found.session, pushes)


def _found(library: Pipelines, ref: str, rev: str, folder: str) -> Found:
    """Return what the commit *rev* says of the experiment on *ref*; whatever is wrong with it, it is a record."""
    if not rev:
        return Found(damaged_record(rev, ref, "its ref is empty or no ref"))
    try:
        content = _commit(library.handle, rev)
        tree, message = parse_brief(content)
        own = _own(library, tree, message, folder, ref)
        if own is None:
            others = library.others(tree, "")
            needs = bytes.fromhex(rev + tree) + others.needs
            made = foreign_record(rev, ref, parse_commit(content), others, library.artifacts(tree))
            return Found(made, needs=needs, whole=others.whole)
        experiment, metrics, needs = own
        others = library.others(tree, folder)
        made = record(rev, ref, experiment, metrics, folder, others)
        whole = others.whole and commit_id(message) is not None  # a commit of DVC is ours on one ref only
        return Found(made, experiment.get("session", ""), bytes.fromhex(rev) + needs, others, whole)
    except GitError as error:
        return Found(damaged_record(rev, ref, f"{error.action}: {error.detail}"))
    except _DAMAGE as error:
        return Found(damaged_record(rev, ref, f"its files cannot be read: {str(error) or type(error).__name__}"))


def _commit(handle: Handle, rev: str) -> bytes:
    kind, content = read_object(handle, rev)
    if kind is not Kind.COMMIT:
        raise GitError(f"read the commit {rev}", "it is no commit")
    return content


def _own(
    library: Pipelines, tree: str, message: str, folder: str, ref: str = ""
) -> tuple[Mapping[str, Any], Mapping[str, Any], bytes] | None:
    """Return experiment.json and metrics.json, and the ids of what was read, if they were written for this commit.

    aexp says so in the commit's message; DVC, whose run on *ref* has committed what aexp wrote within it, does not.
    What an older commit left there does not count.
    """
    id = commit_id(message)
    handle = library.handle
    try:
        top = _below(handle, library.root(tree), folder).id
        files = _tree(handle, top)
        account, measured = _file(files, ACCOUNT), _file(files, METRICS)
        experiment = parse_account(_content(handle, account, ACCOUNT))
    except _DAMAGE:
        if id is None:
            return None
        raise
    if experiment["id"] != id and (id is not None or not is_of(experiment, *(parse_experiment_ref(ref) or ("", "")))):
        return None
    return (
        experiment,
        parse_json(_content(handle, measured, METRICS)),
        bytes.fromhex(tree) + top + account + measured,
    )


def unfinished(library: Pipelines, rev: str, folder: str) -> str | None:
    """Return the session that made the checkpoint *rev*; None when *rev* is no checkpoint of ours, or cannot be read."""
    try:
        tree, message = parse_brief(_commit(library.handle, rev))
        own = _own(library, tree, message, folder)
    except (AexpError, FileNotFoundError, KeyError, TypeError, ValueError):
        return None
    return str(own[0].get("session", "")) if own is not None and own[0].get("status") == Status.RUNNING else None


def _as_it_stands(handle: Handle, found: Record, session: str, pushes: "Pushes | None") -> Record:
    """Return a record with how its push stands; a checkpoint's as interrupted when the session that made it here is over."""
    if pushes is not None:
        with_push(found, pushes.of(found.rev))
    if found.status is Status.RUNNING and not _sessions.is_alive(handle.common, session):
        return evolve(found, status=Status.INTERRUPTED)
    return found


def _tree(handle: Handle, id: bytes | str) -> dict[bytes, Entry]:
    kind, content = read_object(handle, id)
    if kind is not Kind.TREE:
        raise GitError("read a tree", "it is no tree")
    return parse_tree(content)


def _file(files: Mapping[bytes, Entry], name: str) -> bytes:
    entry = files.get(name.encode())
    if entry is None:
        raise GitError(f"read {name}", "the commit does not hold it")
    return entry.id


def _content(handle: Handle, id: bytes, name: str) -> bytes:
    try:
        return read_object(handle, id, MOST)[1]
    except GitError as error:
        raise GitError(f"{error.action} ({name})", error.detail) from None


def _at(handle: Handle, tree: str, path: str) -> Entry:
    return _below(handle, _tree(handle, bytes.fromhex(tree)), path)


def _below(handle: Handle, entries: Mapping[bytes, Entry], path: str) -> Entry:
    first, *others = path.split("/")
    entry = entries.get(first.encode("utf-8", "surrogateescape"))
    for part in others:
        if entry is not None:
            below = _tree(handle, entry.id) if entry.mode == FOLDER else {}
            entry = below.get(part.encode("utf-8", "surrogateescape"))
    if entry is None:
        raise FileNotFoundError(path)
    return entry


def read_file(handle: Handle, rev: str, path: str) -> bytes:
    """Return the content of the file *path* in the commit *rev*; raise `FileNotFoundError` when it is not there."""
    entry = _at(handle, parse_brief(_commit(handle, rev))[0], path)
    if entry.mode == FOLDER:
        raise IsADirectoryError(path)
    return read_object(handle, entry.id)[1]


def read_history(library: Pipelines, rev: str, metric: str | None, folder: str) -> dict[str, Series]:
    """Return the series of *metric*, or of every metric, of the commit *rev*; a metric that is not there gives none.

    They lie where aexp and DVCLive lay them: beside each metric file, below `plots/metrics`. Where two are called the
    same, aexp's own counts, or the one whose value the record has.
    """
    handle = library.handle
    tree, _ = parse_brief(_commit(handle, rev))
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
                name, series = parse_tsv(read_object(handle, id)[1], breath)
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
