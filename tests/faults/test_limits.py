"""Limits of the machine: no descriptors, a slow disk, a full one, one that turns read-only, a pid that is used again."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import aexp

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PRELUDE = """
import asyncio, ctypes, json, os, resource, shutil, subprocess, sys, time
from pathlib import Path
import aexp

path = sys.argv[1]

async def refused(call, *kinds):
    try:
        await call()
    except kinds as error:
        return error
    raise AssertionError(f"nothing was raised of {kinds}")

def said(*words):
    print(json.dumps(words), flush=True)

async def main():
BODY

asyncio.run(main())
"""
TMPFS = 'mount -t tmpfs -o "size=$1" none "$2" && cp -a "$3" "$2/repository" && shift 3 && exec "$@"'


def tell(path: Path, body: str, before: tuple[str, ...] = (), **variables: str) -> list[list[object]]:
    """Run *body* in a process of its own, on the repository at *path*; return what it said."""
    source = PRELUDE.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
    command = [*before, sys.executable, "-W", "error", "-c", source, str(path)]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def small_disk(size: str, template: Path, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """Return a repository on a disk in memory of that *size*, and what a command needs before it to see that."""
    place = tmp_path / "small"
    place.mkdir()
    prefix = ["unshare", *(["--map-root-user"] if os.geteuid() else []), "--mount", "sh", "-c", TMPFS, "sh"]
    before = (*prefix, size, str(place), str(template))
    if (
        shutil.which("unshare") is None
        or subprocess.run([*before, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("NO FULL DISK IS TESTED: this system does not let us mount a small one")
    return place / "repository", before


def test_without_descriptors_nothing_is_missing(repo_path: Path, saved: object) -> None:
    """However few descriptors are left: the list is whole or `TooManyOpenFiles` is raised, by every call; then all works."""
    body = """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    async with aexp.Repository(path) as repository:
        for name in ("a", "b"):
            async with repository.experiment(name) as experiment:
                await experiment.log_metric("loss", 0.5)
        async with repository.experiment("held", code="none") as held:
            await held.log_metric("loss", 1.0)
            await held.flush()
            used = max(int(each) for each in os.listdir("/proc/self/fd"))
            failed = 0
            for room in range(24):
                for fresh in (False, True):
                    resource.setrlimit(resource.RLIMIT_NOFILE, (used - 4 + room, hard))
                    try:
                        if fresh:
                            async with aexp.Repository(path) as other:
                                records = await other.experiments()
                        else:
                            records = await repository.experiments()
                            await repository.history("a")
                            await held.log_metric("loss", 2.0)
                            await held.make_checkpoint()
                        assert {"a", "b"} <= {record.name for record in records}, records
                        assert not [record for record in records if record.damaged], records
                    except aexp.TooManyOpenFiles as error:
                        failed += 1
                    finally:
                        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                    assert [r.name for r in await repository.experiments() if not r.damaged][:2] == ["a", "b"]
            said(failed)
        said(sorted(record.name for record in await repository.experiments()))
    """
    (failed,), (names,) = tell(repo_path, body)
    assert isinstance(failed, int)
    assert failed > 5
    assert names == ["a", "b", "held"]


def test_the_loop_does_not_feel_a_slow_disk(repo_path: Path, killer: Path) -> None:
    """With syncs of 200 ms the loop beats on while points are logged, flushed, committed and saved: no gap of 50 ms."""
    body = """
    gaps = []
    async def beat():
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            gaps.append((now - last, os.times()))
            last = now
    async with aexp.Repository(path) as repository:
        async with repository.experiment("warm") as experiment:
            await experiment.log_metric("loss", 0.0)
        killer = ctypes.CDLL(None)
        killer.killer_arm(os.fsencode(path), b"", ctypes.c_long(0), 0, 9)
        killer.killer_slow(200_000)
        heart = asyncio.create_task(beat())
        began = time.perf_counter()
        async with repository.experiment("slow") as experiment:
            for step in range(200):
                await experiment.log_metric("loss", float(step), step)
                await asyncio.sleep(0.001)
            await experiment.flush()
            await experiment.make_checkpoint()
        took = time.perf_counter() - began
        heart.cancel()
    lengths = sorted(gap for gap, _ in gaps)
    said(took, lengths[-1], lengths[len(lengths) * 99 // 100])
    """
    best = 1.0
    for _ in range(4):  # on a machine with other work a process may get no turn for as long
        shutil.copytree(repo_path, again := repo_path.parent / "again")
        ((took, longest, most),) = tell(again, body, LD_PRELOAD=str(killer))
        shutil.rmtree(again)
        assert isinstance(took, float)
        assert took > 1.5, "the syncs were not slow"
        assert isinstance(longest, float)
        best = min(best, longest)
        if best < 0.05:
            break
    assert best < 0.05, f"the loop stood still for {best:.3f} s ({most} at 99 %)"


def test_a_producer_that_is_faster_than_the_disk_waits(repo_path: Path, killer: Path) -> None:
    """A million points on a disk whose syncs take 200 ms need no 64 MB, and every one of them is there."""
    body = """
    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    async with aexp.Repository(path, settings=aexp.Settings(queue_capacity=20_000, sync_interval=0.1)) as repository:
        killer = ctypes.CDLL(None)
        killer.killer_arm(os.fsencode(path), b"", ctypes.c_long(0), 0, 9)
        killer.killer_slow(200_000)
        experiment = await repository.experiment("fast").init()
        await experiment.log_metric("loss", 0.0, 0)
        await experiment.flush()
        before, most = resident(), 0
        for step in range(1, 1_000_000):
            await experiment.log_metric("loss", step / 7, step)
            if step % 20_000 == 0:
                most = max(most, resident() - before)
        await experiment.flush()
        said(most)
        killer.killer_slow(0)
        await experiment.save()
        said(len((await repository.history("fast", "loss"))["loss"]))
    """
    (grown,), (count,) = tell(repo_path, body, LD_PRELOAD=str(killer))
    assert isinstance(grown, int)
    assert grown < 64 * 2**20, f"{grown / 2**20:.0f} MB"
    assert count == 1_000_000


def test_a_save_on_a_full_disk_is_refused_and_done_again(template: Path, tmp_path: Path) -> None:
    """On a full disk `save` raises `DiskFull` and leaves Git content; with room again it saves, once, with all points."""
    path, before = small_disk("6m", template, tmp_path)
    body = """
    async with aexp.Repository(path) as repository:
        experiment = await repository.experiment("it").init()
        for step in range(100):
            await experiment.log_metric("loss", float(step), step)
        await experiment.flush()
        with open(f"{path}/ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                pass
        for step in range(100, 200):
            await experiment.log_metric("loss", float(step), step)
        for _ in range(2):
            error = await refused(experiment.save, aexp.DiskFull)
            assert error.errno == 28 and "free" in str(error), error
            assert subprocess.run(["git", "fsck", "--full", "--strict"], cwd=path, capture_output=True).returncode == 0
        os.unlink(f"{path}/ballast")
        record = await experiment.save()
        said(len((await repository.history("it"))["loss"]))
        refs = subprocess.run(["git", "for-each-ref", "refs/exps"], cwd=path, capture_output=True, text=True).stdout
        said(refs.splitlines(), record.rev)
    """
    (count,), (refs, rev) = tell(path, body, before)
    assert count == 200
    assert isinstance(refs, list)
    assert isinstance(rev, str)
    assert len(refs) == 1
    assert refs[0].startswith(rev)


def test_closing_on_a_full_disk_says_what_is_lost(template: Path, tmp_path: Path) -> None:
    """A repository that is closed on a full disk waits, then says how many points are lost; those before come back."""
    path, before = small_disk("6m", template, tmp_path)
    body = """
    repository = await aexp.Repository(path, settings=aexp.Settings(close_timeout=0.5)).open()
    experiment = await repository.experiment("it").init()
    await experiment.log_metric("loss", 0.0, 0)
    await experiment.flush()
    ballast = open(f"{path}/ballast", "wb", buffering=0)
    try:
        while True:
            ballast.write(bytes(512))
    except OSError:
        pass
    for step in range(1, 20_000):
        await experiment.log_metric("loss", step / 7, step)
    error = await refused(repository.aclose, aexp.PointsLost)
    os.unlink(f"{path}/ballast")
    ballast.close()
    async with aexp.Repository(path) as other:
        (record,) = await other.recover()
        kept = list((await other.history("it"))["loss"].steps)
    assert kept == list(range(len(kept)))
    said(error.count + len(kept), error.errno, str(error))
    """
    ((count, number, words),) = tell(path, body, before)
    assert (count, number) == (20_000, 28)
    assert "lost" in str(words)


HOLDER = """
import asyncio, sys
import aexp

async def main(path):
    repository = await aexp.Repository(path).open()
    for name in sys.argv[2:]:
        experiment = await repository.experiment(name).init()
        for step in range(10):
            await experiment.log_metric("loss", step * 0.5, step)
    await experiment.flush()
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(sys.argv[1]))
"""


def left_by_the_dead(path: Path, *names: str) -> int:
    """Let a process begin experiments and be killed; return its pid."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, path, *names], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    return process.pid


async def resumed(path: Path, name: str) -> dict[str, float]:
    """Take an experiment over, and return its summary."""
    async with aexp.Repository(path) as repository:
        return dict((await repository.resume(name)).summary)


def test_a_pid_that_is_used_again_keeps_nothing(repo_path: Path) -> None:
    """When another program gets the pid of a dead owner, its experiment can be resumed all the same."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip("NO PID IS USED AGAIN: this needs root, to choose the next one")
    pid = left_by_the_dead(repo_path, "held")
    for _ in range(200):
        last.write_text(str(pid - 1))
        with subprocess.Popen(["sleep", "30"]) as other:
            try:
                if other.pid == pid:
                    assert asyncio.run(resumed(repo_path, "held")) == {"loss": 4.5}
                    return
            finally:
                other.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    pytest.skip("NO PID WAS USED AGAIN: other programs were faster")


async def test_of_many_recoverers_each_experiment_has_one(repo_path: Path, fsck: Callable[[Path], None]) -> None:
    """Ten experiments of three dead programs are recovered by four programs at once: each by one of them, whole."""
    names = [f"e{number}" for number in range(10)]
    for some in (names[:4], names[4:7], names[7:]):
        left_by_the_dead(repo_path, *some)
    body = """
    async with aexp.Repository(path) as repository:
        said([record.name for record in await repository.recover()])
    """
    source = PRELUDE.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", source, repo_path, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    told = [json.loads((await process.communicate())[0])[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(name for each in told for name in each) == names
    async with aexp.Repository(repo_path) as repository:
        for record in await repository.experiments():
            assert len((await repository.history(record.name))["loss"]) == 10
        assert len(await repository.experiments()) == 10
    fsck(repo_path)
