"""A look at a repository and at all that aexp keeps there; nothing is changed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

from attrs import evolve

from . import _git, _joining, _machine, _packs, _records, _recovery, _refs, _sessions, _tending
from ._files import Breath
from ._findings import KEPT_JOURNALS, KEPT_TRASH, Disk, Lock, Seen, Shape, trashed_before
from ._layout import TRASH
from ._store import Store
from ._values import Interrupted
from .errors import GitError, JournalCorrupt

GIT_LOCKS = ("index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock")


def look(store: Store, now: float) -> Seen:
    """Return what there is to see at *now* (seconds since 1970)."""
    handle, common = store.handle, store.handle.common
    trash = _refs.list_refs(handle, TRASH)
    seen = Seen(
        git=".".join(map(str, _git.check_program())),
        shape=_shape(handle),
        disk=_disk(common),
        dvc=handle.worktree is not None and os.path.isdir(os.path.join(handle.worktree, ".dvc")),
        locks=tuple(_locks(handle, now)),
        trash=len(trash),
        old_trash=len(trashed_before(trash, now - KEPT_TRASH)),
        packs=_tending.packs(common),
        packed_refs=_tending.packed_size(common),
        loose_refs=sum(1 for _ in _tending.loose_refs(common)),
        orphans=sum(not os.path.isdir(_sessions.folder(common, owner)) for owner in _packs.owners(common)),
    )
    return _with_records(store, _with_journals(common, now, _with_sessions(store, seen)))


def _shape(handle: _git.Handle) -> Shape:
    refusal = None
    try:
        _git.run(handle, "rev-parse", "--git-dir")
    except GitError as error:
        refusal = error.detail
    return Shape(
        path=handle.worktree or handle.common,
        bare=handle.worktree is None,
        linked=_git.folder(handle) != handle.common,
        shallow=os.path.exists(os.path.join(handle.common, "shallow")),
        sparse=_git.is_sparse(handle),
        partial=_git.is_partial(handle),
        refusal=refusal,
    )


def _disk(common: str) -> Disk:
    places = [common, *(os.path.join(common, name) for name in ("objects", "objects/pack", "refs", "aexp"))]
    closed = tuple(place for place in places if os.path.exists(place) and not os.access(place, os.W_OK | os.X_OK))
    return Disk(free=shutil.disk_usage(common).free, kind=_machine.file_system(common), closed=closed)


def _locks(handle: _git.Handle, now: float) -> Iterator[Lock]:
    """Yield the locks of Git, with the session whose value a lock is one file with (decision 0005)."""
    common = handle.common
    own = {_git.folder(handle), common}
    paths = [os.path.join(place, name) for place in sorted(own) for name in GIT_LOCKS]
    holders = {inode: id for id in _sessions.names(common) for inode in _refs.values_of(_sessions.folder(common, id))}
    for path in (*paths, *_refs.locks(os.path.join(common, "refs"))):
        with suppress(FileNotFoundError):
            there = os.lstat(path)
            found = Lock(path=os.path.relpath(path, common), age=now - there.st_mtime)
            id = holders.get(there.st_ino)
            if id is not None:
                words = _sessions.holder(common, id)
                found = evolve(found, holder=words, dead=not _sessions.is_alive(common, id))
            yield found


def _with_sessions(store: Store, seen: Seen) -> Seen:
    common = store.handle.common
    alive, ended, corrupt, left = list[str](), list[str](), list[str](), list[Interrupted]()
    for id in _sessions.names(common):
        session = _sessions.claim(common, id)
        if session is None:
            alive.append(_sessions.holder(common, id))
            continue
        try:
            ledger = _sessions.read_ledger(session.path, id)
            if _joining.belongs(common, id):  # it waits for the experiment that it is a part of
                continue
            left += _recovery.interrupted_in(common, id, ledger)
            if ledger.ended():
                ended.append(id)
        except JournalCorrupt as error:
            corrupt.append(f"{error.path} is damaged at byte {error.offset}")
        finally:
            session.close()
    return evolve(seen, alive=tuple(alive), ended=tuple(ended), corrupt=tuple(corrupt), interrupted=tuple(left))


def _with_journals(common: str, now: float, seen: Seen) -> Seen:
    size, old, count = 0, 0, 0
    for id in _sessions.names(common, _sessions.DONE):
        path = _sessions.folder(common, id, _sessions.DONE)
        with suppress(FileNotFoundError):
            old += now - os.stat(path).st_mtime > KEPT_JOURNALS
            size += _tending.size_of(path)
            count += 1
    return evolve(seen, journals=count, journal_bytes=size, old_journals=old)


def _with_records(store: Store, seen: Seen) -> Seen:
    damaged, breath = {}, Breath()
    refs = _records.experiment_refs(store.handle)
    for ref, rev in refs.items():
        breath()
        reason = _records.read_record(store.library, ref, rev, store.settings.folder).damaged
        if reason is not None:
            damaged[ref] = reason
    return evolve(seen, records=len(refs), damaged=damaged)
