"""Random tasks on a loop that takes turns by a seed, judged by a model: what happened is what one order of calls explains.

The loop shuffles whatever is ready and holds back what threads send it for a few turns, both by the seed; so is all that
the tasks do. What cannot be had: the same run twice to the last step. The journal writes in a thread of its own, with a
clock of its own, and Git works in another; when these end is up to the machine. A failure names its seed, and most come
again with it: `AEXP_SEED=17 pytest tests/faults/test_interleavings.py -k 0`.
"""

import asyncio
import os
import random
import shutil
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

import aexp

pytestmark = [pytest.mark.races, pytest.mark.timeout(600)]

BLOCK = 20
"""Seeds that share a repository."""
BLOCKS = 10
MANY = 150
EXPECTED = (aexp.InvalidTransition, aexp.NameTaken, aexp.ExperimentNotFound, aexp.NotOwner, aexp.QueueFull)
"""What calls out of order may be told."""


class Shuffled(asyncio.SelectorEventLoop):
    """An event loop whose turns are taken in an order that *dice* decide."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice = dice

    def call_soon_threadsafe(self, callback: Any, *arguments: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """Take what a thread sends; the loop will see to it some turns later."""
        return super().call_soon_threadsafe(self._hold_back, callback, arguments, context)

    def _hold_back(self, callback: Any, arguments: Any, context: Any) -> None:
        turns = self.dice.choice((0, 0, 0, 1, 2, 5))
        if not turns:
            super().call_soon(callback, *arguments, context=context)
        else:
            super().call_soon(self._wait, turns - 1, callback, arguments, context)

    def _wait(self, turns: int, callback: Any, arguments: Any, context: Any) -> None:
        if turns:
            super().call_soon(self._wait, turns - 1, callback, arguments, context)
        else:
            super().call_soon(callback, *arguments, context=context)

    def _run_once(self) -> None:
        ready: Any = self._ready  # type: ignore[attr-defined]
        turn = list(ready)
        self.dice.shuffle(turn)
        ready.clear()
        ready.extend(turn)
        super()._run_once()  # type: ignore[misc]


@define(eq=False)
class Known:
    """What the model knows of an experiment: the points it accepted, in order, and the parameters it was given."""

    experiment: aexp.Experiment
    name: str
    id: str = ""
    points: list[float] = field(factory=list)
    flushed: int = 0
    params: dict[str, int] = field(factory=dict)
    perhaps: set[str] = field(factory=set)
    """Parameters whose call was cancelled."""
    discarded: bool = False


@define(eq=False)
class Play:
    """A seed's run: some tasks, some experiments, and what must come of them."""

    repository: aexp.Repository
    dice: random.Random
    prefix: str
    cast: list[Known] = field(factory=list)
    count: int = 0

    async def task(self) -> None:
        """Do random things, one after the other."""
        actions = [self.begin, self.log, self.log, self.log, self.flush, self.set_params, self.checkpoint, self.look]
        actions += [self.save, self.discard, self.rename, self.remove, self.restore, self.complete]
        for _ in range(self.dice.randrange(4, 10)):
            action = self.dice.choice(actions)
            if self.dice.random() < 0.25:
                await self.cancelled(action())
            else:
                await self.tried(action())

    async def tried(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*; what is told of calls out of order is right."""
        with suppress(*EXPECTED):
            await work

    async def cancelled(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* in a task that is cancelled after some turns, perhaps twice."""
        task = asyncio.create_task(self.tried(work))
        for _ in range(self.dice.choice((1, 1, 2))):
            for _ in range(self.dice.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
        (answer,) = await asyncio.gather(task, return_exceptions=True)
        work.close()  # it may never have begun
        assert answer is None or isinstance(answer, asyncio.CancelledError), repr(answer)

    def one(self) -> Known | None:
        """Return one of the experiments that were begun."""
        return self.dice.choice(self.cast) if self.cast else None

    async def begin(self) -> None:
        """Begin an experiment by one of a few names."""
        name = f"{self.prefix}{self.dice.choice('xyz')}"
        known = Known(self.repository.experiment(name, params={"who": len(self.cast)}), name)
        self.cast.append(known)
        await known.experiment.init()

    async def log(self) -> None:
        """Log some points: one is accepted, in this order, if and only if the call returns."""
        if (known := self.one()) is None:
            return
        for _ in range(self.dice.randrange(1, 7)):
            value = float(self.count)
            self.count += 1
            generation = known.experiment.id
            await known.experiment.log_metric("loss", value, len(known.points))
            assert known.experiment.id == generation
            known.points.append(value)

    async def flush(self) -> None:
        """Have what was logged on the disk."""
        if (known := self.one()) is not None:
            before = len(known.points)
            await known.experiment.flush()
            known.flushed = max(known.flushed, before)

    async def set_params(self) -> None:
        """Set a parameter that nobody else sets."""
        if (known := self.one()) is not None:
            key, self.count = f"p{self.count}", self.count + 1
            known.perhaps.add(key)
            await known.experiment.set_params({key: self.count})
            known.params[key] = self.count if key not in known.params else known.params[key]

    async def checkpoint(self) -> None:
        """Commit what is there."""
        if (known := self.one()) is not None:
            await known.experiment.make_checkpoint()

    async def complete(self) -> None:
        """End the logging."""
        if (known := self.one()) is not None:
            await known.experiment.complete()

    async def save(self) -> None:
        """Save, and once more."""
        if (known := self.one()) is not None:
            record = await known.experiment.save()
            assert record.rev == (await known.experiment.save()).rev

    async def discard(self) -> None:
        """Give up."""
        if (known := self.one()) is not None:
            id = known.experiment.id
            try:
                await known.experiment.discard()
            finally:
                if id and known.experiment.state is aexp.State.UNINITIALIZED:
                    known.discarded = True

    def saved(self) -> list[Known]:
        """Return those that were saved."""
        return [known for known in self.cast if known.experiment.record is not None]

    async def rename(self) -> None:
        """Give a saved experiment another name, and its name back."""
        if saved := self.saved():
            known = self.dice.choice(saved)
            await self.repository.rename(known.name, f"{known.name}-renamed")

    async def remove(self) -> None:
        """Remove a saved experiment."""
        if saved := self.saved():
            await self.repository.remove(self.dice.choice(saved).name)

    async def restore(self) -> None:
        """Bring back one that was removed."""
        if saved := self.saved():
            await self.repository.restore(self.dice.choice(saved).name)

    async def look(self) -> None:
        """See that no experiment that is saved is damaged."""
        for record in await self.repository.experiments():
            assert record.damaged is None


async def play(path: Path, seed: int) -> Play:
    """Play the seed, close everything, and return what is known."""
    dice = random.Random(seed)  # dice are to be loaded here
    settings = aexp.Settings(queue_capacity=dice.choice((3, 50)), write_interval=0.001, sync_interval=0.01)
    async with aexp.Repository(path, settings=settings) as repository:
        playing = Play(repository, dice, f"s{seed}-")
        await asyncio.gather(*(playing.task() for _ in range(dice.randrange(2, 5))))
        for known in playing.cast:
            known.id = known.experiment.id
    return playing


async def judge(path: Path, seed: int, playing: Play, git: Callable[..., str]) -> None:
    """After a recovery, every experiment that was begun and not discarded is there, once, with all that it accepted."""
    async with aexp.Repository(path) as repository:
        await repository.recover()
        assert await repository.recover() == []
        records = [each for each in await repository.experiments() if each.name.startswith(f"s{seed}-")]
        found = {record.id: record for record in records}
        assert len(found) == len(records), "an experiment has two refs"
        kept = git("for-each-ref", "--format=%(contents:trailers:key=Aexp-Id,valueonly)", "refs/aexp/trash", cwd=path)
        trash = set(kept.split())
        for known in playing.cast:
            if not known.id:
                assert known.points == [] or known.discarded
                continue
            record = found.pop(known.id, None)
            if record is None:
                assert known.id in trash, f"{known.name} ({known.id}) is gone"
                continue
            series = await repository.history(record.rev)
            assert list(series["loss"].values if series else ()) == known.points
            assert known.flushed <= len(known.points)
            given = {key for key in record.params if key.startswith("p")}
            assert known.params.keys() <= given <= known.perhaps
            assert record.params["who"] == playing.cast.index(known)
        assert not found, "there is an experiment that nobody began"


def run(path: Path, seed: int, git: Callable[..., str]) -> None:
    """Play a seed on a loop of its own, and judge it on a plain one."""
    loop = Shuffled(random.Random(~seed))
    try:
        playing = loop.run_until_complete(play(path, seed))
        assert not asyncio.all_tasks(loop), "tasks are left over"
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    asyncio.run(judge(path, seed, playing, git))


SEEDS = [int(os.environ["AEXP_SEED"])] if "AEXP_SEED" in os.environ else None


@pytest.mark.parametrize(
    "block", [*range(BLOCKS), *(pytest.param(block, marks=pytest.mark.slow) for block in range(BLOCKS, MANY))]
)
def test_any_order_of_turns_is_explained(
    block: int, template: Path, tmp_path: Path, git: Callable[..., str], fsck: Callable[[Path], None]
) -> None:
    """Whatever the turns: no point is lost, doubled or moved, no experiment is saved twice, nothing is half done."""
    path = Path(shutil.copytree(template, tmp_path / "repository"))
    for seed in SEEDS or range(block * BLOCK, (block + 1) * BLOCK):
        try:
            run(path, seed, git)
        except BaseException as error:
            error.add_note(f"the seed is {seed}: AEXP_SEED={seed} plays it again")
            raise
    fsck(path)
