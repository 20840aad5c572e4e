"""The kinds of repository there are: in most of them experiments work, the others are refused before anything is written."""

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import aexp
from aexp import Status

Git = Callable[..., str]
Fsck = Callable[[Path], None]


def all_below(path: Path) -> list[Path]:
    """The folder and all that is in it."""
    return [path, *path.rglob("*")]


def assert_untouched(path: Path) -> None:
    """Nothing of ours was written into the Git directory."""
    ours = [found for found in all_below(path) if "aexp" in found.name or found.name == "exps"]
    assert ours == []


# ---- accepted ----


def plain(path: Path, git: Git) -> Path:
    """The repository as it is."""
    return path


def detached(path: Path, git: Git) -> Path:
    """HEAD is at a commit, on no branch."""
    git("checkout", "--quiet", "--detach", cwd=path)
    return path


def bare(path: Path, git: Git) -> Path:
    """There is no work tree."""
    git("clone", "--quiet", "--bare", path, path.parent / "bare.git", cwd=path)
    return path.parent / "bare.git"


def inside_git_folder(path: Path, git: Git) -> Path:
    """The Git directory itself is opened."""
    return path / ".git"


def linked(path: Path, git: Git) -> Path:
    """The work tree is a linked one."""
    git("worktree", "add", "--quiet", "-b", "other", path.parent / "linked", cwd=path)
    return path.parent / "linked"


def shallow(path: Path, git: Git) -> Path:
    """The history is cut off."""
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=path)
    git("clone", "--quiet", "--depth=1", f"file://{path}", path.parent / "shallow", cwd=path)
    return path.parent / "shallow"


def borrowing(path: Path, git: Git) -> Path:
    """The objects are in another repository."""
    git("clone", "--quiet", "--shared", path, path.parent / "shared", cwd=path)
    return path.parent / "shared"


def packed(path: Path, git: Git) -> Path:
    """All objects and refs are packed, with a commit graph."""
    git("gc", "--quiet", cwd=path)
    git("commit-graph", "write", cwd=path)
    return path


def submodule(path: Path, git: Git) -> Path:
    """The repository is a submodule of another one."""
    shutil.copytree(path, path.parent / "library")
    git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", "../library", "sub", cwd=path)
    return path / "sub"


def separate(path: Path, git: Git) -> Path:
    """The Git directory lies somewhere else."""
    git("init", "--quiet", f"--separate-git-dir={path.parent / 'separate.git'}", cwd=path)
    return path


def symlinked(path: Path, git: Git) -> Path:
    """The way to the repository leads over a symbolic link."""
    (path.parent / "link").symlink_to(path)
    return path.parent / "link" / "data"


def oddly_named(path: Path, git: Git) -> Path:
    """The path has spaces, quotes and letters of many kinds."""
    return path.rename(path.parent / " a 'path' of \"caf\u00e9\" \u65e5\u672c; $HOME\n")


SHAPES = [
    *[plain, detached, bare, inside_git_folder, linked, shallow, borrowing, packed, submodule, separate, symlinked],
    oddly_named,
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
async def test_experiments_work_in_every_shape(
    repo_path: Path, git: Git, fsck: Fsck, shape: Callable[[Path, Git], Path]
) -> None:
    """In every kind of repository that Git makes, an experiment is saved and read, HEAD stays, and `git fsck` is content."""
    path = shape(repo_path, git)
    work, top = shape is not bare, path.parent if shape in (inside_git_folder, symlinked) else path
    if work:
        (top / "train.py").write_text("lr = 0.2\n")
    head, status = git("rev-parse", "HEAD", cwd=path), git("status", "--porcelain", cwd=top) if work else ""
    async with aexp.Repository(path) as repository:
        async with repository.experiment("it", params={"lr": 0.2}) as experiment:
            await experiment.log_metric("m", 0.5, 1)
            checkpoint = await experiment.make_checkpoint()
            await experiment.log_metric("m", 0.25, 2)
        record = await repository.get("it")
        assert record == experiment.record
        assert (record.status, record.baseline, record.checkpoints) == (Status.FINISHED, head, (checkpoint,))
        assert list((await repository.history("it"))["m"].values) == [0.5, 0.25]
        assert await repository.read("it", "train.py") == (b"lr = 0.2\n" if work else b"lr = 0.1\n")
        assert record.code is not None
        assert (record.code.mode, record.code.changed) == (("tracked", True) if work else ("none", False))
        await (await repository.experiment("gone").init()).discard()

    assert git("rev-parse", "HEAD", cwd=path) == head
    assert not work or git("status", "--porcelain", cwd=top) == status
    assert git("for-each-ref", "--format=%(refname)", "refs/exps", "refs/aexp", cwd=path) == record.ref
    common = Path(git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=path))
    assert os.listdir(common / "aexp" / "sessions") == []
    fsck(path)


