"""The commits that experiments stand on, told without reading an experiment."""

from collections.abc import Callable
from pathlib import Path

import pytest

import aexp

Git = Callable[..., str]


async def save(repository: aexp.Repository, name: str, baseline: str = "HEAD") -> aexp.Record:
    """Save an empty experiment on *baseline*."""
    async with repository.experiment(name, baseline=baseline) as experiment:
        pass
    assert experiment.record is not None
    return experiment.record


async def test_experiments_stand_on_their_baselines(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Each baseline says which branches and tags point at it, when it was made, and which experiments stand on it."""
    first = [await save(repository, name) for name in ("b", "a")]
    git("tag", "light", cwd=repo_path)
    git("tag", "--annotate", "--message=heavy", "heavy", cwd=repo_path)
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    second = await save(repository, "c")
    head, old = await repository.baselines()

    assert (head.rev, head.names) == (second.baseline, ("main",))
    assert (old.rev, old.names) == (first[0].baseline, ("heavy", "light"))
    assert old.created is not None
    assert old.created.isoformat() == "2026-01-01T00:00:00+00:00"
    assert [(each.name, each.ref, each.rev) for each in old.experiments] == [
        (record.name, record.ref, record.rev) for record in reversed(first)
    ]


async def test_head_comes_first(
    repository: aexp.Repository, repo_path: Path, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baselines come newest first, but for HEAD, which comes before them all."""
    first = (await save(repository, "a")).baseline
    later = []
    for day in (2, 4, 3):
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"2026-01-0{day}T00:00:00+00:00")
        git("commit", "--quiet", "--allow-empty", f"--message={day}", cwd=repo_path)
        later.append((await save(repository, f"e{day}")).baseline)
    git("checkout", "--quiet", "--detach", first, cwd=repo_path)

    assert [each.rev for each in await repository.baselines()] == [first, later[1], later[2], later[0]]


async def test_one_baseline_is_asked_for(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A baseline that is named comes alone, also when nothing stands on it; what is no commit raises `NoBaseline`."""
    await save(repository, "a")
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)

    assert [[each.name for each in found.experiments] for found in await repository.baselines("HEAD~1")] == [["a"]]
    assert [found.experiments for found in await repository.baselines("main")] == [()]
    with pytest.raises(aexp.NoBaseline):
        await repository.baselines("nowhere")


async def test_a_repository_without_commits_has_none(tmp_path: Path, git: Git) -> None:
    """Where there is no commit there are no baselines, and HEAD is none."""
    git("init", "--quiet", cwd=tmp_path)
    async with aexp.Repository(tmp_path) as repository:
        assert await repository.baselines() == []
        with pytest.raises(aexp.NoBaseline):
            await repository.baselines("HEAD")


async def test_what_is_damaged_is_listed(repository: aexp.Repository, repo_path: Path) -> None:
    """An experiment whose ref is damaged is listed without a rev, one on a commit that is gone without its time."""
    record = await save(repository, "a")
    gone = repo_path / ".git" / "refs" / "exps" / "12" / ("0" * 38) / "lost"
    gone.parent.mkdir(parents=True)
    gone.write_text(f"{record.rev}\n")
    (repo_path / ".git" / record.ref).parent.joinpath("torn").write_text("\0\0")
    head, other = await repository.baselines()

    assert [(each.name, each.rev) for each in head.experiments] == [("a", record.rev), ("torn", "")]
    assert (other.rev, other.names, other.created) == ("12" + "0" * 38, (), None)


async def test_checkpoints_say_when_and_what(repository: aexp.Repository) -> None:
    """The checkpoints of an experiment come oldest first, each with its message and the metrics of that moment."""
    async with repository.experiment("it") as experiment:
        revs = []
        for step, message in enumerate(("first", None)):
            await experiment.log_metric("loss", 1 / (step + 1), step)
            revs.append(await experiment.make_checkpoint(message))
        await experiment.log_metric("loss", 0.1, 2)
    record = experiment.record
    assert record is not None
    first, second = await repository.checkpoints("it")

    assert (first.rev, first.message, first.metrics) == (revs[0], "first", {"loss": 1.0, "step": 0})
    assert (second.rev, second.message, second.metrics) == (revs[1], "aexp: it", {"loss": 0.5, "step": 1})
    assert record.created.replace(microsecond=0) <= first.created <= second.created
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.checkpoints("other")
