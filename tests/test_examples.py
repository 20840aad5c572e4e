"""The examples run, each as a process of its own, and end well."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

import aexp

EXAMPLES = Path(__file__).parent.parent / "examples"
DAEMONS = {"daemon.py"}
WITH_DVC = {"pipeline_sweep.py"}
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
    if name in WITH_DVC and find_spec("dvc") is None:
        pytest.skip("NO PIPELINE: install dvc, and its sweep is run")
    with running(name, cwd=tmp_path) as example:
        said, _ = example.communicate(timeout=LIMIT)

    assert example.returncode == 0, said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(DAEMONS))
async def test_a_daemon_leaves_nothing_unsaved(name: str, repo_path: Path, git: Callable[..., str]) -> None:
    """A daemon that is told to end saves the experiment it is in as cancelled, and ends with 0."""
    with running(name, repo_path, cwd=repo_path.parent) as daemon:
        wait_for_an_experiment(repo_path, git)
        daemon.send_signal(signal.SIGTERM)
        said, _ = daemon.communicate(timeout=30)
    async with aexp.Repository(repo_path) as repository:
        interrupted = await repository.interrupted()
        statuses = {record.status for record in await repository.experiments()}

    assert daemon.returncode == 0, said
    assert not interrupted
    assert statuses == {aexp.Status.FINISHED, aexp.Status.CANCELLED}
