"""A program that is a stage of `dvc exp run` writes into the run's work tree, and DVC makes the experiment of it."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Tool = Callable[..., Any]

STAGE = """\
import asyncio, os, sys
import aexp, yaml

async def main():
    lr = yaml.safe_load(open("params.yaml"))["train"]["lr"]
    async with aexp.init("mine", params={"inner": {"lr": lr}}, tags=["small"]) as experiment:
        for step in range(3):
            await experiment.log_metric("train/loss", lr * step, step)
        assert await experiment.make_checkpoint() == ""
        assert os.path.exists("aexp/plots/metrics/train/loss.tsv")
        await experiment.flush()
        await experiment.log_metric("acc", lr)
        await experiment.log_file("report.md", "went well\\n")
        if lr > 9:
            raise ValueError("too fast")
    print("record", repr(experiment.record.rev), experiment.record.ref, experiment.name, experiment.state)

asyncio.run(main())
"""


@pytest.fixture
def staged(repo_path: Path, git: Tool) -> Path:
    """A repository with one stage, `train`, that logs to aexp."""
    (repo_path / "train.py").write_text(STAGE)
    (repo_path / "dvc.yaml").write_text(
        f"stages:\n  train:\n    cmd: {sys.executable} train.py\n    deps: [train.py]\n    params: [train.lr]\n"
    )
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "stage", cwd=repo_path)
    return repo_path


def check_row(row: dict[str, Any], lr: float) -> None:
    """DVC found what the stage logged."""
    assert row["error"] is None
    assert row["data"]["params"]["aexp/params.yaml"]["data"] == {"inner": {"lr": lr}}
    assert row["data"]["metrics"]["aexp/metrics.json"]["data"] == {"train": {"loss": lr * 2}, "acc": lr, "step": 2}


async def check_record(path: Path, name: str, lr: float, rev: str) -> None:
    """Aexp finds the same in DVC's commit, and knows it as its own: with tags, status, series."""
    async with aexp.Repository(path) as repository:
        record = await repository.get(name)
        assert (record.name, record.rev, record.tags, record.status) == (name, rev, ("small",), "finished")
        assert record.params["inner"] == {"lr": lr}
        assert record.metrics == {"train/loss": lr * 2, "acc": lr, "step": 2}
        assert list((await repository.history(name, "train/loss"))["train/loss"].values) == [0.0, lr, lr * 2]
        assert await repository.read(name, "report.md") == b"went well\n"
        assert await repository.interrupted() == []


@pytest.mark.parametrize("way", [(), ("--temp",)])
async def test_dvc_commits_what_a_stage_logs(
    staged: Path, cli: Tool, git: Tool, rows: Tool, way: tuple[str, ...]
) -> None:
    """`dvc exp run` and `--temp`: one ref, DVC's own; the record returned in the stage has no rev, and names that ref."""
    said = cli("dvc", "exp", "run", "-n", "run-1", "-S", "train.lr=0.25", *way, cwd=staged)
    head = git("rev-parse", "HEAD", cwd=staged)
    ref = f"refs/exps/{head[:2]}/{head[2:]}/run-1"
    assert f"record '' {ref} run-1 persisted" in said.out
    refs = git("for-each-ref", "--format=%(refname)", "refs/exps", "refs/aexp", cwd=staged).splitlines()
    assert [each for each in refs if "/exec/" not in each] == [ref]
    row = rows(staged)["run-1"]
    check_row(row, 0.25)
    await check_record(staged, "run-1", 0.25, row["rev"])


async def test_a_queue_of_stages(staged: Path, cli: Tool, rows: Tool) -> None:
    """`dvc exp run --queue` of two tasks, then `dvc queue start`: two experiments, each with what its own stage logged."""
    for lr in (0.5, 0.75):
        cli("dvc", "exp", "run", "--queue", "-n", f"at-{lr}", "-S", f"train.lr={lr}", cwd=staged)
    worker = "from dvc.repo import Repo; Repo().experiments.celery_queue.worker.start('one', fsapp_clean=False)"
    cli(sys.executable, "-c", worker, cwd=staged)
    shown = rows(staged)
    assert sorted(shown) == ["at-0.5", "at-0.75"]
    for lr in (0.5, 0.75):
        check_row(shown[f"at-{lr}"], lr)
        await check_record(staged, f"at-{lr}", lr, shown[f"at-{lr}"]["rev"])


async def test_a_second_run_forgets_the_first(staged: Path, cli: Tool, git: Tool, rows: Tool) -> None:
    """Series, images and plots that an earlier run left in the work tree are not committed as those of the next."""
    text = (staged / "train.py").read_text()
    drawn = "        await experiment.log_image('i', b'<svg></svg>')\n        await experiment.log_plot('p', [{'a': 1}], x='a', y='a')\n"
    (staged / "train.py").write_text(text.replace("        await experiment.flush()\n", drawn))
    cli("dvc", "exp", "run", "-n", "one", cwd=staged)
    ref = git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/one", cwd=staged)
    first = git("ls-tree", "-r", "--name-only", ref, "aexp/plots/custom", "aexp/plots/images", cwd=staged).split()
    assert first == ["aexp/plots/custom/p.json", "aexp/plots/images/i.svg"]
    text = text.replace("train/loss", "valid/loss")
    (staged / "train.py").write_text(text)
    cli("dvc", "exp", "run", "-n", "two", cwd=staged)
    ref = git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/two", cwd=staged)
    series = git("ls-tree", "-r", "--name-only", ref, "aexp/plots/", cwd=staged).split()
    assert series == ["aexp/plots/metrics/acc.tsv", "aexp/plots/metrics/valid/loss.tsv"]
    assert sorted(rows(staged)) == ["one", "two"]


