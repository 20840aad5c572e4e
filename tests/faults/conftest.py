"""Fixtures for the sweeps of faults: the shim, compiled, and who knows what must be true."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.kit")

from tests.faults.kit import HERE, Git, Oracle  # noqa: E402  # rewritten, so that its assertions say what they saw


@pytest.fixture(scope="session")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim that counts file operations, compiled."""
    if not sys.platform.startswith("linux"):
        pytest.skip("NO SWEEP OF FAULTS: the shim is preloaded with LD_PRELOAD, which only Linux has")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("NO SWEEP OF FAULTS: install gcc to compile tests/faults/killer.c")
    target = tmp_path_factory.mktemp("killer") / "killer.so"
    flags = ("-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")
    subprocess.run([compiler, *flags, "-o", target, HERE / "killer.c", "-ldl"], check=True)
    return target


@pytest.fixture
def edited(repo_path: Path) -> Path:
    """A repository whose work tree was edited, so that its code is captured."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    return repo_path


@pytest.fixture
def oracle(git: Git, fsck: Callable[[Path], None]) -> Oracle:
    """What knows the truth."""
    return Oracle(git, fsck)
