"""kill -9 at every file operation around private checkouts: nothing of the user's changes, nothing taken is lost, nothing stays."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from tests.faults.kit import Git, Oracle, Sweep, Teller, Told, copy_of, teller, wait_for_children

pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]

CONTENTS = {
    "made.txt": "made\n",
    "out/a": "1\n",
    "both.txt": "made\nas it was\n# what the training reads\ntrain:\n  lr: 0.5 # the learning rate\n  epochs: 10\n",
}


def users(path: Path, git: Git) -> tuple[object, ...]:
    """All of the user's that no experiment may touch: files, index, HEAD, configuration, branches, tags, stash, worktrees."""
    files = {
        str(each.relative_to(path)): (each.lstat().st_mode, each.lstat().st_mtime_ns, each.read_bytes())
        for each in sorted(path.rglob("*"))
        if each.is_file() and ".git" not in each.relative_to(path).parts
    }
    inside = [(path / ".git" / name).read_bytes() for name in ("index", "HEAD", "config")]
    refs = git("for-each-ref", "refs/heads", "refs/tags", "refs/stash", cwd=path)
    return files, inside, refs, git("worktree", "list", "--porcelain", cwd=path).replace(str(path), "")


@frozen(eq=False)
class Guest(Oracle):
    """Knows besides what may be left of checkouts, and what a program must find in the next one."""

    before: tuple[object, ...]
    found: str

    def check(self, path: Path, said: Told, tell: Teller) -> None:
        """Look at the user's files as the killed process left them, recover, and look at the checkouts."""
        wait_for_children(path)
        self.fsck(path)
        assert users(path, self.git) == self.before, "something of the user's has changed"
        self.check_saved_while_recovering(path, said, tell)
        assert users(path, self.git) == self.before, "recovery has changed something of the user's"
        places = sorted((path / ".git" / "aexp" / "workspaces").glob("*"))
        assert len(places) == 1, "the checkouts of the dead are swept, and one waits"
        assert sorted(each.name for each in places[0].iterdir()) == ["git", "idle", "owner.lock", "tree"]
        assert not [*(path / ".git" / "aexp" / "tmp").glob("*")]
        self.fsck(path)

    def check_saved_while_recovering(self, path: Path, said: Told, tell: Teller) -> None:
        """Recover: what was taken is in the commit, and the next program finds a whole checkout without anything of another."""
        for each in (path / ".git" / "aexp" / "tmp").glob("*"):
            os.utime(each, (0, 0))  # what is half made is somebody's for a minute
        told = tell("visit", path)
        kept = told.last("kept")
        for names in said.about("taken"):
            assert kept.keys() >= set(names), "what was taken is lost"
        assert kept.items() <= CONTENTS.items()
        assert told.about("found") == [[0, self.found, ""]]
        assert told.about("swept") == [[[]]]
        super().check(path, said, tell)


# A process that died may have left its program, or a `git`, at work; the oracle waits for those first.
@pytest.mark.parametrize("every", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_a_kill_around_a_checkout_leaves_nothing_behind(
    edited: Path, killer: Path, git: Git, fsck: Callable[[Path], None], every: int
) -> None:
    """Killed while a checkout is made, filled, used, taken from, cleaned or lent again: all is as it was, and comes back."""
    before = users(edited, git)
    with teller(killer) as tell:
        ((code, found, errors),) = tell("visit", copy_of(edited, edited.parent / "fresh")).about("found")
    assert (code, errors) == (0, "")
    assert found.startswith("M  train.py\n")

    Sweep("checkout", edited, killer, Guest(git, fsck, before, found))(every)
