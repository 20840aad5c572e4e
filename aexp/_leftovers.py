"""What gathers beside the experiments: swept after dead sessions, and removed when its time is over."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from attrs import define, field

from . import _checkouts, _git, _joining, _packs, _recovery, _refs, _sessions, _tending, _undo
from ._findings import KEPT_TRASH, Maintenance, trashed_before
from ._layout import ANCHORS, EXPERIMENTS, PRIVATE, TRASH, anchor_prefix
from ._store import Store
from ._values import Interrupted
from .errors import AexpError, GitError, ReadOnlyRepository

TRIES: Final = 5
"""How often refs are deleted that others delete, too."""
DEAD_LOCK: Final = 3600.0
"""Seconds after which nobody holds a lock of refs any more."""


@define(eq=False, repr=False)
class _Done:
    """What was done so far."""

    retired: list[str] = field(factory=list)
    swept: list[str] = field(factory=list)
    anchors: list[str] = field(factory=list)
    journals: list[str] = field(factory=list)
    trash: list[str] = field(factory=list)
    interrupted: list[Interrupted] = field(factory=list)
    failures: list[str] = field(factory=list)
    freed: int = 0

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Note what goes wrong in the block, so that the other steps are done."""
        try:
            yield
        except ReadOnlyRepository:
            raise
        except (AexpError, OSError) as error:
            self.failures.append(f"{what}: {error}")


def maintain(store: Store, now: float) -> Maintenance:
    """Sweep, remove what is older than it has to be at *now* (seconds since 1970), repack; return what was done.

    Experiments are neither recovered nor discarded. Raises `ReadOnlyRepository`.
    """
    common, done = store.handle.common, _Done()
    if not os.access(common, os.W_OK):
        raise ReadOnlyRepository(common)
    for id in _sessions.names(common):
        if not _joining.belongs(common, id):
            with done.step(f"look at the session {id}"):
                _sweep_session(store, id, done)
    with done.step("sweep"):
        _sweep_orphans(store, done)
    with done.step("remove old journals"):
        expired, freed = _tending.expire_journals(common, now)
        done.journals += expired
        done.freed += freed
    with done.step("empty the trash"):
        done.trash += _delete(store, lambda: trashed_before(_refs.list_refs(store.handle, TRASH), now - KEPT_TRASH))
    with done.step("forget old applies"):
        done.swept += _undo.expire(store.handle)
    packed = _tending.Packed()
    with done.step("pack"):
        packed = _tending.pack(store.handle)
    return Maintenance(
        retired=tuple(done.retired),
        swept=tuple(os.path.relpath(path, common) for path in done.swept),
        anchors=tuple(done.anchors),
        journals=tuple(done.journals),
        trash=tuple(done.trash),
        interrupted=tuple(done.interrupted),
        failures=tuple(done.failures),
        packs_before=packed.before,
        packs_after=packed.after,
        packed_refs=packed.refs,
        freed=done.freed + packed.freed,
    )


# ---- dead sessions ----


def _sweep_session(store: Store, id: str, done: _Done) -> None:
    """Put a dead session away in which nothing is open; of one where something is, only free the refs it locked."""
    common = store.handle.common
    session = _sessions.claim(common, id)
    if session is None:
        return
    try:
        done.swept += _refs.sweep_locks(store.handle, session.path)
        ledger = _sessions.read_ledger(session.path, id)
        if not ledger.ended():
            done.interrupted += _recovery.interrupted_in(common, id, ledger)
            return
        _recovery.finish_discards(store, session, ledger)
        done.anchors += _refs.list_refs(store.handle, anchor_prefix(id))
        done.swept += [*_packs.sweep_packs(common, id), *_recovery.leftovers(session)]
        if ledger.accounts:
            _recovery.put_away(store, session)
            done.retired.append(id)
        else:
            store.drop_anchors(id)
            done.swept.append(session.path)
            _sessions.forget(common, session)
    finally:
        session.close()


def _sweep_orphans(store: Store, done: _Done) -> None:
    """Sweep what belongs to sessions that are nowhere any more: their folder is made first, and goes last."""
    common = store.handle.common
    done.swept += _sessions.sweep(common)
    done.swept += _checkouts.sweep(common, time.time())
    for owner in _packs.owners(common):
        if not os.path.isdir(_sessions.folder(common, owner)):
            done.swept += _packs.sweep_packs(common, owner)

    done.swept += _sweep_locks(store.handle, time.time())

    def orphans() -> dict[str, str]:
        refs = _refs.list_refs(store.handle, ANCHORS)
        ids = {ref.split("/")[3] for ref in refs}
        gone = {id for id in ids if not os.path.isdir(_sessions.folder(common, id))}
        return {ref: rev for ref, rev in refs.items() if ref.split("/")[3] in gone}

    done.anchors += _delete(store, orphans)


def _sweep_locks(handle: _git.Handle, now: float) -> list[str]:
    """Remove the locks of refs that are an hour old and belong to no session: the `git` that held one died.

    Nothing that Git does to a ref takes seconds. A lock that a living session holds is one file with a value of its.
    """
    common, swept = handle.common, list[str]()
    ours = {inode for id in _sessions.names(common) for inode in _refs.values_of(_sessions.folder(common, id))}
    places = (os.path.join(common, prefix) for prefix in (EXPERIMENTS, PRIVATE))
    for path in (os.path.join(common, "packed-refs.lock"), *(each for place in places for each in _refs.locks(place))):
        with suppress(FileNotFoundError):
            there = os.lstat(path)
            if now - there.st_mtime > DEAD_LOCK and there.st_ino not in ours:
                os.unlink(path)
                swept.append(path)
    return swept


# ---- what is old ----


def _delete(store: Store, choose: Callable[[], dict[str, str]]) -> list[str]:
    """Delete the refs that *choose* gives, as often as it takes: others may be deleting them, too."""
    for left in reversed(range(TRIES)):
        refs = choose()
        try:
            _refs.delete_refs(store.handle, {ref: rev for ref, rev in refs.items() if rev})
            for ref in [ref for ref, rev in refs.items() if not rev]:
                _refs.drop_broken(store.handle, ref)
            return sorted(refs)
        except GitError:
            if not left:
                raise
            time.sleep(0.05 * (TRIES - left))
    raise AssertionError("unreachable")
