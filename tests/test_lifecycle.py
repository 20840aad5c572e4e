"""The life of an experiment: which action is legal in which state, as a table and on a real experiment."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import aexp
from aexp import State, Status
from aexp._lifecycle import TRANSITIONS, Action, after, is_ending

NEXT = {
    Action.INIT: {State.UNINITIALIZED: State.ACTIVE},
    Action.SET_PARAMS: {State.ACTIVE: State.ACTIVE},
    Action.LOG: {State.ACTIVE: State.ACTIVE},
    Action.RUN: {State.ACTIVE: State.ACTIVE},
    Action.DESCRIBE: {State.ACTIVE: State.ACTIVE, State.COMPLETED: State.COMPLETED},
    Action.FLUSH: {
        State.ACTIVE: State.ACTIVE,
        State.COMPLETED: State.COMPLETED,
        State.PERSISTED: State.PERSISTED,
    },
    Action.CHECKPOINT: {State.ACTIVE: State.ACTIVE},
    Action.COMPLETE: {State.ACTIVE: State.COMPLETED},
    Action.SAVE: {
        State.ACTIVE: State.PERSISTED,
        State.COMPLETED: State.PERSISTED,
        State.PERSISTED: State.PERSISTED,
    },
    Action.DISCARD: {State.ACTIVE: State.UNINITIALIZED, State.COMPLETED: State.UNINITIALIZED},
}

Call = Callable[[aexp.Experiment], Awaitable[Any]]


async def _set_step(experiment: aexp.Experiment) -> None:
    experiment.step = 7


async def _next_step(experiment: aexp.Experiment) -> None:
    experiment.next_step()


async def _log_nowait(experiment: aexp.Experiment) -> None:
    experiment.log_metric_nowait("loss", 0.25, 3)


async def _log_many_nowait(experiment: aexp.Experiment) -> None:
    experiment.log_metrics_nowait({"loss": 0.25}, 3)


CALLS: dict[str, tuple[Action, Call]] = {
    "init": (Action.INIT, lambda each: each.init()),
    "set_params": (Action.SET_PARAMS, lambda each: each.set_params(depth=4)),
    "log_metric": (Action.LOG, lambda each: each.log_metric("loss", 0.25, 3)),
    "log_metrics": (Action.LOG, lambda each: each.log_metrics({"loss": 0.25}, 3)),
    "log_metric_nowait": (Action.LOG, _log_nowait),
    "log_metrics_nowait": (Action.LOG, _log_many_nowait),
    "log_file": (Action.LOG, lambda each: each.log_file("notes.txt", "it works\n")),
    "next_step": (Action.LOG, _next_step),
    "step": (Action.LOG, _set_step),
    "run": (Action.RUN, lambda each: each.run("true", isolated=False)),
    "set_tags": (Action.DESCRIBE, lambda each: each.set_tags("good")),
    "set_message": (Action.DESCRIBE, lambda each: each.set_message("a better one")),
    "flush": (Action.FLUSH, lambda each: each.flush()),
    "make_checkpoint": (Action.CHECKPOINT, lambda each: each.make_checkpoint()),
    "complete": (Action.COMPLETE, lambda each: each.complete()),
    "save": (Action.SAVE, lambda each: each.save()),
    "discard": (Action.DISCARD, lambda each: each.discard()),
}


async def in_state(repository: aexp.Repository, state: State) -> aexp.Experiment:
    """Bring an experiment into the state, by the shortest way."""
    experiment = repository.experiment("it", params={"lr": 0.1})
    if state is not State.UNINITIALIZED:
        await experiment.init()
        await experiment.log_metric("loss", 0.5, 1)
    if state is State.COMPLETED:
        await experiment.complete()
    if state is State.PERSISTED:
        await experiment.save()
    assert experiment.state is state
    return experiment


def picture(experiment: aexp.Experiment, refs: str) -> tuple[object, ...]:
    """All that can be seen of the experiment, and the refs of its repository."""
    known = (experiment.state, experiment.status, experiment.id, experiment.name, experiment.baseline, experiment.ref)
    values = (dict(experiment.params), dict(experiment.summary), experiment.step, experiment.record)
    return *known, *values, refs


def own(record: aexp.Record) -> Any:
    """The parameters that the experiment itself was given, without those of the files in its tree."""
    return record.params_by_file["aexp/params.yaml"]


@pytest.mark.parametrize(("state", "action"), list(itertools.product(State, Action)))
def test_the_table_is_complete(state: State, action: Action) -> None:
    """Every pair of state and action either leads to one state, or raises with the action and the state."""
    expected = NEXT[action].get(state)

    if expected is None:
        with pytest.raises(aexp.InvalidTransition) as refused:
            after(state, action)
        assert (refused.value.action, refused.value.state) == (action.value, state.value)
        assert str(action) in str(refused.value)
        assert str(state) in str(refused.value)
    else:
        assert after(state, action) is expected


def test_the_table_cannot_be_changed() -> None:
    """The table of transitions is read-only: no program bends the rules for another."""
    with pytest.raises(TypeError):
        TRANSITIONS[State.PERSISTED, Action.LOG] = State.ACTIVE  # type: ignore[index]


@pytest.mark.parametrize("status", Status)
def test_a_program_may_say_how_its_work_ended(status: Status) -> None:
    """Finished, failed and cancelled are endings; running is none, and interrupted is for recovery to say."""
    assert is_ending(status) is (status not in (Status.RUNNING, Status.INTERRUPTED))


def test_every_action_is_called() -> None:
    """The calls that are tried below cover every action of the table."""
    assert {action for action, _ in CALLS.values()} == set(Action)


@pytest.mark.parametrize(("state", "call"), list(itertools.product(State, CALLS)))
async def test_a_call_is_as_legal_as_the_table_says(
    repository: aexp.Repository, repo_path: Path, git: Callable[..., str], state: State, call: str
) -> None:
    """On a real experiment a legal call leads where the table says; an illegal one raises and changes nothing."""
    experiment = await in_state(repository, state)
    action, act = CALLS[call]
    before = picture(experiment, git("for-each-ref", cwd=repo_path))
    expected = NEXT[action].get(state)

    if expected is None:
        with pytest.raises(aexp.InvalidTransition) as refused:
            await act(experiment)
        assert (refused.value.action, refused.value.state) == (action.value, state.value)
        assert picture(experiment, git("for-each-ref", cwd=repo_path)) == before
    else:
        await act(experiment)
        assert experiment.state is expected

    if experiment.state in (State.ACTIVE, State.COMPLETED):
        await experiment.discard()


async def test_what_was_refused_is_not_saved(repository: aexp.Repository) -> None:
    """What is logged, set or put after `complete()` is refused, and nothing of it is in the saved experiment."""
    experiment = await in_state(repository, State.COMPLETED)
    for name, (action, act) in CALLS.items():
        if action in (Action.LOG, Action.RUN, Action.SET_PARAMS, Action.CHECKPOINT, Action.COMPLETE, Action.INIT):
            with pytest.raises(aexp.InvalidTransition):
                await act(experiment)
            assert experiment.state is State.COMPLETED, name

    record = await experiment.save()
    history = await repository.history("it")

    assert (own(record), record.metrics, record.checkpoints) == ({"lr": 0.1}, {"loss": 0.5, "step": 1}, ())
    assert list(history["loss"].steps) == [1]
    with pytest.raises(FileNotFoundError):
        await repository.read("it", "notes.txt")


async def test_saving_again_is_a_no_op(repository: aexp.Repository, repo_path: Path, git: Callable[..., str]) -> None:
    """Saving a saved experiment returns the very same record, whatever is asked for, and makes no second commit."""
    experiment = await in_state(repository, State.PERSISTED)
    first = experiment.record
    refs, count = git("for-each-ref", cwd=repo_path), git("rev-list", "--count", "--all", cwd=repo_path)

    assert await experiment.save() is first
    assert await experiment.save(message="another", force=True) is first
    assert git("for-each-ref", cwd=repo_path) == refs
    assert git("rev-list", "--count", "--all", cwd=repo_path) == count


async def test_saving_twice_at_once_makes_one_commit(
    repository: aexp.Repository, repo_path: Path, git: Callable[..., str]
) -> None:
    """Any number of tasks may save one experiment at once: each gets the same record of the one commit."""
    experiment = await in_state(repository, State.ACTIVE)

    records = await asyncio.gather(*[experiment.save() for _ in range(8)])

    assert all(record is records[0] for record in records)
    assert git("rev-list", "--count", f"{experiment.baseline}..{experiment.ref}", cwd=repo_path) == "1"


async def test_discarding_leaves_nothing_and_the_object_begins_anew(
    repository: aexp.Repository, repo_path: Path, git: Callable[..., str]
) -> None:
    """A discarded experiment has no ref; its object can be initialised again, as a new experiment with a new id."""
    experiment = await in_state(repository, State.ACTIVE)
    first = experiment.id
    await experiment.set_params(depth=4)
    await experiment.set_tags("bad")
    await experiment.discard()

    assert (experiment.state, experiment.id, experiment.ref) == (State.UNINITIALIZED, "", "")
    assert (dict(experiment.params), dict(experiment.summary), experiment.step) == ({"lr": 0.1}, {}, 0)
    assert git("for-each-ref", "refs/exps", cwd=repo_path) == ""

    await experiment.init()
    await experiment.log_metric("loss", 0.125, 9)
    record = await experiment.save()

    assert record.id == experiment.id != first
    assert (own(record), record.tags, record.metrics) == ({"lr": 0.1}, (), {"loss": 0.125, "step": 9})


async def test_discarding_takes_its_checkpoints_away(
    repository: aexp.Repository, repo_path: Path, git: Callable[..., str]
) -> None:
    """The ref of a discarded experiment's checkpoints goes to the trash, where its commits can still be had."""
    experiment = await in_state(repository, State.ACTIVE)
    rev = await experiment.make_checkpoint()
    await experiment.discard()

    assert git("for-each-ref", "refs/exps", cwd=repo_path) == ""
    assert git("for-each-ref", "--format=%(objectname)", "refs/aexp/trash", cwd=repo_path) == rev


