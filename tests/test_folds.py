"""Experiments that log by turns for long: their places in the journal are folded into it, and all is found again."""

import asyncio
import os
import subprocess
import sys
from array import array
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp._formats.journal import Extents, Kind, decode_places, encode_places
from aexp._sessions import read_extents, read_ledger

NUMBER = st.integers(0, 2**40)
ROUNDS = 3 * Extents.MANY
NAMES = ("one", "two", "three")
KILLED = """
import asyncio, os, sys
import aexp

async def main(path, rounds, *names):
    repository = await aexp.Repository(path).open()
    held = [await repository.experiment(name, code="none").init() for name in names]
    for step in range(int(rounds)):
        for experiment in held:
            await experiment.log_metric("m", step / 7, step)
        await held[0].flush()
    os._exit(9)

asyncio.run(main(*sys.argv[1:]))
"""


@given(st.lists(st.tuples(st.integers(1, 9), NUMBER, NUMBER, NUMBER), max_size=50))
def test_places_come_back_as_they_were(found: list[tuple[int, int, int, int]]) -> None:
    """Ranges that are written into the journal are read as they were, whatever their order, and in few bytes."""
    ranges = [(segment, start, start + length) for segment, start, length, _ in found]
    flat = array("q", [place for each in ranges for place in each])

    assert decode_places(encode_places(flat)) == ranges


@given(st.lists(st.sampled_from(["add", "gap", "fold", "cut"]), max_size=60), st.data())
def test_a_fold_stands_for_what_it_lists_and_nothing_else(steps: list[str], data: st.DataObject) -> None:
    """Whatever is added and cut between its beginning and its end, a fold changes where records are found, not which."""
    extents, plain, place = Extents(), Extents(), 0
    begun: list[array[int]] = []
    for step in steps:
        place += step == "gap"
        if step in ("add", "gap"):
            extents.add(1, place, 5)
            plain.add(1, place, 5)
            place += 5
        elif step == "fold":
            begun.append(extents.before(1, place))
        elif begun:
            listed = max((each[-1] for each in begun if each), default=0)
            place = data.draw(st.integers(listed, max(listed, place)))  # only what is not synced is cut
            extents.cut(1, place)
            plain.cut(1, place)
    if begun and begun[-1]:
        extents.fold(begun[-1], (2, 0, 1))
        folded = list(zip(*[iter(begun[-1])] * 3, strict=True))
        first, *others = extents  # no fold where its last range grew after a cut: it is no longer what was listed
        assert [*(folded if first == (2, 0, 1) else [first]), *others] == list(plain)
    assert len(extents) == len(plain)


def kinds(path: Path) -> list[str]:
    """The kinds of the records in the journal of the one session."""
    lines = [line for log in sorted(path.glob(".git/aexp/*/*/journal-*.log")) for line in log.read_bytes().splitlines()]
    return [line.split(b'"', 2)[1].decode() for line in lines]


def killed(path: Path) -> Path:
    """Let a program log by turns and die; return the folder of its session."""
    command = [sys.executable, "-c", KILLED, str(path), str(ROUNDS), *NAMES]
    assert subprocess.run(command, check=False).returncode == 9
    (session,) = path.glob(".git/aexp/sessions/*")
    return session


def damage(path: Path) -> None:
    """Change a digit of the last record that lists places of the first experiment."""
    (log,) = path.glob(".git/aexp/sessions/*/journal-*.log")
    content, mark = log.read_bytes(), b'"places",[1,[[1,'
    place = content.rindex(mark) + len(mark)
    with log.open("r+b") as file:
        os.pwrite(file.fileno(), b"9" if content[place : place + 1] != b"9" else b"8", place)


async def check(repository: aexp.Repository, name: str) -> None:
    """Raise unless the experiment holds every point of every round."""
    series = (await repository.history(name, "m"))["m"]
    assert list(series.steps) == list(range(ROUNDS))
    assert list(series.values) == [step / 7 for step in range(ROUNDS)]


async def test_what_is_logged_by_turns_is_saved_whole(repository: aexp.Repository, repo_path: Path) -> None:
    """Experiments that log by turns, a record each time, hold few ranges in memory, and save every point."""
    held = [await repository.experiment(name, code="none").init() for name in NAMES]
    for step in range(ROUNDS):
        for experiment in held:
            await experiment.log_metric("m", step / 7, step)
        await held[0].flush()
        if step == ROUNDS // 2:
            await held[1].make_checkpoint()
    for experiment in held:
        assert len(list(experiment._stream.extents)) < 1.6 * Extents.MANY
    await held[0].discard()
    await asyncio.gather(held[1].save(), held[2].save())
    await (await repository.resume("one")).save()

    assert kinds(repo_path).count(Kind.PLACES) >= 3
    for name in NAMES:
        await check(repository, name)
    (middle,) = await repository.checkpoints("two")
    assert middle.metrics["m"] == ROUNDS // 2 / 7


async def test_folded_journals_of_the_dead_are_recovered(repo_path: Path) -> None:
    """What a process that was killed had folded is found by `interrupted`, by `resume` and by `recover`."""
    path = killed(repo_path)
    for number, extents in read_ledger(str(path), path.name).extents.items():
        records = list(read_extents(str(path), path.name, extents, number, None))
        assert sum(len(payload[1]["m"][0]) for _, payload in records) == ROUNDS

    async with aexp.Repository(repo_path) as repository:
        assert sorted(each.name for each in await repository.interrupted()) == sorted(NAMES)
        resumed = await repository.resume("two")
        await resumed.save()
        assert sorted(each.name for each in await repository.recover()) == ["one", "three"]
        for name in NAMES:
            await check(repository, name)


async def test_a_folded_place_that_is_damaged_is_loud(repository: aexp.Repository, repo_path: Path) -> None:
    """A record that lists places and was changed on the disk makes the save fail with `JournalCorrupt`, not lose points."""
    held = [await repository.experiment(name, code="none").init() for name in NAMES]
    for step in range(ROUNDS):
        for experiment in held:
            await experiment.log_metric("m", step / 7, step)
        await held[0].flush()
    damage(repo_path)

    error: aexp.AexpError | None = None
    try:
        await held[0].save()
    except aexp.JournalCorrupt as told:
        error = told
    assert error is not None
    await asyncio.gather(held[1].save(), held[2].save())
    await check(repository, "two")
