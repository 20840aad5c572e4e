"""Watching: what is told of experiments while they run, to whoever asks, in this and in other processes."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from attrs import define, field

import aexp
from aexp import EventKind, Status

LATE = 10.0  # seconds that an event may take on a busy machine

PROGRAM = """
import asyncio, sys
import aexp

async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        experiment = await repository.experiment("it", params={"lr": 0.1}).init()
        await experiment.log_metric("m", 1.0, 1)
        print("begun", flush=True)
        while sys.stdin.readline():
            await experiment.log_metric("m", 2.0, experiment.next_step())
            print("logged", flush=True)

asyncio.run(main())
"""


@define(eq=False)
class Watch:
    """A watch under way, and what it has seen."""

    seen: list[aexp.Event] = field(factory=list)
    task: "asyncio.Task[None] | None" = None

    async def follow(self, repository: aexp.Repository) -> None:
        """See everything."""
        async for event in repository.watch():
            self.seen.append(event)

    async def until(self, kind: EventKind, count: int = 1) -> aexp.Event:
        """Wait for the *count*-th event of a kind, and return it."""
        end = time.monotonic() + LATE
        while True:
            found = [event for event in self.seen if event.kind is kind]
            if len(found) >= count:
                return found[count - 1]
            assert self.task is not None
            assert not self.task.done(), self.task
            assert time.monotonic() < end, f"no {kind} among {[event.kind.value for event in self.seen]}"
            await asyncio.sleep(0.01)

    def kinds(self) -> list[str]:
        """What was seen, with metrics that were told in several parts as one."""
        kinds = [event.kind.value for event in self.seen]
        return [kind for place, kind in enumerate(kinds) if kind != "metrics" or kinds[place - 1] != kind]


@asynccontextmanager
async def watching(repository: aexp.Repository) -> AsyncIterator[Watch]:
    """A watch that has begun, and ends with the block."""
    watch = Watch()
    watch.task = asyncio.create_task(watch.follow(repository))
    await asyncio.sleep(0.3)
    try:
        yield watch
    finally:
        watch.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, aexp.RepositoryClosed):
            await watch.task


@asynccontextmanager
async def program(path: Path) -> AsyncIterator["asyncio.subprocess.Process"]:
    """Another process that has begun an experiment, logs a point for each line it gets, and may be killed."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, path, stdin=pipe, stdout=pipe)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"begun\n"
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def log_one(child: "asyncio.subprocess.Process") -> None:
    """Make the other process log a point."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"more\n")
    assert await child.stdout.readline() == b"logged\n"


async def fail(experiment: aexp.Experiment) -> None:
    """Log a point, and end by an exception."""
    with contextlib.suppress(ZeroDivisionError):
        async with experiment:
            await experiment.log_metric("m", 1.0)
            _ = 1 / 0


async def test_a_life_is_told(repository: aexp.Repository, repo_path: Path) -> None:
    """Each step of an experiment's life is told once, in order, here and elsewhere, with how it stood right after."""
    async with aexp.Repository(repo_path) as other, watching(repository) as here, watching(other) as there:
        experiment = await repository.experiment("it", params={"lr": 0.1}, tags=["a"]).init()
        for step in range(10):
            await experiment.log_metric("m", step / 2, step)
        rev = await experiment.make_checkpoint()
        await experiment.set_params(depth=4)
        await here.until(EventKind.PARAMS)
        await there.until(EventKind.PARAMS)
        await experiment.set_tags("b")
        record = await experiment.save(message="done")
        for watch in (here, there):
            saved = await watch.until(EventKind.SAVED)
            assert watch.kinds() == ["begun", "metrics", "checkpoint", "params", "described", "ended", "saved"]
            begun, ended = await watch.until(EventKind.BEGUN), await watch.until(EventKind.ENDED)
            checkpoint = await watch.until(EventKind.CHECKPOINT)
            assert begun.experiment is not None
            assert (begun.experiment.points, dict(begun.experiment.params)) == (0, {"lr": 0.1})
            assert checkpoint.experiment is not None
            assert (checkpoint.rev, checkpoint.experiment.checkpoints) == (rev, (rev,))
            assert ended.experiment is not None
            assert (ended.experiment.status, ended.experiment.tags) == (Status.FINISHED, ("b",))
            assert saved.experiment is not None
            assert saved.rev == record.rev
            assert (saved.experiment.id, saved.experiment.message) == (record.id, "done")
            assert (saved.experiment.summary, saved.experiment.points) == ({"m": 4.5}, 10)
            assert saved.experiment.params == {"lr": 0.1, "depth": 4}


