"""Running experiments in the real `dvc exp show`: always readable, always moving, and nothing left behind."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

import aexp

Git = Callable[..., str]
Rows = dict[str, dict[str, Any]]
DVC = shutil.which("dvc", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
BOARD = Path(".dvc/tmp/exps/standalone/run")
OURS = Path(".dvc/tmp/aexp")

pytestmark = [
    pytest.mark.compat,
    pytest.mark.timeout(300),
    pytest.mark.skipif(DVC is None, reason="DVC IS NOT ASKED: install dvc to see what it shows"),
]


def run_dvc(path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the real dvc in the repository at *path*."""
    assert DVC is not None
    variables = os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(path.parent / "site")}
    return subprocess.run([DVC, *arguments], cwd=path, env=variables, capture_output=True, text=True, check=False)


def show(path: Path) -> Rows:
    """What `dvc exp show` says is running: name -> executor, and the data of its first revision."""
    done = run_dvc(path, "exp", "show", "--json")
    assert done.returncode == 0, done.stderr
    found: Rows = {}
    for baseline in json.loads(done.stdout):
        for row in baseline["experiments"] or []:
            if row["executor"] is not None:
                assert row["revs"][0]["error"] is None, row
                found[row["name"]] = row["executor"] | row["revs"][0]["data"]
    return found


async def shown(path: Path) -> Rows:
    """The same, beside a running event loop."""
    return await asyncio.to_thread(show, path)


async def shown_when(path: Path, names: set[str]) -> Rows:
    """What is shown once it is *names*, within a few seconds."""
    for _ in range(20):
        rows = await shown(path)
        if rows.keys() == names:
            return rows
        await asyncio.sleep(0.2)
    raise AssertionError(f"{sorted(rows)} are shown, not {sorted(names)}")


def loss(row: dict[str, Any]) -> float:
    """The last value of `loss` that is shown."""
    return float(row["metrics"]["aexp/metrics.json"]["data"]["loss"])


def left(path: Path) -> list[str]:
    """What of ours is left in the `.dvc` folder."""
    places = list((path / BOARD).iterdir()) if (path / BOARD).exists() else []
    return [place.name for place in places] + (["ours"] if (path / OURS).exists() else [])


def age(path: Path) -> None:
    """Let a minute pass for all that is shown as running."""
    for place in path.glob(".dvc/tmp/exps/standalone/run/*/*.run"):
        then = place.stat().st_mtime - 61
        os.utime(place, (then, then))


async def left_later(path: Path) -> list[str]:
    """What of ours is left when a repository is opened there again, more than a minute later."""
    await asyncio.to_thread(age, path)
    async with aexp.Repository(path):
        return left(path)


@pytest.fixture
def dvc_path(repo_path: Path) -> Path:
    """The fresh repository, which DVC uses, too."""
    return repo_path


@define(eq=False)
class Poll:
    """`dvc exp show`, over and over."""

    path: Path
    rows: list[Rows] = field(factory=list)

    rounds: int | None = None
    """How many are left; None: no end."""

    async def go_on(self) -> None:
        """Ask as fast as it answers; an error of DVC's is raised."""
        while self.rounds != 0:
            self.rows.append(await shown(self.path))
            self.rounds = None if self.rounds is None else self.rounds - 1


@asynccontextmanager
async def polled(path: Path) -> AsyncIterator[Poll]:
    """A poll that goes on until the block ends, and two rounds longer."""
    poll = Poll(path)
    task = asyncio.create_task(poll.go_on())
    yield poll
    poll.rounds = 2
    await task


async def test_a_running_experiment_is_shown(dvc_path: Path, git: Git) -> None:
    """DVC shows an experiment as running, with its parameters and its latest metrics, until it is saved; Git sees nothing."""
    async with aexp.Repository(dvc_path) as repository:
        async with repository.experiment("it", params={"lr": 0.5, "model": {"depth": 4}}) as experiment:
            await experiment.log_metrics({"loss": 1.0, "train/acc": 0.5, "nan": float("nan")}, 1)
            row = (await shown_when(dvc_path, {"it"}))["it"]
            assert (row["state"], row["name"], row["local"]["pid"]) == ("running", "tempdir", os.getpid())
            assert row["params"]["aexp/params.yaml"]["data"] == {"lr": 0.5, "model": {"depth": 4}}
            metrics = {"loss": 1.0, "train": {"acc": 0.5}, "nan": "nan", "step": 1}
            assert row["metrics"]["aexp/metrics.json"]["data"] == metrics
            await experiment.log_metric("loss", 0.25, 2)
            await experiment.set_params(lr=0.125)
            await asyncio.sleep(1.5)
            row = (await shown(dvc_path))["it"]
            assert loss(row) == 0.25
            assert row["params"]["aexp/params.yaml"]["data"]["lr"] == 0.125
            assert git("status", "--short", cwd=dvc_path) == ""
            assert git("worktree", "list", cwd=dvc_path).count("\n") == 0
        assert await shown_when(dvc_path, set()) == {}
    assert await left_later(dvc_path) == []
    assert git("status", "--short", cwd=dvc_path) == ""
    assert git("for-each-ref", "refs/exps", cwd=dvc_path).count("\n") == 0


