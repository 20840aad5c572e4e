"""Artifacts beside the real DVC: the same bytes as `dvc add`, and what one keeps the other brings back."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import aexp

Git = Callable[..., str]

pytestmark = [pytest.mark.compat, pytest.mark.timeout(300)]

FILES = {
    "model.pt": b"weights" * 300_000,
    "my model: v1.bin": b"",
    "p[1]*.x": b"x",
    "sub/yes": b"yes\n",
    "sub/null": b"null\n",
    "sub/123": b"1",
    "sub/a.log": b"ignored by a pattern",
    "sub/#no": b"#",
    "sub/Grüße aus Köln, ein sehr langer Name mit vielen Wörtern, der in YAML umgebrochen werden könnte.txt": b"de",
    "set/b.txt": b"1",
    "set/B.txt": b"2",
    "set/deep/ü": b"3",
    "set/run.sh": b"4",
}
PATHS = [*(path for path in FILES if not path.startswith("set/")), "set", "empty", "sub/run.sh"]


def dvc(cwd: Path, *arguments: str) -> str:
    """Run DVC; return what it prints."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def project(repo_path: Path, git: Git) -> Path:
    """A repository with DVC, and files that neither knows."""
    dvc(repo_path, "init", "-q")
    (repo_path / "empty").mkdir()
    for name, content in FILES.items():
        (repo_path / name).parent.mkdir(exist_ok=True)
        (repo_path / name).write_bytes(content)
    (repo_path / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (repo_path / "sub" / "run.sh").chmod(0o755)
    (repo_path / "set" / "run.sh").chmod(0o755)
    (repo_path / "sub" / ".gitignore").write_text("*.log")
    git("add", ".dvc", ".dvcignore", "sub/.gitignore", cwd=repo_path)
    git("commit", "--quiet", "--message=dvc", cwd=repo_path)
    return repo_path


def store_of(path: Path) -> dict[str, tuple[int, bytes]]:
    """All objects in the cache of DVC, with their modes."""
    cache = path / ".dvc" / "cache"
    return {
        str(each.relative_to(cache)): (each.stat().st_mode, each.read_bytes())
        for each in cache.rglob("*")
        if each.is_file()
    }


async def test_the_same_bytes_as_dvc_add(project: Path, tmp_path: Path, git: Git) -> None:
    """`.dvc` files, `.gitignore` files and the cache are what `dvc add` makes of the same files, whatever their names."""
    theirs = tmp_path / "theirs"
    shutil.copytree(project, theirs, symlinks=True)
    dvc(theirs, "add", "-q", "--", *PATHS)
    written = [f"{path}.dvc" for path in PATHS] + [".gitignore", "sub/.gitignore"]
    async with aexp.Repository(project) as repository:
        async with repository.experiment("it") as experiment:
            for path in PATHS:
                await experiment.log_artifact(path)
        for path in written:
            assert await repository.read("it", path) == (theirs / path).read_bytes(), path
    assert store_of(project) == store_of(theirs)
    changed = git("diff", "--name-only", "-z", "HEAD", experiment.ref, cwd=project).split("\0")
    assert {path for path in changed if path and not path.startswith("aexp/")} == set(written)


async def test_dvc_reads_and_restores_them(project: Path, git: Git) -> None:
    """`dvc exp show` and `dvc artifacts get` know them; `dvc exp apply` brings them back, and is content afterwards."""
    async with aexp.Repository(project) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.log_artifact("model.pt", "best", type="model", labels=["a"], meta={"k": [1]})
            await experiment.log_artifact("set")
        assert experiment.record is not None
        shutil.rmtree(project / "set")
        (project / "model.pt").unlink()
        (row,) = json.loads(dvc(project, "exp", "show", "--json"))[1]["experiments"]
        assert row["revs"][0]["error"] is None
        outs = row["revs"][0]["data"]["outs"]
        assert outs["model.pt"]["hash"] == experiment.record.artifacts[0].hash
        assert (outs["set"]["size"], outs["set"]["nfiles"]) == (4, 4)
        dvc(project, "exp", "apply", "it")
        assert (project / "model.pt").read_bytes() == FILES["model.pt"]
        assert (project / "set" / "deep" / "ü").read_bytes() == b"3"
        assert json.loads(dvc(project, "status", "--json")) == {}
        git("clean", "-fdxq", "-e", ".dvc", cwd=project)
        git("reset", "-q", "--hard", cwd=project)
        assert (await repository.apply("it")).missing == ()
        assert json.loads(dvc(project, "status", "--json")) == {}


async def test_data_that_dvc_tracks_already(project: Path, git: Git) -> None:
    """A new state of it can be logged: the experiment has it, the work tree's `.dvc` file is as it was."""
    dvc(project, "add", "-q", "model.pt")
    git("add", "model.pt.dvc", ".gitignore", cwd=project)
    git("commit", "--quiet", "--message=model", cwd=project)
    before = (project / "model.pt.dvc").read_bytes()
    (project / "model.pt").write_bytes(b"better")
    async with aexp.Repository(project) as repository, repository.experiment("it") as experiment:
        await experiment.log_artifact("model.pt")
    assert (project / "model.pt.dvc").read_bytes() == before
    assert "model.pt.dvc" in git("diff", "--name-only", "HEAD", experiment.ref, cwd=project).splitlines()
    dvc(project, "checkout", "-q", "--force")
    dvc(project, "exp", "apply", "it")
    assert (project / "model.pt").read_bytes() == b"better"


async def test_what_dvcignore_names(project: Path, tmp_path: Path) -> None:
    """Is no part of a folder, for both; and a folder that holds one is taken by neither."""
    (project / ".dvcignore").write_text("*.txt\n!b.txt\ntmp/\n")
    (project / "set" / "deep" / "tmp").mkdir()
    (project / "set" / "deep" / "tmp" / "x").write_text("x")
    theirs = tmp_path / "theirs"
    shutil.copytree(project, theirs, symlinks=True)
    dvc(theirs, "add", "-q", "set")
    async with aexp.Repository(project) as repository, repository.experiment("it") as experiment:
        kept = await experiment.log_artifact("set")
        (project / "set" / ".dvcignore").touch()
        with pytest.raises(aexp.UnsafePath, match="dvcignore"):
            await experiment.log_artifact("set")
        with pytest.raises(aexp.UnsafePath, match="dvcignore"):
            await experiment.log_artifact("set/B.txt")
    assert kept.files == 3
    assert f"md5: {kept.hash}" in (theirs / "set.dvc").read_text()
