"""Git repositories and folders to measure in."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IDENTITY = {"user.name": "Bench", "user.email": "bench@example.org", "gc.auto": "0", "maintenance.auto": "false"}


def git(path: Path, *arguments: str) -> str:
    """The output of a `git` command in the repository at `path`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(path), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder; what was written before is on disk when it is handed out."""
    with tempfile.TemporaryDirectory(prefix="aexp-bench-") as path:
        os.sync()
        yield Path(path)


def make_repository(path: Path, files: int = 10) -> Path:
    """A repository with one commit of `files` files, in a tree of folders when they are many."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    for key, value in IDENTITY.items():
        git(path, "config", key, value)
    for number in range(files):
        file = path / f"area{number // 500}" / f"part{number // 50}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"value = {number}\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=start")
    return path


def copy_repository(source: Path, target: Path) -> Path:
    """A copy of a repository, with an index that knows the copied files."""
    shutil.copytree(source, target, symlinks=True)
    git(target, "update-index", "-q", "--refresh")
    return target


def disk_of(path: Path) -> str:
    """The file system that holds `path`, where /proc tells; a figure from a tmpfs says nothing about a disk."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return f"files in {path}"
    points = {fields[1]: fields[2] for fields in map(str.split, mounts.read_text().splitlines())}
    holder = max((point for point in points if path.resolve().is_relative_to(point)), key=len)
    return f"files in {path} on {points[holder]}"
