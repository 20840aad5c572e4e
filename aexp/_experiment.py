"""One live experiment: what a program logs to, from `init()` to `save()` or `discard()`."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import deepcopy
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar

from attrs import evolve

from ._desk import Desk, Options, parameters, rendered
from ._formats.account import Account, begin, failure_to_json
from ._formats.batch import Stream
from ._formats.journal import Kind
from ._formats.params import merge, to_json
from ._formats.series import Number
from ._intake import Intake
from ._layout import experiment_ref
from ._lifecycle import Action, State, Status, after, is_ending
from ._names import check_file_path, check_message, check_tag, new_id, random_name
from ._outcome import outcome
from ._saver import Request
from ._store import Store
from ._values import Failure, Record, StrPath
from ._workers import settled, settled_before
from .errors import InvalidName, InvalidParams, NameTaken, UnsafePath

T = TypeVar("T")
GUESSES: Final = 20
"""How many random names are tried before the collision is told."""


class Experiment(Intake):
    """An experiment under way; `Repository.experiment` makes it, `async with` or `init()` begins it.

    Its methods may be called from any task of the loop that opened the repository, and the `_nowait` ones from any
    thread. A call out of order raises `InvalidTransition` and changes nothing.
    """

    __slots__ = (
        "__weakref__",
        "_account",
        "_began",
        "_desk",
        "_ended",
        "_open",
        "_options",
        "_params_text",
        "_record",
        "_turn",
    )

    def __init__(
        self,
        open: Callable[[str], Awaitable[Desk]],
        options: Options,
        ended: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._open, self._options, self._ended = open, options, ended
        self._turn: asyncio.Task[Any] | None = None
        self._clear()

    def _clear(self) -> None:
        self._reset()
        self._account: Account | None = None
        self._desk: Desk | None = None
        self._record: Record | None = None
        self._params_text, self._began = "", 0.0

    # ---- what it is ----

    @property
    def status(self) -> Status:
        """How the work stands: `running` until `complete()`, `save()` or the end of the block."""
        return Status.RUNNING if self._account is None else self._account.status

    @property
    def id(self) -> str:
        """The id, 32 hex digits, unique for ever; empty before `init()`."""
        return "" if self._account is None else self._account.id

    @property
    def name(self) -> str:
        """The name; empty before `init()` when none was given."""
        return self._options.name or "" if self._account is None else self._account.name

    @property
    def baseline(self) -> str:
        """The rev it started from; empty before `init()`."""
        return "" if self._account is None else self._account.baseline

    @property
    def ref(self) -> str:
        """The ref it is saved on; empty before `init()`."""
        return "" if self._account is None else self._account.ref

    @property
    def params(self) -> Mapping[str, Any]:
        """Its own parameters, as plain nested mappings: a copy."""
        return MappingProxyType(deepcopy(dict((self._account or self._options).params)))

    @property
    def record(self) -> Record | None:
        """The saved account; None before `save()`."""
        return self._record

    def __repr__(self) -> str:
        """Name, state and status."""
        return f"<aexp.Experiment {self.name or '(unnamed)'} {self._state}, {self.status}>"

    # ---- begin ----

    async def init(self) -> Self:
        """Begin: fix the baseline, capture the code, take the name; UNINITIALIZED -> ACTIVE. `async with` calls it.

        Raises `NoBaseline`, `NameTaken`, `InvalidName` for a branch or tag of that name, `ReadOnlyRepository`,
        `DiskFull`. Cancelled, it either never began or is complete.
        """
        await self._in_turn(self._init())
        return self

    async def _init(self) -> None:
        after(self._state, Action.INIT)
        desk = await self._open(self._options.baseline)
        given = desk.name_for(self._options)
        for left in reversed(range(GUESSES if given is None else 1)):
            name = given or random_name(desk.entropy(8))
            try:
                started = await desk.start(desk.wish(name, self._options))
                ref = experiment_ref(started.baseline, name)
                if ref in desk.taken and not self._options.force:
                    raise NameTaken(name, None)
            except (NameTaken, InvalidName):
                if not left:
                    raise
            else:
                break
        now = time.time()
        account = Account(
            number=desk.number(),
            id=new_id(int(now * 1000), desk.entropy(10)),
            name=name,
            baseline=started.baseline,
            code=started.code,
            created=now,
            origin=desk.origin,
            params=self._options.params,
            tags=self._options.tags,
            message=self._options.message,
            force=self._options.force,
        )
        self._adopt(desk, account, Stream(account.number), started.params)
        self._journal.record(Kind.BEGIN, begin(account))

    def _adopt(self, desk: Desk, account: Account, stream: Stream, params: str) -> None:
        """Take up *account* as active; `resume` does so with one from a journal."""
        self._clear()
        self._desk, self._journal, self._stream, self._account = desk, desk.journal, stream, account
        self._params_text, self._step, self._began = params, account.step, time.monotonic() - (account.duration or 0.0)
        desk.taken[account.ref] = self
        self._state = State.ACTIVE

    def _take_up(self, desk: Desk, account: Account, stream: Stream, params: str, last: Mapping[str, Number]) -> None:
        """Go on with *account*, which stands in the journal as *stream*, where it was left; *last* is its summary."""
        self._adopt(desk, account, stream, params)
        self._summary.update(last)

    async def __aenter__(self) -> Self:
        """Begin, as `init()` does; one that was resumed is taken as it is."""
        return self if self._state is State.ACTIVE else await self.init()

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

    # ---- durability ----

    async def flush(self, *, timeout: float | None = None) -> None:
        """Wait until all that was logged so far survives a power loss.

        Raises `TimeoutError` after *timeout* seconds, `DiskFull` or `JournalFailed` when the disk refuses; nothing
        is lost by that. Cancelled, it stops waiting, and the writing goes on.
        """
        after(self._state, Action.FLUSH)
        if self._state is not State.PERSISTED:
            await self._journal.flush(timeout)

    async def make_checkpoint(self, message: str | None = None) -> str:
        """Commit what has been logged so far on the experiment's own ref, and return the rev; the experiment goes on.

        Raises `NameTaken` when another process took the name, and what the disk says. Cancelled, it did nothing or
        all.
        """
        after(self._state, Action.CHECKPOINT)
        return await self._in_turn(self._make_checkpoint(message))

    async def _make_checkpoint(self, message: str | None) -> str:
        after(self._state, Action.CHECKPOINT)
        account, desk = self._here()
        text = account.message if message is None else check_message(message)
        told = evolve(account, duration=time.monotonic() - self._began, step=self._step, message=text)
        rev = (await desk.saver.commit(self._request(told, final=False, force=False))).rev
        account, _ = self._here()
        if rev:  # a run of DVC makes none
            self._account = evolve(account, checkpoints=(*account.checkpoints, rev))
        return rev

    # ---- end ----

    async def complete(self, status: Status = Status.FINISHED) -> None:
        """End the work with *status* (finished, failed or cancelled); ACTIVE -> COMPLETED: no more logging."""
        if not is_ending(Status(status)):
            raise ValueError(f"an experiment ends finished, failed or cancelled, not {status}")
        self._complete(Status(status), None)

    def _complete(self, status: Status, error: Failure | None) -> None:
        state = after(self._state, Action.COMPLETE)
        account, _ = self._here()
        seconds = time.monotonic() - self._began
        ended = account.created + max(seconds, time.time() - account.created)
        told = {"status": status, "error": failure_to_json(error), "ended": ended, "duration": seconds}
        self._journal.record(Kind.END, [account.number, told])
        self._account = evolve(account, status=status, error=error, ended=ended, duration=seconds, step=self._step)
        self._state = state

    async def save(self, *, message: str | None = None, force: bool = False) -> Record:
        """Persist the experiment as a commit on its ref and return its record; saving again returns the same record.

        On return it is durable and verified. *force* replaces an experiment of the same name (which stays in
        `refs/aexp/trash`). Raises `NameTaken` for the loser of a race, and what the disk says; the experiment then is
        COMPLETED, nothing is lost, and it may be saved again. Cancelled, it did nothing or all.
        """
        after(self._state, Action.SAVE)
        return await self._in_turn(self._save(message, force))

    async def _save(self, message: str | None, force: bool) -> Record:
        after(self._state, Action.SAVE)
        if self._record is not None:
            return self._record
        if message is not None:
            await self._describe(Kind.MESSAGE, message=check_message(message))
        if self._state is State.ACTIVE:
            self._complete(Status.FINISHED, None)
        account, desk = self._here()
        self._record = await desk.saver.commit(self._request(account, final=True, force=force))
        self._state = State.PERSISTED
        await self._let_go()
        return self._record

    def _request(self, account: Account, *, final: bool, force: bool) -> Request:
        force = force or (account.force and not account.checkpoints)
        return Request(account, self._stream, self._params_text, final, force)

    async def discard(self) -> None:
        """Give the experiment up: no record, no ref; -> UNINITIALIZED, and the object may be initialised again.

        What was logged stays in the journal for 14 days at least, where `Repository.resume` finds it.
        """
        after(self._state, Action.DISCARD)
        await self._in_turn(self._leave(Kind.DISCARDED))

    async def _leave(self, fate: Kind) -> None:
        after(self._state, Action.DISCARD)
        account, desk = self._here()
        self._account = account = evolve(account, step=self._step, fate=fate)
        self._journal.record(fate, [account.number])
        await self._journal.flush()
        if fate is Kind.DISCARDED and account.checkpoints:
            await desk.worker.run(Store.discard, account)
        await self._let_go()
        self._clear()

    async def _let_go(self) -> None:
        account, desk = self._here()
        if desk.taken.get(account.ref) is self:
            del desk.taken[account.ref]
        self._columns = {}
        if self._ended is not None:
            await self._ended()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Save after a normal end; after an exception do what `on_error` says, and let the same exception go on.

        A save may take `Settings.close_timeout` seconds, however often the task is cancelled meanwhile; after that
        the experiment is left to `Repository.recover()`.
        """
        if self._state not in (State.ACTIVE, State.COMPLETED):
            return
        ending = asyncio.create_task(self._close(error))
        try:
            deadline = asyncio.get_running_loop().time() + self._here()[1].settings.close_timeout
            await settled_before(ending, deadline)
        except asyncio.CancelledError:
            if error is None or not isinstance(error, asyncio.CancelledError):
                raise
        failure: BaseException | None = None
        if not ending.done():
            failure = TimeoutError("the experiment is not saved yet; `Repository.recover()` will find it")
        elif not ending.cancelled():
            failure = ending.exception()
        if failure is not None and error is None:
            raise failure
        if failure is not None and error is not None:
            error.add_note(f"aexp could not end the experiment: {type(failure).__name__}: {failure}")

    async def _close(self, error: BaseException | None) -> None:
        if self._state is State.ACTIVE and error is not None:
            self._complete(*outcome(error))
        keep = "save" if error is None else self._options.on_error
        if keep == "save":
            await self._in_turn(self._save(None, False))
        else:
            await self._in_turn(self._leave(Kind.KEPT if keep == "keep" else Kind.DISCARDED))

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