async def test_what_is_given_up_is_told(repository: aexp.Repository) -> None:
    """A kept experiment, its resumption, and a discarded one are told."""
    async with watching(repository) as watch:
        await fail(repository.experiment("it", on_error="keep"))
        kept = await watch.until(EventKind.KEPT)
        assert kept.experiment is not None
        assert (kept.experiment.status, str(kept.experiment.error)) == (
            Status.FAILED,
            "ZeroDivisionError: division by zero",
        )
        assert await repository.running() == []
        resumed = await repository.resume("it")
        await resumed.log_metric("m", 2.0)
        (running,) = await repository.running()
        assert (running.status, running.points, running.summary) == (Status.RUNNING, 2, {"m": 2.0})
        await resumed.discard()
        await watch.until(EventKind.DISCARDED)
        assert watch.kinds() == ["begun", "metrics", "ended", "kept", "resumed", "metrics", "discarded"]


async def test_a_watch_begins_with_what_is_there(repository: aexp.Repository, repo_path: Path) -> None:
    """First a watch tells what is running, oldest first, and what was interrupted; not what is over."""
    async with aexp.Repository(repo_path) as dying:
        await dying.experiment("left").init()
    async with repository.experiment("over"):
        pass
    for name in ("one", "two"):
        await (await repository.experiment(name).init()).log_metric("m", 1.0)
    await asyncio.sleep(0.2)

    async with watching(repository) as watch:
        told = [(event.kind.value, event.experiment and event.experiment.name) for event in watch.seen]
        assert told == [("interrupted", "left"), ("running", "one"), ("running", "two")]
        assert [event.experiment and event.experiment.points for event in watch.seen] == [0, 1, 1]


async def test_points_are_told_together(repository: aexp.Repository) -> None:
    """However fast points come, they are told ten times a second at most, and the last event has them all."""
    async with watching(repository) as watch:
        experiment = await repository.experiment("it").init()
        begin = time.monotonic()
        count = 0
        while time.monotonic() - begin < 1.5:
            for _ in range(100):
                await experiment.log_metric("m", float(count), count)
                count += 1
            await asyncio.sleep(0.001)
        await experiment.complete()
        await watch.until(EventKind.ENDED)
        metrics = [event.experiment for event in watch.seen if event.kind is EventKind.METRICS]
        assert 2 <= len(metrics) <= 10 * (time.monotonic() - begin) + 1
        assert metrics[-1] is not None
        assert (metrics[-1].points, metrics[-1].step, metrics[-1].summary) == (count, count - 1, {"m": count - 1.0})


async def test_another_process_is_seen_and_its_death(repository: aexp.Repository, repo_path: Path) -> None:
    """An experiment of another process is told like one's own; when that is killed, it is told to be interrupted."""
    async with watching(repository) as watch, program(repo_path) as child:
        await watch.until(EventKind.METRICS)
        (running,) = await repository.running()
        assert (running.name, running.pid, running.status) == ("it", child.pid, Status.RUNNING)
        assert (running.params, running.summary, running.points, running.step) == ({"lr": 0.1}, {"m": 1.0}, 1, 1)
        assert running.host
        assert running.user
        await log_one(child)
        assert (await watch.until(EventKind.METRICS, 2)).experiment is not None

        child.kill()
        await child.wait()
        interrupted = await watch.until(EventKind.INTERRUPTED)
        assert interrupted.experiment is not None
        assert (interrupted.experiment.status, interrupted.experiment.points) == (Status.INTERRUPTED, 2)
        assert await repository.running() == []
        (record,) = await repository.recover()
        saved = await watch.until(EventKind.SAVED)
        assert (saved.rev, saved.session) == (record.rev, running.session)
        assert (await watch.until(EventKind.CLOSED)).session == running.session


