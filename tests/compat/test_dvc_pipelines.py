"""Pipelines of DVC in private checkouts: they leave what `dvc exp run` leaves, share its cache, and do not wait for each other."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

import aexp

pytestmark = [pytest.mark.compat, pytest.mark.timeout(240)]

Git = Callable[..., str]
DVC = Path(sys.executable).with_name("dvc")
FILES = {
    "params.yaml": "# what matters\nprepare:\n  count: 10\ntrain:\n  lr: 0.1  # the rate\n",
    "prepare.py": (
        "import os, yaml\n"
        "count = yaml.safe_load(open('params.yaml'))['prepare']['count']\n"
        "os.makedirs('prepared', exist_ok=True)\n"
        "text = open('data.csv').read()\n"
        "for number in range(count):\n"
        "    open(f'prepared/{number}.txt', 'w').write(text * number)\n"
    ),
    "train.py": (
        "import json, os, yaml\n"
        "lr = yaml.safe_load(open('params.yaml'))['train']['lr']\n"
        "size = sum(len(open(f'prepared/{name}').read()) for name in sorted(os.listdir('prepared')))\n"
        "open('model.bin', 'w').write('w' * int(size * lr))\n"
        "json.dump({'loss': 1 / (size * lr)}, open('metrics.json', 'w'))\n"
        "json.dump([{'x': 1, 'y': lr}], open('curve.json', 'w'))\n"
    ),
    "dvc.yaml": (
        "stages:\n"
        "  prepare:\n    cmd: python prepare.py\n    deps: [prepare.py, data.csv]\n    params: [prepare.count]\n"
        "    outs: [prepared]\n"
        "  train:\n    cmd: python train.py\n    deps: [train.py, prepared]\n    params: [train.lr]\n"
        "    outs: [model.bin]\n    metrics:\n    - metrics.json:\n        cache: false\n"
        "    plots:\n    - curve.json:\n        cache: false\n"
    ),
}


@pytest.fixture
def dvc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """`dvc("repro", cwd=path)` is what dvc prints; its programs find this Python first."""
    if not DVC.exists():
        pytest.skip("NO DVC: install it to compare pipelines")
    monkeypatch.setenv("PATH", f"{DVC.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(*arguments: str, cwd: Path) -> str:
        done = subprocess.run(["dvc", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def project(tmp_path: Path, git: Git, dvc: Callable[..., str]) -> Path:
    """A repository with data in the cache of DVC, and a pipeline of two stages that has run once."""
    path = tmp_path / "project"
    path.mkdir()
    git("init", "--quiet", "--initial-branch=main", cwd=path)
    dvc("init", "--quiet", cwd=path)
    (path / "data.csv").write_text("1,2,3\n")
    dvc("add", "--quiet", "data.csv", cwd=path)
    for name, text in FILES.items():
        (path / name).write_text(text)
    dvc("repro", "--quiet", cwd=path)
    git("add", "--all", cwd=path)
    git("commit", "--quiet", "--message=start", cwd=path)
    return path


def tree(path: Path, rev: str, git: Git) -> dict[str, str]:
    """Mode and blob of every file of a commit outside of aexp's own folder."""
    lines = git("ls-tree", "-r", rev, cwd=path).splitlines()
    found = {name: about for about, name in (line.split("\t") for line in lines)}
    return {name: about for name, about in found.items() if not name.startswith("aexp/")}


