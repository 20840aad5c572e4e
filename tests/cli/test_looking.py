"""The verbs that look: list, show, best, history and log, through pipes and in terminals of many widths."""

import asyncio
import csv
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Run = Callable[..., Any]
Git = Callable[..., str]


async def sweep(path: Path) -> None:
    """Save three experiments on HEAD: one finished, one failed, one with a checkpoint and a text that bites."""
    async with aexp.Repository(path) as repository:
        for number, lr in enumerate((0.1, 0.01), 1):
            params = {"lr": lr, "model": {"depth": 4, "kind": "resnet"}}
            try:
                async with repository.experiment(f"lr-{number}", params=params, tags=["sweep"]) as experiment:
                    for step in range(8):
                        await experiment.log_metrics({"train/loss": math.exp(-step) / lr, "acc": 1 - lr / 3}, step)
                    if number == 2:
                        raise ArithmeticError("diverged")
            except ArithmeticError:
                pass
        async with repository.experiment("odd", params={"lr": 1, "note": "[red]a\x1b[31mb\u202ec|d"}) as experiment:
            await experiment.log_metric("acc", math.nan, 0)
            await experiment.make_checkpoint("half way")


def steady(text: str) -> str:
    """The text with what changes from run to run replaced: times and revs."""
    text = re.sub(r"\b\d\d:\d\d [AP]M\b", "hh:mm xM", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "yyyy-mm-dd hh:mm:ss", text)
    return re.sub(r"(?<![.\w])[0-9a-f]{7}\b", "<rev7>", text)


def colourless(text: str) -> str:
    """The text without the escapes that colour it."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def trimmed(text: str) -> str:
    """The lines of the text, without blanks at their ends."""
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


async def test_list_looks_like_dvc(command: Run, repo_path: Path) -> None:
    """`aexp list` prints the commit, and below it each experiment with the beginning of its rev, as DVC does."""
    await sweep(repo_path)

    assert steady(command("list").out) == "main:\n\t<rev7> [lr-1]\n\t<rev7> [lr-2]\n\t<rev7> [odd]\n"
    assert command("list", "--name-only").out == "lr-1\nlr-2\nodd\n"
    revs = command("list", "--sha-only").out.split()
    async with aexp.Repository(repo_path) as repository:
        assert revs == [(await repository.get(name)).rev for name in ("lr-1", "lr-2", "odd")]


async def test_list_is_about_head_until_it_is_asked(command: Run, repo_path: Path, git: Git) -> None:
    """Experiments of other commits are counted on standard error, and listed with --all or --rev."""
    await sweep(repo_path)
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    done = command("list")

    assert (done.code, done.out) == (0, "")
    assert done.err == "aexp: no experiments of HEAD; --all lists 3 experiments of other commits\n"
    assert command("list", "--rev", "HEAD~1").out == command("list", "-A").out != ""
    (baseline,) = json.loads(command("list", "--all", "--json").out)
    assert baseline["rev"] == git("rev-parse", "HEAD~1", cwd=repo_path)
    assert (baseline["names"], baseline["created"]) == ([], "2026-01-01T00:00:00+00:00")
    assert [set(each) for each in baseline["experiments"]] == [{"name", "rev", "ref"}] * 3


def test_nothing_is_no_error(command: Run) -> None:
    """Where there are no experiments every verb that looks prints nothing, or an empty list, and says so."""
    for verb in ("list", "show"):
        done = command(verb)
        assert (done.code, done.out, done.err) == (0, "", "aexp: no experiments yet\n")
    assert json.loads(command("show", "--json").out) == []
    assert json.loads(command("interrupted", "--json").out) == []


async def test_show_draws_a_tree(command: Run, repo_path: Path) -> None:
    """`aexp show` draws the experiments below the commit they stand on, the newest first, whole where no terminal is."""
    await sweep(repo_path)
    done = command("show", "--drop", "note|epochs")

    assert (done.code, done.err) == (0, "")
    assert trimmed(steady(done.out)) == trimmed("""
 ───────────────────────────────────────────────────────────────────────────────────────────────────────
 Experiment  Created       Status        acc  step  train/loss  train.lr    lr  model.depth  model.kind
 ───────────────────────────────────────────────────────────────────────────────────────────────────────
 main        Jan 01, 2026
 ├── odd     hh:mm xM      finished      nan     0           -       0.1     1            -  -
 ├── lr-2    hh:mm xM      failed    0.99667     7    0.091188       0.1  0.01            4  resnet
 └── lr-1    hh:mm xM      finished  0.96667     7   0.0091188       0.1   0.1            4  resnet
 ───────────────────────────────────────────────────────────────────────────────────────────────────────
