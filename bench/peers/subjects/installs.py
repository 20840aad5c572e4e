"""What an installation brings, and what an import takes."""

import os
import statistics
import subprocess
import sys
import time
from importlib.metadata import distributions

from subjects.job import Case, Job, Measures

ROUNDS = 9
RESIDENT = "import os; print(int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE'))"


def cases(quick: bool) -> list[Case]:
    """There is one."""
    return [{}]


def left_out(peer: str, case: Case) -> str | None:
    """Why this is not measured: these are of one installation with others."""
    return "" if peer in {"plain", "mlflow_batches", "dvclive_apart"} else None


def run(statement: str) -> tuple[float, int]:
    """Seconds of a fresh interpreter, and the bytes that it holds."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", f"{statement}\n{RESIDENT}"]
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, int(done.stdout.split()[-1])


async def measure(job: Job) -> Measures:
    """Packages and their size without compiled bytecode; the import beside a bare interpreter, by turns."""
    kinds = {"bare": "pass", "import": f"import {job.imports}"}
    run(kinds["import"])
    rounds = [{kind: run(statement) for kind, statement in kinds.items()} for _ in range(ROUNDS)]
    seconds, memory = ([each["import"][place] - each["bare"][place] for each in rounds] for place in (0, 1))
    packages = [package for package in distributions() if package.name not in {"pip", "setuptools", "wheel"}]
    files = [file.locate() for package in packages for file in package.files or [] if file.suffix != ".pyc"]
    size = sum(os.path.getsize(path) for path in files if os.path.isfile(path))
    return {
        "packages": len({package.name for package in packages}),
        "size_bytes": size,
        "import_ms": statistics.median(seconds) * 1000,
        "memory_bytes": statistics.median(memory),
    }
