"""Keeping a repository in shape: sweeping what is left over, and saying what is wrong."""

import os
import time
from typing import TYPE_CHECKING

from . import _dvc
from ._access import Access
from ._layout import ROOT, WORKSPACES
from ._store import Store, open_store
from ._workers import Worker

if TYPE_CHECKING:
    from ._findings import Finding, Maintenance


class Upkeep(Access):
    """The part of a `Repository` that looks after what gathers beside the experiments, in a thread for as long as it takes."""

    async def maintain(self) -> "Maintenance":
        """Sweep what dead programs left, remove journals and trash whose time is over, join packs; say what was done.

        Safe at any time, beside working sessions, other processes and the user's own Git. Nothing is recovered or
        discarded: what was interrupted is reported, and stays. Raises `ReadOnlyRepository`. Cancelled, it ends
        what it does first.
        """
        worker = self._aside()
        try:
            return await worker.run(_maintain, time.time())
        finally:
            await worker.aclose()

    async def diagnose(self) -> "list[Finding]":
        """Look at Git, the repository, the disk and all that aexp keeps here, and say what is well and what is not.

        Changes nothing, and works where nothing can be written.
        """
        worker = self._aside()
        try:
            return await worker.run(_look, time.time())
        finally:
            await worker.aclose()

    def _aside(self) -> Worker[Store]:
        """Return a thread of its own, so that neither saves nor reads wait."""
        self._usable(self._writer)
        path, settings, variables = self._path, self._settings, dict(os.environ)
        return Worker("aexp-upkeep", lambda: open_store(path, settings, variables), path)


def _maintain(store: Store, now: float) -> "Maintenance":
    from . import _leftovers

    return _leftovers.maintain(store, now)


def _look(store: Store, now: float) -> "list[Finding]":
    from . import _checkup
    from ._findings import judge

    return judge(_checkup.look(store, now))


def tidy(store: Store, path: str) -> str | None:
    """Take away what dead programs left in sight: checkouts, and what they show to DVC; return where that is.

    Nothing is written before an experiment begins.
    """
    if os.path.isdir(os.path.join(store.handle.common, ROOT, WORKSPACES)):
        from . import _checkouts

        _checkouts.sweep(store.handle.common, time.time())
    if _dvc.find_root(path, store.handle.worktree) is None:
        return None
    from . import _board

    return _board.sweep(store.handle, path)
