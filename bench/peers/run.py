"""aexp and its peers at the same work, in turn, each time in a fresh process.

    python bench/peers/run.py [--quick] [--only SUBJECT ...] [--peers PEER ...] [--cases KEY=N[,KEY=N] ...] [--store FILE]

What is measured replaces what was stored of the same peers and cases, so that the whole can be measured in parts.
The page of the results is made from the stored file by `page.py`.
"""

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
sys.path.insert(1, str(HERE.parent))

from environments import Environments  # noqa: E402  # what stands above makes these importable
from roster import OURS, PEERS, SAVES_TO_GIT  # noqa: E402
from scratch import copy_repository, disk_of, git, make_repository  # noqa: E402
from stored import FILE, Result, Stored  # noqa: E402

SUBJECTS = ("points", "many", "saves", "lists", "pushes", "kills", "installs")
ROUNDS, PATIENCE, BUDGET = 3, 40.0, 200.0
"""A peer whose round takes more than `PATIENCE` seconds has one; no round begins that would end after `BUDGET`."""
DVC_FILES = {
    ".dvc/config": "[core]\n    analytics = false\n",
    ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    "dvc.yaml": "params:\n- params.yaml\nmetrics:\n- metrics.json\n",
    "params.yaml": "lr: 0.1\n",
    "metrics.json": "{}\n",
}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one subject; all is deleted at its end, as deleting slows down what some disks do next."""
    with tempfile.TemporaryDirectory(prefix="aexp-peers-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def new_folder(top: Path, name: str, files: int) -> Path:
    """A folder for a peer: a repository of Git and of DVC, with so many files."""
    folder = make_repository(top / name / "repository", files)
    for path, content in DVC_FILES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(content)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=dvc")
    return folder


class Contest:
    """The peers at one case of a subject, by turns."""

    def __init__(self, name: str, subject: ModuleType, environments: Environments, top: Path) -> None:
        self.name = name
        self.subject = subject
        self.environments = environments
        self.top = top
        self.filled: dict[str, Path] = {}
        self.numbers = iter(range(1_000_000))

    def folder(self, peer: str, case: Mapping[str, int]) -> Path:
        """Where the next round of a peer happens."""
        files, number = case.get("files", 10), next(self.numbers)
        if "existing" not in case:
            return new_folder(self.top, f"{peer}-{number}", files)
        if peer not in self.filled:
            folder = new_folder(self.top, f"{peer}-{number}-filled", files)
            filler = PEERS[OURS if peer in SAVES_TO_GIT else peer]
            self.environments.run(filler, "fill", self.name, case, folder)
            self.filled[peer] = folder
        if not getattr(self.subject, "COPIES", False):
            return self.filled[peer]
        target = self.top / f"{peer}-{number}" / "repository"
        target.parent.mkdir()
        return copy_repository(self.filled[peer], target)

    def run(self, peers: list[str], case: Mapping[str, int], rounds: int) -> Iterator[list[Result]]:
        """Rounds in which everybody has a turn; who is slow has one. Yields, after each, what is known."""
        self.filled.clear()
        kept: dict[str, list[Mapping[str, float]]] = {peer: [] for peer in peers}
        slow: set[str] = set()
        begun, longest = time.perf_counter(), 0.0
        for _ in range(rounds):
            round_begun = time.perf_counter()
            if round_begun - begun + longest > BUDGET:
                break
            for peer in (each for each in peers if each not in slow):
                folder = self.folder(peer, case)
                start = time.perf_counter()
                kept[peer].append(self.environments.run(PEERS[peer], "measure", self.name, case, folder))
                if time.perf_counter() - start > PATIENCE:
                    slow.add(peer)
            longest = max(longest, time.perf_counter() - round_begun)
            yield [Result(self.name, case, peer, tuple(measured)) for peer, measured in kept.items()]


def contend(name: str, options: argparse.Namespace, environments: Environments, stored: Stored) -> None:
    """Measure all cases of a subject, printing and storing each."""
    subject = importlib.import_module(f"subjects.{name}")
    for case in subject.cases(options.quick):
        told = {f"{key}={value}" for key, value in case.items()}
        if options.cases and not any(told >= set(wanted.split(",")) for wanted in options.cases):
            continue
        reasons = {peer: subject.left_out(peer, case) for peer in options.peers}
        left_out = [Result(name, case, peer, (), reason) for peer, reason in reasons.items() if reason]
        with scratch() as top:
            contest = Contest(name, subject, environments, top)
            for measured in contest.run(
                [peer for peer in options.peers if reasons[peer] is None], case, options.rounds
            ):
                for result in [*measured, *left_out]:
                    stored.put(result)
                stored.dates[name] = datetime.now(UTC).date().isoformat()
                if options.store:
                    stored.write(options.store)
        print("\n".join(map(line, [*measured, *left_out])), flush=True)


def line(result: Result) -> str:
    """A result as a line of text: medians."""
    case = " ".join(f"{key}={value:,}" for key, value in result.case.items())
    names = list(result.rounds[0]) if result.rounds else []
    told = "  ".join(f"{name} {result.median(name):.4g}" for name in names) or f"left out: {result.left_out}"
    return f"{result.subject:9}{case:28}{result.peer:15}{told}"


def main() -> None:
    """Install, measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smallest sizes, one round, nothing stored by itself")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="only these subjects")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="only these peers")
    parser.add_argument("--cases", nargs="+", help="only these, as in files=10 or files=10,existing=100")
    parser.add_argument("--rounds", type=int, help=f"at most so many rounds ({ROUNDS}; 1 with --quick)")
    parser.add_argument("--store", type=Path, help=f"add the results to this file ({FILE.name}, unless --quick)")
    parser.add_argument("--note", help="what readers of the page must know of this machine, as a sentence; it is kept")
    parser.add_argument("--environments", type=Path, help="the folder of the peers' environments; none: this one")
    options = parser.parse_args()
    options.store = options.store or (None if options.quick else FILE)
    options.rounds = options.rounds or (1 if options.quick else ROUNDS)

    environments = Environments(options.environments and options.environments.resolve())
    stored = Stored.read(options.store) if options.store else Stored()
    stored.machine = {
        "note": stored.machine.get("note", "") if options.note is None else options.note,
        "python": platform.python_version(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "git": git(HERE, "version").split()[2],
        "cores": os.cpu_count(),
        "disk": disk_of(Path(tempfile.gettempdir())).split(" on ")[-1],
    }
    for peer in options.peers:
        environments.prepare(PEERS[peer])
        stored.versions |= environments.versions(PEERS[peer])
    for name in options.only:
        contend(name, options, environments, stored)


if __name__ == "__main__":
    main()
