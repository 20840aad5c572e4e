"""The commits of a group on their way to their refs: what a ref must hold for one, and what one that refuses means."""

from collections.abc import Mapping

from attrs import frozen

from . import _git, _refs
from ._formats.gitobjects import Kind
from ._job import Job
from ._layout import EXPERIMENTS, TRASH, parse_experiment_ref
from ._lifecycle import Status
from ._pipelines import Pipelines
from ._records import read_record
from ._values import Record
from .errors import AexpError, GitError, NameTaken


@frozen(eq=False, repr=False)
class Built:
    """A commit that is ready to be written: its id, its objects, and the record it will be."""

    rev: str
    objects: Mapping[bytes, tuple[Kind, bytes]]
    summary: bytes
    """The id of metrics.json."""
    record: Record


def move_of(handle: _git.Handle, job: Job, built: Built, scratch: str) -> _refs.Move:
    """Say what the ref must hold; what `force` replaces is kept in the trash first."""
    intent = job.intent
    if intent.expected is not None and intent.expected not in intent.parents:
        found = _git.read_ref(handle, intent.ref)
        if found == intent.expected:
            _refs.keep(handle, intent.ref, found, scratch)
    return _refs.Move(intent.ref, built.rev, intent.expected)


def over_own(library: Pipelines, job: Job, built: Built, refusal: _refs.Refused, scratch: str) -> _refs.Refused | None:
    """Move the ref again when it holds a checkpoint of the same experiment; return why that cannot be.

    The disk refused after that one stood, so nobody was told of it, and nothing is built on it.
    """
    intent = job.intent
    if not refusal.found or refusal.found in intent.parents:
        return refusal
    found = read_record(library, intent.ref, refusal.found, intent.folder)
    if found.id != intent.experiment["id"] or found.status is not Status.RUNNING:
        return refusal
    move = _refs.Move(intent.ref, built.rev, refusal.found)
    _refs.write_values(library.handle, [move], scratch)
    return _refs.move_refs(library.handle, [move], scratch)[0]


def resolved(library: Pipelines, job: Job, refusal: _refs.Refused) -> Record | Exception:
    """Say what a ref that holds something else means: an earlier save of the same experiment, or a lost race."""
    if refusal.error is not None:
        return refusal.error
    ref, id = job.intent.ref, job.intent.experiment["id"]
    name = (parse_experiment_ref(ref) or ("", ref))[1]
    if refusal.found is None:
        return GitError(f"move {ref}", "it was removed meanwhile; save(force=True) makes it again")
    found = read_record(library, ref, refusal.found, job.intent.folder)
    if found.id == id and found.status is not Status.RUNNING:
        return found
    return NameTaken(name, refusal.found)


def verified(fresh: _git.Handle, job: Job, built: Built) -> Record | Exception:
    """Follow the ref, as any Git would: to the commit and the summary, whose pack was read back whole before.

    A ref that was set and now holds something else was renamed or removed by somebody who saw it there.
    """
    try:
        if _git.read_ref(fresh, job.intent.ref) != built.rev and not stands_elsewhere(fresh, built.rev):
            raise GitError(f"verify {job.intent.ref}", "the ref does not hold what was set")
        for id in (bytes.fromhex(built.rev), built.summary):
            if _git.read_object(fresh, id) != built.objects[id]:
                raise GitError(f"verify the object {id.hex()}", "it does not hold what was written")
    except AexpError as error:
        return error
    return built.record


def was_moved(handle: _git.Handle, built: Built) -> bool:
    """Say whether the commit stood on its ref, and somebody has renamed or removed the experiment since."""
    return _git.read_ref(handle, built.record.ref) is None and stands_elsewhere(handle, built.rev)


def stands_elsewhere(handle: _git.Handle, rev: str) -> bool:
    """Say whether an experiment or the trash holds *rev*: a rename makes the new ref before it takes the old one away."""
    return any(rev in _refs.list_refs(handle, prefix).values() for prefix in (EXPERIMENTS, TRASH))
