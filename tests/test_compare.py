"""What two commits differ in: parameters, metrics, files, and a patch that can be read."""

import asyncio
import gc
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp
from aexp import Change, FileChange

Git = Callable[..., str]


async def saved(repository: aexp.Repository, name: str, params: dict[str, Any], **metrics: float) -> aexp.Record:
    """Save an experiment."""
    async with repository.experiment(name, params=params, code="all") as experiment:
        await experiment.log_metrics(metrics, 3)
    assert experiment.record is not None
    return experiment.record


async def test_two_experiments(repository: aexp.Repository, repo_path: Path) -> None:
    """Changed, added and removed parameters, metrics and files are told, with differences; what is equal is not."""
    one = await saved(
        repository, "one", {"lr": 0.1, "m": {"depth": 4, "kind": "a"}, "old": None, "same": [1, 2.0]}, loss=0.5, n=1
    )
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "data" / "notes.txt").unlink()
    (repo_path / "new.py").write_text("x\n")
    two = await saved(
        repository, "two", {"lr": 0.2, "m": {"depth": 6, "kind": "b"}, "new": 1, "same": [1.0, 2]}, loss=0.25, acc=1
    )

    found = await repository.compare("one", "two")

    assert (found.left.name, found.left.rev, found.right.rev) == ("one", one.rev, two.rev)
    assert found.params == {
        "lr": Change("changed", 0.1, 0.2, 0.1),
        "m.depth": Change("changed", 4, 6, 2),
        "m.kind": Change("changed", "a", "b"),
        "new": Change("added", None, 1),
        "old": Change("removed", None, None),
    }
    assert found.metrics == {
        "acc": Change("added", None, 1),
        "loss": Change("changed", 0.5, 0.25, -0.25),
        "n": Change("removed", 1, None),
    }
    assert found.files == (
        FileChange("data/notes.txt", "removed"),
        FileChange("new.py", "added"),
        FileChange("train.py", "changed"),
    )
    assert found.patch is None
    assert found
    back = await repository.compare(two.ref, one.rev)
    assert back.params["lr"] == Change("changed", 0.2, 0.1, -0.1)
    assert {(each.path, each.kind) for each in back.files} >= {("new.py", "removed"), ("data/notes.txt", "added")}


