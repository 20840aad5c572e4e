"""Files that are taken from the work tree at the end: the outs that an experiment names, and what DVCLive writes."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp._formats.printed import HEAD, TAIL, Log, Tail

Git = Callable[..., str]


def tree(git: Git, path: Path, name: str = "one") -> dict[str, str]:
    """Mode by path of all files of an experiment's commit, but for aexp's own."""
    (ref,) = git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}", cwd=path).splitlines()
    lines = git("ls-tree", "-r", ref, cwd=path).splitlines()
    files = {line.split("\t")[1]: line.split()[0] for line in lines}
    return {file: mode for file, mode in files.items() if not file.startswith("aexp/")}


def skipped(experiment: aexp.Experiment) -> dict[str, str]:
    """What was left out, with the reasons."""
    assert experiment.record is not None
    assert experiment.record.code is not None
    return {each.path: each.reason for each in experiment.record.code.skipped}


async def test_outs_are_taken_as_they_are_at_the_end(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Callable[[Path], None]
) -> None:
    """Files and folders that are named are in the commit as `save()` finds them: new, changed, ignored, executable."""
    (repo_path / ".gitignore").write_text("out/\n")
    (repo_path / "out/deep").mkdir(parents=True)
    (repo_path / "out/old.txt").write_text("old\n")
    before = git("status", "--porcelain", "--ignored", cwd=repo_path)
    async with repository.experiment("one", outs=["out", Path("train.py"), "run.sh"]) as experiment:
        (repo_path / "out/deep/new.bin").write_bytes(bytes(range(256)) * 1000)
        (repo_path / "train.py").write_text("lr = 0.9\n")
        (repo_path / "run.sh").write_text("#!/bin/sh\n")
        (repo_path / "run.sh").chmod(0o755)

    files = tree(git, repo_path)
    assert {path: mode for path, mode in files.items() if path.startswith(("out", "run"))} == {
        "out/deep/new.bin": "100644",
        "out/old.txt": "100644",
        "run.sh": "100755",
    }
    assert await repository.read("one", "out/deep/new.bin") == bytes(range(256)) * 1000
    assert await repository.read("one", "train.py") == b"lr = 0.9\n"
    assert skipped(experiment) == {}
    assert git("diff", "--cached", cwd=repo_path) == ""
    assert before != git("status", "--porcelain", "--ignored", cwd=repo_path)
    fsck(repo_path)


async def test_a_folder_replaces_what_stood_there(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A file that is gone from a named folder is gone from the commit, too."""
    async with repository.experiment("one", outs=["data"]):
        (repo_path / "data/notes.txt").unlink()
        (repo_path / "data/more.txt").write_text("more\n")

    assert [path for path in tree(git, repo_path) if path.startswith("data/")] == ["data/more.txt"]


async def test_what_is_left_out_is_said(repo_path: Path, tmp_path: Path, git: Git) -> None:
    """Links, secrets, large files, FIFOs, repositories and what is not there are left out, each with the reason."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.txt").write_text("secret")
    settings = aexp.Settings(file_limit=100, capture_limit=150)
    outs = ["out", "missing.txt", "link", "link/secret.txt", "gone/away"]
    (repo_path / "out").mkdir()
    (repo_path / "link").symlink_to(tmp_path / "outside")
    (repo_path / "out/link").symlink_to(tmp_path / "outside/secret.txt")
    (repo_path / "out/.env").write_text("KEY=1")
    (repo_path / "out/large.bin").write_bytes(b"x" * 101)
    (repo_path / "out/a.bin").write_bytes(b"x" * 100)
    (repo_path / "out/b.bin").write_bytes(b"y" * 100)
    git("init", "--quiet", "out/inner", cwd=repo_path)
    os.mkfifo(repo_path / "out/fifo")
    async with aexp.Repository(repo_path, settings=settings) as repository:
        experiment = await repository.experiment("one", outs=outs).init()
        await experiment.save()

    assert [path for path in tree(git, repo_path) if path.startswith(("out", "link"))] == ["out/a.bin"]
    assert skipped(experiment) == {
        "out/.env": "the name of a file that holds secrets",
        "out/b.bin": "too much data in all",
        "out/fifo": "not a regular file",
        "out/inner/.git": "Git's own folder, on some file system",
        "out/large.bin": "larger than 100 bytes",
        "out/link": "a symbolic link",
        "missing.txt": "it is not there",
        "link": "a symbolic link",
        "link/secret.txt": "it cannot be read: Not a directory",
        "gone/away": "it is not there",
    }


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../b", ".git/config", "aexp/params.yaml", ""])
async def test_an_out_stays_in_the_work_tree(repository: aexp.Repository, path: str) -> None:
    """A path that leaves the work tree, or names what must not be written, is refused before anything is begun."""
    with pytest.raises(aexp.UnsafePath):
        repository.experiment("one", outs=[path])


async def test_outs_are_taken_once(repository: aexp.Repository, repo_path: Path) -> None:
    """A save that lost a race takes nothing anew when it is done again under another condition."""
    first = await repository.experiment("one", outs=["train.py"], force=True).init()
    (repo_path / "train.py").write_text("first\n")
    async with aexp.Repository(repo_path) as other:
        await (await other.experiment("one").init()).save()
    second = await repository.experiment("two", outs=["train.py"]).init()
    async with aexp.Repository(repo_path) as other:
        await (await other.experiment("two").init()).save()
    with pytest.raises(aexp.NameTaken):
        await second.save()
    (repo_path / "train.py").write_text("later\n")
    await second.save(force=True)
    await first.save()

    assert await repository.read("two", "train.py") == b"first\n"
    assert await repository.read("one", "train.py") == b"later\n"


async def test_after_a_kill_outs_are_not_taken(repo_path: Path, tmp_path: Path) -> None:
    """Recovery does not take from the work tree what a dead process would have taken, and says so."""
    file = tmp_path / "dies.py"
    file.write_text(
        textwrap.dedent(f"""
            import asyncio, os, signal, aexp

            async def main():
                async with aexp.Repository({str(repo_path)!r}) as repository:
                    experiment = await repository.experiment("one", outs=["train.py"]).init()
                    await experiment.flush()
                    os.kill(os.getpid(), signal.SIGKILL)

            asyncio.run(main())
        """)
    )
    assert ended_with(file) == -signal.SIGKILL
    (repo_path / "train.py").write_text("edited by somebody else\n")
    async with aexp.Repository(repo_path) as repository:
        (record,) = await repository.recover()
        assert record.code is not None
        assert record.code.skipped == (aexp.Skipped("train.py", "its process died before it was taken"),)
        assert await repository.read("one", "train.py") == b"lr = 0.1\n"


def ended_with(file: Path) -> int:
    """Run a Python program, and return its exit code."""
    return subprocess.run([sys.executable, file], check=False).returncode


# ---- DVCLive ----

LIVE = """
    import sys
    from dvclive import Live

    with Live(*sys.argv[1:]) as live:
        live.log_param("lr", 0.5)
        for step in range(3):
            live.log_metric("train/loss", 1.0 / (step + 1))
            live.next_step()
