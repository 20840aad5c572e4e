"""The journal on a disk that works: what was accepted is in it, whatever becomes of the process."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

import aexp
from aexp._formats.journal import Kind
from aexp._formats.series import Points, collect
from aexp._sessions import read_extents, read_ledger

PROGRAM = """
import asyncio, atexit, os, subprocess, sys, threading, time
from pathlib import Path
import aexp

async def main():
    repository = await aexp.Repository(sys.argv[1]).open()
    experiment = await repository.experiment("it", code="none").init()
BODY

asyncio.run(main())
"""


def program(body: str, *arguments: object) -> list[str]:
    """The command that does *body* to an experiment of an open repository that is never closed."""
    source = PROGRAM.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
    return [sys.executable, "-c", source, *map(str, arguments)]


def run(command: list[str], end: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run the command to its *end*."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == end, done.stderr
    return done


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    while not condition():
        time.sleep(0.01)


def segments(repo_path: Path) -> list[Path]:
    """The files of the journal of the one session."""
    return list(repo_path.glob(".git/aexp/sessions/*/journal-*.log"))


def logged(repo_path: Path) -> dict[str, Points]:
    """The points in the journal of the one session, of all experiments together."""
    (path,) = repo_path.glob(".git/aexp/*/*/owner.lock")
    folder, id = str(path.parent), path.parent.name
    points: dict[str, Points] = {}
    for number, extents in read_ledger(folder, id).extents.items():
        records = read_extents(folder, id, extents, number, None)
        collect((payload[1] for kind, payload in records if kind == Kind.POINTS), points)
    return points


def recovered(repo_path: Path) -> "array[int]":
    """The steps of the points of the one experiment that was interrupted."""

    async def recover() -> "array[int]":
        async with aexp.Repository(repo_path) as repository:
            (record,) = await repository.recover()
            assert record.status is aexp.Status.INTERRUPTED
            assert await repository.interrupted() == []
            return (await repository.history(record.name, "loss"))["loss"].steps

    return asyncio.run(recover())


# ---- a healthy process ----


async def test_a_million_points_come_back(repository: aexp.Repository, repo_path: Path) -> None:
    """A loop that logs a million points without ever giving way to anybody has them all in the journal, exact and in order."""
    experiment = await repository.experiment("it", code="none").init()
    for step in range(1_000_000):
        await experiment.log_metric("loss", step / 7, step)
    await experiment.flush()
    points = logged(repo_path)["loss"]

    assert points.steps == list(range(1_000_000))
    assert points.values == [step / 7 for step in range(1_000_000)]
    await experiment.discard()


async def test_what_is_flushed_stands_in_a_file(repository: aexp.Repository, repo_path: Path) -> None:
    """When `flush()` returns, another process finds every point that was logged before in the files of the journal."""
    experiment = await repository.experiment("it", code="none").init()
    for step in range(0, 3000, 1000):
        for each in range(step, step + 1000):
            await experiment.log_metric("loss", each, each)
        await experiment.flush()
        found = await asyncio.to_thread(run, ["grep", "-rho", f"{step + 999}]", str(repo_path / ".git" / "aexp")])
        assert len(found.stdout.splitlines()) == 2  # the last step, and the last value
    await experiment.discard()


async def test_many_small_files_are_one_journal(repo_path: Path) -> None:
    """A journal that goes on in a new file at every kilobyte loses nothing and mixes up no experiments."""
    settings = aexp.Settings(segment_size=1000)
    async with aexp.Repository(repo_path, settings=settings) as repository:
        experiments = [await repository.experiment(f"it-{n}", code="none").init() for n in range(20)]
        for step in range(200):
            for n, experiment in enumerate(experiments):
                await experiment.log_metric(f"loss/{n}", n + step / 7, step)
            if step % 5 == 4:
                await experiments[step % 20].flush()
        files = len(segments(repo_path))
        points = logged(repo_path)
        await asyncio.gather(*(experiment.save() for experiment in experiments))
        histories = [await repository.history(f"it-{n}") for n in range(20)]

    assert files >= 40
    assert {name: each.steps for name, each in points.items()} == {f"loss/{n}": list(range(200)) for n in range(20)}
    for n, history in enumerate(histories):
        assert history.keys() == {f"loss/{n}"}
        assert list(history[f"loss/{n}"].values) == [n + step / 7 for step in range(200)]


async def test_closing_beside_others_hangs_nobody(repo_path: Path) -> None:
    """When a repository is closed while tasks log and flush, each of them ends, and all that was accepted is in the journal."""
    accepted = [0] * 50

    async def log(n: int, experiment: aexp.Experiment) -> None:
        while True:
            await experiment.log_metric("loss", n, n)
            accepted[n] += 1
            await experiment.flush()

    repository = await aexp.Repository(repo_path, settings=aexp.Settings(queue_capacity=20)).open()
    experiment = await repository.experiment("it", code="none").init()
    tasks = [asyncio.create_task(log(n, experiment)) for n in range(50)]
    await asyncio.sleep(0.2)
    await repository.aclose()
    ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    steps = logged(repo_path)["loss"].steps

    assert {type(end) for end in ends} == {aexp.RepositoryClosed}
    assert [steps.count(n) for n in range(50)] == accepted
    with pytest.raises(aexp.RepositoryClosed):
        experiment.log_metric_nowait("loss", 1.0)


def test_memory_does_not_grow_with_the_points(repo_path: Path) -> None:
    """After three million points that are flushed, a process is hardly larger than before."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("THE MEMORY IS NOT MEASURED: this system does not tell its size in /proc")
    body = """
    def size():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = size()
    for step in range(3_000_000):
        await experiment.log_metric("loss", 0.5, step)
    await experiment.flush()
    grown = size() - before
    await experiment.discard()
    await repository.aclose()
    print(grown)
    """
    assert int(run(program(body, repo_path)).stdout) < 60 * 2**20


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_many_experiments_with_many_points_fit_into_little_memory(repo_path: Path) -> None:
    """300 open experiments take 3 million points by turns and are all saved, in less than 300 MB; each point is there."""
    if not Path("/proc/self/status").exists():
        pytest.skip("THE MEMORY IS NOT MEASURED: this system does not tell its size in /proc")
    body = """
    await experiment.discard()
    held = [await repository.experiment(f"e-{number}", code="none").init() for number in range(300)]
    for first in range(0, 10_000, 20):
        for number, experiment in enumerate(held):
            for step in range(first, first + 20):
                await experiment.log_metric("loss", number / (step + 1), step)
        await asyncio.sleep(0)
    await asyncio.gather(*(experiment.save() for experiment in held))
    for number in range(0, 300, 13):
        series = (await repository.history(f"e-{number}"))["loss"]
        assert list(series.values) == [number / (step + 1) for step in range(10_000)]
    await repository.aclose()
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    """
    done = subprocess.run(program(body, repo_path), capture_output=True, text=True, timeout=400, check=True)
    assert int(done.stdout) * 1024 < 300e6


