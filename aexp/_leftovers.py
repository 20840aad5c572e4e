"""What gathers beside the experiments: swept after dead sessions, removed when its time is over, packed when it is many."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from attrs import define, field

from . import _checkouts, _git, _joining, _packs, _recovery, _refs, _sessions, _undo
from ._files import Breath, lock, translating
from ._findings import (
    KEPT_JOURNALS,
    KEPT_TRASH,
    MANY_PACKS,
    MANY_REFS,
    Maintenance,
    trashed_before,
)
from ._layout import ANCHORS, EXPERIMENTS, PRIVATE, ROOT, TRASH, anchor_prefix
from ._store import Store
from ._values import Interrupted
from .errors import AexpError, GitError, ReadOnlyRepository

TRIES: Final = 5
"""How often refs are deleted that others delete, too."""
GEOMETRIC: Final = (2, 32)
"""The oldest Git that joins packs and loses no object that nobody points to (`git repack --geometric`)."""
SYNCED: Final = (2, 36)
"""The oldest Git that syncs `packed-refs` before it takes the loose refs away (`core.fsync`)."""
PACKS: Final = "objects/pack"
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
    packs: tuple[int, int] = (0, 0)
    packed_refs: int = 0
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
        _expire_journals(common, now, done)
    with done.step("empty the trash"):
        done.trash += _delete(store, lambda: trashed_before(_refs.list_refs(store.handle, TRASH), now - KEPT_TRASH))
    with done.step("forget old applies"):
        done.swept += _undo.expire(store.handle)
    with done.step("pack"):
        _pack(store, done)
    return Maintenance(
        retired=tuple(done.retired),
        swept=tuple(os.path.relpath(path, common) for path in done.swept),
        anchors=tuple(done.anchors),
        journals=tuple(done.journals),
        trash=tuple(done.trash),
        interrupted=tuple(done.interrupted),
        failures=tuple(done.failures),
        packs_before=done.packs[0],
        packs_after=done.packs[1],
        packed_refs=done.packed_refs,
        freed=done.freed,
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
        done.swept += [*_packs.sweep_packs(common, id), *_sessions.leftovers(session)]
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


def _expire_journals(common: str, now: float, done: _Done) -> None:
    """Remove the journals that were put away too long ago, unless somebody is taking an experiment out of one."""
    breath = Breath()
    for id in _sessions.names(common, _sessions.DONE):
        breath()
        path = _sessions.folder(common, id, _sessions.DONE)
        with suppress(FileNotFoundError):  # another process was first
            if now - os.stat(path).st_mtime < KEPT_JOURNALS:
                continue
            session = _sessions.claim(common, id, _sessions.DONE)
            if session is not None:
                try:
                    size = size_of(path)
                    _sessions.forget(common, session)
                finally:
                    session.close()
                done.freed += size
                done.journals.append(id)


def size_of(path: str) -> int:
    """Return how many bytes the files in the folder *path* hold."""
    total = 0
    for where, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


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


# ---- what is many ----


def _pack(store: Store, done: _Done) -> None:
    """Join packs and pack refs, where they are many: by Git, one process at a time.

    `--geometric` keeps every object, also those that nobody points to yet, and leaves packs with a `.keep` alone; so
    it is safe beside saves (performance reference, part 3). Partial clones are left to `git maintenance`.
    """
    handle = store.handle
    before = packs(handle.common)
    done.packs = (before, before)
    turn = lock(os.path.join(handle.common, ROOT, "format"))
    if turn is None:  # aexp never wrote here, or another process is at it
        return
    try:
        version = _git.check_program()
        if before > MANY_PACKS and version >= GEOMETRIC and not _git.is_partial(handle):
            size = size_of(os.path.join(handle.common, PACKS))
            _git.run(handle, "repack", "-q", "-d", "-l", "--geometric=2", config=("pack.threads=1",), niced=True)
            done.packs = (before, packs(handle.common))
            done.freed += max(0, size - size_of(os.path.join(handle.common, PACKS)))
        loose = loose_refs(handle)
        if loose > MANY_REFS and version >= SYNCED:
            _git.run(handle, "pack-refs", "--all", config=("core.fsync=reference",), niced=True)
            done.packed_refs = max(0, loose - loose_refs(handle))
    finally:
        os.close(turn)


def packs(common: str) -> int:
    """Return how many packs there are that may be joined with others."""
    folder = os.path.join(common, PACKS)
    with translating(folder):
        names = set(os.listdir(folder))
    others = {name.rpartition(".")[0] for name in names if name.endswith((".keep", ".promisor", ".mtimes"))}
    return sum(name.endswith(".pack") and name.removesuffix(".pack") not in others for name in names)


def loose_refs(handle: _git.Handle) -> int:
    """Return how many refs of experiments and of ours have a file of their own."""
    return sum(
        not name.endswith(".lock")
        for prefix in (EXPERIMENTS, PRIVATE)
        for _, _, names in os.walk(os.path.join(handle.common, prefix))
        for name in names
    )
