"""DVC lists, branches, renames and removes experiments that aexp made as it does its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Tool = Callable[..., Any]


async def make(path: Path, *names: str, **options: Any) -> list[aexp.Record]:
    """Save an experiment of each name, one after the other."""
    async with aexp.Repository(path) as repository:
        records = []
        for number, name in enumerate(names):
            async with repository.experiment(name, params={"number": number}, **options) as experiment:
                await experiment.log_metric("loss", 0.5 + number, 0)
            assert experiment.record is not None
            records.append(experiment.record)
        return records


def names(dvc: Tool, path: Path, *options: str) -> list[str]:
    """What `dvc exp list --name-only` says, sorted."""
    return sorted(dvc("exp", "list", "--name-only", *options, cwd=path).out.split())


async def test_dvc_lists_name_and_commit(repo_path: Path, dvc: Tool, cli: Tool) -> None:
    """Checks 1, 2: `dvc exp list` shows name and rev; the process says what the call in this process says."""
    (one,) = await make(repo_path, "one")
    assert dvc("exp", "list", cwd=repo_path).out == f"main:\n\t{one.rev[:7]} [one]\n"
    assert cli("dvc", "exp", "list", cwd=repo_path).out == f"main:\n\t{one.rev[:7]} [one]\n"
    assert dvc("exp", "list", "--name-only", cwd=repo_path).out == "one\n"
    assert dvc("exp", "list", "--sha-only", cwd=repo_path).out == f"{one.rev}\n"


async def test_dvc_lists_by_baseline(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 3: by HEAD, by an older commit, by the last two, and all of them."""
    await make(repo_path, "old")
    git("commit", "--quiet", "--allow-empty", "-m", "next", cwd=repo_path)
    await make(repo_path, "new")
    assert names(dvc, repo_path) == ["new"]
    assert names(dvc, repo_path, "--rev", "HEAD~1") == ["old"]
    assert names(dvc, repo_path, "-n", "2") == ["new", "old"]
    assert names(dvc, repo_path, "-A") == ["new", "old"]


async def test_an_experiment_is_one_loose_ref_and_one_commit(repo_path: Path, git: Tool) -> None:
    """Checks 4, 5: nothing below `refs/exps` but its ref; its commit's only parent is the baseline in the ref's path."""
    (one,) = await make(repo_path, "one")
    head = git("rev-parse", "HEAD", cwd=repo_path)
    ref = f"refs/exps/{head[:2]}/{head[2:]}/one"
    assert git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=repo_path) == ref
    assert (repo_path / ".git" / ref).read_text() == f"{one.rev}\n"
    assert git("log", "-1", "--format=%P", ref, cwd=repo_path) == head
    assert git("rev-list", "--count", f"{head}..{ref}", cwd=repo_path) == "1"


