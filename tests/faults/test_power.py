"""The power fails at a file operation: what was flushed and saved is on the disk, and Git is content before any recovery.

A repository on an ext4 of its own, on a loop device, whose kernel is told at that operation to forget what has not
reached the disk (EXT4_IOC_SHUTDOWN). Once nothing more reaches it; once its journal does, so that names and sizes are
there and contents are not: a file that was not synced has no content.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import define, field

from tests.faults.kit import WORKERS, Git, Oracle, Teller, Told, copy_of, leftovers, refs_of, teller, wait_for_children

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]

FORGETTING, JOURNALLED = 2, 1
"""What is done at the cut: nothing, or the file system's own journal is brought to the disk (fs/ext4/ext4.h)."""
SIZE = 24 * 2**20
Check = Callable[[Path, Told, Teller], None]


@pytest.fixture(scope="session")
def shelf() -> Iterator[Path]:
    """A folder in memory for the images of disks."""
    tools = [
        shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in ("mkfs.ext4", "mount", "umount")
    ]
    memory = Path("/dev/shm")
    if not sys.platform.startswith("linux") or None in tools:
        pytest.skip("NO POWER CUT IS TESTED: this needs Linux and mkfs.ext4, mount and umount")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="aexp-disks-") as folder:
        try:
            image = make_image(Path(folder) / "try", None)
            with mounted(image, Path(folder) / "place"):
                pass
        except (subprocess.CalledProcessError, PermissionError) as error:
            pytest.skip(f"NO POWER CUT IS TESTED: this needs root and loop devices ({error})")
        yield Path(folder)


