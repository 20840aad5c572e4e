"""The index: reading with it is reading without it, whatever happens to its file; records leave their mappings packed."""

import asyncio
import copy
import gc
import itertools
import math
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp import Status
from aexp._formats.experiment import Others, foreign_record
from aexp._formats.gitobjects import Commit, Signature
from aexp._formats.row import VERSION, Found, Packer, Unpacker, checksum, pack_others, unpack_others

Git = Callable[..., str]


def index_of(path: Path) -> Path:
    """Where the index of the repository at *path* is."""
    return path / ".git" / "aexp" / "index.sqlite"


def rows_in(path: Path, table: str = "records") -> int:
    """How many rows the index of the repository at *path* has."""
    with closing(sqlite3.connect(index_of(path))) as file:
        return int(file.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def listed(path: Path, **query: Any) -> list[aexp.Record]:
    """The records that somebody who opens the repository now finds."""
    async with aexp.Repository(path) as repository:
        return list(await repository.experiments(**query))


def shown(records: Iterable[aexp.Record]) -> list[str]:
    """All that there is in *records*; NaN equals NaN here."""
    return [repr(attrs.asdict(each)) for each in records]


async def listed_without(path: Path, **query: Any) -> list[aexp.Record]:
    """The same, in a repository without an index; it is put back."""
    aside = index_of(path).with_name("aside")
    if index_of(path).exists():
        index_of(path).rename(aside)
    found = await listed(path, **query)
    index_of(path).unlink(missing_ok=True)
    if aside.exists():
        aside.rename(index_of(path))
    return found


def make_foreign(path: Path, git: Git, name: str, files: dict[str, str]) -> str:
    """An experiment as DVC makes one: a commit upon HEAD with these files, on a ref; its rev."""
    baseline = git("rev-parse", "HEAD", cwd=path)
    git("read-tree", "HEAD", cwd=path)
    for place, text in files.items():
        blob = git("hash-object", "-w", "--stdin", cwd=path, input=text)
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{place}", cwd=path)
    tree = git("write-tree", cwd=path)
    rev = git("commit-tree", tree, "-p", baseline, "-m", f"dvc: commit experiment {name}", cwd=path)
    git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}", rev, cwd=path)
    git("read-tree", "HEAD", cwd=path)
    return rev


@pytest.fixture
async def filled(repo_path: Path, git: Git) -> Path:
    """A repository with experiments of every kind: of ours and of others, sound and damaged, ended in every way."""
    (repo_path / "train.py").write_text("lr = 0.7\n")
    (repo_path / "big.bin").write_bytes(bytes(1000))
    settings = aexp.Settings(file_limit=100)
    async with aexp.Repository(repo_path, settings=settings) as repository:
        values = {"train/loss": math.nan, "train/deep/er": -math.inf, "a": 1, "a/b": 2, "ok": True, "tiny": 5e-324}
        params = {
            "inf": math.inf,
            "large": 2**80,
            "$x": 1,
            "$float": "nan",
            "m": {"$y": {}},
            "l": [1, None, [math.nan]],
        }
        async with repository.experiment(
            "rich", params=params, tags=["a", "ä"], message="why\n\nso", code="all"
        ) as one:
            await one.log_metrics(values, step=7)
            await one.make_checkpoint()
        with pytest.raises(ValueError, match="boom"):
            async with repository.experiment("failed", params={"train": {"lr": 0.5}}, code="none"):
                raise ValueError("boom")
        async with repository.experiment("plain") as two:
            await two.log_metric("m", 1)
            await two.log_file("results/dvc.yaml", "params: [../p.toml]\nmetrics: [m.json]\n")
            await two.log_file("p.toml", "[a]\nb = 1\n")
            await two.log_file("results/m.json", '{"x": {"y": NaN, "$z": 99999999999999999999}}')
        for number in range(3):
            async with repository.experiment(f"like-{number}", params={"n": number}):
                pass
    make_foreign(
        repo_path, git, "theirs", {"params.yaml": "lr: .inf\nwhen: 2020-01-01\n", "dvc.yaml": "params: [p.json]\n"}
    )
    make_foreign(repo_path, git, "broken", {"params.yaml": "a: 1\na: 2\n"})
    git(
        "update-ref",
        "refs/exps/11/" + "1" * 38 + "/again",
        git("rev-parse", f"refs/exps/{one_ref(repo_path, git)}", cwd=repo_path),
        cwd=repo_path,
    )
    empty = repo_path / ".git" / "refs" / "exps" / "22" / ("2" * 38)
    empty.mkdir(parents=True)
    (empty / "empty").touch()
    (empty / "gone").write_text("3" * 40 + "\n")
    return repo_path


