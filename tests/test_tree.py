"""What lands in Git: the commit and its files, byte by byte, and nothing else of the repository."""

import asyncio
import binascii
import json
import math
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import aexp
from aexp import Code, Failure, Settings, Skipped, Status
from aexp._formats.account import Account, intent_to_json
from aexp._formats.experiment import Author, intend
from aexp._formats.journal import Kind
from aexp._formats.params import dump_params
from aexp._job import Job
from aexp._machine import owner
from aexp._sessions import append, read_ledger
from aexp._store import open_store

Git = Callable[..., str]
Fsck = Callable[[Path], None]


# ---- golden ids: if one of these changes, the format of what aexp writes has changed ----

GOLDEN_TREE = "67c4de08cf49ba457a9f9935173832fd8ff9e197"
GOLDEN_COMMIT = "1880c92fd133fee1b6892c89a792e7510901bf05"


def test_a_fixed_experiment_has_fixed_ids(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """The commit is a pure function of account, points and files: the same on every machine, for ever."""
    baseline, tree = git("rev-parse", "HEAD", "HEAD^{tree}", cwd=repo_path).split()
    account = Account(
        number=1,
        id="0192f0c1d2e374f58a6b7c8d9e0fa1b2",
        name="calm-otter-4821",
        baseline=baseline,
        code=Code("tracked", tree, False, (Skipped("fifo", "not a regular file"),)),
        created=1_790_000_000.25,
        ended=1_790_000_060.5,
        duration=60.25,
        origin={"host": "here", "user": "ada", "python": "3.11.7 linux", "packages": "0" * 64, "session": "s"},
        params={"lr": 0.1, "model": {"depth": 4, "name": "caf\u00e9", "big": 2**70, "nan": math.nan}},
        tags=("a", "b"),
        message="why",
        status=Status.FAILED,
        error=Failure("ValueError", "boom", "Traceback\n"),
        step=3,
    )
    author = Author(("Ada", "ada@example.org"), ("Grace", "grace@example.org"), -330)
    store = open_store(str(repo_path), Settings(), {})
    session = store.open_session("00000000000070008000000000000000", owner())
    points = {"loss": [[1, 0, 2], [0.5, "inf", 5e-324], [[1, 1_790_000_001.5]]], "val/acc": [[2], [True]]}
    logged = [
        (Kind.POINTS, [1, points]),
        (Kind.FILE, [1, "out/notes.txt", binascii.b2a_base64(b"notes\n", newline=False).decode()]),
    ]
    append(session, read_ledger(session.path, session.id), [*logged])
    params = dump_params(account.params).decode()
    intent = intend(account, author, now=1_790_000_061.9, folder="aexp", params=params, final=True, expected=None)
    ledger = read_ledger(session.path, session.id)
    (sequence,) = append(session, ledger, [(Kind.INTENT, intent_to_json(intent))])
    (record,) = store.save([Job(intent, sequence, session.path, session.id, ledger.extents[1])], session.path)
    store.close()

    assert isinstance(record, aexp.Record), record
    assert git("rev-parse", f"{account.ref}^{{tree}}", cwd=repo_path) == GOLDEN_TREE
    assert git("rev-parse", account.ref, cwd=repo_path) == record.rev == GOLDEN_COMMIT
    fsck(repo_path)


# ---- the commit ----


async def saved(repository: aexp.Repository, metrics: Mapping[str, float] | None = None, **options: Any) -> aexp.Record:
    """Save an experiment called `it` in which these metrics were logged at step 3."""
    async with repository.experiment("it", **options) as experiment:
        await experiment.log_metrics(metrics or {}, 3)
    assert experiment.record is not None
    return experiment.record


async def test_the_tree_is_the_baseline_and_a_folder(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Fsck
) -> None:
    """The tree is that of the baseline, with the logged files, the experiment's own folder, and what `dvc init` makes."""
    async with repository.experiment("it", params={"lr": 0.1}) as experiment:
        await experiment.log_metrics({"loss": 0.5, "train/loss": 0.25})
        await experiment.log_file("data/more.txt", "x")
    rev = experiment.record.rev if experiment.record else ""

    own = ["dvc.yaml", "experiment.json", "metrics.json", "params.yaml"]
    series = ["plots/metrics/loss.tsv", "plots/metrics/train/loss.tsv"]
    dvc = [f"A\t{path}" for path in (".dvc/.gitignore", ".dvc/config", ".dvcignore")]
    added = dvc + [f"A\taexp/{name}" for name in own + series] + ["A\tdata/more.txt"]
    assert git("diff-tree", "-r", "--name-status", "HEAD", rev, cwd=repo_path).splitlines() == added
    assert set(git("ls-tree", "-r", "--format=%(objectmode)", rev, cwd=repo_path).split()) == {"100644"}
    assert git("cat-file", "-t", experiment.ref, cwd=repo_path) == "commit"
    fsck(repo_path)


async def test_the_commit_names_the_experiment(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """The first parent is the baseline, who made it is who Git says, and trailers hold id, name and status."""
    record = await saved(repository, message="why\n\nAexp-Id: forged\nAexp-Status: finished")
    text = git("cat-file", "commit", record.rev, cwd=repo_path)

    assert git("rev-list", "--parents", "-1", record.ref, cwd=repo_path).split() == [record.rev, record.baseline]
    assert git("log", "-1", "--format=%an <%ae>, %cn <%ce>", record.ref, cwd=repo_path) == (
        "Ada Lovelace <ada@example.org>, Ada Lovelace <ada@example.org>"
    )
    trailers = f"Aexp-Id: {record.id}\nAexp-Name: it\nAexp-Status: finished"
    assert git("log", "-1", "--format=%(trailers:only)", record.ref, cwd=repo_path).strip() == trailers
    assert text.endswith(f"\n\nwhy\n\nAexp-Id: forged\nAexp-Status: finished\n\n{trailers}")
    assert (await repository.get("it")).id == record.id


async def test_the_title_is_the_name(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Without a message the commit is titled by the experiment's name."""
    record = await saved(repository)

    assert git("log", "-1", "--format=%s", record.ref, cwd=repo_path) == "aexp: it"
    assert record.message == ""


@pytest.mark.parametrize("measured", [True, False])
async def test_the_pipeline_file_says_where_things_are(repository: aexp.Repository, measured: bool) -> None:
    """dvc.yaml names parameters, metrics and, when there is a series, plots, relative to its own folder."""
    await saved(repository, {"loss": 0.5} if measured else {})
    plots = "plots:\n- plots/metrics:\n    x: step\n" if measured else ""

    expected = f"params:\n- params.yaml\nmetrics:\n- metrics.json\n{plots}"
    assert (await repository.read("it", "aexp/dvc.yaml")).decode() == expected


async def test_the_summary_is_nested_by_groups(repository: aexp.Repository) -> None:
    """metrics.json holds the last values in groups; a member of a group that is also a metric stands under its flat name."""
    metrics: dict[str, Any] = {"a": 1, "a/b": 2.0, "a/b/c": True, "g/x": math.nan, "g/h/y": -math.inf, "g/h/z": -0.0}
    record = await saved(repository, metrics | {"2**53": 2**53, "tiny": 5e-324, '\u00e9"\\': 0.1})
    text = (await repository.read("it", "aexp/metrics.json")).decode()

    assert text == (
        '{\n  "a": 1,\n  "a/b": 2.0,\n  "a/b/c": true,\n  "g": {\n    "x": "nan",\n    "h": {\n'
        '      "y": "-inf",\n      "z": -0.0\n    }\n  },\n  "2**53": 9007199254740992,\n'
        '  "tiny": 5e-324,\n  "\u00e9\\"\\\\": 0.1,\n  "step": 3\n}\n'
    )
    assert {name: repr(value) for name, value in record.metrics.items()} == {
        name: repr(value)
        for name, value in {**metrics, "2**53": 2**53, "tiny": 5e-324, '\u00e9"\\': 0.1, "step": 3}.items()
    }


async def test_a_metric_called_step_is_not_overwritten(repository: aexp.Repository) -> None:
    """A metric, or a group, that the program calls `step` has that place in the summary."""
    assert (await saved(repository, {"step": 0.5})).metrics == {"step": 0.5}
    record = await saved(repository, {"step/x": 0.5}, force=True)
    assert record.metrics == {"step/x": 0.5} == (await repository.get("it")).metrics


async def test_a_series_is_a_table(repository: aexp.Repository) -> None:
    """A series is a TSV of step and value, ordered by step; a column of milliseconds comes first where any was given."""
    async with repository.experiment("it") as experiment:
        for step, value in [(1, 0.1), (0, True), (3, math.nan), (-2, 2**53), (3, 1e300)]:
            await experiment.log_metric("plain", value, step)
        await experiment.log_metric('with "quotes"', 1, 0, timestamp=1_790_000_000.123456)
        await experiment.log_metric('with "quotes"', 2, 1)
        await experiment.log_metric('with "quotes"', 3, 2, timestamp=1)

    plain = b"step\tplain\n-2\t9007199254740992\n0\tTrue\n1\t0.1\n3\tnan\n3\t1e+300\n"
    assert await repository.read("it", "aexp/plots/metrics/plain.tsv") == plain
    stamped = b'timestamp\tstep\t"with ""quotes"""\n1790000000123.456\t0\t1\n\t1\t2\n1000\t2\t3\n'
    assert await repository.read("it", "aexp/plots/metrics/with %22quotes%22.tsv") == stamped


async def test_the_account_is_complete(repository: aexp.Repository) -> None:
    """experiment.json tells all that the record does, and where it ran."""
    record = await saved(repository, {"loss": 0.5}, params={"lr": 0.1}, tags=["a"], message="why", code="none")
    account = json.loads(await repository.read("it", "aexp/experiment.json"))

    about = {"format": 1, "id": record.id, "name": "it", "status": "finished", "error": None, "tags": ["a"]}
    assert about.items() <= account.items()
    assert account["code"] == {
        "mode": "none",
        "tree": record.code and record.code.tree,
        "changed": False,
        "skipped": [],
    }
    assert (datetime.fromisoformat(account["created"]), account["duration"]) == (record.created, record.duration)
    assert datetime.fromisoformat(account["ended"]) == record.ended
    assert account["params"] == {"lr": 0.1}
    for key in ("host", "user", "python", "packages", "session"):
        assert isinstance(account[key], str)
        assert account[key]


@pytest.mark.parametrize("folder", ["aexp", "logs/exp"])
async def test_nothing_of_an_older_experiment_is_left(repo_path: Path, git: Git, folder: str) -> None:
    """The folder holds this experiment alone, even when the baseline is a merged experiment with the same folder."""
    async with aexp.Repository(repo_path, settings=Settings(folder=folder)) as repository:
        async with repository.experiment("old") as experiment:
            await experiment.log_metrics({"old": 1, "both": 1})
            await experiment.log_file(f"{folder}/notes.txt", "old")
        git("merge", "--quiet", experiment.ref, cwd=repo_path)
        (repo_path / folder / "dvc.yaml").write_text("changed: by hand\n")
        record = await saved(repository, {"both": 2})
        files = git("ls-tree", "-r", "--name-only", record.rev, f"{folder}/", cwd=repo_path).split()

        own = ["dvc.yaml", "experiment.json", "metrics.json", "params.yaml", "plots/metrics/both.tsv"]
        assert files == [f"{folder}/{name}" for name in own]
        assert record.code is not None
        assert not record.code.changed
        assert record == await repository.get("it")


HOSTILE = [
    *[".git/x", ".git", "a/.git/config", "git~1", ".GIT/hooks", ".gitmodules", "a.tsv/b", "a", "a.tsv", "a.TSV/c"],
    *["CON", "con.txt", "nul/x", "x:y", "x\\y", "x?*<>|", "end.", "end ", " ", "%2e%2e", "~", "-rf", "#", '"q"'],
    *[
        "caf\u00e9",
        "cafe\u0301",
        "\u65e5\u672c/\u8a9e",
        "\U0001f600",
        "\u202ertl",
        "\u200b",
        "\ufeff",
        "x" * 255,
        "\u65e5" * 255,
    ],
    *["/".join("ab" * 60), "loss", "Loss", "LOSS", "\u2028", "dvc.yaml", ".../x", "x%" + "0" * 40],
]


async def test_hostile_metric_names_stay_inside(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git, fsck: Fsck
) -> None:
    """However a metric is called, its file lies below the folder of series, Git can check it out, and it is read back."""
    record = await saved(repository, {name: number for number, name in enumerate(HOSTILE)})
    files = git("-c", "core.quotePath=false", "diff-tree", "-r", "--name-only", "-z", "HEAD", record.rev, cwd=repo_path)
    series = [path for path in files.split("\0") if path.endswith(".tsv")]

    assert len(series) == len(HOSTILE)
    assert all(path.startswith("aexp/plots/metrics/") for path in series)
    fsck(repo_path)
    git("-c", "core.protectNTFS=true", "-c", "core.protectHFS=true", "worktree", "add", "--quiet", "--detach",
        tmp_path / "out", record.rev, cwd=repo_path)  # fmt: skip
    assert all((tmp_path / "out" / path).is_file() for path in series)
    history = await repository.history("it")
    assert {name: history[name].values[0] for name in history} == {name: n for n, name in enumerate(HOSTILE)}
    assert record.metrics == {name: number for number, name in enumerate(HOSTILE)} | {"step": 3}


# ---- and nothing else ----


def contents(root: Path, *, without: tuple[str, ...] = ()) -> dict[str, tuple[bytes, int]]:
    """The content and the time of every file below the folder."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            place = path.relative_to(root).as_posix()
            if not place.startswith(without):
                found[place] = (path.read_bytes(), path.stat().st_mtime_ns)
    return found


async def test_the_users_repository_stays_as_it_is(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """HEAD, branches, index, work tree, configuration and reflogs are the same, byte by byte, before and after."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    git("add", "train.py", cwd=repo_path)
    (repo_path / "train.py").write_text("lr = 0.3\n")
    (repo_path / "README.md").unlink()
    (repo_path / "new.txt").write_text("untracked\n")
    git("mv", "data/notes.txt", "data/moved.txt", cwd=repo_path)
    status = git("status", "--porcelain=v2", cwd=repo_path)  # git refreshes the index here, aexp does not
    ours = (".git/aexp/", ".git/objects/", ".git/refs/exps/", ".git/refs/aexp/")
    before = contents(repo_path, without=ours)
    async with aexp.Repository(repo_path) as repository:
        for number, code in enumerate(("tracked", "all", "none")):
            async with repository.experiment(f"e{number}", code=code) as experiment:  # type: ignore[arg-type]
                await experiment.log_metric("m", 1.0)
                await experiment.log_file("train.py", "other\n")
                await experiment.make_checkpoint()
        await (await repository.experiment("gone").init()).discard()

    assert contents(repo_path, without=ours) == before
    assert git("status", "--porcelain=v2", cwd=repo_path) == status
    fsck(repo_path)


async def test_a_thousand_experiments_share_one_captured_tree(repo_path: Path, git: Git, fsck: Fsck) -> None:
    """Experiments that start from one state share one anchor and one pack; the anchor goes when all have ended."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    packs = repo_path / ".git" / "objects" / "pack"
    async with aexp.Repository(repo_path) as repository:
        experiments = [repository.experiment(f"sweep-{number}") for number in range(1000)]
        await asyncio.gather(*[experiment.init() for experiment in experiments])
        anchors = git("for-each-ref", "refs/aexp/", cwd=repo_path).splitlines()
        assert len(anchors) == len(list(packs.glob("*.pack"))) == 1
        records = await asyncio.gather(*[experiment.save() for experiment in experiments])
        assert len({record.code and record.code.tree for record in records}) == 1
        assert len(list(packs.glob("*.pack"))) < 50

    assert len(git("for-each-ref", "refs/exps/", cwd=repo_path).splitlines()) == 1000
    assert git("for-each-ref", "refs/aexp/", cwd=repo_path) == ""
    left = [
        path.name
        for path in (repo_path / ".git").rglob("*")
        if path.suffix in (".lock", ".keep") or "tmp_" in path.name
    ]
    assert left == ["owner.lock"]
    assert os.listdir(repo_path / ".git" / "aexp" / "sessions") == []
    fsck(repo_path)
