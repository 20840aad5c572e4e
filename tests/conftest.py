"""Fixtures for every test: real Git with nobody's configuration, and nothing left behind."""

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pygit2
import pytest
from hypothesis import settings
from pygit2.enums import ConfigLevel

import aexp

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

collect_ignore = [] if find_spec("dvc") else ["compat"]  # `nox -s compat` installs it

FILES = {
    "README.md": "# a model\n",
    "train.py": "lr = 0.1\n",
    "params.yaml": "# what the training reads\ntrain:\n  lr: 0.1 # the learning rate\n  epochs: 10\n",
    "data/notes.txt": "where the data comes from\n",
}
CONFIG_LEVELS = (ConfigLevel.PROGRAMDATA, ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL)
GRACE = 2.0  # seconds that a thread may take to end after its repository was closed


def run_git(*arguments: str | Path, cwd: Path, input: str | None = None, check: bool = True) -> str:
    """Run `git` in *cwd*; when it fails, and *check* is set, fail with what it said."""
    done = subprocess.run(["git", *arguments], cwd=cwd, input=input, capture_output=True, text=True, check=False)
    if check and done.returncode:
        pytest.fail(f"git {' '.join(map(str, arguments))} in {cwd} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout.removesuffix("\n")


@pytest.fixture(scope="session", autouse=True)
def hermetic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the configuration, the identity or the repository of who runs it."""
    home = tmp_path_factory.mktemp("home")
    config = home / "gitconfig"
    config.touch()
    variables = {
        "HOME": home,
        "XDG_CONFIG_HOME": home / "config",
        "GIT_CONFIG_GLOBAL": config,
        "GIT_CONFIG_NOSYSTEM": 1,
        "GIT_AUTHOR_NAME": "Ada Lovelace",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_COMMITTER_NAME": "Ada Lovelace",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "TZ": "UTC",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, str(value))
        time.tzset()
        for level in CONFIG_LEVELS:
            pygit2.settings.search_path[level] = str(home)
        yield


@pytest.fixture(autouse=True)
def no_threads_left(hermetic: None) -> Iterator[None]:
    """A test that leaves a thread of ours running has not closed its repository: it fails."""
    yield
    end = time.monotonic() + GRACE
    while left := [thread.name for thread in threading.enumerate() if thread.name.startswith("aexp")]:
        if time.monotonic() > end:
            pytest.fail(f"threads left running: {', '.join(left)}; close every Repository that the test opens")
        time.sleep(0.01)


@pytest.fixture(scope="session")
def git() -> Callable[..., str]:
    """`git("log", "-1", cwd=repo_path)` is what git prints, without the last line feed."""
    return run_git


@pytest.fixture(scope="session")
def template(hermetic: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that each test gets a copy of; its commit has the same id everywhere."""
    path = tmp_path_factory.mktemp("template") / "repository"
    for name, text in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        for who in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{who}_DATE", "2026-01-01T00:00:00+00:00")
        run_git("init", "--quiet", "--initial-branch=main", cwd=path)
        run_git("add", "--all", cwd=path)
        run_git("commit", "--quiet", "--message=start", cwd=path)
    return path


@pytest.fixture
def repo_path(template: Path, tmp_path: Path) -> Path:
    """A fresh repository with one commit: README.md, train.py, params.yaml and data/notes.txt."""
    return Path(shutil.copytree(template, tmp_path / "repository"))


@pytest.fixture
async def repository(repo_path: Path) -> AsyncIterator[aexp.Repository]:
    """The fresh repository, open."""
    async with aexp.Repository(repo_path) as repository:
        yield repository


@pytest.fixture(scope="session")
def fsck() -> Callable[[Path], None]:
    """`fsck(repo_path)` fails unless git finds nothing to say about the repository."""

    def check(path: Path) -> None:
        done = subprocess.run(
            ["git", "fsck", "--full", "--strict"], cwd=path, capture_output=True, text=True, check=False
        )
        said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("dangling ")]
        if done.returncode or said:
            pytest.fail("git fsck is not content: " + "\n".join(said or [f"exit {done.returncode}"]))

    return check


# ---- experiments, and Git remotes for them ----


@pytest.fixture(scope="session")
def saved() -> Callable[..., Awaitable[list[aexp.Record]]]:
    """What saves experiments of these names, all at once, and returns their records."""

    async def save(repository: aexp.Repository, name: str, loss: float) -> aexp.Record:
        async with repository.experiment(name, params={"lr": 0.1}) as experiment:
            await experiment.log_metric("loss", loss, step=0)
        assert experiment.record is not None
        return experiment.record

    async def save_all(repository: aexp.Repository, *names: str, loss: float = 0.5) -> list[aexp.Record]:
        return list(await asyncio.gather(*(save(repository, name, loss) for name in names)))

    return save_all


@pytest.fixture(scope="session")
def refs_of() -> Callable[..., dict[str, str]]:
    """`refs_of(path)` is what each ref of an experiment holds, by ref; `refs_of(path, "refs")` takes all refs."""

    def refs_of(path: Path, prefix: str = "refs/exps") -> dict[str, str]:
        lines = run_git("for-each-ref", "--format=%(refname) %(objectname)", prefix, cwd=path).splitlines()
        return dict(line.split(" ") for line in lines)

    return refs_of


@pytest.fixture(scope="session")
def leftovers() -> Callable[[Path], list[str]]:
    """`leftovers(path)` are the files that only a broken transfer leaves: locks, kept or half-written packs, quarantines."""

    def leftovers(path: Path) -> list[str]:
        patterns = ("*.lock", "*.keep", "tmp_*", "ref-*", "incoming-*", "outgoing-*")
        found = [str(each.relative_to(path)) for pattern in patterns for each in path.rglob(pattern)]
        return [each for each in found if not each.endswith("owner.lock")]

    return leftovers


@pytest.fixture
def remote(repo_path: Path, tmp_path: Path) -> Path:
    """A bare repository with the same commit, which is the origin of the fresh repository."""
    path = tmp_path / "remote.git"
    run_git("clone", "--quiet", "--bare", repo_path, path, cwd=tmp_path)
    run_git("remote", "add", "origin", path, cwd=repo_path)
    return path


@pytest.fixture
def other_path(remote: Path, tmp_path: Path) -> Path:
    """Another clone of the remote."""
    run_git("clone", "--quiet", remote, tmp_path / "other", cwd=tmp_path)
    return tmp_path / "other"


@pytest.fixture
async def other(other_path: Path) -> AsyncIterator[aexp.Repository]:
    """The other clone, open."""
    async with aexp.Repository(other_path) as repository:
        yield repository
