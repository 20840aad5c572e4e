"""Experiments that DVC and DVCLive make are records whose params and metrics are those of `dvc exp show --json`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Tool = Callable[..., Any]

PIPELINE = f"""\
stages:
  prepare:
    cmd: {sys.executable} -c "open('data.txt', 'w').write('x')"
    outs: [data.txt]
  train:
    cmd: {sys.executable} train.py
    deps: [train.py, data.txt]
    params: [train.lr, other.toml: [model.depth], constants.py: [SEED]]
    outs: [model.bin]
    metrics: [cached.json, plain.yaml: {{cache: false}}]
metrics: [top.toml]
"""
TRAIN = """\
import json, pathlib, yaml
lr = yaml.safe_load(open("params.yaml"))["train"]["lr"]
json.dump({"loss": 1 / lr, "words": ["dropped"], "nothing": None, "empty": {}}, open("cached.json", "w"))
pathlib.Path("plain.yaml").write_text(f"acc: {lr * 2}\\ngood: yes\\n")
pathlib.Path("top.toml").write_text(f"[valid]\\nf1 = {lr / 4}\\n")
pathlib.Path("model.bin").write_text("model" * 10)
"""


@pytest.fixture
def pipeline(repo_path: Path, git: Tool) -> Path:
    """A repository with a pipeline of two stages, params of four kinds, cached metrics and plain ones."""
    for name, text in {
        "dvc.yaml": PIPELINE,
        "train.py": TRAIN,
        "other.toml": "[model]\ndepth = 4\nwidth = 8\n",
        "constants.py": "SEED = 7\n\n\nclass Train:\n    epochs = 3\n",
    }.items():
        (repo_path / name).write_text(text)
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "pipeline", cwd=repo_path)
    return repo_path


def values(row: dict[str, Any], kind: str) -> dict[str, Any]:
    """What `dvc exp show` says of a row's params or metrics, by file."""
    return {path: each["data"] for path, each in row["data"][kind].items() if "data" in each}


async def check(path: Path, rows: Tool, *names: str) -> list[aexp.Record]:
    """Every row has a record with exactly the same params and metrics, file by file, in the same order."""
    shown = rows(path)
    async with aexp.Repository(path) as repository:
        records = {record.name: record for record in await repository.experiments()}
        assert sorted(records) == sorted(shown) == sorted(names)
        for name, record in records.items():
            assert record.damaged is None
            assert record.rev == shown[name]["rev"]
            assert repr(await repository.get(name)) == repr(record)  # NaN is not equal to itself
            params, metrics = values(shown[name], "params"), values(shown[name], "metrics")
            assert {path: dict(content) for path, content in record.params_by_file.items()} == params
            assert {path: dict(content) for path, content in record.metrics_by_file.items()} == metrics
            assert list(record.params_by_file) == list(params)
            assert list(record.metrics_by_file) == list(metrics)
    return [records[name] for name in names]


async def test_saved_by_dvc(repo_path: Path, dvc: Tool, rows: Tool, git: Tool) -> None:
    """`dvc exp save`: the root's params.yaml, and the files that dvc.yaml names, also in a folder, also a whole folder."""
    (repo_path / "sub/conf").mkdir(parents=True)
    (repo_path / "sub/dvc.yaml").write_text("params: [conf, ../shared.json]\nmetrics: [m.json]\n")
    (repo_path / "sub/conf/a.yaml").write_text("a: 1\nb: [1, {c: null}]\n")
    (repo_path / "sub/m.json").write_text('{"f1": 0.5}')
    (repo_path / "shared.json").write_text('{"seed": 3}')
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "sub", cwd=repo_path)
    (repo_path / "sub/m.json").write_text('{"f1": 0.75}')
    dvc("exp", "save", "-n", "saved", "-m", "by hand", cwd=repo_path)
    (saved,) = await check(repo_path, rows, "saved")
    assert (saved.message, saved.status, saved.metrics["f1"]) == ("by hand", aexp.Status.FINISHED, 0.75)


async def test_run_by_dvc(pipeline: Path, cli: Tool, dvc: Tool, rows: Tool) -> None:
    """Check 18, L9: `dvc exp run`, in the work tree and with `--temp`: params of YAML, TOML and Python, cached metrics."""
    dvc("exp", "run", "-n", "first", "-S", "train.lr=0.5", cwd=pipeline)
    cli("dvc", "exp", "run", "-n", "second", "-S", "train.lr=0.25", "--temp", cwd=pipeline)
    first, second = await check(pipeline, rows, "first", "second")
    assert (first.metrics["loss"], second.metrics["loss"]) == (2.0, 4.0)
    assert first.metrics == {"loss": 2.0, "acc": 1.0, "good": "yes", "valid/f1": 0.125}
    assert first.params == {"train": {"lr": 0.5, "epochs": 10}, "model": {"depth": 4}, "SEED": 7}
    async with aexp.Repository(pipeline) as repository:
        assert await repository.read("first", "plain.yaml") == b"acc: 1.0\ngood: yes\n"


async def test_queued_in_dvc(pipeline: Path, cli: Tool, rows: Tool) -> None:
    """`dvc exp run --queue`, then `dvc queue start`: each task is a record once it is done, and none before."""
    for number in (1, 2):
        cli("dvc", "exp", "run", "--queue", "-n", f"task-{number}", "-S", f"train.lr=0.{number}", cwd=pipeline)
    async with aexp.Repository(pipeline) as repository:
        assert list(await repository.experiments()) == []
    worker = "from dvc.repo import Repo; Repo().experiments.celery_queue.worker.start('one', fsapp_clean=False)"
    cli(sys.executable, "-c", worker, cwd=pipeline)
    one, two = await check(pipeline, rows, "task-1", "task-2")
    assert (one.params["train"]["lr"], two.params["train"]["lr"]) == (0.1, 0.2)