def one_ref(path: Path, git: Git) -> str:
    """The ref of the experiment `rich`, below `refs/exps/`."""
    return next(
        ref for ref in git("for-each-ref", "--format=%(refname)", cwd=path).split() if ref.endswith("/rich")
    ).removeprefix("refs/exps/")


# ---- the same with it and without ----


async def test_records_are_the_same_with_and_without_the_index(filled: Path) -> None:
    """A record of the index equals, field by field and in its form, the one that is read from the commits."""
    first = await listed(filled)
    again = await listed(filled)
    bare = await listed_without(filled)
    async with aexp.Repository(filled) as repository:
        single = [await repository.get(each.ref) for each in first]

    assert len(first) == 11
    assert rows_in(filled) == 7  # what is damaged is not in it, and one commit stands on two refs
    for found in (again, bare, single):
        assert shown(found) == shown(first)
    assert {each.name for each in first if each.damaged} == {"broken", "empty", "gone"}


async def test_the_index_is_used(filled: Path) -> None:
    """What stands in the index is what a listing shows: here, a message that somebody changed together with its checksum."""
    before = await listed(filled)
    with closing(sqlite3.connect(index_of(filled))) as file:
        rows = file.execute("SELECT rowid, rev, head, params, metrics, needs, others FROM records").fetchall()
        for rowid, rev, head, *others in rows:
            told = orjson.loads(head)
            told[3] = "changed"
            changed = orjson.dumps(told)
            sum = checksum(rev.encode(), changed, *others)
            file.execute("UPDATE records SET head = ?, checksum = ? WHERE rowid = ?", (changed, sum, rowid))
        file.commit()

    found = await listed(filled)
    assert [each.name for each in found] == [each.name for each in before]
    assert {each.message for each in found if not each.damaged and each.name != "again"} == {"changed"}
    assert "changed" not in {each.message for each in await listed_without(filled)}


@pytest.mark.parametrize(
    "query",
    [
        {"where": "params.n >= 1", "sort": "-params.n"},
        {"where": "status == 'failed' or 'ä' in tags"},
        {"sort": ["-metrics.a", "name"], "limit": 4},
        {"baseline": "HEAD"},
        {"where": "params['$x'] == 1 and metrics['train/deep/er'] < 0"},
        {"where": "metrics.x.y == metrics.x.y or params.lr > 1"},
    ],
)
async def test_questions_have_the_same_answers(filled: Path, query: dict[str, Any]) -> None:
    """What is asked with where, sort, limit and baseline has one answer, the first time, from the index, and without it."""
    first = await listed_without(filled, **query)
    assert 0 < len(first) < 11
    await listed(filled)
    assert repr(await listed(filled, **query)) == repr(first)


async def test_another_folder_has_rows_of_its_own(repo_path: Path) -> None:
    """An index that was filled by somebody with another `Settings.folder` says nothing wrong."""
    async with aexp.Repository(repo_path, settings=aexp.Settings(folder="ours")) as repository:
        async with repository.experiment("it", params={"lr": 0.1}):
            pass
        (mine,) = await repository.experiments()
    (theirs,) = await listed(repo_path)
    async with aexp.Repository(repo_path, settings=aexp.Settings(folder="ours")) as repository:
        assert await repository.experiments() == aexp.Records([mine])

    assert mine.params == {"train": {"lr": 0.1, "epochs": 10}, "lr": 0.1}
    assert theirs.damaged is not None


