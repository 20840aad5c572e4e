"""What is written before what, and synced before what: a power cut at any instant, without pulling a plug.

`recorder.c` writes down every file operation of a program; a model of a disk that keeps only what was synced (POSIX
promises no more, file systems do) says at each step what a power cut would leave.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define, field

import aexp
from aexp._git import open_handle
from aexp._refs import change_refs

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PROGRAM = """
import asyncio, os, sys
import aexp

def say(*words):
    file = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)
    os.write(file, "\\t".join(map(str, ("said", *words))).encode() + b"\\n")
    os.close(file)

async def main(path):
    async with aexp.Repository(path, settings=aexp.Settings(segment_size=4096)) as repository:
        one = await repository.experiment("one", params={"lr": 0.1}).init()
        for step in range(12):
            for _ in range(20):
                await one.log_metric("loss", step + 0.25, step)
            await one.flush()
            say("flushed", "")
        say("checkpoint", await one.make_checkpoint())
        two = await repository.experiment("two").init()
        await two.log_file("notes.txt", "as it was")
        for record in await asyncio.gather(one.save(), two.save()):
            say("saved", record.ref)
        say("removed", (await repository.remove("two"))[0].ref)
    say("closed", "")

asyncio.run(main(sys.argv[1]))
"""
RIVAL = """
import asyncio, sys
import aexp

async def main(path):
    async with aexp.Repository(path) as repository:
        one = await repository.experiment("one", params={"who": sys.argv[2]}).init()
        print("begun", flush=True)
        sys.stdin.readline()
        try:
            print((await one.save()).rev)
        except aexp.NameTaken:
            print("NameTaken")

asyncio.run(main(sys.argv[1]))
"""


@define(eq=False)
class Disk:
    """What of the files below a folder is on the disk for good; paths are followed through renames by their inode."""

    inodes: dict[str, int] = field(factory=dict)
    dirty: dict[int, int] = field(factory=dict)
    """Inodes with content that is not synced, with the time of the last write."""
    names: dict[str, int] = field(factory=dict)
    """Paths whose name is not synced in its folder, with the time of the change."""
    begun: dict[str, int] = field(factory=dict)
    clock: int = 0

    def does(self, what: str, one: str, other: str) -> None:
        """Take an operation into account."""
        self.clock += 1
        if what in ("create", "mkdir"):
            self.inodes[one] = self.clock
            self.names[one] = self.clock
        elif what in ("write", "cut"):
            self.dirty[self.inodes.setdefault(one, self.clock)] = self.clock
        elif what == "syncing":
            self.begun[one] = self.clock
        elif what == "synced":
            self.synced(one, self.begun.get(one, 0))
        elif what == "link":
            self.inodes[other] = self.inodes.setdefault(one, self.clock)
            self.names[other] = self.clock
        elif what == "rename":
            self.renamed(one, other)
        elif what == "remove":
            self.inodes.pop(one, None)
            self.names[one] = self.clock

    def synced(self, path: str, since: int) -> None:
        """Forget what was not yet there when the sync began, of a file or of a folder."""
        inode = self.inodes.get(path)
        if inode is not None and self.dirty.get(inode, since + 1) < since:
            del self.dirty[inode]
        for name, changed in list(self.names.items()):
            if os.path.dirname(name) == path and changed < since:
                del self.names[name]

    def renamed(self, one: str, other: str) -> None:
        """Let *one*, and what is in it, be called *other*."""
        for path in [each for each in self.inodes if each == one or each.startswith(f"{one}/")]:
            self.inodes[other + path[len(one) :]] = self.inodes.pop(path)
        for path in [each for each in self.names if each.startswith(f"{one}/")]:
            self.names[other + path[len(one) :]] = self.names.pop(path)
        self.names[one] = self.names[other] = self.clock

    def missing(self, path: str) -> str:
        """Say what of *path* a power cut now would take; "" for nothing."""
        if self.inodes.get(path) in self.dirty:
            return f"the content of {path}"
        while path not in ("", "/"):
            if path in self.names:
                return f"the name {path}"
            path = os.path.dirname(path)
        return ""

    def lost(self, *parts: str) -> list[str]:
        """Return what a power cut now would take of the existing files whose paths contain one of *parts*."""
        wanted = [path for path in self.inodes if any(part in path for part in parts)]
        return [found for path in wanted if (found := self.missing(path))]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim that writes down file operations, compiled."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the recorder is preloaded with LD_PRELOAD, which only Linux has")
    if shutil.which("gcc") is None:
        pytest.skip("NO RECORDER: install gcc to compile tests/faults/recorder.c")
    target = tmp_path_factory.mktemp("recorder") / "recorder.so"
    flags = ("-Wall", "-Wextra", "-Werror", "-Wno-format-truncation", "-O1", "-shared", "-fPIC")
    source = Path(__file__).parent / "recorder.c"
    subprocess.run(["gcc", *flags, "-o", target, source, "-ldl"], check=True)
    return target


def operations(record: Path) -> Iterator[tuple[str, str, str]]:
    """The lines of a record."""
    for line in record.read_text(errors="replace").splitlines():
        what, one, other = (*line.split("\t", 2), "", "")[:3]
        yield what, one, other


def test_a_power_cut_at_any_instant_takes_nothing_that_was_promised(
    repo_path: Path,
    recorder: Path,
    tmp_path: Path,
    git: Callable[..., str],
    record_property: Callable[[str, object], None],
) -> None:
    """Objects are on the disk before a ref names them, a ref before it is told of, the journal's points when flushed."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    record = tmp_path / "record"
    common = str(repo_path / ".git")
    variables = os.environ | {"LD_PRELOAD": str(recorder), "RECORD": str(record), "BELOW": common}
    subprocess.run([sys.executable, "-c", PROGRAM, repo_path], env=variables, check=True, timeout=100)

    packed = packs_of(repo_path, git)
    disk, told, values, refs = Disk(), dict[str, int](), dict[int, str](), dict[str, int]()
    for what, one, other in operations(record):
        if what == "write" and "/ref-" in one:
            values[disk.inodes[one]] = other.strip()
        if what == "rename" and other.startswith(f"{common}/refs/"):
            assert disk.inodes[one] not in disk.dirty, f"{other} gets a value that is not on the disk"
            assert disk.lost("/objects/") == [], f"{other} is set before its objects are on the disk"
            pack = packed.get(values.get(disk.inodes[one], ""))
            assert pack is None or pack in disk.inodes, f"{other} is set before its objects are written"
            refs[other] = refs.get(other, 0) + 1
        if what == "rename" and other.endswith(".idx"):
            stem = other.removesuffix(".idx")
            assert {f"{stem}.keep", f"{stem}.pack"} <= disk.inodes.keys(), "a pack is seen that nothing keeps"
            assert disk.inodes[f"{stem}.pack"] not in disk.dirty
        if what == "remove" and one.endswith(".keep"):
            assert disk.lost("/refs/exps/") == [], "a pack is let go before its refs are on the disk"
        if what == "write" and '"saved",' in other:
            told["called saved"] = told.get("called saved", 0) + other.count('"saved",')
            moved = sum(count for ref, count in refs.items() if "/refs/exps/" in ref)
            assert told["called saved"] <= moved, "called saved before its ref is set"
            assert disk.lost("/refs/exps/", "/objects/pack/pack-") == [], "called saved before it is on the disk"
        if what == "rename" and "/aexp/done/" in other:
            assert disk.lost("/refs/exps/", "/aexp/sessions/") == [], "the journal is retired before all else is safe"
        if what != "said":
            disk.does(what, one, other)
            continue
        kept = {"flushed": ("/journal-",), "closed": ("/refs/exps/", "/aexp/done/")}.get(one, ("/refs/exps/",))
        assert disk.lost(*kept) == [], f"{one} was said too early"
        assert one != "saved" or f"{common}/{other}" in disk.inodes
        told[one] = told.get(one, 0) + 1
    record_property("operations", disk.clock)
    assert sum(refs.values()) >= 4
    assert sum("/journal-" in path for path in disk.inodes) > 1
    assert {"flushed", "checkpoint", "saved", "called saved", "removed", "closed"} <= told.keys()


