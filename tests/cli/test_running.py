"""`aexp run`, which makes an experiment of any program, and `aexp watch`, which shows experiments while they run."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import aexp

Run = Callable[..., Any]

TRAIN = """
import asyncio, sys
import aexp

async def main():
    async with aexp.init("when-alone", params={"depth": 3}) as experiment:
        for step in range(5):
            await experiment.log_metric("loss", 1 / (step + 1), step)
    print("trained", *sys.argv[1:])

asyncio.run(main())
sys.exit(int(sys.argv[1]))
"""
DVCLIVE = """
from dvclive import Live

with Live(save_dvc_exp=True) as live:
    for step in range(3):
        live.log_metric("acc", step / 10)
        live.next_step()
"""


async def record_of(path: Path, name: str) -> aexp.Record:
    """The record of an experiment."""
    async with aexp.Repository(path) as repository:
        return await repository.get(name)


async def test_a_program_is_an_experiment(command: Run, repo_path: Path, tmp_path: Path) -> None:
    """`aexp run` runs a program, which logs into that experiment, shows what it prints, and passes its exit code on."""
    program = tmp_path / "train.py"
    program.write_text(TRAIN)
    for code, status in ((0, "finished"), (3, "failed")):
        name = f"run-{code}"
        done = command("run", "-n", name, "--tag", "a", "--tag", "b", "--", sys.executable, str(program), str(code))
        record = await record_of(repo_path, name)

        assert (done.code, done.out) == (code, f"trained {code}\n")
        assert re.fullmatch(rf"aexp: {name} {status} after .* s, saved as {record.rev[:7]}\n", done.err), done.err
        assert (record.status, record.tags) == (status, ("a", "b"))
        assert (record.metrics["loss"], record.params["depth"]) == (0.2, 3)
        async with aexp.Repository(repo_path) as repository:
            assert await repository.read(name, "aexp/log.txt") == f"trained {code}\n".encode()
    assert [each["name"] for each in json.loads(command("show", "--json").out)] == ["run-3", "run-0"]


def test_flags_behind_the_dashes_are_the_programs(command: Run) -> None:
    """What stands behind `--` is the program's, even if it looks like a flag of ours; its input is ours."""
    program = "import sys; print(sys.argv[1:], sys.stdin.read())"
    done = command(
        "run", "--", sys.executable, "-c", program, "-C", "x", "--name", "--traceback", "--", "-h", input="in"
    )

    assert (done.code, done.out) == (0, "['-C', 'x', '--name', '--traceback', '--', '-h'] in\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "name the program to run, behind `--`"),
        (("--", "no-such-program"), 127, "cannot be started"),
        (("--", "sh", "-c", "kill -9 $$"), 137, "failed after"),
        (("-S", "train.no.lr=1", "--", "true"), 1, "train.no.lr"),
        (("-n", "a b", "--", "true"), 1, "cannot be the name of an experiment"),
    ],
    ids=str,
)
def test_what_cannot_run_says_why(command: Run, words: tuple[str, ...], code: int, said: str) -> None:
    """A program that cannot be started or is killed has the exit code that a shell gives; what we refuse begins nothing."""
    done = command("run", *words)

    assert (done.code, done.out) == (code, "")
    assert said in done.err
    saved = json.loads(command("show", "--json").out)
    assert [each["status"] for each in saved] == (["failed"] if code > 100 else [])


async def test_a_program_runs_in_a_checkout(command: Run, repo_path: Path) -> None:
    """With `-S` or `--isolated` a program runs in a private checkout, with other parameters, and the folder stays as it is."""
    before = sorted(os.listdir(repo_path))
    program = "grep lr: params.yaml; echo x > made.txt; cat"
    done = command("run", "-n", "one", "-S", "train.lr=0.7", "--", "sh", "-c", program, input="in")
    other = command("run", "-n", "two", "--isolated", "--", "sh", "-c", "pwd; exit 3")

    assert (done.code, done.out) == (0, "  lr: 0.7 # the learning rate\nin")
    assert other.code == 3
    assert "/.git/aexp/workspaces/" in other.out
    assert (await record_of(repo_path, "one")).params["train"]["lr"] == 0.7
    async with aexp.Repository(repo_path) as repository:
        assert await repository.read("one", "made.txt") == b"x\n"
    assert sorted(os.listdir(repo_path)) == before
    assert "lr: 0.1" in (repo_path / "params.yaml").read_text()


