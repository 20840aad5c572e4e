"""Programs that join the experiment they were started by: one experiment, with all that any of them logged."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp._ways import Join, Own, dvc_variables, variables, way

CHILD = """
    import asyncio, os, signal, sys, aexp

    async def main():
        order = dict(each.split("=") for each in sys.argv[1:])
        name, first, count = order["name"], int(order.get("first", 0)), int(order.get("count", 4))
        options = {} if "on_error" not in order else {"on_error": order["on_error"]}
        async with aexp.init(f"alone-{name}", params={"model": {name: 1}}, tags=[name], **options) as experiment:
            print(experiment.id, experiment.name, experiment.ref, flush=True)
            for step in range(first, first + count):
                await experiment.log_metric(order.get("metric", name), float(step), step, timestamp=float(step))
            await experiment.log_file(f"{name}.txt", name)
            if order.get("end") == "kill":
                await experiment.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            if order.get("end") == "raise":
                raise ValueError(name)
            if "wait" in order:
                await experiment.flush()
                open(order["wait"], "w").write(f"{os.getpid()}\\n")
                await asyncio.sleep(100)
        print(experiment.record.rev or "no rev", experiment.record.metrics, flush=True)

    asyncio.run(main())
"""

PARENT = """
    import asyncio, os, signal, sys, aexp

    async def main():
        path, child, *orders = sys.argv[1:]
        async with aexp.Repository(path) as repository:
            experiment = await repository.experiment("one", params={"lr": 0.1}).init()
            await experiment.log_metric("own", 1.0, 0)
            await experiment.flush()
            for order in orders:
                await experiment.run([sys.executable, child, *order.split()], isolated=False, check=False)
            if "kill" in os.environ.get("END", ""):
                os.kill(os.getpid(), signal.SIGKILL)
            await experiment.save()

    asyncio.run(main())
"""


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """A program that calls `aexp.init()`; its arguments are orders."""
    file = tmp_path / "child.py"
    file.write_text(textwrap.dedent(CHILD))
    return file


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A program that runs children."""
    file = tmp_path / "parent.py"
    file.write_text(textwrap.dedent(PARENT))
    return file


async def run(experiment: aexp.Experiment, child: Path, *orders: str, cwd: Path | None = None) -> list[str]:
    """Run a child with orders, and return the lines that it prints."""
    command = [sys.executable, str(child), *orders]
    done = await experiment.run(command, isolated=False, check=False, cwd=cwd)
    return done.stdout.decode().splitlines()


def points(series: aexp.Series) -> list[tuple[int, float]]:
    """The steps and values of a series."""
    return list(zip(series.steps, series.values, strict=True))


def text_of(path: Path) -> str:
    """What a file holds; empty when it is not there."""
    return path.read_text() if path.exists() else ""


async def pid_in(path: Path) -> int:
    """The process id that a program writes to a file, once it has."""
    end = time.monotonic() + 20
    while not text_of(path).endswith("\n"):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    return int(text_of(path))


def damage(journal: Path) -> None:
    """Change a letter of a record in the middle."""
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"points", b"pointz")
    journal.write_bytes(b"".join(lines))


async def gone(pid: int) -> None:
    """Wait until a process is gone, or nothing of it is left but a zombie."""
    end = time.monotonic() + 20
    while True:
        command = ("ps", "-o", "stat=", "-p", str(pid))
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        if (await process.communicate())[0].strip()[:1] in (b"", b"Z"):
            return
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


# ---- which way ----

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(st.builds(Join, texts, texts, texts, texts, texts), st.dictionaries(texts, texts))
def test_what_is_told_is_understood(join: Join, others: dict[str, str]) -> None:
    """What an experiment tells its programs in their environment leads them to it, whatever else stands there."""
    assert way({**others, **variables(join)}) == join


@given(st.builds(Join, texts, texts, texts, texts, texts), st.data())
def test_half_of_it_is_nothing(join: Join, data: st.DataObject) -> None:
    """An environment in which any of the variables is missing or empty leads to an experiment of one's own."""
    told = variables(join)
    key = data.draw(st.sampled_from(sorted(told)))
    assert way({**told, key: ""}) == Own()
    del told[key]
    assert way(told) == Own()


def test_dvclive_is_told_not_to_save() -> None:
    """DVCLive learns the name and that somebody else saves, but nothing of a baseline, with which it would stage files."""
    join = Join("id", "name", "baseline", "/repository", "session")

    assert dvc_variables(join, {}) == {"DVC_ROOT": "/repository", "DVC_EXP_NAME": "name"}
    assert dvc_variables(join, {"DVC_ROOT": "/other"}) == {}


