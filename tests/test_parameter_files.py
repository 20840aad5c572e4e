"""Parameter files of the tree: changed for one experiment, in its commit only."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import aexp

BEFORE = "# what the training reads\ntrain:\n  lr: 0.1 # the learning rate\n  epochs: 10\n"
AFTER = BEFORE.replace("lr: 0.1 #", "lr: 0.5 #")


async def test_overrides_change_the_tree_of_the_experiment_only(
    repository: aexp.Repository, repo_path: Path, git: Callable[..., str]
) -> None:
    """The commit holds the changed file and the record its values; the work tree and the index are as they were."""
    async with repository.experiment("one", overrides=["train.lr=0.5"], params={"own": 1}) as experiment:
        pass

    assert (await repository.read("one", "params.yaml")).decode() == AFTER
    assert experiment.record is not None
    assert experiment.record.params == {"train": {"lr": 0.5, "epochs": 10}, "own": 1}
    assert experiment.record == await repository.get("one")
    assert (repo_path / "params.yaml").read_text() == BEFORE
    assert git("status", "--porcelain", cwd=repo_path) == ""


async def test_a_sweep_gives_each_experiment_its_own_values(repository: aexp.Repository) -> None:
    """Experiments of one state of the code that are open at once each have the values that they were given."""
    experiments = [await repository.experiment(overrides=[f"train.epochs={n}"]).init() for n in range(5)]
    records = [await experiment.save() for experiment in experiments]

    assert [record.params["train"]["epochs"] for record in records] == [0, 1, 2, 3, 4]
    found = await repository.experiments(where="params.train.epochs > 2", sort="params.train.epochs")
    assert [record.rev for record in found] == [record.rev for record in records[3:]]


async def test_what_was_edited_and_not_committed_is_changed(repository: aexp.Repository, repo_path: Path) -> None:
    """Overrides apply to the code as it was captured, with the changes that were not committed."""
    (repo_path / "params.yaml").write_text(BEFORE.replace("epochs: 10", "epochs: 99"))
    async with repository.experiment("one", overrides=["train.lr=0.5"]):
        pass

    assert (await repository.read("one", "params.yaml")).decode() == AFTER.replace("epochs: 10", "epochs: 99")


async def test_later_changes_build_on_earlier_ones(repository: aexp.Repository) -> None:
    """`set_params` with a file or overrides changes what is there by then, as often as it is called."""
    async with repository.experiment("one", overrides=["train.lr=0.5"]) as experiment:
        await experiment.set_params({"train": {"epochs": 3}}, file="params.yaml")
        await experiment.set_params({"seed": 1}, overrides=["+train.new=x", "~train.epochs"])
        await experiment.log_file("conf/more.toml", "a = 1 # one\n")
        await experiment.set_params(overrides=["conf/more.toml:a=2"])

    assert (await repository.read("one", "params.yaml")).decode() == AFTER.replace("  epochs: 10", "  new: x")
    assert (await repository.read("one", "conf/more.toml")).decode() == "a = 2 # one\n"
    assert experiment.record is not None
    assert experiment.record.params["seed"] == 1


def leave_two(path: Path) -> None:
    """Leave two experiments of a killed program."""
    script = (
        "import asyncio, os, aexp\n"
        "async def main():\n"
        "    async with aexp.Repository('.') as repository:\n"
        "        for name in 'ab':\n"
        "            experiment = await repository.experiment(name, overrides=['train.lr=0.5']).init()\n"
        "            await experiment.flush()\n"
        "        os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=path, check=False).returncode == -9


async def test_a_change_survives_the_death_of_the_program(repo_path: Path) -> None:
    """An experiment that was killed is recovered, or goes on, with its changed files."""
    leave_two(repo_path)
    async with aexp.Repository(repo_path) as repository:
        resumed = await repository.resume("a")
        await resumed.set_params(overrides=["train.epochs=11"])
        await resumed.save()
        await repository.recover()

        assert (await repository.read("a", "params.yaml")).decode() == AFTER.replace("epochs: 10", "epochs: 11")
        assert (await repository.read("b", "params.yaml")).decode() == AFTER


@pytest.mark.parametrize(
    ("override", "error", "reason"),
    [
        ("train.lr", aexp.InvalidParams, "has no value"),
        ("../other.yaml:a=1", aexp.UnsafePath, "goes up"),
        (".git/config:a=1", aexp.UnsafePath, "Git"),
        ("aexp/params.yaml:a=1", aexp.UnsafePath, "aexp"),
    ],
)
def test_an_override_that_can_never_be_applied_is_refused_at_once(
    repo_path: Path, override: str, error: type[Exception], reason: str
) -> None:
    """`experiment()` refuses it, before anything is opened or written."""
    with pytest.raises(error, match=reason):
        aexp.Repository(repo_path).experiment(overrides=[override])


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("train.nope=1", r"params.yaml: .* there is no train.nope; write \+train.nope=1 to add it"),
        ("nope.yaml:a=1", "nope.yaml: there is no such file"),
        ("README.md:a=1", r"README.md: .* there is no a; write README.md:\+a=1 to add it"),
        ("data:a=1", "data: it is a folder"),
        ("link.yaml:a=1", "symbolic link"),
    ],
)
async def test_an_override_that_does_not_fit_the_tree_stops_the_beginning(
    repository: aexp.Repository, repo_path: Path, git: Callable[..., str], override: str, reason: str
) -> None:
    """`init()` names the file and the reason, and no experiment begins."""
    (repo_path / "link.yaml").symlink_to("params.yaml")
    git("add", "link.yaml", cwd=repo_path)
    with pytest.raises((aexp.InvalidParams, aexp.UnsafePath), match=reason):
        await repository.experiment("one", overrides=[override]).init()

    assert await repository.interrupted() == []
    async with repository.experiment("one", overrides=["train.lr=0.5"]):
        pass


async def test_a_change_that_is_refused_changes_nothing(repository: aexp.Repository) -> None:
    """When one of several overrides is refused, none is applied, and the experiment goes on."""
    async with repository.experiment("one") as experiment:
        with pytest.raises(aexp.InvalidParams):
            await experiment.set_params(overrides=["train.lr=0.5", "train.nope=1"])

    assert (await repository.read("one", "params.yaml")).decode() == BEFORE


async def test_one_text_is_not_a_list_of_overrides(repository: aexp.Repository) -> None:
    """`overrides="a=1"` would be read letter by letter; it is refused."""
    with pytest.raises(TypeError, match="a sequence of texts"):
        repository.experiment(overrides="a=1")
