"""Figures of `import aexp`."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from figures import Figure

import aexp

STATEMENTS = {
    "start": "pass",
    "ours": "import aexp",
    "bare": "import anyio, aiofiles, pygit2, attrs, orjson",
}


def seconds(statement: str) -> float:
    """The wall time of a fresh interpreter that runs `statement`."""
    environment = os.environ | {"PYTHONPATH": str(Path(aexp.__file__).parents[1])}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # the others were compiled when they were installed
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    return time.perf_counter() - start


def measure(quick: bool) -> list[Figure]:
    """Fresh processes by turns; the start of the interpreter is subtracted from both sides."""
    rounds = [{name: seconds(statement) for name, statement in STATEMENTS.items()} for _ in range(6 if quick else 22)]
    start, ours, bare = (statistics.median(times[name] for times in rounds[1:]) * 1000 for name in STATEMENTS)
    ratio = (ours - start) / (bare - start)
    return [Figure("import aexp", ours - start, "ms", bare - start, ratio, at_most=1.5)]