@pytest.mark.parametrize("left", [True, False])
async def test_experiments_outlive_their_worktree(repo_path: Path, git: Git, fsck: Fsck, left: bool) -> None:
    """When a linked work tree is removed beneath a running experiment, nothing is lost: all is in the common directory."""
    path = linked(repo_path, git)
    (path / "train.py").write_text("lr = 0.2\n")
    async with aexp.Repository(path) as repository:
        first, second = [await repository.experiment(name).init() for name in ("first", "second")]
        await first.log_metric("m", 1.0)
        git("worktree", "remove", "--force", path, cwd=repo_path)
        git("branch", "--delete", "--force", "other", cwd=repo_path)
        await first.log_metric("m", 2.0, 1)
        await first.make_checkpoint()
        record = await first.save()
        await (second.flush() if left else second.discard())
    async with aexp.Repository(repo_path) as repository:
        assert await repository.get("first") == record
        assert await repository.read("first", "train.py") == b"lr = 0.2\n"
        assert [each.name for each in await repository.recover()] == (["second"] if left else [])
    assert git("for-each-ref", "refs/aexp", cwd=repo_path) == ""
    fsck(repo_path)


async def test_worktrees_share_their_experiments(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """What is saved in one work tree is seen in all; the code of each is its own."""
    path = linked(repo_path, git)
    (path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "train.py").write_text("lr = 0.3\n")
    async with aexp.Repository(path) as there, aexp.Repository(repo_path) as here:
        both = [await each.experiment(name).init() for each, name in ((there, "there"), (here, "here"))]
        records = [await experiment.save() for experiment in both]
        for each in (there, here):
            assert sorted(await each.experiments(), key=lambda record: record.created) == records
            assert [await each.read(name, "train.py") for name in ("there", "here")] == [b"lr = 0.2\n", b"lr = 0.3\n"]
    fsck(repo_path)


async def test_the_environment_of_a_hook_does_not_mislead(
    repo_path: Path, tmp_path: Path, template: Path, git: Git, fsck: Fsck
) -> None:
    """With Git's variables set to another repository, the one at the path is used, and the other is left alone."""
    other = Path(shutil.copytree(template, tmp_path / "other"))
    (repo_path / "train.py").write_text("lr = 0.2\n")
    index = (repo_path / ".git" / "index").read_bytes()
    variables = {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git" / "index",
        "GIT_OBJECT_DIRECTORY": other / ".git" / "objects",
        "GIT_COMMON_DIR": other / ".git",
        "GIT_NAMESPACE": "x",
        "GIT_PREFIX": "data/",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, str(value))
        async with aexp.Repository(repo_path) as repository, repository.experiment("it") as experiment:
            await experiment.log_metric("m", 1.0)
    assert experiment.record is not None

    assert git("rev-parse", "refs/exps/" + experiment.record.ref[10:], cwd=repo_path) == experiment.record.rev
    assert git("show", f"{experiment.record.rev}:train.py", cwd=repo_path) == "lr = 0.2"
    assert (repo_path / ".git" / "index").read_bytes() == index
    assert_untouched(other / ".git")
    for path in (repo_path, other):
        fsck(path)


async def test_an_experiment_may_be_made_in_a_hook(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """A program that Git runs while it commits may save an experiment, and the commit is what it would have been."""
    program = "import asyncio, aexp\nasync def main():\n async with aexp.init('it'): pass\nasyncio.run(main())"
    hook = repo_path / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!{sys.executable}\n{program}\n")
    hook.chmod(0o755)
    (repo_path / "train.py").write_text("lr = 0.2\n")
    git("commit", "--quiet", "--all", "--message=next", cwd=repo_path)

    assert git("status", "--porcelain", cwd=repo_path) == ""
    async with aexp.Repository(repo_path) as repository:
        assert (await repository.get("it")).baseline == git("rev-parse", "HEAD~1", cwd=repo_path)
        assert await repository.read("it", "train.py") == b"lr = 0.2\n"
    fsck(repo_path)


# ---- refused ----


async def test_without_a_commit_there_is_no_baseline(tmp_path: Path, git: Git, fsck: Fsck) -> None:
    """Before the first commit, an experiment is refused, reading finds nothing, and after it all is well."""
    git("init", "--quiet", "--initial-branch=main", cwd=tmp_path)
    async with aexp.Repository(tmp_path) as repository:
        assert list(await repository.experiments()) == []
        assert_untouched(tmp_path / ".git")
        experiment = repository.experiment("it")
        with pytest.raises(aexp.NoBaseline) as told:
            await experiment.init()
        assert told.value.baseline == "HEAD"
        assert git("for-each-ref", cwd=tmp_path) == ""
        git("commit", "--quiet", "--allow-empty", "--message=start", cwd=tmp_path)
        async with experiment:
            pass
        with pytest.raises(aexp.NoBaseline) as told:
            await repository.experiment("it", baseline="nothing").init()
        assert told.value.baseline == "nothing"
    fsck(tmp_path)


async def refusal(path: Path) -> aexp.AexpError:
    """The error that tells why the repository at the path cannot be opened, whichever way it is tried."""
    with pytest.raises(aexp.AexpError) as told:
        await aexp.Repository(path).open()
    with pytest.raises(type(told.value)):
        await aexp.init("it", path=path)
    return told.value


async def test_sha256_is_refused(tmp_path: Path, git: Git) -> None:
    """A repository whose object names are SHA-256 is refused by name, and nothing is written."""
    git("init", "--quiet", "--object-format=sha256", cwd=tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message=start", cwd=tmp_path)
    error = await refusal(tmp_path)

    assert isinstance(error, aexp.UnsupportedRepository)
    assert "SHA-256" in error.feature
    assert_untouched(tmp_path / ".git")


async def test_reftable_is_refused(repo_path: Path, git: Git) -> None:
    """A repository that keeps its refs in tables is refused by name, and nothing is written."""
    git("config", "core.repositoryFormatVersion", "1", cwd=repo_path)
    with (repo_path / ".git" / "config").open("a") as file:
        file.write("[extensions]\n\trefstorage = reftable\n")
    error = await refusal(repo_path)

    assert isinstance(error, aexp.UnsupportedRepository)
    assert "reftable" in error.feature
    assert_untouched(repo_path / ".git")


async def test_an_unknown_extension_is_refused(repo_path: Path, git: Git) -> None:
    """A repository of a format that Git itself would refuse is refused, and nothing is written."""
    git("config", "extensions.fromTheFuture", "true", cwd=repo_path)
    git("config", "core.repositoryFormatVersion", "1", cwd=repo_path)

    assert isinstance(await refusal(repo_path), aexp.UnsupportedRepository)
    assert_untouched(repo_path / ".git")


async def test_no_repository_is_told(tmp_path: Path) -> None:
    """Where no repository is, and where nothing is at all, `RepositoryNotFound` names the path."""
    for path in (tmp_path, tmp_path / "nothing"):
        error = await refusal(path)
        assert isinstance(error, aexp.RepositoryNotFound)
        assert error.path == str(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("says", "found"), [(None, "none"), ("git version 2.30.9", "2.30.9"), ("", "git")])
async def test_a_usable_git_is_needed(repo_path: Path, tmp_path: Path, says: str | None, found: str) -> None:
    """Without a git program on the PATH, or with one that is too old or broken, `GitNotFound` says what was found."""
    (tmp_path / "bin").mkdir()
    if says is not None:
        (tmp_path / "bin" / "git").write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / "bin" / "git").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "bin"))
        error = await refusal(repo_path)

    assert isinstance(error, aexp.GitNotFound)
    assert found in error.found
    assert_untouched(repo_path / ".git")