async def test_packed_refs_are_as_good(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 9: after `git pack-refs --all` DVC lists, renames and removes, and aexp reads."""
    await make(repo_path, "one", "two")
    git("pack-refs", "--all", cwd=repo_path)
    assert names(dvc, repo_path) == ["one", "two"]
    dvc("exp", "rename", "one", "uno", cwd=repo_path)
    dvc("exp", "remove", "two", cwd=repo_path)
    assert names(dvc, repo_path) == ["uno"]
    async with aexp.Repository(repo_path) as repository:
        assert [record.name for record in await repository.experiments()] == ["uno"]


async def test_linked_worktrees_share_experiments(repo_path: Path, dvc: Tool, git: Tool, tmp_path: Path) -> None:
    """Check 10: what was saved in a linked worktree is listed and applied in the main one, and the other way round."""
    linked = tmp_path / "linked"
    git("worktree", "add", "--quiet", "--detach", linked, cwd=repo_path)
    await make(linked, "there")
    await make(repo_path, "here")
    assert names(dvc, repo_path) == names(dvc, linked) == ["here", "there"]
    dvc("exp", "apply", "there", cwd=repo_path)
    dvc("exp", "apply", "here", cwd=linked)
    assert (repo_path / "aexp/metrics.json").exists()
    assert (linked / "aexp/metrics.json").exists()


@pytest.mark.parametrize("name", ["a/b", "a b", "HEAD", "-x", "x.lock", "a..b", "a~1", "a:b", "main", "deadbeef", ""])
async def test_names_that_dvc_cannot_resolve_are_refused(repository: aexp.Repository, name: str) -> None:
    """Checks 11, 48, 84: a name that DVC, Git or the command line would take for something else is refused."""
    with pytest.raises(aexp.InvalidName):
        await repository.experiment(name).init()


@pytest.mark.parametrize("name", ["übung", "größe-模型", "a@b", "lr=0.1,depth=3", "x" * 200, "it's+ok", "50%"])
async def test_names_that_dvc_accepts(repo_path: Path, dvc: Tool, name: str) -> None:
    """Check 84: unicode, `@`, `=`, 200 characters: DVC lists, shows, applies and removes them."""
    await make(repo_path, name)
    assert dvc("exp", "list", "--name-only", cwd=repo_path).out == f"{name}\n"
    dvc("exp", "apply", name, cwd=repo_path)
    dvc("exp", "remove", name, cwd=repo_path)
    assert names(dvc, repo_path) == []


async def test_private_refs_do_not_disturb_dvc(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 12: an open experiment has refs below `refs/aexp`, and DVC lists, renames and removes beside it."""
    await make(repo_path, "one", "two")
    async with aexp.Repository(repo_path) as repository, repository.experiment("open"):
        assert git("for-each-ref", "refs/aexp", cwd=repo_path)
        assert names(dvc, repo_path) == ["one", "two"]
        dvc("exp", "rename", "one", "uno", cwd=repo_path)
        dvc("exp", "remove", "two", cwd=repo_path)
    assert names(dvc, repo_path) == ["open", "uno"]


async def test_no_internal_ref_of_dvc_is_left(repo_path: Path, git: Tool) -> None:
    """Check 14: EXEC_BASELINE, which would hide experiments from DVC, is never made."""
    await make(repo_path, "one")
    assert git("for-each-ref", "refs/exps/exec", "refs/exps/stash", "refs/exps/apply", cwd=repo_path) == ""
    assert git("stash", "list", cwd=repo_path) == ""


async def test_dvc_shows_a_row(repo_path: Path, dvc: Tool, git: Tool, rows: Tool) -> None:
    """Check 15: name, rev, one commit, no error, no executor, params, metrics, and the time of the commit."""
    (one,) = await make(repo_path, "one")
    row = rows(repo_path)["one"]
    assert row["rev"] == one.rev
    assert row["name"] == "one"
    assert len(row["revs"]) == 1
    assert row["error"] is row["executor"] is None
    assert row["data"]["params"]["aexp/params.yaml"] == {"data": {"number": 0}}
    assert row["data"]["metrics"] == {"aexp/metrics.json": {"data": {"loss": 0.5, "step": 0}}}
    seconds = git("log", "-1", "--format=%cd", "--date=format:%Y-%m-%dT%H:%M:%S", one.rev, cwd=repo_path)
    assert row["data"]["timestamp"] == seconds
    assert "loss" in dvc("exp", "show", "--md", cwd=repo_path).out


async def test_dvc_shows_csv_and_the_newest_first(repo_path: Path, dvc: Tool, rows: Tool, monkeypatch: Any) -> None:
    """Checks 16, 17: a column for each value; of experiments of several seconds the newest comes first."""
    for name, now in (("first", 1_790_000_000.0), ("second", 1_790_000_010.0), ("third", 1_790_000_020.0)):
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda now=now: now)
            await make(repo_path, name)
    assert list(rows(repo_path)) == ["third", "second", "first"]
    header, *lines = dvc("exp", "show", "--csv", cwd=repo_path).out.splitlines()
    columns = header.split(",")
    assert {"Experiment", "rev", "typ", "loss", "step", "number"} <= set(columns)
    typ = columns.index("typ")
    assert [line.split(",")[typ] for line in lines] == ["baseline", "baseline", *["branch_commit"] * 2, "branch_base"]


