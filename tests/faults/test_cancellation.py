"""The whole story, cancelled at every suspension point: done or not done, never half, and nothing left over."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import aexp

Cancel = Callable[["asyncio.Task[Any]"], None]
Story = Callable[[Path, list[int]], Coroutine[Any, Any, None]]
POINTS = 8


class CancelAt:
    """Awaits *work*, and calls *cancel* when it suspends for the *number*-th time; `reached` says whether it did."""

    def __init__(self, work: Coroutine[Any, Any, None], number: int, cancel: Callable[[], None]) -> None:
        self.work, self.number, self.cancel = work, number, cancel
        self.reached = False

    def __await__(self) -> Generator[Any, Any, None]:
        """Pass everything through, and count."""
        steps, count, sent, thrown = self.work.__await__(), 0, None, None
        while True:
            try:
                waiting = steps.send(sent) if thrown is None else steps.throw(thrown)
            except StopIteration:
                return
            count += 1
            if count == self.number:
                self.reached = True
                self.cancel()
            sent = thrown = None
            try:
                sent = yield waiting
            except BaseException as error:  # noqa: BLE001  # it is passed on
                thrown = error


async def live(path: Path, flushed: list[int]) -> None:
    """A life from opening to reading back, with a tiny queue, two checkpoints and a discarded sibling."""
    async with aexp.Repository(path, settings=aexp.Settings(queue_capacity=4)) as repository:
        async with repository.experiment("story", params={"lr": 0.1}) as experiment:
            for step in range(POINTS):
                await experiment.log_metric("loss", float(step), step)
                if step % 4 == 3:
                    await experiment.flush()
                    flushed.append(step + 1)
            await experiment.make_checkpoint()
            await experiment.set_params(depth=4)
            await experiment.log_file("notes.txt", "kept\n")
        other = await repository.experiment("other").init()
        await other.log_metric("loss", 1.0)
        await other.discard()
        await (await repository.resume("other")).save()
        await repository.experiments()
        await repository.history("story")
        await repository.baselines()
        await repository.checkpoints("story")


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in our own environment, as a program has that an experiment started."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


async def programs(path: Path, flushed: list[int]) -> None:
    """A life with programs: two that are run, one that joins, and outs."""
    async with aexp.Repository(path) as repository, repository.experiment("story", outs=["train.py"]) as experiment:
        await experiment.run("echo hello; echo oops >&2", isolated=False, grace=0.1)
        with environment(experiment.variables()):
            async with aexp.init(tags=["joined"]) as joined:
                for step in range(POINTS):
                    await joined.log_metric("loss", float(step), step)
                await joined.flush()
                flushed.append(POINTS)
        await experiment.run(["true"], isolated=False, output="inherit")


async def checkouts(path: Path, flushed: list[int]) -> None:
    """A life in private checkouts: a workspace with a program in it, and a program in one of its own."""
    async with aexp.Repository(path) as repository, repository.experiment("story") as experiment:
        async with experiment.workspace() as place:
            (place / "made.txt").write_text("x")
            await experiment.run("cat made.txt > copy.txt", grace=0.1)
        await experiment.make_checkpoint()
        await experiment.run("rm made.txt; echo y > train.py", grace=0.1)
        for step in range(POINTS):
            await experiment.log_metric("loss", float(step), step)
        await experiment.flush()
        flushed.append(POINTS)


async def natively(story: Story, path: Path, number: int, flushed: list[int], *, twice: bool) -> bool:
    """Live in a task that is cancelled at the point; say whether there was such a point."""

    def cancel() -> None:
        task.cancel()
        if twice:
            asyncio.get_running_loop().call_later(0.0005, task.cancel)

    at = CancelAt(story(path, flushed), number, cancel)

    async def run() -> None:
        await at

    task = asyncio.create_task(run())
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    assert outcome is None or isinstance(outcome, asyncio.CancelledError), repr(outcome)
    return at.reached


async def by_scope(story: Story, path: Path, number: int, flushed: list[int]) -> bool:
    """Live in a scope of anyio that is cancelled at the point; say whether there was such a point."""
    with anyio.CancelScope() as scope:
        at = CancelAt(story(path, flushed), number, scope.cancel)
        await at
    return at.reached


async def by_timeout(story: Story, path: Path, number: int, flushed: list[int]) -> bool:
    """Live under an `asyncio.timeout` that runs out at the point; say whether there was such a point."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            at = CancelAt(story(path, flushed), number, lambda: limit.reschedule(loop.time()))
            await at
    except TimeoutError:
        pass
    return at.reached


async def check(path: Path, flushed: list[int], git: Callable[..., str]) -> None:
    """Nothing is left over, and after a recovery all that was flushed is there, once."""
    left = [found for pattern in ("*.lock", "*.keep", "tmp_*", "ref-*") for found in (path / ".git").rglob(pattern)]
    assert [found for found in left if found.name != "owner.lock"] == []
    assert all((place / "idle").exists() for place in (path / ".git" / "aexp").glob("workspaces/*"))
    async with aexp.Repository(path) as repository:
        await repository.recover()
        assert await repository.interrupted() == []
        records = {record.name: record for record in await repository.experiments()}
        if flushed:
            values = list((await repository.history("story"))["loss"].values)
            assert values == [float(step) for step in range(len(values))]
            assert len(values) >= flushed[-1]
    assert set(records) <= {"story", "other"}
    assert all(record.damaged is None and record.status is not aexp.Status.RUNNING for record in records.values())
    assert git("status", "--porcelain", cwd=path) == ""


WAYS: dict[str, Callable[[Story, Path, int, list[int]], Awaitable[bool]]] = {
    "native": lambda story, path, number, flushed: natively(story, path, number, flushed, twice=False),
    "twice": lambda story, path, number, flushed: natively(story, path, number, flushed, twice=True),
    "scope": by_scope,
    "timeout": by_timeout,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("story", [live, programs, checkouts])
async def test_a_cancellation_anywhere_leaves_nothing_half_done(
    story: Story, way: str, template: Path, tmp_path: Path, git: Callable[..., str], fsck: Callable[[Path], None]
) -> None:
    """Cancelled at any suspension point, the story leaves no lock or temporary file, and loses nothing flushed."""
    number, reached = 0, True
    while reached:
        number += 1
        path = tmp_path / f"{number}"
        git("clone", "--quiet", "--no-hardlinks", template, path, cwd=tmp_path)
        flushed: list[int] = []
        reached = await WAYS[way](story, path, number, flushed)
        await check(path, flushed, git)
        if number % 5 == 0:
            fsck(path)
    assert number > 12, f"the story suspended {number - 1} times only"
