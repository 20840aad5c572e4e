"""What a program says of its experiment besides points: parameters, files, tags, a message; each in its turn."""

import asyncio
import base64
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from attrs import evolve

from ._desk import Desk, parameters, rendered
from ._formats.account import Account
from ._formats.journal import Kind
from ._formats.params import merge, to_json
from ._intake import Intake
from ._lifecycle import Action, after
from ._names import check_file_path, check_message, check_tag
from ._values import StrPath
from ._workers import settled
from .errors import InvalidParams, UnsafePath

T = TypeVar("T")


class Description(Intake):
    """What an experiment is told about itself, in the order of the calls."""

    __slots__ = ("_account", "_desk", "_params_text", "_turn")

    _account: Account | None
    _desk: Desk | None
    _params_text: str
    _turn: asyncio.Task[Any] | None

    # ---- parameters ----

    async def set_params(
        self,
        params: Mapping[str, Any] | object | None = None,
        /,
        *,
        file: StrPath | None = None,
        overrides: Sequence[str] = (),
        **more: Any,
    ) -> None:
        """Add parameters: *params* (a mapping, or an attrs, dataclass, pydantic or OmegaConf object) and keywords.

        They are merged over those that are there, mapping by mapping; lists are replaced. Raises `InvalidParams`
        for what no file can hold. *file* and *overrides* are reserved for parameter files of the tree, and raise
        `NotImplementedError` today. Cancelled, it did nothing or all.
        """
        after(self._state, Action.SET_PARAMS)
        given = parameters(params, more, file, overrides)
        await self._in_turn(self._set_params(given))

    async def _set_params(self, given: Mapping[str, Any]) -> None:
        after(self._state, Action.SET_PARAMS)
        account, desk = self._here()
        merged = merge(account.params, given)
        text = await desk.worker.run(rendered, merged)
        account, _ = self._here()  # tags, message and status may have been set meanwhile
        self._account, self._params_text = evolve(account, params=merged), text
        self._journal.record(Kind.PARAMS, [account.number, to_json(given)])

    # ---- files and descriptions ----

    async def log_file(self, path: StrPath, content: bytes | str) -> None:
        """Put a small file into the commit at *path*, relative to the top of the repository; text as UTF-8.

        The same path again replaces it. Raises `UnsafePath`, and `InvalidParams` above `Settings.file_limit`.
        """
        after(self._state, Action.LOG)
        account, desk = self._here()
        place = check_file_path(path, folder=desk.settings.folder)
        data = content.encode() if isinstance(content, str) else bytes(memoryview(content))
        if len(data) > desk.settings.file_limit:
            raise InvalidParams(f"{place} has {len(data)} bytes; log_file takes {desk.settings.file_limit} at most")
        for other in self._stream.files:
            if other.startswith(f"{place}/") or place.startswith(f"{other}/"):
                raise UnsafePath(place, f"{other} was logged, and a path cannot be both a file and a folder")
        self._stream.files |= {place}
        text = base64.b85encode(data).decode()
        self._journal.record(Kind.FILE, [account.number, place, text], self._stream)

    async def set_tags(self, *tags: str) -> None:
        """Set the tags, instead of those that were there."""
        await self._in_turn(self._describe(Kind.TAGS, tags=tuple(dict.fromkeys(check_tag(tag) for tag in tags))))

    async def set_message(self, text: str) -> None:
        """Set the message of the commit."""
        await self._in_turn(self._describe(Kind.MESSAGE, message=check_message(text)))

    async def _describe(self, kind: Kind, **said: Any) -> None:
        after(self._state, Action.DESCRIBE)
        account, _ = self._here()
        self._journal.record(kind, [account.number, *said.values()])
        self._account = evolve(account, **said)

    # ---- inside ----

    def _here(self) -> tuple[Account, Desk]:
        assert self._account is not None
        assert self._desk is not None
        return self._account, self._desk

    async def _in_turn(self, work: Coroutine[Any, Any, T]) -> T:
        """Do *work* after what is under way, in a task of its own, and see it through however the caller is cancelled."""
        before = self._turn
        task = self._turn = asyncio.create_task(work if before is None else _behind(before, work))
        try:
            return await settled(task)
        finally:
            if self._turn is task:
                self._turn = None


async def _behind(before: asyncio.Task[Any], work: Coroutine[Any, Any, T]) -> T:
    await asyncio.wait((before,))
    return await work