async def test_the_tree_is_that_of_dvc(project: Path, git: Git, dvc: Callable[..., str]) -> None:
    """`dvc repro` in a checkout with overrides leaves the very tree that `dvc exp run -S` leaves, and data in the same cache."""
    before = git("status", "--porcelain", cwd=project), (project / "model.bin").read_bytes()
    async with aexp.Repository(project) as repository:
        async with repository.experiment("ours", overrides=["train.lr=0.7", "prepare.count=5"]) as experiment:
            await experiment.run(["dvc", "repro"])
        record = experiment.record
    assert record is not None
    after = git("status", "--porcelain", cwd=project), (project / "model.bin").read_bytes()
    assert record.code is not None
    assert not record.code.skipped
    dvc("exp", "run", "--quiet", "--name", "theirs", "-S", "train.lr=0.7", "-S", "prepare.count=5", cwd=project)
    theirs = git("for-each-ref", "--format=%(objectname)", "refs/exps/**/theirs", cwd=project)

    ours = tree(project, record.rev, git)
    assert before == after
    assert ours.keys() == tree(project, theirs, git).keys()
    different = {name for name, about in tree(project, theirs, git).items() if ours[name] != about}
    assert different <= {"params.yaml"}  # we keep its comments
    assert "# the rate" in git("show", f"{record.rev}:params.yaml", cwd=project)
    git("checkout", "--quiet", "--", ".", cwd=project)
    dvc("exp", "apply", "ours", cwd=project)
    assert (project / "model.bin").stat().st_size == int((project / "prepared" / "4.txt").stat().st_size * 2.5 * 0.7)
    assert "up to date" in dvc("status", cwd=project)


async def test_what_has_run_is_not_run_again(project: Path) -> None:
    """Stages whose inputs are unchanged are skipped, and those that ran in another checkout come from the cache of runs."""
    async with aexp.Repository(project) as repository:
        said = []
        for name in ("one", "two", "three"):
            async with repository.experiment(name, overrides=["train.lr=0.3"] if name != "one" else []) as experiment:
                done = await experiment.run(["dvc", "repro"])
                said.append(done.stdout.decode())

    assert "Running stage" not in said[0]
    assert "Stage 'prepare' didn't change, skipping" in said[1]
    assert "Running stage 'train'" in said[1]
    assert "Stage 'train' is cached - skipping run, checking out outputs" in said[2]


async def test_eight_at_once(project: Path, git: Git, dvc: Callable[..., str]) -> None:
    """Eight pipelines at once on one loop all end well, each with the result of its own parameters, and DVC reads them."""
    limiter = anyio.CapacityLimiter(8)

    async def one(repository: aexp.Repository, number: int) -> None:
        async with limiter, repository.experiment(f"e{number}", overrides=[f"train.lr={number}"]) as experiment:
            await experiment.run(["dvc", "repro"])

    async with aexp.Repository(project) as repository:
        await asyncio.gather(*(one(repository, number) for number in range(1, 9)))
        records = await repository.experiments(sort="name")

    losses = [record.metrics["loss"] for record in records]
    assert losses == pytest.approx([losses[0] / number for number in range(1, 9)])
    assert not git("status", "--porcelain", cwd=project)
    assert dvc("exp", "show", "--csv", cwd=project).count("\n") == 11
    dvc("exp", "apply", "e8", cwd=project)
    assert "up to date" in dvc("status", cwd=project)


async def test_settings_of_dvc_hold_in_it(project: Path, tmp_path: Path, git: Git, dvc: Callable[..., str]) -> None:
    """Cache, kinds of links and remotes are those of the project, also where its files say so relative to themselves."""
    dvc("remote", "add", "--local", "store", "../store", cwd=project)
    dvc("config", "--local", "cache.type", "symlink", cwd=project)
    async with (
        aexp.Repository(project) as repository,
        repository.experiment("one") as experiment,
        experiment.workspace() as path,
    ):
        assert Path(dvc("cache", "dir", cwd=path).strip()) == (project / ".dvc" / "cache").resolve()
        assert dvc("remote", "list", cwd=path).split()[1] == str(tmp_path / "store")
        assert (path / "data.csv").is_symlink()
        assert (path / "data.csv").read_text() == "1,2,3\n"
        assert len(list((path / "prepared").iterdir())) == 10
        assert "up to date" in dvc("status", cwd=path)
    assert experiment.record is not None
    assert tree(project, experiment.record.rev, git) == tree(project, "HEAD", git)
