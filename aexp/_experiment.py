"""One live experiment: what a program logs to, from `init()` to `save()` or `discard()`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar

from attrs import evolve

from ._desk import Desk, Options
from ._formats.account import Account, begin, failure_to_json
from ._formats.batch import Stream
from ._formats.experiment import part_record
from ._formats.journal import Extents, Kind
from ._formats.series import Number
from ._layout import experiment_ref
from ._lifecycle import Action, State, Status, after, is_ending
from ._names import new_id, random_name
from ._outcome import outcome
from ._running import Running
from ._saver import Request
from ._store import Store
from ._values import Failure, Record
from ._ways import Join
from ._workers import settled_before
from ._workplace import Lent
from .errors import InvalidName, NameTaken

T = TypeVar("T")
GUESSES: Final = 20
"""How many random names are tried before the collision is told."""


class Experiment(Running):
    """An experiment under way; `Repository.experiment` makes it, `async with` or `init()` begins it.

    Its methods may be called from any task of the loop that opened the repository, and the `_nowait` ones from any
    thread. A call out of order raises `InvalidTransition` and changes nothing.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_ended",
        "_open",
        "_options",
        "_record",
    )

    def __init__(
        self,
        open: Callable[[str], Awaitable[Desk]],
        options: Options,
        ended: Callable[[], Awaitable[None]] | None = None,
        join: Join | None = None,
    ) -> None:
        self._open, self._options, self._ended, self._join = open, options, ended, join
        self._censor = options.censor
        self._turn: asyncio.Task[Any] | None = None
        self._lent: list[Lent] = []
        self._clear()

    def _clear(self) -> None:
        self._reset()
        self._account: Account | None = None
        self._desk: Desk | None = None
        self._record: Record | None = None
        self._params_text, self._began, self._joinable, self._edited = "", 0.0, False, {}

    # ---- what it is ----

    @property
    def status(self) -> Status:
        """How the work stands: `running` until `complete()`, `save()` or the end of the block."""
        return Status.RUNNING if self._account is None else self._account.status

    @property
    def id(self) -> str:
        """The id, 32 hex digits, unique for ever; empty before `init()`."""
        return "" if self._account is None else self._account.joins or self._account.id

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
                if ref in desk.taken and not self._options.force and self._join is None:
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
            joins="" if self._join is None else self._join.experiment,
            outs=self._options.outs,
        )
        self._adopt(desk, account, Stream(account.number), started.params)
        self._journal.record(Kind.BEGIN, begin(account))
        self._put_files(started.edited)

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
        self._joinable = True  # it may have run programs before

    async def __aenter__(self) -> Self:
        """Begin, as `init()` does; one that was resumed is taken as it is."""
        return self if self._state is State.ACTIVE else await self.init()

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

        In a program that joined an experiment of another it only flushes, and returns an empty text: commits are made
        there. Raises `NameTaken` when another process took the name, and what the disk says. Cancelled, it did nothing
        or all.
        """
        after(self._state, Action.CHECKPOINT)
        if self._join is not None:
            await self.flush()
            return ""
        return await self._in_turn(self._make_checkpoint(message))

    async def _make_checkpoint(self, message: str | None) -> str:
        after(self._state, Action.CHECKPOINT)
        account, desk = self._here()
        text = account.message if message is None else self._message(message)
        told = evolve(account, duration=time.monotonic() - self._began, step=self._step, message=text)
        rev = (await desk.saver.commit(self._request(told, final=False, force=False))).rev
        account, _ = self._here()
        if rev:  # a run of DVC makes none
            self._account = evolve(account, checkpoints=(*account.checkpoints, rev))
        return rev

    # ---- end ----

    async def complete(self, status: Status = Status.FINISHED) -> None:
        """End the work with *status* (finished, failed or cancelled); ACTIVE -> COMPLETED: no more logging.

        Programs that still run are stopped, as by all that ends an experiment.
        """
        if not is_ending(Status(status)):
            raise ValueError(f"an experiment ends finished, failed or cancelled, not {status}")
        after(self._state, Action.COMPLETE)
        await self._stop_programs()
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

        In a program that joined an experiment of another, what was logged is made durable, and taken in there; the
        record has no rev and holds what this program logged.
        """
        after(self._state, Action.SAVE)
        await self._stop_programs()
        return await self._in_turn(self._save(message, force))

    async def _save(self, message: str | None, force: bool) -> Record:
        after(self._state, Action.SAVE)
        if self._record is not None:
            return self._record
        if message is not None:
            await self._describe(Kind.MESSAGE, message=self._message(message))
        await self._gather()
        await self._take_outs()
        if self._state is State.ACTIVE:
            self._complete(Status.FINISHED, None)
        account, desk = self._here()
        if self._join is not None:
            await self._journal.flush()
            step = await desk.worker.run(_highest, account, self._stream.extents.copy())
            self._record = part_record(evolve(account, step=step), self._summary, desk.settings.folder)
        else:
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
        await self._stop_programs()
        await self._in_turn(self._leave(Kind.DISCARDED))

    async def _leave(self, fate: Kind) -> None:
        after(self._state, Action.DISCARD)
        await self._gather()
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
        await self._stop_programs()
        if self._state is State.ACTIVE and error is not None:
            self._complete(*outcome(error, self._censor))
        keep = "save" if error is None else self._options.on_error
        if keep == "save":
            await self._in_turn(self._save(None, False))
        else:
            await self._in_turn(self._leave(Kind.KEPT if keep == "keep" else Kind.DISCARDED))


def _highest(store: Store, account: Account, extents: Extents) -> int:
    from . import _joining

    return _joining.highest(store, account, extents)