async def test_a_session_that_ends_is_told(repository: aexp.Repository, repo_path: Path) -> None:
    """When another repository is closed, its session is told to be closed; before, all that happened in it is told."""
    async with watching(repository) as watch:
        async with aexp.Repository(repo_path) as other, other.experiment("it") as experiment:
            await experiment.log_metric("m", 1.0)
        closed = await watch.until(EventKind.CLOSED)
        assert closed.experiment is None
        assert watch.kinds() == ["begun", "metrics", "ended", "saved", "closed"]


async def test_what_this_process_has_logged_is_running(repository: aexp.Repository) -> None:
    """`running()` has every point that was accepted before, written or not."""
    experiment = await repository.experiment("it").init()
    for count in range(1, 20):
        await experiment.log_metric("m", float(count))
        (running,) = await repository.running()
        assert (running.points, running.summary) == (count, {"m": float(count)})
    assert (running.name, running.id, running.ref) == (experiment.name, experiment.id, experiment.ref)
    assert (running.pid, running.baseline) == (os.getpid(), experiment.baseline)


async def test_watching_writes_nothing(repo_path: Path) -> None:
    """Who only watches changes no file, and makes no session; it works before there ever was one."""

    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in repo_path.rglob("*")}

    before = files()
    async with aexp.Repository(repo_path) as repository, watching(repository) as watch:
        await asyncio.sleep(0.5)
        assert await repository.running() == []
        assert watch.seen == []
    assert files() == before


async def test_a_closed_repository_is_not_watched(repo_path: Path) -> None:
    """A watch ends with `RepositoryClosed` when its repository is closed, or was never open."""
    repository = aexp.Repository(repo_path)
    with pytest.raises(aexp.RepositoryClosed):
        await anext(repository.watch())
    with pytest.raises(aexp.RepositoryClosed):
        await repository.running()
    async with repository, watching(repository) as watch:
        assert watch.task is not None
        await repository.aclose()
        with pytest.raises(aexp.RepositoryClosed):
            await watch.task


