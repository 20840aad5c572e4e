"""What a program says of its experiment besides points: parameters, files, tags, a message; each in its turn."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve

from ._desk import Desk, changed_files, logged_text, parameters, parsed, rendered
from ._formats.account import Account
from ._formats.files import SLICE, encoded
from ._formats.journal import Kind
from ._formats.params import merge, to_json
from ._intake import Intake
from ._lifecycle import Action, after
from ._names import check_file_path, check_message, check_tag
from ._secrets import Censor
from ._values import StrPath
from ._workers import errand, settled
from .errors import InvalidParams, UnsafePath

if TYPE_CHECKING:
    from ._formats.overrides import Override

T = TypeVar("T")


class Description(Intake):
    """What an experiment is told about itself, in the order of the calls."""

    __slots__ = ("_account", "_censor", "_desk", "_edited", "_params_text", "_turn")

    _account: Account | None
    _censor: Censor
    _desk: Desk | None
    _params_text: str
    _edited: dict[str, str]
    """The parameter files of the tree that were changed, by path."""
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

        They are merged over those that are there, mapping by mapping; lists are replaced. With *file* they go into that
        parameter file of the experiment's tree instead (YAML, JSON, TOML, Python), and *overrides* in the grammar of
        `dvc exp run -S` change such files, too: value by value, every other byte stays; the work tree is not touched.
        Raises `InvalidParams` for what no file can hold, and a file or key that is not there. Cancelled, it did
        nothing or all.
        """
        after(self._state, Action.SET_PARAMS)
        given = self._censor.clean(parameters(params, more), "params")
        folder = self._here()[1].settings.folder
        place = None if file is None else check_file_path(file, folder=folder)
        changes = parsed(overrides, folder, self._censor)
        if place is None and given:
            await self._in_turn(self._set_params(given))
        if place is not None or changes:
            await self._in_turn(self._change_files(place or "", given if place else {}, changes))

    async def _set_params(self, given: Mapping[str, Any]) -> None:
        after(self._state, Action.SET_PARAMS)
        account, desk = self._here()
        merged = merge(account.params, given)
        text = await desk.worker.run(rendered, merged)
        account, _ = self._here()  # tags, message and status may have been set meanwhile
        self._account, self._params_text = evolve(account, params=merged), text
        self._journal.record(Kind.PARAMS, [account.number, to_json(given)])

    async def _change_files(self, file: str, values: Mapping[str, Any], overrides: "Sequence[Override]") -> None:
        after(self._state, Action.SET_PARAMS)
        account, desk = self._here()
        if account.joins:
            raise InvalidParams(
                "parameter files are those of the experiment that this program joined; change them there"
            )
        for path in {file, *(each.file for each in overrides)} & self._stream.files - self._edited.keys():
            self._edited[path] = await self._logged_text(path)
        known = dict(self._edited)
        self._put_files(await desk.worker.run(changed_files, account.code.tree, overrides, file, values, known))

    def _put_files(self, texts: Mapping[str, str]) -> None:
        """Put parameter files into the experiment."""
        for path, text in texts.items():
            self._edited[path] = text
            self._put_file(path, "".join(encoded(text.encode())))

    async def _logged_text(self, path: str) -> str:
        """Return what was logged as the file *path*, before this object came to know of it, or by `log_file`."""
        account, desk = self._here()
        await self._journal.flush()
        return await desk.worker.run(logged_text, account.number, self._stream.extents.copy(), path)

    # ---- files and descriptions ----

    async def log_file(self, path: StrPath, content: bytes | str) -> None:
        """Put a small file into the commit at *path*, relative to the top of the repository; text as UTF-8.

        The same path again replaces it. Raises `UnsafePath`, and `InvalidParams` above `Settings.file_limit`.
        """
        after(self._state, Action.LOG)
        _, desk = self._here()
        place = check_file_path(path, folder=desk.settings.folder)
        data = content.encode() if isinstance(content, str) else bytes(memoryview(content))
        if len(data) > desk.settings.file_limit:
            raise InvalidParams(f"{place} has {len(data)} bytes; log_file takes {desk.settings.file_limit} at most")
        text = (
            "".join(encoded(data))
            if len(data) <= SLICE
            else await errand("aexp-file", lambda *_: "".join(encoded(data)))
        )
        after(self._state, Action.LOG)
        self._take_file(place, text)

    def _take_file(self, place: str, text: str) -> None:
        """Put a file, *text* as a journal holds it, into the experiment at *place*, where nothing else may be."""
        artifacts = self._here()[0].artifacts
        for other in (*self._stream.files, *(each.path for each in artifacts)):
            if other.startswith(f"{place}/") or place.startswith(f"{other}/"):
                raise UnsafePath(place, f"{other} was logged, and a path cannot be both a file and a folder")
        if any(place in (each.path, f"{each.path}.dvc") for each in artifacts):
            raise UnsafePath(place, "an artifact was logged there")
        self._edited.pop(place, None)
        self._put_file(place, text)

    def _put_file(self, place: str, text: str) -> None:
        account, _ = self._here()
        self._stream.files |= {place}
        self._journal.record(Kind.FILE, [account.number, place, text], self._stream)

    async def set_tags(self, *tags: str) -> None:
        """Set the tags, instead of those that were there."""
        told = self._censor.clean(tuple(dict.fromkeys(check_tag(tag) for tag in tags)), "tags")
        await self._in_turn(self._describe(Kind.TAGS, tags=told))

    async def set_message(self, text: str) -> None:
        """Set the message of the commit."""
        await self._in_turn(self._describe(Kind.MESSAGE, message=self._message(text)))

    async def _describe(self, kind: Kind, **said: Any) -> None:
        after(self._state, Action.DESCRIBE)
        account, _ = self._here()
        self._journal.record(kind, [account.number, *said.values()])
        self._account = evolve(account, **said)

    # ---- inside ----

    def _message(self, text: str) -> str:
        return self._censor.clean(check_message(text), "message")

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
