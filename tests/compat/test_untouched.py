"""Saving leaves the user's repository, and DVC's affairs in it, as they were."""

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Tool = Callable[..., Any]


def state(path: Path, git: Tool) -> dict[str, Any]:
    """All that a save could disturb: HEAD, its log, the index, the status, the stash, and the branches."""
    return {
        "HEAD": (path / ".git/HEAD").read_bytes(),
        "log": (path / ".git/logs/HEAD").read_bytes(),
        "index": (path / ".git/index").read_bytes(),
        "status": git("status", "--porcelain=v2", cwd=path),
        "stash": git("stash", "list", cwd=path),
        "heads": git("for-each-ref", "refs/heads", "refs/tags", "refs/stash", cwd=path),
    }


def make_dirty(path: Path, git: Tool) -> None:
    """Stage a change, a new file and a removal; change, add and remove more without staging."""
    (path / "train.py").write_text("lr = 0.2\n")
    (path / "staged.txt").write_text("new\n")
    git("rm", "--quiet", "data/notes.txt", cwd=path)
    git("add", "train.py", "staged.txt", cwd=path)
    (path / "train.py").write_text("lr = 0.3\n")
    (path / "untracked.txt").write_text("mine\n")
    (path / "README.md").unlink()


async def test_a_save_moves_nothing_of_the_user(repo_path: Path, git: Tool, cli: Tool) -> None:
    """Checks 6, 78: index, HEAD, its log, status and stash stay byte by byte; `dvc exp save` unstages, as a contrast."""
    make_dirty(repo_path, git)
    git("status", cwd=repo_path)  # it refreshes the index
    before = state(repo_path, git)
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("one", code="all") as one:
            await one.log_metric("loss", 1)
            await one.make_checkpoint()
        assert state(repo_path, git) == before
    assert state(repo_path, git) == before
    cli("dvc", "exp", "save", "-n", "theirs", cwd=repo_path)
    assert state(repo_path, git) != before


async def test_a_commit_holds_nothing_private(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 7: nothing of `.dvc/tmp` is in the commit, where DVC's own `exp save` puts its arguments."""
    (repo_path / "params.yaml").write_text("lr: 2\n")
    dvc("exp", "save", "-n", "theirs", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("ours", code="all"):
            pass
        revs = {record.name: record.rev for record in await repository.experiments()}
    files = {name: git("ls-tree", "-r", "--name-only", rev, cwd=repo_path).split() for name, rev in revs.items()}
    assert not [path for path in files["ours"] if path.startswith((".dvc/tmp", ".dvc/cache"))]
    assert ".dvc/tmp/repro.dat" in files["theirs"]


async def test_git_keeps_and_accepts_what_dvc_lists(repo_path: Path, dvc: Tool, git: Tool, fsck: Tool) -> None:
    """Check 8: `git fsck --strict` is content, and after `git gc --prune=now` DVC still lists and applies."""
    async with aexp.Repository(repo_path) as repository:
        for name in ("one", "two"):
            async with repository.experiment(name, params={"name": name}) as experiment:
                await experiment.log_metric("loss", 1)
    fsck(repo_path)
    git("gc", "--quiet", "--prune=now", cwd=repo_path)
    fsck(repo_path)
    assert sorted(dvc("exp", "list", "--name-only", cwd=repo_path).out.split()) == ["one", "two"]
    dvc("exp", "apply", "two", cwd=repo_path)
    assert (repo_path / "aexp/params.yaml").read_text() == "name: two\n"


async def test_dvcs_lock_is_not_waited_for(repo_path: Path, dvc: Tool) -> None:
    """Check 70: while another program holds DVC's lock, DVC gives up and aexp saves."""
    dvc("exp", "list", cwd=repo_path)  # makes the lock file
    with (repo_path / ".dvc/tmp/lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        async with aexp.Repository(repo_path) as repository, asyncio.timeout(20), repository.experiment("one"):
            pass
        refused = dvc("exp", "list", cwd=repo_path, code=255)
        assert "lock" in refused.out + refused.err
    assert dvc("exp", "list", "--name-only", cwd=repo_path).out == "one\n"


async def test_without_dvc_aexp_works_and_dvc_can_come_later(
    template: Path, tmp_path: Path, dvc: Tool, git: Tool
) -> None:
    """Check 13: in a plain Git repository DVC's `exp` commands end with 253; after `dvc init` it lists all there is."""
    path = Path(shutil.copytree(template, tmp_path / "plain"))
    async with aexp.Repository(path) as repository, repository.experiment("one", params={"lr": 1}) as one:
        await one.log_metric("loss", 0.5)
    assert not (path / ".dvc").exists()
    assert git("status", "--porcelain", cwd=path) == ""
    dvc("exp", "list", cwd=path, code=253)
    assert dvc("params", "diff", "--json", "HEAD", one.ref, cwd=path).json
    dvc("init", "--quiet", cwd=path)
    assert dvc("exp", "list", "--name-only", cwd=path).out == "one\n"
    git("commit", "--quiet", "-m", "dvc", cwd=path)
    assert dvc("exp", "list", "--name-only", "-A", cwd=path).out == "one\n"


async def test_applying_one_made_before_dvc_came_keeps_dvc(
    template: Path, tmp_path: Path, dvc: Tool, git: Tool
) -> None:
    """Check 40: `dvc exp apply` takes away what the experiment has not; those made without DVC have what DVC needs."""
    path = Path(shutil.copytree(template, tmp_path / "plain"))
    async with aexp.Repository(path) as repository, repository.experiment("early", params={"lr": 1}):
        pass
    dvc("init", "--quiet", cwd=path)
    git("commit", "--quiet", "-m", "dvc", cwd=path)
    dvc("exp", "apply", "early", cwd=path)
    assert (path / "aexp/params.yaml").read_text() == "lr: 1\n"
    assert git("status", "--porcelain", cwd=path) == "?? aexp/"  # nothing that HEAD tracks was changed or removed
    assert dvc("exp", "list", "-A", "--name-only", cwd=path).out == "early\n"


@pytest.mark.parametrize("where", ["top", "below"])
async def test_a_dvc_repository_of_the_users_is_left_alone(
    template: Path, tmp_path: Path, dvc: Tool, git: Tool, where: str
) -> None:
    """An experiment whose code has a DVC repository, at the top or below, carries its configuration and no other."""
    path = Path(shutil.copytree(template, tmp_path / "repository"))
    home = path if where == "top" else path / "project"
    home.mkdir(exist_ok=True)
    dvc("init", "--quiet", *(["--subdir"] if where == "below" else []), cwd=home)
    (home / ".dvc/config").write_text("[core]\n    autostage = true\n")
    git("add", ".", cwd=path)
    git("commit", "--quiet", "-m", "dvc", cwd=path)
    async with aexp.Repository(path) as repository, repository.experiment("one", code="none") as one:
        pass
    changed = git("diff-tree", "-r", "--name-only", "HEAD", one.ref, cwd=path).split()
    assert {each.partition("/")[0] for each in changed} == {"aexp"}


async def test_a_program_may_save_where_only_git_can_write(repo_path: Path, dvc: Tool) -> None:
    """When `.dvc/tmp` cannot be written, saving goes on, and DVC finds the values by itself."""
    tmp = repo_path / ".dvc/tmp"
    shutil.rmtree(tmp)
    os.symlink("/nowhere", tmp)
    async with aexp.Repository(repo_path) as repository, repository.experiment("one"):
        pass
    tmp.unlink()
    assert dvc("exp", "list", "--name-only", cwd=repo_path).out == "one\n"