""")


async def test_a_terminal_is_never_too_narrow(terminal: Run, repo_path: Path) -> None:
    """In a terminal of any width no line is longer than it, and what has no room is counted and named."""
    await sweep(repo_path)
    for columns in (200, 80, 60, 40, 24):
        done = terminal("show", columns=columns)
        lines = colourless(done.out).split("\n")
        table = [line for line in lines if not line.startswith("aexp: ")]

        assert done.code == 0
        assert max(map(len, table)) <= columns
        assert "lr-1" in done.out
        left_out = re.search(r"^aexp: no room for (\d) of 9 columns \(", colourless(done.out), re.MULTILINE)
        assert (left_out is None) == (columns == 200)


async def test_colours_are_for_terminals(terminal: Run, command: Run, repo_path: Path) -> None:
    """A terminal gets colours unless NO_COLOR is set; a pipe gets none, unless FORCE_COLOR is."""
    await sweep(repo_path)

    assert "\x1b[32mfinished\x1b[0m" in terminal("show").out
    assert "\x1b[31mfailed" in terminal("show").out
    assert "\x1b[3" not in terminal("show", NO_COLOR="1").out
    assert "\x1b" not in command("show").out
    assert "\x1b[32mfinished" in command("show", FORCE_COLOR="1").out


async def test_what_is_shown_cannot_drive_the_terminal(terminal: Run, command: Run, repo_path: Path) -> None:
    """Escapes and letters that turn a line around are shown as what they are; markup of rich is text."""
    await sweep(repo_path)
    for shown in (
        command("show").out,
        command("log", "odd").out,
        terminal("show", "--keep", "note").out,
    ):
        assert "[red]a\\x1b[31mb\\u202ec" in shown
        assert "\x1b[31mb" not in shown
    assert r"| [red]a\\x1b[31mb\\u202ec\|d " in command("show", "--md").out


async def test_columns_are_chosen(command: Run, repo_path: Path) -> None:
    """--drop and --only-changed leave columns out, and --keep overrules both."""
    await sweep(repo_path)

    def titles(*words: str) -> list[str]:
        head: str = command("show", "--md", *words).out.split("\n")[0]
        return head.strip("| ").replace(" ", "").split("|")[3:]

    assert titles() == [
        "acc",
        "step",
        "train/loss",
        "train.lr",
        "train.epochs",
        "lr",
        "note",
        "model.depth",
        "model.kind",
    ]
    assert titles("--drop", "model|params.train") == ["acc", "step", "train/loss", "lr", "note"]
    assert titles("--drop", "^metrics|train", "--keep", "acc") == ["acc", "lr", "note", "model.depth", "model.kind"]
    two = ("--where", "'sweep' in tags", "--only-changed")
    assert titles(*two) == ["train/loss", "acc", "lr"]
    assert titles(*two, "--keep", "kind") == ["train/loss", "acc", "lr", "model.kind"]


async def test_what_is_asked_for_has_room(terminal: Run, repo_path: Path) -> None:
    """Where room is scarce, what the query, the order or --keep names is shown before everything else."""
    await sweep(repo_path)

    for words in (("--sort", "-params.model.depth"), ("--where", "params.model.depth == 4"), ("--keep", "depth")):
        assert re.search(
            r"model\.|depth", terminal("show", *words, columns=48, NO_COLOR="1").out.partition("main")[0]
        ), words
    assert "depth" not in terminal("show", columns=48, NO_COLOR="1").out.partition("main")[0]


async def test_queries_choose_and_order(command: Run, repo_path: Path) -> None:
    """--where, --sort and --limit choose and order as the library does."""
    await sweep(repo_path)

    def names(*words: str) -> list[str]:
        return [record["name"] for record in json.loads(command("show", "--json", *words).out)]

    assert names() == ["odd", "lr-2", "lr-1"]
    assert names("--sort", "-metrics.acc", "--where", "'sweep' in tags") == ["lr-2", "lr-1"]
    assert names("--sort-by", "params.model.kind", "--sort", "params.lr") == ["lr-2", "lr-1", "odd"]
    assert names("--sort-by", "metrics.acc", "--sort-order", "desc", "--where", "'sweep' in tags") == ["lr-2", "lr-1"]
    assert names("--limit", "1") == ["odd"]
    none = command("show", "--where", "params.lr > 9")
    assert (none.code, none.out, none.err) == (0, "", "aexp: no experiment of HEAD where params.lr > 9\n")


async def test_json_has_every_digit(command: Run, repo_path: Path) -> None:
    """The shape of a record in JSON is the one that docs/cli.md shows, in ASCII; NaN is a string."""
    await sweep(repo_path)
    done = command("show", "--json")
    odd, failed, good = json.loads(done.out, parse_constant=pytest.fail)

    assert done.out.isascii()
    assert list(good) == [
        "name", "id", "rev", "ref", "baseline", "status", "error", "tags", "message", "created", "ended", "duration",
        "checkpoints", "artifacts", "damaged", "push", "params", "metrics",
    ]  # fmt: skip
    assert good["metrics"] == {"acc": 1 - 0.1 / 3, "train/loss": math.exp(-7) / 0.1, "step": 7}
    assert good["params"]["model"] == {"depth": 4, "kind": "resnet"}
    assert (failed["status"], failed["error"]["type"], failed["error"]["message"]) == (
        "failed",
        "ArithmeticError",
        "diverged",
    )
    assert odd["metrics"] == {"acc": "NaN", "step": 0}
    assert odd["params"]["note"] == "[red]a\x1b[31mb\u202ec|d"
    assert len(odd["checkpoints"]) == 1


async def test_csv_has_every_column(command: Run, repo_path: Path) -> None:
    """CSV has a row for each experiment, named as queries name the columns, with every digit."""
    await sweep(repo_path)
    rows = list(csv.DictReader(io.StringIO(command("show", "--csv").out)))

    assert [row["name"] for row in rows] == ["odd", "lr-2", "lr-1"]
    assert float(rows[2]["metrics.train/loss"]) == math.exp(-7) / 0.1
    assert (rows[0]["metrics.train/loss"], rows[0]["metrics.acc"]) == ("", "NaN")
    assert rows[1]["params.model.depth"] == "4"


async def test_the_best_is_found(command: Run, repo_path: Path) -> None:
    """`aexp best` finds the experiment with the largest or the smallest value, among those that --where keeps."""
    await sweep(repo_path)

    assert command("best", "acc", "--name-only").out == "lr-2\n"
    assert command("best", "acc", "--mode", "min", "--name-only").out == "lr-1\n"
    assert command("best", "acc", "--where", "status == 'finished'", "--name-only").out == "lr-1\n"
    assert json.loads(command("best", "acc", "--json").out)["name"] == "lr-2"
    assert "└── lr-2" in command("best", "acc").out


async def test_sparklines_stand_beside_values(command: Run, repo_path: Path) -> None:
    """With --sparklines the course of each metric is drawn beside its last value."""
    await sweep(repo_path)
    shown = command("show", "--sparklines", "--keep", "train", "--where", "'sweep' in tags").out

    assert "0.0091188 █▄▂▁▁▁▁▁" in shown, shown


async def test_history_is_a_line_for_each_metric(command: Run, repo_path: Path) -> None:
    """`aexp history NAME` tells of every metric its points, its ends and its course."""
    await sweep(repo_path)

    assert trimmed(command("history", "lr-1").out) == trimmed("""
 ─────────────────────────────────────────────────────────────────────
 Metric      Points    First      Least     Most       Last  Course
 ─────────────────────────────────────────────────────────────────────
 acc              8  0.96667    0.96667  0.96667    0.96667  ▁▁▁▁▁▁▁▁
 train/loss       8       10  0.0091188       10  0.0091188  █▄▂▁▁▁▁▁
 ─────────────────────────────────────────────────────────────────────
