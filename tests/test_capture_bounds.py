"""What is left out of the captured code, what else may be captured, and when it is captured anew."""

import asyncio
import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import pytest

import aexp
from aexp import Settings, Skipped

Git = Callable[..., str]
Fsck = Callable[[Path], None]
Mode = Literal["tracked", "all", "none"]


async def captured(path: Path, mode: Mode = "tracked", *, baseline: str = "HEAD", **settings: Any) -> aexp.Code:
    """What an experiment that begins here and now takes of the code; it is saved as `it`."""
    async with aexp.Repository(path, settings=Settings(**settings)) as repository:
        record = await (await repository.experiment("it", code=mode, baseline=baseline, force=True).init()).save()
    assert record.code is not None
    assert record.code.mode == mode
    return record.code


async def code_of(repository: aexp.Repository) -> aexp.Code:
    """What an experiment that begins here and now takes of the code."""
    record = await (await repository.experiment().init()).save()
    assert record.code is not None
    return record.code


def files(git: Git, path: Path, tree: str) -> list[str]:
    """The files of a tree."""
    return git("ls-tree", "-r", "--name-only", tree, cwd=path).splitlines()


def made_submodule(path: Path, template: Path, git: Git) -> Path:
    """Give the repository a submodule with commits of its own."""
    shutil.copytree(template, path.parent / "library")
    git("-c", "protocol.file.allow=always", "submodule", "add", "--quiet", "../library", "sub", cwd=path)
    git("commit", "--quiet", "--message=sub", cwd=path)
    return path / "sub"


# ---- left out ----


async def test_without_code_the_baseline_is_taken(repo_path: Path, git: Git) -> None:
    """With `code="none"` the tree is that of the baseline, whatever lies in the work tree."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    git("add", "train.py", cwd=repo_path)
    code = await captured(repo_path, "none")

    assert (code.tree, code.changed) == (git("rev-parse", "HEAD^{tree}", cwd=repo_path), False)


SECRETS = [
    *[
        ".env",
        ".env.local",
        "server.pem",
        "KEYS.PEM",
        "id_rsa",
        "id_ed25519.pub",
        ".netrc",
        "deep/er/.npmrc",
        ".pypirc",
    ],
    *["credentials", "credentials.json", "secrets.yaml", "vault.kdbx", "x.key", ".git-credentials"],
]


async def test_secrets_are_not_captured(repo_path: Path, git: Git) -> None:
    """New files whose names say that they hold secrets stay out, and are listed; what is tracked is no secret any more."""
    (repo_path / ".env").write_text("tracked=1\n")
    git("add", ".env", cwd=repo_path)
    git("commit", "--quiet", "--message=env", cwd=repo_path)
    (repo_path / ".env").write_text("tracked=2\n")
    for name in [*SECRETS[1:], "environment.py"]:
        (repo_path / name).parent.mkdir(parents=True, exist_ok=True)
        (repo_path / name).write_text("secret\n")
    code = await captured(repo_path, "all")

    assert sorted(skipped.path for skipped in code.skipped) == sorted(SECRETS[1:])
    assert {skipped.reason for skipped in code.skipped} == {"the name of a file that holds secrets"}
    assert not set(SECRETS[1:]) & set(files(git, repo_path, code.tree))
    assert "environment.py" in files(git, repo_path, code.tree)
    assert git("show", f"{code.tree}:.env", cwd=repo_path) == "tracked=2"


async def test_the_list_of_secrets_can_be_chosen(repo_path: Path, git: Git) -> None:
    """`Settings.secret_files` says what counts as a secret here."""
    for name in (".env", "private.txt"):
        (repo_path / name).write_text("x\n")
    code = await captured(repo_path, "all", secret_files=("private*",))

    assert [skipped.path for skipped in code.skipped] == ["private.txt"]
    assert ".env" in files(git, repo_path, code.tree)


async def test_large_new_files_are_not_captured(repo_path: Path, git: Git) -> None:
    """A new file above the limit stays out, and so does what is too much in all; changes of tracked files never do."""
    (repo_path / "train.py").write_text("#" * 500)
    for number in range(5):
        (repo_path / f"new-{number}").write_text("x" * 100)
    (repo_path / "large").write_text("x" * 101)
    code = await captured(repo_path, "all", file_limit=100, capture_limit=300)

    assert code.skipped == (
        Skipped("large", "larger than 100 bytes"),
        Skipped("new-3", "too much untracked data"),
        Skipped("new-4", "too much untracked data"),
    )
    assert [name for name in files(git, repo_path, code.tree) if "new" in name] == ["new-0", "new-1", "new-2"]
    assert git("cat-file", "-s", f"{code.tree}:train.py", cwd=repo_path) == "500"


@pytest.mark.parametrize("mode", ["tracked", "all"])
async def test_what_is_no_file_is_not_read(repo_path: Path, git: Git, mode: Mode) -> None:
    """A pipe in place of a tracked file does not keep anybody waiting: it is left out, and listed."""
    (repo_path / "train.py").unlink()
    os.mkfifo(repo_path / "train.py")
    os.mkfifo(repo_path / "new")
    async with asyncio.timeout(10):
        code = await captured(repo_path, mode)

    assert code.skipped == (Skipped("train.py", "not a regular file"),)
    assert code.tree == git("rev-parse", "HEAD^{tree}", cwd=repo_path)


async def test_what_cannot_be_read_is_told(repo_path: Path) -> None:
    """A changed file that cannot be read stops the experiment before it begins, and the error names it."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "train.py").chmod(0)
    if os.access(repo_path / "train.py", os.R_OK):
        pytest.skip("this user can read every file")
    async with aexp.Repository(repo_path) as repository:
        with pytest.raises(aexp.AexpError, match=r"train\.py"):
            await repository.experiment("it").init()
        assert (await (await repository.experiment("it", code="none").init()).save()).name == "it"


