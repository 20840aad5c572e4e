"""The metric queue of a session: one queue, one writer, one sync for all of its experiments.

The writer has a thread and an event loop of its own (decision 0003): a training step that keeps the program's loop
busy for a minute must not keep its points in memory for a minute. Any thread puts things into the queue; only the
writer takes them out.
"""

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar

import aiofiles
import aiofiles.threadpool.binary

from ._files import give_way, sync, sync_folder, translated, write_all, write_new
from ._formats.batch import Encoder, Entry, Item, Stream
from ._formats.journal import Kind, encode_line, header, seed
from ._layout import segment_name
from ._values import Settings
from ._workers import settled
from .errors import AexpError, DiskFull, ForkedError, JournalFailed, QueueFull, RepositoryClosed

BATCH: Final = 20_000
"""Points taken from the queue at a time; a fuller queue does not wait for the write interval."""
BACK_OFF: Final = (0.1, 0.2, 0.5, 1.0)
"""Seconds between tries to write when the disk refuses; the last one repeats."""
PARTING: Final = 2.0
"""Seconds that the end of the interpreter waits for a write that is under way."""

T = TypeVar("T")


class Journal:
    """The open journal of a session; `queue`, `limit` and `asleep` are read by the experiments on their way in."""

    def __init__(self, folder: str, session: str, settings: Settings, *, segment: int, sequence: int) -> None:
        self.queue: list[Item] = []
        """Appended to by any thread."""
        self.limit = min(BATCH, settings.queue_capacity)
        """The length of the queue at which `pressure` must be asked."""
        self.asleep = True
        """Whether the writer must be woken."""
        self._folder, self._session, self._settings = folder, session, settings
        self._encoder = Encoder(sequence)
        self._segment, self._seed, self._offset, self._synced = segment - 1, 0, 0, 0
        self._file: aiofiles.threadpool.binary.AsyncFileIO | None = None
        self._pending: list[Entry] = []
        self._unsynced: list[Entry] = []
        self._barriers: list[Future[int]] = []
        self._waiters: list[Future[None]] = []
        self._refusal: AexpError | None = None
        self._tries = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, name="aexp-journal", daemon=True)

    # ---- any thread ----

    def pressure(self, more: int = 1) -> None:
        """Hurry the writer when the queue fills; raise `QueueFull` without room for *more*, or why nothing is taken."""
        if self._refusal is not None:
            raise self._refusal
        if len(self.queue) + more > self._settings.queue_capacity:
            raise QueueFull(self._settings.queue_capacity)
        self.limit = self._settings.queue_capacity
        self._tell(self._hurry)

    def wake(self) -> None:
        """Tell the sleeping writer that there is something to write, soon."""
        self.asleep = False
        self._tell(self._awake)

    def record(self, kind: Kind, payload: object, stream: Stream | None = None) -> None:
        """Put a record into the queue, behind all that was put there before."""
        if self._refusal is not None:
            raise self._refusal
        self.queue.append((None, kind, payload, stream))
        if self.asleep:
            self.wake()

    def record_now(self, kind: Kind, payload: object) -> "Future[int]":
        """Put a record into the queue and hurry; the future gives its sequence number once it is written."""
        if self._refusal is not None:
            raise self._refusal
        written: Future[int] = Future()
        self.queue.append((None, kind, payload, written))
        self.asleep = False
        self._tell(self._hurry)
        return written

    def _barrier(self) -> "Future[int]":
        """Return a future that is done when all that was put before is synced: a record without a body."""
        return self.record_now(Kind.SEGMENT, None)

    def _tell(self, callback: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the writer has ended; `_refusal` says so to whoever asks next
                loop.call_soon_threadsafe(callback)

    # ---- the program's event loop ----

    async def start(self) -> None:
        """Start the writer and open the first segment; raise what the disk says."""
        self._thread.start()
        await settled(asyncio.wrap_future(self._ready))
        journal = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forked(journal))
        atexit.register(self.drain)

    async def room(self, more: int = 1) -> None:
        """Wait until the queue has room for *more*."""
        while len(self.queue) + more > self._settings.queue_capacity and self.queue and self._refusal is None:
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            self._tell(self._hurry)
            await asyncio.wrap_future(waiter)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was put before is on the disk, synced.

        Raises `TimeoutError` after *timeout* seconds, `DiskFull` or `JournalFailed` when the disk refuses; nothing
        is lost by that: the writer goes on trying. Cancelled, it stops waiting; the writing goes on.
        """
        async with asyncio.timeout(timeout):
            await asyncio.wrap_future(self._barrier())

    async def aclose(self) -> None:
        """Write and sync what is left, and end the writer; raise what the disk says."""
        if self._refusal is not None:
            return
        try:
            await settled(asyncio.wrap_future(self._barrier()))
        finally:
            self._end(RepositoryClosed(self._folder))
            atexit.unregister(self.drain)
            await settled(asyncio.ensure_future(asyncio.to_thread(self._thread.join)))

    def _end(self, refusal: AexpError) -> None:
        self._refusal, self.limit = refusal, 0
        self._tell(self._hurry)

    def drain(self) -> None:
        """Write what is queued when the interpreter ends; executors are gone by then, so with plain calls."""
        self._end(RepositoryClosed(self._folder))
        self._thread.join(PARTING)
        if self._thread.is_alive():
            return
        for entries in self._encoder.encode(self._take(len(self.queue))):
            self._pending += entries
        if lines := [encode_line(entry.body, self._seed) for entry in self._pending if entry.body]:
            descriptor = os.open(self._path(), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            write_all(descriptor, b"".join(lines))
            sync(descriptor)
            os.close(descriptor)

    # ---- the writer's thread: the queue ----

    def _live(self) -> None:
        with ThreadPoolExecutor(2, thread_name_prefix="aexp-journal-io") as self._io:
            try:
                asyncio.run(self._write_forever())
            except BaseException as error:  # nobody else hears this thread
                self._refusal, self.limit = JournalFailed(self._folder, OSError(0, repr(error))), 0
                waiting: tuple[Future[Any], ...] = (self._ready, *self._barriers, *self._waiters)
                for future in waiting:
                    _fail(future, self._refusal)

    async def _write_forever(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._something, self._urgent, self._unwritten = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._turn = asyncio.Lock()
        try:
            await self._open_segment()
        except OSError as error:
            _fail(self._ready, translated(error, self._folder))
            return
        syncer = asyncio.create_task(self._sync_forever())
        _answer(self._ready, None)
        while self._refusal is None or self.queue or self._pending:
            await self._something.wait()
            self._something.clear()
            if not self._urgent.is_set():
                await _wait(self._urgent, self._settings.write_interval)
            self._urgent.clear()
            try:
                if not await self._write_queue():
                    break
            except RuntimeError:  # the interpreter is ending and its executors are gone: `drain` does the rest
                break
        syncer.cancel()
        with suppress(asyncio.CancelledError, RuntimeError):
            await syncer
        if self._file is not None:
            with suppress(RuntimeError):
                await self._file.close()

    def _awake(self) -> None:
        self._something.set()

    def _hurry(self) -> None:
        self._something.set()
        self._urgent.set()

    def _take(self, most: int) -> list[Item]:
        # Two single steps of the interpreter: what other threads append meanwhile stands behind and stays.
        batch = self.queue[:most]
        del self.queue[: len(batch)]
        return batch

    def _encode(self) -> bool:
        batch = self._take(BATCH)
        for entries in self._encoder.encode(batch):
            self._pending += entries
            if len(batch) > 1000:
                give_way()
        return bool(batch)

    async def _write_queue(self) -> bool:
        """Write until the queue is empty; False when the session ends on a disk that refuses."""
        while True:
            if not self._encode():
                self.asleep = True
                if not self.queue:  # looked at again after falling asleep: nothing slips in between unseen
                    return True
                self.asleep = False
            while self._pending:
                async with self._turn:
                    failure = await self._write_pending()
                if failure is None:
                    self._tries = 0
                elif not await self._ride_out(failure):
                    return False
            self.limit = min(BATCH, self._settings.queue_capacity) if self._refusal is None else 0
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                _answer(waiter, None)

    # ---- the writer's thread: the disk ----

    def _path(self) -> str:
        return os.path.join(self._folder, segment_name(self._segment))

    async def _io_call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, function, *arguments)

    async def _open_segment(self) -> None:
        """Go on in a new file, durable; a number that could not be opened is not tried again."""
        self._segment += 1
        first = next(iter((*self._unsynced, *self._pending)), None)
        sequence = self._encoder.sequence if first is None else first.sequence - 1
        line = header(self._session, self._segment, sequence)
        await self._io_call(write_new, self._path(), line)
        await self._io_call(sync_folder, self._folder)
        if self._file is not None:
            await self._file.close()
        self._file = await aiofiles.open(self._path(), "ab", buffering=0, executor=self._io)
        self._seed = seed(self._session, self._segment)
        self._offset = self._synced = len(line)

    async def _write_pending(self) -> OSError | None:
        """Append what is pending with one write; return what the disk says when it refuses."""
        try:
            if self._file is None:
                await self._open_segment()
            elif self._offset > self._settings.segment_size:
                await self._turn_page()
            entries = self._pending
            lines = [encode_line(entry.body, self._seed) if entry.body else b"" for entry in entries]
            view = memoryview(b"".join(lines))
            assert self._file is not None
            while view:
                view = view[await self._file.write(view) :]
        except OSError as error:
            return error
        self._pending = []
        for entry, line in zip(entries, lines, strict=True):
            if not entry.body:
                self._barriers += [entry.written] if entry.written is not None else []
                continue
            if entry.stream is not None:
                entry.stream.extents.add(self._segment, self._offset, len(line))
            self._offset += len(line)
            self._unsynced.append(entry)
            if entry.written is not None:
                _answer(entry.written, entry.sequence)
        self._unwritten.set()
        return None

    async def _turn_page(self) -> None:
        assert self._file is not None
        await self._io_call(sync, self._file.fileno())
        self._unsynced = []
        await self._open_segment()

    async def _ride_out(self, failure: OSError) -> bool:
        """Answer those who wait, put away the half-written rest, pause; say whether to try again."""
        ours = translated(failure, self._path())
        full = isinstance(ours, DiskFull)
        self._tell_waiting(ours if isinstance(ours, DiskFull) else JournalFailed(self._path(), failure))
        async with self._turn:
            if full:
                with suppress(OSError):
                    await self._io_call(os.truncate, self._path(), self._offset)
            else:
                await self._leave_file()
        await _wait(self._urgent, BACK_OFF[min(self._tries, len(BACK_OFF) - 1)])
        self._tries += 1
        if self._urgent.is_set():  # somebody waits for an answer: it is behind what is pending
            self._urgent.clear()
            self._encode()
        return self._refusal is None

    def _tell_waiting(self, failure: AexpError) -> None:
        for future in [entry.written for entry in self._pending if entry.written is not None] + self._barriers:
            _fail(future, failure)
        self._pending = [entry for entry in self._pending if entry.body]
        self._barriers = []

    async def _leave_file(self) -> None:
        """Write all that may not have reached the disk again, to a new file; a failed sync is final for its file."""
        for entry in self._unsynced:
            if entry.stream is not None:
                entry.stream.extents.cut(self._segment, self._synced)
        self._pending = self._unsynced + self._pending
        self._unsynced = []
        if self._file is not None:
            with suppress(OSError):
                await self._file.close()
            self._file = None

    async def _sync_forever(self) -> None:
        while True:
            await self._unwritten.wait()
            deadline = time.monotonic() + self._settings.sync_interval
            while not self._barriers and (left := deadline - time.monotonic()) > 0:
                self._unwritten.clear()
                await _wait(self._unwritten, left)
            self._unwritten.clear()
            await self._sync()

    async def _sync(self) -> None:
        barriers, self._barriers = self._barriers, []
        count, file, segment, offset = len(self._unsynced), self._file, self._segment, self._offset
        if count and file is not None:
            try:
                await self._io_call(sync, file.fileno())
            except (OSError, ValueError):  # ValueError: the page was turned, and synced, meanwhile
                async with self._turn:
                    if segment == self._segment:
                        await self._leave_file()
                self._pending += [Entry(b"", 0, None, barrier) for barrier in barriers]
                self._hurry()
                return
            if segment == self._segment:
                del self._unsynced[:count]
                self._synced = offset
        for barrier in barriers:
            _answer(barrier, 0)


def _answer(future: "Future[T]", value: T) -> None:
    with suppress(InvalidStateError):  # whoever asked has been cancelled
        future.set_result(value)


def _fail(future: "Future[Any]", failure: BaseException) -> None:
    with suppress(InvalidStateError):
        future.set_exception(failure)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _forked(journal: "weakref.ref[Journal]") -> None:
    ours = journal()
    if ours is not None:
        ours._refusal, ours.limit, ours._loop = ForkedError(), 0, None
        ours.queue.clear()
        atexit.unregister(ours.drain)
