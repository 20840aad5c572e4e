"""Reading what was saved: records, series and files by name, ref and rev; and checkpoints of what is not yet saved."""

import asyncio
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp
from aexp import State, Status

Git = Callable[..., str]


async def saved(repository: aexp.Repository, name: str, **options: Any) -> aexp.Record:
    """Save an experiment in which one point was logged."""
    async with repository.experiment(name, **options) as experiment:
        await experiment.log_metric("m", 1.0)
    assert experiment.record is not None
    return experiment.record


async def test_the_record_that_save_returns_is_the_one_that_is_read(
    repository: aexp.Repository, repo_path: Path
) -> None:
    """What `save()` returns is, field by field, what anybody reads back later."""
    experiment = repository.experiment("it", params={"lr": 0.1, "m": {"d": [1, None]}}, tags=["a"], message="why")
    await experiment.init()
    await experiment.log_metrics({"loss": 0.5, "n": 3, "ok": True, "a": 1, "a/b": 2, "deep/er/x": math.inf}, 7)
    await experiment.make_checkpoint()
    await experiment.complete(Status.FAILED)
    record = await experiment.save()

    assert await repository.get("it") == record == experiment.record
    assert (record.name, record.id, record.ref) == ("it", experiment.id, experiment.ref)
    assert (record.baseline, len(record.rev), record.damaged) == (experiment.baseline, 40, None)
    metrics = {"loss": 0.5, "n": 3, "ok": True, "a": 1, "a/b": 2, "deep/er/x": math.inf, "step": 7}
    assert record.metrics == metrics
    assert type(record.metrics["ok"]) is bool
    assert record.code is not None
    assert (record.code.mode, record.code.changed, record.code.skipped) == ("tracked", False, ())
    async with aexp.Repository(repo_path) as other:
        assert await other.get("it") == record


async def test_nan_is_read_back_as_it_was_returned(repository: aexp.Repository) -> None:
    """A record holds NaN as a float, whether it was just made or read."""
    async with repository.experiment("it") as experiment:
        await experiment.log_metrics({"nan": math.nan, "group/inf": -math.inf})
    for record in (experiment.record, await repository.get("it")):
        assert record is not None
        assert math.isnan(record.metrics["nan"])
        assert record.metrics["group/inf"] == -math.inf
    assert repr(await repository.get("it")) == repr(experiment.record)


async def test_an_experiment_has_many_names(repository: aexp.Repository) -> None:
    """A record is found by name, by full ref, by rev, and by the beginning of the rev from four digits on."""
    record = await saved(repository, "it")

    for name in ("it", record.ref, record.rev, record.rev[:10], record.rev[:4]):
        assert await repository.get(name) == record
        assert (await repository.history(name)).keys() == {"m"}
        assert await repository.read(name, "train.py") == b"lr = 0.1\n"


@pytest.mark.parametrize("name", ["other", "", "i", "refs/exps/00/00/it", "refs/heads/main", "HEAD", "0" * 40, "main"])
async def test_what_is_no_experiment_is_not_found(repository: aexp.Repository, name: str) -> None:
    """A name that no experiment has raises `ExperimentNotFound` with it, in every way to read."""
    record = await saved(repository, "it")
    for call in (repository.get(name), repository.history(name), repository.read(name, "train.py")):
        with pytest.raises(aexp.ExperimentNotFound) as told:
            await call
        assert told.value.name == name
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.get(record.rev[:3])


