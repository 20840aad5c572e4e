"""Experiments pushed to, and pulled from, a Git remote that is a folder; the servers are in tests/remotes."""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import aexp

Git = Callable[..., str]
Saved = Callable[..., Awaitable[list[aexp.Record]]]
Refs = Callable[..., dict[str, str]]
Leftovers = Callable[[Path], list[str]]


def outcomes(transfers: list[aexp.Transfer] | tuple[aexp.Transfer, ...]) -> dict[str, str]:
    """The outcome of each transfer, by name."""
    return {each.name: each.outcome for each in transfers}


def files_of(path: Path, pattern: str = "*") -> dict[Path, int]:
    """Every file and folder below *path* that matches, each file with the time it was last changed."""
    return {each: each.is_file() and each.lstat().st_mtime_ns for each in path.rglob(pattern)}


async def test_what_is_pushed_here_is_pulled_there(
    repository: aexp.Repository,
    other: aexp.Repository,
    repo_path: Path,
    remote: Path,
    other_path: Path,
    fsck: Callable[[Path], None],
    saved: Saved,
    refs_of: Refs,
    leftovers: Leftovers,
) -> None:
    """An experiment that was pushed and pulled has the same commit, params, metrics and series on the other side."""
    records = await saved(repository, "one", "two", "grün")
    pushed = await repository.push()
    assert outcomes(pushed) == {"one": "new", "two": "new", "grün": "new"}
    assert {each.ref: each.rev for each in pushed} == {each.ref: each.rev for each in records}
    assert refs_of(remote) == refs_of(repo_path)

    pulled = await other.pull()
    assert pulled == pushed
    assert await other.get("one") == await repository.get("one")
    assert await other.history("one") == await repository.history("one")
    for path in (repo_path, remote, other_path):
        fsck(path)
        assert leftovers(path) == []


async def test_again_nothing_is_to_be_done(repository: aexp.Repository, other: aexp.Repository, saved: Saved) -> None:
    """What is pushed or pulled twice is up to date the second time."""
    await saved(repository, "one")
    await repository.push()
    assert outcomes(await repository.push()) == {"one": "up to date"}
    await other.pull()
    assert outcomes(await other.pull()) == {"one": "up to date"}
    assert outcomes(await other.push()) == {"one": "up to date"}


async def test_without_names_the_experiments_of_head_go(
    repository: aexp.Repository, other: aexp.Repository, repo_path: Path, git: Git, saved: Saved
) -> None:
    """Names, full refs and revs say what goes; without one it is every experiment of the commit that HEAD is at."""
    (old,) = await saved(repository, "old")
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    records = await saved(repository, "new-1", "new-2", "new-3")
    assert outcomes(await repository.push()) == {"new-1": "new", "new-2": "new", "new-3": "new"}
    assert [each.name for each in await repository.push("old", records[0].ref, records[1].rev)] == [
        "old",
        "new-1",
        "new-2",
    ]
    assert outcomes(await other.pull()) == {"old": "new"}  # the clone is still at the first commit
    assert outcomes(await other.pull("new-1", records[1].rev)) == {"new-1": "new", "new-2": "new"}
    assert old.ref in [each.ref for each in await other.remote_experiments()]


async def test_nothing_to_push_is_no_error(repository: aexp.Repository, other: aexp.Repository) -> None:
    """Without experiments, push, pull and the list are empty."""
    assert await repository.push() == []
    assert await other.pull() == []
    assert await other.remote_experiments() == []


