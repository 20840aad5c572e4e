"""Upkeep that goes on by itself: old journals are removed, and packs joined and refs packed when they are many."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from math import inf
from typing import Final

from attrs import frozen

from . import _git, _sessions
from ._children import Limits, converse
from ._files import Breath, Stopped, lock, translating
from ._findings import KEPT_JOURNALS, MANY_PACKS, many_refs
from ._layout import EXPERIMENTS, PRIVATE, ROOT
from ._refusals import refused

GEOMETRIC: Final = (2, 32)
"""The oldest Git that joins packs and loses no object that nobody points to (`git repack --geometric`)."""
SYNCED: Final = (2, 36)
"""The oldest Git that syncs `packed-refs` before it takes the loose refs away (`core.fsync`)."""
PACKS: Final = "objects/pack"


@frozen
class Packed:
    """How many packs there were and are, how many refs were packed, and how many bytes came free."""

    before: int = 0
    after: int = 0
    refs: int = 0
    freed: int = 0


def tend(handle: _git.Handle, now: float, stopped: Callable[[], bool]) -> None:
    """Do what upkeep does by itself, beside the work: remove old journals, and join packs and refs that are many.

    Raises `Stopped` when it is *stopped*, what the disk or Git says, and `GitNotFound`.
    """
    expire_journals(handle.common, now)
    pack(handle, stopped)


def expire_journals(common: str, now: float) -> tuple[list[str], int]:
    """Remove the journals that were put away too long ago, unless somebody is taking an experiment out of one.

    Returns their sessions, and how many bytes they held.
    """
    breath, expired, freed = Breath(), list[str](), 0
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
                freed += size
                expired.append(id)
    return expired, freed


def pack(handle: _git.Handle, stopped: Callable[[], bool] = lambda: False) -> Packed:
    """Join packs and pack refs, where they are many: by Git, one process at a time; say what that did.

    `--geometric` keeps every object, also those that nobody points to yet, and leaves packs with a `.keep` alone; so
    it is safe beside saves (performance reference, part 3). Partial clones are left to `git maintenance`. Raises
    `Stopped` when it is *stopped*: packs and refs are as they were, or packed.
    """
    before = packs(handle.common)
    many = before > MANY_PACKS, has_many_refs(handle.common)
    turn = lock(os.path.join(handle.common, ROOT, "format")) if any(many) else None
    if turn is None:  # nothing to do, or another process is at it
        return Packed(before, before)
    try:
        version = _git.check_program()
        after, freed, refs = before, 0, 0
        if many[0] and version >= GEOMETRIC and not _git.is_partial(handle):
            size = size_of(os.path.join(handle.common, PACKS))
            _call(handle, stopped, "-c", "pack.threads=1", "repack", "-q", "-d", "-l", "--geometric=2")
            after, freed = packs(handle.common), size - size_of(os.path.join(handle.common, PACKS))
        if many[1] and version >= SYNCED:
            loose = sum(1 for _ in loose_refs(handle.common))
            _call(handle, stopped, "-c", "core.fsync=reference", "pack-refs", "--all")
            refs = loose - sum(1 for _ in loose_refs(handle.common))
        return Packed(before, after, max(0, refs), max(0, freed))
    finally:
        os.close(turn)


def _call(handle: _git.Handle, stopped: Callable[[], bool], *arguments: str) -> None:
    said = converse(handle, *arguments, extra=handle.variables, limits=Limits(inf, inf), stopped=stopped, niced=True)
    if said.ending == "stopped":
        raise Stopped
    if said.code:
        raise refused(handle.common, f"run `git {arguments[2]}`", said.words.strip() or f"exit {said.code}")


def packs(common: str) -> int:
    """Return how many packs there are that may be joined with others."""
    folder = os.path.join(common, PACKS)
    with translating(folder):
        names = set(os.listdir(folder))
    others = {name.rpartition(".")[0] for name in names if name.endswith((".keep", ".promisor", ".mtimes"))}
    return sum(name.endswith(".pack") and name.removesuffix(".pack") not in others for name in names)


def has_many_refs(common: str) -> bool:
    """Say whether so many refs have a file of their own that it is worth to write `packed-refs` anew."""
    most = many_refs(packed_size(common))
    return sum(1 for _ in islice(loose_refs(common), most + 1)) > most


def packed_size(common: str) -> int:
    """Return the size of `packed-refs` in bytes."""
    try:
        return os.stat(os.path.join(common, "packed-refs")).st_size
    except FileNotFoundError:
        return 0


def loose_refs(common: str) -> Iterator[str]:
    """Yield the paths of the refs of experiments and of ours that have a file of their own."""
    breath = Breath()
    for prefix in (EXPERIMENTS, PRIVATE):
        for where, _, names in os.walk(os.path.join(common, prefix)):
            for name in names:
                breath()
                if not name.endswith(".lock"):
                    yield os.path.join(where, name)


def size_of(path: str) -> int:
    """Return how many bytes the files in the folder *path* hold."""
    total = 0
    for where, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total
