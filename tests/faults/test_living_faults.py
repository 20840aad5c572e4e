"""A journal is read as it grows, byte by byte, through half-written lines, failed syncs, and damage."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aexp
from aexp import EventKind
from aexp._formats.journal import encode_line, header, seed
from aexp._living import Living
from aexp._sessions import claim, read_ledger

pytestmark = pytest.mark.faults


OWNER = '{"pid": 1, "host": "here", "user": "ada"}'
GATHERED = {EventKind.METRICS, EventKind.PARAMS, EventKind.DESCRIBED}


def read_all(living: Living, *, tell: bool = False) -> list[aexp.Event]:
    """Read until nothing is new."""
    events, more = list[aexp.Event](), True
    while more:
        some, more = living.read(dead=True, tell=tell)
        events += some
    return events


def told(living: Living) -> list[Any]:
    """How every experiment stands that is under way, with its series."""
    return [(each, living.history(each.id, None, left=False)) for each in living.running()]


@contextmanager
def held(common: Path, id: str) -> Iterator[Path]:
    """The folder of a session whose owner lives, below *common*; with nothing but the lock if there was none."""
    folder = common / "aexp" / "sessions" / id
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "owner.lock").exists():
        (folder / "owner.lock").write_text(OWNER)
    session = claim(str(common), id)
    assert session is not None
    try:
        yield folder
    finally:
        session.close()


async def write(path: Path) -> None:
    """Leave a journal in several segments: five experiments of each fate, points, files, parameters, checkpoints."""
    small = aexp.Settings(segment_size=4000, write_interval=0.001)
    async with aexp.Repository(path, settings=small) as repository:
        experiments = [repository.experiment(f"e{number}", params={"n": number}) for number in range(6)]
        for experiment in experiments:
            await experiment.init()
            await experiment.log_metric("m", 0.5)
            await experiment.flush()
        for step in range(24):
            for place, experiment in enumerate(experiments):
                await experiment.log_metrics({"m": step / 7, "g/x": float("inf")}, step)
                if place % 2:
                    await experiment.flush()
        await experiments[0].log_file("notes.txt", "x" * 3000)
        await experiments[1].make_checkpoint()
        await experiments[2].set_params(late=1)
        await experiments[2].set_tags("a")
        await experiments[3].save()
        await experiments[4].discard()
        await experiments[5].complete(aexp.Status.FAILED)


@pytest.fixture(scope="module")
def journal(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a session with several segments, whose owner does nothing more."""
    path = Path(shutil.copytree(template, tmp_path_factory.mktemp("journal") / "repository"))
    asyncio.run(write(path))
    (folder,) = (path / ".git/aexp/sessions").iterdir()
    assert len(list(folder.glob("journal-*"))) > 3
    (folder / "owner.lock").write_text(OWNER)
    with held(path / ".git", folder.name):
        yield folder


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_journal_is_read_as_it_grows(
    journal: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Read piece by piece, with lines half-written, taken back and written again, a journal tells all, and each event once."""
    common = tmp_path_factory.mktemp("grown")
    with held(common, journal.name) as target:
        living, events = Living(str(common)), list[aexp.Event]()
        for segment in sorted(journal.glob("journal-*")):
            content, path = segment.read_bytes(), target / segment.name
            cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
            for cut in [*cuts, len(content)]:
                if data.draw(st.booleans()):  # a write that is taken back, as when the disk is full
                    path.write_bytes(content[: cut + 400])
                    events += read_all(living, tell=True)
                path.write_bytes(content[:cut])
                events += read_all(living, tell=True)
    shutil.rmtree(common)
    whole = Living(str(journal.parent.parent.parent))
    expected = [event.kind for event in read_all(whole, tell=True) if event.kind not in GATHERED]
    assert [event.kind for event in events if event.kind not in GATHERED] == expected
    assert living.running() == whole.running()
    assert [each.name for each in whole.running()] == ["e0", "e1", "e2", "e5"]
    ledger = read_ledger(str(journal), journal.name)
    assert {each.id: each.params for each in living.running()} == {each.id: each.params for each in ledger.open()}


def test_damage_hides_only_what_it_has_hit(journal: Path, tmp_path: Path) -> None:
    """Of a journal with damage in its middle all else is seen, though `recover` says `JournalCorrupt` of it."""
    whole = Living(str(journal.parent.parent.parent))
    read_all(whole)
    with held(tmp_path, journal.name) as target:
        for segment in journal.glob("journal-*"):
            shutil.copy(segment, target)
        path = sorted(target.glob("journal-*"))[1]
        lines = path.read_bytes().splitlines(keepends=True)
        place = next(place for place, line in enumerate(lines) if b'"points"' in line)
        lines[place] = bytes(len(lines[place]) - 1) + b"\n"
        path.write_bytes(b"".join(lines))
        with pytest.raises(aexp.JournalCorrupt):
            read_ledger(str(target), journal.name)
        living = Living(str(tmp_path))
        read_all(living)
        left, all = told(living), told(whole)
    assert [each.name for each, _ in left] == [each.name for each, _ in all]
    points = [sum(each.points for each, _ in some) for some in (left, all)]
    assert 0 < points[0] < points[1]
    assert sum(len(one) for _, series in left for one in series.values()) == points[0]


def moved(lines: list[bytes], session: str, segment: int) -> bytes:
    """A segment with the records of *lines*, written again."""
    first = int(lines[0][10 : lines[0].index(b",")])
    again = [encode_line(line[9:-1], seed(session, segment)) for line in lines]
    return b"".join([header(session, segment, first - 1), *again])


@pytest.mark.parametrize("read_before", [True, False])
def test_what_a_failed_sync_has_lost_is_read_again(journal: Path, tmp_path: Path, read_before: bool) -> None:
    """Pages that are lost with a failed sync, be they read already or not, stand again in a later segment: nothing is missing."""
    whole = Living(str(journal.parent.parent.parent))
    read_all(whole)
    first, *rest = sorted(journal.glob("journal-*"))
    lines = first.read_bytes().splitlines(keepends=True)
    kept, lost, last = lines[:3], lines[3:-1], lines[-1]
    assert sum(b'"points"' in line for line in lost) > 1
    with held(tmp_path, journal.name) as target:
        living = Living(str(tmp_path))
        if read_before:
            shutil.copy(first, target)
            read_all(living)
        zeros = bytes(sum(map(len, lost)) - 1) + b"\n"
        (target / first.name).write_bytes(b"".join([*kept, zeros, last]))
        read_all(living)
        (target / "journal-000002.log").write_bytes(moved([*lost, last], journal.name, 2))
        read_all(living)
        for number, segment in enumerate(rest, start=3):
            again = moved(segment.read_bytes().splitlines(keepends=True)[1:], journal.name, number)
            (target / f"journal-{number:06d}.log").write_bytes(again)
            read_all(living)
        found = told(living)
    assert found == told(whole)
