"""What was logged is what DVC shows, diffs and plots."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc import api

import aexp

Tool = Callable[..., Any]


async def test_params_metrics_and_plots_are_found(repo_path: Path, rows: Tool, git: Tool) -> None:
    """Checks 23, 24: the folder's dvc.yaml makes DVC find params, metrics and series, by paths relative to itself."""
    params = {"model": {"depth": 4}, "layers": [1, None]}
    async with aexp.Repository(repo_path) as repository, repository.experiment("one", params=params) as one:
        await one.log_metrics({"train/loss": 0.5, "acc": True}, step=3)
    row = rows(repo_path)["one"]["data"]
    assert row["params"]["aexp/params.yaml"]["data"] == params
    assert row["metrics"]["aexp/metrics.json"]["data"] == {"train": {"loss": 0.5}, "acc": True, "step": 3}
    listed = git("ls-tree", "-r", "--name-only", one.ref, "aexp/plots/", cwd=repo_path).split()
    assert listed == ["aexp/plots/metrics/acc.tsv", "aexp/plots/metrics/train/loss.tsv"]


async def test_no_value_breaks_strict_json(repo_path: Path, rows: Tool) -> None:
    """Check 19: NaN and infinities, in params as in metrics, are the strings that DVC uses; `exp show --json` stays JSON."""
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("one", params={"a": math.nan, "b": [-math.inf]}) as one:
            await one.log_metrics({"x": math.nan, "y": math.inf, "z": -math.inf})
        assert one.record is not None
        assert math.isnan(one.record.metrics["x"])
    row = rows(repo_path)["one"]["data"]
    assert row["params"]["aexp/params.yaml"]["data"] == {"a": "nan", "b": ["-inf"]}
    assert row["metrics"]["aexp/metrics.json"]["data"] == {"x": "nan", "y": "inf", "z": "-inf", "step": 0}


async def test_text_that_looks_like_something_else_stays_text(repo_path: Path, rows: Tool) -> None:
    """Check 21: dates, YAML 1.1 booleans, octals, sexagesimals and expressions are text, and no row fails."""
    words = ["2020-01-01", "yes", "no", "on", "12:30:45", "010", "1_000", "0x1F", "1e-5", "~", "null", "", " ", "a: b"]
    words += [
        "- x",
        "# x",
        "=",
        "<<",
        "!x",
        "&x",
        "*x",
        "%x",
        "@x",
        "`x",
        "x\ny",
        "\u2028",
        "é",
        "😀",
        "${x}",
        "${train.lr}",
    ]
    params = {"words": words, **{word: word for word in words if word}}
    async with aexp.Repository(repo_path) as repository, repository.experiment("one", params=params):
        pass
    row = rows(repo_path)["one"]
    assert row["error"] is None
    assert row["data"]["params"]["aexp/params.yaml"]["data"] == params


async def test_a_broken_file_of_the_user_is_seen_the_same_way(repo_path: Path, rows: Tool, git: Tool) -> None:
    """Checks 21, 22: where DVC gives a row an error, aexp gives the record a reason in `damaged`, or at least its values."""
    (repo_path / "dvc.yaml").write_text("metrics: [m.json]\n")
    (repo_path / "m.json").write_text("{")
    git("add", ".", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("one", params={"lr": 1}) as one:
            await one.log_metric("loss", 0.5)
        record = await repository.get("one")
    assert record.damaged is not None
    assert "m.json" in record.damaged
    assert (record.params["lr"], record.metrics["loss"]) == (1, 0.5)
    metrics = rows(repo_path)["one"]["data"]["metrics"]
    assert "error" in metrics["m.json"]
    assert metrics["aexp/metrics.json"]["data"]["loss"] == 0.5
    assert one.record is not None


@pytest.fixture
async def pair(repo_path: Path) -> Path:
    """A repository with the experiments `one` and `two`, which differ in a param, a metric and a series."""
    async with aexp.Repository(repo_path) as repository:
        for name, lr in (("one", 0.1), ("two", 0.2)):
            async with repository.experiment(name, params={"lr": lr, "model": {"depth": 4}}) as experiment:
                for step in range(3):
                    await experiment.log_metric("train/loss", lr * step, step)
    return repo_path


async def test_dvc_diffs_two(pair: Path, dvc: Tool) -> None:
    """Checks 30, 31: `exp diff`, `params diff` and `metrics diff` say what differs, and nothing else."""
    params = {"aexp/params.yaml": {"lr": {"old": 0.1, "new": 0.2, "diff": 0.1}}}
    metrics = {"aexp/metrics.json": {"train.loss": {"old": 0.2, "new": 0.4, "diff": 0.2}}}
    told = dvc("exp", "diff", "one", "two", "--json", cwd=pair).json
    assert told == {"params": params, "metrics": metrics}
    assert dvc("params", "diff", "one", "two", "--json", cwd=pair).json == params
    assert dvc("metrics", "diff", "one", "two", "--json", cwd=pair).json == metrics


async def test_dvc_plots_two(pair: Path, dvc: Tool) -> None:
    """Check 32: `plots diff` merges the series of both, a datapoint for each point logged."""
    told = dvc("plots", "diff", "one", "two", "--json", cwd=pair).json
    (plot,) = told["data"]["aexp/plots/metrics/train/loss.tsv"]
    points = plot["content"]["data"]["values"]
    assert [(each["rev"], int(each["step"]), float(each["train/loss"])) for each in points] == [
        (name, step, lr * step) for name, lr in (("one", 0.1), ("two", 0.2)) for step in range(3)
    ]


async def test_dvc_draws_images_and_plots(repo_path: Path, dvc: Tool) -> None:
    """Checks 33, 34: `plots diff` takes out the image of each experiment, and draws the points of both as their plot says."""
    points = [{"fpr": 0.0, "tpr": 0.5}, {"fpr": 1.0, "tpr": math.nan}]
    async with aexp.Repository(repo_path) as repository:
        for name in ("one", "two"):
            async with repository.experiment(name) as experiment:
                await experiment.log_image("look", f"<svg>{name}</svg>".encode())
                await experiment.log_plot("deep/roc", points, x="fpr", y="tpr", template="scatter", title="ROC: 1")
    told = dvc("plots", "diff", "one", "two", "--json", "--out", "drawn", cwd=repo_path).json
    images = told["data"]["aexp/plots/images/look.svg"]
    drawn = {image["revisions"][0]: (repo_path / image["url"]).read_text() for image in images}
    assert drawn == {name: f"<svg>{name}</svg>" for name in ("one", "two")}
    (plot,) = told["data"]["aexp/plots/custom/deep/roc.json"]
    assert sorted(plot["revisions"]) == ["one", "two"]
    content = json.dumps(plot["content"])
    assert '"ROC: 1"' in content
    assert '"nan"' in content


async def test_the_api_of_dvc_reads(pair: Path, monkeypatch: Any) -> None:
    """Check 35: `dvc.api` finds params, files and rows by the name of the experiment."""
    monkeypatch.chdir(pair)
    shown = api.params_show(rev="one")
    assert (shown["lr"], shown["model"]) == (0.1, {"depth": 4})
    assert api.read("aexp/params.yaml", rev="two").startswith("lr: 0.2\n")
    table = {row["Experiment"]: row for row in api.exp_show()}
    assert (table["one"]["lr"], table["two"]["train.loss"]) == (0.1, 0.4)
