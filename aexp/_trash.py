"""Saved experiments given another name, removed into the trash, brought back from it, and made branches."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

from attrs import frozen

from . import _git, _joining, _outbox, _records, _refs, _sessions
from ._files import Breath
from ._layout import TRASH, experiment_ref, parse_experiment_ref, parse_trash_ref, trash_ref
from ._names import check_experiment_name
from ._store import Store
from ._values import Record
from .errors import (
    AmbiguousName,
    BranchExists,
    ExperimentNotFound,
    GitError,
    InvalidName,
    InvalidTransition,
    NameTaken,
    NotOwner,
)

T = TypeVar("T")
_PATIENCE: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Seconds to wait before the refs are looked at again, when another process changed or held one meanwhile."""


@frozen(eq=False, repr=False)
class Removed:
    """What lies in the trash: since when (milliseconds since 1970), which ref it was on, its rev, and its ref there."""

    milliseconds: int
    ref: str
    rev: str
    place: str


def branch(store: Store, name: str, wanted: str | None) -> str:
    """Make a branch at the experiment *name*, called *wanted* or `<name>-branch`; return what it is called.

    Raises `BranchExists`, `InvalidName`, `ExperimentNotFound`. HEAD does not move.
    """
    handle = store.handle
    refs = _records.experiment_refs(handle)
    ref, rev = _records.match(refs, name)
    own = _name_of(ref)
    title = f"{own}-branch" if wanted is None else wanted
    place = f"refs/heads/{_git.check_branch_name(handle, title)}"
    if any(_name_of(each) == title for each in refs):
        raise InvalidName("a branch", title, "an experiment has it, and DVC would find the branch instead")
    if _git.head(handle) == place and _git.read_ref(handle, place) is None:
        raise InvalidName("a branch", title, "HEAD stands on it, without a commit yet, and would move")
    _sound(handle, ref, rev)
    reason = f"aexp: Created from experiment {own!r}"

    def attempt() -> str:
        found = _git.read_ref(handle, place)
        if found is not None:
            raise BranchExists(title, found)
        _refs.change_refs(handle, {place: rev}, {}, reason=reason)
        return title

    return _settled(attempt)


def rename(store: Store, name: str, new_name: str, taken: Collection[str]) -> Record:
    """Give the experiment *name* another name on the same baseline; its commit stays as it is. Return its record.

    *taken* are the refs of the experiments that are open here. Raises `InvalidName`, `NameTaken`, `NotOwner`.
    """
    title = check_experiment_name(new_name)
    handle, folder = store.handle, store.settings.folder

    def attempt() -> Record:
        refs = _records.experiment_refs(handle)
        ref, rev = _records.match(refs, name)
        target = experiment_ref(_baseline_of(ref), title)
        if target != ref and refs.get(target) == rev:  # the power failed in the middle of this rename
            _refs.delete_refs(handle, {ref: rev})
        elif target != ref:
            _check_free(store, title, target, refs, taken)
            _check_ended(store, ref, rev, taken)
            _sound(handle, ref, rev)
            _refs.change_refs(handle, {target: rev}, {ref: rev})
        return _records.read_record(store.library, target, rev, folder, _outbox.pushes_of(handle.common))

    return _settled(attempt)


def remove(store: Store, names: Sequence[str], taken: Collection[str]) -> list[Record]:
    """Move the experiments *names* into the trash, all or none; return their records as they stood.

    One whose ref or commit is damaged leaves nothing to keep: its record says so in `damaged`.
    Raises `ExperimentNotFound`, `AmbiguousName`, `NotOwner`; nothing is changed then.
    """
    handle, breath = store.handle, Breath()

    def attempt() -> list[Record]:
        refs, found = _records.experiment_refs(handle), dict[str, str]()
        for name in names:
            breath()
            ref, rev = _records.match(refs, name)
            found[ref] = rev
        for ref, rev in found.items():
            breath()
            _check_ended(store, ref, rev, taken)
        records = [_records.read_record(store.library, ref, rev, store.settings.folder) for ref, rev in found.items()]
        for ref in [ref for ref, rev in found.items() if not rev]:
            _refs.drop_broken(handle, ref)
            below = _records.experiment_refs(handle).get(ref)  # what was packed of it stands again
            found |= {} if below is None else {ref: below}
        delete = {ref: rev for ref, rev in found.items() if rev}
        now = time.time_ns() // 1_000_000
        keep = {trash_ref(now, ref): rev for ref, rev in delete.items() if _git.has_object(handle, rev)}
        _refs.change_refs(handle, keep, delete)
        return records

    return _settled(attempt)


