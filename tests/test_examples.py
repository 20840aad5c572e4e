"""The examples run, each as a process of its own, and end well."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
DAEMONS = {"daemon.py"}
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("[!_]*.py") if path.name not in DAEMONS)
LIMIT = 240  # seconds


@contextmanager
def running(name: str, *arguments: Path, cwd: Path) -> Iterator["subprocess.Popen[str]"]:
    """An example as a process; it does not outlive the block."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_an_experiment(path: Path, git: Callable[..., str]) -> None:
    """Wait until an experiment is saved and the next one, which takes a second, is under way."""
    while not git("for-each-ref", "refs/exps", cwd=path):  # the time limit of the test ends it
        time.sleep(0.05)
    time.sleep(0.4)


@pytest.mark.timeout(LIMIT + 10)
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    """An example that is run without arguments makes what it needs, ends with 0 and leaves nothing where it stands."""
    with running(name, cwd=tmp_path) as example:
        said, _ = example.communicate(timeout=LIMIT)

    assert example.returncode == 0, said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(DAEMONS))
def test_a_daemon_saves_what_it_runs_before_it_ends(name: str, repo_path: Path, git: Callable[..., str]) -> None:
    """A daemon that is told to end saves the experiment it is in, ends with 0, and Git holds all that it says."""
    with running(name, repo_path, cwd=repo_path.parent) as daemon:
        assert daemon.stdout is not None
        first = daemon.stdout.readline()
        wait_for_an_experiment(repo_path, git)
        daemon.send_signal(signal.SIGTERM)
        said, _ = daemon.communicate(timeout=30)
    refs = git("for-each-ref", "refs/exps", cwd=repo_path).splitlines()
    counted = re.search(r"(\d+) of (\d+) experiments saved", said)

    assert daemon.returncode == 0, first + said
    assert counted is not None, first + said
    assert int(counted[1]) == int(counted[2]) == len(refs)
