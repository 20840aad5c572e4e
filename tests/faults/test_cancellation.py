"""The whole story, cancelled at every suspension point: done or not done, never half, and nothing left over."""

import asyncio
import base64
import inspect
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define, field

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


# ---- every public call by itself ----

CRASH = """
import asyncio, os, sys
import aexp

async def main(path):
    async with aexp.Repository(path) as repository:
        lost = await repository.experiment("lost").init()
        await lost.log_metric("loss", 1.0)
        await lost.flush()
        os._exit(0)

asyncio.run(main(sys.argv[1]))
"""
CALM = 0.1
"""Seconds in which whoever still writes after a call would do so."""


@define(eq=False)
class Stage:
    """A repository with experiments in all states, opened, and one that is under way; beside it a remote."""

    path: Path
    repository: aexp.Repository = field(init=False)
    live: aexp.Experiment = field(init=False)
    opened: list[aexp.Repository] = field(factory=list)

    @property
    def remote(self) -> str:
        """The folder of the remote."""
        return str(self.path.parent / "remote.git")

    def another(self) -> aexp.Repository:
        """Return another repository at the same place, to be closed with the stage."""
        self.opened.append(aexp.Repository(self.path))
        return self.opened[-1]

    async def set(self) -> None:
        """Open the repository, and begin the experiment."""
        self.repository = aexp.Repository(self.path, settings=aexp.Settings(queue_capacity=2))
        await self.repository.open()
        self.live = await self.repository.experiment("live").init()
        await self.live.log_metric("loss", 0.5)
        await self.live.flush()

    async def clear(self) -> None:
        """Close whatever is open."""
        for each in (*self.opened, self.repository):
            await each.aclose()


Act = Callable[[Stage], Coroutine[Any, Any, object]]


async def within_workspace(stage: Stage) -> None:
    """Make a file in a private checkout."""
    async with stage.live.workspace() as place:
        (place / "made.txt").write_text("made")


async def left_block(stage: Stage) -> None:
    """Leave the block of an experiment."""
    async with stage.live:
        pass


async def first_event(stage: Stage) -> None:
    """Hear one event."""
    events = stage.repository.watch()
    try:
        async for _ in events:
            break
    finally:
        await events.aclose()


async def entered_and_left(stage: Stage) -> None:
    """Open by `async with`, and close."""
    async with stage.another():
        pass


async def begun(stage: Stage) -> None:
    """Begin by `aexp.init`."""
    beginning = aexp.init("fresh", path=stage.path)
    stage.opened.append(beginning._repository)
    await beginning


async def logged(stage: Stage) -> None:
    """Log more than the queue takes."""
    for step in range(8):
        await stage.live.log_metric("loss", 1.0, step)
        await stage.live.log_metrics({"a": 1.0, "b": 2.0}, step)


DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""An image in PNG of a single dot."""
CALLS: dict[str, Act] = {
    "Repository.open": lambda stage: stage.another().open(),
    "Repository.__aenter__": entered_and_left,
    "Repository.__aexit__": entered_and_left,
    "Repository.aclose": lambda stage: stage.repository.aclose(),
    "Repository.apply": lambda stage: stage.repository.apply("one", force=True),
    "Repository.undo_apply": lambda stage: stage.repository.undo_apply(),
    "Repository.baselines": lambda stage: stage.repository.baselines(),
    "Repository.best": lambda stage: stage.repository.best("loss"),
    "Repository.branch": lambda stage: stage.repository.branch("one", "grown"),
    "Repository.checkpoints": lambda stage: stage.repository.checkpoints("one"),
    "Repository.compare": lambda stage: stage.repository.compare("one", "two"),
    "Repository.diagnose": lambda stage: stage.repository.diagnose(),
    "Repository.experiments": lambda stage: stage.repository.experiments(),
    "Repository.get": lambda stage: stage.repository.get("one"),
    "Repository.history": lambda stage: stage.repository.history("one"),
    "Repository.interrupted": lambda stage: stage.repository.interrupted(),
    "Repository.maintain": lambda stage: stage.repository.maintain(),
    "Repository.pull": lambda stage: stage.repository.pull("theirs", remote=stage.remote),
    "Repository.push": lambda stage: stage.repository.push("one", "two", remote=stage.remote),
    "Repository.read": lambda stage: stage.repository.read("one", "train.py"),
    "Repository.recover": lambda stage: stage.repository.recover(),
    "Repository.remote_experiments": lambda stage: stage.repository.remote_experiments(stage.remote),
    "Repository.remove": lambda stage: stage.repository.remove("one", "two"),
    "Repository.rename": lambda stage: stage.repository.rename("one", "other"),
    "Repository.restore": lambda stage: stage.repository.restore("gone"),
    "Repository.resume": lambda stage: stage.repository.resume("lost"),
    "Repository.running": lambda stage: stage.repository.running(),
    "Repository.watch": first_event,
    "Experiment.init": lambda stage: stage.repository.experiment("fresh").init(),
    "Experiment.__aenter__": lambda stage: stage.repository.experiment("fresh").__aenter__(),
    "Experiment.__aexit__": left_block,
    "Experiment.complete": lambda stage: stage.live.complete(),
    "Experiment.discard": lambda stage: stage.live.discard(),
    "Experiment.flush": lambda stage: stage.live.flush(),
    "Experiment.log_artifact": lambda stage: stage.live.log_artifact("data.bin"),
    "Experiment.log_file": lambda stage: stage.live.log_file("logged.txt", "x"),
    "Experiment.log_image": lambda stage: stage.live.log_image("dot", DOT),
    "Experiment.log_metric": logged,
    "Experiment.log_metrics": logged,
    "Experiment.log_plot": lambda stage: stage.live.log_plot("curve", [{"x": 1, "y": 2}], x="x", y="y"),
    "Experiment.make_checkpoint": lambda stage: stage.live.make_checkpoint("so far"),
    "Experiment.run": lambda stage: stage.live.run("echo made > made.txt", grace=0.1),
    "Experiment.save": lambda stage: stage.live.save(message="the end"),
    "Experiment.set_message": lambda stage: stage.live.set_message("said"),
    "Experiment.set_params": lambda stage: stage.live.set_params({"lr": 1}, overrides=["train.lr=2"]),
    "Experiment.set_tags": lambda stage: stage.live.set_tags("good"),
    "Experiment.workspace": within_workspace,
    "init": begun,
}


def test_every_public_coroutine_is_swept() -> None:
    """A public coroutine that nobody cancels everywhere cannot be added unnoticed."""
    special = {"__aenter__", "__aexit__"}
    public = {
        f"{kind.__name__}.{name}"
        for kind in (aexp.Repository, aexp.Experiment)
        for name, call in inspect.getmembers(kind, inspect.isroutine)
        if (not name.startswith("_") or name in special)
        and (inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call) or name == "workspace")
    }

    assert CALLS.keys() == public | {"init"}


@pytest.fixture(scope="module")
def scene(template: Path, tmp_path_factory: pytest.TempPathFactory, git: Callable[..., str]) -> Path:
    """A folder with a repository and a remote: saved, removed, applied, pushed and interrupted experiments in it."""
    place = tmp_path_factory.mktemp("scene")
    path = place / "repository"
    git("clone", "--quiet", "--no-hardlinks", template, path, cwd=place)
    (path / ".git" / "info" / "exclude").write_text("data.bin\n")
    (path / "data.bin").write_bytes(b"data" * 1000)
    git("clone", "--quiet", "--bare", path, place / "remote.git", cwd=place)
    asyncio.run(prepared(path, place / "remote.git"))
    subprocess.run([sys.executable, "-c", CRASH, path], check=True, timeout=50)
    return place


async def prepared(path: Path, remote: Path) -> None:
    """Save experiments, push one, remove some, apply one."""
    async with aexp.Repository(path) as repository:
        for name in ("one", "two", "gone", "theirs"):
            async with repository.experiment(name, params={"lr": 0.1}) as experiment:
                await experiment.log_metric("loss", 0.5, 0)
                await experiment.log_file("train.py", f"name = {name!r}\n")
                if name == "one":
                    await experiment.make_checkpoint()
        await repository.push("theirs", remote=str(remote))
        await repository.remove("gone", "theirs")
        await repository.apply("two")


async def picture(stage: Stage, git: Callable[..., str]) -> dict[str, Any]:
    """Close the stage, and tell what there is: what a call has changed, but for times and ids."""
    await stage.clear()
    async with aexp.Repository(stage.path) as repository:
        found: dict[str, Any] = {
            record.name: (str(record.status), len(record.checkpoints), record.damaged)
            for record in await repository.experiments()
        }
        found["interrupted"] = sorted(each.name for each in await repository.interrupted())
    trash = git("for-each-ref", "--format=%(refname)", "refs/aexp/trash", cwd=stage.path).splitlines()
    found["trash"] = sorted(ref.rpartition("/")[2] for ref in trash)
    found["branches"] = git("for-each-ref", "--format=%(refname)", "refs/heads", cwd=stage.path)
    found["remote"] = git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=Path(stage.remote))
    found["work tree"] = {
        str(each.relative_to(stage.path)): each.read_bytes()
        for each in stage.path.rglob("*")
        if each.is_file() and ".git" not in each.parts
    }
    found["live"] = (stage.live.state, stage.live.params, stage.live.record is not None)
    return found


def files(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files but what the journal's own writer and the caches write whenever they like."""
    found = {}
    for each in path.parent.rglob("*"):
        if not re.search(r"/journal-|/aexp/index|/aexp/applied/lock", str(each)):
            with suppress(FileNotFoundError):
                held = each.lstat()
                found[str(each)] = (held.st_size, held.st_mtime_ns)
    return found


