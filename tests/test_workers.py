"""The bridge to threads: a call that has begun is seen through, one that has not begun never runs."""

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from attrs import define, field

from aexp._workers import Worker, settled, settled_before

LIMIT = 10.0  # seconds; what waits longer has hung


def on_every_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test on asyncio's own loop and on uvloop's."""
    signature = inspect.signature(test)
    place = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)

    def run(loop: str, **fixtures: Any) -> None:
        factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test(**fixtures))

    functools.update_wrapper(run, test)
    vars(run)["__signature__"] = signature.replace(parameters=[place, *signature.parameters.values()])
    on_both: Callable[..., None] = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])(run)
    return on_both


@define(eq=False)
class Bench:
    """What is lent: it notes every call, and whether two were ever in it at once."""

    thread: int = field(factory=threading.get_ident)
    began: list[str] = field(factory=list)
    ended: list[str] = field(factory=list)
    inside: int = 0
    most: int = 0

    def work(self, name: str, gate: threading.Event, failure: Exception | None = None) -> str:
        """Begin, wait until the gate is open, end."""
        assert threading.get_ident() == self.thread
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.began.append(name)
        gate.wait(LIMIT)
        self.inside -= 1
        self.ended.append(name)
        if failure is not None:
            raise failure
        return name


@define(eq=False)
class Shop:
    """A worker, its bench, and the gate that lets a call end."""

    worker: Worker[Bench]
    benches: list[Bench]
    gate: threading.Event = field(factory=threading.Event)

    @property
    def bench(self) -> Bench:
        """The one that was made."""
        (bench,) = self.benches
        return bench

    async def begun(self, name: str) -> None:
        """Wait until the call has begun."""
        async with asyncio.timeout(LIMIT):
            while not (self.benches and name in self.bench.began):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def open_soon(self, seconds: float = 0.03) -> None:
        """Let calls end a little later, from another thread."""
        threading.Timer(seconds, self.gate.set).start()


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A worker with nothing to do."""
    benches: list[Bench] = []

    def make() -> Bench:
        benches.append(Bench())
        return benches[-1]

    shop = Shop(Worker("aexp-test", make), benches)
    yield shop
    shop.gate.set()
    asyncio.run(shop.worker.aclose())


# ---- a worker ----


async def by_cancel(task: "asyncio.Task[Any]") -> None:
    """Cancel once."""
    task.cancel()


async def by_two_cancels(task: "asyncio.Task[Any]") -> None:
    """Cancel, and again while the first one waits."""
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()


async def by_many_cancels(task: "asyncio.Task[Any]") -> None:
    """Cancel without patience."""
    for _ in range(20):
        task.cancel()
        await asyncio.sleep(0)


@pytest.mark.parametrize("cancel", [by_cancel, by_two_cancels, by_many_cancels])
@on_every_loop
async def test_a_call_that_has_begun_is_seen_through(
    shop: Shop, cancel: "Callable[[asyncio.Task[Any]], Awaitable[None]]"
) -> None:
    """However often a task is cancelled, it ends after the call that it waits for, and then it is cancelled."""
    task = asyncio.create_task(shop.worker.run(Bench.work, "save", shop.gate))
    await shop.begun("save")
    await cancel(task)
    await asyncio.sleep(0.02)
    waited = not task.done()
    shop.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert waited
    assert shop.bench.ended == ["save"]


async def in_wait_for(call: Coroutine[Any, Any, str]) -> None:
    """Wait no longer than a moment, with wait_for."""
    await asyncio.wait_for(call, 0.02)


async def in_timeout(call: Coroutine[Any, Any, str]) -> None:
    """Wait no longer than a moment, with timeout."""
    async with asyncio.timeout(0.02):
        await call


async def in_fail_after(call: Coroutine[Any, Any, str]) -> None:
    """Wait no longer than a moment, with anyio."""
    with anyio.fail_after(0.02):
        await call