def restore(store: Store, name: str, new_name: str | None, taken: Collection[str]) -> Record:
    """Bring back what was removed last of the experiment *name*, to the ref it stood on; return its record.

    *new_name* is what it is called from now on, on the same baseline. Raises `ExperimentNotFound`, `AmbiguousName`
    when several of that name were removed from different baselines, `NameTaken` when another stands there now.
    """
    title = None if new_name is None else check_experiment_name(new_name)
    handle, folder = store.handle, store.settings.folder

    def attempt() -> Record:
        refs = _records.experiment_refs(handle)
        found = _last(name, removed(handle, refs))
        target = found.ref if title is None else experiment_ref(_baseline_of(found.ref), title)
        _check_free(store, _name_of(target), target, refs, taken)
        _sound(handle, found.place, found.rev)
        _refs.change_refs(handle, {target: found.rev}, {found.place: found.rev})
        return _records.read_record(store.library, target, found.rev, folder, _outbox.pushes_of(handle.common))

    return _settled(attempt)


def removed(handle: _git.Handle, refs: Mapping[str, str]) -> list[Removed]:
    """Return what lies in the trash, the oldest first; *refs* are those that stand: what was not taken away is not there."""
    entries = [
        Removed(parsed[0], parsed[1], rev, place)
        for place, rev in _refs.list_refs(handle, TRASH).items()
        if (parsed := parse_trash_ref(place)) and refs.get(parsed[1]) != rev
    ]
    return sorted(entries, key=lambda each: (each.milliseconds, each.place))


def _last(name: str, entries: Sequence[Removed]) -> Removed:
    """Return the entry that *name* means: a name, a full ref (of the trash, too), a rev or the start of it."""
    found = [each for each in entries if name in (each.place, each.ref, _name_of(each.ref))]
    if not found and len(name) >= 4:
        found = [each for each in entries if each.rev.startswith(name)]
    if not found:
        raise ExperimentNotFound(name, "`git for-each-ref refs/aexp/trash` lists what can be restored")
    places = sorted({each.ref for each in found})
    if len(places) > 1:
        raise AmbiguousName(name, places)
    return found[-1]


def _settled(attempt: Callable[[], T]) -> T:
    """Return what *attempt* does; when Git refuses, look again: another process may have been first, or passing by."""
    for pause in _PATIENCE:
        try:
            return attempt()
        except GitError:
            time.sleep(pause)
    return attempt()


def _check_free(store: Store, name: str, ref: str, refs: Mapping[str, str], taken: Collection[str]) -> None:
    """Raise unless an experiment may come to stand on *ref*."""
    remedy = "choose another name, or remove that one first"
    if ref in refs:
        raise NameTaken(name, refs[ref], remedy)
    if ref in taken:
        raise NameTaken(name, None, remedy)
    _git.check_no_branch(store.handle, name)


def _check_ended(store: Store, ref: str, rev: str, taken: Collection[str]) -> None:
    """Raise when *ref* holds a checkpoint of an experiment that is open in some session: it goes on from there."""
    name, common = _name_of(ref), store.handle.common
    if ref in taken:
        raise NotOwner(name, "this program")
    session = _records.unfinished(store.library, rev, store.settings.folder)
    if session is None:
        return
    if _sessions.is_alive(common, session):
        raise NotOwner(name, _sessions.holder(common, session))
    found = _sessions.opened_in(common, ref)  # another program may have resumed or joined it since
    if found is not None:
        session, account = found
        session = _joining.held(common).get(account.id, session)
        if _sessions.is_alive(common, session):
            raise NotOwner(name, _sessions.holder(common, session))
        remedy = f"`await repository.recover()` saves {name!r} as it stands, resume() goes on with it"
        raise InvalidTransition("rename or remove", "interrupted", remedy)


def _sound(handle: _git.Handle, ref: str, rev: str) -> None:
    if not _git.has_object(handle, rev):
        raise GitError(f"take the commit of {ref}", "it is missing or damaged; remove() takes the experiment away")


def _name_of(ref: str) -> str:
    return ref.rpartition("/")[2]


def _baseline_of(ref: str) -> str:
    return (parse_experiment_ref(ref) or ("", ""))[0]
