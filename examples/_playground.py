"""Git repositories to play in, for examples that are run without arguments."""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

FILES = {"train.py": 'print("training")\n', "params.yaml": "lr: 0.01\nepochs: 10\n"}


def git(path: Path, *arguments: str) -> str:
    """The output of a `git` command in the repository at `path`, whatever repository the caller stands in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(path), *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.rstrip()


def make_repository(path: Path, files: Mapping[str, str] = FILES) -> Path:
    """Make a repository at `path` with one commit of `files`."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "config", "user.name", "Ada")
    git(path, "config", "user.email", "ada@example.org")
    for name, text in files.items():
        (path / name).write_text(text)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=start")
    return path


@contextmanager
def repositories(given: Sequence[str], count: int = 1) -> Iterator[list[Path]]:
    """The repositories that were `given`, or else `count` temporary ones that last as long as the block."""
    if given:
        yield [Path(path) for path in given]
        return
    with tempfile.TemporaryDirectory(prefix="aexp-") as folder:
        yield [make_repository(Path(folder, f"repository-{number}")) for number in range(1, count + 1)]
