"""Other names, removal and its undoing, branches: of our experiments, of DVC's, and of damaged ones."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp._layout import experiment_ref, parse_trash_ref, trash_ref

Git = Callable[..., str]
Fsck = Callable[[Path], None]


async def saved(repository: aexp.Repository, name: str, *, force: bool = False) -> aexp.Record:
    """Save an experiment in which one point was logged."""
    async with repository.experiment(name, force=force) as experiment:
        await experiment.log_metric("m", 1.0)
    assert experiment.record is not None
    return experiment.record


def refs_of(git: Git, path: Path, below: str = "refs/exps") -> dict[str, str]:
    """Every ref below a prefix with its rev."""
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", below, cwd=path).splitlines()
    return dict(line.split(" ") for line in lines)


def foreign(git: Git, path: Path, name: str) -> str:
    """Make an experiment as DVC does: a commit over HEAD, on its ref; the ref."""
    head, tree = git("rev-parse", "HEAD", "HEAD^{tree}", cwd=path).splitlines()
    ref = experiment_ref(head, name)
    git("update-ref", ref, git("commit-tree", tree, "-p", head, "-m", f"dvc: commit {name}", cwd=path), cwd=path)
    return ref


def next_commit(git: Git, path: Path) -> None:
    """Give the repository another baseline."""
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=path)


# ---- names ----


async def test_another_name_is_another_ref_for_the_same_commit(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """`rename` moves the ref on its baseline; the commit, and what is in it, stays as it is."""
    old = await saved(repository, "old")

    record = await repository.rename("old", "new")

    assert (record.name, record.rev, record.id, record.baseline) == ("new", old.rev, old.id, old.baseline)
    assert refs_of(git, repo_path) == {record.ref: old.rev}
    assert await repository.get("new") == record
    assert await repository.rename("new", "new") == record
    assert (await repository.rename(record.ref, "again")).name == "again"
    assert (await repository.rename(old.rev, "by-rev")).name == "by-rev"
    fsck(repo_path)


async def test_a_name_that_cannot_be_is_refused(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A name that no experiment may have, or that is taken by a saved or open one, changes nothing."""
    await saved(repository, "one")
    two = await saved(repository, "two")
    git("tag", "a-tag", cwd=repo_path)
    before = refs_of(git, repo_path)
    async with repository.experiment("open", on_error="discard"):
        for name in ("", "a b", "a/b", "-x", "HEAD", "main", "a-tag", "deadbeef", "x.lock"):
            with pytest.raises(aexp.InvalidName):
                await repository.rename("one", name)
        with pytest.raises(aexp.NameTaken) as told:
            await repository.rename("one", "two")
        with pytest.raises(aexp.NameTaken) as open_one:
            await repository.rename("one", "open")
        with pytest.raises(aexp.ExperimentNotFound):
            await repository.rename("nothing", "three")
        assert refs_of(git, repo_path) == before
    assert (told.value.name, told.value.rev) == ("two", two.rev)
    assert "force" not in str(told.value)
    assert open_one.value.rev is None


