"""Group commit: all saves that wait go together, through one journal sync, one pack and one set of ref updates."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import anyio
from attrs import frozen

from ._formats.account import Account, intent_to_json
from ._formats.batch import Stream
from ._formats.experiment import Author, intend, upon
from ._formats.journal import Kind
from ._gatherer import Gatherer
from ._job import Job
from ._journal import Journal
from ._store import Store
from ._values import Record, Settings
from ._ways import Within
from ._workers import Worker

if TYPE_CHECKING:
    from ._preview import Preview

GROUP: Final = 128 * 2**20
"""What a group may weigh: an experiment weighs a mebibyte and 16 times its bytes in the journal (memory while it is built)."""
QUIET: Final = 0.1
"""Seconds after a save before rows are written ahead for DVC, if no other save is under way then."""
ROWS: Final = 1_000
"""How many wait for that at most."""


@frozen(eq=False, repr=False)
class Request:
    """One commit that is wanted: the final one of an experiment, or a checkpoint."""

    account: Account
    stream: Stream
    params: str
    final: bool
    force: bool


class Saver:
    """The one place where commits of living experiments are made."""

    def __init__(
        self,
        worker: Worker[Store],
        journal: Journal,
        author: Author,
        settings: Settings,
        folder: str,
        session: str,
        preview: "Worker[Preview] | None" = None,
        within: Within | None = None,
        saved: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._worker, self._journal, self._author, self._settings = worker, journal, author, settings
        self._folder, self._session, self._preview, self._within = folder, session, preview, within
        self._saved = saved
        self._rows: list[Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self._lock = anyio.Lock()
        self._group: Gatherer[Request, Record] = Gatherer(
            self._commit, GROUP, lambda request: 2**20 + 16 * (len(request.stream.extents) + request.stream.joined)
        )

    def commit(self, request: Request) -> Awaitable[Record]:
        """Make the commit and return its record once it is durable and verified.

        Raises `NameTaken` for the loser of a race, and what the disk says; the experiment's journal stays, so asking
        again is safe: it gives the same commit, once. Cancelled, it was either not begun or is complete.
        """
        return self._group(request)

    async def idle(self) -> None:
        """Wait until no commit is under way."""
        await self._group.idle()

    async def _commit(self, requests: Sequence[Request]) -> Sequence[Record | Exception]:
        async with self._lock:
            inputs = await self._inputs(requests)
            now = time.time()
            intents = [
                intend(
                    account,
                    self._author,
                    now=now,
                    folder=self._settings.folder,
                    params=request.params,
                    final=request.final,
                    expected=expected,
                    skeleton=self._preview is None,
                )
                for request, (account, expected) in zip(requests, inputs, strict=True)
            ]
            written = self._journal.record_now(Kind.INTENT, *map(intent_to_json, intents))
            await self._journal.flush()
            jobs = [
                Job(intent, sequence.result(), self._folder, self._session, request.stream.extents.copy())
                for request, intent, sequence in zip(requests, intents, written, strict=True)
            ]
            if self._within is not None:
                return await self._lay(requests, jobs)
            answers = await self._worker.run(Store.save, jobs, self._folder)
            for request, answer in zip(requests, answers, strict=True):
                if isinstance(answer, Record):
                    self._journal.record(Kind.SAVED, [request.account.number, answer.rev, request.final])
            self._saved(len(answers))
            if self._preview is not None:
                self._rows += [answer for answer in answers if isinstance(answer, Record)]
                self._show_later()
            return answers

    def _show_later(self) -> None:
        """Write rows ahead once nothing is saved any more, so that no save waits for one; or once there are many."""
        if len(self._rows) >= ROWS:
            self.show()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(QUIET, self._when_quiet)

    def _when_quiet(self) -> None:
        self._timer = None
        if self._lock.locked():
            self._show_later()
        else:
            self.show()

    def show(self) -> None:
        """Have the rows of all that was saved written for `dvc exp show`, in a thread; nobody waits for it."""
        if self._timer is not None:
            self._timer.cancel()
        rows, self._rows, self._timer = self._rows, [], None
        if rows and self._preview is not None:
            self._preview.soon(_write_ahead, rows, self._settings.folder)

    async def _lay(self, requests: Sequence[Request], jobs: Sequence[Job]) -> Sequence[Record | Exception]:
        answers = await self._worker.run(_lay, jobs)
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Record) and request.final:
                self._journal.record(Kind.SAVED, [request.account.number, answer.rev, True])
        return answers

    async def _inputs(self, requests: Sequence[Request]) -> list[tuple[Account, str | None]]:
        """Return each account with what its ref must hold: nothing, its last checkpoint, or for `force` what is there."""
        asked = [request for request in requests if request.force or request.account.checkpoints]
        found = await self._worker.run(Store.holders, [request.account.ref for request in asked]) if asked else []
        held = {request.account.number: rev for request, rev in zip(asked, found, strict=True)}
        return [upon(request.account, held.get(request.account.number), force=request.force) for request in requests]


def _write_ahead(preview: "Preview", saved: Sequence[Record], folder: str) -> None:
    preview.write(saved, folder)


def _lay(store: Store, jobs: Sequence[Job]) -> list[Record | Exception]:
    from . import _worktree

    return _worktree.lay(store, jobs)