async def test_a_stage_that_fails(staged: Path, cli: Tool, git: Tool) -> None:
    """DVC makes no experiment of it; what was logged, with status and traceback, lies in the work tree."""
    cli("dvc", "exp", "run", "-n", "bad", "-S", "train.lr=10", cwd=staged, code=255)
    assert git("for-each-ref", "refs/exps/*/*/bad", cwd=staged) == ""
    account = (staged / "aexp/experiment.json").read_text()
    assert '"status": "failed"' in account
    assert "too fast" in account


async def test_what_dvc_saves_later_is_not_taken_for_it(staged: Path, cli: Tool, dvc: Tool, rows: Tool) -> None:
    """An experiment.json that lies about from a run does not make DVC's next experiment ours: that has its own values."""
    cli("dvc", "exp", "run", "-n", "one", cwd=staged)
    (staged / "aexp/metrics.json").write_text('{"acc": 99}')
    dvc("exp", "save", "-n", "later", "-I", "aexp", cwd=staged)
    async with aexp.Repository(staged) as repository:
        record = await repository.get("later")
        assert (record.metrics["acc"], record.tags) == (99, ())
        assert record.id != (await repository.get("one")).id
    assert rows(staged)["later"]["data"]["metrics"]["aexp/metrics.json"]["data"] == {"acc": 99}


async def test_another_repository_is_none_of_dvcs_business(
    staged: Path, template: Path, tmp_path: Path, monkeypatch: Any, git: Tool
) -> None:
    """A stage that opens another repository makes an experiment there, on a ref of its own."""
    other = tmp_path / "other"
    shutil.copytree(template, other)
    head = git("rev-parse", "HEAD", cwd=staged)
    for name, value in {"ROOT": str(staged), "EXP_BASELINE_REV": head, "EXP_NAME": "run-1"}.items():
        monkeypatch.setenv(f"DVC_{name}", value)
    async with aexp.Repository(other) as repository, repository.experiment("there") as there:
        pass
    assert there.record is not None
    assert there.record.rev
    async with aexp.Repository(staged) as repository, repository.experiment("here") as here:
        with pytest.raises(aexp.NameTaken):  # one experiment of a run at a time
            await repository.experiment("beside").init()
    assert here.record is not None
    assert (here.record.rev, here.name) == ("", "run-1")
    assert git("for-each-ref", "refs/exps", "refs/aexp", cwd=staged) == ""


async def test_a_link_in_the_way_is_not_followed(staged: Path, tmp_path: Path, monkeypatch: Any, git: Tool) -> None:
    """Where `aexp` is a link out of the work tree, saving says so; once it is gone, saving again goes well."""
    (tmp_path / "outside").mkdir()
    os.symlink(tmp_path / "outside", staged / "aexp")
    head = git("rev-parse", "HEAD", cwd=staged)
    for name, value in {"ROOT": str(staged), "EXP_BASELINE_REV": head, "EXP_NAME": "run-1"}.items():
        monkeypatch.setenv(f"DVC_{name}", value)
    async with aexp.Repository(staged) as repository:
        experiment = await repository.experiment().init()
        with pytest.raises(aexp.UnsafePath):
            await experiment.save()
        assert os.listdir(tmp_path / "outside") == []
        (staged / "aexp").unlink()
        assert (await experiment.save()).rev == ""
    assert (staged / "aexp/metrics.json").exists()


async def test_a_stage_that_is_killed(staged: Path, cli: Tool, git: Tool) -> None:
    """A run that dies in the middle leaves its points in the journal; `recover()` saves them on a ref of aexp's own."""
    text = (staged / "train.py").read_text().replace("if lr > 9", "os.kill(os.getpid(), 9)\n        if lr > 9")
    (staged / "train.py").write_text(text)
    cli("dvc", "exp", "run", "-n", "killed", cwd=staged, code=255)
    async with aexp.Repository(staged) as repository:
        (record,) = await repository.recover()
        assert (record.name, record.status) == ("killed", "interrupted")
        assert record.metrics["train/loss"] == 0.2
    assert git("for-each-ref", "--format=%(objectname)", record.ref, cwd=staged) == record.rev


async def test_dvclive_within_an_aexp_stage(repo_path: Path, cli: Tool, git: Tool, rows: Tool) -> None:
    """Checks 73, 74: DVCLive in one stage and aexp in another of the same run end in one experiment of DVC's."""
    (repo_path / "live.py").write_text(
        "from dvclive import Live\n"
        "with Live(report=None) as live:\n    live.log_metric('live/acc', 0.5)\n    live.next_step()\n"
    )
    (repo_path / "ours.py").write_text(STAGE)
    (repo_path / "dvc.yaml").write_text(
        f"stages:\n  live:\n    cmd: {sys.executable} live.py\n"
        f"  ours:\n    cmd: {sys.executable} ours.py\n    params: [train.lr]\n"
    )
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "stages", cwd=repo_path)
    cli("dvc", "exp", "run", "-n", "both", cwd=repo_path)
    metrics = rows(repo_path)["both"]["data"]["metrics"]
    assert metrics["dvclive/metrics.json"]["data"]["live"] == {"acc": 0.5}
    assert metrics["aexp/metrics.json"]["data"]["acc"] == 0.1
    async with aexp.Repository(repo_path) as repository:
        record = await repository.get("both")
        assert (record.metrics["live/acc"], record.metrics["acc"], record.tags) == (0.5, 0.1, ("small",))
