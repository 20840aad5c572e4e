"""Upkeep that nobody asked for: begun when much was saved, beside all work, and cut short when the repository closes."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ._files import Stopped
from ._git import open_handle
from ._workers import errand
from .errors import AexpError

GROUPS: Final = 25
"""After how many groups of saves, each a pack, it is looked whether there is something to do."""
SAVES: Final = 500
"""After how many saves, each a ref."""
GRACE: Final = 1.0
"""Seconds that closing leaves to what is under way."""


class Caretaker:
    """Looks after packs, refs and old journals once in a while, in a thread that lives for as long as it takes.

    It looks after the first save, because programs that save once would never get round to it, and from time to time
    afterwards. What goes wrong is nobody's business: `maintain()` says it to who asks.
    """

    def __init__(self, path: str, *, willing: bool) -> None:
        self._path, self._willing = path, willing
        self._groups, self._saves = GROUPS, SAVES
        self._task: asyncio.Task[None] | None = None

    def saved(self, count: int) -> None:
        """Take note of a group of *count* saves."""
        self._groups, self._saves = self._groups + 1, self._saves + count
        due = self._groups >= GROUPS or self._saves >= SAVES
        if self._willing and due and (self._task is None or self._task.done()):
            self._groups = self._saves = 0
            self._task = asyncio.create_task(self._tend())

    async def _tend(self) -> None:
        path = self._path
        with suppress(AexpError, OSError, Stopped):
            await errand("aexp-upkeep", lambda stopped, _: _tend(path, stopped))

    async def aclose(self) -> None:
        """Wait for a second for what is under way, then have it stopped: Git leaves all as it was, or is done."""
        self._willing, task = False, self._task
        if task is not None:
            await asyncio.wait((task,), timeout=GRACE)
            task.cancel()
            await asyncio.wait((task,))


def _tend(path: str, stopped: Callable[[], bool]) -> None:
    from . import _tending

    _tending.tend(open_handle(path), time.time(), stopped)
