"""How experiments end: normally, by an exception, by cancellation, with their repository, or not in time."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

import aexp
from aexp import State, Status

Git = Callable[..., str]


class Boom(Exception):
    """What goes wrong."""


class Silent(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError("no words")


async def broken(experiment: aexp.Experiment, error: BaseException) -> None:
    """Log one point in the experiment's block, and raise the error there."""
    async with experiment:
        await experiment.log_metric("m", 1.0, 1)
        raise error


async def test_the_end_of_the_block_saves(repository: aexp.Repository) -> None:
    """Leaving the block normally saves the experiment as finished, and lets its times be known."""
    async with repository.experiment("it") as experiment:
        assert (experiment.state, experiment.status, experiment.record) == (State.ACTIVE, Status.RUNNING, None)
        await experiment.log_metric("m", 1.0)
    record = await repository.get("it")

    assert experiment.state is State.PERSISTED
    assert (record.status, record.error) == (Status.FINISHED, None)
    assert record.duration is not None
    assert record.ended is not None
    assert record.ended >= record.created
    assert record == experiment.record


async def test_a_block_in_which_it_was_ended_adds_nothing(repository: aexp.Repository) -> None:
    """When the block itself completed, saved or discarded the experiment, leaving it changes nothing of that."""
    async with repository.experiment("completed") as completed:
        await completed.complete(Status.FAILED)
    async with repository.experiment("saved") as saved:
        record = await saved.save(message="by hand")
    async with repository.experiment("discarded") as discarded:
        await discarded.discard()

    assert (await repository.get("completed")).status is Status.FAILED
    assert await repository.get("saved") == record
    assert discarded.state is State.UNINITIALIZED
    assert [each.name for each in await repository.experiments()] == ["completed", "saved"]


@pytest.mark.parametrize("on_error", ["save", "keep", "discard"])
async def test_an_exception_goes_on_unchanged(repository: aexp.Repository, on_error: Any) -> None:
    """Whatever `on_error` says, the same exception object leaves the block, with no note added to it."""
    error = Boom("it is broken")
    with pytest.raises(Boom) as raised:
        await broken(repository.experiment("it", on_error=on_error), error)

    assert raised.value is error
    assert not hasattr(error, "__notes__")
    names = [record.name for record in await repository.experiments()]
    assert names == (["it"] if on_error == "save" else [])
    assert [each.name for each in await repository.interrupted()] == (["it"] if on_error == "keep" else [])


async def test_a_failure_is_recorded_with_its_traceback(repository: aexp.Repository) -> None:
    """A failed experiment's record says what was raised, why, and where."""
    experiment = repository.experiment("it")

    async def divide(number: int) -> None:
        async with experiment:
            try:
                await experiment.log_metric("m", number / 0)
            except ZeroDivisionError as error:
                raise Boom("caf\u00e9 \ud800") from error

    with pytest.raises(Boom):
        await divide(1)
    record = await repository.get("it")

    assert record == experiment.record
    assert record.status is Status.FAILED
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("Boom", "caf\u00e9 \\ud800")
    assert "in divide" in record.error.traceback
    assert "ZeroDivisionError" in record.error.traceback
    assert str(record.error) == "Boom: caf\u00e9 \\ud800"


async def test_an_exception_that_cannot_be_printed_is_recorded(repository: aexp.Repository) -> None:
    """An exception whose text cannot be had still ends the experiment as failed, with its type."""
    with pytest.raises(Silent):
        await broken(repository.experiment("it"), Silent())
    record = await repository.get("it")

    assert record.status is Status.FAILED
    assert record.error is not None
    assert record.error.type == "Silent"


async def test_what_was_kept_goes_on(repository: aexp.Repository) -> None:
    """A kept experiment can be resumed in the same session, with its points, and be finished."""
    with pytest.raises(Boom):
        await broken(repository.experiment("it", params={"lr": 0.1}, on_error="keep"), Boom())
    (kept,) = await repository.interrupted()
    assert kept.status is Status.FAILED
    async with await repository.resume("it") as resumed:
        assert (resumed.id, resumed.status, resumed.summary) == (kept.id, Status.RUNNING, {"m": 1.0})
        await resumed.log_metric("m", 2.0, 2)

    assert list((await repository.history("it"))["m"].values) == [1.0, 2.0]
    assert (await repository.get("it")).status is Status.FINISHED
    assert await repository.interrupted() == []


