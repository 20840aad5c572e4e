"""The benchmarks beside the peers can be run, and the page says what they stored."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PEERS = Path(__file__).parent.parent / "bench" / "peers"


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the benchmarks with this interpreter."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(PEERS / program), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_page_is_made_from_the_stored_figures() -> None:
    """docs/benchmarks.md and its plot show what bench/peers.json holds, and nothing else."""
    done = run("page.py", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)  # a process for each, in turn
def test_our_side_can_be_measured_with_what_is_installed_here(tmp_path: Path) -> None:
    """Logging, many runs at once, listing and a kill are measured, with no other environment than this one."""
    store = tmp_path / "figures.json"
    subjects = ["points", "many", "lists", "kills"]
    done = run("run.py", "--quick", "--peers", "aexp", "--only", *subjects, "--store", str(store))
    assert done.returncode == 0, done.stdout + done.stderr

    results = {each["subject"]: each["rounds"][0] for each in json.loads(store.read_text())["results"]}
    assert set(results) == set(subjects)
    assert max(results["many"]["threads_each"], results["many"]["descriptors_each"]) < 1
    assert 0 < results["kills"]["kept"] <= 500
    assert all(value >= 0 for measures in results.values() for name, value in measures.items() if name[-3:] == "_ms")
