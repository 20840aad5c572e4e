"""kill -9 at every file operation: before recovery Git is content, after it nothing that was promised is missing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field, frozen

HERE = Path(__file__).parent
WORKERS = 2
PENDING: dict[str, Any] = {"story": "save", "only": "one.lock", "at": 4}  # dies with the pack written and `one` locked

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@frozen
class Told:
    """What a process said until it ended, and the exit code it ended with."""

    code: int
    lines: list[list[Any]]

    def about(self, word: str) -> list[list[Any]]:
        """What followed *word*, each time it was said."""
        return [rest for said, *rest in self.lines if said == word]

    def last(self, word: str) -> dict[str, Any]:
        """The last thing said with *word* about each name."""
        return dict(self.about(word))


@define(eq=False)
class Teller:
    """A process that tells the stories of `_driver.py`, each in a fork of itself."""

    process: "subprocess.Popen[str]"

    def __call__(self, story: str, path: Path, **order: Any) -> Told:
        """Tell a story in the repository at *path*; with `at`, it gets a signal at that file operation."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"story": story, "path": str(path), **order}) + "\n")
        self.process.stdin.flush()
        told = Told(*json.loads(self.process.stdout.readline()))
        assert told.code in (0, -signal.SIGKILL), f"{story} {order}: ended with {told.code}, see the captured stderr"
        return told


@contextmanager
def teller(killer: Path) -> Iterator[Teller]:
    """A process that tells stories until the block ends."""
    command = [sys.executable, str(HERE / "_driver.py")]
    variables = os.environ | {"LD_PRELOAD": str(killer)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables, start_new_session=True
    ) as process:
        try:
            yield Teller(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with its forks, of which one may be stopped


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim that counts file operations, compiled."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the killer is preloaded with LD_PRELOAD, which only Linux has")
    if shutil.which("gcc") is None:
        pytest.skip("NO KILL SWEEP: install gcc to compile tests/faults/killer.c")
    target = tmp_path_factory.mktemp("killer") / "killer.so"
    flags = ("-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")
    subprocess.run(["gcc", *flags, "-o", target, HERE / "killer.c", "-ldl"], check=True)
    return target


