"""Whether objects are there, asked again only when the object store may have changed."""

import os
import time
from typing import Final

from ._files import translating
from ._git import Handle, find_in

JUST_NOW: Final = 2_000_000_000
"""Nanoseconds within which two changes of a folder may have the same time (FAT counts in steps of two seconds)."""
SEEN: Final = 100_000
"""How many groups of objects are remembered to be there."""


class Presence:
    """Says whether objects are there, without looking at their content; asks again only when the object store changed.

    A file that comes or goes changes the time of its folder. Nothing is remembered when that was just now, since
    another change may have the same time, or where objects are borrowed from another repository.
    """

    def __init__(self, handle: Handle) -> None:
        self._folder = os.path.join(handle.common, "objects")
        self._exists = find_in(self._folder)
        self._state: tuple[object, ...] | None = None
        self._seen: set[bytes] = set()

    def look(self) -> None:
        """Look whether the object store is as it was; to be called before a number of questions."""
        state = _state_of(self._folder)
        if state is None or state != self._state or len(self._seen) > SEEN:
            self._seen.clear()
            self._exists = find_in(self._folder)  # one that was used knows objects that have gone
        self._state = state

    def __call__(self, ids: bytes) -> bool:
        """Say whether all objects are there whose ids stand one behind the other in *ids*."""
        if ids in self._seen:
            return True
        for place in range(0, len(ids), 20):
            if not self._exists(ids[place : place + 20]):
                return False
        if self._state is not None:
            self._seen.add(ids)
        return True


def _state_of(folder: str) -> tuple[object, ...] | None:
    """Return what is another when a file below *folder* comes or goes; None where nothing is sure."""
    if os.path.exists(os.path.join(folder, "info", "alternates")):
        return None
    with translating(folder), os.scandir(folder) as entries:
        times = {entry.name: entry.stat().st_mtime_ns for entry in entries}
    unsure = time.time_ns() - max(times.values(), default=0) < JUST_NOW
    return None if unsure else tuple(sorted(times.items()))