@pytest.mark.compat
async def test_dvclive_logs_into_the_experiment(command: Run, repo_path: Path, tmp_path: Path) -> None:
    """A program that logs with DVCLive logs into the experiment that runs it, and makes none of its own."""
    pytest.importorskip("dvclive")
    program = tmp_path / "live.py"
    program.write_text(DVCLIVE)
    done = command("run", "-n", "live", "--", sys.executable, str(program))
    record = await record_of(repo_path, "live")

    assert done.code == 0, done.err
    assert record.metrics["acc"] == 0.2
    assert json.loads(command("history", "live", "acc", "--json").out)["acc"]["values"] == [0.0, 0.1, 0.2]
    assert command("list", "--name-only").out == "live\n"


def test_a_program_may_have_the_terminal(terminal: Run) -> None:
    """With --terminal the program has the terminal itself; without, its output is a pipe that is shown."""
    program = "import sys; print('terminal' if sys.stdout.isatty() else 'pipe')"

    assert "pipe\n" in terminal("run", "--", sys.executable, "-c", program).out
    assert "terminal\n" in terminal("run", "--terminal", "--", sys.executable, "-c", program).out


async def test_ctrl_c_ends_the_program_and_saves(terminal: Run, repo_path: Path) -> None:
    """Ctrl-C in the terminal ends the program; the experiment is saved, and nothing is left open."""
    program = "import time; print('begun', flush=True); time.sleep(60)"
    done = terminal("run", "-n", "cut", "--", sys.executable, "-c", program, until="begun", then=b"\x03")
    record = await record_of(repo_path, "cut")

    assert done.code == 130
    assert record.status in ("failed", "cancelled")
    async with aexp.Repository(repo_path) as repository:
        assert await repository.interrupted() == []


async def test_watch_tells_of_every_process(command: Run, terminal: Run, repo_path: Path) -> None:
    """`aexp watch` shows what runs in other processes, in the terminal as a table that follows, until Ctrl-C: 130."""
    assert command("watch", "--once").err == "aexp: no experiment is running\n"
    assert json.loads(command("watch", "--once", "--json").out) == []
    async with aexp.Repository(repo_path) as repository:
        experiment = await repository.experiment("here", params={"lr": 0.1}).init()
        await experiment.log_metrics({"train/loss": 0.25, "acc": 0.5}, 7)
        await experiment.flush()
        (running,) = json.loads((await asyncio.to_thread(command, "watch", "--once", "--json")).out)
        shown = (await asyncio.to_thread(command, "watch", "--once")).out
        done = await asyncio.to_thread(terminal, "watch", until="0.25", then=b"\x03", NO_COLOR="1")
        await experiment.save()

    assert (running["name"], running["status"], running["step"], running["points"]) == ("here", "running", 7, 2)
    assert (running["metrics"], running["params"]["lr"]) == ({"train/loss": 0.25, "acc": 0.5}, 0.1)
    assert re.search(r"here +\S+ s +7 +0\.25", shown)
    assert done.code == 130
    assert "1 experiment running; Ctrl-C ends the watch" in done.out
    assert "Traceback" not in done.out


@pytest.mark.parametrize("words", [("watch",), ("watch", "--json")], ids=" ".join)
async def test_watch_writes_a_line_for_each_event(repo_path: Path, words: tuple[str, ...]) -> None:
    """Into a pipe `aexp watch` writes what happens as lines, and with --json as an object on each line, at once."""

    def kind(line: bytes) -> str:
        return str(json.loads(line)["kind"]) if "--json" in words else line.decode().split()[2]

    async with aexp.Repository(repo_path) as repository:
        watching = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "aexp_command", *words, cwd=repo_path, stdout=asyncio.subprocess.PIPE
        )
        assert watching.stdout is not None
        told: dict[str, bytes] = {}
        number = 0
        while not {"metrics", "ended", "saved"} <= told.keys():  # what is over before the watch begins is not told
            number += 1
            async with repository.experiment(f"try-{number}") as experiment:
                for step in range(4):
                    await experiment.log_metric("loss", 0.5, step)
                    await asyncio.sleep(0.1)
            with suppress(TimeoutError):
                while line := await asyncio.wait_for(watching.stdout.readline(), 0.5):
                    told[kind(line)] = line
        watching.send_signal(signal.SIGINT)

        assert await watching.wait() == 130
        assert "--json" in words or b"loss 0.5" in told["metrics"]
