"""An experiment's files in the work tree: brought in, refused, and taken back."""

import asyncio
import fcntl
import gc
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import aexp

Git = Callable[..., str]


def everything(path: Path) -> dict[str, tuple[Any, ...]]:
    """All that is in a work tree but the Git directory."""
    found: dict[str, tuple[Any, ...]] = {}
    for each in sorted(path.rglob("*")):
        name = str(each.relative_to(path))
        if name == ".git" or name.startswith(".git/"):
            continue
        mode = each.lstat().st_mode
        if stat.S_ISLNK(mode):
            found[name] = ("link", os.readlink(each))
        else:
            found[name] = (oct(mode), None if stat.S_ISDIR(mode) else each.read_bytes())
    return found


def write(path: Path, text: str) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def contents(folder: str | Path) -> list[str]:
    """The contents of the files in a folder, by name."""
    return [each.read_text() for each in sorted(Path(folder).iterdir())]


async def made(path: Path, git: Git, name: str = "it", **files: str) -> aexp.Record:
    """Save an experiment whose code differs by these files, and put the work tree back; `__` is a slash."""
    for key, text in files.items():
        write(path / key.replace("__", "/").replace("_py", ".py").replace("_yaml", ".yaml"), text)
    async with (
        aexp.Repository(path) as repository,
        repository.experiment(name, code="all", params={"lr": 0.1}) as experiment,
    ):
        await experiment.log_metric("loss", 0.5, 0)
    git("reset", "--quiet", "--hard", cwd=path)
    git("clean", "--quiet", "-fd", cwd=path)
    assert experiment.record is not None
    return experiment.record


