"""Pushing saved experiments by itself, in the background: gathered, tried again, and never in anybody's way."""

import asyncio
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ._values import Settings
from ._workers import errand, settled_before
from .errors import AexpError

if TYPE_CHECKING:
    from ._delivery import Delivered

GATHER: Final = 0.5
"""Seconds after a save before it is pushed, together with all that were saved meanwhile."""
BUSY: Final = 1.0
"""Seconds before it is looked again whether another process has pushed all."""
STOPPING: Final = 30.0
"""Seconds that a push which was told to stop may take for it; an object on its way to S3 is sent whole."""
FIRST: Final = 1.0
"""Seconds before a push that failed is tried again; each time twice as long."""
LONGEST: Final = 300.0
"""How long that may become."""


class Pusher:
    """Pushes what is saved to one remote, for as long as its repository is open, with one timer and one thread at most.

    What waits stands in a list on the disk (`_outbox.py`), so all of this may end at any moment and nothing is forgotten.
    """

    def __init__(self, path: str, remote: str, settings: Settings) -> None:
        self._path, self._remote, self._settings = path, remote, settings
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._more = self._closed = self._busy = False
        self._again = True
        self._failures, self._wait = 0, 0.0

    def soon(self) -> None:
        """Have what was saved pushed in a moment; while a remote gives trouble, when it is tried the next time."""
        self._more = True
        if self._timer is None and self._task is None and not self._closed:
            self._later(GATHER)

    def _later(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._task = self._loop.create_task(self._push())
        self._task.add_done_callback(self._settle)

    async def _push(self) -> None:
        self._more = False
        path, remote, settings, again = self._path, self._remote, self._settings, self._again
        variables = dict(os.environ)

        def call(stopped: Callable[[], bool], _: Callable[[object], None]) -> "Delivered":
            from . import _delivery
            from ._children import Limits

            limits = Limits(settings.connect_timeout, settings.stall_timeout)
            return _delivery.deliver(path, remote, limits, variables, again, stopped)

        try:
            said = await errand("aexp-push", call)
        except (AexpError, OSError, RuntimeError) as error:  # not even the list can be reached
            trouble, lasting, self._busy = str(error) or type(error).__name__, False, False
        else:
            trouble, lasting, self._busy = said.trouble, said.lasting, said.busy
        self._again = self._again and (self._busy or bool(trouble))
        self._failures = self._failures + 1 if trouble else 0
        wait = LONGEST if lasting else min(LONGEST, FIRST * 2 ** min(self._failures, 10) / 2)
        scattered = wait * random.uniform(0.8, 1.2)  # noqa: S311  # a hundred processes do not come back at once
        self._wait = scattered if trouble else BUSY if self._busy else 0.0

    def _settle(self, task: "asyncio.Task[None]") -> None:
        """Decide when the next try is, if there is one."""
        self._task = None
        if self._closed or task.cancelled() or task.exception() is not None:
            return
        if self._wait:
            self._later(self._wait)
        elif self._more:
            self._later(GATHER)

    async def aclose(self, patience: float) -> None:
        """Push what waits unless something is known to be wrong, for *patience* seconds at most; then stop, and leave the rest.

        Cancelled, it stops at once, and the cancellation is raised then.
        """
        deadline = self._loop.time() + patience
        self._halt()
        try:
            while self._task is not None or (self._more and not self._failures):
                if self._loop.time() >= deadline or self._failures or self._busy:
                    break
                if self._task is None:
                    self._begin()
                assert self._task is not None
                await asyncio.wait((self._task,), timeout=deadline - self._loop.time())
                await asyncio.sleep(0)  # so that it is settled, too
        finally:
            if (task := self._task) is not None:
                task.cancel()
                await settled_before(task, self._loop.time() + STOPPING)

    def let_go(self) -> None:
        """Stop but for one more push of what waits, which goes on for as long as the event loop does."""
        self._halt()
        if self._task is None and self._more and not self._failures:
            self._begin()

    def _halt(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