async def test_an_experiment_and_a_commit(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """HEAD, a branch or a rev can stand on either side; the parameters of its files are compared, too."""
    await saved(repository, "it", {"lr": 0.1}, loss=0.5)
    git("branch", "other", cwd=repo_path)
    for name in ("HEAD", "other", "main", git("rev-parse", "HEAD", cwd=repo_path)):
        found = await repository.compare(name, "it")
        assert found.left.name == name
        assert found.params == {"lr": Change("added", None, 0.1)}
        assert found.metrics["loss"] == Change("added", None, 0.5)
        assert found.files == ()
    assert not await repository.compare("HEAD", "main")
    (repo_path / "params.yaml").write_text("train:\n  lr: 0.3\n  epochs: 10\n")
    git("commit", "--quiet", "--all", "--message=next", cwd=repo_path)
    assert (await repository.compare("other", "main")).params == {"train.lr": Change("changed", 0.1, 0.3, 0.3 - 0.1)}


async def test_numbers_that_are_special(repository: aexp.Repository) -> None:
    """NaN is equal to NaN and 1 to 1.0, but not to true; a difference is what floats give, or None where there is none."""
    await saved(repository, "one", {"a": 1, "b": 1, "big": 10**400}, nan=math.nan, inf=math.inf, up=0.0)
    await saved(repository, "two", {"a": 1.0, "b": True, "big": 0.5}, nan=math.nan, inf=math.inf, up=math.inf)

    found = await repository.compare("one", "two")

    assert found.params == {"b": Change("changed", 1, True), "big": Change("changed", 10**400, 0.5)}
    assert found.metrics == {"up": Change("changed", 0.0, math.inf, math.inf)}


async def test_a_table_of_differences(repository: aexp.Repository, repo_path: Path) -> None:
    """`to_dicts()` gives one row a difference, all with the same keys."""
    await saved(repository, "one", {"lr": 0.1}, loss=0.5)
    (repo_path / "new.py").write_text("x\n")
    await saved(repository, "two", {"lr": 0.2}, loss=0.5)

    rows = (await repository.compare("one", "two")).to_dicts()

    assert [tuple(row.values()) for row in rows] == [
        ("params", "lr", "changed", 0.1, 0.2, 0.1),
        ("files", "new.py", "added", None, None, None),
    ]
    assert {tuple(row) for row in rows} == {("section", "name", "kind", "old", "new", "difference")}


async def test_a_patch(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """On demand there is what `git diff` prints: it can be applied; binary files are named only; no program is started."""
    git("config", "diff.external", "false", cwd=repo_path)
    git("config", "diff.evil.textconv", "false", cwd=repo_path)
    git("config", "diff.noprefix", "true", cwd=repo_path)
    git("config", "color.ui", "always", cwd=repo_path)
    (repo_path / ".git" / "info" / "attributes").write_text("*.py diff=evil\n")
    await saved(repository, "one", {"lr": 0.1}, loss=0.5)
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "new.bin").write_bytes(b"\0\xff" * 100)
    await saved(repository, "two", {"lr": 0.2}, loss=0.5)

    patch = (await repository.compare("one", "two", patch=True)).patch

    assert patch is not None
    assert "--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-lr = 0.1\n+lr = 0.2\n" in patch
    assert "Binary files /dev/null and b/new.bin differ\n" in patch
    assert "aexp/" not in patch
    (repo_path / "train.py").write_text("lr = 0.1\n")
    git("apply", "--include=train.py", cwd=repo_path, input=patch)
    assert (repo_path / "train.py").read_text() == "lr = 0.2\n"


async def test_a_long_patch_is_cut_off(repository: aexp.Repository, repo_path: Path) -> None:
    """A patch ends after 4 MiB, at the end of a line, and says so; it is text, whatever the files hold."""
    await saved(repository, "one", {}, loss=0.5)
    (repo_path / "train.py").write_bytes(b"caf\xe9\n" * 2_000_000)
    await saved(repository, "two", {}, loss=0.5)

    patch = (await repository.compare("one", "two", patch=True)).patch

    assert patch is not None
    assert len(patch.encode()) < 8 * 2**20
    *_, last_line, note = patch.splitlines()
    assert last_line == "+caf\ufffd"
    assert note.startswith("# cut off here, at 4,194,304 bytes; `git diff ")


async def test_what_cannot_be_read_is_said(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Parameters that cannot be read do not pass for removed ones in silence: that side is said to be damaged."""
    await saved(repository, "one", {"lr": 0.1}, loss=0.5)
    (repo_path / "params.yaml").write_text("{no yaml")
    await saved(repository, "two", {"lr": 0.1}, loss=0.5)

    found = await repository.compare("one", "two")

    assert found.left.damaged is None
    assert "params.yaml" in (found.right.damaged or "")


async def test_what_is_neither_an_experiment_nor_a_commit(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """It is not found, on whichever side; a name on two baselines is ambiguous; an option is no name."""
    await saved(repository, "it", {}, loss=0.5)
    for pair in (("it", "nothing"), ("nothing", "it"), ("it", "--output=/tmp/x"), ("", "it")):
        with pytest.raises(aexp.ExperimentNotFound) as told:
            await repository.compare(*pair)
        assert told.value.name in pair
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    await saved(repository, "it", {}, loss=0.5)
    with pytest.raises(aexp.AmbiguousName):
        await repository.compare("it", "HEAD")


async def test_paths_that_are_no_utf8(repository: aexp.Repository, repo_path: Path) -> None:
    """Such a path is told as `os.fsdecode` gives it."""
    await saved(repository, "one", {}, loss=0.5)
    name = os.fsdecode(b"caf\xe9")
    (repo_path / name).write_text("x\n")
    await saved(repository, "two", {}, loss=0.5)
    assert (await repository.compare("one", "two")).files == (FileChange(name, "added"),)


async def test_a_large_tree(repo_path: Path, git: Git) -> None:
    """Of a tree of 100,000 files only the folders that differ are looked at: far under a second, the loop alive."""
    blob = git("hash-object", "-w", "--stdin", cwd=repo_path, input="x")
    text = "\n".join(f"100644 {blob}\tlib/{number // 1000}/{number % 1000}" for number in range(100_000))

    def commit() -> str:
        git("update-index", "--index-info", cwd=repo_path, input=text)
        return git("commit-tree", git("write-tree", cwd=repo_path), "-p", "HEAD", "-m", "big", cwd=repo_path)

    one = commit()
    text = text.replace(
        f"{blob}\tlib/7/7\n", f"{git('hash-object', '-w', '--stdin', cwd=repo_path, input='y')}\tlib/7/7\n"
    )
    two = commit()
    async with aexp.Repository(repo_path) as repository:
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            found = await repository.compare(one, two)
            times.append(time.perf_counter() - begin)
        assert min(times) < 1
        assert found.files == (FileChange("lib/7/7", "changed"),)

        task = asyncio.ensure_future(repository.compare("HEAD", two))
        longest = 0.0
        gc.collect()
        gc.freeze()  # what pytest and hypothesis hold is not ours to go through
        while not task.done():
            begin = time.process_time()  # of this process, so that others on a loaded machine do not count
            await asyncio.sleep(0)
            longest = max(longest, time.process_time() - begin)
        gc.unfreeze()
        assert len(task.result().files) == 100_000
        assert longest < 0.1


async def test_cancelled_it_leaves_the_repository_usable(repository: aexp.Repository) -> None:
    """A comparison that is cancelled ends with the cancellation, and the next one works."""
    await saved(repository, "one", {}, loss=0.5)
    for pause in (0, 0.001, 0.01):
        task = asyncio.create_task(repository.compare("HEAD", "one", patch=True))
        await asyncio.sleep(pause)
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, (asyncio.CancelledError, aexp.Comparison))
        assert await repository.compare("HEAD", "one")
