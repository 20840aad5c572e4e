"""The code an experiment starts with: what Git itself would stage, taken without touching the index."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

import aexp

Git = Callable[..., str]
Fsck = Callable[[Path], None]
Mode = Literal["tracked", "all"]


def staged(repo_path: Path, tmp_path: Path, *arguments: str) -> str:
    """The tree that `git add` with these arguments would make of the work tree, made somewhere else."""
    index, objects = tmp_path / "oracle-index", tmp_path / "oracle-objects"
    objects.mkdir(exist_ok=True)
    shutil.copy(repo_path / ".git" / "index", index)
    for shared in (repo_path / ".git").glob("sharedindex.*"):
        shutil.copy(shared, tmp_path)
    variables = {
        "GIT_INDEX_FILE": str(index),
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repo_path / ".git" / "objects"),
    }
    for command in (["add", *arguments], ["write-tree"]):
        done = subprocess.run(
            ["git", *command], cwd=repo_path, env=os.environ | variables, capture_output=True, check=True
        )
    return done.stdout.decode().strip()


async def captured(path: Path, mode: Mode) -> aexp.Code:
    """What an experiment that begins here and now takes of the code; it is saved."""
    async with aexp.Repository(path) as repository:
        record = await (await repository.experiment("it", code=mode).init()).save()
    assert record.code is not None
    return record.code


def append(path: Path, text: str = "# changed\n") -> None:
    """Write something more into the file."""
    with path.open("a") as file:
        file.write(text)


# ---- scenes: a work tree in every state that Git knows ----


def nothing(path: Path, git: Git) -> None:
    """Nothing is changed."""


def modified(path: Path, git: Git) -> None:
    """A file is changed."""
    append(path / "train.py")


def staged_change(path: Path, git: Git) -> None:
    """A change is staged."""
    append(path / "train.py")
    git("add", "train.py", cwd=path)


def half_staged(path: Path, git: Git) -> None:
    """A change is staged, and another one is not."""
    staged_change(path, git)
    append(path / "train.py", "# more\n")


def undone(path: Path, git: Git) -> None:
    """A change is staged, and undone in the work tree."""
    staged_change(path, git)
    (path / "train.py").write_text("lr = 0.1\n")


def deleted(path: Path, git: Git) -> None:
    """A file is deleted, another one also from the index."""
    (path / "train.py").unlink()
    git("rm", "--quiet", "data/notes.txt", cwd=path)


def forgotten(path: Path, git: Git) -> None:
    """A file is taken out of the index, and stays."""
    git("rm", "--quiet", "--cached", "train.py", cwd=path)


def renamed(path: Path, git: Git) -> None:
    """A file is moved and changed, in the index and in the work tree."""
    git("mv", "data/notes.txt", "moved.txt", cwd=path)
    append(path / "moved.txt")


def intent_to_add(path: Path, git: Git) -> None:
    """A new file is announced."""
    (path / "new.py").write_text("x = 1\n")
    git("add", "--intent-to-add", "new.py", cwd=path)


def executable(path: Path, git: Git) -> None:
    """A file becomes executable."""
    (path / "train.py").chmod(0o755)


def without_file_mode(path: Path, git: Git) -> None:
    """A file is changed on a disk whose executable bits mean nothing."""
    git("config", "core.fileMode", "false", cwd=path)
    append(path / "train.py")
    (path / "train.py").chmod(0o755)


def links(path: Path, git: Git) -> None:
    """A file becomes a symbolic link that leads out; a new link leads nowhere."""
    (path / "train.py").unlink()
    (path / "train.py").symlink_to("../../outside")
    os.symlink(b"\xff nowhere", path / "link")
    git("add", "link", cwd=path)


def folder_for_file(path: Path, git: Git) -> None:
    """A folder stands where a file stood, and a file where a folder stood."""
    (path / "train.py").unlink()
    (path / "train.py").mkdir()
    (path / "train.py" / "main.py").write_text("x = 1\n")
    shutil.rmtree(path / "data")
    (path / "data").write_text("a file now\n")
    git("add", "train.py/main.py", cwd=path)


def strange_names(path: Path, git: Git) -> None:
    """Files have names that are no UTF-8, hold line feeds, tabs and quotes, or look like options."""
    names = [
        b"\xff\xfe",
        b"a\nb",
        b'"quoted"',
        b'a"b',
        b"tab\there",
        b"back\\slash",
        b"-x",
        b" x ",
        b"caf\xc3\xa9",
        b":x",
    ]
    for name in names:
        with open(os.path.join(os.fsencode(path), name), "wb") as file:
            file.write(name)
    git("add", "--all", cwd=path)
    for name in names[:8]:
        with open(os.path.join(os.fsencode(path), name), "ab") as file:
            file.write(b"changed")


def line_ends(path: Path, git: Git) -> None:
    """Files with the line ends of Windows are changed, where Git converts them."""
    git("config", "core.autocrlf", "true", cwd=path)
    (path / "train.py").write_bytes(b"lr = 0.2\r\n")
    (path / "mixed.bin").write_bytes(b"\0\r\n")
    git("add", "mixed.bin", cwd=path)
    (path / ".gitattributes").write_text("data/* filter=upper\n*.bin -text\n")
    git("add", ".gitattributes", cwd=path)
    git("config", "filter.upper.clean", "tr a-z A-Z", cwd=path)
    append(path / "data" / "notes.txt", "filtered\r\n")


def conflict(path: Path, git: Git) -> None:
    """A merge stopped at a conflict."""
    git("checkout", "--quiet", "-b", "other", cwd=path)
    (path / "train.py").write_text("lr = 1\n")
    git("commit", "--quiet", "--all", "--message=theirs", cwd=path)
    git("checkout", "--quiet", "main", cwd=path)
    (path / "train.py").write_text("lr = 2\n")
    git("commit", "--quiet", "--all", "--message=ours", cwd=path)
    git("merge", "--quiet", "other", cwd=path, check=False)


def index_lock(path: Path, git: Git) -> None:
    """Another Git holds the index, or died with it."""
    half_staged(path, git)
    (path / ".git" / "index.lock").write_bytes(b"")


def sparse(path: Path, git: Git) -> None:
    """Only a part is checked out."""
    git("sparse-checkout", "set", "--no-cone", "/train.py", cwd=path)
    append(path / "train.py")


def sparse_index(path: Path, git: Git) -> None:
    """Only a part is checked out, and the index holds whole folders."""
    git("sparse-checkout", "set", "--cone", "--sparse-index", "other", cwd=path)
    append(path / "train.py")


def split_index(path: Path, git: Git) -> None:
    """The index is split in two."""
    git("update-index", "--split-index", cwd=path)
    half_staged(path, git)


def index_version_4(path: Path, git: Git) -> None:
    """The index is compressed."""
    git("update-index", "--index-version=4", cwd=path)
    half_staged(path, git)


def caches(path: Path, git: Git) -> None:
    """Git keeps an untracked cache, and relative paths, colours and renames are configured."""
    git("config", "core.untrackedCache", "true", cwd=path)
    for key, value in {"status.showUntrackedFiles": "no", "status.renames": "copies", "color.ui": "always"}.items():
        git("config", key, value, cwd=path)
    half_staged(path, git)
    (path / "new.txt").write_text("new\n")


def untracked(path: Path, git: Git) -> None:
    """There are new files, also below new folders, and ignored ones."""
    (path / ".gitignore").write_text("*.log\n/out/\n")
    for name in ("new/deep/er.py", "data/more.txt", "x.log", "out/x.txt", "aexp2/x", "empty"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(f"{name}\n")
    (path / "empty").write_bytes(b"")
    (path / "new" / "run.sh").write_text("exit\n")
    (path / "new" / "run.sh").chmod(0o755)
    (path / "new" / "link").symlink_to("run.sh")


SCENES = [
    *[nothing, modified, staged_change, half_staged, undone, deleted, forgotten, renamed, intent_to_add, executable],
    *[without_file_mode, links, folder_for_file, strange_names, line_ends, conflict, index_lock, sparse, sparse_index],
    *[split_index, index_version_4, caches, untracked],
]


@pytest.mark.parametrize("mode", ["tracked", "all"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_what_is_captured_is_what_git_would_stage(
    repo_path: Path, tmp_path: Path, git: Git, fsck: Fsck, scene: Callable[[Path, Git], None], mode: Mode
) -> None:
    """The captured tree is the one that `git add` would stage; the index is the same, byte by byte, before and after."""
    scene(repo_path, git)
    index = {path: path.read_bytes() for path in (repo_path / ".git").glob("*index*")}
    code = await captured(repo_path, mode)

    assert {path: path.read_bytes() for path in (repo_path / ".git").glob("*index*")} == index
    sparse = ["--sparse"] if scene.__name__.startswith("sparse") else []
    assert code.tree == staged(repo_path, tmp_path, "--update" if mode == "tracked" else "--all", *sparse)
    assert (code.changed, code.skipped) == (code.tree != git("rev-parse", "HEAD^{tree}", cwd=repo_path), ())
    (repo_path / ".git" / "index.lock").unlink(missing_ok=True)
    git("-c", "gc.reflogExpire=now", "gc", "--quiet", "--prune=now", cwd=repo_path)
    fsck(repo_path)
