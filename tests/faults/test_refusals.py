"""The N-th file operation fails, once or for good: an error of ours or none at all, nothing lost, and another try works."""

import errno
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

import pytest
from attrs import define, field

from tests.faults.kit import WORKERS, Git, Oracle, Teller, Told, copy_of, refs_of, teller

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

FEW = 6
"""How many operations fail by default, of each story in each way."""
KINDS = {
    errno.EIO: {"DiskFailed", "JournalFailed"},
    errno.ENOSPC: {"DiskFull"},
    errno.EMFILE: {"TooManyOpenFiles"},
    errno.EROFS: {"ReadOnlyRepository"},
}
ELSEWISE = {"GitError", "PointsLost"}
"""What it may be called, too: when `git` ran into it, or nothing could be done any more."""


@define(eq=False)
class Refusals:
    """Tells a story in copies of a repository, and lets another operation fail each time."""

    story: str
    template: Path
    killer: Path
    check: Callable[[Path, Told, Teller], None]
    below: str = ".git"
    known: tuple[list[object], ...] = ()
    faults: list[str] = field(factory=list)
    told: dict[str, int] = field(factory=dict)
    _turn: Lock = field(factory=Lock)

    def __call__(self, number: int, *, forever: bool, most: int | None) -> None:
        """Let at most *most* operations fail with *number*, evenly spread over the story; None for each."""
        order = {"fail": number, "forever": forever, "below": self.below}
        with teller(self.killer) as tell:
            path = copy_of(self.template, self.template.parent / "whole")
            whole = tell(self.story, path, at=0, **order)
            ((operations,),) = whole.about("end")
            assert not whole.about("E"), whole
            self.check(path, Told(0, [*self.known, *whole.lines]), tell)
        stride = 1 if most is None else max(1, operations / most)
        count = operations if most is None else min(most, operations)
        places = iter([1 + int(stride * (place + 0.5 * (number % 2))) for place in range(count)])
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(lambda worker: self._work(worker, places, order), range(WORKERS)))
        assert not self.faults, f"{len(self.faults)} of {count}:\n\n" + "\n\n".join(self.faults[:10])

    def _work(self, worker: int, places: Iterator[int], order: dict[str, object]) -> None:
        with ExitStack() as stack:
            tell = stack.enter_context(teller(self.killer))
            while True:
                with self._turn:
                    at = next(places, None)
                if at is None:
                    return
                path = copy_of(self.template, self.template.parent / f"{self.story}-{worker}")
                try:
                    told = tell(self.story, path, at=at, half=at % 2, **order)
                    assert told.code == 0
                    self.judge(told, order)
                    self.check(path, Told(0, [*self.known, *told.lines]), tell)
                except (AssertionError, pytest.fail.Exception) as fault:
                    kept = path.rename(path.with_name(f"{path.name}-at-{at}"))
                    self.faults.append(f"{self.story} at {at}, {order}, in {kept}: {fault}")
                else:
                    shutil.rmtree(path)

    def judge(self, told: Told, order: dict[str, object]) -> None:
        """What was raised is of the kind of the fault, and says what to do."""
        assert not told.about("unheard"), "a task failed unheard"
        for call, kind, text, _ in told.about("E"):
            assert kind in KINDS[order["fail"]] | ELSEWISE, f"{call} raised {kind}: {text}"  # type: ignore[index]
            assert len(text) > 20


WAYS = pytest.mark.parametrize("forever", [False, True], ids=["once", "for-good"])
NUMBERS = pytest.mark.parametrize(
    "number", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=lambda number: errno.errorcode[number]
)
MANY = pytest.mark.parametrize("most", [FEW, pytest.param(None, marks=pytest.mark.slow)], ids=["few", "all"])


@MANY
@WAYS
@NUMBERS
def test_a_refusal_while_logging_and_saving(
    edited: Path, killer: Path, oracle: Oracle, number: int, forever: bool, most: int | None
) -> None:
    """Whatever operation the disk refuses from opening to closing: each call works or says so, and works once it is mended."""
    Refusals("life", edited, killer, oracle.check)(number, forever=forever, most=most)


@MANY
@WAYS
@NUMBERS
def test_a_refusal_while_resuming_discarding_and_recovering(
    edited: Path, killer: Path, oracle: Oracle, number: int, forever: bool, most: int | None
) -> None:
    """An experiment that a dead process left is taken over, given up, brought back and recovered on a disk that refuses."""
    with teller(killer) as tell:
        known = tell("crash", edited).lines
    refusals = Refusals("ends", edited, killer, oracle.check, known=tuple(known))
    refusals(number, forever=forever, most=most)


@MANY
@WAYS
@NUMBERS
def test_a_refusal_while_changing_what_is_saved(
    edited: Path, killer: Path, oracle: Oracle, number: int, forever: bool, most: int | None
) -> None:
    """Renaming, removing, restoring, sweeping and listing do it all or say so."""
    with teller(killer) as tell:
        known = tell("save", edited).about("S")
    lines = tuple(["S", *each] for each in known)
    Refusals("changes", edited, killer, oracle.check, known=lines)(number, forever=forever, most=most)


@MANY
@WAYS
@NUMBERS
def test_a_refusal_while_keeping_and_pushing_data(
    repo_path: Path, killer: Path, git: Git, oracle: Oracle, number: int, forever: bool, most: int | None
) -> None:
    """Data is kept whole or not at all, and what a remote holds is whole, too."""

    def check(path: Path, told: Told, tell: Teller) -> None:
        remote = path / ".git" / "remote"
        assert set(refs_of(remote, git).values()) == {rev for _, rev in told.about("S")}
        git("fsck", "--full", "--strict", cwd=remote)
        shutil.rmtree(remote)
        oracle.check(path, told, tell)

    git("clone", "--quiet", "--bare", repo_path, repo_path / ".git" / "remote", cwd=repo_path)
    git("remote", "add", "origin", ".git/remote", cwd=repo_path)
    (repo_path / "model").mkdir()
    for name in "ab":
        (repo_path / "model" / name).write_text(name)
    Refusals("data", repo_path, killer, check, below="")(number, forever=forever, most=most)


@MANY
@WAYS
@NUMBERS
def test_a_refusal_while_applying(
    edited: Path, killer: Path, git: Git, fsck: Callable[[Path], None], number: int, forever: bool, most: int | None
) -> None:
    """Applied and taken back on a disk that refuses, the work tree is what it was."""
    with teller(killer) as tell:
        assert tell("save", edited).about("S")
    (edited / "train.py").write_text("mine, in no commit\n")

    def check(path: Path, told: Told, tell: Teller) -> None:
        fsck(path)
        assert (path / "train.py").read_text() == "mine, in no commit\n"
        assert git("status", "--porcelain", cwd=path) == " M train.py"

    Refusals("bring", edited, killer, check, below="")(number, forever=forever, most=most)


@MANY
def test_a_disk_that_turns_read_only(edited: Path, killer: Path, oracle: Oracle, most: int | None) -> None:
    """As a file system does that found itself damaged; writable again, all is written and saved."""
    Refusals("life", edited, killer, oracle.check)(errno.EROFS, forever=True, most=most)


def test_the_shim_kills_where_it_is_told(edited: Path, killer: Path) -> None:
    """The sweep means something: at an operation in the middle the process dies, and at none it does not."""
    with teller(killer) as tell:
        assert tell("life", copy_of(edited, edited.parent / "a" / "repository"), at=30).code == -signal.SIGKILL
        assert tell("life", copy_of(edited, edited.parent / "b" / "repository"), at=0).code == 0
