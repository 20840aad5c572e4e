"""`dvc exp apply`, and DVC repositories in folders, clones and bare repositories."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Tool = Callable[..., Any]


async def test_apply_restores_files(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 36: the experiment's files come, unrelated untracked ones stay, HEAD and branch do not move."""
    (repo_path / "train.py").write_text("lr = 0.7\n")
    async with aexp.Repository(repo_path) as repository, repository.experiment("one", params={"lr": 0.7}) as one:
        await one.log_file("reports/one.md", "well\n")
    git("checkout", "--quiet", ".", cwd=repo_path)
    (repo_path / "mine.txt").write_text("mine\n")
    head = git("rev-parse", "HEAD", cwd=repo_path)
    dvc("exp", "apply", "one", cwd=repo_path)
    assert git("rev-parse", "HEAD", cwd=repo_path) == head
    assert git("symbolic-ref", "HEAD", cwd=repo_path) == "refs/heads/main"
    assert git("status", "--porcelain", cwd=repo_path).splitlines() == [
        " M train.py",
        "?? aexp/",
        "?? mine.txt",
        "?? reports/",
    ]
    assert (repo_path / "train.py").read_text() == "lr = 0.7\n"
    assert (repo_path / "reports/one.md").read_text() == "well\n"


async def test_apply_of_a_removal(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 37: what the code had removed is removed in a clean work tree."""
    (repo_path / "data/notes.txt").unlink()
    async with aexp.Repository(repo_path) as repository, repository.experiment("one"):
        pass
    git("checkout", "--quiet", ".", cwd=repo_path)
    dvc("exp", "apply", "one", cwd=repo_path)
    assert not (repo_path / "data/notes.txt").exists()


async def test_modes_and_links_survive(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 39: executable files and symbolic links of the captured code come back as such."""
    script = repo_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (repo_path / "link").symlink_to("train.py")
    async with aexp.Repository(repo_path) as repository, repository.experiment("one", code="all"):
        pass
    script.unlink()
    (repo_path / "link").unlink()
    dvc("exp", "apply", "one", cwd=repo_path)
    assert os.access(script, os.X_OK)
    assert (repo_path / "link").readlink() == Path("train.py")


async def test_apply_from_another_baseline(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 40: the whole tree of the experiment is applied, and DVC's own tracked files outlive it."""
    async with aexp.Repository(repo_path) as repository, repository.experiment("old", params={"lr": 1}):
        pass
    (repo_path / "later.txt").write_text("later\n")
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "later", cwd=repo_path)
    dvc("exp", "apply", "old", cwd=repo_path)
    assert not (repo_path / "later.txt").exists()
    assert (repo_path / ".dvc/config").exists()
    assert (repo_path / ".dvcignore").exists()


async def test_apply_of_two_in_turn(repo_path: Path, dvc: Tool) -> None:
    """The second experiment replaces the series of the first: what is shown in the work tree is one experiment's."""
    async with aexp.Repository(repo_path) as repository:
        for name in ("one", "two"):
            async with repository.experiment(name, params={"name": name}) as experiment:
                await experiment.log_metric(f"only/{name}", 1.0, 0)
    dvc("exp", "apply", "one", cwd=repo_path)
    dvc("exp", "apply", "two", cwd=repo_path)
    shown = dvc("metrics", "show", "--json", cwd=repo_path).json[""]["data"]
    assert shown["aexp/metrics.json"]["data"] == {"only": {"two": 1.0}, "step": 0}
    assert dvc("params", "diff", "--json", "two", cwd=repo_path).json == {}


async def test_a_dvc_repository_in_a_folder(template: Path, tmp_path: Path, dvc: Tool, git: Tool, rows: Tool) -> None:
    """Check 80: with `dvc init --subdir` and `Settings(folder=...)` in that folder, DVC shows paths relative to it."""
    path = Path(shutil.copytree(template, tmp_path / "mono"))
    project = path / "project"
    project.mkdir()
    (project / "params.yaml").write_text("batch: 8\n")
    dvc("init", "--quiet", "--subdir", cwd=project)
    git("add", ".", cwd=path)
    git("commit", "--quiet", "-m", "project", cwd=path)
    settings = aexp.Settings(folder="project/aexp")
    opened = aexp.Repository(project, settings=settings)
    async with opened as repository, repository.experiment("one", params={"lr": 0.1}) as one:
        await one.log_metric("loss", 0.5)
    row = rows(project)["one"]["data"]
    params = {"aexp/params.yaml": {"data": {"lr": 0.1}}, "params.yaml": {"data": {"batch": 8}}}
    assert row["params"] == params
    assert row["metrics"] == {"aexp/metrics.json": {"data": {"loss": 0.5, "step": 0}}}
    assert rows(project, "--force")["one"]["data"] == row
    dvc("exp", "apply", "one", cwd=project)
    assert (project / "aexp/metrics.json").exists()


@pytest.fixture
async def shared(repo_path: Path, tmp_path: Path, git: Tool) -> tuple[Path, Path, Path]:
    """A repository with experiment `one`, its bare `origin`, and a clone of that."""
    origin, clone = tmp_path / "origin.git", tmp_path / "clone"
    git("init", "--quiet", "--bare", "--initial-branch=main", origin, cwd=tmp_path)
    git("remote", "add", "origin", origin, cwd=repo_path)
    git("push", "--quiet", "origin", "main", cwd=repo_path)
    git("clone", "--quiet", origin, clone, cwd=tmp_path)
    async with aexp.Repository(repo_path) as repository, repository.experiment("one", params={"lr": 0.1}) as one:
        await one.log_metric("loss", 0.5)
    return repo_path, origin, clone


async def test_dvc_pushes_and_pulls(shared: tuple[Path, Path, Path], dvc: Tool, git: Tool) -> None:
    """Checks 50, 51, 56: `dvc exp push`, `list`, `pull`, `apply` carry the very commit; aexp reads it in the clone."""
    here, origin, clone = shared
    async with aexp.Repository(here) as repository:
        one = await repository.get("one")
    assert "Pushed experiment one" in dvc("exp", "push", "origin", "one", cwd=here).out
    assert "up to date" in dvc("exp", "push", "origin", "one", cwd=here).out
    assert git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=origin) == one.ref
    assert "one" in dvc("exp", "list", "origin", cwd=clone).out
    assert "one" in dvc("exp", "list", str(origin), cwd=clone).out
    dvc("exp", "pull", "origin", "-A", cwd=clone)
    async with aexp.Repository(clone) as repository:
        (record,) = await repository.experiments()
        assert (record.rev, record.params["lr"], record.metrics["loss"]) == (one.rev, 0.1, 0.5)
    dvc("exp", "apply", "one", cwd=clone)
    assert (clone / "aexp/metrics.json").exists()


