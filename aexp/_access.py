"""The threads of an open repository, and the way to them: one for reading, one for writing."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

from ._desk import Desk
from ._pipelines import Pipelines
from ._store import Store
from ._values import Settings, StrPath
from ._workers import Worker
from .errors import ForkedError, RepositoryClosed

T = TypeVar("T")
H = TypeVar("H")


class Access:
    """What every part of a `Repository` stands on: its path, its settings, and its two Git threads while it is open."""

    def __init__(self, path: StrPath = ".", *, settings: Settings | None = None) -> None:
        self._path = os.fspath(path)
        self._settings = settings or Settings()
        self._reader: Worker[Pipelines] | None = None
        self._writer: Worker[Store] | None = None
        self._desk: Desk | None = None
        self._process = 0

    async def _read(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._usable(self._reader).run(function, *arguments)

    async def _write(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._usable(self._writer).run(function, *arguments)

    def _usable(self, worker: Worker[H] | None) -> Worker[H]:
        if worker is None:
            raise RepositoryClosed(self._path)
        if self._process != os.getpid():
            raise ForkedError  # the threads stayed in the parent, so a call would never return
        return worker
