"""Programs that are told to end, at any time: Ctrl-C once and twice, SIGTERM; under asyncio and uvloop, in both forms."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

import aexp

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PROGRAM = """
import asyncio, signal, sys
import aexp

signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests in the background ignores Ctrl-C
LOOP, FORM, PATH = sys.argv[1:]

async def log(experiment):
    for step in range(100_000):
        await experiment.log_metric("loss", float(step), step)
        print("W", step, flush=True)
        if step % 10 == 9:
            await experiment.flush()
            print("F", step, flush=True)
        await asyncio.sleep(0.002)

async def main():
    if FORM == "init":
        async with aexp.init("told", path=PATH) as experiment:
            await log(experiment)
    else:
        async with aexp.Repository(PATH) as repository, repository.experiment("told") as experiment:
            await log(experiment)

if LOOP == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""
TIMES = 7
"""How many programs get the signal in each test, each at another time."""


@frozen
class Ended:
    """How a program ended, and the last step that it logged and flushed."""

    code: int
    words: str
    logged: int
    flushed: int


def ended(path: Path, loop: str, form: str, told: signal.Signals, *, twice: bool, after: float) -> Ended:
    """Run the program, and send the signal some seconds after it has logged its first point.

    The second Ctrl-C raises `KeyboardInterrupt` wherever Python happens to be, in the event loop's own callbacks, too:
    then a task may wait for ever, of ours or not, and it takes a third.
    """
    command = [sys.executable, "-c", PROGRAM, loop, form, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after)
        process.send_signal(told)
        if twice:
            time.sleep(after / 10)
            process.send_signal(told)
        try:
            said, words = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.send_signal(told if twice else signal.SIGKILL)
            said, words = process.communicate(timeout=60)
    lines = [line.split() for line in (first + said).splitlines() if len(line.split()) == 2]  # the last may be cut off
    last = {word: max((int(step) for said, step in lines if said == word), default=-1) for word in "WF"}
    return Ended(process.returncode, words, last["W"], last["F"])


@pytest.mark.parametrize(("loop", "form"), [("asyncio", "with"), ("asyncio", "init"), ("uvloop", "with")])
@pytest.mark.parametrize("kind", ["SIGTERM", "SIGINT", "SIGINT twice"])
async def test_a_program_that_is_told_to_end_loses_nothing(
    kind: str, loop: str, form: str, repo_path: Path, fsck: Callable[[Path], None]
) -> None:
    """Ctrl-C saves all that was logged, as cancelled; twice, or SIGTERM, leaves what was flushed and more to recover."""
    name, _, twice = kind.partition(" ")
    told, dice = signal.Signals[name], random.Random(f"{kind} {loop} {form}")
    for place in range(TIMES):
        after = dice.uniform(0, 0.2)
        found = ended(repo_path, loop, form, told, twice=bool(twice), after=after)
        assert found.code in (-told, 128 + told), found.words
        assert "Task was destroyed" not in found.words
        async with aexp.Repository(repo_path) as repository:
            if kind == "SIGINT":
                assert await repository.interrupted() == []
            await repository.recover()
            records = await repository.experiments()
            if told is signal.SIGTERM and found.flushed < 0 and not records:
                continue  # within the first 0.1 s, which a kill may cost
            (record,) = records
            steps = list((await repository.history("told"))["loss"].steps)
            await repository.remove("told")
        assert steps == list(range(len(steps))), f"holes, {place} after {after} s"
        assert len(steps) > found.flushed, f"a flushed point is lost, {place} after {after} s"
        if kind == "SIGINT":
            assert record.status is aexp.Status.CANCELLED
            assert len(steps) > found.logged, f"an accepted point is lost, {place} after {after} s"
        elif kind == "SIGTERM":
            assert record.status is aexp.Status.INTERRUPTED
        else:
            assert record.status in (aexp.Status.CANCELLED, aexp.Status.INTERRUPTED)
    fsck(repo_path)