async def test_diverged_experiments(shared: tuple[Path, Path, Path], dvc: Tool, git: Tool) -> None:
    """Checks 52, 53: DVC sees that ours has diverged, `-f` replaces it, `-g` removes it there alone."""
    here, origin, _ = shared
    dvc("exp", "push", "origin", "one", cwd=here)
    before = git("for-each-ref", "refs/exps", cwd=origin)
    async with aexp.Repository(here) as repository, repository.experiment("one", params={"lr": 9}, force=True) as one:
        pass
    dvc("exp", "push", "origin", "one", cwd=here)
    assert git("for-each-ref", "refs/exps", cwd=origin) == before
    dvc("exp", "push", "-f", "origin", "one", cwd=here)
    assert one.record is not None
    assert git("for-each-ref", "--format=%(objectname)", "refs/exps", cwd=origin) == one.record.rev
    dvc("exp", "remove", "-g", "origin", "one", cwd=here)
    assert git("for-each-ref", "refs/exps", cwd=origin) == ""
    assert dvc("exp", "list", "--name-only", cwd=here).out == "one\n"


async def test_plain_git_pushes_and_fetches(shared: tuple[Path, Path, Path], dvc: Tool, git: Tool) -> None:
    """Check 54: `refs/exps/*` travels with a refspec; nothing but the experiment is there to travel."""
    here, origin, clone = shared
    git("push", "--quiet", "origin", "refs/exps/*:refs/exps/*", cwd=here)
    git("fetch", "--quiet", "origin", "refs/exps/*:refs/exps/*", cwd=clone)
    assert len(git("for-each-ref", "refs/exps", cwd=origin).splitlines()) == 1
    assert dvc("exp", "list", "--name-only", cwd=clone).out == "one\n"


async def test_saved_in_a_bare_repository(shared: tuple[Path, Path, Path], dvc: Tool) -> None:
    """Check 55: an experiment made in the bare repository itself is listed and pulled from it."""
    _, origin, clone = shared
    async with aexp.Repository(origin) as repository, repository.experiment("there", params={"lr": 3}):
        pass
    assert dvc("exp", "list", "origin", "--name-only", cwd=clone).out == "there\n"
    dvc("exp", "pull", "origin", "there", cwd=clone)
    dvc("exp", "apply", "there", cwd=clone)
    assert (clone / "aexp/params.yaml").read_text() == "lr: 3\n"


async def test_a_shallow_clone(shared: tuple[Path, Path, Path], tmp_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 82: in a clone of depth 1 DVC pulls and applies, and aexp reads and saves."""
    here, origin, _ = shared
    dvc("exp", "push", "origin", "one", cwd=here)
    shallow = tmp_path / "shallow"
    git("clone", "--quiet", "--depth=1", f"file://{origin}", shallow, cwd=tmp_path)
    dvc("exp", "pull", "origin", "one", cwd=shallow)
    async with aexp.Repository(shallow) as repository:
        assert (await repository.get("one")).metrics["loss"] == 0.5
        async with repository.experiment("two"):
            pass
    assert sorted(dvc("exp", "list", "--name-only", cwd=shallow).out.split()) == ["one", "two"]
    dvc("exp", "apply", "two", cwd=shallow)
