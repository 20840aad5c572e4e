"""Calls that wait together go together, in groups."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeVar

from ._workers import finished, wait_through

A = TypeVar("A")
R = TypeVar("R")


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
        self._go_on()
        return await finished(future, partial(self._withdraw, future))

    def _withdraw(self, future: "asyncio.Future[R]") -> bool:
        return self._waiting.pop(future, None) is not None

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        cancelled: asyncio.CancelledError | None = None
        while (driver := self._go_on()) is not None:
            cancelled = await wait_through(driver) or cancelled
        if cancelled is not None:
            raise cancelled

    def _go_on(self) -> "asyncio.Task[None] | None":
        """Return the task that drives the groups; begin one when there is something to do and none is under way."""
        if self._driver is not None and self._driver.done():
            self._driver = None
        if self._driver is None and self._waiting:
            self._driver = asyncio.create_task(self._drive())
            self._driver.add_done_callback(lambda _: self._go_on())  # it may have been cancelled before it began
        return self._driver

    async def _drive(self) -> None:
        while self._waiting:
            await self._act_for(self._next_group())

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
            answered = list(zip(group, answers, strict=True))
        except BaseException as error:
            failure = error if isinstance(error, Exception) else RuntimeError(f"cut off by {error!r}")
            _answer([(future, failure) for future in group])
            if not isinstance(error, Exception):
                raise
        else:
            _answer(answered)


def _answer(answered: "Iterable[tuple[asyncio.Future[R], R | Exception]]") -> None:
    for future, answer in answered:
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
            future.exception()  # read it: a caller that was cancelled does not ask, and that is no mistake
        else:
            future.set_result(answer)