# ---- cancellation ----


async def started(repository: aexp.Repository, experiment: aexp.Experiment) -> "asyncio.Task[None]":
    """Start a task that works inside the experiment's block until it is cancelled."""
    inside = asyncio.Event()

    async def work() -> None:
        async with experiment:
            await experiment.log_metric("m", 1.0)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    return task


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_task_saves_and_stays_cancelled(repository: aexp.Repository, times: int) -> None:
    """`task.cancel()`, once or again while it is being saved, leaves a saved, cancelled experiment and a cancelled task."""
    experiment = repository.experiment("it")
    task = await started(repository, experiment)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task

    assert task.cancelled()
    assert (await repository.get("it")).status is Status.CANCELLED
    assert (await repository.get("it")).metrics == {"m": 1.0, "step": 0}


async def test_a_timeout_cancels_the_experiment(repository: aexp.Repository) -> None:
    """`asyncio.timeout` around the block ends the experiment as cancelled, and raises its own `TimeoutError`."""

    async def out_of_time() -> None:
        async with asyncio.timeout(None) as limit, repository.experiment("it"):
            limit.reschedule(asyncio.get_running_loop().time())
            await asyncio.sleep(10)

    with pytest.raises(TimeoutError):
        await out_of_time()

    assert (await repository.get("it")).status is Status.CANCELLED


async def test_an_anyio_scope_cancels_the_experiment(repository: aexp.Repository) -> None:
    """A cancelled scope of anyio around the block ends the experiment as cancelled, saved, and is left normally."""
    with anyio.CancelScope() as scope:
        async with repository.experiment("it"):
            scope.cancel()
            await anyio.sleep(10)

    assert scope.cancelled_caught
    assert (await repository.get("it")).status is Status.CANCELLED


@pytest.mark.parametrize("on_error", ["keep", "discard"])
async def test_cancellation_obeys_on_error(repository: aexp.Repository, on_error: Any) -> None:
    """A cancelled experiment is kept or discarded as `on_error` says."""
    task = await started(repository, repository.experiment("it", on_error=on_error))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(await repository.experiments()) == 0
    assert [each.status for each in await repository.interrupted()] == (
        [Status.CANCELLED] if on_error == "keep" else []
    )


ENDS: list[tuple[BaseException, Status]] = [
    (SystemExit(0), Status.FINISHED),
    (SystemExit(None), Status.FINISHED),
    (SystemExit(3), Status.FAILED),
    (SystemExit("no data"), Status.FAILED),
    (KeyboardInterrupt(), Status.CANCELLED),
    (GeneratorExit(), Status.CANCELLED),
]


@pytest.mark.parametrize(("error", "status"), ENDS, ids=repr)
async def test_what_ends_the_program_ends_the_experiment(
    repository: aexp.Repository, error: BaseException, status: Status
) -> None:
    """`sys.exit(0)` finishes an experiment, another exit fails it, Ctrl-C cancels it; and each goes on unchanged."""
    with pytest.raises(type(error)) as raised:
        await broken(repository.experiment("it"), error)

    assert raised.value is error
    assert (await repository.get("it")).status is status


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_save_that_takes_too_long_is_left_to_recovery(repo_path: Path, cancelled: bool) -> None:
    """When the disk does not answer in time, the block is left, saying so, and the experiment is saved later or recovered."""
    settings = aexp.Settings(close_timeout=0.1)
    async with aexp.Repository(repo_path, settings=settings) as repository:
        experiment = repository.experiment("it")
        task = await started(repository, experiment)
        lock = repo_path / ".git" / f"{experiment.ref}.lock"
        lock.parent.mkdir(parents=True)
        lock.touch()  # another program is writing this very ref, and takes its time
        await experiment.complete(Status.FAILED)
        task.cancel()
        if cancelled:
            await asyncio.sleep(0.05)
            task.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await task
        if not cancelled:
            assert "recover" in "".join(raised.value.__notes__)
        assert experiment.state is State.COMPLETED
        lock.unlink()
    async with aexp.Repository(repo_path) as repository:
        await repository.recover()
        assert (await repository.get("it")).status is Status.FAILED


# ---- the repository ends ----


