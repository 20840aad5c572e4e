"""What `dvc exp show` keeps of a commit is there before it asks, byte by byte as it would write it."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Tool = Callable[..., Any]


def kept(path: Path) -> dict[str, bytes]:
    """The entries of DVC's cache of rows, by rev."""
    folder = path / ".dvc/tmp/exps/cache"
    return {f"{each.parent.name}{each.name}": each.read_bytes() for each in folder.glob("*/*")}


async def save(path: Path, *names: str, **settings: Any) -> list[str]:
    """Save experiments with a bit of everything, one with a checkpoint; return the revs of all their commits."""
    revs = []
    async with aexp.Repository(path, settings=aexp.Settings(**settings)) as repository:
        for name in names:
            params = {"name": name, "tiny": 1e-8, "nan": [float("nan")], "é": {"2020-01-01": None}, "big": 10**30}
            async with repository.experiment(name, params=params) as experiment:
                await experiment.log_metrics({"train/loss": float("inf"), "acc": -0.0, "ok": True}, step=2**53)
                if name == names[0]:
                    revs.append(await experiment.make_checkpoint())
                await experiment.log_file(f"notes/{name}.txt", "hi")
            assert experiment.record is not None
            revs.append(experiment.record.rev)
    return revs


def prove(path: Path, dvc: Tool, revs: list[str], *, home: Path | None = None) -> None:
    """What aexp wrote is what DVC writes when it has to find out by itself."""
    place = home or path
    ours = kept(place)
    assert set(revs) <= set(ours)
    shutil.rmtree(place / ".dvc/tmp/exps/cache")
    dvc("exp", "show", "--json", "-A", cwd=place)
    theirs = kept(place)
    assert {rev: ours[rev] for rev in revs} == {rev: theirs[rev] for rev in revs}


def add_pipeline(path: Path) -> None:
    """Add stages, data, plots, artifacts, a dvc.yaml in a folder, params of three kinds, and a lock file."""
    files = {
        "a.b/dvc.yaml": "params: [p.json]\n",
        "a.b/p.json": '{"one": 1, "list": [1, {"x": null}]}',
        "a/dvc.yaml": "metrics: [m.toml]\nparams: [q.json]\nplots:\n- m.toml:\n    x: a\n",
        "a/m.toml": "acc = 0.5\n[deep]\nnone = []\n",
        "a/q.json": '{"Net": {"width": 8, "depth": 2}}',
        "z/dvc.yaml": "metrics: [../m.json]\n",
        "m.json": '{"x": 1, "drop": [1], "null": null, "text": "t"}',
        "prepare.py": f"open('data.txt', 'w').write('x' * 100)\n# {sys.executable}\n",
        "dvc.yaml": "stages:\n"
        f"  prepare:\n    cmd: {sys.executable} prepare.py\n    deps: [prepare.py]\n"
        "    params: [train.lr, a/q.json: [Net.width]]\n"
        "    outs: [data.txt]\n"
        f"  never:\n    cmd: {sys.executable} -c 1\n    deps: [data.txt]\n    wdir: a\n"
        "    outs: [never.bin: {cache: false}]\n    desc: never run\n    frozen: true\n"
        "artifacts:\n  model:\n    path: data.txt\n    type: model\n",
        "tracked.bin": "bytes\n",
    }
    for name, text in files.items():
        (path / name).parent.mkdir(exist_ok=True, parents=True)
        (path / name).write_text(text)
    # the stage `never` runs in `a`, where there is no data.txt
    (path / "dvc.yaml").write_text(files["dvc.yaml"].replace("deps: [data.txt]", "deps: [../data.txt]"))


async def test_rows_are_written_ahead(repo_path: Path, dvc: Tool) -> None:
    """Check 25: the rows of all commits, checkpoints too, are there after the saves, byte by byte DVC's own."""
    prove(repo_path, dvc, await save(repo_path, "one", "two"))


async def test_rows_in_a_repository_with_pipelines(repo_path: Path, dvc: Tool, git: Tool) -> None:
    """Stages with dependencies, outputs and a lock file, tracked data, several dvc.yaml: still byte by byte."""
    add_pipeline(repo_path)
    dvc("add", "tracked.bin", cwd=repo_path)
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "pipeline", cwd=repo_path)
    dvc("repro", "prepare", cwd=repo_path)
    git("add", ".", cwd=repo_path)
    prove(repo_path, dvc, await save(repo_path, "one"))
    git("commit", "--quiet", "-m", "ran", cwd=repo_path)
    prove(repo_path, dvc, await save(repo_path, "two"))