@pytest.fixture
def edited(repo_path: Path) -> Path:
    """A repository whose work tree was edited, so that its code is captured."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    return repo_path


# ---- what must be true ----


def refs_of(path: Path, git: Callable[..., str], below: str = "refs/exps") -> dict[str, str]:
    """Every ref below a prefix with its rev."""
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", below, cwd=path).splitlines()
    return dict(line.split(" ") for line in lines)


def copy_of(path: Path, target: Path) -> Path:
    """Copy a repository; `cp` keeps hard links, which tell whose lock a lock is."""
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", path, target], check=True)
    return target


def leftovers(path: Path) -> list[str]:
    """Locks, kept packs, half-written packs, and sessions that nobody put away."""
    common = path / ".git"
    patterns = ("refs/**/*.lock", "*.lock", "objects/pack/*.keep", "objects/**/tmp_*", "aexp/sessions/*")
    found = [str(each.relative_to(common)) for pattern in patterns for each in common.glob(pattern)]
    packs, indices = ({each.stem for each in common.glob(f"objects/pack/*.{kind}")} for kind in ("pack", "idx"))
    return sorted(found) + sorted(packs ^ indices)


@frozen(eq=False)
class Oracle:
    """Knows from what a process said before it died what must be there afterwards."""

    git: Callable[..., str]
    fsck: Callable[[Path], None]

    def check(self, path: Path, said: Told, tell: Teller) -> None:
        """Check the repository before recovery, recover, and check again; *said* is all that was said there."""
        self.fsck(path)
        standing = refs_of(path, self.git)
        after = tell("look", path)
        records = {name: rest for name, *rest in after.about("record")}
        refs = refs_of(path, self.git)

        assert after.about("again") == [[[], []]], "a second recovery found something"
        assert sorted(ref.rpartition("/")[2] for ref in refs) == sorted(records)
        assert set(records) <= {"one", "two"}, "an experiment came back as several"
        assert len({id for _, id, *_ in records.values()}) == len(records), "one experiment has two records"
        for name, count in said.last("F").items():
            self.check_points(name, count, records, said)
        for name, rev in said.last("S").items():
            assert records[name][0] == rev, f"{name} was saved, and is another commit now"
        for (name,) in said.about("D"):
            assert name not in records, f"{name} was discarded"
        assert said.about("discarding") or not set(standing) - set(refs), "recovery removed a ref"
        assert not leftovers(path)
        assert not refs_of(path, self.git, "refs/aexp/wip")

        again = tell("look", path)
        assert again.about("recovered") == [[[]]]
        assert refs_of(path, self.git) == refs
        self.fsck(path)

    def check_points(self, name: str, count: int, records: dict[str, list[Any]], said: Told) -> None:
        """What was flushed is there: a prefix of what was logged, without holes."""
        if said.about("discarding") and name not in records:
            return
        _, _, status, _, steps, values = records[name]
        assert status in ("interrupted", "finished")
        assert steps == list(range(len(steps))), f"{name} has holes"
        assert values == [float(step) for step in steps]
        assert len(steps) >= count, f"{name} has lost points"


@define(eq=False)
class Sweep:
    """Tells a story in copies of a repository, and kills it at another operation each time."""

    story: str
    template: Path
    killer: Path
    oracle: Oracle
    known: tuple[list[Any], ...] = ()
    died: int = 0
    faults: list[str] = field(factory=list)
    _places: list[tuple[int, int]] = field(factory=list)

    def __call__(self, every: int) -> None:
        """Kill at every *every*-th operation, before it or, every other time, in the middle of it if it is a write."""
        with teller(self.killer) as tell:
            path = copy_of(self.template, self.template.parent / "whole")
            whole = tell(self.story, path, at=0)
            ((operations,),) = whole.about("end")
            self.oracle.check(path, Told(0, [*self.known, *whole.lines]), tell)
        halves = (0, 1) if every == 1 else (None,)
        self._places = [
            (at, at // every % 2 if half is None else half)
            for at in range(1 + every // 2, operations + 1, every)
            for half in halves
        ]
        count = len(self._places)
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(self._work, range(WORKERS)))
        assert not self.faults, f"{len(self.faults)} of {count} points:\n\n" + "\n\n".join(self.faults[:10])
        assert self.died >= 0.9 * count  # threads take turns as they like, so the last operations may not be reached

    def _work(self, worker: int) -> None:
        with teller(self.killer) as tell:
            while True:
                try:
                    at, half = self._places.pop()
                except IndexError:
                    return
                path = copy_of(self.template, self.template.parent / f"{self.story}-{worker}")
                told = tell(self.story, path, at=at, half=half)
                self.died += told.code != 0
                try:
                    self.oracle.check(path, Told(told.code, [*self.known, *told.lines]), tell)
                except (AssertionError, pytest.fail.Exception) as fault:
                    kept = path.rename(path.with_name(f"{path.name}-at-{at}-{half}"))
                    self.faults.append(f"at operation {at}, half {half}, in {kept}: {fault}\nsaid: {told.lines}")
                else:
                    shutil.rmtree(path)


@pytest.fixture
def oracle(git: Callable[..., str], fsck: Callable[[Path], None]) -> Oracle:
    """What knows the truth."""
    return Oracle(git, fsck)


STEPS = pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])


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
        self.fsck(path)
        wait_for_children(path)
        found = saved_and_removed(path, self.git)
        assert found in (self.old, self.new)
        assert found == self.new or not said.about("changed"), "it was told, and is not so"
        if found == self.old:
            tell(self.story, path)
        assert saved_and_removed(path, self.git) == self.new
        assert not leftovers(path)
        self.fsck(path)


def saved_and_removed(path: Path, git: Callable[..., str]) -> frozenset[tuple[str, str]]:
    """The refs of experiments with their revs; those in the trash without the time."""
    refs = refs_of(path, git) | refs_of(path, git, "refs/aexp/trash")
    return frozenset((re.sub("trash/[0-9]{13}", "trash/then", ref), rev) for ref, rev in refs.items())


def wait_for_children(path: Path) -> None:
    """Wait until no `git` that a killed process started works in *path*: it ends what it began."""
    for _ in range(500):
        places = []
        for each in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):  # it ended meanwhile
                places.append(each.readlink())
        if path not in places:
            return
        time.sleep(0.01)
    pytest.fail(f"a process still works in {path}")


@pytest.mark.parametrize("story", ["rename", "remove", "restore"])
@STEPS
def test_a_kill_while_changing_leaves_the_old_or_the_new(
    repo_path: Path, killer: Path, git: Callable[..., str], fsck: Callable[[Path], None], story: str, every: int
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
def dirty(repo_path: Path, killer: Path, git: Callable[..., str]) -> Path:
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
def test_a_kill_while_applying_loses_nothing(dirty: Path, killer: Path, git: Callable[..., str], every: int) -> None:
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
def test_a_kill_beside_another_file_system_loses_nothing(
    dirty: Path, killer: Path, git: Callable[..., str], every: int
) -> None:
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