@pytest.mark.parametrize("limited", [in_wait_for, in_timeout, in_fail_after])
@on_every_loop
async def test_a_time_limit_is_told_after_the_call_has_ended(
    shop: Shop, limited: Callable[[Coroutine[Any, Any, str]], Awaitable[None]]
) -> None:
    """Every kind of time limit raises TimeoutError, and by then the call is complete."""
    shop.open_soon(0.08)
    with pytest.raises(TimeoutError):
        await limited(shop.worker.run(Bench.work, "save", shop.gate))

    assert shop.bench.ended == ["save"]


@on_every_loop
async def test_a_cancelled_scope_catches_the_cancellation_after_the_call_has_ended(shop: Shop) -> None:
    """An anyio scope that is cancelled from outside is left when the call is complete, and not before."""
    with anyio.CancelScope() as scope:
        waiting = asyncio.get_running_loop().call_later(0.02, scope.cancel)
        shop.open_soon(0.06)
        await shop.worker.run(Bench.work, "save", shop.gate)
        pytest.fail("the cancellation was lost")

    assert waiting.when() <= asyncio.get_running_loop().time()
    assert scope.cancelled_caught
    assert shop.bench.ended == ["save"]


@on_every_loop
async def test_move_on_after_moves_on_when_the_call_has_ended(shop: Shop) -> None:
    """`move_on_after` does not leave a call behind that is still at work."""
    shop.open_soon(0.06)
    with anyio.move_on_after(0.02) as scope:
        await shop.worker.run(Bench.work, "save", shop.gate)

    assert scope.cancelled_caught
    assert shop.bench.ended == ["save"]


@on_every_loop
async def test_a_failing_sibling_waits_for_the_call(shop: Shop) -> None:
    """A task group is left with its first error only when the call of a sibling is complete."""

    async def fail() -> None:
        await shop.begun("save")
        shop.open_soon()
        raise LookupError("first")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with asyncio.TaskGroup() as group:
            group.create_task(shop.worker.run(Bench.work, "save", shop.gate))
            group.create_task(fail())

    assert [type(error) for error in caught.value.exceptions] == [LookupError]
    assert shop.bench.ended == ["save"]


@on_every_loop
async def test_a_native_cancellation_is_not_lost_in_a_cancelled_scope(shop: Shop) -> None:
    """A task that is cancelled while the scope inside it is cancelled, too, ends cancelled."""

    async def scoped() -> None:
        with anyio.move_on_after(0.01):
            await shop.worker.run(Bench.work, "save", shop.gate)
        await asyncio.sleep(LIMIT)

    task = asyncio.create_task(scoped())
    await shop.begun("save")
    await asyncio.sleep(0.03)
    task.cancel()
    await asyncio.sleep(0.01)
    shop.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)

    assert shop.bench.ended == ["save"]


@on_every_loop
async def test_a_call_that_has_not_begun_never_runs(shop: Shop) -> None:
    """A task that is cancelled while its call waits behind another one ends at once, and the call never runs."""
    first = asyncio.create_task(shop.worker.run(Bench.work, "first", shop.gate))
    await shop.begun("first")
    second = asyncio.create_task(shop.worker.run(Bench.work, "second", shop.gate))
    await asyncio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(second, 1)
    third = asyncio.create_task(shop.worker.run(Bench.work, "third", shop.gate))
    shop.gate.set()

    assert [await first, await third] == ["first", "third"]
    assert shop.bench.began == ["first", "third"]


@on_every_loop
async def test_what_a_cancelled_call_raises_is_a_note(shop: Shop) -> None:
    """The error of a call that was seen through is attached to the cancellation, not lost and not raised instead."""
    task = asyncio.create_task(shop.worker.run(Bench.work, "save", shop.gate, OSError(28, "disk full")))
    await shop.begun("save")
    task.cancel()
    await asyncio.sleep(0)
    shop.gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task

    assert any("DiskFull" in note for note in caught.value.__notes__)