# ---- the end of a process ----


@pytest.mark.faults
def test_a_killed_process_loses_a_moment(repo_path: Path) -> None:
    """A program that logs without ever giving way, and is killed, has lost at most the last 0.3 seconds, and nothing before."""
    body = """
    step = 0
    while True:
        experiment.log_metric_nowait("loss", time.time(), step)
        step += 1
        for _ in range(2000):
            pass
    """
    with subprocess.Popen(program(body, repo_path)) as process:
        wait_until(lambda: bool(segments(repo_path)))
        time.sleep(1)
        end = time.time()
        process.kill()
    points = logged(repo_path)["loss"]

    assert points.steps == list(range(len(points.steps)))
    assert points.values[-1] > end - 0.3
    assert recovered(repo_path) == array("q", points.steps)


ENDINGS = {
    "the script ends": ("pass", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError('the model diverged')", 1),
    "the loop is stopped": ("asyncio.get_running_loop().stop()\nawait asyncio.sleep(9)", 1),
}


@pytest.mark.faults
@pytest.mark.parametrize(("ending", "code"), ENDINGS.values(), ids=ENDINGS)
def test_an_interpreter_that_ends_writes_the_rest(repo_path: Path, ending: str, code: int) -> None:
    """However a script ends that never closes its repository, every point it logged is in the journal, and recovered."""
    body = f"for step in range(50_000):\n    await experiment.log_metric('loss', step, step)\n{ending}"
    done = run(program(body, repo_path), code)

    assert "aexp" not in done.stderr
    assert recovered(repo_path) == array("q", range(50_000))


@pytest.mark.faults
def test_a_thread_may_outlive_the_script(repo_path: Path) -> None:
    """Points that a thread logs after the script's last line are in the journal, too."""
    body = """
    def log():
        for step in range(100):
            experiment.log_metric_nowait("loss", step, step)
            time.sleep(0.005)
    threading.Thread(target=log).start()
    """
    run(program(body, repo_path))

    assert recovered(repo_path) == array("q", range(100))


LOOK = """
import aexp, asyncio, sys

async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        assert await repository.interrupted() == [], "the session was unlocked"

asyncio.run(main())
"""


@pytest.mark.faults
def test_a_forked_child_is_told_and_harms_nobody(repo_path: Path) -> None:
    """A forked child cannot log; when it ends, its parent still holds the session, logs on and saves."""
    body = """
    await experiment.log_metric("loss", 0, 0)
    child = os.fork()
    if child == 0:
        told = 0
        for call in (lambda: experiment.log_metric_nowait("loss", 1), lambda: experiment.log_metrics_nowait({"b": 1}),
                     experiment.next_step, lambda: experiment.log_metric("loss", 1).send(None)):
            try:
                call()
            except aexp.ForkedError:
                told += 1
        atexit._run_exitfuncs()
        os._exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], check=True)
    await experiment.log_metric("loss", 1, 1)
    await experiment.save()
    await repository.aclose()
    """
    run(program(body, repo_path, LOOK))

    assert logged(repo_path).keys() == {"loss"}
    assert logged(repo_path)["loss"].steps == [0, 1]


@pytest.mark.faults
def test_a_forked_child_does_not_keep_a_dead_session_alive(repo_path: Path, tmp_path: Path) -> None:
    """When a process is killed whose forked child lives on, its experiment can be recovered at once."""
    body = """
    for step in range(1000):
        await experiment.log_metric("loss", step, step)
    await experiment.flush()
    child = os.fork()
    if child:
        Path(sys.argv[2]).write_text(f"{child}\\n")
    time.sleep(30)
    """
    place = tmp_path / "child"
    with subprocess.Popen(program(body, repo_path, place)) as process:
        wait_until(lambda: place.exists() and place.read_text().endswith("\n"))
        process.kill()
    child = int(place.read_text())
    try:
        os.kill(child, 0)  # it is there
        steps = recovered(repo_path)
    finally:
        os.kill(child, signal.SIGKILL)

    assert steps == array("q", range(1000))