async def test_a_closed_repository_is_told_apart(repo_path: Path) -> None:
    """Before `open()` and after `aclose()` every call that needs the repository raises `RepositoryClosed`."""
    repository = aexp.Repository(repo_path)
    for _ in range(2):
        calls: list[Coroutine[Any, Any, Any]] = [
            repository.experiments(),
            repository.get("it"),
            repository.history("it"),
            repository.read("it", "x"),
        ]
        calls += [repository.interrupted(), repository.recover(), repository.resume("it")]
        calls.append(repository.experiment("it").init())
        for call in calls:
            with pytest.raises(aexp.RepositoryClosed):
                await call
        async with repository:
            assert list(await repository.experiments()) == []


async def test_an_experiment_outlives_its_repository_in_the_journal(repo_path: Path) -> None:
    """An experiment that is open when its repository closes takes nothing more, and is recovered with all its points."""
    async with aexp.Repository(repo_path) as repository:
        experiment = await repository.experiment("it").init()
        await experiment.log_metric("m", 1.0, 1)
    logging = [experiment.log_metric("m", 2.0), experiment.log_metrics({"m": 2.0}), experiment.log_file("x", "x")]
    calls: list[Coroutine[Any, Any, Any]] = [*logging, experiment.set_params(a=1), experiment.make_checkpoint()]
    for call in (*calls, experiment.flush(), experiment.discard(), experiment.save(), experiment.save(force=True)):
        with pytest.raises(aexp.RepositoryClosed):
            await call
    with pytest.raises(aexp.RepositoryClosed):
        experiment.log_metric_nowait("m", 2.0)

    async with aexp.Repository(repo_path) as repository:
        (record,) = await repository.recover()
        assert (record.name, record.status) == ("it", Status.INTERRUPTED)
        assert record.metrics == {"m": 1.0, "step": 1}
        assert await repository.recover() == []


def test_a_repository_belongs_to_one_event_loop(repo_path: Path) -> None:
    """An experiment that begins in another event loop than its repository is refused."""
    with asyncio.Runner() as runner:
        repository = runner.run(aexp.Repository(repo_path).open())
        with pytest.raises(RuntimeError, match="event loop"), asyncio.Runner() as other:
            other.run(repository.experiment("it").init())
        runner.run(repository.aclose())


async def test_a_repository_that_is_not_closed_says_so(repo_path: Path) -> None:
    """An open repository that nobody holds any more warns as an open file does, and its threads end."""
    held = [await aexp.Repository(repo_path).open()]
    with pytest.warns(ResourceWarning, match="not closed"):
        held.clear()


# ---- the short form ----


def threads() -> list[str]:
    """The names of our threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("aexp")]


async def test_init_is_a_context_manager(repo_path: Path) -> None:
    """`async with aexp.init(...)` saves at the end, or records the exception, and leaves no thread behind."""
    async with aexp.init("good", path=repo_path, params={"lr": 0.1}) as experiment:
        await experiment.log_metric("m", 1.0)
        assert threads()
    assert experiment.record is not None
    assert threads() == []
    with pytest.raises(Boom):
        async with aexp.init("bad", path=str(repo_path / "data")):
            raise Boom
    assert threads() == []
    async with aexp.Repository(repo_path) as repository:
        assert [(each.name, each.status) for each in await repository.experiments()] == [
            ("good", Status.FINISHED),
            ("bad", Status.FAILED),
        ]


@pytest.mark.parametrize("end", ["save", "discard", "block"])
async def test_init_is_awaitable(repo_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """`await aexp.init(...)` begins an experiment here; `save()`, `discard()` or a block closes its repository, too."""
    monkeypatch.chdir(repo_path)
    experiment = await aexp.init("it")
    await experiment.log_metric("m", 1.0)
    if end == "save":
        record = await experiment.save()
        assert await experiment.save() is record
    elif end == "discard":
        await experiment.discard()
    else:
        async with experiment:
            await experiment.log_metric("m", 2.0)

    assert threads() == []
    assert (experiment.record is None) is (end == "discard")


@pytest.mark.parametrize("awaited", [True, False])
async def test_an_init_that_fails_leaves_nothing_open(repo_path: Path, git: Git, awaited: bool) -> None:
    """When `aexp.init` cannot begin, it raises what stood in the way, and closes the repository it opened."""
    git("branch", "it", cwd=repo_path)
    beginning = aexp.init("it", path=repo_path)
    with pytest.raises(aexp.InvalidName):
        await (beginning if awaited else beginning.__aenter__())
    assert threads() == []