@pytest.mark.parametrize("status", [Status.FINISHED, Status.FAILED, Status.CANCELLED, "failed"])
async def test_how_it_ended_is_recorded(repository: aexp.Repository, status: Any) -> None:
    """The status given to `complete()` is the status of the record."""
    experiment = await in_state(repository, State.ACTIVE)
    await experiment.complete(status)

    assert experiment.status is Status(status)
    assert (await experiment.save()).status is Status(status)


@pytest.mark.parametrize("status", [Status.RUNNING, Status.INTERRUPTED, "ended", None])
async def test_what_is_no_ending_is_refused(repository: aexp.Repository, status: Any) -> None:
    """`complete()` takes no status that a program cannot end with, and the experiment stays active."""
    experiment = await in_state(repository, State.ACTIVE)

    with pytest.raises(ValueError, match=r"finished|not a valid Status"):
        await experiment.complete(status)
    assert (experiment.state, experiment.status) == (State.ACTIVE, Status.RUNNING)
    await experiment.discard()


async def test_what_comes_while_parameters_are_set_is_kept(repository: aexp.Repository) -> None:
    """Tags, message and end that come while another task sets parameters are kept, and so are the parameters."""
    experiment = await in_state(repository, State.ACTIVE)
    setting = asyncio.create_task(experiment.set_params(depth=4, layers=list(range(20_000))))
    for _ in range(5):  # the parameters are on their way to another thread now, which takes a while with so many
        await asyncio.sleep(0)
    await experiment.set_tags("good")
    await experiment.set_message("why")
    await experiment.complete(Status.FAILED)
    await setting
    record = await experiment.save()

    assert (record.status, record.tags, record.message) == (Status.FAILED, ("good",), "why")
    assert record.params["depth"] == 4
