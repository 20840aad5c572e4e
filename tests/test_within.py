"""A program in a run of DVC, told by the environment alone; tests/compat shows it with DVC itself."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp
from aexp._ways import DVC_BASELINE, DVC_NAME, DVC_ROOT, Join, Within, is_of, run_of_dvc, variables

Git = Callable[..., str]


def told(root: Path | str, baseline: str = "b" * 40, name: str = "run-1") -> dict[str, str]:
    """The variables that DVC sets for the stages of a run."""
    return {DVC_ROOT: str(root), DVC_BASELINE: baseline, DVC_NAME: name}


def test_a_run_has_its_own_work_tree_and_those_below_its_folder() -> None:
    """The work tree of DVC_ROOT, the one above it, and the temporary ones below `.dvc/tmp/exps` belong to a run; no other."""
    within = Within("/repo", "b" * 40, "run-1")
    assert run_of_dvc(told("/repo"), "/repo") == within
    assert run_of_dvc(told("/repo/sub"), "/repo") == Within("/repo/sub", "b" * 40, "run-1")
    assert run_of_dvc(told("/repo"), "/repo/.dvc/tmp/exps/standalone/tmp1") == within
    for worktree in ("/other", "/repo2", "/repo/sub", "/", None):
        assert run_of_dvc(told("/repo"), worktree) is None
    for missing in (DVC_ROOT, DVC_BASELINE, DVC_NAME):
        assert run_of_dvc({key: value for key, value in told("/repo").items() if key != missing}, "/repo") is None
    join = Join("id", "name", "b" * 40, "/repo", "session")
    assert run_of_dvc(told("/repo") | variables(join), "/repo") is None


def test_a_commit_of_dvc_is_known_by_what_was_written_for_it() -> None:
    """experiment.json counts for the run it names, and for no other."""
    written = {"within": Within("/repo", "b" * 40, "run-1").to_json()}
    assert is_of(written, "b" * 40, "run-1")
    assert not is_of(written, "b" * 40, "run-2")
    assert not is_of(written, "c" * 40, "run-1")
    assert not is_of({}, "b" * 40, "run-1")


@pytest.fixture
def within(repo_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which this process is a stage of the run `run-1`."""
    for name, value in told(repo_path.resolve(), git("rev-parse", "HEAD", cwd=repo_path)).items():
        monkeypatch.setenv(name, value)
    return repo_path


async def test_the_files_are_staged_and_no_ref_is_made(within: Path, git: Git) -> None:
    """`save()` writes the folder and what was logged, with its mode, into the work tree and the index, and nothing else."""
    async with aexp.init("mine", path=within, params={"lr": 1}, tags=["t"]) as experiment:
        await experiment.log_metric("train/loss", 0.5, 3)
        await experiment.log_file("notes/a.txt", "hi")
        assert experiment.name == "run-1"
    record = experiment.record
    assert record is not None
    head = git("rev-parse", "HEAD", cwd=within)
    assert (record.rev, record.ref, record.baseline) == ("", f"refs/exps/{head[:2]}/{head[2:]}/run-1", head)
    assert (record.params["lr"], record.metrics, record.status) == (1, {"train/loss": 0.5, "step": 3}, "finished")
    assert git("for-each-ref", "refs/exps", "refs/aexp", cwd=within) == ""
    assert git("diff", "--cached", "--name-only", cwd=within).split() == [
        "aexp/dvc.yaml",
        "aexp/experiment.json",
        "aexp/metrics.json",
        "aexp/params.yaml",
        "aexp/plots/metrics/train/loss.tsv",
        "notes/a.txt",
    ]
    assert json.loads((within / "aexp/experiment.json").read_text())["within"] == {"baseline": head, "name": "run-1"}


async def test_a_checkpoint_shows_what_there_is(within: Path, git: Git) -> None:
    """`make_checkpoint()` lays the files so far, again and again, returns no rev, and is followed by one save."""
    async with aexp.Repository(within) as repository, repository.experiment() as experiment:
        for step in range(3):
            await experiment.log_metric("loss", step, step)
            assert await experiment.make_checkpoint() == ""
            assert json.loads((within / "aexp/metrics.json").read_text()) == {"loss": step, "step": step}
            assert json.loads((within / "aexp/experiment.json").read_text())["status"] == "running"
    assert experiment.record is not None
    assert experiment.record.checkpoints == ()
    async with aexp.Repository(within) as repository:
        assert await repository.interrupted() == []