async def test_what_no_tree_can_hold_is_left_out(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """A new file that some file system takes for Git's own folder is left out, and listed."""
    for name in ("git~1", ".GIT/x", "ok"):
        (repo_path / name).parent.mkdir(exist_ok=True)
        (repo_path / name).write_text("x\n")
    code = await captured(repo_path, "all")

    assert {skipped.path for skipped in code.skipped} == {"git~1", ".GIT/x"}
    assert "ok" in files(git, repo_path, code.tree)
    fsck(repo_path)


async def test_skipped_files_are_listed_whatever_their_names(repo_path: Path) -> None:
    """What was left out is listed in the record and in experiment.json, also under a name that is no UTF-8."""
    (repo_path / os.fsdecode(b"\xff\n.pem")).write_text("x")
    code = await captured(repo_path, "all")

    assert [skipped.path for skipped in code.skipped] == ["\\xff\n.pem"]
    async with aexp.Repository(repo_path) as repository:
        assert (await repository.get("it")).code == code


# ---- repositories inside ----


async def test_the_commit_of_a_submodule_is_captured(repo_path: Path, template: Path, git: Git, fsck: Fsck) -> None:
    """Of a submodule the commit that is checked out is captured; changes inside it are its own affair."""
    sub = made_submodule(repo_path, template, git)
    (sub / "train.py").write_text("lr = 0.5\n")
    (sub / "new.txt").write_text("x\n")
    assert not (await captured(repo_path, "all")).changed

    git("commit", "--quiet", "--all", "--message=next", cwd=sub)
    code = await captured(repo_path)
    entry = f"160000 commit {git('rev-parse', 'HEAD', cwd=sub)}\tsub"
    assert git("ls-tree", code.tree, "sub", cwd=repo_path) == entry
    fsck(repo_path)


@pytest.mark.parametrize("commits", [True, False])
async def test_a_repository_inside_is_left_out(repo_path: Path, template: Path, git: Git, commits: bool) -> None:
    """A repository that merely lies in the work tree is left out and listed, not made a submodule."""
    if commits:
        shutil.copytree(template, repo_path / "nested")
    else:
        git("init", "--quiet", "nested", cwd=repo_path)
    code = await captured(repo_path, "all")

    assert [skipped.reason for skipped in code.skipped] == ["a repository of its own"]
    assert code.tree == git("rev-parse", "HEAD^{tree}", cwd=repo_path)


# ---- where it starts from ----


@pytest.mark.parametrize("mode", ["tracked", "all", "none"])
async def test_another_baseline_does_not_change_the_code(repo_path: Path, git: Git, mode: Mode) -> None:
    """Whatever the baseline, the code that is captured is that of the work tree; only `none` takes the baseline's."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "later.py").write_text("x = 1\n")
    git("add", "later.py", "train.py", cwd=repo_path)
    git("commit", "--quiet", "--message=next", cwd=repo_path)
    (repo_path / "README.md").write_text("changed\n")
    code = await captured(repo_path, mode, baseline="HEAD~1")
    git("add", "--all", cwd=repo_path)

    assert code.tree == (
        git("rev-parse", "HEAD~1^{tree}" if mode == "none" else git("write-tree", cwd=repo_path), cwd=repo_path)
    )
    (ref,) = git("for-each-ref", "--format=%(refname)", "refs/exps", cwd=repo_path).splitlines()
    assert git("rev-parse", f"{ref}^", cwd=repo_path) == git("rev-parse", "HEAD~1", cwd=repo_path)


async def test_a_folder_below_the_top_will_do(repo_path: Path, git: Git) -> None:
    """Opened from a folder inside, the whole work tree is captured."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "data" / "notes.txt").write_text("changed\n")
    code = await captured(repo_path / "data")

    assert git("diff-tree", "-r", "--name-only", "HEAD", code.tree, cwd=repo_path).split() == [
        "data/notes.txt",
        "train.py",
    ]


async def test_captured_code_is_safe_from_gc(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """What was captured survives `git gc --prune=now` while the experiment runs, and is in the commit afterwards."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    git("add", "train.py", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        experiment = await repository.experiment("it").init()
        (repo_path / "train.py").write_text("lr = 0.3\n")
        git("reset", "--quiet", "--hard", cwd=repo_path)
        git("-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now", cwd=repo_path)
        await experiment.save()
        assert await repository.read("it", "train.py") == b"lr = 0.2\n"
    git("-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now", cwd=repo_path)
    fsck(repo_path)


# ---- when it is captured anew ----


async def test_a_change_between_two_experiments_is_seen(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Each experiment has the code of its own beginning, also when it changes within a second and keeps its size."""
    trees = []
    for number in range(20):
        (repo_path / "train.py").write_text(f"lr = {number % 10}\n")
        code = await code_of(repository)
        trees.append(code.tree)
        assert git("show", f"{code.tree}:train.py", cwd=repo_path) == f"lr = {number % 10}"

    assert trees[:10] == trees[10:]
    assert len(set(trees)) == 10


def same_size(path: Path, git: Git) -> None:
    """Change a file, keep its size, and put its time back."""
    before = (path / "train.py").stat()
    (path / "train.py").write_text("lr = 0.9\n")
    os.utime(path / "train.py", ns=(before.st_atime_ns, before.st_mtime_ns))


def swapped(path: Path, git: Git) -> None:
    """Put another file in a file's place, as editors do."""
    (path / ".train.py.swp").write_text("lr = 0.9\n")
    (path / ".train.py.swp").rename(path / "train.py")


def made_executable(path: Path, git: Git) -> None:
    """Change nothing but the mode."""
    (path / "train.py").chmod(0o755)


def removed(path: Path, git: Git) -> None:
    """Remove a file."""
    (path / "train.py").unlink()


def added(path: Path, git: Git) -> None:
    """Add a file."""
    (path / "new.py").write_text("x = 1\n")
    git("add", "new.py", cwd=path)


def moved_submodule(path: Path, git: Git) -> None:
    """Commit in a submodule, without a change of its folder."""
    with (path / "sub" / "train.py").open("r+") as file:
        file.write("lr = 0.9\n")
    git("commit", "--quiet", "--all", "--message=next", cwd=path / "sub")


async def test_code_that_has_not_changed_for_long_is_still_watched(
    repo_path: Path, template: Path, tmp_path: Path, git: Git
) -> None:
    """When files have long been as they are, one look at each is enough, and still no change remains unseen."""
    changes = [same_size, swapped, made_executable, removed, added, moved_submodule]
    paths = [Path(shutil.copytree(repo_path, tmp_path / change.__name__, symlinks=True)) for change in changes]
    made_submodule(paths[-1], template, git)
    async with AsyncExitStack() as stack:
        repositories = [await stack.enter_async_context(aexp.Repository(path)) for path in paths]
        await asyncio.sleep(2.1)  # until the files are older than what counts as just changed
        for path, repository, change in zip(paths, repositories, changes, strict=True):
            before = [await code_of(repository) for _ in range(3)]
            assert before[0] == before[1] == before[2], change.__doc__
            assert not before[0].changed, change.__doc__
            change(path, git)
            after = await code_of(repository)
            git("add", "--update", cwd=path)
            assert after.changed, change.__doc__
            assert after.tree == git("write-tree", cwd=path), change.__doc__