async def test_dvc_makes_a_branch(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Checks 41, 42, 43: `dvc exp branch` promotes exactly the experiment that was named, though others stand beside it."""
    one, two = await make(repo_path, "one", "two")
    dvc("exp", "branch", "one", "best", cwd=repo_path)
    dvc("exp", "branch", "two", cwd=repo_path)
    assert git("rev-parse", "best", cwd=repo_path) == one.rev
    assert git("rev-parse", "two-branch", cwd=repo_path) == two.rev
    assert "already exists" in dvc("exp", "branch", "one", "best", cwd=repo_path, code=255).err


async def test_equal_experiments_are_two(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 43: two experiments of equal content have commits of their own, so DVC never takes one for the other."""
    async with aexp.Repository(repo_path) as repository:
        for name in ("one", "two"):
            async with repository.experiment(name):
                pass
        records = await repository.experiments()
    assert len({record.rev for record in records}) == 2
    for record in records:
        dvc("exp", "branch", record.name, f"of-{record.name}", cwd=repo_path)
        assert git("rev-parse", f"of-{record.name}", cwd=repo_path) == record.rev


async def test_dvc_removes(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 44: by name, by baseline, all but some, and all."""
    await make(repo_path, "a", "b", "c", "d")
    assert "Removed experiments: 'a'" in dvc("exp", "remove", "a", cwd=repo_path).out
    dvc("exp", "remove", "--keep", "b", "c", cwd=repo_path)
    assert names(dvc, repo_path, "-A") == ["b", "c"]
    git("commit", "--quiet", "--allow-empty", "-m", "next", cwd=repo_path)
    await make(repo_path, "e")
    dvc("exp", "remove", "--rev", "HEAD~1", cwd=repo_path)
    assert names(dvc, repo_path, "-A") == ["e"]
    dvc("exp", "remove", "-A", cwd=repo_path)
    assert names(dvc, repo_path, "-A") == []
    async with aexp.Repository(repo_path) as repository:
        assert list(await repository.experiments()) == []


async def test_dvc_renames(repo_path: Path, dvc: Tool) -> None:
    """Check 45: the commit stays, a taken name is refused, `-f` replaces; aexp goes by the ref."""
    one, _ = await make(repo_path, "one", "two")
    dvc("exp", "rename", "one", "uno", cwd=repo_path)
    dvc("exp", "rename", "uno", "two", cwd=repo_path, code=255)
    dvc("exp", "rename", "-f", "uno", "two", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        (record,) = await repository.experiments()
        assert (record.name, record.rev, record.params["number"]) == ("two", one.rev, 0)


async def test_dvc_refuses_our_names_and_we_refuse_its(repo_path: Path, dvc: Tool, cli: Tool) -> None:
    """Check 46: `dvc exp save -n` of our name is refused without `-f`, and so is ours of a name that DVC has used."""
    await make(repo_path, "ours")
    (repo_path / "params.yaml").write_text("lr: 2\n")
    assert "conflicts" in cli("dvc", "exp", "save", "-n", "ours", cwd=repo_path, code=1).err
    dvc("exp", "save", "-n", "theirs", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        with pytest.raises(aexp.NameTaken):
            await repository.experiment("theirs").init()
        dvc("exp", "save", "-f", "-n", "ours", cwd=repo_path)
        assert (await repository.get("ours")).params == {"lr": 2}
        async with repository.experiment("theirs", force=True):
            pass
    assert names(dvc, repo_path) == ["ours", "theirs"]


async def test_one_name_on_two_baselines(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 47: that of HEAD wins for DVC; elsewhere it is ambiguous for both of us; a full ref is not."""
    (old,) = await make(repo_path, "it")
    git("commit", "--quiet", "--allow-empty", "-m", "next", cwd=repo_path)
    (new,) = await make(repo_path, "it")
    dvc("exp", "branch", "it", "of-head", cwd=repo_path)
    assert git("rev-parse", "of-head", cwd=repo_path) == new.rev
    dvc("exp", "branch", old.ref, "of-old", cwd=repo_path)
    assert git("rev-parse", "of-old", cwd=repo_path) == old.rev
    git("commit", "--quiet", "--allow-empty", "-m", "last", cwd=repo_path)
    dvc("exp", "branch", "it", cwd=repo_path, code=255)
    async with aexp.Repository(repo_path) as repository:
        with pytest.raises(aexp.AmbiguousName):
            await repository.get("it")
        assert (await repository.get(old.ref)).rev == old.rev


async def test_checkpoints_are_one_row(repo_path: Path, dvc: Tool, rows: Tool) -> None:
    """Check 49: an experiment with checkpoints is listed once, by its tip; `exp show` has all its commits, tip first."""
    async with aexp.Repository(repo_path) as repository, repository.experiment("one") as one:
        revs = []
        for step in range(3):
            await one.log_metric("loss", 1.0 / (step + 1), step)
            revs.append(await one.make_checkpoint())
    assert one.record is not None
    assert dvc("exp", "list", cwd=repo_path).out == f"main:\n\t{one.record.rev[:7]} [one]\n"
    row = rows(repo_path)["one"]
    assert [each["rev"] for each in row["revs"]] == [one.record.rev, *reversed(revs)]
    losses = [each["data"]["metrics"]["aexp/metrics.json"]["data"]["loss"] for each in row["revs"]]
    assert losses == [1 / 3, 1 / 3, 0.5, 1.0]


async def test_a_detached_head_and_a_tag(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 81: the header is the rev of a detached HEAD, or the tag that names it."""
    git("checkout", "--quiet", "--detach", cwd=repo_path)
    git("branch", "-D", "main", cwd=repo_path)
    await make(repo_path, "one")
    head = git("rev-parse", "HEAD", cwd=repo_path)
    assert dvc("exp", "list", cwd=repo_path).out.startswith(f"{head[:7]}:\n")
    git("tag", "v1", cwd=repo_path)
    assert dvc("exp", "list", cwd=repo_path).out.startswith("v1:\n")


async def test_the_identity_of_the_environment(repo_path: Path, git: Tool, monkeypatch: Any) -> None:
    """Check 83: author and committer are those that Git would take; hooks do not run and nothing is signed."""
    hook = repo_path / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    git("config", "commit.gpgSign", "true", cwd=repo_path)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace Hopper")
    (one,) = await make(repo_path, "one")
    assert git("log", "-1", "--format=%an, %cn, %G?", one.rev, cwd=repo_path) == "Grace Hopper, Ada Lovelace, N"


async def test_aexp_lists_what_dvc_lists(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Check 79: with every internal ref of DVC there, aexp finds the experiments that `dvc exp list -A` finds."""
    await make(repo_path, "one", "two")
    (repo_path / "params.yaml").write_text("lr: 3\n")
    dvc("exp", "save", "-n", "three", cwd=repo_path)
    dvc("exp", "apply", "one", cwd=repo_path)
    for ref in ("exec/EXEC_BASELINE", "exec/EXEC_MERGE", "temp/head-1", "stash", "celery/stash", "celery/failed"):
        git("update-ref", f"refs/exps/{ref}", "HEAD", cwd=repo_path)
    git("symbolic-ref", "refs/exps/exec/EXEC_BRANCH", "refs/exps/exec/EXEC_HEAD", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        assert sorted(record.name for record in await repository.experiments()) == names(dvc, repo_path, "-A")