async def test_a_watch_can_be_left_at_any_time(repository: aexp.Repository) -> None:
    """Left by `break`, by closing the generator, or by cancellation at any moment, a watch leaves no task behind."""
    experiment = await repository.experiment("it").init()
    before = asyncio.all_tasks()
    async with aclosing(repository.watch()) as events:
        async for event in events:
            assert event.kind is EventKind.RUNNING
            break
    for pause in (0, 0.0001, 0.001, 0.01, 0.1, 0.2):
        task = asyncio.create_task(Watch().follow(repository))
        asyncio.get_running_loop().call_later(pause, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        task = asyncio.create_task(repository.running())  # type: ignore[arg-type]
        asyncio.get_running_loop().call_later(pause / 10, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert asyncio.all_tasks() == before
    assert [each.id for each in await repository.running()] == [experiment.id]
    await experiment.discard()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts what was read in /proc/self/io")
async def test_only_what_is_new_is_read(repository: aexp.Repository, repo_path: Path) -> None:
    """A watch reads what is there once; then it reads what is added, and when nothing is, next to nothing."""

    def read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    experiment = await repository.experiment("it").init()
    for step in range(200_000):
        await experiment.log_metric("m", step / 7, step)
    await experiment.flush()
    async with aexp.Repository(repo_path) as other, watching(other) as watch:
        begin = read()
        await asyncio.sleep(1.0)
        idle = read() - begin
        await experiment.log_metric("m", 1.0)
        await watch.until(EventKind.METRICS)
        assert idle < 100_000
        assert read() - begin < 200_000


async def test_a_stopped_process_is_still_running(repository: aexp.Repository, repo_path: Path) -> None:
    """A process that is stopped is not dead: its experiment is running, and goes on when it does."""
    async with watching(repository) as watch, program(repo_path) as child:
        await watch.until(EventKind.METRICS)
        os.kill(child.pid, signal.SIGSTOP)
        await asyncio.sleep(1.5)
        assert [each.name for each in await repository.running()] == ["it"]
        os.kill(child.pid, signal.SIGCONT)
        await log_one(child)
        event = await watch.until(EventKind.METRICS, 2)
        assert event.experiment is not None
        assert event.experiment.points == 2
        assert EventKind.INTERRUPTED not in {event.kind for event in watch.seen}


@pytest.mark.races
async def test_many_watch_many(repo_path: Path, git: Callable[..., str]) -> None:
    """Five watches of a hundred experiments in two sessions each see each of them begin, end and be saved, once."""
    async with (
        aexp.Repository(repo_path) as one,
        aexp.Repository(repo_path) as two,
        contextlib.AsyncExitStack() as stack,
    ):
        watches = [await stack.enter_async_context(watching(each)) for each in (one, two, one, two, one)]

        async def live(number: int) -> None:
            async with (one, two)[number % 2].experiment(f"e{number}") as experiment:
                for step in range(20):
                    await experiment.log_metric("m", float(step), step)
                    await asyncio.sleep(0.01)

        await asyncio.gather(*map(live, range(100)))
        for watch in watches:
            await watch.until(EventKind.SAVED, 100)
            for kind in (EventKind.BEGUN, EventKind.ENDED, EventKind.SAVED):
                names = [event.experiment.name for event in watch.seen if event.kind is kind and event.experiment]
                assert sorted(names) == sorted(f"e{number}" for number in range(100))
            last = {e.experiment.name: e.experiment.points for e in watch.seen if e.experiment}
            assert set(last.values()) == {20}
    assert git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=repo_path).count("\n") == 99


JOINING = """
import asyncio
import aexp

async def main():
    async with aexp.init(params={"inner": 1}) as experiment:
        for step in range(20):
            await experiment.log_metric("inner", float(step), step)
            await asyncio.sleep(0.05)

asyncio.run(main())
"""


async def test_a_program_that_joined_is_a_part(repository: aexp.Repository, repo_path: Path) -> None:
    """What a program logs that an experiment runs is seen as the experiment's, while it runs, and when it has ended."""
    async with watching(repository) as watch:
        async with repository.experiment("it", params={"outer": 1}) as experiment:
            await experiment.log_metric("outer", 0.5, 100)
            work = asyncio.create_task(experiment.run([sys.executable, "-c", JOINING], isolated=False, cwd=repo_path))
            counts = []
            while not work.done():
                (running,) = await repository.running()
                series = await repository.history("it")
                counts.append(len(series["inner"]) if "inner" in series else 0)
                assert running.points >= 1
                await asyncio.sleep(0.02)
            await work
            (running,) = await repository.running()
            assert (running.points, running.summary, running.step) == (21, {"outer": 0.5, "inner": 19.0}, 100)
            assert running.params == {"outer": 1, "inner": 1}
            assert list((await repository.history("it", "inner"))["inner"].steps) == list(range(20))
        await watch.until(EventKind.SAVED)
        assert any(0 < count < 20 for count in counts)
        assert {event.experiment.name for event in watch.seen if event.experiment} == {"it"}
        assert [kind for kind in watch.kinds() if kind in {"begun", "ended", "saved"}] == ["begun", "ended", "saved"]
        points = [
            event.experiment.points for event in watch.seen if event.kind is EventKind.METRICS and event.experiment
        ]
        assert any(1 < count < 21 for count in points)
        assert points[-1] == 21
