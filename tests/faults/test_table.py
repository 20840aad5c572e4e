"""DVC reads the experiments in whatever state a killed process leaves them, before anybody recovers anything."""

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.faults.kit import Git, copy_of, refs_of, teller, wait_for_children

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

STATES = 30


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[None]:
    """DVC keeps its databases and its configuration to itself, and tells nobody that it runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SITE_CACHE_DIR", "GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR"):
            patch.setenv(f"DVC_{name}", os.fspath(tmp_path / name))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setenv("DVC_TEST", "1")
        yield


@pytest.mark.skipif(find_spec("dvc") is None, reason="DVC DOES NOT READ CRASHED REPOSITORIES HERE: it is not installed")
def test_dvc_reads_what_a_killed_process_leaves(
    edited: Path, killer: Path, git: Git, fsck: Callable[[Path], None], quiet: None
) -> None:
    """At 30 places of a life that ends killed, `dvc exp show` ends well and shows what was saved; so after a recovery."""
    (edited / ".dvc").mkdir()
    (edited / ".dvc" / "config").write_text("")
    git("add", ".dvc", cwd=edited)
    git("commit", "--quiet", "--message=dvc", cwd=edited)
    with teller(killer) as tell, teller(killer, "dvc") as ask:
        ((operations,),) = tell("save", copy_of(edited, edited.parent / "whole" / "repository"), at=0).about("end")
        for state in range(STATES):
            path = copy_of(edited, edited.parent / f"state-{state}" / "repository")
            told = tell("save", path, at=1 + operations * state // STATES)
            wait_for_children(path)
            fsck(path)
            for _ in ("before", "after"):
                ((code, rows),) = ask("table", path).about("table")
                assert code == 0
                shown = {name: rev for name, rev, _ in rows if name}
                assert told.last("S").items() <= shown.items(), (state, told, rows)
                standing = {ref.rpartition("/")[2] for ref in refs_of(path, git)}
                assert standing <= {name for name, _, _ in rows}, (state, rows)
                tell("recover", path)
