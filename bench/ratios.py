"""What aexp costs, as ratios to the bare work, measured in one run on one machine.

    python bench/ratios.py [--full] [--only GROUP ...] [--store]

Ours and the bare work alternate, and the median of the ratios of the rounds counts, so that a slow or noisy machine
slows both. Each group of figures runs in a process of its own. The targets are those of the project.

The ratios are compared with those in `bench/stored.json`. A group in which one is more than 1.3 x worse is measured up
to two more times, and the best counts: noise makes a figure worse, never better. What is worse then ends the run with 1.
`--store` measures thrice and writes the middle figures there. `--full` takes larger sizes and more rounds. `--only remotes` needs minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import beside_dvc
import checkouts
import command
import hashing
import importing
import points
import reading
import remotes
import resources
import saves
import ticker
from figures import WORSE, Figure, better, table, worse
from scratch import disk_of

GROUPS: Mapping[str, Callable[[bool], list[Figure]]] = {
    "importing": importing.measure,
    "command": command.measure,
    "resources": resources.measure,
    "ticker": ticker.measure,
    "saves": saves.measure,
    "points": points.measure,
    "hashing": hashing.measure,
    "reading": reading.measure,
    "beside_dvc": beside_dvc.measure,
    "checkouts": checkouts.measure,
}
SLOW: Mapping[str, Callable[[bool], list[Figure]]] = {"remotes": remotes.measure}
"""Groups that are measured when they are named only: they need DVC, and minutes."""
ALL = {**GROUPS, **SLOW}
STORED = Path(__file__).with_name("stored.json")
AGAIN = 2
"""How often a group is measured again in which something got worse."""


def measure_apart(group: str, *, full: bool) -> list[Figure]:
    """The figures of `group`, from a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "figures.json")
        command = [sys.executable, __file__, "--group", group, "--answer", str(answer), *["--full"][:full]]
        subprocess.run(command, check=True)
        return read(answer)


def measure_fairly(group: str, stored: Sequence[Figure], *, full: bool) -> list[Figure]:
    """The figures of `group`; measured again while something in it seems worse than it was, and the best of each."""
    figures = measure_apart(group, full=full)
    for _ in range(AGAIN):
        if not worse(before=stored, now=figures):
            break
        print(f"{group} again: something in it seems worse", file=sys.stderr, flush=True)
        again = {figure.name: figure for figure in measure_apart(group, full=full)}
        figures = [better(figure, again[figure.name]) for figure in figures]
    return figures


def middle(group: str, *, full: bool) -> list[Figure]:
    """The figures of `group` measured three times: the middle one of each, for a lucky one would make all others worse."""
    turns = [measure_apart(group, full=full) for _ in range(3)]
    return [sorted(each, key=lambda figure: figure.value)[1] for each in zip(*turns, strict=True)]


def read(path: Path) -> list[Figure]:
    """The figures stored at `path`; none if there is no such file."""
    return [Figure(**values) for values in json.loads(path.read_text())["figures"]] if path.exists() else []


def write(path: Path, figures: Sequence[Figure], *, full: bool) -> None:
    """Store `figures` at `path`, where they were made, and when."""
    about = {"full": full, "python": sys.version.split()[0], "cores": os.cpu_count(), "date": time.strftime("%Y-%m-%d")}
    path.write_text(json.dumps({**about, "figures": [figure.to_dict() for figure in figures]}, indent=1) + "\n")


def stored_figures(*, full: bool) -> list[Figure]:
    """What was stored, if it was measured in the same sizes."""
    if STORED.exists() and json.loads(STORED.read_text())["full"] == full:
        return read(STORED)
    return []


def main() -> int:
    """Measure, print, compare; 1 if a figure got worse than it was stored."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="larger sizes, more rounds")
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(GROUPS), help="only these groups")
    parser.add_argument("--store", action="store_true", help=f"write the figures to {STORED.name}, to be compared with")
    parser.add_argument("--group", choices=ALL, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        write(options.answer, ALL[options.group](not options.full), full=options.full)
        return 0

    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {disk_of(Path(tempfile.gettempdir()))}\n")
    stored, figures = stored_figures(full=options.full), list[Figure]()
    for group in options.only:
        measured = (
            middle(group, full=options.full) if options.store else measure_fairly(group, stored, full=options.full)
        )
        print(table(measured, header=not figures), flush=True)
        figures += measured
    print()
    if options.store:
        kept = {figure.name: figure for figure in stored} | {figure.name: figure for figure in figures}
        write(STORED, list(kept.values()), full=options.full)
        return 0
    lines = worse(before=stored, now=figures)
    print("\n".join(lines) or f"nothing is more than {WORSE} x worse than in {STORED.name}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