@pytest.mark.parametrize(
    "files",
    [
        {"dvc.yaml": "metrics: [missing.json]\n"},
        {"dvc.yaml": "metrics: [m.json]\n", "m.json": "{"},
        {"dvc.yaml": "unknown: 1\n"},
        {"dvc.yaml": "stages:\n  a:\n    cmd: echo ${train.lr}\n    metrics: ['${train.lr}.json']\n"},
        {"dvc.yaml": "stages:\n  a:\n    outs: [x]\n"},
        {"dvc.yaml": "plots:\n- x:\n    colour: red\n"},
        {"params.yaml": "when: 2020-01-01\n"},
        {"params.yaml": "a: 1\na: 2\n", "dvc.yaml": "metrics: []\n"},
        {"dvc.yaml": "params: [conf]\n", "conf/a.yaml": "a: 1\n", "conf/b.yaml": "b: 1\n"},
        {"x.dvc": "outs:\n- md5: 1\n  path: x\n"},
        {"sub/.dvc/config": "", "sub/dvc.yaml": "metrics: [m.json]\n", "sub/m.json": '{"a": 1}'},
        {"dvc.yaml": "metrics: ['../m.json']\n"},
    ],
)
async def test_what_is_not_certain_is_left_to_dvc(
    repo_path: Path, dvc: Tool, git: Tool, rows: Tool, files: dict[str, str]
) -> None:
    """Where the tree holds something DVC may see in another way, there is no row ahead, and what DVC shows is its own."""
    for name, text in files.items():
        (repo_path / name).parent.mkdir(exist_ok=True, parents=True)
        (repo_path / name).write_text(text)
    git("add", "--force", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "odd", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository, repository.experiment("one") as one:
        pass
    assert one.record is not None
    assert one.record.rev not in kept(repo_path)
    cold = rows(repo_path)["one"]
    assert rows(repo_path, "--force")["one"] == cold


async def test_rows_stand_where_dvc_stands(template: Path, tmp_path: Path, dvc: Tool, git: Tool) -> None:
    """In a DVC repository in a folder, and in a linked worktree, rows are written into its own `.dvc`."""
    path = Path(shutil.copytree(template, tmp_path / "mono"))
    project = path / "project"
    (project / "deep").mkdir(parents=True)
    (project / "params.yaml").write_text("batch: 8\n")
    dvc("init", "--quiet", "--subdir", cwd=project)
    git("add", ".", cwd=path)
    git("commit", "--quiet", "-m", "project", cwd=path)
    prove(project / "deep", dvc, await save(project / "deep", "one", folder="project/aexp"), home=project)
    linked = tmp_path / "linked"
    git("worktree", "add", "--quiet", "--detach", linked, cwd=path)
    prove(linked / "project", dvc, await save(linked / "project", "two", folder="project/aexp"))


async def test_a_row_that_is_there_stays(repo_path: Path) -> None:
    """What DVC has written of a commit is not written again."""
    async with aexp.Repository(repo_path) as repository, repository.experiment("one") as one:
        pass
    assert one.record is not None
    rev = one.record.rev
    place = repo_path / f".dvc/tmp/exps/cache/{rev[:2]}/{rev[2:]}"
    before = place.stat()
    async with aexp.Repository(repo_path) as repository:
        await repository.get("one")
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [each.name for each in place.parent.iterdir()] == [rev[2:]]


async def test_no_row_leaves_the_repository(repo_path: Path, tmp_path: Path) -> None:
    """Where `.dvc/tmp` is a link that leads out of the repository, nothing is written through it."""
    shutil.rmtree(repo_path / ".dvc/tmp")
    (tmp_path / "outside").mkdir()
    (repo_path / ".dvc/tmp").symlink_to(tmp_path / "outside")
    async with aexp.Repository(repo_path) as repository, repository.experiment("one") as one:
        pass
    assert one.record is not None
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.timeout(300)
async def test_the_first_table_after_a_sweep_is_as_fast_as_the_next(repo_path: Path, cli: Tool, rows: Tool) -> None:
    """The first `dvc exp show` after 200 saves takes at most 1.3 times as long as the next ones (of 3 sweeps, the best)."""
    ratios = []
    for sweep in range(3):
        async with aexp.Repository(repo_path) as repository:
            for number in range(200):
                name = f"sweep-{sweep}-{number}"
                async with repository.experiment(name, params={"number": number, "lr": 0.1}) as experiment:
                    await experiment.log_metric("loss", 1 / (number + 1), 0)
        times = []
        for _ in range(3):
            began = time.perf_counter()
            cli("dvc", "exp", "show", "--json", cwd=repo_path)
            times.append(time.perf_counter() - began)
        first, *warm = times
        ratios.append(first / min(warm))
        if ratios[-1] <= 1.3:
            break
    assert min(ratios) <= 1.3, ratios
    assert len(rows(repo_path)) == 200 * len(ratios)