# ---- one experiment ----


async def test_a_program_logs_into_the_experiment(
    repository: aexp.Repository, child: Path, tmp_path: Path, fsck: Callable[[Path], None], repo_path: Path
) -> None:
    """What a program logs that calls `aexp.init()`, wherever it works, is in the experiment that runs it, and only there."""
    async with repository.experiment("one", params={"lr": 0.1, "model": {"depth": 4}}, tags=["own"]) as experiment:
        await experiment.log_metric("own", 1.0, 0)
        said = await run(experiment, child, "name=a", cwd=tmp_path)
        assert said[0] == f"{experiment.id} one {experiment.ref}"
        assert said[1] == "no rev {'a': 3.0, 'step': 3}"
        assert experiment.summary == {"own": 1.0, "a": 3.0}
        assert experiment.params == {"lr": 0.1, "model": {"depth": 4, "a": 1}}
        assert experiment.step == 3
        await experiment.log_metric("own", 2.0, 1)

    record = experiment.record
    assert record is not None
    assert await repository.experiments() == aexp.Records([record])
    assert record.metrics == {"own": 2.0, "a": 3.0, "step": 3}
    assert record.params["model"] == {"depth": 4, "a": 1}
    assert record.tags == ("own", "a")
    series = (await repository.history("one"))["a"]
    assert points(series) == [(step, float(step)) for step in range(4)]
    assert list(series.timestamps) == [0.0, 1.0, 2.0, 3.0]
    assert await repository.read("one", "a.txt") == b"a"
    assert await repository.interrupted() == []
    assert await repository.recover() == []
    fsck(repo_path)


async def test_the_last_that_was_logged_counts(repository: aexp.Repository, child: Path) -> None:
    """Points of one metric stand in the order of the programs: what was logged after a program wins over it."""
    async with repository.experiment("one") as experiment:
        await experiment.log_metric("m", -1.0, 0)
        await run(experiment, child, "name=a", "metric=m", "first=1")
        assert experiment.summary["m"] == 4.0
        await run(experiment, child, "name=b", "metric=m", "first=5")
        await experiment.log_metric("m", -2.0, 9)

    series = (await repository.history("one"))["m"]
    assert points(series) == [(0, -1.0), *((step, float(step)) for step in range(1, 9)), (9, -2.0)]
    assert (await repository.get("one")).metrics["m"] == -2.0


async def test_many_at_once_and_one_after_another(repository: aexp.Repository, child: Path) -> None:
    """Programs at once and one after another all come together, those that failed or were killed, too."""
    async with repository.experiment("one") as experiment:
        ends = {"a": "raise", "b": "kill", "c": "", "d": ""}
        await asyncio.gather(*(run(experiment, child, f"name={name}", f"end={end}") for name, end in ends.items()))
        await run(experiment, child, "name=e")

    record = await repository.get("one")
    assert record.metrics == {**dict.fromkeys("abcde", 3.0), "step": 3}
    assert record.params["model"] == dict.fromkeys("abcde", 1)
    assert set(record.tags) == set("abcde")
    assert record.status == aexp.Status.FINISHED
    assert set(await repository.history("one")) == set("abcde")


async def test_a_program_may_give_up_what_it_logged(repository: aexp.Repository, child: Path) -> None:
    """What a program logs that fails with on_error="discard" is not taken in."""
    async with repository.experiment("one") as experiment:
        await run(experiment, child, "name=a", "end=raise", "on_error=discard")
        await run(experiment, child, "name=b", "end=raise", "on_error=keep")

    assert set(await repository.history("one")) == {"b"}
    assert await repository.interrupted() == []


async def test_a_program_does_not_change_the_tree(repository: aexp.Repository) -> None:
    """Overrides of a program that joins are refused: the tree is that of the experiment, and was captured there."""
    command = "import asyncio, aexp; asyncio.run(aexp.init(overrides=['train.lr=0.5']).__aenter__())"
    async with repository.experiment("one") as experiment:
        done = await experiment.run([sys.executable, "-c", command], isolated=False, check=False)

    assert b"InvalidParams: overrides= change the tree of the experiment that this program joined" in done.stderr
    assert await repository.interrupted() == []


