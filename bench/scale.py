"""What a call costs as a repository grows, and what very many points need: minutes to an hour, all through the public API.

    python bench/scale.py [--small] [--only PART ...]

Prints a table for each part and stores it in `bench/scale.json`; docs/scale.md says what the figures mean. Unlike those
of ratios.py they are of one side only, in ms unless the name says otherwise: compare rows, not machines.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import growth
import memory
from growth import Row
from scratch import disk_of

STORED = Path(__file__).with_name("scale.json")


def grown(small: bool) -> list[Row]:
    """A repository that fills with experiments."""
    return asyncio.run(growth.grow([10, 100, 1_000] if small else [10, 1_000, 10_000, 30_000, 100_000]))


def trees(small: bool) -> list[Row]:
    """Repositories of many files."""
    return asyncio.run(growth.trees([10, 1_000] if small else [10, 1_000, 10_000, 50_000]))


def turns(small: bool) -> list[Row]:
    """A thousand experiments that log by turns, and the same one after the other."""
    return [filled(100 if small else 1_000, 1_000 if small else 10_000, together=each) for each in (True, False)]


def points(small: bool) -> list[Row]:
    """A hundred million points in a thousand open experiments, all of them saved."""
    return [filled(100, 2_000) if small else filled(1_000, 100_000)]


def filled(experiments: int, each: int, *, together: bool = True) -> Row:
    """What it takes to log and save so many, in a process of its own: for its memory."""
    command = [sys.executable, memory.__file__, str(experiments), str(each), *["apart"][together:]]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"by turns": float(together), **json.loads(told)}


PARTS: Mapping[str, Callable[[bool], list[Row]]] = {"growth": grown, "trees": trees, "turns": turns, "points": points}


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown, a column each."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[name, *(figure(row.get(name)) for row in rows)] for name in names]
    lines.insert(1, ["---", *("---:" for _ in rows)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: float | None) -> str:
    """A number with three digits or more; empty for none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def store(part: str, rows: Sequence[Row]) -> None:
    """Put the figures of a part beside those of the others."""
    kept = json.loads(STORED.read_text()) if STORED.exists() else {}
    kept[part] = {
        "date": time.strftime("%Y-%m-%d"),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
        "rows": rows,
    }
    STORED.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a hundredth of the sizes; nothing is stored")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="only these parts")
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {disk_of(Path(tempfile.gettempdir()))}")
    for part in options.only:
        rows = PARTS[part](options.small)
        print(f"\n{part}\n\n{table(rows)}", flush=True)
        if not options.small:
            store(part, rows)


if __name__ == "__main__":
    main()
