"""The only bridge from the event loop to threads: calls that no kind of cancellation can cut in two."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Concatenate, Generic, ParamSpec, TypeVar

import anyio

H = TypeVar("H")
A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")


async def settled(future: "asyncio.Future[T]") -> T:
    """Wait until *future* is done, however often the caller is cancelled meanwhile; then raise that cancellation.

    anyio's shield alone does not stop a native `task.cancel()`, and without it a cancelled anyio scope would wake
    the loop without pause while this waits; so both.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        if not future.cancelled() and (failure := future.exception()) is not None:
            cancelled.add_note(f"meanwhile: {type(failure).__name__}: {failure}")
        raise cancelled
    return future.result()


async def settled_before(task: "asyncio.Task[T]", deadline: float) -> bool:
    """Wait for *task* until *deadline* of the loop's clock; say whether it has ended; raise a cancellation afterwards."""
    cancelled: asyncio.CancelledError | None = None
    loop = asyncio.get_running_loop()
    with anyio.CancelScope(shield=True):
        while not task.done() and (left := deadline - loop.time()) > 0:
            try:
                await asyncio.wait((task,), timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.done()


async def finished(future: "asyncio.Future[T]", withdraw: Callable[[], bool]) -> T:
    """Wait for *future*; when cancelled, try to *withdraw* the work, and see it through if it has begun."""
    try:
        await asyncio.wait((future,))
    except asyncio.CancelledError as error:
        if withdraw():
            raise
        try:
            await settled(future)
        except asyncio.CancelledError:
            pass
        except Exception as failure:
            error.add_note(f"meanwhile: {type(failure).__name__}: {failure}")
        raise
    return future.result()


class Worker(Generic[H]):
    """One thread, and one thing that never leaves it: *make* is called in the thread, at the first call.

    The thing is lent to the functions that are run; so plumbing that belongs to one thread cannot be called from
    another. By the time anybody sees a cancellation, a call either never began or is complete.
    """

    def __init__(self, name: str, make: Callable[[], H]) -> None:
        self._make = make
        self._lent: H | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, function: Callable[Concatenate[H, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call *function* in the thread, with the lent thing first; return or raise what it does.

        Cancelled before it began, it never runs; afterwards it is waited for, and the cancellation raised then.
        """
        asked: Future[T] = self._thread.submit(lambda: function(self._lend(), *args, **kwargs))
        return await finished(asyncio.wrap_future(asked), asked.cancel)

    def _lend(self) -> H:
        if self._lent is None:
            self._lent = self._make()
        return self._lent

    async def aclose(self) -> None:
        """End the thread once what it has begun is done."""
        loop = asyncio.get_running_loop()
        await settled(asyncio.ensure_future(loop.run_in_executor(None, self._thread.shutdown)))


class Gatherer(Generic[A, R]):
    """Calls that wait together go together: one call of *act* for all that are there when the last one has ended.

    *act* returns one answer an item; an exception among the answers is raised to the caller of that item only. A group
    weighs at most *most*, but holds one item at least.
    """

    def __init__(
        self,
        act: Callable[[Sequence[A]], Awaitable[Sequence[R | Exception]]],
        most: int,
        weigh: Callable[[A], int] = lambda item: 1,
    ) -> None:
        self._act = act
        self._most = most
        self._weigh = weigh
        self._waiting: dict[asyncio.Future[R], A] = {}
        self._driver: asyncio.Task[None] | None = None

    async def __call__(self, item: A) -> R:
        """Return the answer for *item*; when cancelled, it is withdrawn if its group has not begun, else seen through."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting[future] = item
        if self._driver is None:
            self._driver = asyncio.create_task(self._drive())
        return await finished(future, lambda: self._waiting.pop(future, None) is not None)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._driver is not None:
            await settled(self._driver)

    async def _drive(self) -> None:
        try:
            while self._waiting:
                await self._act_for(self._next_group())
        finally:
            self._driver = None

    def _next_group(self) -> "dict[asyncio.Future[R], A]":
        group: dict[asyncio.Future[R], A] = {}
        weight = 0
        for future, item in self._waiting.items():
            weight += self._weigh(item)
            if group and weight > self._most:
                break
            group[future] = item
        for future in group:
            del self._waiting[future]
        return group

    async def _act_for(self, group: "dict[asyncio.Future[R], A]") -> None:
        try:
            answers: Sequence[R | Exception] = await self._act(list(group.values()))
        except BaseException as error:
            answers = [error if isinstance(error, Exception) else RuntimeError(f"cut off by {error!r}")] * len(group)
        for future, answer in zip(group, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
                future.exception()  # read it: a caller that was cancelled does not ask, and that is no mistake
            else:
                future.set_result(answer)
