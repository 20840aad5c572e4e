"""The threads of an open repository, and the way to them: to read, to write, and to watch."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ._desk import Desk
from ._pipelines import Pipelines
from ._store import Store
from ._values import Settings, StrPath
from ._workers import Worker
from .errors import ForkedError, RepositoryClosed

if TYPE_CHECKING:
    from ._events import Event
    from ._living import Living
    from ._pushing import Pusher

T = TypeVar("T")
H = TypeVar("H")


class Access:
    """What every part of a `Repository` stands on: its path, its settings, and its threads while it is open."""

    def __init__(self, path: StrPath = ".", *, settings: Settings | None = None) -> None:
        self._path = os.fspath(path)
        self._settings = settings or Settings()
        self._reader: Worker[Pipelines] | None = None
        self._writer: Worker[Store] | None = None
        self._watcher: Worker[Living] | None = None
        self._desk: Desk | None = None
        self._pusher: Pusher | None = None
        self._process = 0

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._usable(self._reader).run(function, *arguments)

    async def _write(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._usable(self._writer).run(function, *arguments)

    async def _live(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._usable(self._watcher).run(function, *arguments)

    async def _catch_up(self, *, dead: bool) -> None:
        """Read what is new in the journals of living sessions, and of dead ones too if they are asked for."""
        while (await self._live(_read_on, dead))[1]:
            pass

    async def _written(self, name: str | None = None) -> None:
        """Bring what our own open experiments have accepted to the disk; only if *name* is one of them."""
        desk = self._desk
        if desk is not None and _is_there(desk, name):
            await desk.journal.flush()

    def _usable(self, worker: Worker[H] | None) -> Worker[H]:
        if worker is None:
            raise RepositoryClosed(self._path)
        if self._process != os.getpid():
            raise ForkedError  # the threads stayed in the parent, so a call would never return
        return worker


def _read_on(living: "Living", dead: bool) -> "tuple[list[Event], bool]":
    return living.read(dead=dead, tell=False)


def _is_there(desk: Desk, name: str | None) -> bool:
    if name is None:
        return bool(desk.taken)
    return any(name in (ref, ref.rpartition("/")[2], each.id) for ref, each in desk.taken.items())