async def test_a_failure_is_laid_down_as_such(within: Path) -> None:
    """The exception goes on; status and traceback are in the work tree."""
    with pytest.raises(ZeroDivisionError):
        async with aexp.init(path=within):
            _ = 1 / 0
    account = json.loads((within / "aexp/experiment.json").read_text())
    assert (account["status"], account["error"]["type"]) == ("failed", "ZeroDivisionError")


async def test_cancelled_it_is_laid_down_as_cancelled(within: Path) -> None:
    """A cancellation goes on once the files lie there, whole."""

    async def work() -> None:
        async with aexp.init(path=within) as experiment:
            await experiment.log_metric("loss", 1)
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert json.loads((within / "aexp/experiment.json").read_text())["status"] == "cancelled"
    assert json.loads((within / "aexp/metrics.json").read_text())["loss"] == 1


async def test_discarded_nothing_is_laid_down(within: Path, git: Git) -> None:
    """What is given up leaves no file."""
    async with aexp.Repository(within) as repository:
        experiment = await repository.experiment().init()
        await experiment.log_metric("loss", 1)
        await experiment.discard()
    assert git("status", "--porcelain", cwd=within) == ""


async def test_the_index_is_locked(within: Path) -> None:
    """While another program holds Git's index, `save()` says so; afterwards it can be called again."""
    lock = within / ".git/index.lock"
    async with aexp.Repository(within) as repository:
        experiment = await repository.experiment().init()
        lock.touch()
        with pytest.raises(aexp.GitError, match="index"):
            await experiment.save()
        lock.unlink()
        assert (await experiment.save()).rev == ""


async def test_a_branch_of_the_name_does_not_matter(within: Path, git: Git, monkeypatch: Any) -> None:
    """The name is DVC's choice, so aexp does not judge it."""
    monkeypatch.setenv(DVC_NAME, "main")
    async with aexp.init(path=within) as experiment:
        pass
    assert experiment.name == "main"


async def test_files_that_are_taken_away(within: Path) -> None:
    """The series of an earlier experiment go from the folder; other files of the user's there stay."""
    old = within / "aexp/plots/metrics/old.tsv"
    old.parent.mkdir(parents=True)
    old.write_text("step\told\n")
    (within / "aexp/mine.txt").write_text("mine")
    async with aexp.init(path=within) as experiment:
        await experiment.log_metric("new", 1)
    assert not old.exists()
    assert (old.parent / "new.tsv").exists()
    assert (within / "aexp/mine.txt").read_text() == "mine"
    assert not [name for _, _, names in os.walk(within / "aexp") for name in names if ".aexp-" in name]


async def test_head_while_dvc_saves_is_the_commit_it_saves_from(repo_path: Path, git: Git) -> None:
    """For a moment HEAD is DVC's own new commit; an experiment that begins then starts from the commit before it."""
    head = git("rev-parse", "HEAD", cwd=repo_path)
    theirs = git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "dvc: commit experiment", cwd=repo_path)
    git("checkout", "--quiet", theirs, cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("before") as before:
            pass
        git("update-ref", "refs/exps/exec/EXEC_HEAD", head, cwd=repo_path)  # DVC has done its work, but for one thing
        asyncio.get_running_loop().call_later(0.3, lambda: git("checkout", "--quiet", "main", cwd=repo_path))
        async with repository.experiment("at-the-end") as at_the_end:
            pass
        git("checkout", "--quiet", theirs, cwd=repo_path)
        async with repository.experiment("on-purpose") as on_purpose:  # HEAD stays where the user has put it
            pass
        git("update-ref", "refs/exps/exec/EXEC_BASELINE", head, cwd=repo_path)
        async with repository.experiment("meanwhile") as meanwhile:
            pass
        git("checkout", "--quiet", "main", cwd=repo_path)
        git("commit", "--quiet", "--allow-empty", "-m", "next", cwd=repo_path)
        async with repository.experiment("left-behind") as left:  # a run that was killed leaves its ref
            pass
    assert (before.baseline, on_purpose.baseline) == (theirs, theirs)
    assert (meanwhile.baseline, at_the_end.baseline) == (head, head)
    assert left.baseline == git("rev-parse", "main", cwd=repo_path)