async def test_a_program_of_a_program(repository: aexp.Repository, child: Path, tmp_path: Path) -> None:
    """A program that runs another one joins, and so does the other: both log into the outermost experiment."""
    file = tmp_path / "middle.py"
    file.write_text(
        textwrap.dedent(f"""
            import asyncio, sys, aexp

            async def main():
                async with aexp.init() as experiment:
                    await experiment.log_metric("middle", 1.0, 0)
                    await experiment.run([sys.executable, {str(child)!r}, "name=inner"], isolated=False, output="show")
                    assert await experiment.make_checkpoint() == ""

            asyncio.run(main())
        """)
    )
    async with repository.experiment("one") as experiment:
        done = await experiment.run([sys.executable, file], isolated=False)

    record = await repository.get("one")
    assert record.metrics == {"middle": 1.0, "inner": 3.0, "step": 3}
    assert done.stdout.startswith(experiment.id.encode())
    assert await repository.read("one", "aexp/log.txt") == done.stdout


async def test_a_program_started_by_other_means(
    repository: aexp.Repository, child: Path, git: Callable[..., str], repo_path: Path
) -> None:
    """With the variables of an experiment any program joins it, in whatever way it was started."""
    async with repository.experiment("one") as experiment:
        process = await asyncio.create_subprocess_exec(
            sys.executable, child, "name=a", cwd="/", env={**os.environ, **experiment.variables()}
        )
        assert await process.wait() == 0

    assert (await repository.get("one")).metrics == {"a": 3.0, "step": 3}
    assert len(git("for-each-ref", "refs/aexp", cwd=repo_path).splitlines()) == 1, "the program's anchor is left"