async def test_apply_makes_the_work_tree_the_experiments(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """Files it changed, added and removed are so afterwards; HEAD, the branch and the index are as they were."""
    (repo_path / "data" / "notes.txt").unlink()
    record = await made(repo_path, git, train_py="lr = 0.2\n", new__deep_py="x = 1\n")
    write(repo_path / "mine.txt", "not tracked\n")
    head, index = git("rev-parse", "HEAD", cwd=repo_path), (repo_path / ".git" / "index").read_bytes()
    before = everything(repo_path)

    applied = await repository.apply("it")

    assert (applied.name, applied.rev) == ("it", record.rev)
    assert {"train.py", "new/deep.py", "aexp/params.yaml", "aexp/metrics.json"} <= set(applied.written)
    assert (applied.missing, applied.skipped) == ((), ())
    assert (repo_path / "train.py").read_text() == "lr = 0.2\n"
    assert (repo_path / "mine.txt").read_text() == "not tracked\n"
    listed = git("ls-tree", "-r", "--name-only", record.rev, cwd=repo_path).splitlines()
    for path in listed:
        if path.startswith(".dvc"):  # what it carries for DVC is for DVC only
            assert not (repo_path / path).exists()
            continue
        assert (repo_path / path).read_text().removesuffix("\n") == git("show", f"{record.rev}:{path}", cwd=repo_path)
    assert not (repo_path / "data").exists()
    assert git("rev-parse", "HEAD", cwd=repo_path) == head
    assert (repo_path / ".git" / "index").read_bytes() == index
    assert git("symbolic-ref", "HEAD", cwd=repo_path) == "refs/heads/main"

    undone = await repository.undo_apply()

    assert set(undone.restored) == {*applied.written, *applied.removed}
    assert everything(repo_path) == before


async def test_a_file_that_the_experiment_does_not_have_goes_with_its_folder(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """What HEAD has and the experiment has not is removed, and a folder with nothing left in it; undo brings both back."""
    (repo_path / "data" / "notes.txt").unlink()
    (repo_path / "data").rmdir()
    await made(repo_path, git)
    (repo_path / "data").chmod(0o750)
    before = everything(repo_path)
    assert "data/notes.txt" in before

    applied = await repository.apply("it")

    assert applied.removed == ("data/notes.txt",)
    assert not (repo_path / "data").exists()
    await repository.undo_apply()
    assert everything(repo_path) == before


async def test_a_head_that_has_moved_on_gives_way(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """An experiment of an older commit brings the files of that time: newer files of HEAD go, as with `dvc exp apply`."""
    await made(repo_path, git, train_py="lr = 0.2\n")
    write(repo_path / "later.py", "new = True\n")
    git("add", "later.py", cwd=repo_path)
    git("commit", "--quiet", "--message=later", cwd=repo_path)
    head = git("rev-parse", "HEAD", cwd=repo_path)

    applied = await repository.apply("it")

    assert applied.removed == ("later.py",)
    assert (repo_path / "train.py").read_text() == "lr = 0.2\n"
    assert git("rev-parse", "HEAD", cwd=repo_path) == head
    assert git("status", "--porcelain", "later.py", cwd=repo_path) == " D later.py"


def staged(path: Path, git: Git) -> None:
    """A change is staged."""
    write(path / "train.py", "mine\n")
    git("add", ".", cwd=path)


def ignored(path: Path, git: Git) -> None:
    """A file that Git ignores stands where the experiment has one."""
    write(path / ".git/info/exclude", "new.py\n")
    write(path / "new.py", "mine\n")


def staged_twice(path: Path, git: Git) -> None:
    """A new file is staged, and changed since."""
    write(path / "new.py", "mine\n")
    git("add", ".", cwd=path)
    write(path / "new.py", "mine, too\n")


DIRT: dict[str, tuple[str, Callable[[Path, Git], object]]] = {
    "modified": ("train.py", lambda path, git: write(path / "train.py", "mine\n")),
    "staged": ("train.py", staged),
    "elsewhere": ("README.md", lambda path, git: write(path / "README.md", "mine\n")),
    "untracked": ("new.py", lambda path, git: write(path / "new.py", "mine\n")),
    "ignored": ("new.py", ignored),
    "a folder": ("new.py/inside", lambda path, git: write(path / "new.py/inside", "mine\n")),
    "a link": ("new.py", lambda path, git: os.symlink("train.py", path / "new.py")),
    "executable": ("train.py", lambda path, git: os.chmod(path / "train.py", 0o755)),
    "staged twice": ("new.py", staged_twice),
}


@pytest.mark.parametrize("kind", DIRT)
async def test_what_is_in_no_commit_is_not_overwritten(
    kind: str, repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """Apply raises `DirtyWorkspace` with the path and changes nothing; with force it keeps what undo then restores."""
    await made(repo_path, git, train_py="lr = 0.2\n", new_py="x = 1\n")
    path, make_dirty = DIRT[kind]
    make_dirty(repo_path, git)
    before, index = everything(repo_path), (repo_path / ".git" / "index").read_bytes()

    with pytest.raises(aexp.DirtyWorkspace) as told:
        await repository.apply("it")

    assert told.value.paths == (path,)
    assert repr(path) in str(told.value)
    assert everything(repo_path) == before

    await repository.apply("it", force=True)
    assert (repo_path / "train.py").read_text() == "lr = 0.2\n"
    assert (repo_path / "new.py").read_text() == "x = 1\n"
    await repository.undo_apply()
    assert everything(repo_path) == before
    assert (repo_path / ".git" / "index").read_bytes() == index


async def test_what_is_equal_already_is_no_conflict(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """An uncommitted file whose content is the experiment's is left as it is, and not asked about."""
    await made(repo_path, git, train_py="lr = 0.2\n", new_py="x = 1\n")
    write(repo_path / "train.py", "lr = 0.2\n")
    write(repo_path / "new.py", "x = 1\n")
    inode = (repo_path / "train.py").stat().st_ino

    applied = await repository.apply("it")

    assert applied.unchanged == 2
    assert not {"train.py", "new.py"} & set(applied.written)
    assert (repo_path / "train.py").stat().st_ino == inode


async def test_many_conflicts_are_all_told(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """The error holds every path; its message names the first five and counts the rest."""
    await made(repo_path, git, **{f"f{number}": "theirs" for number in range(8)})
    for number in range(8):
        write(repo_path / f"f{number}", "mine")

    with pytest.raises(aexp.DirtyWorkspace, match="'f4' and 3 more") as told:
        await repository.apply("it")

    assert told.value.paths == tuple(f"f{number}" for number in range(8))
    assert isinstance(told.value, RuntimeError)


async def test_one_experiment_after_the_other(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """An applied experiment gives way to the next; each undo goes back by one; an edit between them is not overwritten."""
    await made(repo_path, git, "one", train_py="lr = 1\n", only_one="1\n")
    await made(repo_path, git, "two", train_py="lr = 2\n", only_two="2\n")
    before = everything(repo_path)

    await repository.apply("one")
    first = everything(repo_path)
    await repository.apply("two")

    assert not (repo_path / "only_one").exists()
    assert (repo_path / "train.py").read_text() == "lr = 2\n"
    assert (await repository.undo_apply()).name == "two"
    assert everything(repo_path) == first
    write(repo_path / "train.py", "edited\n")
    with pytest.raises(aexp.DirtyWorkspace) as told:
        await repository.apply("two")
    assert told.value.paths == ("train.py",)
    write(repo_path / "train.py", "lr = 1\n")
    assert (await repository.undo_apply()).name == "one"
    assert everything(repo_path) == before
    with pytest.raises(aexp.NothingApplied) as nothing:
        await repository.undo_apply()
    assert isinstance(nothing.value, LookupError)


async def test_a_file_at_the_place_of_an_applied_one_stays(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """A file of the first experiment that was edited, and is in neither HEAD nor the second one, is the user's now."""
    await made(repo_path, git, "one", only_one="1\n", also_one="1\n")
    await made(repo_path, git, "two", train_py="lr = 2\n")
    await repository.apply("one")
    write(repo_path / "only_one", "mine\n")

    applied = await repository.apply("two")

    assert "also_one" in applied.removed
    assert (repo_path / "only_one").read_text() == "mine\n"


async def test_a_branch_without_a_commit(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Where HEAD has no commit yet, an experiment is applied to what is there: untracked files are not overwritten."""
    await made(repo_path, git, train_py="lr = 0.2\n")
    git("checkout", "--quiet", "--orphan", "empty", cwd=repo_path)
    git("rm", "-rfq", "--cached", ".", cwd=repo_path)
    before = everything(repo_path)

    with pytest.raises(aexp.DirtyWorkspace) as told:
        await repository.apply("it")

    assert told.value.paths == ("train.py",)
    await repository.apply("it", force=True)
    assert (repo_path / "train.py").read_text() == "lr = 0.2\n"
    await repository.undo_apply()
    assert everything(repo_path) == before


async def test_applying_twice_changes_nothing_more(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """The second apply writes nothing, and the undo is that of the first."""
    await made(repo_path, git, train_py="lr = 0.2\n")
    before = everything(repo_path)
    first = await repository.apply("it")

    again = await repository.apply("it")

    assert (again.written, again.removed, again.undo) == ((), (), None)
    assert first.undo is not None
    await repository.undo_apply()
    assert everything(repo_path) == before


async def test_undo_does_not_overwrite_an_edit(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """An applied file that was edited since makes undo refuse; with force the edit is kept in a folder it names."""
    await made(repo_path, git, train_py="lr = 0.2\n", new_py="x = 1\n")
    before = everything(repo_path)
    await repository.apply("it")
    write(repo_path / "train.py", "edited\n")
    (repo_path / "new.py").unlink()
    after = everything(repo_path)

    with pytest.raises(aexp.DirtyWorkspace) as told:
        await repository.undo_apply()

    assert told.value.paths == ("train.py",)
    assert everything(repo_path) == after
    undone = await repository.undo_apply(force=True)
    assert everything(repo_path) == before
    assert undone.kept is not None
    assert contents(undone.kept) == ["edited\n"]


async def test_undo_leaves_what_was_put_beside(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A file that somebody put into a folder of the experiment stays there, and so does the folder."""
    await made(repo_path, git, new__one="1\n")
    await repository.apply("it")
    write(repo_path / "new" / "mine", "mine\n")

    await repository.undo_apply()

    assert [each.name for each in (repo_path / "new").iterdir()] == ["mine"]


async def test_undo_after_another_program_opened_the_repository(repo_path: Path, git: Git) -> None:
    """What was applied by one `Repository` is undone by another."""
    await made(repo_path, git, train_py="lr = 0.2\n")
    before = everything(repo_path)
    async with aexp.Repository(repo_path) as repository:
        await repository.apply("it")
    async with aexp.Repository(repo_path) as repository:
        await repository.undo_apply()
    assert everything(repo_path) == before


async def test_any_name_of_a_commit_can_be_applied(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A ref, a rev, a branch: what names a commit can be applied; what does not is not found."""
    record = await made(repo_path, git, train_py="lr = 0.2\n")
    for name in (record.ref, record.rev, record.rev[:8]):
        assert (await repository.apply(name)).rev == record.rev
        await repository.undo_apply()
    assert (await repository.apply("main")).written == ()
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.apply("nothing")


async def test_only_what_is_named(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """`paths=` applies these files and folders and leaves all else, dirty or not."""
    await made(repo_path, git, train_py="lr = 0.2\n", lib__a="1\n", lib__b="2\n")
    write(repo_path / "train.py", "mine\n")

    applied = await repository.apply("it", paths=["lib/", "./aexp/params.yaml"])

    assert applied.written == ("aexp/params.yaml", "lib/a", "lib/b")
    assert (repo_path / "train.py").read_text() == "mine\n"
    with pytest.raises(FileNotFoundError):
        await repository.apply("it", paths=["nowhere"])
    with pytest.raises(TypeError):
        await repository.apply("it", paths="lib")
    for path in ("../x", "/etc/passwd", ".git/config", "a//b", ".GIT/hooks/x", ""):
        with pytest.raises(aexp.UnsafePath):
            await repository.apply("it", paths=[path])


async def test_modes_links_and_strange_names(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Executable bits, links and names that are no UTF-8 arrive, and go again."""
    before = everything(repo_path)
    (repo_path / "train.py").chmod(0o755)
    (repo_path / "link").symlink_to("data/notes.txt")
    strange = repo_path / os.fsdecode(b"caf\xe9 \xff.txt")
    strange.write_text("strange\n")
    await made(repo_path, git)
    assert everything(repo_path) == before

    applied = await repository.apply("it")

    assert (repo_path / "train.py").stat().st_mode & 0o777 == 0o755
    assert os.readlink(repo_path / "link") == "data/notes.txt"
    assert strange.read_text() == "strange\n"
    assert strange.name in applied.written
    await repository.undo_apply()
    assert everything(repo_path) == before


async def test_line_ends_are_those_of_this_repository(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Files are written with the line ends that Git is set to write here, and are then unchanged to Git."""
    record = await made(repo_path, git, train_py="a\nb\n", new_py="c\n")
    git("config", "core.autocrlf", "true", cwd=repo_path)

    await repository.apply("it")

    assert (repo_path / "train.py").read_bytes() == b"a\r\nb\r\n"
    assert git("diff", "--stat", record.rev, "--", "train.py", cwd=repo_path) == ""
    assert (await repository.apply("it")).written == ()
    await repository.undo_apply()
    assert (repo_path / "train.py").read_bytes() == b"lr = 0.1\n"


async def test_a_linked_worktree_gets_its_own(repo_path: Path, git: Git, tmp_path: Path) -> None:
    """An apply changes the work tree that was opened, and only there can it be undone."""
    await made(repo_path, git, train_py="lr = 0.2\n")
    git("worktree", "add", "--quiet", "-b", "other", tmp_path / "linked", cwd=repo_path)
    before = everything(repo_path)
    async with aexp.Repository(tmp_path / "linked") as linked, aexp.Repository(repo_path) as main:
        await linked.apply("it")
        assert (tmp_path / "linked" / "train.py").read_text() == "lr = 0.2\n"
        assert everything(repo_path) == before
        with pytest.raises(aexp.NothingApplied):
            await main.undo_apply()
        await linked.undo_apply()
    assert (tmp_path / "linked" / "train.py").read_text() == "lr = 0.1\n"
    assert git("status", "--porcelain", cwd=tmp_path / "linked") == ""


async def test_a_bare_repository_is_refused(repo_path: Path, git: Git, tmp_path: Path) -> None:
    """Where there is no work tree nothing can be applied."""
    await made(repo_path, git)
    git("clone", "--quiet", "--mirror", repo_path, tmp_path / "bare.git", cwd=tmp_path)
    async with aexp.Repository(tmp_path / "bare.git") as repository:
        for call in (repository.apply("it"), repository.undo_apply()):
            with pytest.raises(aexp.UnsupportedRepository, match="bare"):
                await call
    assert not (tmp_path / "bare.git" / "aexp").exists()


async def test_a_sparse_checkout_stays_sparse(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Files outside of the sparse checkout are left out, and said to be; those inside arrive."""
    for name in ("in/a", "out/a", "out/b"):
        write(repo_path / name, "1\n")
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "--message=more", cwd=repo_path)
    await made(repo_path, git, in__a="2\n", out__a="2\n", out__new="2\n", in__new="2\n")
    git("sparse-checkout", "set", "--cone", "in", cwd=repo_path)

    applied = await repository.apply("it")

    assert (repo_path / "in" / "a").read_text() == (repo_path / "in" / "new").read_text() == "2\n"
    assert not (repo_path / "out").exists()
    assert [each.path for each in applied.skipped] == ["out/a", "out/new"]
    await repository.undo_apply()
    assert git("status", "--porcelain", cwd=repo_path) == ""


async def test_submodules_are_left_alone(
    repository: aexp.Repository, repo_path: Path, git: Git, tmp_path: Path
) -> None:
    """A submodule that differs is reported, not touched; nor is anything written into a repository inside."""
    other = tmp_path / "other"
    git("clone", "--quiet", repo_path, other, cwd=tmp_path)
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other, "sub", cwd=repo_path)
    git("commit", "--quiet", "--message=sub", cwd=repo_path)
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path / "sub")
    await made(repo_path, git, train_py="lr = 0.2\n")
    git("-C", "sub", "reset", "--quiet", "--hard", "HEAD~1", cwd=repo_path)
    before = everything(repo_path / "sub")

    applied = await repository.apply("it")

    assert [(each.path, each.reason.startswith("a submodule")) for each in applied.skipped] == [("sub", True)]
    assert everything(repo_path / "sub") == before
    assert (repo_path / "train.py").read_text() == "lr = 0.2\n"


async def test_two_applies_do_not_run_at_once(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """While another process applies, apply and undo wait for it."""
    await made(repo_path, git, train_py="lr = 0.2\n")
    await repository.apply("it")
    with (repo_path / ".git" / "aexp" / "applied" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        task = asyncio.create_task(repository.undo_apply())
        await asyncio.sleep(0.2)
        assert not task.done()
    await task


@pytest.mark.slow
async def test_an_apply_that_does_not_end_is_told(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """After five seconds of waiting for another process, apply raises `ApplyPending`."""
    await made(repo_path, git, train_py="lr = 0.2\n")
    await repository.apply("it")
    with (repo_path / ".git" / "aexp" / "applied" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(aexp.ApplyPending) as told:
            await repository.apply("it")
    assert (told.value.alive, told.value.name) == (True, "it")


async def test_cancelled_it_did_nothing_or_all(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A cancellation that comes while files are written is raised when all are; one that comes before, before any is."""
    await made(repo_path, git, train_py="lr = 0.2\n", **{f"f{number}": "1\n" for number in range(50)})
    before = everything(repo_path)
    seen = set()
    for pause in (0, 0.001, 0.005, 0.02, 0.05, 0.1):
        task = asyncio.create_task(repository.apply("it"))
        await asyncio.sleep(pause)
        was_done = task.done()
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert was_done or isinstance(outcome, asyncio.CancelledError)
        applied = everything(repo_path) != before
        seen.add(applied)
        if applied:
            assert (repo_path / "f49").read_text() == "1\n"
            undo = asyncio.create_task(repository.undo_apply())
            await asyncio.sleep(0.005)
            undo.cancel()
            await asyncio.gather(undo, return_exceptions=True)
        assert everything(repo_path) == before
    assert True in seen


async def test_a_file_that_changes_meanwhile_is_not_overwritten(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """When another program writes a file while the experiment is made ready, what was begun is taken back."""
    (repo_path / "data" / "notes.txt").unlink()
    await made(repo_path, git, train_py="lr = 0.2\n", a_new="1\n", params_yaml="lr: 1\n")
    write(repo_path / ".git" / "info" / "attributes", "a_new filter=other\n")  # the filter is the other program
    git("config", "filter.other.smudge", "cat; echo theirs >> train.py; echo theirs > z_new", cwd=repo_path)
    before = everything(repo_path)

    with pytest.raises(aexp.DirtyWorkspace) as told:
        await repository.apply("it")

    assert told.value.paths == ("train.py",)
    assert (repo_path / "train.py").read_text() == "lr = 0.1\ntheirs\n"
    (repo_path / "z_new").unlink()
    write(repo_path / "train.py", "lr = 0.1\n")
    assert everything(repo_path) == before
    with pytest.raises(aexp.NothingApplied):
        await repository.undo_apply()


async def test_old_applies_are_forgotten(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """What was replaced is kept for 15 days; after that the next apply removes it, but for the last."""
    await made(repo_path, git, "one", train_py="lr = 1\n")
    await made(repo_path, git, "two", train_py="lr = 2\n")
    shelf = repo_path / ".git" / "aexp" / "applied"
    for name in ("one", "two"):
        mark = (await repository.apply(name)).undo
        assert mark is not None
        os.rename(mark, shelf / f"{int(Path(mark).name) - 16 * 86400 * 10**9:020d}")
    old = sorted(each.name for each in shelf.iterdir() if each.is_dir())
    assert len(old) == 2

    await repository.apply("one")

    left = sorted(each.name for each in shelf.iterdir() if each.is_dir())
    assert (len(left), left[0]) == (2, old[1])


async def longest_pause(work: Coroutine[Any, Any, object]) -> float:
    """The longest time that the event loop was kept from running by this process, in seconds, until *work* is done.

    In time of the processor: what other programs do on a loaded machine does not count.
    """
    task, longest = asyncio.ensure_future(work), 0.0
    while not task.done():
        begin = time.process_time()
        await asyncio.sleep(0)
        longest = max(longest, time.process_time() - begin)
    await task
    return longest


def test_the_loop_stays_alive_while_thousands_of_files_are_applied(repo_path: Path, git: Git) -> None:
    """While 5,000 files are written and taken back, the event loop is never kept waiting for long."""
    for number in range(5000):
        write(repo_path / f"many/{number % 50}/{number}", f"{number}\n")
    git("add", ".", cwd=repo_path)
    rev = git("commit-tree", git("write-tree", cwd=repo_path), "-p", "HEAD", "-m", "many", cwd=repo_path)
    git("reset", "--quiet", cwd=repo_path)
    subprocess.run(["rm", "-r", repo_path / "many"], check=True)

    async def main() -> list[float]:
        async with aexp.Repository(repo_path) as repository:
            return [await longest_pause(repository.apply(rev)), await longest_pause(repository.undo_apply())]

    gc.collect()
    gc.freeze()  # what pytest and hypothesis hold is not ours to go through
    try:
        pauses = asyncio.run(main())
    finally:
        gc.unfreeze()
    assert git("status", "--porcelain", cwd=repo_path) == ""
    assert max(pauses) < 0.05, pauses


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
async def test_a_work_tree_on_another_file_system(repo_path: Path, git: Git) -> None:
    """Where files can be neither linked nor renamed into the Git directory they are copied, with modes and times."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        linked = Path(elsewhere) / "linked"
        (repo_path / "data" / "notes.txt").unlink()
        (repo_path / "link").symlink_to("train.py")
        await made(repo_path, git, train_py="lr = 0.2\n", new__deep_py="x = 1\n")
        git("worktree", "add", "--quiet", "-b", "other", linked, cwd=repo_path)
        write(linked / "train.py", "mine\n")
        (linked / "train.py").chmod(0o751)
        (linked / "link").symlink_to("mine")
        before, when = everything(linked), (linked / "train.py").stat().st_mtime_ns
        async with aexp.Repository(linked) as repository:
            with pytest.raises(aexp.DirtyWorkspace):
                await repository.apply("it")
            assert everything(linked) == before
            await repository.apply("it", force=True)
            assert (linked / "train.py").read_text() == "lr = 0.2\n"
            assert os.readlink(linked / "link") == "train.py"
            await repository.undo_apply()
        assert everything(linked) == before
        assert (linked / "train.py").stat().st_mtime_ns == when
        git("worktree", "remove", "--force", linked, cwd=repo_path)
