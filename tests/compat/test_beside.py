"""Programs that save through aexp while DVC saves, removes, collects garbage and lists in the same repository."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import aexp

Tool = Callable[..., Any]
pytestmark = [pytest.mark.races, pytest.mark.timeout(240)]

SAVER = """\
import asyncio, sys
import aexp

async def main(number, count):
    async with aexp.Repository(".") as repository:
        for turn in range(count):
            async with repository.experiment(f"p{number}-{turn}", params={"number": number, "turn": turn}) as experiment:
                for step in range(5):
                    await experiment.log_metric("loss", number + turn / 100 + step / 1000, step)
                if turn % 3 == 0:
                    await experiment.make_checkpoint()
                await experiment.log_file("notes.txt", f"{number} {turn}")
            print(experiment.record.name, experiment.record.rev, flush=True)
            await asyncio.sleep(0.05)

asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
"""


@contextmanager
def savers(path: Path, processes: int, count: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Start programs that save *count* experiments each; at the end each must have ended well."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SAVER, str(number), str(count)], cwd=path, stdout=subprocess.PIPE, text=True
        )
        for number in range(processes)
    ]
    try:
        yield started
    finally:
        for each in started:
            each.kill()
            each.wait()


async def check(path: Path, acknowledged: dict[str, str], dvc: Tool, fsck: Tool) -> None:
    """All that was acknowledged is there, whole, for aexp, for DVC and for Git."""
    async with aexp.Repository(path) as repository:
        records = {record.name: record for record in await repository.experiments()}
        for name, rev in acknowledged.items():
            number, turn = map(int, name[1:].split("-"))
            record = records[name]
            assert (record.rev, record.damaged) == (rev, None)
            assert (record.params["number"], record.params["turn"]) == (number, turn)
            assert list((await repository.history(name, "loss"))["loss"].values) == [
                number + turn / 100 + step / 1000 for step in range(5)
            ]
            assert await repository.read(name, "notes.txt") == f"{number} {turn}".encode()
        assert await repository.interrupted() == []
    assert set(acknowledged) <= set(dvc("exp", "list", "--name-only", cwd=path).out.split())
    fsck(path)


async def test_nothing_is_lost_beside_dvc(repo_path: Path, dvc: Tool, git: Tool, fsck: Tool) -> None:
    """Four programs save while `dvc exp save`, `remove`, `gc` and `list` run over and over: nothing is lost or hidden."""
    (repo_path / "params.yaml").write_text("lr: 1\n")  # something for `dvc exp save` to stash
    head = git("rev-parse", "HEAD", cwd=repo_path)
    rounds = 0
    with savers(repo_path, 4, 12) as started:
        while any(each.poll() is None for each in started) or rounds < 2:
            rounds += 1
            dvc("exp", "save", "-n", f"theirs-{rounds}", cwd=repo_path)
            dvc("exp", "list", cwd=repo_path)
            dvc("exp", "remove", f"theirs-{rounds}", cwd=repo_path)
            dvc("gc", "--all-experiments", "-w", "--force", cwd=repo_path)
        said = [each.communicate() for each in started]
        assert [each.returncode for each in started] == [0] * 4
    acknowledged = dict(line.split() for out, _ in said for line in out.splitlines())
    assert len(acknowledged) == 4 * 12
    await check(repo_path, acknowledged, dvc, fsck)
    assert git("symbolic-ref", "HEAD", cwd=repo_path) == "refs/heads/main"
    assert git("rev-parse", "HEAD", cwd=repo_path) == head
    assert (repo_path / "params.yaml").read_text() == "lr: 1\n"


async def test_the_users_index_is_intact(repo_path: Path, dvc: Tool, git: Tool, fsck: Tool) -> None:
    """Beside programs that save, and DVC that lists, shows and collects, a staged state stays byte by byte."""
    (repo_path / "train.py").write_text("lr = 0.5\n")
    (repo_path / "new.txt").write_text("new\n")
    git("add", ".", cwd=repo_path)
    (repo_path / "train.py").write_text("lr = 0.6\n")
    git("status", cwd=repo_path)
    before = [(repo_path / ".git" / name).read_bytes() for name in ("index", "HEAD", "logs/HEAD")]
    with savers(repo_path, 2, 8) as started:
        while any(each.poll() is None for each in started):
            dvc("exp", "list", cwd=repo_path)
            dvc("exp", "show", "--json", cwd=repo_path)
            dvc("gc", "--all-experiments", "-w", "--force", cwd=repo_path)
        said = [each.communicate() for each in started]
        assert [each.returncode for each in started] == [0, 0]
    acknowledged = dict(line.split() for out, _ in said for line in out.splitlines())
    assert [(repo_path / ".git" / name).read_bytes() for name in ("index", "HEAD", "logs/HEAD")] == before
    await check(repo_path, acknowledged, dvc, fsck)


async def test_saves_during_a_run_of_dvc(repo_path: Path, dvc: Tool, git: Tool, fsck: Tool) -> None:
    """Check 71: while `dvc exp run` works with HEAD detached, others save; the run and their experiments are all there."""
    (repo_path / "dvc.yaml").write_text(
        f"stages:\n  slow:\n    cmd: {sys.executable} -c \"import time; time.sleep(2); open('m.json', 'w').write('{{}}')\"\n"
        "    metrics: [m.json: {cache: false}]\n"
    )
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "slow", cwd=repo_path)
    head = git("rev-parse", "HEAD", cwd=repo_path)
    run = subprocess.Popen(["dvc", "exp", "run", "-n", "run"], cwd=repo_path, stdout=subprocess.DEVNULL)  # noqa: ASYNC220
    with savers(repo_path, 2, 6) as started:
        said = [each.communicate() for each in started]
        assert [each.returncode for each in started] == [0, 0]
    assert run.wait(timeout=60) == 0
    acknowledged = dict(line.split() for out, _ in said for line in out.splitlines())
    await check(repo_path, acknowledged, dvc, fsck)
    assert "run" in dvc("exp", "list", "--name-only", cwd=repo_path).out.split()
    assert git("rev-parse", "HEAD", cwd=repo_path) == head
    assert git("symbolic-ref", "HEAD", cwd=repo_path) == "refs/heads/main"


async def test_tables_while_a_sweep_saves(repo_path: Path, rows: Tool) -> None:
    """`dvc exp show --json`, asked again and again during a sweep, never fails, and every row it has is whole."""
    end = time.monotonic() + 20
    with savers(repo_path, 2, 15) as started:
        while any(each.poll() is None for each in started) and time.monotonic() < end:
            for name, row in rows(repo_path).items():
                assert row["error"] is None, name
                assert row["data"]["metrics"]["aexp/metrics.json"]["data"]["step"] == 4
        for each in started:
            each.communicate()
            assert each.returncode == 0
    assert len(rows(repo_path)) == 30
