"""Calls that wait together go together: groups, their weight, their errors, and who is cancelled in them."""

import asyncio
import functools
import gc
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from attrs import define, field

from aexp._gatherer import Gatherer


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
class Counter:
    """Acts on groups of numbers: it doubles even ones, refuses odd ones, and notes every group it was given."""

    gate: asyncio.Event = field(factory=asyncio.Event)
    groups: list[list[int]] = field(factory=list)

    async def act(self, items: Sequence[int]) -> list[int | Exception]:
        """Answer for each item once the gate is open."""
        self.groups.append(list(items))
        await self.gate.wait()
        return [ValueError(f"{item} is odd") if item % 2 else 2 * item for item in items]


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


@on_every_loop
async def test_what_waits_together_goes_together() -> None:
    """The first call begins at once with those made in the same turn; all that come meanwhile are the next group."""
    counter = Counter()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    first = [asyncio.create_task(double(item)) for item in (0, 2)]
    await turns()
    second = [asyncio.create_task(double(item)) for item in (4, 6, 8)]
    await turns()
    counter.gate.set()

    assert await asyncio.gather(*first, *second) == [0, 4, 8, 12, 16]
    assert counter.groups == [[0, 2], [4, 6, 8]]


@on_every_loop
async def test_an_error_reaches_the_caller_it_belongs_to() -> None:
    """Of a group in which some items fail, each caller is told about its own item only."""
    counter = Counter()
    counter.gate.set()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    answers = await asyncio.gather(*[double(item) for item in range(4)], return_exceptions=True)

    assert [str(answer) for answer in answers] == ["0", "1 is odd", "4", "3 is odd"]


@on_every_loop
async def test_an_error_of_the_whole_group_reaches_everybody_and_the_next_group_goes_on() -> None:
    """When the call itself fails, all of its group are told, and later ones are served."""

    async def act(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise OSError(28, "disk full")
        return list(items)

    keep: Gatherer[int, int] = Gatherer(act, 100)
    answers = await asyncio.gather(keep(12), keep(13), return_exceptions=True)

    assert [type(answer) for answer in answers] == [OSError, OSError]
    assert await keep(14) == 14


@on_every_loop
async def test_a_group_has_a_weight() -> None:
    """A group weighs no more than it may, but one item that is too heavy goes alone."""
    counter = Counter()
    counter.gate.set()
    double: Gatherer[int, int] = Gatherer(counter.act, 10, lambda item: item)
    await asyncio.gather(*[double(item) for item in (4, 6, 2, 20, 8, 2)])

    assert counter.groups == [[4, 6], [2], [20], [8, 2]]


@on_every_loop
async def test_who_is_cancelled_before_the_group_begins_is_withdrawn() -> None:
    """A cancelled caller leaves a group that has not begun at once; the others of that group stay in it."""
    counter = Counter()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    first = asyncio.create_task(double(0))
    await turns()
    second, third = (asyncio.create_task(double(item)) for item in (2, 4))
    await turns()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    counter.gate.set()

    assert [await first, await third] == [0, 8]
    assert counter.groups == [[0], [4]]


@on_every_loop
async def test_who_is_cancelled_in_a_group_that_has_begun_sees_it_through() -> None:
    """A caller whose group has begun is cancelled when the group is done, and the others get their answers."""
    counter = Counter()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    first, second = [asyncio.create_task(double(item)) for item in (1, 2)]
    await turns()
    for _ in range(2):
        first.cancel()
        await turns()
    waited = not first.done()
    counter.gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await first

    assert waited
    assert caught.value.__notes__ == ["meanwhile: ValueError: 1 is odd"]
    assert await second == 4


@on_every_loop
async def test_idle_waits_for_every_group() -> None:
    """`idle` returns when nothing waits and nothing is under way, and is seen through when it is cancelled."""
    counter = Counter()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    await double.idle()
    calls = [asyncio.create_task(double(item)) for item in (0, 2)]
    await turns()
    calls.append(asyncio.create_task(double(4)))
    waiting, cancelled = (asyncio.create_task(double.idle()) for _ in range(2))
    await turns()
    cancelled.cancel()
    await turns()
    early = waiting.done() or cancelled.done()
    counter.gate.set()
    await waiting
    with pytest.raises(asyncio.CancelledError):
        await cancelled

    assert not early
    assert [call.result() for call in calls] == [0, 4, 8]


@on_every_loop
async def test_no_caller_is_left_waiting_when_the_loop_cancels_every_task() -> None:
    """At the end of a program, when all tasks are cancelled, callers end and `idle` returns, whatever had begun."""
    counter = Counter()
    counter.gate.set()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    before = asyncio.all_tasks()
    call = asyncio.create_task(double(0))
    await asyncio.sleep(0)  # the task that drives the groups is there, and has not begun
    for task in asyncio.all_tasks() - before:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 1)
    await asyncio.wait_for(double.idle(), 1)

    assert not counter.groups
    assert await double(2) == 4


@on_every_loop
async def test_who_waits_is_served_when_somebody_else_was_cancelled() -> None:
    """When the task that drives the groups is cancelled before it has begun, another one takes its place."""
    counter = Counter()
    counter.gate.set()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    before = asyncio.all_tasks()
    call = asyncio.create_task(double(2))
    await asyncio.sleep(0)
    (driver,) = asyncio.all_tasks() - before - {call}
    driver.cancel()

    assert await asyncio.wait_for(call, 1) == 4


@on_every_loop
async def test_a_refused_answer_that_nobody_asked_for_is_no_complaint(capfd: pytest.CaptureFixture[str]) -> None:
    """The error for a caller that was cancelled does not turn up later as an exception that was never retrieved."""
    counter = Counter()
    double: Gatherer[int, int] = Gatherer(counter.act, 100)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    call = asyncio.create_task(double(1))
    await turns()
    call.cancel()
    counter.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    del call
    gc.collect()
    await turns()

    assert not complaints
    assert "never retrieved" not in capfd.readouterr().err
