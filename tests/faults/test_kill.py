"""kill -9 at every file operation: before recovery Git is content, after it nothing that was promised is missing."""

import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests.faults.kit import Git, Oracle, Sweep, Teller, Told, copy_of, leftovers, refs_of, teller, wait_for_children

PENDING: dict[str, Any] = {"story": "save", "only": "one.lock", "at": 4}  # dies with the pack written and `one` locked
STEPS = pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@STEPS
def test_a_kill_while_logging_and_saving_loses_nothing(edited: Path, killer: Path, oracle: Oracle, every: int) -> None:
    """From opening to closing, at whatever operation a process is killed: what it was told is durable is there."""
    Sweep("save", edited, killer, oracle)(every)


@STEPS
def test_a_kill_while_discarding_leaves_all_or_nothing(edited: Path, killer: Path, oracle: Oracle, every: int) -> None:
    """An experiment whose process is killed while it is given up is either recovered whole, or has no ref."""
    Sweep("discard", edited, killer, oracle)(every)


@STEPS
def test_a_kill_while_resuming_loses_nothing(edited: Path, killer: Path, oracle: Oracle, every: int) -> None:
    """A process that took over a dead one's experiment and is killed, too, leaves one experiment with all its points."""
    with teller(killer) as tell:
        told = tell("crash", edited)
    Sweep("resume", edited, killer, oracle, tuple(told.lines))(every)


@STEPS
def test_a_kill_while_recovering_changes_nothing(edited: Path, killer: Path, oracle: Oracle, every: int) -> None:
    """Recovery that is killed is done again, to the same end: also when a save was under way, with a ref locked."""
    with teller(killer) as tell:
        told = tell(path=edited, **PENDING)
    assert list((edited / ".git").glob("refs/exps/*/*/one.lock"))
    Sweep("recover", edited, killer, oracle, tuple(told.lines))(every)


@STEPS
def test_a_kill_while_a_program_is_taken_in_loses_nothing(
    repo_path: Path, killer: Path, oracle: Oracle, every: int
) -> None:
    """Wherever a process is killed whose experiment another program joined: one experiment comes back, with all points."""
    Sweep("join", repo_path, killer, oracle)(every)


@STEPS
@pytest.mark.parametrize("story", ["recover", "resume"])
def test_a_kill_while_a_dead_experiment_is_put_together(
    repo_path: Path, killer: Path, oracle: Oracle, story: str, every: int
) -> None:
    """Recovery and resumption of an experiment with the points of a program that joined it may be killed, too."""
    with teller(killer) as tell:
        told = tell("crash_joined", repo_path)
    assert told.last("F") == {"one": 12}
    Sweep(story, repo_path, killer, oracle, tuple(told.lines))(every)


@pytest.mark.slow
def test_a_kill_while_recovering_from_any_kill(edited: Path, killer: Path, oracle: Oracle, tmp_path: Path) -> None:
    """Wherever saving was killed, recovery may be killed, too."""
    for at in range(20, 130, 10):
        path = copy_of(edited, tmp_path / f"killed-{at}" / "repository")
        with teller(killer) as tell:
            told = tell("save", path, at=at)
        Sweep("recover", path, killer, oracle, tuple(told.lines))(4)


# ---- changes of what is saved, and upkeep ----


@frozen(eq=False)
class OldOrNew(Oracle):
    """Knows the two states that may stand around one change of refs."""

    story: str
    old: frozenset[tuple[str, str]]
    new: frozenset[tuple[str, str]]

    def check(self, path: Path, said: Told, tell: Teller) -> None:
        """Look at the repository as the killed process left it, then make the change again."""
        wait_for_children(path)
        self.fsck(path)
        found = saved_and_removed(path, self.git)
        assert found in (self.old, self.new)
        assert found == self.new or not said.about("changed"), "it was told, and is not so"
        if found == self.old:
            tell(self.story, path)
        assert saved_and_removed(path, self.git) == self.new
        assert not leftovers(path)
        self.fsck(path)


def saved_and_removed(path: Path, git: Git) -> frozenset[tuple[str, str]]:
    """The refs of experiments with their revs; those in the trash without the time."""
    refs = refs_of(path, git) | refs_of(path, git, "refs/aexp/trash")
    return frozenset((re.sub("trash/[0-9]{13}", "trash/then", ref), rev) for ref, rev in refs.items())