LOOKS = frozenset(
    f"Repository.{name}"
    for name in (
        *("baselines", "best", "checkpoints", "compare", "diagnose", "experiments", "get", "history", "interrupted"),
        *("read", "remote_experiments", "running", "watch"),
    )
)
"""Calls that change nothing."""
LATER = pytest.param("timeout", marks=pytest.mark.slow)  # it is a native cancellation, too


@pytest.fixture
async def staged(scene: Path, tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Stage]]]:
    """What sets a stage, a fresh copy each time."""
    stages: list[Stage] = []

    async def staged() -> Stage:
        place = tmp_path / f"{len(stages)}"
        await asyncio.to_thread(shutil.copytree, scene, place, symlinks=True)
        stages.append(Stage(place / "repository"))
        await stages[-1].set()
        return stages[-1]

    yield staged
    for stage in stages:
        await stage.clear()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["native", "twice", "scope", LATER])
@pytest.mark.parametrize("call", [call for call in CALLS if call not in LOOKS])
async def test_a_call_that_is_cancelled_anywhere_is_done_or_not_done(
    call: str,
    way: str,
    staged: Callable[[], Awaitable[Stage]],
    git: Callable[..., str],
    fsck: Callable[[Path], None],
    record_property: Callable[[str, object], None],
) -> None:
    """Cancelled at any suspension point, in any way: all of it was done or nothing, and nobody writes afterwards."""

    async def story(path: Path, flushed: list[int]) -> None:
        await CALLS[call](stage)

    before = await picture(await staged(), git)
    stage = await staged()
    await CALLS[call](stage)
    after = await picture(stage, git)
    number, reached = 0, True
    while reached:
        number += 1
        stage = await staged()
        reached = await WAYS[way](story, stage.path, number, [])
        if reached:
            then = files(stage.path)
            await asyncio.sleep(CALM)
            changed = set(files(stage.path).items()) ^ set(then.items())
            assert not changed, f"point {number}: after the call it was written to {changed}"
        seen = await picture(stage, git)
        assert seen in (before, after), f"point {number}: {differing(seen, before, after)}"
        left = [each for pattern in ("*.lock", "*.keep", "tmp_*", "ref-*") for each in stage.path.rglob(pattern)]
        assert [each for each in left if each.name != "owner.lock"] == []
        if number == 1:
            fsck(stage.path)
    record_property("points", number - 1)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", WAYS)
async def test_looking_may_be_cancelled_anywhere(
    way: str, staged: Callable[[], Awaitable[Stage]], git: Callable[..., str]
) -> None:
    """What only looks changes nothing when it is cancelled, leaves no task behind, and can be asked again at once."""
    before = await picture(await staged(), git)
    stage = await staged()
    tasks = len(asyncio.all_tasks())
    for call in sorted(LOOKS):

        async def story(path: Path, flushed: list[int], call: str = call) -> None:
            await CALLS[call](stage)

        number, reached = 0, True
        while reached:
            number += 1
            reached = await WAYS[way](story, stage.path, number, [])
        assert number > 1, f"{call} never suspended"
        assert len(asyncio.all_tasks()) == tasks, call
    assert await picture(stage, git) == before


def differing(seen: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What of *seen* is as in neither."""
    keys = seen.keys() | before.keys() | after.keys()
    return {
        key: (seen.get(key), before.get(key), after.get(key))
        for key in keys
        if not seen.get(key) == before.get(key) == after.get(key)
    }
