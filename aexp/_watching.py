"""Watching a repository: what is running now, in this and in other processes, and what happens to it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ._access import Access
from ._desk import Desk
from ._experiment import Experiment
from ._formats.account import Account
from ._lifecycle import State
from ._values import Settings, StrPath
from ._workers import Worker
from .errors import AexpError, DiskFull, JournalFailed

if TYPE_CHECKING:
    from ._board import Board, Row
    from ._events import Event, Running
    from ._living import Living

TICK: Final = 0.15
"""Seconds between two looks at the journals."""
SHOW: Final = 1.0
"""Seconds between two updates of what DVC displays."""
MOST: Final = 64
"""How many experiments a session shows unless it is asked for all: `dvc exp show` takes some 30 ms for each."""


class Watching(Access):
    """The part of a `Repository` that sees experiments while they run, and shows them to DVC."""

    def __init__(self, path: StrPath = ".", *, settings: Settings | None = None) -> None:
        super().__init__(path, settings=settings)
        self._dvc: str | None = None
        """The DVC repository that the path lies in."""
        self._showing: asyncio.Task[None] | None = None
        self._hidden = asyncio.Event()

    async def running(self) -> "list[Running]":
        """Return every experiment that is open now, of this or of another process, the oldest first.

        What this process has logged is in there. An experiment whose process died is not: `interrupted()` lists it.
        Writes nothing of its own; raises `DiskFull` or `JournalFailed` when what was logged here cannot be written.
        """
        await self._written()
        await self._catch_up(dead=False)
        return await self._live(_running)

    async def watch(self) -> "AsyncGenerator[Event, None]":
        """Yield what happens to experiments of this and other processes, from now on and for as long as anybody asks.

        First comes what is there: an event of the kind `running` for each open experiment, and `interrupted` for each
        that a dead process left. Events are late by a quarter of a second at most, a death by a second more; who
        takes them slowly misses none, but gets what was logged meanwhile as one. Raises `RepositoryClosed` when the
        repository is closed. Cancelled or closed, it leaves nothing behind.
        """
        with suppress(DiskFull, JournalFailed):
            await self._written()
        own = await self._live(_another)
        while (await self._live(_read, own, False))[1]:
            pass
        for event in await self._live(_standing, own):
            yield event
        while True:
            events, more = await self._live(_read, own, True)
            for event in events:
                yield event
            if not more:
                await asyncio.sleep(TICK)

    # ---- inside ----

    def _show(self, desk: Desk) -> None:
        """Begin to show the experiments of *desk* to DVC, unless that is not wanted."""
        worker, self._hidden = self._watcher, asyncio.Event()
        wanted = self._settings.dvc_running is not False and desk.within is None  # DVC shows its own runs itself
        if worker is not None and self._dvc is not None and wanted:
            most = None if self._settings.dvc_running else MOST
            self._showing = asyncio.create_task(_show(worker, self._dvc, desk, most, self._hidden))

    async def _hide(self) -> None:
        """Show nothing any more, and wait until nothing of it is left."""
        self._hidden.set()
        showing, self._showing = self._showing, None
        if showing is not None:
            await asyncio.wait((showing,))


async def _show(worker: "Worker[Living]", root: str, desk: Desk, most: int | None, hidden: asyncio.Event) -> None:
    """Keep the board at *root* up to date until it is *hidden*; what goes wrong with it is no concern of who logs."""
    board: Board | None = None
    while not hidden.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(SHOW):
                await hidden.wait()
        if not hidden.is_set() and (desk.taken or board is not None):
            with suppress(OSError, AexpError):  # the disk may be full; it is tried again
                if board is None:
                    board = await worker.run(_open_board, root, desk)
                await worker.run(_show_rows, board, desk, most)
    if board is not None:
        with suppress(OSError, AexpError):  # then the next `open()` takes it away
            await worker.run(_close, board)


def _running(living: "Living") -> "list[Running]":
    return living.running()


def _open_board(_: "Living", root: str, desk: Desk) -> "Board":
    from ._board import Board

    return Board(root, desk.settings.folder, desk.session)


def _show_rows(_: "Living", board: "Board", desk: Desk, most: int | None) -> None:
    active = [each for each in list(desk.taken.values())[:most] if each.state is State.ACTIVE]
    board.show([_row(each, each._account) for each in active if each._account is not None and not each._account.joins])


def _row(each: Experiment, account: Account) -> "Row":
    from ._board import Row

    step = max(each.step, each._stream.highest)
    return Row(account.id, account.name, account.baseline, each._params_text, dict(each._summary), step)


def _close(_: "Living", board: "Board") -> None:
    board.close()


def _another(shared: "Living") -> "Living":
    from ._living import Living

    return Living(shared.common, all=True)


def _read(_: "Living", own: "Living", tell: bool) -> "tuple[list[Event], bool]":
    return own.read(dead=True, tell=tell)


def _standing(_: "Living", own: "Living") -> "list[Event]":
    return own.standing()
