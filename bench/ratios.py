"""What aexp costs, as ratios to the bare work, measured in one run on one machine.

    python bench/ratios.py [--quick] [--only GROUP ...] [--store FILE] [--check]

Ours and the bare work alternate, and the median of the ratios of the rounds counts, so that a slow or noisy machine
slows both. Each group of figures runs in a process of its own. The targets are those of the project; a figure
that has grown by more than 1.3 x since `bench/stored.json` was written is named at the end. `--only remotes` needs minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
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
from figures import Figure, table, worse
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


def measure_apart(group: str, *, quick: bool) -> list[Figure]:
    """The figures of `group`, from a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "figures.json")
        command = [sys.executable, __file__, "--group", group, "--store", str(answer), *["--quick"][:quick]]
        subprocess.run(command, check=True)
        return read(answer)


def read(path: Path) -> list[Figure]:
    """The figures stored at `path`; none if there is no such file."""
    return [Figure(**values) for values in json.loads(path.read_text())["figures"]] if path.exists() else []


def write(path: Path, figures: Sequence[Figure], *, quick: bool) -> None:
    """Store `figures` at `path`."""
    path.write_text(json.dumps({"quick": quick, "figures": [figure.to_dict() for figure in figures]}, indent=1) + "\n")


def report(figures: Sequence[Figure]) -> bool:
    """Print what got worse since the stored run; True if something did."""
    lines = worse(before=read(STORED), now=figures)
    if STORED.exists():
        print("\n".join(lines) or "nothing is more than 1.3 x worse than stored.json")
    return bool(lines)


def main() -> int:
    """Measure, print, store, compare; 1 with `--check` if a figure misses its target or got worse."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--only", nargs="+", choices=ALL, default=list(GROUPS), help="only these groups")
    parser.add_argument("--store", type=Path, help="write the figures to this file, as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a figure is missed or got worse")
    parser.add_argument("--group", choices=ALL, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        write(options.store, ALL[options.group](options.quick), quick=options.quick)
        return 0

    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {disk_of(Path(tempfile.gettempdir()))}\n")
    figures: list[Figure] = []
    for group in options.only:
        measured = measure_apart(group, quick=options.quick)
        print(table(measured, header=not figures), flush=True)
        figures += measured
    print()
    if options.store:
        write(options.store, figures, quick=options.quick)
    got_worse = report(figures)
    return int(options.check and (got_worse or any(figure.ok is False for figure in figures)))


if __name__ == "__main__":
    sys.exit(main())
