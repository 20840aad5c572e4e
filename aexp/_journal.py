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
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

import aiofiles
import aiofiles.threadpool.binary

from ._files import REFUSALS, Thread, give_way, of_journal, sync, sync_folder, translated, write_new
from ._formats.batch import WIDTH, Encoder, Entry, Stream, rewritten, waiting
from ._formats.journal import Kind, encode_line, header, seed
from ._layout import segment_name
from ._values import Settings
from ._workers import answer, fail, settled, wait_for
from .errors import AexpError, DiskFull, ForkedError, JournalFailed, PointsLost, QueueFull, RepositoryClosed

BATCH: Final = 20_000
"""Points taken from the queue at a time; a fuller queue does not wait for the write interval."""

T = TypeVar("T")


class Journal:
    """The open journal of a session; the experiments on their way in see `queue`, `limit` and `asleep`."""

    def __init__(self, folder: str, session: str, settings: Settings, *, segment: int, sequence: int) -> None:
        self.queue: list[Any] = []
        """Appended to by any thread."""
        self.limit = WIDTH * min(BATCH, settings.queue_capacity)
        """The length of the queue at which `pressure` must be asked."""
        self.asleep = True
        """Whether the writer must be woken."""
        self.counting = threading.Lock()  # held while any experiment's step is counted
        self._folder, self._session, self._settings = folder, session, settings
        self._encoder = Encoder(sequence)
        self._segment, self._seed, self._offset, self._synced, self._page_end = segment - 1, 0, 0, 0, 0
        self._tried = segment - 1
        """The highest number of a segment so far: one that could not be opened is not tried again."""
        self._file: aiofiles.threadpool.binary.AsyncFileIO | None = None
        self._failed = False  # whether the file must be left: what is unsynced may never reach the disk
        self._pending: list[Entry] = []
        self._unsynced: list[Any] = []  # body, stream, and so on: flat, for the garbage collector's sake
        self._folds: list[Any] = []  # their records are not yet synced
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
        self._check()
        if self.queue and len(self.queue) // WIDTH + more > self._settings.queue_capacity:
            raise QueueFull(self._settings.queue_capacity)
        self._set_limit(self._settings.queue_capacity)
        self._tell(self._hurry)

    def wake(self) -> None:
        """Tell the sleeping writer that there is something to write, soon."""
        self.asleep = False
        self._tell(self._something.set)

    def record(self, kind: Kind, payload: object, stream: Stream | None = None) -> None:
        """Put a record into the queue, behind all that was put there before."""
        self._check()
        self.queue += (None, kind, payload, stream)
        if self.asleep:
            self.wake()

    def record_now(self, kind: Kind, *payloads: object) -> "list[Future[int]]":
        """Queue a record for each payload and hurry; the futures give their numbers; None only asks for a sync."""
        self._check()
        written: list[Future[int]] = [Future() for _ in payloads]
        for payload, future in zip(payloads, written, strict=True):
            self.queue += (None, kind, payload, future)
        self.asleep = False
        self._tell(self._hurry)
        if self._refusal is not None:  # the writer may have ended meanwhile
            for future in written:
                fail(future, self._refusal)
        return written

    def _check(self) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)

    def _set_limit(self, limit: int) -> None:
        self.limit = WIDTH * limit
        if self._refusal is not None:  # looked at last, so that none is let in after the end
            self.limit = 0

    def _refuse(self, refusal: AexpError) -> None:
        self._refusal, self.limit = refusal, 0
        self._tell(self._hurry)

    def _tell(self, callback: Callable[[], None]) -> None:
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # the writer has ended; `_refusal` says so to whoever asks next
                loop.call_soon_threadsafe(callback)

    # ---- the program's event loop ----

    async def start(self) -> None:
        """Start the writer and open the first segment; raise what the disk says."""
        self._thread.start()
        try:
            await settled(asyncio.wrap_future(self._ready))
        except BaseException:
            await self._stop()
            raise
        journal = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forked(journal))
        atexit.register(self.drain)

    async def room(self, more: int = 1) -> None:
        """Wait until the queue has room for *more*, or is empty; raise why nothing is taken any more."""
        while len(self.queue) // WIDTH + more > self._settings.queue_capacity and self.queue and self._refusal is None:
            waiter: Future[None] = Future()
            self._waiters.append(waiter)
            self._tell(self._hurry)
            if self._refusal is None:  # else the writer may have ended meanwhile
                await asyncio.wrap_future(waiter)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was put before is on the disk, synced.

        Raises `TimeoutError` after *timeout* seconds, `DiskFull` or `JournalFailed` when the disk refuses; nothing
        is lost by that: the writer goes on trying. Cancelled, it stops waiting; the writing goes on.
        """
        async with asyncio.timeout(timeout):
            await asyncio.wrap_future(*self.record_now(Kind.SEGMENT, None))

    async def aclose(self) -> None:
        """Write and sync what is left, and end the writer; raise `PointsLost` when the disk refuses for `close_timeout`."""
        if isinstance(self._refusal, JournalFailed):
            raise self._refusal
        if self._refusal is None:
            try:
                await settled(asyncio.ensure_future(self._flush_at_last()))
            except REFUSALS as error:
                await self._stop()
                if left := waiting(self.queue, self._pending):
                    raise PointsLost(self._folder, error, left) from error
            finally:
                await self._stop()

    async def _flush_at_last(self) -> None:
        deadline = time.monotonic() + self._settings.close_timeout
        while True:
            try:
                return await self.flush()
            except REFUSALS:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        self._refuse(RepositoryClosed(self._folder.rpartition("/aexp/")[0]))
        atexit.unregister(self.drain)
        await settled(asyncio.ensure_future(asyncio.to_thread(self._thread.join)))

    def drain(self) -> None:
        """Write and sync what is left when the interpreter ends."""
        self._refuse(RepositoryClosed(self._folder.rpartition("/aexp/")[0]))
        self._thread.join(self._settings.close_timeout)
        if self._thread.is_alive() or self.queue or self._pending:
            raise JournalFailed(self._folder, OSError(0, "the interpreter ended before all was written"))

    # ---- the writer's thread: the queue ----

    def _live(self) -> None:
        try:
            with Thread("aexp-journal-write") as self._writing, Thread("aexp-journal-sync") as self._syncing:
                asyncio.run(self._write_forever())
        except BaseException as error:  # nobody else hears this thread
            self._refuse(of_journal(error if isinstance(error, OSError) else OSError(0, repr(error)), self._folder))
        assert self._refusal is not None
        asked: tuple[Future[Any], ...] = (self._ready, *self._waiters, *self._barriers, *self._asking())
        for future in asked:
            fail(future, self._refusal)

    async def _write_forever(self) -> None:
        self._something, self._urgent, self._unwritten = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._turn, self._loop = asyncio.Lock(), asyncio.get_running_loop()
        await self._open_segment()
        syncer = asyncio.create_task(self._sync_forever())
        answer(self._ready, None)
        while await self._write_queue():
            if self._refusal is None or self.queue:
                await self._something.wait()
                self._something.clear()
                await wait_for(self._urgent, self._settings.write_interval)
                self._urgent.clear()
                continue
            await self._sync()
            if not self._failed:
                break
        syncer.cancel()
        await self._close_file()

    def _hurry(self) -> None:
        self._something.set()
        self._urgent.set()

    def _take(self, most: int) -> list[Any]:
        # Two single steps of the interpreter: what other threads append meanwhile stands behind and stays.
        batch = self.queue[: WIDTH * most]
        del self.queue[: len(batch)]
        return batch

    def _encode(self) -> bool:
        batch = self._take(BATCH)
        for entries in self._encoder.encode(batch):
            self._pending += entries
            if len(batch) > WIDTH * 1000:
                give_way()
        return bool(batch)

    async def _write_queue(self) -> bool:
        """Write until the queue is empty; False when the session ends on a disk that refuses."""
        while True:
            if not self._encode() and not self._pending and not self._failed:
                self.asleep = True
                if not self.queue:  # looked at again after falling asleep: nothing slips in between unseen
                    return True
                self.asleep = False
            while self._pending or self._failed:
                failure = await self._write_pending()
                if failure is None:
                    self._tries = 0
                elif not await self._ride_out(failure):
                    return False
            self._set_limit(min(BATCH, self._settings.queue_capacity))
            for _ in range(len(self._waiters)):
                answer(self._waiters.pop(0), None)

    # ---- the writer's thread: the disk ----

    def _path(self, segment: int) -> str:
        return os.path.join(self._folder, segment_name(segment))

    async def _call(self, thread: Thread, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)

    async def _open_segment(self) -> None:
        """Go on in a new file, durable; if that fails, nothing has changed."""
        self._tried = segment = self._tried + 1
        first = next((entry.sequence for entry in self._pending if entry.body), self._encoder.sequence + 1)
        line = header(self._session, segment, first - 1)
        await self._call(self._writing, write_new, self._path(segment), line)
        await self._call(self._syncing, sync_folder, self._folder)
        file = await aiofiles.open(self._path(segment), "ab", buffering=0, executor=self._writing)
        await self._close_file()
        self._file, self._segment, self._seed = file, segment, seed(self._session, segment)
        self._offset = self._synced = len(line)
        self._page_end = self._offset + self._settings.segment_size

    async def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                await file.close()

    async def _write_pending(self) -> OSError | None:
        """Append what is pending with one write; return what the disk says when it refuses."""
        try:
            if self._file is not None and self._offset > self._page_end:
                await self._turn_page()
            if self._failed:
                await self._leave_file()
            if self._file is None:
                await self._open_segment()
            entries = self._pending
            lines = [encode_line(entry.body, self._seed) if entry.body else b"" for entry in entries]
            view = memoryview(b"".join(lines))
            assert self._file is not None
            while view:
                view = view[await self._file.write(view) :]
        except OSError as error:
            return error
        self._pending, many = [], []
        for entry, line in zip(entries, lines, strict=True):
            if not entry.body:
                self._barriers += [entry.written] if entry.written is not None else []
                continue
            if entry.stream is not None and entry.stream.extents.add(self._segment, self._offset, len(line)):
                many.append(entry.stream)
            self._offset += len(line)
            self._unsynced += (entry.body, entry.stream)
            if entry.written is not None:
                answer(entry.written, entry.sequence)
        self._pending += self._encoder.folds(many, self._segment, self._synced)
        self._folds += [entry.stream for entry in self._pending]
        self._unwritten.set()
        return None

    async def _turn_page(self) -> None:
        await self._sync()
        if not self._failed:
            try:
                await self._open_segment()
            except OSError:  # no room for another file: this one grows on
                self._page_end = self._offset + self._settings.segment_size

    async def _ride_out(self, failure: OSError) -> bool:
        """Put away the half-written rest, answer those who wait, pause; say whether to try again."""
        ours = translated(failure, self._path(self._segment))
        whole = False
        if isinstance(ours, DiskFull) and self._file is not None:
            with suppress(OSError):
                await self._call(self._writing, os.ftruncate, self._file.fileno(), self._offset)
                whole = True
        if not whole:
            await self._leave_file()
        self._tries += 1
        if self._tries == 1 and not whole:
            return True  # another file may do: nobody needs to know
        for future in self._asking():
            fail(future, of_journal(failure, self._path(self._segment)))
        self._pending = [entry for entry in self._pending if entry.body]
        await wait_for(self._urgent, min(self._tries / 10, 1.0))  # a full disk may stay so for hours
        self._urgent.clear()
        return self._refusal is None

    def _asking(self) -> "list[Future[int]]":
        """Return the futures of those who wait for something that is not written yet."""
        queued = [extra for extra in self.queue[3::WIDTH] if isinstance(extra, Future)]
        return [entry.written for entry in self._pending if entry.written is not None] + queued

    async def _leave_file(self) -> None:
        """Write all that may not have reached the disk again, to a new file; a failed sync is final for its file."""
        self._failed = True
        async with self._turn:  # not in the middle of a sync
            again = list(map(rewritten, self._unsynced[::2], self._unsynced[1::2]))
            for entry in again:
                if entry.stream is not None:
                    entry.stream.extents.cut(self._segment, self._synced)
            self._pending = again + [Entry(b"", 0, None, each) for each in self._barriers] + self._pending
            self._unsynced, self._barriers = [], []
            await self._close_file()
            self._failed = False

    async def _sync_forever(self) -> None:
        while True:
            await self._unwritten.wait()
            deadline = time.monotonic() + self._settings.sync_interval
            while not self._barriers and (left := deadline - time.monotonic()) > 0:
                self._unwritten.clear()
                await wait_for(self._unwritten, left)
            self._unwritten.clear()
            await self._sync()

    async def _sync(self) -> None:
        """Bring what is written to the disk; if that fails, the file is left, and written again from memory."""
        async with self._turn:
            if self._failed:
                return
            barriers, self._barriers = self._barriers, []
            count, offset = len(self._unsynced), self._offset
            if count and self._file is not None:
                try:
                    await self._call(self._syncing, sync, self._file.fileno())
                except OSError:
                    self._failed, self._barriers = True, barriers + self._barriers
                    self._hurry()
                    return
            del self._unsynced[:count]
            self._synced = offset
            self._folds = [fold for fold in self._folds if not fold.settle(self._segment, offset)]
        for barrier in barriers:
            answer(barrier, 0)


def _forked(journal: "weakref.ref[Journal]") -> None:
    ours = journal()
    if ours is not None:
        ours._refusal, ours.limit, ours._loop = ForkedError(), 0, None
        ours.queue.clear()
        atexit.unregister(ours.drain)