async def test_a_matrix_of_stages(repo_path: Path, dvc: Tool, rows: Tool, git: Tool) -> None:
    """Stages with expressions: their metrics and params are those that DVC wrote down when it ran them."""
    write = "import json, sys; json.dump({'acc': len(sys.argv[1])}, open(sys.argv[2], 'w'))"
    (repo_path / "write.py").write_text(write)
    stage = f"{sys.executable} write.py ${{item.kind}} out-${{item.kind}}-${{train.epochs}}.json"
    (repo_path / "dvc.yaml").write_text(
        "stages:\n  fit:\n    matrix:\n      kind: [svm, tree]\n"
        f"    cmd: {stage}\n    params: [train.lr]\n    metrics: ['out-${{item.kind}}-${{train.epochs}}.json']\n"
    )
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "matrix", cwd=repo_path)
    dvc("exp", "run", "-n", "both", cwd=repo_path)
    (both,) = await check(repo_path, rows, "both")
    assert both.metrics == {"acc": 4}
    assert both.metrics_by_file["out-svm-10.json"] == {"acc": 3}


async def test_several_commits(repo_path: Path, dvc: Tool, rows: Tool, git: Tool) -> None:
    """Check 49: an experiment of several commits, as old DVC's checkpoints are, is one record: that of its tip."""
    (repo_path / "params.yaml").write_text("lr: 1\n")
    dvc("exp", "save", "-n", "steps", cwd=repo_path)
    ref = git("for-each-ref", "--format=%(refname)", "refs/exps/*/*/steps", cwd=repo_path)
    tip = git("rev-parse", ref, cwd=repo_path)
    next = git("commit-tree", f"{tip}^{{tree}}", "-p", tip, "-m", "checkpoint", cwd=repo_path)
    git("update-ref", ref, next, cwd=repo_path)
    assert len(rows(repo_path)["steps"]["revs"]) == 2
    (steps,) = await check(repo_path, rows, "steps")
    assert (steps.rev, steps.message) == (next, "checkpoint")


LIVE = """\
from dvclive import Live
with Live(exp_name="live", report=None) as live:
    live.log_params({"lr": 0.1, "nested": {"a": [1], "b": True, "c": None, "d": "2020-01-01"}, "tiny": 1e-8})
    for step in range(3):
        live.log_metric("train/loss", 1 / (step + 1))
        live.log_metric("acc", float("nan") if step == 2 else step)
        live.log_metric("stamped", step, timestamp=True)
        live.next_step()
    live.log_metric("final", 7, plot=False)
    live.log_plot("curve", [{"x": 1, "y": 2.5}], x="x", y="y")
    live.log_sklearn_plot("confusion_matrix", [0, 1, 1], [0, 1, 0])
"""


async def test_made_by_dvclive(repo_path: Path, cli: Tool, rows: Tool, git: Tool) -> None:
    """Checks 23, 72, L9: DVCLive's params and summary as DVC shows them, and its series point by point."""
    script = LIVE if _has_sklearn() else LIVE.replace("    live.log_sklearn", "    # ")
    (repo_path / "live.py").write_text(script)
    cli(sys.executable, "live.py", cwd=repo_path)
    (live,) = await check(repo_path, rows, "live")
    assert live.params["nested"] == {"a": [1], "b": True, "c": None, "d": "2020-01-01"}
    assert live.metrics["train/loss"] == 1 / 3
    async with aexp.Repository(repo_path) as repository:
        history = await repository.history("live")
        assert sorted(history) == ["acc", "stamped", "train/loss"]
        assert list(history["train/loss"].values) == [1.0, 0.5, 1 / 3]
        assert list(history["train/loss"].steps) == [0, 1, 2]
        assert [value == value for value in history["acc"].values] == [True, True, False]
        assert all(stamp > 1e9 for stamp in history["stamped"].timestamps)
        curve = json.loads(await repository.read("live", "dvclive/plots/custom/curve.json"))
        assert curve == [{"x": 1, "y": 2.5}]


def _has_sklearn() -> bool:
    try:
        import sklearn  # noqa: F401, PLC0415
    except ImportError:
        return False
    return True


async def test_the_hash_of_an_experiment_is_not_needed(pipeline: Path, dvc: Tool, rows: Tool, git: Tool) -> None:
    """Check 75: DVC finds ours though their messages do not hold the hash that its own hold."""
    dvc("exp", "run", "-n", "theirs", cwd=pipeline)
    async with aexp.Repository(pipeline) as repository, repository.experiment("ours") as ours:
        await ours.log_metric("loss", 3)
    shown = rows(pipeline)
    assert shown["ours"]["error"] is shown["theirs"]["error"] is None
    assert "dvc: commit experiment" in git("log", "-1", "--format=%s", shown["theirs"]["rev"], cwd=pipeline)


async def test_a_number_alone_is_a_metric(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """A metric file that holds but a number, which DVC allows, is a metric called like the file."""
    (repo_path / "dvc.yaml").write_text("metrics: [accuracy.json, empty.yaml]\n")
    (repo_path / "accuracy.json").write_text("0.5")
    (repo_path / "empty.yaml").write_text("")
    git("add", ".", cwd=repo_path)
    dvc("exp", "save", "-n", "number", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        record = await repository.get("number")
    assert (record.metrics, record.damaged) == ({"accuracy": 0.5}, None)