async def test_a_name_may_be_used_again_on_another_baseline(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """A name that stands on two baselines is ambiguous to every change, and each full ref is accepted."""
    first = await saved(repository, "it")
    next_commit(git, repo_path)
    second = await saved(repository, "it")

    for call in (repository.rename("it", "x"), repository.remove("it"), repository.branch("it")):
        with pytest.raises(aexp.AmbiguousName) as told:
            await call
        assert told.value.matches == tuple(sorted([first.ref, second.ref]))
    assert (await repository.rename(first.ref, "x")).baseline == first.baseline
    assert await repository.remove(second.ref) == [second]
    assert list(refs_of(git, repo_path)) == [experiment_ref(first.baseline, "x")]


# ---- removal ----


async def test_what_is_removed_can_be_restored(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """Several are removed together, and each comes back to the same ref with the same rev, also after `git gc`."""
    records = [await saved(repository, name) for name in ("a", "b", "c")]

    assert await repository.remove("c", "a", records[2].ref) == [records[2], records[0]]
    assert list(refs_of(git, repo_path)) == [records[1].ref]
    trash = refs_of(git, repo_path, "refs/aexp/trash")
    assert sorted(trash.values()) == sorted([records[0].rev, records[2].rev])
    assert {(parse_trash_ref(ref) or (0, ""))[1] for ref in trash} == {records[0].ref, records[2].ref}

    git("gc", "--quiet", "--prune=now", cwd=repo_path)
    assert [await repository.restore("a"), await repository.restore(records[2].rev[:8])] == [records[0], records[2]]
    assert list(await repository.experiments()) == records
    assert not refs_of(git, repo_path, "refs/aexp/trash")
    fsck(repo_path)


async def test_all_are_removed_or_none(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """One name that is not there keeps the others where they are."""
    await saved(repository, "a")
    before = refs_of(git, repo_path, "refs")

    with pytest.raises(aexp.ExperimentNotFound) as told:
        await repository.remove("a", "nothing")

    assert told.value.name == "nothing"
    assert refs_of(git, repo_path, "refs") == before
    assert await repository.remove() == []


async def test_the_last_removed_comes_back_first(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Of several that were removed under one name the last one is restored, the others under other names."""
    first = await saved(repository, "it")
    await repository.remove("it")
    second = await saved(repository, "it")
    await repository.remove("it")

    assert await repository.restore("it") == second
    with pytest.raises(aexp.NameTaken) as told:
        await repository.restore("it")
    assert told.value.rev == second.rev
    (place,) = refs_of(git, repo_path, "refs/aexp/trash")
    record = await repository.restore(place, "older")
    assert (record.name, record.rev, record.baseline) == ("older", first.rev, first.baseline)
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.restore("it")


async def test_what_was_replaced_comes_back_under_another_name(repository: aexp.Repository) -> None:
    """What `force=True` replaced stays in the trash, and is restored beside its successor."""
    first = await saved(repository, "it")
    second = await saved(repository, "it", force=True)

    with pytest.raises(aexp.NameTaken):
        await repository.restore("it")
    with pytest.raises(aexp.NameTaken):
        await repository.restore("it", "it")
    with pytest.raises(aexp.InvalidName):
        await repository.restore("it", "not a name")
    assert (await repository.restore("it", "it-before")).rev == first.rev
    assert await repository.get("it") == second


async def test_two_removed_from_two_baselines_are_told_apart(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """`restore` of a name that was removed from two baselines names the full refs, and takes either."""
    records = [await saved(repository, "it")]
    next_commit(git, repo_path)
    records.append(await saved(repository, "it"))
    await repository.remove(*(record.ref for record in records))

    with pytest.raises(aexp.AmbiguousName) as told:
        await repository.restore("it")

    assert told.value.matches == tuple(sorted(record.ref for record in records))
    assert [await repository.restore(record.ref) for record in records] == records


async def test_an_experiment_with_checkpoints_comes_back_to_its_baseline(repository: aexp.Repository) -> None:
    """The trash knows the baseline of a commit that has other commits of its experiment below it."""
    async with repository.experiment("deep") as experiment:
        for step in range(3):
            await experiment.log_metric("m", step, step)
            await experiment.make_checkpoint()
    await repository.remove("deep")

    assert await repository.restore("deep") == experiment.record


@given(st.integers(0, 10**14), st.text("0123456789abcdef", min_size=40, max_size=40), st.text(min_size=1, max_size=9))
def test_a_ref_in_the_trash_says_where_it_stood(milliseconds: int, baseline: str, name: str) -> None:
    """Every ref of an experiment is read back from the ref that keeps it."""
    ref = experiment_ref(baseline, name.replace("/", "-"))

    assert parse_trash_ref(trash_ref(milliseconds, ref)) == (milliseconds, ref)


# ---- open ones ----


async def test_an_open_experiment_is_left_alone(repository: aexp.Repository, repo_path: Path) -> None:
    """What has a checkpoint and goes on, here or in another program, is neither renamed nor removed."""
    async with repository.experiment("it") as experiment:
        await experiment.log_metric("m", 1.0)
        await experiment.make_checkpoint()
        async with aexp.Repository(repo_path) as other:
            for each in (repository, other):
                with pytest.raises(aexp.NotOwner) as told:
                    await each.rename("it", "new")
                with pytest.raises(aexp.NotOwner):
                    await each.remove("it")
    assert told.value.name == "it"
    assert f"process {os.getpid()}" in told.value.holder
    assert experiment.record is not None
    assert experiment.record.checkpoints
    assert (await repository.rename("it", "new")).rev == experiment.record.rev


async def test_a_resumed_experiment_belongs_to_who_resumed_it(repository: aexp.Repository, repo_path: Path) -> None:
    """A checkpoint that a program made which is over is not touched while another program goes on from it."""
    async with aexp.Repository(repo_path) as dead:
        experiment = await dead.experiment("it").init()
        await experiment.make_checkpoint()

    with pytest.raises(aexp.InvalidTransition) as told:
        await repository.remove("it")
    assert "recover()" in str(told.value)
    resumed = await repository.resume("it")
    async with aexp.Repository(repo_path) as other:
        for each in (repository, other):
            with pytest.raises(aexp.NotOwner):
                await each.rename("it", "new")
    record = await resumed.save()
    assert await repository.remove("it") == [record]


# ---- damaged ones, and DVC's ----


async def test_damaged_experiments_can_be_removed(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """An empty ref and a ref to a missing commit are removed and said to be damaged; the others are untouched."""
    kept = await saved(repository, "kept")
    for name, content in (("empty", ""), ("missing", "1234567890" * 4 + "\n")):
        (repo_path / ".git" / experiment_ref(kept.baseline, name)).write_text(content)
    for call in (repository.rename("empty", "x"), repository.branch("missing"), repository.rename("missing", "x")):
        with pytest.raises(aexp.GitError):
            await call

    removed = await repository.remove("empty", "missing", "kept")

    assert [(record.name, record.damaged is not None) for record in removed] == [
        ("empty", True),
        ("missing", True),
        ("kept", False),
    ]
    assert not refs_of(git, repo_path)
    assert not (repo_path / ".git" / "refs" / "exps" / kept.baseline[:2]).exists()
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.restore("missing")
    assert await repository.restore("kept") == kept
    fsck(repo_path)


async def test_a_damaged_ref_that_was_packed_is_removed_whole(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """Where an empty file hides what `git pack-refs` wrote, that is kept in the trash, and can be restored."""
    record = await saved(repository, "it")
    git("pack-refs", "--all", cwd=repo_path)
    path = repo_path / ".git" / record.ref
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")

    (removed,) = await repository.remove("it")

    assert removed.damaged is not None
    assert not refs_of(git, repo_path)
    assert await repository.restore("it") == record
    fsck(repo_path)


async def test_experiments_of_others_are_changed_like_ours(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """What DVC made is renamed, branched, removed and restored; its private refs are never seen or touched."""
    ref = foreign(git, repo_path, "theirs")
    head = git("rev-parse", "HEAD", cwd=repo_path)
    for name in ("stash", "exec/EXEC_HEAD", "celery/stash", "temp/x/y"):
        git("update-ref", f"refs/exps/{name}", head, cwd=repo_path)
    private = refs_of(git, repo_path)
    private.pop(ref)

    record = await repository.rename("theirs", "ours")
    assert await repository.branch("ours") == "ours-branch"
    assert await repository.remove("ours") == [record]
    assert refs_of(git, repo_path) == private
    assert await repository.restore("ours") == record
    for name in ("stash", "EXEC_HEAD", "refs/exps/stash", "refs/exps/exec/EXEC_HEAD"):
        with pytest.raises(aexp.ExperimentNotFound):
            await repository.remove(name)
    assert refs_of(git, repo_path) == private | {record.ref: record.rev}


# ---- branches ----


async def test_a_branch_is_made_and_head_stays(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """`branch` makes a branch at the experiment, called after it or as asked, and nothing else changes."""
    record = await saved(repository, "it")
    before = (git("rev-parse", "HEAD", cwd=repo_path), git("status", "--porcelain", cwd=repo_path))

    assert await repository.branch("it") == "it-branch"
    assert await repository.branch(record.rev, "topic/best") == "topic/best"

    assert refs_of(git, repo_path, "refs/heads") == {
        "refs/heads/it-branch": record.rev,
        "refs/heads/main": record.baseline,
        "refs/heads/topic/best": record.rev,
    }
    assert git("symbolic-ref", "HEAD", cwd=repo_path) == "refs/heads/main"
    assert (git("rev-parse", "HEAD", cwd=repo_path), git("status", "--porcelain", cwd=repo_path)) == before
    assert "Created from experiment 'it'" in git("reflog", "it-branch", cwd=repo_path)


async def test_a_branch_that_cannot_be_is_refused(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """An existing branch stays where it is; names that Git or DVC would misread make no branch."""
    record = await saved(repository, "it")
    git("branch", "taken", cwd=repo_path)
    before = refs_of(git, repo_path, "refs")

    with pytest.raises(aexp.BranchExists) as told:
        await repository.branch("it", "taken")
    assert (told.value.branch, told.value.rev) == ("taken", record.baseline)
    for name in ("", "a b", "-x", "--all", "@{-1}", "HEAD", "a..b", "x.lock", "a\0b", "it", "\udcff"):
        with pytest.raises(aexp.InvalidName):
            await repository.branch("it", name)
    with pytest.raises(aexp.GitError):
        await repository.branch("it", "taken/below")
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.branch("nothing")
    assert refs_of(git, repo_path, "refs") == before


async def test_a_branch_without_a_commit_does_not_get_one(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """A branch on which HEAD stands, and which has no commit yet, is not made: HEAD would move."""
    await saved(repository, "it")
    git("checkout", "--quiet", "--orphan", "fresh", cwd=repo_path)

    with pytest.raises(aexp.InvalidName, match="HEAD stands on it"):
        await repository.branch("it", "fresh")