@pytest.mark.slow
async def test_a_sweep_is_polled_without_a_failure(dvc_path: Path) -> None:
    """While 64 experiments run, end and follow one another, `dvc exp show` never fails, and their metrics move."""

    async def train(repository: aexp.Repository, number: int) -> None:
        for part in range(2):
            async with repository.experiment(f"e{number}-{part}", params={"number": number}) as experiment:
                for step in range(150 + number % 8 * 10):
                    await experiment.log_metric("loss", float(step), step)
                    await asyncio.sleep(0.1)

    async with polled(dvc_path) as poll, aexp.Repository(dvc_path) as repository:
        await asyncio.gather(*(train(repository, number) for number in range(64)))
    assert max(map(len, poll.rows)) >= 60  # one that ends while DVC looks is missing, or its successor is
    seen = [[loss(rows[name]) for rows in poll.rows if name in rows] for name in set().union(*poll.rows)]
    assert all(losses == sorted(losses) for losses in seen)
    assert any(len(set(losses)) > 1 for losses in seen)
    assert await left_later(dvc_path) == []


@pytest.mark.parametrize("end", ["error", "cancel", "discard", "left open"])
async def test_nothing_is_left(dvc_path: Path, end: str) -> None:
    """However an experiment ends, DVC shows nothing of it any more, and nothing of it is left for long."""

    async def live(repository: aexp.Repository) -> None:
        async with repository.experiment("it", on_error="discard") as experiment:
            await experiment.log_metric("loss", 1.0)
            await shown_when(dvc_path, {"it"})
            if end == "error":
                raise ValueError(end)
            if end == "cancel":
                await asyncio.Event().wait()
            await experiment.discard()

    async with aexp.Repository(dvc_path) as repository:
        if end == "left open":
            await repository.experiment("it").init()
            await shown_when(dvc_path, {"it"})
        else:
            task = asyncio.create_task(live(repository))
            if end == "cancel":
                await shown_when(dvc_path, {"it"})
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await shown_when(dvc_path, set())
    assert show(dvc_path) == {}
    assert await left_later(dvc_path) == []


PROGRAM = """
import asyncio, sys
import aexp

async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        for number in range(3):
            await (await repository.experiment(f"e{number}").init()).log_metric("loss", 1.0)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_what_a_killed_process_showed_is_taken_away(dvc_path: Path) -> None:
    """What a killed process left on the board goes when the repository is opened next; what a living one shows stays."""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, dvc_path)
    async with aexp.Repository(dvc_path) as alive:
        experiment = await alive.experiment("alive").init()
        await shown_when(dvc_path, {"e0", "e1", "e2", "alive"})
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
        assert (await shown(dvc_path)).keys() == {"e0", "e1", "e2", "alive"}  # DVC does not look at the process
        async with aexp.Repository(dvc_path):
            assert (await shown(dvc_path)).keys() == {"alive"}
        assert len(await left_later(dvc_path)) == 2
        await experiment.discard()
    assert await left_later(dvc_path) == []


async def test_others_runs_are_left_alone(dvc_path: Path) -> None:
    """An entry that `dvc exp run --temp` made is not ours: it stays, whatever opens and closes."""
    entry = dvc_path / BOARD / ("ab" * 20)
    entry.mkdir(parents=True)
    about = {"git_url": "", "baseline_rev": "0" * 40, "location": "tempdir", "root_dir": "/nowhere", "dvc_dir": ".dvc"}
    (entry / f"{entry.name}.run").write_text(json.dumps({**about, "name": "theirs", "status": 2}))
    async with aexp.Repository(dvc_path) as repository:
        experiment = await repository.experiment("it").init()
        await shown_when(dvc_path, {"it"})
        await experiment.discard()
    assert await left_later(dvc_path) == [entry.name]


async def test_a_link_out_of_the_repository_is_not_followed(dvc_path: Path, tmp_path: Path) -> None:
    """Where a symbolic link leads out of `.dvc`, nothing is shown and nothing is written; the experiment is saved."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (dvc_path / ".dvc" / "tmp" / "exps").symlink_to(elsewhere)
    async with aexp.Repository(dvc_path) as repository, repository.experiment("it") as experiment:
        await experiment.log_metric("loss", 1.0)
        await asyncio.sleep(1.5)
    assert experiment.record is not None
    assert list(elsewhere.iterdir()) == []


async def test_it_is_shown_only_where_that_is_wanted(dvc_path: Path, git: Git) -> None:
    """`dvc_running=False` shows nothing; None shows the first 64, True all."""
    async with aexp.Repository(dvc_path, settings=aexp.Settings(dvc_running=False)) as repository:
        await repository.experiment("it").init()
        await asyncio.sleep(1.5)
        assert left(dvc_path) == []
    for wanted, count in ((None, 64), (True, 70)):
        async with aexp.Repository(dvc_path, settings=aexp.Settings(dvc_running=wanted)) as repository:
            experiments = [await repository.experiment(f"{wanted}-{number}").init() for number in range(70)]
            await asyncio.sleep(3)
            assert len(left(dvc_path)) == count + 1
            await asyncio.gather(*(experiment.discard() for experiment in experiments))
        assert await left_later(dvc_path) == []


async def test_a_dvc_repository_in_a_folder(repo_path: Path, git: Git) -> None:
    """A DVC repository in a folder of the Git repository shows what runs in that folder."""
    below = repo_path / "data"
    assert run_dvc(below, "init", "--subdir", "--quiet").returncode == 0
    git("commit", "--quiet", "--message=dvc", cwd=repo_path)
    async with aexp.Repository(below) as repository, repository.experiment("it") as experiment:
        await experiment.log_metric("loss", 0.5)
        assert loss((await shown_when(below, {"it"}))["it"]) == 0.5
    assert await left_later(below) == []
