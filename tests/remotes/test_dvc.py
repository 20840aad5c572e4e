"""DVC and aexp share remotes: what one pushes the other lists and pulls."""

import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import aexp

Git = Callable[..., str]
Saved = Callable[..., Awaitable[list[aexp.Record]]]

pytestmark = [pytest.mark.remotes, pytest.mark.compat, pytest.mark.timeout(180)]

DVC = shutil.which("dvc", path=str(Path(sys.executable).parent)) or shutil.which("dvc")


def dvc(*arguments: str, cwd: Path) -> str:
    """Run `dvc` in *cwd*; skips the test where it is not installed."""
    if DVC is None:
        pytest.skip("dvc is not installed here: WHAT DVC MAKES OF OUR REMOTES IS NOT TESTED")
    done = subprocess.run([DVC, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_dvc_pulls_what_aexp_pushed_and_the_other_way(
    repository: aexp.Repository, other: aexp.Repository, repo_path: Path, other_path: Path, git: Git, saved: Saved
) -> None:
    """An experiment that aexp pushed is listed and pulled by DVC, one that DVC pushed by aexp, each as the same commit."""
    for path in (repo_path, other_path):
        dvc("init", "--quiet", cwd=path)
        git("commit", "--quiet", "--message=dvc", "--date=2026-01-02T00:00:00Z", cwd=path)
    git("push", "--quiet", "origin", "main", cwd=repo_path)
    git("fetch", "--quiet", cwd=other_path)
    git("reset", "--quiet", "--hard", "origin/main", cwd=other_path)

    (ours,) = await saved(repository, "from-aexp")
    await repository.push()
    assert "from-aexp" in dvc("exp", "list", "origin", cwd=other_path)
    dvc("exp", "pull", "origin", "from-aexp", "--no-cache", cwd=other_path)
    assert git("rev-parse", ours.ref, cwd=other_path) == ours.rev
    assert [each.outcome for each in await other.pull()] == ["up to date"]

    (other_path / "params.yaml").write_text("train:\n  lr: 0.5\n")
    dvc("exp", "save", "--name", "from-dvc", cwd=other_path)
    dvc("exp", "push", "origin", "from-dvc", "--no-cache", cwd=other_path)
    assert {each.name for each in await repository.remote_experiments()} == {"from-aexp", "from-dvc"}
    assert {each.name: each.outcome for each in await repository.pull()} == {
        "from-aexp": "up to date",
        "from-dvc": "new",
    }
    assert (await repository.get("from-dvc")).params["train"]["lr"] == 0.5
    assert [each.outcome for each in await other.push("from-dvc")] == ["up to date"]


async def test_what_dvc_tracks_in_its_own_experiments_is_known_and_moved(
    other_path: Path, repo_path: Path, tmp_path: Path, git: Git
) -> None:
    """An experiment of `dvc exp run` has its tracked files and the outs of its stages as artifacts, and their data travels.

    Whoever pulls it with aexp can check it out with `dvc`, which finds nothing to fetch.
    """
    dvc("init", "--quiet", cwd=repo_path)
    dvc("remote", "add", "--default", "store", str(tmp_path / "store"), cwd=repo_path)
    (repo_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (repo_path / "images" / name).write_text(name)
    dvc("add", "images", cwd=repo_path)
    (repo_path / "dvc.yaml").write_text(
        "stages:\n  train:\n    cmd: sh -c 'cat images/a.png params.yaml > model.bin'\n"
        "    deps: [images]\n    params: [train.lr]\n    outs: [model.bin]\n"
        "artifacts:\n  net:\n    path: model.bin\n    type: model\n    labels: [small]\n"
    )
    git("add", "--all", cwd=repo_path)
    git("commit", "--quiet", "--message=pipeline", cwd=repo_path)
    git("push", "--quiet", "origin", "HEAD", cwd=repo_path)
    dvc("exp", "run", "--name", "by-dvc", "-S", "train.lr=0.7", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        record = await repository.get("by-dvc")
        assert [await repository.get("by-dvc")] == list(await repository.experiments()) == [record]
        (transfer,) = await repository.push("by-dvc")
    model = (repo_path / "model.bin").read_bytes()

    assert {each.path: (each.name, each.size, each.files, each.type, each.labels) for each in record.artifacts} == {
        "images": ("images", 10, 2, None, ()),
        "model.bin": ("net", len(model), None, "model", ("small",)),
    }
    assert transfer.data == "transferred"
    git("pull", "--quiet", cwd=other_path)
    async with aexp.Repository(other_path) as other:
        (pulled,) = await other.pull("by-dvc")
        assert (await other.get("by-dvc")).artifacts == record.artifacts
    assert pulled.data == "transferred"
    shutil.rmtree(tmp_path / "store")
    dvc("exp", "apply", "by-dvc", cwd=other_path)
    assert (other_path / "model.bin").read_bytes() == model
    assert (other_path / "images" / "b.png").read_text() == "b.png"


HOSTILE = [
    "outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  size: x\n  hash: md5\n  path: ../../etc/passwd\n",
    "outs:\n- md5: ../../../../etc\n  hash: md5\n  path: a\n",
    "outs: [[[[]]]]\n",
    "&a [*a, *a]\n",
    "\x00\x01",
    "outs:\n" + "- {md5: d41d8cd98f00b204e9800998ecf8427e, hash: md5, path: x}\n" * 5000,
    "artifacts: {a: {path: x, labels: {}, meta: []}}\nouts: 1\n",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_files_that_are_none_of_dvcs_hide_nothing(text: str, repo_path: Path, git: Git) -> None:
    """Whatever stands in `.dvc` files and pipelines, the experiment is listed, with what can be read of the others."""
    (repo_path / "bad.dvc").write_text(text)
    (repo_path / "sub").mkdir()
    (repo_path / "sub" / "dvc.lock").write_text(text)
    (repo_path / "sub" / "dvc.yaml").write_text(text if "artifacts" in text else "stages: {}\n")
    (repo_path / "good.dvc").write_text(
        "outs:\n- md5: 63f4f1e9b725370f459720575cd5f953\n  size: 7\n  hash: md5\n  path: model.bin\n"
    )
    git("add", "--all", "--force", cwd=repo_path)
    tree = git("write-tree", cwd=repo_path)
    rev = git("commit-tree", tree, "-p", "HEAD", "-m", "foreign", cwd=repo_path)
    base = git("rev-parse", "HEAD", cwd=repo_path)
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/foreign", rev, cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        (record,) = await repository.experiments()

    assert record.name == "foreign"
    paths = {each.path for each in record.artifacts}
    assert "model.bin" in paths
    assert not any(path.startswith(("/", "..")) for path in paths)