""")


async def test_history_draws_a_plot(terminal: Run, command: Run, repo_path: Path) -> None:
    """`aexp history NAME METRIC` draws the points in a terminal of any width; --json and --csv have them exactly."""
    await sweep(repo_path)
    for columns in (100, 60, 30):
        done = terminal("history", "lr-1", "train/loss", columns=columns)
        assert done.code == 0
        assert max(map(len, colourless(done.out).split("\n"))) <= columns
        assert re.search("[\u2801-\u28ff]", done.out), "no dot was drawn"
    found = json.loads(command("history", "lr-1", "acc", "--json").out)
    assert found == {"acc": {"steps": list(range(8)), "values": [1 - 0.1 / 3] * 8, "timestamps": [None] * 8}}
    rows = list(csv.reader(io.StringIO(command("history", "lr-1", "train/loss", "--csv").out)))
    assert rows[0] == ["metric", "step", "value", "timestamp"]
    assert [float(row[2]) for row in rows[1:]] == [math.exp(-step) / 0.1 for step in range(8)]


async def test_history_without_numbers_says_so(command: Run, repo_path: Path) -> None:
    """A metric that is not there, or has nothing to draw, is one line on standard error."""
    await sweep(repo_path)

    assert command("history", "lr-1", "f1").err == "aexp: lr-1 has no metric 'f1'; it has acc, train/loss\n"
    assert (
        command("history", "odd", "acc").err
        == "aexp: acc has no finite value to draw; --json and --csv have its points\n"
    )


async def test_log_tells_what_happened(command: Run, repo_path: Path) -> None:
    """`aexp log` tells how an experiment began, its checkpoints, and how it ended; --stack has the traceback."""
    await sweep(repo_path)
    odd = json.loads(command("log", "odd", "--json").out)

    assert [each["message"] for each in odd["checkpoints"]] == ["half way"]
    assert "checkpoint <rev7>: half way" in steady(command("log", "odd").out)
    told = re.sub(r"[\d.e-]+ s$", "0 s", steady(command("log", "lr-2").out), flags=re.MULTILINE)
    assert (
        told
        == """\