@pytest.mark.parametrize("story", ["rename", "remove", "restore"])
@STEPS
def test_a_kill_while_changing_leaves_the_old_or_the_new(
    repo_path: Path, killer: Path, git: Git, fsck: Callable[[Path], None], story: str, every: int
) -> None:
    """Wherever a process is killed that renames, removes or restores: the old state stands, or the new one, whole."""
    with teller(killer) as tell:
        tell("save", repo_path)
        if story == "restore":
            tell("remove", repo_path)
        after = copy_of(repo_path, repo_path.parent / "after" / "repository")
        told = tell(story, after)
    assert told.about("changed")
    old, new = (saved_and_removed(each, git) for each in (repo_path, after))
    assert old != new

    Sweep(story, repo_path, killer, OldOrNew(git, fsck, story, old, new))(every)


@STEPS
def test_a_kill_while_maintaining_loses_nothing(edited: Path, killer: Path, oracle: Oracle, every: int) -> None:
    """Upkeep that is killed takes nothing from what a dead process left open, or from what is saved."""
    with teller(killer) as tell:
        lines = list(tell("crash", edited).lines)
        ((operations,),) = tell("two", copy_of(edited, edited.parent / "whole-two" / "repository"), at=0).about("end")
        for back in range(1, 12):  # killed after it has saved, and before its session is put away
            path = copy_of(edited, edited.parent / f"back-{back}" / "repository")
            told = tell("two", path, at=operations - back)
            if told.about("S") and len(list(path.glob(".git/aexp/sessions/*"))) == 2:
                break
        else:
            pytest.fail("no kill left a session in which nothing is open")
    Sweep("maintain", path, killer, oracle, (*lines, *told.lines))(every)


# ---- the same name again ----


def test_the_lock_of_a_dead_process_is_broken(repo_path: Path, killer: Path, oracle: Oracle) -> None:
    """A program that was killed while it held a ref's lock can be run again, and what the first one had is not lost."""
    with teller(killer) as tell:
        first = tell("two", repo_path, only="two.lock", at=2)
        locked = list((repo_path / ".git").glob("refs/exps/*/*/two.lock"))
        second = tell("two", repo_path)
        ((_, rev),) = second.about("S")
        after = tell("look", repo_path)

    assert first.code == -signal.SIGKILL
    assert locked
    assert after.about("recovered") == [[["two-2"]]]
    assert [name for name, *_ in after.about("record")] == ["two-2", "two"]
    assert {name: each[0] for name, *each in after.about("record")}["two"] == rev
    assert not leftovers(repo_path)


def test_the_lock_of_a_living_process_is_respected(repo_path: Path, killer: Path) -> None:
    """While a process that holds a ref's lock is stopped, nobody breaks it, and afterwards it saves as if nothing was."""
    told: list[Told] = []
    with teller(killer) as slow, teller(killer) as quick:
        order = {"only": "two.lock", "at": 2, "signal": signal.SIGSTOP}
        telling = threading.Thread(target=lambda: told.append(slow("two", repo_path, **order)))
        telling.start()
        while not list((repo_path / ".git").glob("refs/exps/*/*/two.lock")):
            time.sleep(0.01)
        refused = quick("two", repo_path)
        holder = min((repo_path / ".git" / "aexp" / "sessions").glob("*/owner.lock"))
        os.kill(json.loads(holder.read_text())["pid"], signal.SIGCONT)
        telling.join()
        later = quick("two", repo_path)

    ((kind, words),) = refused.about("E")
    assert (kind, "held by another process" in words) == ("GitError", True)
    ((name, _),) = told[0].about("S")
    assert name == "two"
    assert [kind for kind, _ in later.about("E")] == ["NameTaken"]


# ---- the work tree ----


def work_tree(path: Path) -> dict[str, tuple[int, bytes]]:
    """All that is in a work tree but the Git directory: mode, and content or target."""
    found: dict[str, tuple[int, bytes]] = {}
    for each in sorted(path.rglob("*")):
        name = str(each.relative_to(path))
        if name.partition("/")[0] != ".git":
            mode = each.lstat().st_mode
            content = (
                os.fsencode(os.readlink(each)) if each.is_symlink() else b"" if each.is_dir() else each.read_bytes()
            )
            found[name] = (mode, content)
    return found


