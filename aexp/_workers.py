"""The only bridge from the event loop to threads: calls that no kind of cancellation can cut in two."""

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import anyio

from ._files import Stopped, Thread, told_of_disk
from .errors import ForkedError, RepositoryClosed

if TYPE_CHECKING:
    from ._formats.printed import Listener
    from ._programs import Ended, Program

H = TypeVar("H")
A = TypeVar("A")
T = TypeVar("T")
P = ParamSpec("P")
SLICE: Final = 1e-3
"""Seconds for which a listener is told lines without a pause for the rest of the loop."""


async def settled(future: "asyncio.Future[T]") -> T:
    """Wait until *future* is done, however often the caller is cancelled meanwhile; then raise that cancellation."""
    try:
        await _done(future)
    except asyncio.CancelledError as error:
        raise _with_failure(await wait_through(future) or error, future) from None
    return future.result()


async def settled_before(task: "asyncio.Task[T]", deadline: float) -> bool:
    """Wait for *task* until *deadline* of the loop's clock; say whether it has ended; raise a cancellation afterwards."""
    cancelled = await wait_through(task, deadline)
    if cancelled is not None:
        raise _with_failure(cancelled, task)
    return task.done()


async def finished(future: "asyncio.Future[T]", withdraw: Callable[[], bool]) -> T:
    """Wait for *future*; when cancelled, try to *withdraw* the work, and see it through if it has begun."""
    try:
        await _done(future)
    except asyncio.CancelledError as error:
        if withdraw():
            raise
        raise _with_failure(await wait_through(future) or error, future) from None
    return future.result()


def _done(future: "asyncio.Future[Any]") -> "asyncio.Future[None]":
    """Return a future that is done when *future* is, and whose cancellation does not reach it.

    As `asyncio.wait`, without its dozen objects: a thousand experiments that are saved at once wait in it, and the
    passes of the garbage collector over what they hold stop the loop.
    """
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if future.done():
        waiter.set_result(None)
    else:
        future.add_done_callback(partial(_wake, waiter))
    return waiter


def _wake(waiter: "asyncio.Future[None]", _: object) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def wait_through(future: "asyncio.Future[T]", deadline: float | None = None) -> asyncio.CancelledError | None:
    """Wait until *future* is done, at most until *deadline*; return the last cancellation that was asked for meanwhile.

    anyio's shield alone does not stop a native `task.cancel()`, and without it a cancelled anyio scope would wake
    the loop without pause while this waits; so both.
    """
    cancelled: asyncio.CancelledError | None = None
    loop = asyncio.get_running_loop()
    with anyio.CancelScope(shield=True):
        while not future.done() and (deadline is None or loop.time() < deadline):
            try:
                await asyncio.wait((future,), timeout=None if deadline is None else deadline - loop.time())
            except asyncio.CancelledError as error:
                cancelled = error
    return cancelled


def _with_failure(cancelled: asyncio.CancelledError, future: "asyncio.Future[T]") -> asyncio.CancelledError:
    """Note on the cancellation why the work failed meanwhile, if it did."""
    if future.done() and not future.cancelled() and (failure := future.exception()) is not None:
        cancelled.add_note(f"meanwhile: {type(failure).__name__}: {failure}")
    return cancelled


