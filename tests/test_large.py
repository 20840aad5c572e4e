"""What is large is read whole, by other ways than what is small: the same bytes, the same order, the same errors."""

import random
import subprocess
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aexp
from aexp import FileChange
from aexp._formats import gitobjects
from aexp._formats.gitobjects import FILE, FOLDER, Entry
from aexp._formats.series import SLICE, Curve
from aexp._git import LARGE

Git = Callable[..., str]
POINTS = 3 * SLICE


async def saved_with(repository: aexp.Repository, name: str, content: bytes) -> str:
    """Save an experiment with this content in large.bin; return its rev."""
    async with repository.experiment(name) as experiment:
        await experiment.log_file("large.bin", content)
    assert experiment.record is not None
    return experiment.record.rev


@pytest.mark.parametrize("size", [LARGE - 1, LARGE, LARGE + 1, 3_000_000])
async def test_a_large_file_is_read_as_it_is(repository: aexp.Repository, repo_path: Path, git: Git, size: int) -> None:
    """From the pack it was saved in, as a difference to another, loose, and where Git is told to see another object."""
    content = random.Random(size).randbytes(size)
    await saved_with(repository, "one", content)
    await saved_with(repository, "two", content[: size // 2] + b"!" + content[size // 2 :])
    assert await repository.read("one", "large.bin") == content

    git("repack", "-adfq", cwd=repo_path)
    assert await repository.read("one", "large.bin") == content

    rev = (await repository.get("one")).rev
    git(
        "replace",
        git("rev-parse", f"{rev}:large.bin", cwd=repo_path),
        git("rev-parse", "HEAD:train.py", cwd=repo_path),
        cwd=repo_path,
    )
    assert await repository.read("one", "large.bin") == content


def made_loose(path: Path, *contents: bytes) -> list[Path]:
    """Make every object of the repository loose, and the blobs of these contents; return the files of the blobs."""
    objects = path / ".git" / "objects"
    for pack in list((objects / "pack").iterdir()):
        moved = pack.rename(path.parent / pack.name)
        if moved.suffix == ".pack":
            with moved.open("rb") as file:
                subprocess.run(["git", "unpack-objects", "-q"], cwd=path, stdin=file, check=True)
    hashing = ["git", "hash-object", "-w", "--stdin"]
    made = [subprocess.run(hashing, cwd=path, input=each, capture_output=True, check=True) for each in contents]
    ids = [each.stdout.decode().strip() for each in made]
    return [objects / id[:2] / id[2:] for id in ids]


async def test_a_large_file_that_is_damaged_is_told(repository: aexp.Repository, repo_path: Path) -> None:
    """A loose object that was cut off, or that holds another's bytes, is an error, and nobody's content."""
    content = bytes(2_000_000)
    await saved_with(repository, "one", content)
    place, other = made_loose(repo_path, content, b"1" * 2_000_000)
    whole = place.read_bytes()
    place.chmod(0o644)

    for damaged in (whole[:-600], other.read_bytes()):
        place.write_bytes(damaged)
        with pytest.raises(aexp.errors.GitError, match="damaged"):
            await repository.read("one", "large.bin")
    place.write_bytes(whole)
    assert await repository.read("one", "large.bin") == content


def test_a_large_tree_has_the_entries_of_small_ones() -> None:
    """A folder of 5,000 is parsed like one of five; cut off or filled up anywhere, it is damaged."""
    given = [
        Entry(b"file-%06d" % n, FOLDER if n % 7 == 0 else FILE, random.Random(n).randbytes(20)) for n in range(5_000)
    ]
    content = gitobjects.encode_tree(given)

    assert list(gitobjects.parse_tree(content).values()) == sorted(given, key=lambda entry: entry.name)
    assert list(gitobjects.tree_entries(content)) == list(gitobjects.parse_tree(content).values())
    for damage in (content[:-1], content + b"x", content[:70_000] + b"x" + content[70_000:], b"?" + content):
        with pytest.raises(ValueError, match="damaged tree"):
            gitobjects.parse_tree(damage)


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.sampled_from([3, 100, 2**40]), st.booleans())
def test_a_long_series_is_put_in_order(seed: int, spread: int, stamped: bool) -> None:
    """By step, and points of one step in the order they were logged, however many there are."""
    dice = random.Random(seed)
    steps = [int(dice.triangular(-spread, spread)) for _ in range(POINTS)]
    curve = Curve()
    for first in range(0, POINTS, 500):
        stamps = [(0, float(first))] if stamped and first % 1000 else []
        curve.extend(steps[first : first + 500], [float(first + each) for each in range(500)], stamps)
    series = curve.series()

    order = sorted(range(POINTS), key=steps.__getitem__)
    assert series.steps == array("q", [steps[place] for place in order])
    assert series.values == array("d", map(float, order))
    found = {int(value) for value, stamp in zip(series.values, series.timestamps, strict=True) if stamp == stamp}
    assert found == (set(range(500, POINTS, 1000)) if stamped else set())


async def test_what_a_query_looked_into_is_not_kept(repository: aexp.Repository) -> None:
    """Records that were filtered, ordered, or found best hold what they say packed, and say the same."""
    for number in range(4):
        async with repository.experiment(f"e{number}", params={"lr": number / 10}) as experiment:
            await experiment.log_metric("acc", number % 2, 3)
    plain = {record.name: record for record in await repository.experiments()}

    asked = await repository.experiments(where="params.lr < 0.3 and metrics.step == 3", sort="-metrics.acc")
    best = await repository.best("acc", where="params.lr >= 0")

    assert [record.name for record in asked] == ["e1", "e0", "e2"]
    assert best.name == "e1"
    for record in (*asked, best):
        for field in ("params", "metrics"):
            with pytest.raises(AttributeError):
                getattr(type(record), field).__get__(record)
        assert record == plain[record.name]
        assert record.params is record.params
    assert (await repository.best("acc", mode="min")).name == "e0"


async def test_files_that_differ_are_a_sequence(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """They have a length, places, slices, an order; they equal a tuple of the same, and look like it."""
    for number in range(3):
        (repo_path / f"new-{number}").write_text("x")
    git("add", ".", cwd=repo_path)
    git("commit", "-qm", "more", cwd=repo_path)

    files = (await repository.compare("HEAD~1", "HEAD")).files
    expected = tuple(FileChange(f"new-{number}", "added") for number in range(3))

    assert (len(files), bool(files), files[1], files[-2:], list(files)) == (
        3,
        True,
        expected[1],
        expected[1:],
        [*expected],
    )
    assert files == expected
    assert (await repository.compare("HEAD~1", "HEAD")).files == files != expected[1:]
    assert (repr(files), hash(files)) == (repr(expected), hash(expected))
    assert expected[2] in files
    assert not (await repository.compare("HEAD", "HEAD")).files
