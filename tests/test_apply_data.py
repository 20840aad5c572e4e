"""Data that DVC tracks: restored from its cache with the experiment, reported when it is not there, never trusted."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Git = Callable[..., str]


def md5(content: bytes) -> str:
    """The MD5 of a content, in hex."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def cached(root: Path, content: bytes, suffix: str = "", cache: str = ".dvc/cache") -> str:
    """Put a content into the cache; return what it is called there."""
    id = md5(content) + suffix
    place = root / cache / "files" / "md5" / id[:2] / id[2:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    place.chmod(0o444)
    return id


def cached_folder(root: Path, files: dict[str, bytes]) -> str:
    """Put a folder into the cache; return what its manifest is called."""
    entries = [{"md5": cached(root, content), "relpath": path} for path, content in sorted(files.items())]
    return cached(root, json.dumps(entries, sort_keys=True).encode(), ".dir")


def tracked(name: str, id: str, **more: Any) -> str:
    """The content of a `.dvc` file."""
    lines = "".join(f"  {key}: {value}\n" for key, value in more.items())
    return f"outs:\n- md5: {id}\n{lines}  hash: md5\n  path: {name}\n"


def commit(path: Path, git: Git, files: dict[str, str], *, as_experiment: str | None = None) -> None:
    """Commit these files, or make an experiment of them and put the work tree back."""
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    git("add", "--all", cwd=path)
    if as_experiment is None:
        git("commit", "--quiet", "--message=data", cwd=path)
        return
    rev = git("commit-tree", git("write-tree", cwd=path), "-p", "HEAD", "-m", as_experiment, cwd=path)
    head = git("rev-parse", "HEAD", cwd=path)
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{as_experiment}", rev, cwd=path)
    git("reset", "--quiet", "--hard", cwd=path)


@pytest.fixture
def project(repo_path: Path, git: Git) -> Path:
    """A repository with a cache of DVC, and a model that it tracks."""
    (repo_path / ".dvc").mkdir()
    one = cached(repo_path, b"one")
    files = {
        ".dvc/.gitignore": "/cache\n/tmp\n/config.local\n",
        ".dvc/config": "",
        ".gitignore": "/model\n/set\n/out?\n",
    }
    commit(repo_path, git, {**files, "model.dvc": tracked("model", one)})
    (repo_path / "model").write_bytes(b"one")
    return repo_path


async def test_data_comes_with_its_file(project: Path, git: Git) -> None:
    """The file and its executable bit are what the experiment's `.dvc` file says; undo brings the old ones back."""
    commit(project, git, {"model.dvc": tracked("model", cached(project, b"two"), isexec="true")}, as_experiment="it")
    async with aexp.Repository(project) as repository:
        applied = await repository.apply("it")
        assert (applied.written, applied.missing) == (("model", "model.dvc"), ())
        assert (project / "model").read_bytes() == b"two"
        assert (project / "model").stat().st_mode & 0o777 == 0o755
        await repository.undo_apply()
    assert (project / "model").read_bytes() == b"one"
    assert git("status", "--porcelain", cwd=project) == ""


async def test_a_folder_of_data(project: Path, git: Git) -> None:
    """Files of a manifest are written; those that only the manifest before has go; what nobody tracks stays."""
    commit(project, git, {"set.dvc": tracked("set", cached_folder(project, {"a": b"1", "b/c": b"2", "old": b"3"}))})
    for name, content in {"a": b"1", "b/c": b"2", "old": b"3", "mine": b"!"}.items():
        (project / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "set" / name).write_bytes(content)
    commit(
        project,
        git,
        {"set.dvc": tracked("set", cached_folder(project, {"a": b"1", "b/c": b"22", "b/d/e": b"4"}))},
        as_experiment="it",
    )
    async with aexp.Repository(project) as repository:
        applied = await repository.apply("it")
        assert (applied.written, applied.removed) == (("set.dvc", "set/b/c", "set/b/d/e"), ("set/old",))
        assert (project / "set" / "b" / "c").read_bytes() == b"22"
        assert (project / "set" / "mine").read_bytes() == b"!"
        await repository.undo_apply()
    assert {each.name for each in (project / "set").rglob("*")} == {"a", "b", "c", "old", "mine"}


async def test_missing_data_is_reported(project: Path, git: Git) -> None:
    """What the cache does not hold, or holds with another content, is named; all else is applied."""
    bad = cached(project, b"bad")
    place = project / ".dvc/cache/files/md5" / bad[:2] / bad[2:]
    place.chmod(0o644)
    place.write_bytes(b"BAD")
    folder = md5(b"no such folder") + ".dir"
    files = {
        "model.dvc": tracked("model", md5(b"nowhere")),
        "out1.dvc": tracked("out1", bad),
        "out2.dvc": tracked("out2", folder),
        "out3.dvc": tracked("out3", cached_folder(project, {"a": b"1"})),
    }
    commit(project, git, files, as_experiment="it")
    one = project / ".dvc/cache/files/md5" / md5(b"1")[:2] / md5(b"1")[2:]
    one.unlink()
    (project / "model").write_bytes(b"mine, and in no cache")
    async with aexp.Repository(project) as repository:
        applied = await repository.apply("it")
        assert applied.missing == ("model", "out1", "out2", "out3/a")
        assert applied.written == ("model.dvc", "out1.dvc", "out2.dvc", "out3.dvc")
        assert (project / "model").read_bytes() == b"mine, and in no cache"
        assert not (project / "out1").exists()
        place.write_bytes(b"bad")
        cached(project, b"1")
        again = await repository.apply("it")
        assert again.missing == ("model", "out2")
        assert again.written == ("out1", "out3/a")
    assert (project / "out1").read_bytes() == b"bad"


async def test_nothing_makes_room_for_data_that_is_missing(project: Path, git: Git) -> None:
    """A folder or a link at the place of data that the cache does not hold stays, with or without force."""
    bad = cached(project, b"bad")
    place = project / ".dvc/cache/files/md5" / bad[:2] / bad[2:]
    place.chmod(0o644)
    place.write_bytes(b"BAD")
    files = {
        "out1.dvc": tracked("out1", bad),
        "out2.dvc": tracked("out2", md5(b"nowhere")),
        "model.dvc": tracked("model", bad),
    }
    commit(project, git, files, as_experiment="it")
    (project / "out1" / "deep").mkdir(parents=True)
    (project / "out1" / "deep" / "mine").write_text("mine\n")
    (project / "out2").symlink_to("out1")
    async with aexp.Repository(project) as repository:
        for force in (False, True):
            applied = await repository.apply("it", force=force)
            assert applied.missing == ("model", "out1", "out2")
    assert (project / "out1" / "deep" / "mine").read_text() == "mine\n"
    assert (project / "out2").is_symlink()
    assert (project / "model").read_bytes() == b"one"


async def test_data_that_is_in_no_cache_is_not_overwritten(project: Path, git: Git) -> None:
    """Data that was changed and not added makes apply refuse; with force it is kept for undo."""
    commit(project, git, {"model.dvc": tracked("model", cached(project, b"two"))}, as_experiment="it")
    (project / "model").write_bytes(b"mine")
    async with aexp.Repository(project) as repository:
        with pytest.raises(aexp.DirtyWorkspace) as told:
            await repository.apply("it")
        assert told.value.paths == ("model",)
        await repository.apply("it", force=True)
        assert (project / "model").read_bytes() == b"two"
        await repository.undo_apply()
    assert (project / "model").read_bytes() == b"mine"


async def test_data_that_is_there_already(project: Path, git: Git) -> None:
    """Data that is what the experiment wants is left as it is, even when the cache does not hold it."""
    commit(project, git, {"model.dvc": tracked("model", md5(b"two"))}, as_experiment="it")
    (project / "model").write_bytes(b"two")
    async with aexp.Repository(project) as repository:
        applied = await repository.apply("it")
    assert (applied.written, applied.missing, applied.unchanged) == (("model.dvc",), (), 1)


async def test_a_link_into_the_cache_gives_way(project: Path, git: Git) -> None:
    """Where DVC links its data (`cache.type = symlink`), the link is replaced, not what it leads to."""
    commit(project, git, {"model.dvc": tracked("model", cached(project, b"two"))}, as_experiment="it")
    place = project / ".dvc/cache/files/md5" / md5(b"one")[:2] / md5(b"one")[2:]
    (project / "model").unlink()
    (project / "model").symlink_to(place)
    async with aexp.Repository(project) as repository:
        await repository.apply("it")
        assert not (project / "model").is_symlink()
        assert (project / "model").read_bytes() == b"two"
        await repository.undo_apply()
    assert os.readlink(project / "model") == str(place)
    assert place.read_bytes() == b"one"


async def test_stages_of_a_pipeline(project: Path, git: Git) -> None:
    """Outputs in dvc.lock are restored relative to where their stage works; those that Git holds are Git's."""
    id, in_git = cached(project, b"weights"), cached(project, b"not this")
    lock = (
        "schema: '2.0'\nstages:\n  train@a:\n    cmd: x\n    outs:\n"
        f"    - path: out.bin\n      hash: md5\n      md5: {id}\n      size: 7\n"
        f"    - path: ../train.py\n      hash: md5\n      md5: {in_git}\n      size: 8\n"
    )
    pipeline = "stages:\n  train:\n    foreach: [a]\n    do:\n      wdir: sub\n      cmd: x\n      outs: [out.bin]\n"
    commit(project, git, {"dvc.lock": lock, "dvc.yaml": pipeline}, as_experiment="it")
    async with aexp.Repository(project) as repository:
        applied = await repository.apply("it")
    assert applied.written == ("dvc.lock", "dvc.yaml", "sub/out.bin")
    assert (project / "train.py").read_text() == "lr = 0.1\n"


@pytest.mark.parametrize("where", ["local", "absolute", "home"])
async def test_the_cache_is_where_the_configuration_says(
    where: str, project: Path, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cache.dir` counts, relative to the file that sets it; the user's own file comes last."""
    two = cached(tmp_path, b"two", cache="store")
    (project / "model").unlink()
    commit(project, git, {"model.dvc": tracked("model", two)}, as_experiment="it")
    if where == "home":
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        (tmp_path / "config" / "dvc").mkdir(parents=True)
        (tmp_path / "config" / "dvc" / "config").write_text("[cache]\n    dir = ../../store\n")
    else:
        value = "../../store" if where == "local" else f'"{tmp_path}/store"'
        text = f"['remote \"x\"']\n    url = s3://x\n    y = 1\n[cache]\n    type = copy\n    dir = {value}\n"
        (project / ".dvc" / "config.local").write_text(text)
    async with aexp.Repository(project) as repository:
        assert (await repository.apply("it")).missing == ()
    assert (project / "model").read_bytes() == b"two"


@pytest.mark.parametrize("path", ["../../x", "/etc/x", "a/../../../x", ".git/hooks/x", "a//b", "", "a\\b", "a\nb"])
async def test_a_manifest_that_leaves_its_folder_is_refused(path: str, project: Path, git: Git) -> None:
    """A hostile manifest raises `UnsafePath`, and nothing is written, inside or outside."""
    commit(project, git, {"out1.dvc": tracked("out1", cached_folder(project, {path: b"evil"}))}, as_experiment="it")
    async with aexp.Repository(project) as repository:
        with pytest.raises(aexp.UnsafePath):
            await repository.apply("it", force=True)
    assert git("status", "--porcelain", cwd=project) == ""
    assert not (project / "out1").exists()
    assert not (project.parent / "x").exists()


async def test_a_manifest_cannot_write_through_a_link(project: Path, git: Git, tmp_path: Path) -> None:
    """A link in the folder of the data, put there before, is replaced by a folder, not followed."""
    (tmp_path / "outside").mkdir()
    (project / "out1").mkdir()
    (project / "out1" / "d").symlink_to(tmp_path / "outside")
    commit(project, git, {"out1.dvc": tracked("out1", cached_folder(project, {"d/x": b"evil"}))}, as_experiment="it")
    async with aexp.Repository(project) as repository:
        with pytest.raises(aexp.DirtyWorkspace) as told:
            await repository.apply("it")
        assert told.value.paths == ("out1/d",)
        await repository.apply("it", force=True)
        assert (project / "out1" / "d" / "x").read_bytes() == b"evil"
        assert list((tmp_path / "outside").iterdir()) == []
        await repository.undo_apply()
    assert (project / "out1" / "d").is_symlink()


async def test_data_that_belongs_elsewhere_is_left_alone(project: Path, git: Git, tmp_path: Path) -> None:
    """Outputs outside of the repository, or in a bucket, are reported and not written; nor is what holds settings."""
    evil = cached(project, b"[core]\n")
    manifest = cached_folder(project, {".gitattributes": b"* filter=x", "a": b"1"})
    files = {
        "out1.dvc": tracked("../x", evil),
        "out2.dvc": tracked(str(tmp_path / "x"), evil),
        "out3.dvc": tracked("s3://bucket/x", evil),
        "out4.dvc": tracked(".dvc/config.local", evil),
        "out5.dvc": tracked("out5", manifest),
        "out6.dvc": "outs: {not a list\n",
    }
    git("rm", "-q", "--cached", ".gitignore", cwd=project)
    (project / ".gitignore").unlink()
    commit(project, git, {"readme": "x"})
    (project / "model").unlink()
    commit(project, git, files, as_experiment="it")
    async with aexp.Repository(project) as repository:
        applied = await repository.apply("it")
    paths = {each.path for each in applied.skipped}
    assert paths == {
        "../x",
        str(tmp_path / "x"),
        "s3://bucket/x",
        ".dvc/config.local",
        "out5/.gitattributes",
        "out6.dvc",
    }
    assert "out5/a" in applied.written
    assert not (tmp_path / "x").exists()
    assert not (project / ".dvc" / "config.local").exists()


async def test_a_git_folder_as_data_is_refused(project: Path, git: Git) -> None:
    """A `.dvc` file whose data would stand in `.git` raises `UnsafePath`."""
    commit(
        project, git, {"out1.dvc": tracked(".git/hooks/post-checkout", cached(project, b"evil"))}, as_experiment="it"
    )
    async with aexp.Repository(project) as repository:
        with pytest.raises(aexp.UnsafePath):
            await repository.apply("it")


# ---- beside the real DVC ----


def dvc(path: Path, *arguments: str) -> str:
    """Run `dvc` there."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_of(path: Path) -> dict[str, bytes]:
    """All files but those of Git and DVC themselves."""
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in sorted(path.rglob("*"))
        if each.is_file() and each.relative_to(path).parts[0] not in (".git", ".dvc")
    }


@pytest.mark.compat
@pytest.mark.timeout(300)
async def test_it_does_what_dvc_exp_apply_does(repo_path: Path, git: Git, tmp_path: Path) -> None:
    """Files, data, HEAD and `git status` are afterwards as after `dvc exp apply` from a clean work tree, whatever the baseline.

    (From a dirty one, DVC brings back what the experiment removed.)
    """
    dvc(repo_path, "init", "-q")
    (repo_path / "model").write_text("one\n")
    (repo_path / "set").mkdir()
    (repo_path / "set" / "a").write_text("1\n")
    dvc(repo_path, "add", "-q", "model", "set")
    git("add", "--all", cwd=repo_path)
    git("commit", "--quiet", "--message=data", cwd=repo_path)
    (repo_path / "model").write_text("two\n")
    (repo_path / "set" / "a").write_text("2\n")
    (repo_path / "set" / "b").write_text("3\n")
    dvc(repo_path, "add", "-q", "model", "set")
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "train.py").chmod(0o755)
    (repo_path / "data" / "notes.txt").unlink()
    async with aexp.Repository(repo_path) as repository, repository.experiment("it", params={"lr": 0.2}) as experiment:
        await experiment.log_metric("loss", 0.5, 0)
    git("reset", "--quiet", "--hard", cwd=repo_path)
    dvc(repo_path, "checkout", "-q", "--force")
    (repo_path / "later.py").write_text("later\n")
    git("add", "later.py", cwd=repo_path)
    git("commit", "--quiet", "--message=later", cwd=repo_path)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    for copy in (theirs, ours):
        shutil.copytree(repo_path, copy, symlinks=True)

    dvc(theirs, "exp", "apply", "it")
    async with aexp.Repository(ours) as repository:
        applied = await repository.apply("it")

    assert (applied.missing, applied.skipped) == ((), ())
    assert files_of(ours) == files_of(theirs)
    assert git("status", "--porcelain", cwd=ours) == git("status", "--porcelain", cwd=theirs)
    assert git("rev-parse", "HEAD", cwd=ours) == git("rev-parse", "HEAD", cwd=theirs)
    assert json.loads(dvc(ours, "data", "status", "--json", "--granular")).get("uncommitted", {}) == {}
    assert json.loads(dvc(ours, "status", "--json")) == {}