async def test_what_is_not_of_the_commit_is_not_in_the_index(repo_path: Path) -> None:
    """A checkpoint in the index is running while its session lives, and interrupted afterwards."""
    async with aexp.Repository(repo_path) as repository:
        await (await repository.experiment("it").init()).make_checkpoint()
        assert [each.status for each in await listed(repo_path)] == [Status.RUNNING]
        assert [each.status for each in await listed(repo_path)] == [Status.RUNNING]
    assert rows_in(repo_path) == 1
    assert [each.status for each in await listed(repo_path)] == [Status.INTERRUPTED]


async def test_damage_is_seen_and_mended(filled: Path, git: Git) -> None:
    """Where an object has gone the record is damaged, whatever the index knows; when it is back, the record is, too."""
    before = {each.ref: each for each in await listed(filled)}
    like, plain = (next(each for each in before.values() if each.name == name) for name in ("like-1", "plain"))
    names = (f"{like.rev}:aexp/experiment.json", f"{like.rev}:aexp", f"{plain.rev}:results/m.json", like.rev)
    objects = [git("rev-parse", name, cwd=filled) for name in names]
    unpack_all(filled)
    assert shown(await listed(filled)) == shown(before.values())
    for id in objects:
        place = filled / ".git/objects" / id[:2] / id[2:]
        aside = place.rename(filled / id)
        found = {each.ref: each for each in await listed(filled)}
        (damaged,) = [ref for ref in before if shown([found[ref]]) != shown([before[ref]])]
        assert id in str(found[damaged].damaged)
        assert len(found) == len(before)
        aside.rename(place)
        assert shown(await listed(filled)) == shown(before.values())


async def test_damage_is_seen_by_who_has_just_looked(filled: Path, git: Git) -> None:
    """A repository that is open, and knows that nothing changed for long, sees that an object goes and comes back."""
    unpack_all(filled)
    async with aexp.Repository(filled) as repository:
        before = await repository.experiments()
        rev = next(each for each in before if each.name == "like-2").rev
        id = git("rev-parse", f"{rev}:aexp/experiment.json", cwd=filled)
        place = filled / ".git/objects" / id[:2] / id[2:]
        for folder in (place.parent, place.parent.parent, filled):
            for _ in range(2):
                for each in [place.parent.parent, *place.parent.parent.iterdir()]:
                    os.utime(each, (1_000_000_000, 1_000_000_000))
                assert shown(await repository.experiments()) == shown(before)
            aside = place.rename(folder / "aside")
            assert [each.name for each in await repository.experiments() if id in str(each.damaged)] == ["like-2"]
            aside.rename(place)


def unpack_all(path: Path) -> None:
    """Put every object of the repository into a file of its own."""
    for pack in list((path / ".git/objects/pack").glob("*.pack")):
        moved = pack.rename(path / pack.name)
        pack.with_suffix(".idx").unlink()
        with moved.open("rb") as content:
            subprocess.run(["git", "unpack-objects", "-q"], cwd=path, stdin=content, check=True)


# ---- the file ----


def garbage(file: Path) -> None:
    """It holds anything."""
    file.write_bytes(b"anything at all" * 1000)


def halved(file: Path) -> None:
    """It was cut off."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    """It is empty."""
    file.write_bytes(b"")


def deleted(file: Path) -> None:
    """It is gone."""
    file.unlink()


def scribbled(file: Path) -> None:
    """Every hundredth byte behind the header is another."""
    content = bytearray(file.read_bytes())
    for place in range(150, len(content), 100):
        content[place] ^= 0x55
    file.write_bytes(content)


def without_tables(file: Path) -> None:
    """It is a database of this version, of something else."""
    file.unlink()
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE other (a)")
        other.execute(f"PRAGMA user_version = {VERSION}")


def of_other_types(file: Path) -> None:
    """Its columns hold text and numbers where bytes belong."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("UPDATE records SET head = 'text', params = 1, metrics = NULL")
        other.execute("UPDATE others SET content = 7")
        other.commit()