async def test_an_unknown_experiment_is_told_before_anything_goes(
    repository: aexp.Repository, other: aexp.Repository, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """One name that does not exist, here or on the remote, stops the call before any other has gone."""
    await saved(repository, "one")
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.push("one", "missing")
    assert refs_of(remote) == {}
    await repository.push()
    with pytest.raises(aexp.ExperimentNotFound, match="remote_experiments"):
        await other.pull("one", "missing")
    assert await other.experiments() == aexp.Records()


async def test_a_name_on_several_baselines_is_ambiguous(
    repository: aexp.Repository, other: aexp.Repository, repo_path: Path, git: Git, saved: Saved
) -> None:
    """A name that stands on two baselines is refused with both refs, here and on the remote; a full ref is accepted."""
    (first,) = await saved(repository, "same")
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    (second,) = await saved(repository, "same")
    with pytest.raises(aexp.AmbiguousName) as caught:
        await repository.push("same")
    assert set(caught.value.matches) == {first.ref, second.ref}
    await repository.push(first.ref, second.ref)
    with pytest.raises(aexp.AmbiguousName):
        await other.pull("same")
    assert [each.ref for each in await other.pull(second.ref)] == [second.ref]


async def test_a_diverged_experiment_does_not_stop_the_others(
    repository: aexp.Repository, other: aexp.Repository, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """Where the remote has another experiment of a name, it stays, all others are pushed, and `Diverged` says which."""
    (theirs,) = await saved(other, "same", loss=1.0)
    await other.push()
    (ours, *_) = await saved(repository, "same", "fine-1", "fine-2")
    with pytest.raises(aexp.Diverged) as caught:
        await repository.push()
    assert caught.value.names == ("same",)
    assert outcomes(caught.value.transfers) == {"same": "diverged", "fine-1": "new", "fine-2": "new"}
    diverged = next(each for each in caught.value.transfers if each.name == "same")
    assert (diverged.rev, diverged.found) == (ours.rev, theirs.rev)
    assert refs_of(remote)[theirs.ref] == theirs.rev
    assert len(refs_of(remote)) == 3

    (forced,) = await repository.push("same", force=True)
    assert (forced.outcome, forced.found) == ("forced", theirs.rev)
    assert refs_of(remote)[theirs.ref] == ours.rev


async def test_pull_leaves_an_experiment_of_the_same_name_alone(
    repository: aexp.Repository, other: aexp.Repository, other_path: Path, saved: Saved, refs_of: Refs
) -> None:
    """Where another experiment of that name stands here, it stays unless forced; then it is in the trash."""
    (ours, *_) = await saved(repository, "same", "fine")
    await repository.push()
    (theirs,) = await saved(other, "same", loss=1.0)
    with pytest.raises(aexp.Diverged) as caught:
        await other.pull()
    assert outcomes(caught.value.transfers) == {"same": "diverged", "fine": "new"}
    assert (await other.get("same")).rev == theirs.rev

    (forced,) = await other.pull("same", force=True)
    assert (forced.outcome, forced.found) == ("forced", theirs.rev)
    assert (await other.get("same")).rev == ours.rev
    assert theirs.rev in refs_of(other_path, "refs/aexp/trash").values()


async def test_a_checkpoint_is_followed_by_what_came_of_it(repository: aexp.Repository, other: aexp.Repository) -> None:
    """Later commits of the same experiment update it on the other side, and nobody who is behind takes them back."""
    async with repository.experiment("long") as experiment:
        await experiment.log_metric("loss", 1.0, 0)
        checkpoint = await experiment.make_checkpoint()
        assert outcomes(await repository.push()) == {"long": "new"}
        assert outcomes(await other.pull()) == {"long": "new"}
        await experiment.log_metric("loss", 0.5, 1)
    assert outcomes(await other.push()) == {"long": "up to date"}

    (pushed,) = await repository.push()
    assert (pushed.outcome, pushed.found) == ("updated", checkpoint)
    with pytest.raises(aexp.Diverged, match="later state of the same"):
        await other.push()
    (pulled,) = await other.pull()
    assert (pulled.outcome, pulled.found) == ("updated", checkpoint)
    assert (await other.get("long")).status is aexp.Status.FINISHED


async def test_one_who_is_ahead_pulls_nothing(repository: aexp.Repository, other: aexp.Repository) -> None:
    """An experiment that has gone on here since it was pushed is up to date when it is pulled."""
    async with repository.experiment("long") as experiment:
        await experiment.make_checkpoint()
        await repository.push()
    assert outcomes(await repository.pull()) == {"long": "up to date"}
    assert experiment.record is not None
    assert (await repository.get("long")).rev == experiment.record.rev


async def test_only_experiments_travel(
    repository: aexp.Repository,
    other: aexp.Repository,
    repo_path: Path,
    remote: Path,
    other_path: Path,
    git: Git,
    saved: Saved,
    refs_of: Refs,
) -> None:
    """Whatever Git is configured to do beside: no tag, no branch, no other ref and no FETCH_HEAD is made by push and pull."""
    await saved(repository, "one")
    git("tag", "--annotate", "--message=tag", "v1", cwd=repo_path)
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD", cwd=repo_path)
    for path in (repo_path, other_path):
        for key, value in {
            "push.followTags": "true",
            "push.default": "matching",
            "push.gpgSign": "if-asked",
            "fetch.prune": "true",
            "fetch.pruneTags": "true",
            "fetch.writeCommitGraph": "true",
            "remote.origin.tagOpt": "--tags",
            "remote.origin.push": "refs/heads/*",
            "transfer.fsckObjects": "false",
        }.items():
            git("config", key, value, cwd=path)
        git("config", "--add", "remote.origin.fetch", "+refs/exps/*:refs/remotes/exps/*", cwd=path)
    before = refs_of(remote, "refs"), refs_of(other_path, "refs")
    (pushed,) = await repository.push()
    git("tag", "--annotate", "--message=tag", "v2", cwd=remote)
    files = {each.name for each in (other_path / ".git").iterdir()}
    await other.pull()
    after = refs_of(remote, "refs"), refs_of(other_path, "refs")
    assert after[0] == before[0] | {pushed.ref: pushed.rev, "refs/tags/v2": after[0]["refs/tags/v2"]}
    assert after[1] == before[1] | {pushed.ref: pushed.rev}
    assert {each.name for each in (other_path / ".git").iterdir()} == files | {"aexp"}
    assert not (other_path / ".git" / "objects" / "info" / "commit-graphs").exists()


async def test_what_the_remote_refuses_does_not_stop_the_others(
    repository: aexp.Repository, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """A hook of the remote that refuses one experiment is told as an error, after the others were pushed."""
    await saved(repository, "bad", "good")
    hook = remote / "hooks" / "update"
    hook.write_text('#!/bin/sh\necho "policy: \033[31mno $1" >&2\ncase "$1" in */bad) exit 1;; esac\n')
    hook.chmod(0o755)
    with pytest.raises(aexp.RemoteError) as caught:
        await repository.push()
    assert caught.value.kind == "refused"
    assert outcomes(caught.value.transfers) == {"bad": "refused", "good": "new"}
    assert "hook declined" in str(caught.value)
    assert "\033" not in str(caught.value)
    assert [ref.rpartition("/")[2] for ref in refs_of(remote)] == ["good"]


async def test_a_mirror_gets_only_experiments(
    repository: aexp.Repository, repo_path: Path, remote: Path, git: Git, saved: Saved, refs_of: Refs
) -> None:
    """A remote that is configured as a mirror takes experiments like any other, and nothing of it is pruned."""
    await saved(repository, "one")
    git("config", "remote.origin.mirror", "true", cwd=repo_path)
    git("branch", "only-there", cwd=remote)
    assert outcomes(await repository.push()) == {"one": "new"}
    assert set(refs_of(remote, "refs/heads")) == {"refs/heads/main", "refs/heads/only-there"}


async def test_every_push_url_counts(
    repository: aexp.Repository, repo_path: Path, remote: Path, tmp_path: Path, git: Git, saved: Saved, refs_of: Refs
) -> None:
    """Where a remote has several push URLs, an experiment is pushed when all have it; one that fails is told."""
    records = await saved(repository, "one")
    git("clone", "--quiet", "--bare", repo_path, tmp_path / "second.git", cwd=tmp_path)
    for url in (remote, tmp_path / "second.git"):
        git("remote", "set-url", "--push", "--add", "origin", url, cwd=repo_path)
    assert outcomes(await repository.push()) == {"one": "new"}
    assert refs_of(remote) == refs_of(tmp_path / "second.git") == {records[0].ref: records[0].rev}
    git("remote", "set-url", "--push", "--add", "origin", tmp_path / "missing.git", cwd=repo_path)
    with pytest.raises(aexp.RemoteError) as caught:
        await repository.push()
    assert caught.value.kind == "unknown"


async def test_a_pre_push_hook_is_for_branches(
    repository: aexp.Repository, repo_path: Path, remote: Path, git: Git, saved: Saved
) -> None:
    """A pre-push hook, which checks branches or pushes data of DVC's, is not run for experiments, wherever it stands."""
    await saved(repository, "one")
    (repo_path / "hooks").mkdir()
    for hook in (repo_path / ".git" / "hooks" / "pre-push", repo_path / "hooks" / "pre-push"):
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    assert outcomes(await repository.push()) == {"one": "new"}
    git("config", "core.hooksPath", "hooks", cwd=repo_path)
    assert outcomes(await repository.push(force=True)) == {"one": "up to date"}


async def test_settings_that_depend_on_the_place_hold(
    repository: aexp.Repository, repo_path: Path, remote: Path, git: Git, saved: Saved, tmp_path: Path
) -> None:
    """Settings that a user makes for all repositories below a folder, and paths from the top of this one, hold for a push."""
    await saved(repository, "one")
    (tmp_path / "work.config").write_text(f'[url "{remote}"]\n\tinsteadOf = work:\n')
    git("config", "--global", f"includeIf.gitdir:{tmp_path}/.path", str(tmp_path / "work.config"), cwd=repo_path)
    try:
        git("remote", "set-url", "origin", "work:", cwd=repo_path)
        assert outcomes(await repository.push()) == {"one": "new"}
    finally:
        git("config", "--global", "--remove-section", f"includeIf.gitdir:{tmp_path}/", cwd=repo_path)
    git("remote", "set-url", "origin", "../remote.git", cwd=repo_path)
    assert outcomes(await repository.push()) == {"one": "up to date"}


async def test_a_partial_clone_pulls_whole_experiments(
    repository: aexp.Repository, remote: Path, tmp_path: Path, git: Git, saved: Saved, leftovers: Leftovers
) -> None:
    """Into a clone without files, experiments come with all of theirs: they are read without asking the remote again."""
    await saved(repository, "one")
    await repository.push()
    git("config", "uploadpack.allowFilter", "true", cwd=remote)
    git("clone", "--quiet", "--filter=blob:none", remote.as_uri(), tmp_path / "partial", cwd=tmp_path)
    async with aexp.Repository(tmp_path / "partial") as partial:
        assert outcomes(await partial.pull()) == {"one": "new"}
        shutil.move(remote, tmp_path / "gone.git")
        assert list((await partial.history("one"))["loss"].values) == [0.5]
    assert leftovers(tmp_path / "partial") == []


async def test_a_damaged_ref_does_not_stop_the_others(
    repository: aexp.Repository, repo_path: Path, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """An experiment whose ref here is empty cannot be pushed, and is told after all others were."""
    records = await saved(repository, "damaged", "good")
    (repo_path / ".git" / records[0].ref).write_text("")
    with pytest.raises(aexp.RemoteError) as caught:
        await repository.push()
    assert outcomes(caught.value.transfers) == {"damaged": "refused", "good": "new"}
    assert list(refs_of(remote)) == [records[1].ref]


@pytest.mark.parametrize(
    ("remote_name", "kind"),
    [("nowhere", "unknown"), ("broken", "unknown"), ("ext::sh -c 'touch pwned'", "unsafe"), ("sneaky", "unsafe")],
)
async def test_a_remote_that_cannot_be_used_is_told(
    repository: aexp.Repository, repo_path: Path, git: Git, remote_name: str, kind: str, saved: Saved
) -> None:
    """Unknown names, folders without a repository, and remotes that would run a program, even configured ones, are refused."""
    git("remote", "add", "broken", "/nowhere/at/all.git", cwd=repo_path)
    git("remote", "add", "sneaky", "ext::touch pwned", cwd=repo_path)
    git("config", "protocol.ext.allow", "always", cwd=repo_path)
    await saved(repository, "one")
    for call in (repository.push, repository.pull, repository.remote_experiments):
        with pytest.raises(aexp.RemoteError) as caught:
            await call(remote=remote_name)
        assert caught.value.kind == kind
        assert caught.value.remote == remote_name
    assert not list(files_of(repo_path, "pwned"))


async def test_a_folder_is_a_remote(
    repository: aexp.Repository, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git, saved: Saved
) -> None:
    """A folder, also one relative to where the program runs and with odd characters, can be pushed to and pulled from."""
    odd = Path(shutil.move(remote, tmp_path / 'odd "na:me é'))
    await saved(repository, "one")
    monkeypatch.chdir(tmp_path)
    assert outcomes(await repository.push(remote=odd.name)) == {"one": "new"}
    assert outcomes(await repository.push(remote=odd)) == {"one": "up to date"}
    assert outcomes(await repository.push(remote=odd.as_uri())) == {"one": "up to date"}
    assert [each.name for each in await repository.remote_experiments(odd.name)] == ["one"]
    git("clone", "--quiet", "--bare", odd, tmp_path / "a:b\\c", cwd=tmp_path)
    async with aexp.Repository(tmp_path / "a:b\\c") as bare:
        assert outcomes(await bare.pull(remote=str(odd))) == {"one": "new"}


async def test_a_url_may_hold_any_signs(repository: aexp.Repository, remote: Path, saved: Saved, refs_of: Refs) -> None:
    """A remote that is given as a URL may hold what Git takes for the end of a setting's name."""
    odd = remote.with_name("a=b.c.git")
    os.rename(remote, odd)
    (record,) = await saved(repository, "one")
    (transfer,) = await repository.push("one", remote=f"file://{odd}")

    assert transfer.outcome == "new"
    assert refs_of(odd) == {record.ref: record.rev}


async def test_the_users_environment_does_not_lead_astray(
    repository: aexp.Repository, repo_path: Path, remote: Path, monkeypatch: pytest.MonkeyPatch, git: Git, saved: Saved
) -> None:
    """Variables that point Git at other repositories, or that allow every protocol, change nothing."""
    await saved(repository, "one")
    git("remote", "add", "sneaky", "ext::touch pwned", cwd=repo_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "ext:file")
    assert outcomes(await repository.push()) == {"one": "new"}
    with pytest.raises(aexp.RemoteError) as caught:
        await repository.push(remote="sneaky")
    assert caught.value.kind == "unsafe"


async def test_shapes_of_repositories(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git, saved: Saved
) -> None:
    """Bare and shallow clones and linked worktrees, pull; a worktree and a shallow clone push, too."""
    await saved(repository, "one")
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    await saved(repository, "two")
    url = repo_path.as_uri()
    git("clone", "--quiet", "--bare", url, tmp_path / "bare.git", cwd=tmp_path)
    git("clone", "--quiet", "--depth=1", url, tmp_path / "shallow", cwd=tmp_path)
    git("worktree", "add", "--quiet", "--detach", tmp_path / "linked", cwd=repo_path)
    async with aexp.Repository(tmp_path / "bare.git") as bare:
        assert outcomes(await bare.pull("one", "two")) == {"one": "new", "two": "new"}
    async with aexp.Repository(tmp_path / "shallow") as shallow:
        assert outcomes(await shallow.pull("two")) == {"two": "new"}
        await saved(shallow, "three")
        assert outcomes(await shallow.push("three")) == {"three": "new"}
    async with aexp.Repository(tmp_path / "linked") as linked:
        assert outcomes(await linked.push(remote=str(tmp_path / "bare.git"))) == {"three": "new", "two": "up to date"}


async def test_data_that_stays_behind_is_told(
    repository: aexp.Repository, other: aexp.Repository, saved: Saved
) -> None:
    """An experiment that references DVC-tracked data says that this has not travelled; one that does not, says none."""
    async with repository.experiment("with-data") as experiment:
        await experiment.log_file(
            "models/model.pt.dvc", "outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  path: model.pt\n"
        )
    await saved(repository, "without")
    states = {"with-data": "not transferred", "without": "none"}
    assert {each.name: each.data for each in await repository.push()} == states
    assert {each.name: each.data for each in await repository.push(data=False)} == states
    assert {each.name: each.data for each in await other.pull()} == states


async def test_progress_is_told_on_the_loop(repository: aexp.Repository, other: aexp.Repository, saved: Saved) -> None:
    """Progress comes on the event loop, in frozen values, and at most about ten times a second."""
    await saved(repository, *(f"try-{number}" for number in range(60)))
    told: list[aexp.TransferProgress] = []

    def listen(progress: aexp.TransferProgress) -> None:
        asyncio.get_running_loop()
        told.append(progress)

    begun = time.monotonic()
    await repository.push(progress=listen)
    await other.pull(progress=listen)
    await asyncio.sleep(0)
    assert told
    assert all(each.done <= (each.total or each.done) for each in told)
    assert len(told) <= 10 * (time.monotonic() - begun) + 8  # git runs four times, and the last of each is told


async def test_a_listener_that_raises_ends_the_transfer(
    repository: aexp.Repository, repo_path: Path, remote: Path, saved: Saved, leftovers: Leftovers
) -> None:
    """What a progress callback raises is raised to who called push or pull."""
    await saved(repository, "one")

    def listen(progress: aexp.TransferProgress) -> None:
        raise ValueError(progress.phase)

    with pytest.raises(ValueError, match="objects"):
        await repository.push(progress=listen)
    assert leftovers(repo_path) == []


async def test_a_closed_repository_does_not_push(repo_path: Path, remote: Path) -> None:
    """Before open() and after aclose(), push, pull and the list raise `RepositoryClosed`."""
    repository = aexp.Repository(repo_path)
    for call in (repository.push, repository.pull, repository.remote_experiments):
        with pytest.raises(aexp.RepositoryClosed):
            await call()


async def test_two_pull_at_once(
    repository: aexp.Repository, other: aexp.Repository, other_path: Path, saved: Saved, leftovers: Leftovers
) -> None:
    """Two pulls, and saves beside them, do not hinder each other: each experiment is there once, and nothing is left."""
    await saved(repository, *(f"try-{number}" for number in range(20)))
    await repository.push()
    first, second, _ = await asyncio.gather(other.pull(), other.pull(), saved(other, *(f"own-{i}" for i in range(10))))
    assert set(outcomes(first)) == set(outcomes(second)) == {f"try-{number}" for number in range(20)}
    assert len(await other.experiments()) == 30
    assert leftovers(other_path) == []


async def test_a_disk_that_is_full_of_locks_is_told(
    repository: aexp.Repository, other: aexp.Repository, other_path: Path, saved: Saved
) -> None:
    """A ref that another program holds locked is refused by name, and the others are pulled."""
    records = await saved(repository, "held", "free")
    await repository.push()
    lock = other_path / ".git" / f"{records[0].ref}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with pytest.raises(aexp.RemoteError) as caught:
        await other.pull()
    assert outcomes(caught.value.transfers) == {"held": "refused", "free": "new"}
    lock.unlink()
    assert outcomes(await other.pull()) == {"held": "new", "free": "up to date"}


async def test_pushing_leaves_nothing_here(repo_path: Path, remote: Path, saved: Saved) -> None:
    """No file of the repository that is pushed from changes, none is added, and no folder."""
    async with aexp.Repository(repo_path) as repository:
        await saved(repository, "one", "two")
    before = files_of(repo_path)
    async with aexp.Repository(repo_path) as repository:
        assert outcomes(await repository.push()) == {"one": "new", "two": "new"}
    assert files_of(repo_path) == before