@pytest.fixture
def dirty(repo_path: Path, killer: Path, git: Git) -> Path:
    """A repository with an experiment in which files, links and folders took each other's places, and a dirty work tree."""
    (repo_path / "gone").mkdir()
    (repo_path / "gone" / "deep").write_text("tracked\n")
    (repo_path / "file").write_text("becomes a folder\n")
    (repo_path / "link").symlink_to("train.py")
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "--message=more", cwd=repo_path)
    shutil.rmtree(repo_path / "gone")
    (repo_path / "file").unlink()
    (repo_path / "file").mkdir()
    (repo_path / "file" / "in").write_text("new\n")
    (repo_path / "link").unlink()
    (repo_path / "link").symlink_to("params.yaml")
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "folder").write_text("new\n")
    git("add", ".", cwd=repo_path)
    tree = git("write-tree", cwd=repo_path)
    rev = git("commit-tree", tree, "-p", "HEAD", "-m", "one", cwd=repo_path)
    head = git("rev-parse", "HEAD", cwd=repo_path)
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/one", rev, cwd=repo_path)
    git("reset", "--quiet", "--hard", cwd=repo_path)
    git("clean", "-qfdx", cwd=repo_path)
    (repo_path / "train.py").write_text("mine, in no commit\n")
    (repo_path / "folder").mkdir(mode=0o750)
    (repo_path / "folder" / "untracked").write_text("mine, too\n")
    (repo_path / "folder" / "empty").mkdir()
    return repo_path


def sweep(
    story: str,
    template: Path,
    killer: Path,
    before: dict[str, tuple[int, bytes]],
    every: int,
    check: Callable[..., None],
) -> int:
    """Tell *story* in copies of *template*, kill it at every *every*-th file operation, check, undo; count the kills."""
    died, at = 0, 1
    with teller(killer) as tell:
        while True:
            for half in (0, 1):
                path = copy_of(template, template.parent / f"{story}-{at}-{half}")
                told = tell(story, path, below="", at=at, half=half)
                check(path, told, tell)
                undone = tell("undo", path)
                assert undone.about("U") or undone.about("nothing"), (at, half, undone)
                assert work_tree(path) == before, (at, half)
                assert tell("undo", path).about("nothing")
                assert [each.name for each in (path / ".git/aexp/applied").iterdir()] == ["lock"], (at, half)
                died += told.code != 0
                shutil.rmtree(path)
            if told.code == 0:
                return died
            at += every


@STEPS
def test_a_kill_while_applying_loses_nothing(dirty: Path, killer: Path, git: Git, every: int) -> None:
    """Killed at any file operation of an apply with force, undo restores every byte; another apply says what to do first."""
    before = work_tree(dirty)
    goal = {"train.py": b"lr = 0.2\n", "folder": b"new\n", "file/in": b"new\n", "link": b"params.yaml"}

    def check(path: Path, told: Told, tell: Teller) -> None:
        now = work_tree(path)
        if told.about("A"):
            assert goal.items() <= {name: content for name, (_, content) in now.items()}.items()
        other = copy_of(path, path.parent / "again")
        tried = tell("again", other)
        ((word, *rest),) = [tuple(line) for line in tried.lines if line[0] in "AE"]
        if word == "A":
            assert goal.items() <= {name: content for name, (_, content) in work_tree(other).items()}.items()
        else:
            assert rest[0] == "ApplyPending"
            assert "undo_apply()" in rest[1]
        shutil.rmtree(other)

    assert sweep("apply", dirty, killer, before, every, check) > 20 / every


@STEPS
def test_a_kill_while_undoing_loses_nothing(dirty: Path, killer: Path, every: int) -> None:
    """Killed at any file operation of an undo, another undo finishes it."""
    before = work_tree(dirty)
    with teller(killer) as tell:
        assert tell("apply", dirty).about("A")
    assert work_tree(dirty) != before
    assert sweep("undo", dirty, killer, before, every, lambda *_: None) > 20 / every


@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a second file system")
@STEPS
def test_a_kill_beside_another_file_system_loses_nothing(dirty: Path, killer: Path, git: Git, every: int) -> None:
    """Where the work tree is on another file system and files must be copied, a kill at any operation there is undone, too."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere, teller(killer) as tell:
        path = Path(elsewhere) / "linked"
        git("worktree", "add", "--quiet", "-b", "other", path, cwd=dirty)
        (path / "train.py").write_text("mine, in no commit\n")
        (path / "folder").mkdir()
        (path / "folder" / "untracked").write_text("mine, too\n")
        before = work_tree(path)
        for story in ("apply", "undo"):
            told, at = Told(-signal.SIGKILL, []), 1
            while told.code:
                if story == "undo":
                    assert tell("apply", path).about("A")
                told = tell(story, path, below="", at=at)
                at += every
                undone = tell("undo", path)
                assert undone.about("U") or undone.about("nothing")
                assert work_tree(path) == before, (story, at)
            assert at > 10
        git("worktree", "remove", "--force", path, cwd=dirty)
