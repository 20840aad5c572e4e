"""Exchanging experiments with Git remotes: push, pull, and what a remote has."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ._access import Access
from ._exchanged import Progress, RemoteExperiment, Transfer, TransferProgress
from ._values import StrPath
from ._workers import errand

if TYPE_CHECKING:
    from ._freight import Freight
    from ._lines import Line

T = TypeVar("T")


class Exchange(Access):
    """The part of a `Repository` that speaks to Git remotes, each call in a thread of its own while it lasts.

    A remote is the name of a configured one, a URL (https, ssh, git, file), `host:path`, or a folder. The `git`
    program does the speaking, so that credential helpers, ssh and proxies work as they are configured; it never
    prompts. All calls raise `RemoteError`; cancelled, they end the `git` under way, and everything is old or new.
    """

    async def push(
        self,
        *names: str,
        remote: StrPath = "origin",
        force: bool = False,
        data: bool = True,
        progress: Progress | None = None,
    ) -> list[Transfer]:
        """Push the experiments *names* (names, full refs or revs), or every experiment of HEAD; return what became of each.

        All go in one connection. Where the remote has another experiment of that name, it stays unless *force*, and
        `Diverged` is raised after all others were pushed. With *data*, what the experiments reference of data (artifacts,
        and all else that DVC tracks) goes before them to the remote for data that DVC's configuration names
        (`core.remote`), if there is one; `Transfer.data` says so. *progress* is called on the event loop. Raises
        `DataMissing` when data is neither here nor there, and nothing was pushed then; `ExperimentNotFound`, `AmbiguousName`, and
        `NoBaseline` without names where HEAD has no commit.
        """
        return await self._speak(remote, partial(_push, names=names, force=force, data=data), progress)

    async def pull(
        self,
        *names: str,
        remote: StrPath = "origin",
        force: bool = False,
        data: bool = True,
        progress: Progress | None = None,
    ) -> list[Transfer]:
        """Pull the experiments *names* (names, full refs or revs), or every experiment of HEAD; return what became of each.

        All come in one connection, are checked whole, and are seen only then. An experiment of the same name that
        stands here stays unless *force* (which puts it into the trash), and `Diverged` is raised after all others were
        pulled. With *data*, what they reference comes into the cache before they are seen. *progress* is as in `push`. Raises
        `DataMissing` when the remote for data does not have it, or sends something else; `ExperimentNotFound`, `AmbiguousName`.
        """
        pull = partial(_pull, names=names, force=force, limit=self._settings.pull_limit, data=data)
        return await self._speak(remote, pull, progress)

    async def remote_experiments(self, remote: StrPath = "origin") -> list[RemoteExperiment]:
        """Return the experiments that *remote* has, in the order of their refs; nothing is fetched.

        DVC's own refs are left out, and so are names that no disk or terminal could hold.
        """
        return list((await self._speak(remote, _listed)).values())

    # ---- by itself ----

    def _push_along(self) -> None:
        """Begin to push what is saved, and what earlier sessions have left, if `Settings.auto_push` says so."""
        if self._settings.auto_push is not None:
            from ._pushing import Pusher

            self._pusher = Pusher(self._path, self._settings.auto_push, self._settings)
            self._pusher.soon()

    def _push_soon(self) -> None:
        if self._pusher is not None:
            self._pusher.soon()

    async def _end_pushing(self, patience: float | None) -> None:
        """Wait *patience* seconds at most for what is not pushed yet, and stop; None: let it go on behind us."""
        pusher, self._pusher = self._pusher, None
        if pusher is not None and patience is None:
            pusher.let_go()
        elif pusher is not None and patience is not None:
            await pusher.aclose(patience)

    async def _speak(self, remote: StrPath, call: "Callable[[Line], T]", progress: Progress | None = None) -> T:
        self._usable(self._reader)
        path, place, variables = self._path, os.fspath(remote), dict(os.environ)
        settings = self._settings

        def speak(stopped: Callable[[], bool], tell: Callable[[TransferProgress], None]) -> T:
            from . import _lines
            from ._children import Limits

            limits = Limits(settings.connect_timeout, settings.stall_timeout)
            return call(_lines.open_line(path, place, limits, variables, stopped, tell))

        return await errand("aexp-remote", speak, progress)


def _push(line: "Line", *, names: Sequence[str], force: bool, data: bool) -> list[Transfer]:
    from . import _transfers

    return _transfers.push(line, names=names, force=force, freight=_freight(data))


def _pull(line: "Line", *, names: Sequence[str], force: bool, limit: int, data: bool) -> list[Transfer]:
    from . import _transfers

    return _transfers.pull(line, names=names, force=force, limit=limit, freight=_freight(data))


def _freight(data: bool) -> "Freight | None":
    from ._freight import Freight

    return Freight(dict(os.environ)) if data else None


def _listed(line: "Line") -> dict[str, RemoteExperiment]:
    from . import _lines

    return _lines.listed(line)
