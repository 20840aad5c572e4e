"""A Git repository opened for experiments: it makes them, resumes them, and reads what was saved."""

import asyncio
import os
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from . import _dvc, _machine
from ._applying import Applying
from ._caretaker import Caretaker
from ._changing import Changing
from ._desk import Desk, Options, copy_in, moving, options_of, parsed
from ._exchange import Exchange
from ._experiment import Experiment
from ._formats.batch import Stream
from ._formats.journal import Kind
from ._formats.plain import plain
from ._gatherer import Gatherer
from ._git import open_handle, resolve_commit
from ._journal import Journal
from ._layout import ROOT, WORKSPACES
from ._lifecycle import Status
from ._names import check_experiment_name, check_file_path, check_message, check_tag, new_id
from ._pipelines import Pipelines
from ._reading import Reading
from ._running import stop
from ._saver import Saver
from ._secrets import Censor
from ._sessions import session_joins
from ._store import Start, Started, Store, open_store
from ._upkeep import Upkeep
from ._values import CodeMode, Interrupted, OnError, Record, Settings, StrPath
from ._watching import Watching
from ._ways import DVC_ROOT, Join, Within, run_of_dvc
from ._workers import Worker, all_closed, settled

if TYPE_CHECKING:
    from ._formats.series import Number
    from ._living import Living
    from ._preview import Preview
    from ._recovery import Found

HANDS = 2
"""How many files and folders are brought into their store at once; each uses several threads where that is of use."""
STARTS = 128
"""How many experiments begin in one call of the Git thread."""


