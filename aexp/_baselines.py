"""The commits that experiments stand on, told from refs alone; and those that were made on the way, their checkpoints."""

from collections import defaultdict
from collections.abc import Mapping

from ._files import Breath
from ._formats.experiment import moment
from ._formats.gitobjects import Kind, parse_commit
from ._git import Handle, read_object, resolve_commit
from ._layout import experiment_ref, parse_experiment_ref
from ._lineage import Baseline, Checkpoint, Reference
from ._pipelines import Pipelines
from ._records import experiment_refs, get, read_record
from ._refs import list_refs
from .errors import GitError, NoBaseline


def read_baselines(library: Pipelines, baseline: str | None) -> list[Baseline]:
    """Return every commit that experiments stand on, or only *baseline*: HEAD first, then the newest.

    Raises `NoBaseline` when *baseline* names no commit.
    """
    handle = library.handle
    only = None if baseline is None else resolve_commit(handle, baseline)[0]
    standing: dict[str, list[Reference]] = defaultdict(list)
    if only is not None:
        standing[only] = []
    for ref, rev in experiment_refs(handle, only).items():
        parsed = parse_experiment_ref(ref)
        assert parsed is not None  # `experiment_refs` returns no other
        standing[parsed[0]].append(Reference(name=parsed[1], ref=ref, rev=rev))
    head, names = _head(handle), _names(handle, standing)
    found = [_read(handle, rev, names, references) for rev, references in standing.items()]
    return sorted(found, key=lambda each: (each.rev != head, -(each.created.timestamp() if each.created else 0)))


def _read(handle: Handle, rev: str, names: Mapping[str, list[str]], references: list[Reference]) -> Baseline:
    try:
        kind, content = read_object(handle, rev)
        created = moment(parse_commit(content).committer.time) if kind is Kind.COMMIT else None
    except (GitError, ValueError, OverflowError):
        created = None
    references.sort(key=lambda each: each.name)
    return Baseline(rev=rev, names=tuple(names.get(rev, ())), created=created, experiments=tuple(references))


def _head(handle: Handle) -> str | None:
    try:
        return resolve_commit(handle, "HEAD")[0]
    except NoBaseline:
        return None


def _names(handle: Handle, revs: Mapping[str, object]) -> dict[str, list[str]]:
    """Return the branches, then the tags, that point at each of *revs*."""
    breath, found = Breath(), defaultdict[str, list[str]](list)
    for prefix in ("refs/heads/", "refs/tags/"):
        for ref, rev in sorted(list_refs(handle, prefix).items()):
            breath()
            commit = rev if rev in revs or prefix == "refs/heads/" else _peeled(handle, ref)
            found[commit].append(ref.removeprefix(prefix))
    return found


def _peeled(handle: Handle, ref: str) -> str:
    try:
        return resolve_commit(handle, ref)[0]
    except NoBaseline:
        return ""


def read_checkpoints(library: Pipelines, name: str, folder: str) -> list[Checkpoint]:
    """Return the checkpoints of the experiment that *name* means, the oldest first."""
    return [_checkpoint(library, rev, folder) for rev in get(library, name, folder).checkpoints]


def _checkpoint(library: Pipelines, rev: str, folder: str) -> Checkpoint:
    commit = parse_commit(read_object(library.handle, rev)[1])
    as_it_was = read_record(library, experiment_ref("0" * 40, "checkpoint"), rev, folder)
    title = commit.message.partition("\n")[0]
    return Checkpoint(rev=rev, created=moment(commit.committer.time), message=title, metrics=as_it_was.metrics)