def make_image(image: Path, content: Path | None) -> Path:
    """Make a disk that holds the folder *content*."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", image)
    if content is not None:
        with mounted(image, image.with_suffix(".place")) as place:
            copy_of(content, place / "repository")
    return image


def run(*command: str | Path) -> None:
    """Run a program of the system."""
    variables = os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    subprocess.run(command, check=True, capture_output=True, env=variables)


@contextmanager
def mounted(image: Path, place: Path) -> Iterator[Path]:
    """Have a disk mounted that writes nothing by itself, within the time of a test."""
    place.mkdir(exist_ok=True)
    run("mount", "-o", "loop,commit=900,noatime", image, place)
    try:
        yield place
    finally:
        for _ in range(100):
            if subprocess.run(["umount", place], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        else:
            run("umount", "-l", place)


@define(eq=False)
class Cuts:
    """Tells a story on copies of a disk, and cuts the power at another operation each time."""

    story: str
    content: Path
    shelf: Path
    killer: Path
    check: Check
    known: tuple[list[object], ...] = ()
    died: int = 0
    faults: list[str] = field(factory=list)
    _points: list[tuple[int, int]] = field(factory=list)

    def __call__(self, every: int) -> None:
        """Cut at every *every*-th operation, in both ways in turn or, when at each, in both."""
        disk = make_image(self.shelf / self.story, self.content)
        with teller(self.killer) as tell:
            ((operations,),) = tell(self.story, copy_of(self.content, self.content.parent / "whole"), at=0).about("end")
        both = every == 1
        self._points = [
            (at, how)
            for place, at in enumerate(range(1 + every // 2, operations + 1, every))
            for how in (FORGETTING, JOURNALLED)
            if both or (place % 2 == 0) == (how == FORGETTING)
        ]
        count = len(self._points)
        with ThreadPoolExecutor(WORKERS) as threads:
            list(threads.map(lambda worker: self._work(worker, disk), range(WORKERS)))
        disk.unlink()
        assert not self.faults, f"{len(self.faults)} of {count} cuts:\n\n" + "\n\n".join(self.faults[:10])
        assert self.died >= 0.9 * count

    def _work(self, worker: int, disk: Path) -> None:
        place, image = self.shelf / f"place-{worker}", self.shelf / f"disk-{worker}"
        with teller(self.killer) as tell:
            while True:
                try:
                    at, how = self._points.pop()
                except IndexError:
                    return
                shutil.copyfile(disk, image)
                with mounted(image, place):
                    told = tell(self.story, place / "repository", at=at, half=at // 2 % 2, cut=[str(place), how])
                    self.died += told.code != 0
                    wait_for_children(place)
                with mounted(image, place):
                    try:
                        self.check(place / "repository", Told(told.code, [*self.known, *told.lines]), tell)
                    except (AssertionError, pytest.fail.Exception) as fault:
                        kept = copy_of(
                            place / "repository", self.content.parent / f"{self.story}-{at}-{how}" / "repository"
                        )
                        self.faults.append(
                            f"{self.story}, cut at {at} in way {how}, in {kept}: {fault}\nsaid: {told.lines}"
                        )
                image.unlink()


OFTEN = pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])


@OFTEN
def test_a_power_cut_while_logging_and_saving_loses_nothing(
    edited: Path, shelf: Path, killer: Path, oracle: Oracle, every: int
) -> None:
    """Whenever the power fails: what was flushed comes back, what was saved stands, and no ref is ever broken."""
    Cuts("save", edited, shelf, killer, oracle.check)(every)


@OFTEN
def test_a_power_cut_while_resuming_loses_nothing(
    edited: Path, shelf: Path, killer: Path, oracle: Oracle, every: int
) -> None:
    """Whenever the power fails while an experiment is taken over and saved, it is there once, with all its points."""
    with teller(killer) as tell:
        known = tell("crash", edited).lines
    Cuts("resume", edited, shelf, killer, oracle.check, tuple(known))(every)


@OFTEN
def test_a_power_cut_while_recovering_loses_nothing(
    edited: Path, shelf: Path, killer: Path, oracle: Oracle, every: int
) -> None:
    """Whenever the power fails in a recovery, another one does it."""
    with teller(killer) as tell:
        known = tell("crash", edited).lines
    Cuts("recover", edited, shelf, killer, oracle.check, tuple(known))(every)


@OFTEN
def test_a_power_cut_while_discarding_leaves_all_or_nothing(
    edited: Path, shelf: Path, killer: Path, oracle: Oracle, every: int
) -> None:
    """An experiment that was being given up is recovered whole, or is gone; one of which that was told is gone."""
    Cuts("discard", edited, shelf, killer, oracle.check)(every)


@OFTEN
@pytest.mark.parametrize("story", ["rename", "remove", "restore"])
def test_a_power_cut_while_changing_loses_nothing(
    repo_path: Path, shelf: Path, killer: Path, git: Git, fsck: Callable[[Path], None], story: str, every: int
) -> None:
    """Whenever the power fails, each commit stands somewhere; upkeep mends what is left, and the change can be made."""
    with teller(killer) as tell:
        saved = {rev for _, rev in tell("save", repo_path).about("S")}
        if story == "restore":
            tell("remove", repo_path)
        after = copy_of(repo_path, repo_path.parent / "after" / "repository")
        assert tell(story, after).about("changed")
        new = set(refs_of(after, git))

    def check(path: Path, told: Told, tell: Teller) -> None:
        fsck(path)
        standing = refs_of(path, git) | refs_of(path, git, "refs/aexp/trash")
        assert set(standing.values()) == saved
        age_locks(path)
        tell("upkeep", path)
        if set(refs_of(path, git)) != new:
            assert not told.about("changed"), "it was told, and is not so"
            assert tell(story, path).about("changed")
        assert set(refs_of(path, git)) == new
        assert set((refs_of(path, git) | refs_of(path, git, "refs/aexp/trash")).values()) == saved
        assert not leftovers(path)
        fsck(path)

    Cuts(story, repo_path, shelf, killer, check)(every)


def age_locks(path: Path) -> None:
    """Let an hour pass for the locks that Git left: nobody else tells whether their holder lives."""
    for lock in (path / ".git").rglob("*.lock"):
        os.utime(lock, (time.time() - 3600,) * 2)


def test_a_cut_is_a_cut(shelf: Path, tmp_path: Path, killer: Path) -> None:
    """The sweep means something: what was written and not synced is gone after a cut, and what was synced is there."""
    (tmp_path / "repository").mkdir()
    image = make_image(shelf / "proof", tmp_path / "repository")
    program = """
import ctypes, os, sys
place = sys.argv[1]
for name in ("synced", "lost"):
    descriptor = os.open(os.path.join(place, name), os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    if name == "synced":
        os.fsync(descriptor)
killer = ctypes.CDLL(None)
killer.killer_arm(os.fsencode(place), b"", ctypes.c_long(1), 0, 9)
killer.killer_cut(os.fsencode(place), 2)
os.unlink(os.path.join(place, "synced"))
"""
    with mounted(image, shelf / "proof.place") as place:
        done = subprocess.run(
            [sys.executable, "-c", program, place], env=os.environ | {"LD_PRELOAD": str(killer)}, check=False
        )
        assert done.returncode == -9
        with pytest.raises(OSError, match="Input/output"):
            (place / "more").touch()
    with mounted(image, place):
        assert (place / "synced").read_text() == "x"
        assert not (place / "lost").exists()