@on_every_loop
async def test_a_thing_is_made_once_and_is_never_in_two_calls(shop: Shop) -> None:
    """Calls of many tasks, half of which are cancelled, reach one thing in one thread, one at a time."""
    shop.gate.set()
    tasks = [asyncio.create_task(shop.worker.run(Bench.work, str(n), shop.gate)) for n in range(200)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert answers[1::2] == [str(n) for n in range(1, 200, 2)]
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    assert shop.bench.began == shop.bench.ended
    assert shop.bench.most == 1
    assert len({thread.name for thread in threading.enumerate() if thread.name.startswith("aexp-test")}) == 1


@on_every_loop
async def test_waiting_in_a_cancelled_scope_burns_no_time(shop: Shop) -> None:
    """The loop sleeps while a cancelled scope waits for a call, where a scope alone would wake it without pause."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        shop.open_soon(0.3)
        began = time.thread_time()
        with suppress(asyncio.CancelledError):
            await settled(asyncio.ensure_future(shop.worker.run(Bench.work, "save", shop.gate)))
        spent = time.thread_time() - began

    assert shop.bench.ended == ["save"]
    assert spent < 0.05


@on_every_loop
async def test_a_thing_that_cannot_be_made_is_tried_again(shop: Shop) -> None:
    """What making the lent thing raises reaches the caller; the next call tries again."""
    tries: list[int] = []

    def make() -> Bench:
        tries.append(1)
        if len(tries) == 1:
            raise FileNotFoundError("no repository")
        return Bench()

    worker = Worker("aexp-test-late", make)
    shop.gate.set()
    with pytest.raises(FileNotFoundError):
        await worker.run(Bench.work, "one", shop.gate)
    answer = await worker.run(Bench.work, "two", shop.gate)
    await worker.aclose()

    assert answer == "two"
    assert len(tries) == 2


@pytest.mark.parametrize("times", [1, 2])
@on_every_loop
async def test_closing_waits_for_what_has_begun(shop: Shop, times: int) -> None:
    """`aclose` ends the thread after the call in it, however often it is cancelled, and closing again is harmless."""
    call = asyncio.create_task(shop.worker.run(Bench.work, "save", shop.gate))
    await shop.begun("save")
    closing = asyncio.create_task(shop.worker.aclose())
    for _ in range(times):
        await asyncio.sleep(0.01)
        closing.cancel()
    await asyncio.sleep(0.01)
    early = closing.done()
    shop.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await shop.worker.aclose()

    assert not early
    assert await call == "save"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aexp-test")]


@on_every_loop
async def test_a_deadline_ends_the_waiting_and_not_the_work() -> None:
    """`settled_before` waits through cancellations up to its deadline, and the work goes on behind it."""
    done = asyncio.Event()
    work = asyncio.create_task(done.wait())
    loop = asyncio.get_running_loop()
    late = await settled_before(work, loop.time() + 0.02)
    waiting = asyncio.create_task(settled_before(work, loop.time() + LIMIT))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.sleep(0.01)
    through = not waiting.done()
    done.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert not late
    assert through
    assert work.result() is True
    assert await settled_before(work, loop.time())


@on_every_loop
async def test_what_is_asked_for_later_is_done_before_the_thread_ends(shop: Shop) -> None:
    """`soon` returns at once; closing waits for it; after that, and when it fails, nothing is heard of it."""
    done: list[str] = []

    def fail(_: Bench) -> None:
        done.append("failed")
        raise ValueError

    shop.worker.soon(Bench.work, "later", shop.gate)
    shop.worker.soon(fail)
    shop.worker.soon(lambda _: done.append("last"))
    assert done == []
    shop.gate.set()
    await shop.worker.aclose()
    shop.worker.soon(lambda _: done.append("too late"))
    assert done == ["failed", "last"]