async def test_another_repository_is_not_joined(
    repository: aexp.Repository, child: Path, tmp_path: Path, git: Callable[..., str]
) -> None:
    """A program that names another repository on purpose begins an experiment of its own there."""
    other = tmp_path / "other"
    git("init", "--quiet", other, cwd=tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message=start", cwd=other)
    file = tmp_path / "elsewhere.py"
    file.write_text(text_of(child).replace("**options", f"path={str(other)!r}, **options"))
    async with repository.experiment("one") as experiment:
        await run(experiment, file, "name=a")

    assert (await repository.get("one")).metrics == {"step": 0}
    async with aexp.Repository(other) as elsewhere:
        assert [record.name for record in await elsewhere.experiments()] == ["alone-a"]


async def test_an_experiment_that_is_over_is_not_joined(
    repo_path: Path, child: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A program that is left with the variables of an experiment that is over begins its own, where it works."""
    async with aexp.Repository(repo_path) as repository, repository.experiment("one") as experiment:
        stale = {**os.environ, **experiment.variables()}
    process = await asyncio.create_subprocess_exec(sys.executable, child, "name=a", cwd=repo_path, env=stale)
    assert await process.wait() == 0
    stale["AEXP_REPOSITORY"] = "/nowhere"
    process = await asyncio.create_subprocess_exec(sys.executable, child, "name=b", cwd=repo_path, env=stale)
    assert await process.wait() == 0

    async with aexp.Repository(repo_path) as repository:
        assert {record.name for record in await repository.experiments()} == {"one", "alone-a", "alone-b"}
    assert "no rev" not in capfd.readouterr().out


async def test_a_bare_repository_has_programs_too(
    template: Path, tmp_path: Path, child: Path, git: Callable[..., str]
) -> None:
    """An experiment of a repository without a work tree runs programs, and they join it."""
    git("clone", "--quiet", "--bare", template, "bare", cwd=tmp_path)
    async with aexp.Repository(tmp_path / "bare") as repository:
        async with repository.experiment("one", outs=["out.txt"]) as experiment:
            await run(experiment, child, "name=a", cwd=tmp_path)
        record = await repository.get("one")

    assert record.metrics == {"a": 3.0, "step": 3}
    assert record.code is not None
    assert record.code.skipped == (aexp.Skipped("out.txt", "the repository has no work tree"),)


async def test_a_program_at_work_is_nobody_elses(repository: aexp.Repository, child: Path, tmp_path: Path) -> None:
    """While an experiment lives, what its programs left or still log is not listed, recovered or resumed by others."""
    async with repository.experiment("one") as experiment, aexp.Repository(repository._path) as other:
        variables = {**os.environ, **experiment.variables()}
        dead = await asyncio.create_subprocess_exec(sys.executable, child, "name=dead", "end=kill", env=variables)
        await dead.wait()
        assert await other.interrupted() == []
        assert await other.recover() == []
        with pytest.raises(aexp.NotOwner):
            await other.resume("one")

    assert (await repository.get("one")).metrics == {"dead": 3.0, "step": 3}


async def test_one_that_ends_too_late_is_recovered_alone(repo_path: Path, child: Path, tmp_path: Path) -> None:
    """What a program logs that outlives its experiment becomes an experiment of a similar name: nothing is lost."""
    async with aexp.Repository(repo_path) as repository:
        experiment = await repository.experiment("one").init()
        variables = {**os.environ, **experiment.variables()}
        order = ("name=late", f"wait={tmp_path / 'pid'}")
        late = await asyncio.create_subprocess_exec(sys.executable, child, *order, env=variables)
        await pid_in(tmp_path / "pid")
        await experiment.save()
        assert await repository.interrupted() == []
        late.kill()
        await late.wait()
    async with aexp.Repository(repo_path) as repository:
        assert [each.name for each in await repository.interrupted()] == ["one"]
        (record,) = await repository.recover()

    assert (record.name, record.metrics) == ("one-2", {"late": 3.0, "step": 3})


# ---- seen while it runs ----


async def test_while_it_runs_there_is_one_experiment(repository: aexp.Repository, child: Path, tmp_path: Path) -> None:
    """Who looks at running experiments sees one, with what its programs have logged so far, and its whole history."""
    async with aexp.Repository(repository._path) as other:
        events: list[aexp.Event] = []
        watching = asyncio.create_task(collect(other, events))
        experiment = await repository.experiment("one", params={"lr": 0.1}).init()
        await experiment.log_metric("own", 1.0, 0)
        await run(experiment, child, "name=a")
        task = asyncio.create_task(run(experiment, child, "name=b", f"wait={tmp_path / 'pid'}"))
        await pid_in(tmp_path / "pid")
        (seen,) = await other.running()
        history = await other.history("one")
        await asyncio.sleep(0.5)
        await experiment.save()
        await task
        await asyncio.sleep(0.5)
        watching.cancel()
        await asyncio.wait([watching])

    assert (seen.id, seen.name, seen.pid) == (experiment.id, "one", os.getpid())
    assert seen.summary == {"own": 1.0, "a": 3.0, "b": 3.0}
    assert (seen.step, seen.points, seen.tags) == (3, 9, ("a", "b"))
    assert seen.params["model"] == {"a": 1, "b": 1}
    assert {name: len(series) for name, series in history.items()} == {"own": 1, "a": 4, "b": 4}
    assert {event.experiment.id for event in events if event.experiment is not None} == {experiment.id}
    assert [event.kind for event in events if event.kind in ("begun", "ended", "saved")] == ["begun", "ended", "saved"]
    assert any(event.kind == "metrics" and event.experiment and "b" in event.experiment.summary for event in events)


async def collect(repository: aexp.Repository, events: list[aexp.Event]) -> None:
    """Put what happens into a list."""
    async for event in repository.watch():
        events.append(event)  # noqa: PERF401  # they come as time goes by


async def test_upkeep_leaves_programs_alone(repository: aexp.Repository, child: Path) -> None:
    """While an experiment lives, `maintain()` and `diagnose()` pass over what its dead programs have logged."""
    async with repository.experiment("one") as experiment, aexp.Repository(repository._path) as other:
        variables = {**os.environ, **experiment.variables()}
        dead = await asyncio.create_subprocess_exec(sys.executable, child, "name=a", "end=kill", env=variables)
        await dead.wait()
        done = await other.maintain()
        assert (done.interrupted, done.retired) == ((), ())

    assert (await repository.get("one")).metrics == {"a": 3.0, "step": 3}


# ---- dead parents ----


@pytest.mark.parametrize("rescue", ["recover", "resume"])
async def test_a_dead_experiment_comes_back_as_one(
    repo_path: Path, parent: Path, child: Path, tmp_path: Path, rescue: str
) -> None:
    """An experiment whose process was killed comes back when its program is dead, too: as one, with what both logged."""
    command = [sys.executable, str(parent), str(repo_path), str(child), "name=a", f"name=b wait={tmp_path / 'pid'}"]
    process = await asyncio.create_subprocess_exec(*command)
    pid = await pid_in(tmp_path / "pid")
    process.kill()
    await process.wait()
    async with aexp.Repository(repo_path) as repository:
        assert await repository.interrupted() == []
        assert await repository.recover() == []
        with pytest.raises(aexp.NotOwner, match=f"process {pid} "):
            await repository.resume("one")
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    async with aexp.Repository(repo_path) as repository:
        assert [each.name for each in await repository.interrupted()] == ["one"]
        if rescue == "recover":
            (record,) = await repository.recover()
        else:
            experiment = await repository.resume("one")
            assert experiment.summary == {"own": 1.0, "a": 3.0, "b": 3.0}
            assert experiment.params["model"] == {"a": 1, "b": 1}
            await run(experiment, child, "name=c")
            record = await experiment.save()

        assert [each.name for each in await repository.experiments()] == ["one"]
        names = {"own": 1.0, "a": 3.0, "b": 3.0} | ({"c": 3.0} if rescue == "resume" else {})
        assert record.metrics == {**names, "step": 3}
        assert points((await repository.history("one"))["b"]) == [(step, float(step)) for step in range(4)]
        assert await repository.read("one", "b.txt") == b"b"
        assert b"one" in await repository.read("one", "aexp/log.txt")
        assert await repository.recover() == []
    assert list((repo_path / ".git/aexp/sessions").iterdir()) == []


async def test_an_experiment_that_was_kept_keeps_its_programs(repository: aexp.Repository, child: Path) -> None:
    """An experiment that was kept or given up, and is resumed in the same program, has what its programs logged."""
    experiment = await repository.experiment("one", on_error="keep").init()
    await run(experiment, child, "name=a")
    await experiment.__aexit__(ValueError, ValueError("boom"), None)
    again = await repository.resume("one")
    assert again.summary == {"a": 3.0}
    await again.discard()
    again = await repository.resume("one")
    await run(again, child, "name=b")
    record = await again.save()

    assert record.metrics == {"a": 3.0, "b": 3.0, "step": 3}


async def test_an_experiment_that_was_given_up_keeps_its_programs(repo_path: Path, child: Path) -> None:
    """A discarded experiment is resumed by a later program with what its programs logged, from the journals put away."""
    async with aexp.Repository(repo_path) as repository:
        experiment = await repository.experiment("one").init()
        await run(experiment, child, "name=a")
        await experiment.discard()
    async with aexp.Repository(repo_path) as repository:
        record = await (await repository.resume("one")).save()

    assert record.metrics == {"a": 3.0, "step": 3}


async def test_a_damaged_journal_is_not_taken_in_silently(repository: aexp.Repository, child: Path) -> None:
    """When a program's journal is damaged, this is said, the rest is saved, and the journal stays for salvage."""
    experiment = await repository.experiment("one").init()
    variables = {**os.environ, **experiment.variables()}
    for name in "ab":
        process = await asyncio.create_subprocess_exec(sys.executable, child, f"name={name}", env=variables)
        await process.wait()
    journal = max((Path(repository._path) / ".git/aexp/sessions").glob("*/journal-000001.log"))
    damage(journal)
    with pytest.warns(RuntimeWarning, match="is damaged at byte"):
        await experiment.save()

    assert (await repository.get("one")).metrics == {"a": 3.0, "step": 3}
    assert journal.exists()


async def test_a_damaged_part_of_a_dead_experiment_is_salvaged(
    repo_path: Path, parent: Path, child: Path, tmp_path: Path
) -> None:
    """Recovery saves all but the experiment that has a damaged part, and says so; salvage keeps what can be read of it."""
    command = [sys.executable, str(parent), str(repo_path), str(child), "name=a", f"name=b wait={tmp_path / 'pid'}"]
    process = await asyncio.create_subprocess_exec(*command)
    pid = await pid_in(tmp_path / "pid")
    process.kill()
    await process.wait()
    os.kill(pid, signal.SIGKILL)
    await gone(pid)
    damage(max((repo_path / ".git/aexp/sessions").glob("*/journal-000001.log")))
    async with aexp.Repository(repo_path) as repository:
        for _ in range(2):
            with pytest.raises(aexp.JournalCorrupt):
                await repository.recover()
            with pytest.raises(aexp.JournalCorrupt):
                await repository.resume("one")
        assert await repository.experiments() == aexp.Records()
        (record,) = await repository.recover(salvage=True)

    assert (record.name, record.metrics["own"], record.metrics["a"]) == ("one", 1.0, 3.0)
    assert "b" not in record.metrics
    assert record.params["model"] == {"a": 1, "b": 1}
    assert list((repo_path / ".git/aexp/sessions").iterdir()) == []


# ---- much ----


async def test_a_million_points_are_not_copied(repository: aexp.Repository, tmp_path: Path) -> None:
    """What a program logged is taken in without copying it: our own journal grows by one record, the loop goes on."""
    file = tmp_path / "many.py"
    file.write_text(
        textwrap.dedent("""
            import asyncio, aexp

            async def main():
                async with aexp.init() as experiment:
                    for step in range(1_000_000):
                        await experiment.log_metric("loss", step * 0.5, step)

            asyncio.run(main())
        """)
    )
    async with repository.experiment("one") as experiment:
        await experiment.run([sys.executable, file], isolated=False)
        await experiment.flush()
        (journal,) = (Path(repository._path) / ".git/aexp/sessions").glob("*/journal-000001.log")
        assert journal.stat().st_size < 10_000
        assert experiment.summary == {"loss": 499_999.5}

    assert len((await repository.history("one"))["loss"]) == 1_000_000