async def test_one_name_on_two_baselines_is_ambiguous(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A name on two baselines raises `AmbiguousName` with the full refs, each of which is accepted."""
    first = await saved(repository, "it")
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    second = await saved(repository, "it")

    with pytest.raises(aexp.AmbiguousName) as told:
        await repository.get("it")
    assert told.value.matches == tuple(sorted([first.ref, second.ref]))
    assert [await repository.get(ref) for ref in (first.ref, second.ref)] == [first, second]
    assert list(await repository.experiments(baseline="HEAD")) == [second]
    assert list(await repository.experiments(baseline="HEAD~1")) == [first]


async def test_records_come_oldest_first(repository: aexp.Repository) -> None:
    """`experiments()` returns every record, the oldest first; of a commit that nobody knows it says so."""
    assert list(await repository.experiments()) == []
    records = [await saved(repository, name) for name in ("c", "a", "b")]

    assert list(await repository.experiments()) == records
    assert (await repository.experiments())[1:] == aexp.Records(records[1:])
    with pytest.raises(aexp.NoBaseline):
        await repository.experiments(baseline="nothing")


async def test_files_are_read_from_the_commit(repository: aexp.Repository, repo_path: Path) -> None:
    """`read` gives a file as the commit holds it, and tells a folder and a missing file apart."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    await saved(repository, "it")
    (repo_path / "train.py").write_text("lr = 0.3\n")

    assert await repository.read("it", "train.py") == b"lr = 0.2\n"
    assert await repository.read("it", Path("data/notes.txt")) == b"where the data comes from\n"
    with pytest.raises(IsADirectoryError):
        await repository.read("it", "data")
    for path in ("nothing", "data/nothing", "train.py/x", "../train.py"):
        with pytest.raises(FileNotFoundError):
            await repository.read("it", path)


async def test_a_series_that_was_not_logged_is_told(repository: aexp.Repository) -> None:
    """`history` gives one metric or all; for one that was not logged it raises `KeyError` with the name."""
    async with repository.experiment("it") as experiment:
        await experiment.log_metrics({"a": 1, "a/b": 2, "a.tsv/c": 3})

    assert (await repository.history("it")).keys() == {"a", "a/b", "a.tsv/c"}
    for name in ("a", "a/b", "a.tsv/c"):
        assert (await repository.history("it", name)).keys() == {name}
    for name in ("b", "a/", "A"):
        with pytest.raises((KeyError, aexp.InvalidName)):
            await repository.history("it", name)


# ---- checkpoints ----


async def test_checkpoints_are_a_chain(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Each checkpoint is a commit upon the one before, on the experiment's own ref; the record names them all."""
    experiment = await repository.experiment("it", params={"lr": 0.1}).init()
    revs = []
    for step in range(3):
        await experiment.log_metric("m", step / 2, step)
        await experiment.log_file(f"weights-{step}.txt", f"{step}\n")
        revs.append(await experiment.make_checkpoint(f"after {step}" if step else None))
        assert git("rev-parse", experiment.ref, cwd=repo_path) == revs[-1]
        assert experiment.state is State.ACTIVE
        assert experiment.record is None
    record = await experiment.save()

    assert record.checkpoints == tuple(revs)
    chain = git("rev-list", "--reverse", f"{record.baseline}..{record.ref}", cwd=repo_path).split()
    assert chain == [*revs, record.rev]
    titles = git("log", "--reverse", "--format=%s", f"{record.baseline}..{record.ref}", cwd=repo_path).splitlines()
    assert titles == ["aexp: it", "after 1", "after 2", "aexp: it"]
    for step, rev in enumerate(revs):
        assert git("show", f"{rev}:aexp/plots/metrics/m.tsv", cwd=repo_path).count("\n") == step + 1
        files = git("ls-tree", "--name-only", rev, cwd=repo_path).split()
        assert [name for name in files if name.startswith("weights")] == [f"weights-{n}.txt" for n in range(step + 1)]


async def test_checkpoints_do_not_change_the_end(repository: aexp.Repository) -> None:
    """An experiment with checkpoints has the series, files and parameters that it would have without."""
    records = []
    for name in ("with", "without"):
        async with repository.experiment(name, params={"lr": 0.1}) as experiment:
            for step in range(20):
                await experiment.log_metric("m", step / 7, step)
                if name == "with" and step % 5 == 0:
                    await experiment.make_checkpoint()
            await experiment.set_params(late=1)
        records.append(await repository.get(name))

    assert await repository.history("with") == await repository.history("without")
    assert records[0].metrics == records[1].metrics
    assert records[0].params == records[1].params


async def test_an_unfinished_experiment_is_read_by_its_checkpoint(repo_path: Path) -> None:
    """A checkpoint's record says running while its session lives, to everybody, and interrupted when that is over."""
    async with aexp.Repository(repo_path) as repository, aexp.Repository(repo_path) as other:
        experiment = await repository.experiment("it").init()
        await experiment.log_metric("m", 1.0)
        rev = await experiment.make_checkpoint()
        for reader in (repository, other):
            record = await reader.get("it")
            assert (record.status, record.rev, record.metrics) == (Status.RUNNING, rev, {"m": 1.0, "step": 0})
            assert [each.status for each in await reader.experiments()] == [Status.RUNNING]
    async with aexp.Repository(repo_path) as reader:
        assert (await reader.get("it")).status is Status.INTERRUPTED
        (recovered,) = await reader.recover()
        assert (recovered.status, recovered.checkpoints) == (Status.INTERRUPTED, (rev,))
        assert await reader.get("it") == recovered


PROGRAM = """
import asyncio, sys
import aexp

async def main():
    repository = await aexp.Repository(sys.argv[1]).open()
    experiment = await repository.experiment("it").init()
    await experiment.log_metric("m", 1.0, 1)
    print(await experiment.make_checkpoint(), flush=True)
    await experiment.log_metric("m", 2.0, 2)
    await experiment.flush()
    print("flushed", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_program_leaves_an_interrupted_experiment(repository: aexp.Repository, repo_path: Path) -> None:
    """A checkpoint of a living process is running; once that was killed it is interrupted, and nothing flushed is lost."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, repo_path, stdout=pipe)
    assert child.stdout is not None
    rev = (await child.stdout.readline()).decode().strip()
    assert await child.stdout.readline() == b"flushed\n"
    record = await repository.get("it")
    assert (record.rev, record.status) == (rev, Status.RUNNING)

    child.kill()
    await child.wait()
    assert (await repository.get("it")).status is Status.INTERRUPTED
    (recovered,) = await repository.recover()

    assert (recovered.checkpoints, recovered.metrics) == ((rev,), {"m": 2.0, "step": 2})
    assert list((await repository.history("it"))["m"].values) == [1.0, 2.0]


async def test_a_resumed_experiment_takes_files_beside_its_old_ones(repo_path: Path) -> None:
    """After `resume` a file where an earlier one needs a folder is refused at the call, so that it can still be saved."""
    async with aexp.Repository(repo_path) as repository:
        experiment = await repository.experiment("it").init()
        await experiment.log_file("out", "1")
        await experiment.flush()
    async with aexp.Repository(repo_path) as repository:
        resumed = await repository.resume("it")
        with pytest.raises(aexp.UnsafePath):
            await resumed.log_file("out/a", "2")
        await resumed.log_file("out", "3")
        await resumed.save()
        assert await repository.read("it", "out") == b"3"