def packs_of(path: Path, git: Callable[..., str]) -> dict[str, str]:
    """The index of the pack that each packed object is in."""
    found = {}
    for index in (path / ".git" / "objects" / "pack").glob("*.idx"):
        for line in git("verify-pack", "-v", index, cwd=path).splitlines():
            found[line.split(" ")[0]] = str(index)
    return found


def test_who_comes_second_to_the_lock_looks_again(
    repo_path: Path, recorder: Path, tmp_path: Path, fsck: Callable[[Path], None]
) -> None:
    """A process that stops just before it locks a ref finds, once it goes on, that another has taken the name meanwhile."""
    record = tmp_path / "record"
    variables = os.environ | {
        "LD_PRELOAD": str(recorder), "RECORD": str(record), "BELOW": str(repo_path / ".git"), "PAUSE": "/one.lock"
    }  # fmt: skip
    slow, quick = (
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, repo_path, who],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables if who == "slow" else None,
        )
        for who in ("slow", "quick")
    )
    try:
        for process in (slow, quick):
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
        assert slow.stdin is not None
        slow.stdin.write("\n")
        slow.stdin.flush()
        while "paused" not in (record.read_text() if record.exists() else ""):
            assert slow.poll() is None
            time.sleep(0.01)
        (won, _) = quick.communicate("\n", timeout=50)
        slow.send_signal(signal.SIGCONT)
        (lost, _) = slow.communicate(timeout=50)
    finally:
        for process in (slow, quick):
            process.kill()
            process.communicate()

    assert lost == "NameTaken\n"
    assert len(won) == 41
    fsck(repo_path)


def test_a_ref_that_moved_meanwhile_is_left_alone(repo_path: Path, git: Callable[..., str]) -> None:
    """A ref is deleted, to be renamed or removed, only if it still holds what was read: else all of it is refused."""
    first, tree = git("rev-parse", "HEAD", "HEAD^{tree}", cwd=repo_path).split()
    moved = git("commit-tree", tree, "-p", first, "-m", "moved", cwd=repo_path)
    git("update-ref", "refs/exps/ab/cd/one", moved, cwd=repo_path)
    handle = open_handle(str(repo_path))

    with pytest.raises(aexp.GitError, match="expected"):
        change_refs(handle, {"refs/exps/ab/cd/two": first}, {"refs/exps/ab/cd/one": first})

    assert git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps", cwd=repo_path) == (
        f"{moved} refs/exps/ab/cd/one"
    )