lr-2  failed  <rev7>
yyyy-mm-dd hh:mm:ss  began on main (<rev7>), with no changes
                     params: train.lr 0.1, train.epochs 10, lr 0.01, model.depth 4, model.kind resnet
yyyy-mm-dd hh:mm:ss  failed after 0 s
                     ArithmeticError: diverged
                     metrics: train/loss 0.091188, acc 0.99667, step 7
                     tags: sweep
"""
    )
    assert "ArithmeticError: diverged\n" in command("log", "lr-2", "--stack").out.partition("Traceback")[2]


async def test_a_damaged_experiment_is_shown_as_one(command: Run, repo_path: Path) -> None:
    """What cannot be read is in the table, marked, and said on standard error; the others are shown."""
    await sweep(repo_path)
    async with aexp.Repository(repo_path) as repository:
        record = await repository.get("odd")
    (repo_path / ".git" / record.ref).parent.joinpath("torn").write_text("\0")
    done = command("show")

    assert done.code == 0
    assert re.search(r"torn +\S+ .* damaged", done.out)
    assert "lr-1" in done.out
    assert done.err.startswith("aexp: 1 experiment cannot be read, such as torn: ")
    assert "[torn]" in command("list").out


@pytest.mark.slow
async def test_a_thousand_experiments_of_forty_columns_can_be_read(terminal: Run, repo_path: Path) -> None:
    """1,000 experiments with 40 columns fit a terminal of 80 characters: some columns, and how many were left out."""
    async with aexp.Repository(repo_path) as repository:
        for number in range(1000):
            params = {f"option_{place}": place for place in range(20)} | {"lr": number / 1000}
            async with repository.experiment(f"try-{number}", params=params) as experiment:
                await experiment.log_metrics({f"group/metric_{place}": place / 3 + number for place in range(18)})
    done = terminal("show")
    table = [line for line in colourless(done.out).split("\n") if "─ try-" in line]

    assert len(table) == 1000
    assert max(map(len, table)) <= 80
    assert "no room for 3" in done.out


async def test_long_work_shows_how_far_it_is(terminal: Run, command: Run, repo_path: Path) -> None:
    """Reading many histories draws a bar with a rate in a terminal, and takes it away; a pipe sees nothing of it."""
    await sweep(repo_path)
    done = terminal("show", "--sparklines", columns=200)

    assert "reading histories" in done.out
    assert re.search(r"3 of 3.*/s", colourless(done.out))
    assert colourless(done.out).rstrip().endswith("─")
    assert command("show", "--sparklines", FORCE_COLOR="1").err == ""  # colours are no terminal


@pytest.mark.compat
async def test_experiments_of_dvc_are_shown(command: Run, repo_path: Path, git: Git) -> None:
    """What `dvc exp save` made is listed, shown and told of as what aexp made."""
    dvc = shutil.which("dvc", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if dvc is None:
        pytest.skip("DVC is not installed")
    (repo_path / "dvc.yaml").write_text("params: [params.yaml]\nmetrics: [metrics.json]\n")
    (repo_path / "metrics.json").write_text('{"acc": 0.75}\n')
    for words in (["init", "--quiet"], ["exp", "save", "--name", "theirs"]):
        git("add", "--all", cwd=repo_path)
        git("commit", "--quiet", "--message=next", cwd=repo_path)
        await asyncio.to_thread(subprocess.run, [dvc, *words], cwd=repo_path, check=True, capture_output=True)
    (record,) = json.loads(command("show", "--json").out)

    assert (record["name"], record["metrics"], record["params"]["train"]["lr"]) == ("theirs", {"acc": 0.75}, 0.1)
    assert command("list", "--name-only").out == "theirs\n"
    told = steady(command("log", "theirs").out)
    assert "began on main (<rev7>)\n" in told
    assert "  finished\n" in told