def not_text(file: Path) -> None:
    """A column of text is none."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("UPDATE records SET rev = CAST(x'ff00ff' || substr(rev, 3) AS TEXT)")
        other.commit()


def of_another_version(file: Path) -> None:
    """It was made by another version, with other tables."""
    file.unlink()
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE records (what)")
        other.execute("CREATE VIEW others AS SELECT * FROM records")
        other.execute(f"PRAGMA user_version = {VERSION + 1}")


def a_folder(file: Path) -> None:
    """It is a folder."""
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    """It is a pipe, which would never answer."""
    file.unlink()
    os.mkfifo(file)


def a_link_to_nothing(file: Path) -> None:
    """It is a link to what is not there, nor can be."""
    file.unlink()
    file.symlink_to(file.parent / "nothing" / "at" / "all")


def a_journal_of_another(file: Path) -> None:
    """The journal of a transaction of another file lies beside it."""
    other = file.with_name("other.sqlite")
    with closing(sqlite3.connect(other, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE records (a)")
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO records VALUES (?)", [(bytes(5000),)] * 50)
        shutil.copy(other.with_name("other.sqlite-journal"), file.with_name(f"{file.name}-journal"))
    other.unlink()


DAMAGES = [
    *(garbage, halved, emptied, deleted, scribbled, without_tables, of_other_types, not_text, of_another_version),
    *(a_folder, a_pipe, a_link_to_nothing, a_journal_of_another),
]


UNUSABLE = (a_folder, a_pipe, a_link_to_nothing)
"""What nobody may take away."""


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_file_may_be_damaged_between_calls(filled: Path, damage: Callable[[Path], None]) -> None:
    """Whatever happens to the file, reading goes on and says the same; afterwards the index is whole again."""
    async with aexp.Repository(filled) as repository:
        before = shown(await repository.experiments())
        of_head = shown(await repository.experiments(baseline="HEAD"))
        damage(index_of(filled))
        assert shown(await repository.experiments()) == before
        assert shown(await repository.experiments(baseline="HEAD")) == of_head
        assert shown(await repository.experiments()) == before
    if damage not in UNUSABLE:
        assert rows_in(filled) == 7
        assert rows_in(filled, "others") > 0


@pytest.mark.slow
@pytest.mark.faults
async def test_the_file_may_be_damaged_during_calls(filled: Path) -> None:
    """While readers read, the file is damaged in every way again and again; no answer is ever another."""
    before = shown(await listed(filled))
    end = time.monotonic() + 8

    async def read() -> None:
        async with aexp.Repository(filled) as repository:
            while time.monotonic() < end:
                assert shown(await repository.experiments()) == before

    def harm() -> None:
        while time.monotonic() < end:
            for damage in DAMAGES:
                try:
                    if damage not in UNUSABLE:
                        damage(index_of(filled))
                except (OSError, sqlite3.Error):  # there is nothing to damage just now
                    pass
                time.sleep(0.002)

    await asyncio.gather(read(), read(), read(), asyncio.to_thread(harm))
    for _ in range(3):
        assert shown(await listed(filled)) == before


async def test_a_busy_index_is_not_waited_for(filled: Path) -> None:
    """While another process holds the file locked, reading goes on without it, within a second."""
    before = shown(await listed(filled))
    with closing(sqlite3.connect(index_of(filled), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        assert shown(await listed(filled)) == before
        assert time.monotonic() - start < 1.5
    assert rows_in(filled) == 7


async def test_a_path_may_hold_any_character(repo_path: Path, tmp_path: Path) -> None:
    """Characters that mean something in the address of a database do not in the path of a repository."""
    path = tmp_path / "a?b#c%20d&e=f;g ä"
    os.rename(repo_path, path)
    await saved(path, 2)
    before = await listed(path)

    assert rows_in(path) == 2
    assert await listed(path) == before
    assert os.listdir(tmp_path) == [path.name]


async def test_an_empty_repository_gets_no_index(repository: aexp.Repository, repo_path: Path) -> None:
    """Reading where there is nothing to read writes nothing."""
    assert list(await repository.experiments()) == []
    assert not (repo_path / ".git" / "aexp").exists()


async def test_rows_that_nobody_asks_for_go(repo_path: Path) -> None:
    """When most rows are of experiments that are gone, they are removed, and what they shared with them."""
    await saved(repo_path, 3)
    before = await listed(repo_path)
    with closing(sqlite3.connect(index_of(repo_path))) as file:
        (others,) = {row[0] for row in file.execute("SELECT others FROM records")}
        for number in range(1_010):
            parts = (b"[]", b"[]", b"[]", b"", others)
            rev = f"{number:040x}"
            row = (rev, "aexp", *parts, checksum(rev.encode(), *parts))
            file.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        file.execute("INSERT INTO others VALUES (x'00', x'00', ?)", (checksum(b"\0", b'[{},{},""]'),))
        file.commit()
    assert (rows_in(repo_path), rows_in(repo_path, "others")) == (1_013, 2)
    assert await listed(repo_path, baseline="HEAD") == before
    assert rows_in(repo_path) == 1_013  # who asks for a part does not know what is unused
    assert await listed(repo_path) == before
    assert (rows_in(repo_path), rows_in(repo_path, "others")) == (3, 1)
    assert await listed(repo_path) == before


# ---- processes ----

LISTER = """
import asyncio, sys
import aexp