class Repository(Reading, Watching, Changing, Applying, Exchange, Upkeep):
    """A Git repository opened for experiments, found upward from *path* as git finds it.

    Constructing assigns only; `async with` or `open()` acts. One object serves any number of experiments with two
    threads for Git and one for the journal; another one reads the journals once somebody watches, one looks after packs
    and refs once in a while, and where there is a DVC repository, one writes ahead what `dvc exp show` will say. It
    belongs to the event loop that opened it.
    """

    def __init__(self, path: StrPath = ".", *, settings: Settings | None = None) -> None:
        super().__init__(path, settings=settings)
        self._desk: Desk | None = None
        self._turn: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._join: Join | None = None

    # ---- open and close ----

    async def open(self) -> Self:
        """Open the repository; opening again is a no-op. Nothing is written before an experiment begins.

        Raises `RepositoryNotFound`, `UnsupportedRepository`, `GitNotFound`. Cancelled, it stays closed.
        """
        if self._reader is not None:
            return self
        path, settings, variables = self._path, self._settings, dict(os.environ)
        reader = Worker("aexp-read", lambda: Pipelines(open_handle(path)), path)
        writer = Worker("aexp-git", lambda: open_store(path, settings, variables), path)
        try:
            self._dvc = await writer.run(_tidy, path)
        except BaseException:
            await all_closed(reader, writer)
            raise
        self._reader, self._writer = reader, writer
        self._watcher = Worker("aexp-live", lambda: _open_living(path), path)
        self._turn, self._loop, self._process = asyncio.Lock(), asyncio.get_running_loop(), os.getpid()
        return self

    async def aclose(self) -> None:
        """Finish the saves under way, write and sync the journal, and let everything go; closing again is a no-op.

        Experiments that are still open stay in the journal, where `interrupted()` lists them. A disk that refuses is
        asked again for `Settings.close_timeout` seconds; then raises `PointsLost`. Cancelled, it finishes first.
        """
        if self._process != os.getpid():  # in a forked child nothing of it is ours to close
            self._reader = self._desk = None
        if self._reader is not None:
            await settled(asyncio.ensure_future(self._close()))

    async def _close(self) -> None:
        reader, writer, watcher, desk = self._reader, self._writer, self._watcher, self._desk
        if reader is None or writer is None or watcher is None:
            return
        self._reader = self._writer = self._watcher = self._desk = None
        self._hidden.set()
        try:
            if desk is not None:
                await stop(desk.runs, list(desk.runs))
                await settled(asyncio.ensure_future(asyncio.to_thread(desk.hands.shutdown)))
                await desk.start.idle()
                await desk.saver.idle()
                await desk.journal.aclose()
                if desk.preview is not None:
                    desk.saver.show()
                    await desk.preview.aclose()
        finally:
            try:
                if desk is not None:
                    await desk.caretaker.aclose()
                await self._hide()
                await writer.run(Store.close)
            finally:
                await all_closed(reader, writer, watcher)

    async def __aenter__(self) -> Self:
        """Open."""
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; what goes wrong then is noted on the exception that ends the block, if there is one."""
        try:
            await self.aclose()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"aexp could not close the repository: {type(failure).__name__}: {failure}")

    def __del__(self) -> None:
        """Warn when it was not closed."""
        if getattr(self, "_reader", None) is not None:
            warnings.warn(f"{self!r} was not closed; use `async with`", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        """Path, and whether it is open."""
        return f"<aexp.Repository {self._path} {'open' if self._reader is not None else 'closed'}>"

    # ---- experiments ----

    def experiment(
        self,
        name: str | None = None,
        *,
        params: Mapping[str, Any] | object | None = None,
        overrides: Sequence[str] = (),
        baseline: str = "HEAD",
        code: CodeMode = "tracked",
        outs: Sequence[StrPath] = (),
        tags: Collection[str] = (),
        message: str | None = None,
        on_error: OnError = "save",
        force: bool = False,
    ) -> Experiment:
        """Return a new experiment; `async with` or `await .init()` begins it.

        *code* says what of the work tree is captured at the beginning: changes of tracked files, also untracked
        files, or nothing. *on_error* says what an exception in the `async with` block leads to: a saved record, a
        journal kept for `resume()`, or nothing. *force* lets it replace an experiment of the same name.
        *outs* are files and folders, relative to the top of the repository, that `save()` takes from the work tree as
        they are then, ignored or not; what is left out (secrets, links, large files) is told in `record.code.skipped`.
        *overrides* change tracked parameter files of this experiment's tree (YAML, JSON, TOML, Python), value by value, in
        the grammar of `dvc exp run -S`: `"train.lr=0.1"` in params.yaml, `"conf/a.toml:x=1"`, `"+new=2"`, `"~old"`; the work
        tree stays as it is. `init()` raises `InvalidParams` for a file or key that is not there.
        Raises `InvalidName`, `InvalidParams` and `UnsafePath`; nothing is written. In the place of what looks like a secret
        `***` is kept, with the warning `SecretRedacted`; see `Settings.allow_secrets`.
        """
        censor = Censor(self._settings.allow_secrets, os.environ)
        options = Options(
            name=None if name is None else check_experiment_name(name),
            params={} if params is None else censor.clean(plain(params), "params"),
            baseline=baseline,
            code=_one_of("code", code, ("tracked", "all", "none")),
            tags=censor.clean(tuple(dict.fromkeys(check_tag(tag) for tag in tags)), "tags"),
            message="" if message is None else censor.clean(check_message(message), "message"),
            on_error=_one_of("on_error", on_error, ("save", "keep", "discard")),
            force=force,
            overrides=parsed(overrides, self._settings.folder, censor),
            outs=tuple(dict.fromkeys(check_file_path(path, folder=self._settings.folder) for path in outs)),
            censor=censor,
        )
        return Experiment(self._ready, options)

    async def resume(self, name_or_id: str) -> Experiment:
        """Return an interrupted, kept or discarded experiment, ACTIVE again, with all its points; it is ours now.

        Raises `NotOwner` when a living session has it, `ExperimentNotFound`, `JournalCorrupt`. Cancelled, it did
        nothing or all.
        """
        return await settled(asyncio.ensure_future(self._resume(name_or_id)))

    async def _resume(self, name_or_id: str) -> Experiment:
        desk = await self._ready()
        await desk.journal.flush()
        found = await desk.worker.run(_locate, name_or_id)
        try:
            logged, last, text = await desk.worker.run(_contents, found)
            own = found.session.id == desk.session
            account = evolve(
                found.account,
                number=found.account.number if own else desk.number(),
                status=Status.RUNNING,
                error=None,
                ended=None,
                fate="",
                complete=own,
                joined=found.account.joined if own else (),
            )
            stream = Stream(account.number, found.ledger.extents[account.number]) if own else Stream(account.number)
            stream.files |= {payload[1] for kind, payload in logged if kind != Kind.POINTS}
            back = (Kind(found.account.fate),) if own else (Kind.MOVED, found.session.id)
            async with moving(desk, account.number, *back):
                await copy_in(desk, account, stream, [] if own else logged)
                await desk.worker.run(_leave, found)
        except BaseException:
            if found.session.id != desk.session:
                await desk.worker.run(_release, found)
            raise
        experiment = Experiment(self._ready, options_of(account, Censor(self._settings.allow_secrets, os.environ)))
        experiment._take_up(desk, evolve(account, complete=True), stream, text, last)
        return experiment

    async def interrupted(self) -> list[Interrupted]:
        """Return the experiments that were begun and neither saved nor discarded by a session that is over.

        One that a program has joined which is still at work is not over.
        """
        if self._desk is not None:
            await self._desk.journal.flush()
        return await self._write(_interrupted)

    async def recover(self, *, salvage: bool = False) -> list[Record]:
        """Save every interrupted experiment as it stands, and return the records; again, it changes nothing.

        One whose process died gets the status `interrupted`, others keep theirs. A name that is taken meanwhile gets a
        number. Raises `JournalCorrupt` after all others are saved; *salvage* keeps what is readable of such a journal.
        """
        kept = [each for each in await self.interrupted() if self._desk and each.session == self._desk.session]
        saved = []
        for each in kept:
            experiment = await self.resume(each.id)
            experiment._complete(Status(each.status) if each.status is not Status.RUNNING else Status.CANCELLED, None)
            saved.append(await experiment.save())
        return saved + await settled(asyncio.ensure_future(self._write(_recover, salvage)))

    # ---- inside ----

    async def _ready(self, baseline: str | None = None) -> Desk:
        """Return the desk; the first call makes the session on disk and starts the journal, if there is a *baseline*."""
        if self._desk is not None:
            return self._desk
        writer, turn = self._usable(self._writer), self._turn
        assert turn is not None
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("a Repository belongs to the event loop that opened it; open another one in this loop")
        async with turn:
            if self._desk is None:
                self._desk = await settled(asyncio.ensure_future(self._set_up(writer, baseline)))
                if self._join is None:  # DVC sees one experiment, the one that is joined
                    self._show(self._desk)
            return self._desk

    async def _set_up(self, writer: Worker[Store], baseline: str | None) -> Desk:
        id = new_id(int(time.time() * 1000), os.urandom(10))
        joins = {} if self._join is None else session_joins(self._join)
        session, author, origin, place = await writer.run(_open_session, id, baseline, joins)
        ours = weakref.ref(session)
        os.register_at_fork(after_in_child=lambda: _let_go(ours))
        journal = Journal(session.path, id, self._settings, segment=1, sequence=0)
        try:
            await journal.start()
        except BaseException:
            await writer.run(Store.forget_session)
            raise
        path, root, within = self._path, self._dvc, await writer.run(_run_of_dvc, dict(os.environ))
        preview = None if root is None else Worker("aexp-dvc", lambda: _open_preview(path, root), path)
        caretaker = Caretaker(path, willing=self._settings.upkeep)
        saver = Saver(writer, journal, author, self._settings, session.path, id, preview, within, caretaker.saved)
        start: Gatherer[Start, Started] = Gatherer(_starter(writer), STARTS)
        told = origin | {"session": id} | ({} if within is None else {"within": within.to_json()})
        hands = ThreadPoolExecutor(HANDS, thread_name_prefix="aexp-data")
        tools = (writer, journal, saver, start, hands, None, told, os.urandom, caretaker)
        return Desk(id, self._settings, *tools, preview, within, place=place)


def _one_of(option: str, value: Any, words: Sequence[str]) -> Any:
    if value not in words:
        raise ValueError(f"{option} is one of {', '.join(words)}, not {value!r}")
    return value


def _starter(worker: Worker[Store]) -> Callable[[Sequence[Start]], Awaitable[Sequence[Started | Exception]]]:
    return lambda wishes: worker.run(Store.start, wishes)


def _let_go(session: "weakref.ref[Any]") -> None:
    ours = session()
    if ours is not None:
        ours.close()


def _run_of_dvc(store: Store, variables: dict[str, str]) -> Within | None:
    if DVC_ROOT in variables:
        variables[DVC_ROOT] = os.path.realpath(variables[DVC_ROOT])
    return run_of_dvc(variables, store.handle.worktree)


def _tidy(store: Store, path: str) -> str | None:
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


def _open_session(
    store: Store, id: str, baseline: str | None, joins: dict[str, Any]
) -> tuple[Any, Any, dict[str, str], str]:
    if baseline is not None:  # without it nothing is written
        resolve_commit(store.handle, baseline)
    import_module("anyio._backends._asyncio")  # anyio would do so at the first lock, and stop the loop for 20 ms
    place = store.handle.worktree or store.handle.common
    return store.open_session(id, _machine.owner() | joins), store.author, _machine.origin(), os.path.realpath(place)


def _recover(store: Store, salvage: bool) -> list[Record]:
    from . import _recovery

    return _recovery.recover(store, salvage=salvage)


def _interrupted(store: Store) -> list[Interrupted]:
    from . import _recovery

    return _recovery.interrupted(store)


def _locate(store: Store, name_or_id: str) -> "Found":
    from . import _recovery

    return _recovery.locate(store, name_or_id)


def _contents(store: Store, found: "Found") -> tuple[list[tuple[str, Any]], "dict[str, Number]", str]:
    from . import _recovery

    return _recovery.contents(store, found)


def _leave(store: Store, found: "Found") -> None:
    from . import _recovery

    _recovery.leave(store, found)


def _release(store: Store, found: "Found") -> None:
    from . import _recovery

    _recovery.release(store, found)


def _open_living(path: str) -> "Living":
    from ._living import Living

    return Living(open_handle(path).common)


def _open_preview(path: str, root: str) -> "Preview":
    from ._preview import open_preview

    return open_preview(path, root)
