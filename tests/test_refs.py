"""Refs as we read them: the same as Git, packed or loose or both, sorted or not, and one name as fast among many."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aexp
from aexp._git import open_handle
from aexp._refs import list_refs, refs_called

Git = Callable[..., str]
BASELINES = ("ab/" + "c" * 38, "ab/" + "d" * 38, "ff/" + "0" * 38)
REFS = st.builds(
    "refs/{}/{}/{}".format,
    st.sampled_from(["exps", "exps", "exps", "aexp", "heads", "exp"]),
    st.sampled_from(BASELINES),
    st.sampled_from(["a", "ab", "b", "a.b", "a-b", "é", "z" * 60]),
)


def told(git: Git, path: Path, prefix: str) -> dict[str, str]:
    """The refs below a prefix, as Git lists them."""
    lines = git("for-each-ref", "--format=%(objectname) %(refname)", prefix, cwd=path).splitlines()
    return {ref: rev for rev, ref in (line.split(" ", 1) for line in lines)}


def make(path: Path, refs: set[str], rev: str) -> None:
    """Make the refs, in one go."""
    orders = "".join(f"update {ref}\0{rev}\0\0" for ref in sorted(refs))
    subprocess.run(["git", "update-ref", "-z", "--stdin"], cwd=path, input=orders.encode(), check=True)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packed=st.sets(REFS, max_size=12),
    loose=st.sets(REFS, max_size=6),
    gone=st.sets(REFS, max_size=3),
    sorted_=st.booleans(),
)
def test_refs_are_those_that_git_lists(
    repo_path: Path, git: Git, packed: set[str], loose: set[str], gone: set[str], *, sorted_: bool
) -> None:
    """Whatever is packed, set again, and deleted, we list what `git for-each-ref` lists, below every prefix, by every name."""
    first = git("rev-parse", "HEAD", cwd=repo_path).strip()
    second = git("commit-tree", "-m", "x", "HEAD^{tree}", cwd=repo_path).strip()
    make(repo_path, packed, first)
    git("tag", "-f", "-m", "peeled", "t", cwd=repo_path)  # its line is followed by one with `^`
    git("pack-refs", "--all", cwd=repo_path)
    make(repo_path, loose, second)
    for ref in gone:
        git("update-ref", "-d", ref, cwd=repo_path)
    file = repo_path / ".git" / "packed-refs"
    if not sorted_:
        header, *lines = [line for line in file.read_text().splitlines() if "^" not in line and "tags" not in line]
        file.write_text("\n".join([header.replace(" sorted", ""), *reversed(lines), ""]))
    handle = open_handle(str(repo_path))
    for prefix in (
        "refs/",
        "refs/exps/",
        f"refs/exps/{BASELINES[0]}/",
        "refs/exp/",
        "refs/aexp/",
        "refs/tags/",
        "refs/zz/",
    ):
        assert list_refs(handle, prefix) == told(git, repo_path, prefix)
    everything = told(git, repo_path, "refs/exps/")
    for name in ("a", "b", "é", "z" * 60, "nowhere"):
        named = {ref: rev for ref, rev in everything.items() if ref.endswith(f"/{name}")}
        assert refs_called(handle, "refs/exps/", name) == named
    make(repo_path, set(), first)
    for ref in told(git, repo_path, "refs/"):
        if not ref.startswith("refs/heads/m"):
            git("update-ref", "-d", ref, cwd=repo_path)


async def test_any_name_is_looked_for_safely(repository: aexp.Repository) -> None:
    """Names that are no names of files, or of something else, find nothing and raise nothing else."""
    async with repository.experiment("it"):
        pass
    for name in (".", "..", "", "a\0b", "a\nb", "x" * 300, "\ud800", "é" * 63, "it/", "/it", "*", "it.lock", "exps"):
        with pytest.raises(aexp.ExperimentNotFound):
            await repository.get(name)
    record = await repository.get("it")
    assert record == await repository.get(record.ref) == await repository.get(record.rev[:12])


async def test_a_folder_of_that_name_is_no_experiment(repository: aexp.Repository, repo_path: Path) -> None:
    """Where refs stand below a name, or a file holds no rev, it is told as it was before: not found, or damaged."""
    async with repository.experiment("it") as experiment:
        pass
    folder = (repo_path / ".git" / experiment.ref).parent
    (folder / "below" / "it").mkdir(parents=True)
    (folder / "broken").write_text("no rev\n")
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.get("below")
    assert (await repository.get("broken")).damaged
    assert (await repository.get("it")).name == "it"
