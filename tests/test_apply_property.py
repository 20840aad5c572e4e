"""Any two trees and any state of the work tree: apply refuses and changes nothing, or applies exactly; undo restores every byte."""

import asyncio
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pygit2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aexp

Git = Callable[..., str]
Tree = dict[str, tuple[int, bytes]]
State = dict[str, tuple[Any, ...]]

NAMES = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/c", "b/x", "é", "ignored.tmp", "d/ignored.tmp")
CONTENTS = (b"", b"1\n", b"2\n", b"3\n", b"\0\xff" * 2000)
TARGETS = (b"nowhere", b".", b"other/x")  # no loops: git status does not see what they hide
MODES = (0o100644, 0o100755)

entries = st.one_of(
    st.tuples(st.sampled_from(MODES), st.sampled_from(CONTENTS)),
    st.tuples(st.just(0o120000), st.sampled_from(TARGETS)),
)


def without_clashes(found: dict[str, Any]) -> dict[str, Any]:
    """The same, without what stands below a file."""
    return {path: what for path, what in found.items() if not any(path.startswith(f"{other}/") for other in found)}


trees = st.dictionaries(st.sampled_from(NAMES), entries, max_size=7).map(without_clashes)
deeds = st.lists(
    st.tuples(
        st.sampled_from(("write", "write", "link", "delete", "folder", "add", "chmod")), st.sampled_from(NAMES), entries
    ),
    max_size=6,
)


def state_of(path: Path) -> State:
    """Everything in a work tree but the Git directory: kind, mode and content of each path."""
    found: State = {}
    for folder, folders, files in os.walk(path):
        if ".git" in folders:
            folders.remove(".git")
        for name in [*folders, *files]:
            full = os.path.join(folder, name)
            about = os.lstat(full)
            key = os.path.relpath(full, path)
            if stat.S_ISLNK(about.st_mode):
                found[key] = ("link", os.readlink(full))
            elif stat.S_ISDIR(about.st_mode):
                found[key] = ("folder", stat.S_IMODE(about.st_mode))
            else:
                found[key] = ("file", stat.S_IMODE(about.st_mode), Path(full).read_bytes())
    return found


def commit(repo: pygit2.Repository, tree: Tree, parents: list[Any]) -> str:
    """Make a commit of the tree."""
    index = pygit2.Index()
    for path, (mode, content) in tree.items():
        index.add(pygit2.IndexEntry(path, repo.create_blob(content), mode))  # type: ignore[arg-type]
    who = pygit2.Signature("Ada", "ada@example.org", 1, 0)
    return str(repo.create_commit(None, who, who, "it", index.write_tree(repo), parents))


def do(path: Path, deed: str, name: str, entry: tuple[int, bytes]) -> None:
    """Change the work tree as a user might; what cannot be done is not done."""
    target = path / name
    if any(parent.is_symlink() for parent in target.parents if parent.is_relative_to(path)):
        return
    try:
        if deed == "delete" or (deed in ("write", "link", "folder") and os.path.lexists(target)):
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
        if deed == "folder":
            target.mkdir(parents=True)
        elif deed == "write":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(entry[1])
        elif deed == "link":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.fsdecode(entry[1][:20]) if b"\0" not in entry[1] and entry[1] else ".")
        elif deed == "chmod":
            if target.is_dir():
                target.chmod(0o750)
            elif not target.is_symlink():
                target.chmod(0o755)
        elif deed == "add":
            subprocess.run(["git", "add", "--all", "--", name], cwd=path, capture_output=True, check=False)
    except OSError:
        return


def expected(tree: Tree) -> State:
    """The files of a tree as they stand in a work tree, without modes other than what Git knows."""
    return {
        path: ("link", os.fsdecode(content)) if mode == 0o120000 else ("file", bool(mode & 0o100), content)
        for path, (mode, content) in tree.items()
    }


def seen(state: State) -> State:
    """A state without folders, and of the modes what Git knows."""
    return {
        path: ("file", bool(what[1] & 0o100), what[2]) if what[0] == "file" else what
        for path, what in state.items()
        if what[0] != "folder"
    }


def check_applied(before: State, after: State, head: Tree, tree: Tree, skipped: set[str]) -> None:
    """The work tree holds the tree; what HEAD has besides is gone; the rest is as it was."""
    now, was = seen(after), seen(before)
    for path, what in expected(tree).items():
        assert path in skipped or now.get(path) == what, path
    for path in head:
        assert path in tree or path in skipped or now.get(path) is None, path
    for path, what in was.items():
        if path not in head and path not in tree and path in now:
            assert now[path] == what
    assert set(now) <= set(was) | set(tree)


def check_refused(before: State, after: State, head: Tree, paths: tuple[str, ...], force: bool) -> None:
    """Nothing has changed, and each path that is named is not as HEAD has it."""
    assert not force
    assert after == before
    assert paths
    assert all(seen(before)[each] != expected(head).get(each) for each in paths)


async def story(path: Path, head: Tree, revs: list[tuple[str, Tree]], force: bool) -> None:
    """Apply one after the other, then undo all."""
    index = (path / ".git" / "index").read_bytes()
    states: list[State] = []
    async with aexp.Repository(path) as repository:
        for rev, tree in revs:
            before = state_of(path)
            try:
                applied = await repository.apply(rev, force=force)
            except aexp.DirtyWorkspace as error:
                check_refused(before, state_of(path), head, error.paths, force)
                continue
            if applied.undo is None:
                assert state_of(path) == before
            else:
                states.append(before)
            after = state_of(path)
            if not states[:-1]:
                check_applied(before, after, head, tree, {each.path for each in applied.skipped})
            else:
                for each, what in expected(tree).items():
                    assert seen(after)[each] == what
            if not force:
                gone = set(seen(before)) - set(seen(after))
                assert gone <= set(applied.removed)
        while states:
            await repository.undo_apply()
            assert state_of(path) == states.pop()
        with pytest.raises(aexp.NothingApplied):
            await repository.undo_apply()
    assert (path / ".git" / "index").read_bytes() == index
    assert list((path / ".git" / "aexp" / "applied").iterdir()) == [path / ".git" / "aexp" / "applied" / "lock"]


def check(
    path: Path, head: Tree, targets: list[Tree], done: list[tuple[str, str, tuple[int, bytes]]], force: bool
) -> None:
    """Set the scene, and tell the story."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    repo = pygit2.init_repository(str(path))
    first = commit(repo, head, [])
    repo.create_reference("refs/heads/main", first)
    repo.set_head("refs/heads/main")
    (path / ".git" / "info").mkdir(exist_ok=True)
    (path / ".git" / "info" / "exclude").write_text("*.tmp\n")
    subprocess.run(["git", "reset", "--quiet", "--hard"], cwd=path, check=True)
    revs = [(commit(repo, tree, [pygit2.Oid(hex=first)]), tree) for tree in targets]
    for deed in done:
        do(path, *deed)
    subprocess.run(["git", "status", "--porcelain"], cwd=path, check=True, capture_output=True)
    asyncio.run(story(path, head, revs, force))


@pytest.mark.parametrize("examples", [40, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("force", [False, True])
def test_apply_refuses_or_applies_exactly_and_undo_restores_every_byte(
    tmp_path: Path, force: bool, examples: int
) -> None:
    """Whatever HEAD, the experiments and the work tree are: nothing is lost, nothing is half done, all can be undone."""

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(trees, st.lists(trees, min_size=1, max_size=2), deeds)
    def holds(head: Tree, targets: list[Tree], done: list[tuple[str, str, tuple[int, bytes]]]) -> None:
        check(tmp_path / "repository", head, targets, done, force)

    holds()