async def test_the_repository_of_another_user_is_refused(repo_path: Path) -> None:
    """A repository that belongs to somebody else is refused, with the setting that would allow it."""
    try:
        for path in all_below(repo_path):
            os.chown(path, 54321, 54321)
    except PermissionError:
        pytest.skip("this user cannot give files away")
    error = await refusal(repo_path)

    assert isinstance(error, aexp.UnsupportedRepository)
    assert "another user" in error.feature
    assert f"safe.directory {repo_path}" in str(error)
    assert_untouched(repo_path / ".git")


READER = """
import asyncio, sys
import aexp

async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        print([(record.name, record.status.value, record.damaged) for record in await repository.experiments()])
        print(await repository.read("saved", "train.py"), [each.name for each in await repository.interrupted()])
        for code in ("tracked", "none"):
            try:
                await repository.experiment(code=code).init()
            except aexp.ReadOnlyRepository as error:
                print("read-only")

asyncio.run(main())
"""
MOUNTED = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def read_only(repo_path: Path, way: str) -> list[str]:
    """Make the repository read-only in one way; return what a command needs before it to see it so."""
    if way == "mount":
        prefix = ["unshare", "--mount", "--map-root-user"] if os.geteuid() else ["unshare", "--mount"]
        prefix += ["sh", "-c", MOUNTED, "sh", str(repo_path)]
    else:
        for path in all_below(repo_path):
            path.chmod(path.stat().st_mode & ~0o222)
        prefix = [] if os.geteuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no way to see a read-only repository ({way}) here: {error}")
    return prefix


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("way", ["mount", "modes"])
async def test_a_read_only_repository_can_be_read(repo_path: Path, fsck: Fsck, way: str, listed: bool) -> None:
    """In a repository that cannot be written all can be read, checkpoints, too; an experiment is refused when it begins."""
    async with aexp.Repository(repo_path) as repository:
        await (await repository.experiment("saved").init()).save()
        await (await repository.experiment("unfinished").init()).make_checkpoint()
        if listed:  # so there is an index
            await repository.experiments()
    prefix = read_only(repo_path, way)
    child = await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-c", READER, repo_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = (await child.communicate())[0].decode()
    for path in all_below(repo_path):
        path.chmod(path.stat().st_mode | 0o200)

    assert said.splitlines() == [
        "[('saved', 'finished', None), ('unfinished', 'interrupted', None)]",
        "b'lr = 0.1\\n' ['unfinished']",
        "read-only",
        "read-only",
    ]
    fsck(repo_path)
