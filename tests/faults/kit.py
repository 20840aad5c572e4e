"""What every sweep of faults uses: tellers of stories, the oracle that knows what must be true afterwards, and sweeps."""

import json
import os
import shutil
import signal
import subprocess
import sys
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

Git = Callable[..., str]


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
        """Tell a story in the repository at *path*; with `at`, a fault comes at that file operation.

        One that comes to its end leaves no thread of ours, no descriptor and no process.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"story": story, "path": str(path), **order}) + "\n")
        self.process.stdin.flush()
        told = Told(*json.loads(self.process.stdout.readline()))
        said = "\n".join(str(line) for line in told.lines)
        assert told.code in (0, -signal.SIGKILL), f"{story} {order}: ended with {told.code}, see stderr; said\n{said}"
        assert told.about("left") in ([], [[[], [], []]]), f"{story} {order}: left {told.about('left')}"
        return told


@contextmanager
def teller(killer: Path, *arguments: str) -> Iterator[Teller]:
    """A process that tells stories until the block ends; with the argument `dvc`, also that of `dvc exp show`."""
    command = [sys.executable, str(HERE / "_driver.py"), *arguments]
    variables = os.environ | {"LD_PRELOAD": str(killer)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables, start_new_session=True
    ) as process:
        try:
            yield Teller(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with its forks, of which one may be stopped


# ---- what must be true ----


def refs_of(path: Path, git: Git, below: str = "refs/exps") -> dict[str, str]:
    """Every ref below a prefix with its rev."""
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", below, cwd=path).splitlines()
    return dict(line.split(" ") for line in lines)


def copy_of(path: Path, target: Path) -> Path:
    """Copy a repository; `cp` keeps hard links, which tell whose lock a lock is."""
    target.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", path, target], check=True)
    return target


def leftovers(path: Path) -> list[str]:
    """Locks, kept packs, temporary files, and sessions that nobody put away."""
    common = path / ".git"
    patterns = ("refs/**/*.lock", "*.lock", "objects/pack/*.keep", "objects/**/tmp_*", "aexp/sessions/*")
    found = [str(each.relative_to(common)) for pattern in patterns for each in common.glob(pattern)]
    found += [str(each.relative_to(path)) for each in path.rglob("*.aexp-*")]
    packs, indices = ({each.stem for each in common.glob(f"objects/pack/*.{kind}")} for kind in ("pack", "idx"))
    return sorted(found) + sorted(packs ^ indices)


def wait_for_children(path: Path) -> None:
    """Wait until no `git` that a killed process started works in *path*: it ends what it began."""
    for _ in range(500):
        places = []
        for each in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):  # it ended meanwhile
                places.append(each.readlink())
        if not any(place.is_relative_to(path) for place in places):
            return
        time.sleep(0.01)
    pytest.fail(f"a process still works in {path}")


@frozen(eq=False)
class Oracle:
    """Knows from what a process said before it died what must be there afterwards."""

    git: Git
    fsck: Callable[[Path], None]

    def check(self, path: Path, said: Told, tell: Teller) -> None:
        """Check the repository before recovery, recover, and check again; *said* is all that was said there."""
        standing = self.check_before(path, said)
        after = tell("look", path)
        records = {name: rest for name, *rest in after.about("record")}
        refs = refs_of(path, self.git)

        assert after.about("again") == [[[], []]], "a second recovery found something"
        assert after.about("bad") == [], f"diagnose() is not content after a recovery: {after.about('bad')}"
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
        assert leftovers(path) == [], f"left over: {leftovers(path)}"
        assert refs_of(path, self.git, "refs/aexp/wip") == {}, "anchors are left over"
        self.check_upkeep(path, tell)

        again = tell("look", path)
        assert again.about("recovered") == [[[]]]
        assert refs_of(path, self.git) == refs
        self.fsck(path)

    def check_before(self, path: Path, said: Told) -> dict[str, str]:
        """Before any recovery Git is content, and what was told to be saved stands; return the refs of experiments."""
        wait_for_children(path)
        self.fsck(path)
        standing = refs_of(path, self.git)
        saved = {ref.rpartition("/")[2]: rev for ref, rev in standing.items()}
        for name, rev in said.last("S").items():
            assert saved.get(name) == rev, f"{name} was saved, and does not stand before recovery"
        return standing

    def check_upkeep(self, path: Path, tell: Teller) -> None:
        """What a session left that was only half made is swept by upkeep, a minute later."""
        made = list(path.glob(".git/aexp/tmp/*"))
        if made:
            for each in made:
                os.utime(each, (time.time() - 3600,) * 2)
            assert tell("upkeep", path).about("upkeep") == [[[]]]
            assert list(path.glob(".git/aexp/tmp/*")) == [], "a session that was half made is left over"

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
                    if at // 5 % 3 == 0:  # upkeep at any time does no harm
                        tell("upkeep", path)
                    self.oracle.check(path, Told(told.code, [*self.known, *told.lines]), tell)
                except (AssertionError, pytest.fail.Exception) as fault:
                    kept = path.rename(path.with_name(f"{path.name}-at-{at}-{half}"))
                    self.faults.append(f"at operation {at}, half {half}, in {kept}: {fault}\nsaid: {told.lines}")
                else:
                    shutil.rmtree(path)
