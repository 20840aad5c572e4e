"""The real DVC beside us: its command line as a process and, 30 times as fast, as a call; and its API."""

import contextlib
import importlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked `compat`; what DVC and what it stands on warns of is not our business."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.compat)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))  # a machine with much else to do starts `dvc` in ten seconds
            for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "ResourceWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@frozen
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it said, as strict JSON: a bare NaN is an error."""

        def refuse(word: str) -> Any:
            raise AssertionError(f"{word} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture(scope="session", autouse=True)
def alone(hermetic: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DVC keeps its databases and its configuration in folders of this session, and tells nobody that it runs."""
    home = tmp_path_factory.mktemp("dvc")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("DVC")]:
            patch.delenv(name)
        for name, value in {
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": home / "site",
            "DVC_GLOBAL_CONFIG_DIR": home / "global",
            "DVC_SYSTEM_CONFIG_DIR": home / "system",
            "DVC_STUDIO_OFFLINE": "true",
            "DVC_TEST": "1",  # it prints to sys.stdout as it is, and finds no updates
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }.items():
            patch.setenv(name, str(value))
        yield


def _call(arguments: tuple[str, ...], cwd: Path) -> Said:
    # by name, so that no test session without DVC trips over it
    main, ui = importlib.import_module("dvc.cli").main, importlib.import_module("dvc.ui").ui
    out, err = io.StringIO(), io.StringIO()
    handlers = [handler for name in ("dvc", "dvc_objects", "dvc_data") for handler in logging.getLogger(name).handlers]
    before = [getattr(handler, "stream", None) for handler in handlers]
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.stream = out if handler.level < logging.WARNING else err
    ui.__dict__.pop("rich_console", None)  # it holds the stream that it was made for
    ui.__dict__.pop("error_console", None)
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(arguments))
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if isinstance(handler, logging.StreamHandler):
                handler.stream = stream
    return Said(code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def dvc(alone: None) -> Callable[..., Said]:
    """`dvc("exp", "list", cwd=path)` runs the command line's own code in this process; a failure fails the test.

    `code=255` expects that end instead.
    """

    def run(*arguments: str | Path, cwd: Path, code: int = 0) -> Said:
        said = _call(tuple(map(str, arguments)), cwd)
        if said.code != code:
            pytest.fail(f"dvc {' '.join(map(str, arguments))} ended with {said.code}:\n{said.out}{said.err}")
        return said

    return run


@pytest.fixture(scope="session")
def cli(alone: None) -> Callable[..., Said]:
    """`cli("dvc", "exp", "list", cwd=path)` runs a program in a process of its own; a failure fails the test."""

    def run(*command: str | Path, cwd: Path, code: int = 0, **variables: str) -> Said:
        done = subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **variables},
            timeout=120,
        )
        if done.returncode != code:
            pytest.fail(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return Said(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def dvc_template(template: Path, dvc: Callable[..., Said], git: Callable[..., str], tmp_path_factory: Any) -> Path:
    """The repository of the other tests, after `dvc init`."""
    path = Path(shutil.copytree(template, tmp_path_factory.mktemp("dvc-template") / "repository"))
    dvc("init", "--quiet", cwd=path)
    git("commit", "--quiet", "--message=dvc init", cwd=path)
    return path


@pytest.fixture
def repo_path(dvc_template: Path, tmp_path: Path) -> Path:
    """A fresh repository of Git and DVC; `repository` opens it."""
    return Path(shutil.copytree(dvc_template, tmp_path / "repository"))


@pytest.fixture(scope="session")
def rows(dvc: Callable[..., Said]) -> Callable[..., dict[str, Any]]:
    """`rows(path)` is what `dvc exp show --json` says: the newest commit's row of each experiment, by name."""

    def show(path: Path, *options: str) -> dict[str, Any]:
        table = dvc("exp", "show", "--json", *options, cwd=path).json
        ranges = [each for row in table for each in row["experiments"] or []]
        return {each["name"]: each["revs"][0] | {"revs": each["revs"], "executor": each["executor"]} for each in ranges}

    return show