class Worker(Generic[H]):
    """One thread, and one thing that never leaves it: *make* is called in the thread, at the first call.

    The thing is lent to the functions that are run; so plumbing that belongs to one thread cannot be called from
    another. By the time anybody sees a cancellation, a call either never began or is complete.
    """

    def __init__(self, name: str, make: Callable[[], H], path: str = "") -> None:
        self._make = make
        self._path = path
        self._lent: H | None = None
        self._last: Future[None] | None = None
        self._process = os.getpid()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, function: Callable[Concatenate[H, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call *function* in the thread, with the lent thing first; return or raise what it does.

        Raises `RepositoryClosed` once the thread has ended, and `ForkedError` in a forked child, where it never was: a
        call would not return. Cancelled before it began, it never runs; afterwards it is
        waited for, and the cancellation raised then.
        """
        if self._process != os.getpid():
            raise ForkedError
        try:
            asked: Future[T] = self._thread.submit(lambda: _told(lambda: function(self._lend(), *args, **kwargs)))
        except RuntimeError as error:  # the thread has ended
            raise RepositoryClosed(self._path) from error
        return await finished(asyncio.wrap_future(asked), asked.cancel)

    def soon(self, function: Callable[Concatenate[H, P], object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call *function* in the thread later; nobody waits for it, and what it raises is nobody's business."""
        with suppress(RuntimeError):  # the thread has ended
            self._thread.submit(lambda: function(self._lend(), *args, **kwargs))

    def _lend(self) -> H:
        if self._lent is None:
            self._lent = self._make()
        return self._lent

    def _let_go(self) -> None:
        self._lent = None

    async def aclose(self) -> None:
        """Let the lent thing go and end the thread, once all that was asked for before is done; nothing in a forked child."""
        if self._process != os.getpid():
            return
        last = self._last = self._last or self._thread.submit(self._let_go)
        self._thread.shutdown(wait=False)
        try:
            await settled(asyncio.wrap_future(last))
        finally:
            self._thread.shutdown()  # it has nothing left to do, so the loop does not wait here


async def all_closed(*workers: Worker[Any]) -> None:
    """End *workers*, all of them, however often the caller is cancelled meanwhile; then raise that cancellation."""
    cancelled: asyncio.CancelledError | None = None
    for worker in workers:
        try:
            await worker.aclose()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def errand(
    name: str,
    call: Callable[[Callable[[], bool], Callable[[A], None]], T],
    listener: Callable[[A], object] | None = None,
    threads: Executor | None = None,
) -> T:
    """Make a long *call* in a thread of its own, or in one of *threads*; return or raise what it does.

    The call is given two functions: one that says whether it is to stop, which it answers by raising `Stopped`, and
    one that tells *listener* something on the event loop. Cancelled, the call is told to stop, waited for, and the
    cancellation raised then. What the listener raises stops the call, too, and is raised here.
    """
    loop, stop, thread = asyncio.get_running_loop(), threading.Event(), threads or Thread(name)
    failures: list[BaseException] = []

    def hear(news: A) -> None:
        if listener is not None and not failures:
            try:
                listener(news)
            except BaseException as error:
                failures.append(error)
                stop.set()

    try:
        asked = thread.submit(_told, lambda: call(stop.is_set, lambda news: _tell(loop, hear, news)))
    except RuntimeError as error:  # the threads have ended
        raise RepositoryClosed("") from error
    future = asyncio.wrap_future(asked)
    try:
        await _done(future)
    except asyncio.CancelledError as error:
        stop.set()
        if asked.cancel():
            raise
        cancelled = await wait_through(future) or error
        raise cancelled if isinstance(future.exception(), Stopped) else _with_failure(cancelled, future) from None
    finally:
        if threads is None:
            thread.shutdown()  # it has nothing left to do, so the loop does not wait here
    if failures:
        raise failures[0]
    return future.result()


def _tell(loop: asyncio.AbstractEventLoop, hear: Callable[[A], None], news: A) -> None:
    with suppress(RuntimeError):  # the loop was closed under our feet
        loop.call_soon_threadsafe(hear, news)


async def attended(program: "Program") -> "Ended":
    """Run *program*, with a thread of its own to attend to it, and say how it ended.

    Its listener is called on the event loop, with every line before this returns; what it raises stops the program,
    and is raised here. Raises `CommandFailed` when it cannot be started. Cancelled, the program is stopped with all
    that it started, and the cancellation raised when that is over.
    """
    thread = Thread("aexp-program")
    ear = Ear(program, program.order.listener)
    asked = thread.submit(program.run, ear.hear if program.order.listener is not None else None)
    thread.shutdown(wait=False)
    try:
        ended = await finished(asyncio.wrap_future(asked), program.stop)
        await ear.finish()
    finally:
        ear.close()
    return ended


class Ear:
    """Brings the lines of a program from its thread to a listener on the event loop: in order, and some at a time."""

    def __init__(self, program: "Program", listener: "Listener | None") -> None:
        self._program, self._listener = program, listener
        self._loop, self._context = asyncio.get_running_loop(), copy_context()
        self._untold: deque[tuple[int, Iterator[bytes]]] = deque()
        self._told = asyncio.Event()
        self._failure: BaseException | None = None

    def hear(self, stream: int, lines: Iterable[bytes]) -> None:
        """Take *lines* of a stream, in the thread."""
        self._untold.append((stream, iter(lines)))
        try:
            self._loop.call_soon_threadsafe(self._tell, context=self._context)
        except RuntimeError:  # the loop was closed under our feet
            self._program.go_on(stream)

    def _tell(self) -> None:
        pause = time.perf_counter() + SLICE
        while self._untold:
            stream, lines = self._untold[0]
            for line in lines if self._listener is not None else ():
                self._call(stream, line)
                if time.perf_counter() > pause:
                    self._loop.call_soon(self._tell, context=self._context)
                    return
            self._untold.popleft()
            self._program.go_on(stream)
        self._told.set()

    def _call(self, stream: int, line: bytes) -> None:
        if self._listener is None:
            return
        try:
            self._listener("stdout" if stream == 1 else "stderr", line)
        except BaseException as error:
            self._failure, self._listener = error, None
            self._program.stop()

    async def finish(self) -> None:
        """Wait until all is told, once the thread has ended; raise what the listener raised."""
        if self._untold:
            self._told.clear()
            await self._told.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Tell nothing any more."""
        self._listener = None


async def aside(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call *function* in a thread of its own, where it keeps nobody waiting; return or raise what it does.

    Cancelled, it is seen through, and the cancellation raised then.
    """
    thread = Thread("aexp-aside")
    asked = thread.submit(_told, partial(function, *args, **kwargs))
    thread.shutdown(wait=False)
    return await finished(asyncio.wrap_future(asked), lambda: False)


def _told(call: Callable[[], T]) -> T:
    """Return what *call* does; a disk that is full or broken and a lack of descriptors are told as errors of ours."""
    try:
        return call()
    except OSError as error:
        ours = told_of_disk(error)
        if ours is error:
            raise
        raise ours from error


def answer(future: "Future[T]", value: T) -> None:
    """Give *value* to who waits for *future*, if anybody still does."""
    with suppress(InvalidStateError):
        future.set_result(value)


def fail(future: "Future[Any]", failure: BaseException) -> None:
    """Give *failure* to who waits for *future*, if anybody still does."""
    with suppress(InvalidStateError):
        future.set_exception(failure)


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until *event* is set, at most *seconds*."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