"""


@pytest.mark.compat
@pytest.mark.timeout(180)
@pytest.mark.parametrize("folder", ["dvclive", "results/one"])
async def test_what_dvclive_logs_is_in_the_experiment(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git, folder: str
) -> None:
    """A program that uses DVCLive makes no experiment of its own and stages nothing: its files are in ours, and count."""
    pytest.importorskip("dvclive")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=repo_path, check=True)  # noqa: ASYNC221
    git("commit", "--quiet", "--all", "--message=dvc", cwd=repo_path)
    (tmp_path / "live.py").write_text(textwrap.dedent(LIVE))
    async with repository.experiment("one") as experiment:
        await experiment.run([sys.executable, tmp_path / "live.py", folder], isolated=False, cwd=repo_path)

    record = await repository.get("one")
    assert [each.name for each in await repository.experiments()] == ["one"]
    assert record.metrics["train/loss"] == 1.0 / 3
    assert record.metrics_by_file[f"{folder}/metrics.json"]["train"] == {"loss": 1.0 / 3}
    assert record.params["lr"] == 0.5
    assert f"{folder}/plots/metrics/train/loss.tsv" in tree(git, repo_path)
    assert "dvc.yaml" in tree(git, repo_path)
    assert git("diff", "--cached", "--name-only", cwd=repo_path) == ""


async def test_what_an_earlier_program_wrote_is_not_taken(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """DVCLive's files that a program did not touch are not its own, and stay out."""
    (repo_path / "dvclive").mkdir()
    (repo_path / "dvclive/metrics.json").write_text('{"old": 1}')
    (repo_path / "dvc.yaml").write_text("metrics:\n- dvclive/metrics.json\n")
    async with repository.experiment("one") as experiment:
        await experiment.run("true", isolated=False, cwd=repo_path)
    async with repository.experiment("two") as experiment:
        command = "echo '{\"new\": 2}' > dvclive/metrics.json; touch dvc.yaml"
        await experiment.run(command, isolated=False, cwd=repo_path)

    assert "dvclive/metrics.json" not in tree(git, repo_path, "one")
    assert (await repository.get("two")).metrics == {"new": 2, "step": 0}


# ---- logs ----


@given(st.lists(st.binary(max_size=50)), st.integers(1, 60))
def test_a_tail_is_the_end_of_all(pieces: list[bytes], most: int) -> None:
    """However it comes in pieces, the tail is the last bytes of the whole."""
    tail = Tail(most)
    for piece in pieces:
        tail.add(piece)

    assert tail.content() == b"".join(pieces)[-most:]
    assert tail.total == sum(map(len, pieces))


@given(st.lists(st.tuples(st.integers(0, 2**18), st.booleans()), max_size=12))
def test_a_log_is_whole_until_it_is_too_long(pieces: list[tuple[int, bool]]) -> None:
    """What is taken of a log meanwhile and at its end is all of it, or its head, a line, and its tail."""
    log, taken, whole = Log(), b"", b""
    for number, (size, now) in enumerate(pieces):
        piece = bytes([number]) * size
        log.add(piece)
        whole += piece
        taken += log.take() if now else b""
    taken += log.take() + log.rest()

    if len(whole) <= HEAD + TAIL:
        assert taken == whole
    else:
        assert taken[:HEAD] == whole[:HEAD]
        assert taken[-TAIL:] == whole[-TAIL:]
        assert b"%d bytes are left out" % (len(whole) - HEAD - TAIL) in taken