async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(int(sys.argv[2])):
            print([(r.name, r.damaged, r.params, r.metrics) for r in await repository.experiments()], flush=True)

asyncio.run(main())
"""


def start(path: Path, times: int) -> "subprocess.Popen[str]":
    """A process that waits for a word, and lists all experiments some times."""
    command = [sys.executable, "-c", LISTER, str(path), str(times)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


async def saved(path: Path, count: int) -> None:
    """Save *count* experiments."""
    async with aexp.Repository(path) as repository:

        async def one(number: int) -> None:
            async with repository.experiment(f"run-{number:05}", params={"n": number}) as experiment:
                await experiment.log_metric("m", number / 7, 0)

        await asyncio.gather(*(one(number) for number in range(count)))


@pytest.mark.races
async def test_many_processes_fill_the_index_at_once(repo_path: Path) -> None:
    """Four processes that list 300 experiments at once, without an index, say the same; the index is whole."""
    await saved(repo_path, 300)
    processes = [start(repo_path, 3) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    told = [process.communicate("\n", timeout=50)[0].splitlines() for process in processes]

    assert [len(lines) for lines in told] == [3] * 4
    assert len({line for lines in told for line in lines}) == 1
    await listed(repo_path)  # who found the file busy left it as it was
    assert rows_in(repo_path) == 300
    with closing(sqlite3.connect(index_of(repo_path))) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.slow
@pytest.mark.faults
async def test_a_reader_may_be_killed_while_it_fills(repo_path: Path) -> None:
    """However often a process is killed while it fills the index, the next one reads the same, and fills it."""
    await saved(repo_path, 2_500)
    whole = await listed_without(repo_path)
    counts = []
    for delay in (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4):
        index_of(repo_path).unlink(missing_ok=True)
        process = start(repo_path, 1)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\n")
        process.stdin.flush()
        await asyncio.sleep(delay)
        process.kill()
        process.communicate()
        counts.append(rows_in(repo_path) if index_of(repo_path).exists() and index_of(repo_path).stat().st_size else 0)
        assert await listed(repo_path) == whole
        assert rows_in(repo_path) == 2_500
    assert set(counts) <= {0, 1_000, 2_000, 2_500}
    assert len(set(counts)) > 1


# ---- rows ----

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("$float"), inner, max_size=3),
    max_leaves=10,
)
FILES = st.dictionaries(st.text(), st.dictionaries(st.text() | st.just("$int"), PLAIN, max_size=3), max_size=3)
SOMEBODY = Signature("A", "a@example.org", 1_700_000_000, 0)
REV, REF = "a" * 40, f"refs/exps/bb/{'b' * 38}/name"


@given(params=FILES, metrics=FILES, message=st.text())
def test_a_row_gives_back_the_record(
    params: dict[str, dict[str, Any]], metrics: dict[str, dict[str, Any]], message: str
) -> None:
    """Any record that a row can hold comes back as it was: NaN, integers of any size, marks, and the order of keys."""
    record = foreign_record(REV, REF, Commit(REV, (), SOMEBODY, SOMEBODY, message), Others(params, metrics))
    pack = Packer()
    row = pack(Found(record, "session", bytes(40)))
    assert row is not None
    read, session = Unpacker(pack.others)(REF, row)

    assert session == "session"
    assert read.params_by_file == record.params_by_file or "nan" in repr(params)
    assert repr(attrs.asdict(read)) == repr(attrs.asdict(record))
    assert repr(read.params_by_file) == repr(params)
    assert repr(read.metrics_by_file) == repr(metrics)
    shared = unpack_others(pack_others(Others(params, metrics, needs=bytes(range(40)))))
    assert repr((shared.params, shared.metrics, shared.needs)) == repr((params, metrics, bytes(range(40))))


@given(
    parts=st.lists(st.binary(max_size=20), min_size=2, max_size=4), place=st.integers(0, 1000), flip=st.integers(1, 255)
)
def test_a_checksum_tells_one_changed_byte(parts: list[bytes], place: int, flip: int) -> None:
    """A checksum is another when one byte is."""
    whole = bytearray(b"".join(parts))
    if whole:
        whole[place % len(whole)] ^= flip
        ends = list(itertools.accumulate(map(len, parts), initial=0))
        assert checksum(*parts) != checksum(*[bytes(whole[a:b]) for a, b in itertools.pairwise(ends)])


async def test_a_name_that_json_cannot_hold_is_read_anew(repo_path: Path, git: Git) -> None:
    """A file whose name is not UTF-8 is part of the record, which is then not in the index."""
    (repo_path / "conf").mkdir()
    (repo_path / "conf" / "\udcff.yaml").write_text("lr: 1\n")
    git("add", "conf", cwd=repo_path)
    named = git("hash-object", "-w", "--stdin", cwd=repo_path, input="params: [conf]\n")
    git("update-index", "--add", "--cacheinfo", f"100644,{named},dvc.yaml", cwd=repo_path)
    tree = git("write-tree", cwd=repo_path)
    baseline = git("rev-parse", "HEAD", cwd=repo_path)
    rev = git("commit-tree", tree, "-p", baseline, "-m", "odd", cwd=repo_path)
    git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/odd", rev, cwd=repo_path)

    for _ in range(2):
        (record,) = await listed(repo_path)
        assert record.damaged is None
        assert record.params_by_file["conf/\udcff.yaml"] == {"lr": 1}
        assert record.params["lr"] == 1


# ---- records whose mappings are packed ----


async def test_a_packed_record_is_a_record_like_any_other(repo_path: Path) -> None:
    """A record that was listed is frozen, compared, shown, pickled, copied and changed as one made with all its fields."""
    await saved(repo_path, 2)
    first, second = await listed(repo_path)
    made = aexp.Record(**attrs.asdict(first, recurse=False))

    assert made == first
    assert first == made
    assert first != second
    assert repr(made) == repr(first)
    for copied in (pickle.loads(pickle.dumps(first)), copy.copy(first), copy.deepcopy(first), attrs.evolve(first)):
        assert copied == first
        assert copied.metrics_by_file == {"aexp/metrics.json": {"m": 0.0, "step": 0}}
    assert attrs.evolve(first, name="other").params == first.params
    assert first.params is first.params
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        first.params = {}  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        second.name = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="nothing"):
        _ = first.nothing  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="unhashable"):
        hash(first)


async def test_every_field_of_a_record_is_in_its_row(filled: Path) -> None:
    """A field that is added to `Record` must be added to the rows of the index, and their version raised."""
    names = {field.name for field in attrs.fields(aexp.Record)}
    (record,) = [each for each in await listed(filled) if each.name == "rich"]

    assert all(hasattr(record, name) for name in names)
    assert len(names) == 21
    assert VERSION == 3


@pytest.mark.slow
async def test_the_loop_stays_alive_while_thousands_are_listed(repo_path: Path) -> None:
    """Listing 3,000 records, the first time, from the index, and with where and sort, never stops the loop for long.

    In time of the processor: what other programs do on a loaded machine does not count.
    """
    await saved(repo_path, 3_000)
    async with aexp.Repository(repo_path) as repository:
        queries: list[dict[str, Any]] = [{}, {}, {"where": "params.n > 10 and metrics.m > 2", "sort": "-metrics.m"}]
        for query in queries:
            gc.collect()
            task, longest = asyncio.ensure_future(repository.experiments(**query)), 0.0
            while not task.done():
                begin = time.process_time()
                await asyncio.sleep(0)
                longest = max(longest, time.process_time() - begin)
            assert len(await task) > 2_900
            assert longest < 0.05
