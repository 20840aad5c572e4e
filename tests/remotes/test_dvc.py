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
