"""Files that nobody should have committed: a clear word on that record, within a second, while the others are listed."""

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

import aexp

Git = Callable[..., str]
SECOND = 5.0
"""What a second is at most, on a machine that is busy with other tests."""


def commit(
    path: Path, git: Git, name: str, files: Mapping[str, bytes], *, upon: str = "HEAD", message: str = ""
) -> str:
    """Make an experiment of the tree of *upon* with these files, with `git` alone; return its ref."""
    baseline = git("rev-parse", "HEAD", cwd=path)
    git("read-tree", upon, cwd=path)
    for place, content in files.items():
        hashed = subprocess.run(
            ["git", "hash-object", "-w", "--stdin"], cwd=path, input=content, capture_output=True, check=True
        )
        git("update-index", "--add", "--cacheinfo", f"100644,{hashed.stdout.decode().strip()},{place}", cwd=path)
    tree = git("write-tree", cwd=path)
    rev = git("commit-tree", tree, "-p", baseline, "-F", "-", cwd=path, input=message or f"dvc: {name}\n")
    ref = f"refs/exps/{baseline[:2]}/{baseline[2:]}/{name}"
    git("update-ref", ref, rev, cwd=path)
    git("read-tree", "HEAD", cwd=path)
    return ref


@pytest.fixture
async def sound(repo_path: Path) -> aexp.Record:
    """A sound experiment of ours; the others are made from its commit."""
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("sound", params={"lr": 0.1}) as experiment:
            await experiment.log_metric("loss", 0.5, 3)
        return await repository.get("sound")


async def read_beside(path: Path, sound: aexp.Record, *refs: str) -> list[aexp.Record]:
    """The records on *refs*, read in time, twice, by listing and alone; the sound one is listed, too."""
    async with aexp.Repository(path) as repository:
        start = time.process_time()
        listed = {record.ref: record for record in await repository.experiments()}
        assert time.process_time() - start < SECOND
        assert listed[sound.ref] == sound
        assert {record.ref: record for record in await repository.experiments()}.keys() == listed.keys()
        found = [listed[ref] for ref in refs]
        assert [repr(await repository.get(ref)) for ref in refs] == [repr(record) for record in found]
        assert list(await repository.experiments(where="params.lr == 0.1 and metrics.loss == 0.5 and not damaged"))
        return found


BOMB = b"a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%b]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 20)
)
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "no YAML": ("params.yaml", b"a: [1\nb: }\n", "params.yaml:"),
    "100 MB of YAML": ("params.yaml", b"a: 1\n" * 20_000_000, "100,000,000 bytes are more than the limit"),
    "1 MB of small YAML": (
        "params.yaml",
        b"".join(b"k%d: %d\n" % (n, n) for n in range(60_000)),
        "too large: it holds more",
    ),
    "one flow list": ("params.yaml", b"a: [" + b"1," * 400_000 + b"]", "too large"),
    "aliases that explode": ("params.yaml", BOMB, "too large once its aliases"),
    "an alias of itself": ("params.yaml", b"a: &a [*a]\n", "alias"),
    "a key twice": ("params.yaml", b"a: 1\na: 2\n", 'params.yaml:2: not usable as YAML: found duplicate key "a"'),
    "latin-1": ("params.yaml", "name: Müller\n".encode("latin-1"), "not UTF-8"),
    "deep flow": ("params.yaml", b"[" * 100_000, "nested more than 100 levels"),
    "deep blocks": ("params.yaml", b"".join(b" " * n + b"k:\n" for n in range(900)), "nested more than 100 levels"),
    "no mapping": ("params.yaml", b"- 1\n- 2\n", "must be a mapping"),
    "two documents": ("params.yaml", b"a: 1\n---\nb: 2\n", "not usable as YAML"),
    "an object of Python": ("params.yaml", b"a: !!python/object/apply:os.system [date]\n", "not usable as YAML"),
    "no JSON": ("m.json", b"{", "m.json:1: not usable as JSON"),
    "100 MB of JSON": ("m.json", b"[" + b"1," * 50_000_000 + b"1]", "bytes are more than the limit"),
    "deep JSON": ("m.json", b'{"a":' * 100_000, "not usable as JSON"),
    "a JSON key twice": ("m.json", b'{"a": 1, "a": 2}', 'duplicate key "a"'),
    "no TOML": ("p.toml", b"a = = 1\n", "p.toml:1: not usable as TOML"),
    "no pipeline": ("dvc.yaml", b"a: [\n", "dvc.yaml:"),
    "a binary": ("params.yaml", bytes(range(256)) * 100, "not UTF-8"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_file_that_cannot_be_read_is_named(repo_path: Path, git: Git, sound: aexp.Record, case: str) -> None:
    """Of others or of ours: the record says which file is wrong, and why; what else there is can be read."""
    file, content, reason = REFUSED[case]
    pipeline = {} if file == "dvc.yaml" else {"dvc.yaml": b"params: [p.toml]\nmetrics: [m.json, good.json]\n"}
    files = {**pipeline, "good.json": b'{"good": 1}', file: content}
    theirs = commit(repo_path, git, "theirs", files)
    told = git("log", "-1", "--format=%B", sound.rev, cwd=repo_path)
    ours = commit(repo_path, git, "ours", files, upon=sound.rev, message=told)

    for record in await read_beside(repo_path, sound, theirs, ours):
        assert record.damaged is not None
        assert reason in record.damaged
        assert file in record.damaged
        assert record.metrics.get("good") == 1 or file == "dvc.yaml"
        if record.ref == ours:
            assert (record.params["lr"], record.metrics["loss"], record.id) == (0.1, 0.5, sound.id)


async def test_odd_values_are_read_as_they_are(repo_path: Path, git: Git, sound: aexp.Record) -> None:
    """NaN, infinities, dates, integers of any size, anchors, merge keys and empty files are values like any other."""
    yaml = b"nan: .nan\ninf: -.inf\nday: 2020-01-02\ntime: 2020-01-02T03:04:05Z\nbig: 123456789012345678901234567890\n"
    yaml += b"base: &b {x: 1}\nmore:\n  <<: *b\n  y: 2\nnone:\n"
    pipeline = b"params: [empty.yaml]\nmetrics: [m.json]\n"
    metrics = b'{"nan": NaN, "inf": Infinity, "list": [1], "none": null, "deep": {"er": -0.0}}'
    files = {"params.yaml": yaml, "dvc.yaml": pipeline, "m.json": metrics, "empty.yaml": b""}
    theirs = commit(repo_path, git, "theirs", files)

    (record,) = await read_beside(repo_path, sound, theirs)

    assert record.damaged is None
    assert repr(record.params["nan"]) == "nan"
    assert record.params["inf"] == -float("inf")
    assert (record.params["day"], record.params["time"][:19]) == ("2020-01-02", "2020-01-02T03:04:05")
    assert record.params["big"] == 123456789012345678901234567890
    assert (record.params["more"], record.params["none"]) == ({"x": 1, "y": 2}, None)
    assert repr(record.metrics) == "{'nan': nan, 'inf': inf, 'deep/er': -0.0}"


def changed(**fields: Any) -> Callable[[dict[str, Any]], bytes]:
    """What experiment.json is when some of its fields are others."""
    return lambda account: orjson.dumps(account | fields)


ACCOUNTS: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
    "empty": (lambda account: b"", "cannot be read"),
    "a list": (lambda account: b"[]", "no mapping"),
    "cut off": (lambda account: orjson.dumps(account)[:-9], "cannot be read"),
    "not UTF-8": (lambda account: b'{"id": "\xff"}', "cannot be read"),
    "another status": (changed(status="sleeping"), "sleeping"),
    "no tags": (lambda account: orjson.dumps({k: v for k, v in account.items() if k != "tags"}), "tags is missing"),
    "tags of numbers": (changed(tags=[1]), "no text"),
    "a message of a list": (changed(message=[1]), "message is list"),
    "a time without a zone": (changed(created="2020-01-01T00:00:00"), "time zone"),
    "no time": (changed(created="yesterday"), "yesterday"),
    "an end without a zone": (changed(ended="2020-01-01"), "time zone"),
    "a duration of text": (changed(duration="long"), "duration is str"),
    "an error of text": (changed(error="boom"), "error is str"),
    "an error without a type": (changed(error={}), "cannot be read"),
    "code of a list": (changed(code=[]), "code is list"),
    "code without a tree": (changed(code={"mode": "none"}), "cannot be read"),
    "wrong marks": (changed(params={"a": {"$float": "much"}}), "cannot be read"),
    "a wrong mark for a number": (changed(params={"a": {"$int": 7}}), "cannot be read"),
    "params of a list": (changed(params=[1]), "params is list"),
    "too deep": (lambda account: orjson.dumps(account)[:-1] + b',"x":' + b"[" * 400 + b"]" * 400 + b"}", "nested"),
    "too many": (lambda account: orjson.dumps(account)[:-1] + b',"x":[' + b"[]," * 1_000_001 + b"1]}", "1,000,000"),
    "60 MB": (lambda account: orjson.dumps(account)[:-1] + b',"x":"' + b"y" * 60_000_000 + b'"}', "limit"),
}


@pytest.mark.parametrize("case", ACCOUNTS)
async def test_an_account_that_is_none_is_told(repo_path: Path, git: Git, sound: aexp.Record, case: str) -> None:
    """An experiment.json that we would not have written makes its record damaged, and hides no other."""
    make, reason = ACCOUNTS[case]
    account = orjson.loads(git("show", f"{sound.rev}:aexp/experiment.json", cwd=repo_path))
    told = git("log", "-1", "--format=%B", sound.rev, cwd=repo_path)
    files = {"aexp/experiment.json": make(account)}
    ours = commit(repo_path, git, "ours", files, upon=sound.rev, message=told)

    (record,) = await read_beside(repo_path, sound, ours)

    assert record.damaged is not None
    assert reason in record.damaged


@pytest.mark.parametrize("content", [b"", b"7", b'{"a":' * 500 + b"1" + b"}" * 500, b'{"loss": NaN}', b"\xff"])
async def test_a_summary_that_is_none_is_told(repo_path: Path, git: Git, sound: aexp.Record, content: bytes) -> None:
    """So does a metrics.json of aexp's folder."""
    told = git("log", "-1", "--format=%B", sound.rev, cwd=repo_path)
    ours = commit(repo_path, git, "ours", {"aexp/metrics.json": content}, upon=sound.rev, message=told)

    (record,) = await read_beside(repo_path, sound, ours)

    assert record.damaged is not None


async def test_a_ref_may_hold_anything(repo_path: Path, git: Git, sound: aexp.Record) -> None:
    """A ref on a blob, a tree, a tag, nothing, a pipe, a folder's link: each is a damaged record, the others are listed."""
    top = sound.ref.rpartition("/")[0]
    blob = git("rev-parse", "HEAD:train.py", cwd=repo_path)
    tree = git("rev-parse", "HEAD^{tree}", cwd=repo_path)
    git("tag", "-a", "-m", "tag", "v1", cwd=repo_path)
    tag = git("rev-parse", "v1", cwd=repo_path)
    folder = repo_path / ".git" / top
    for name, text in {"blob": blob, "tree": tree, "tag": tag, "none": "0" * 40, "text": "x", "empty": ""}.items():
        (folder / name).write_text(text and text + "\n")
    (folder / "link").symlink_to(repo_path)

    found = await read_beside(repo_path, sound, *(f"{top}/{name}" for name in ("blob", "tree", "tag", "none", "text")))

    assert all(record.damaged for record in found)
    async with aexp.Repository(repo_path) as repository:
        names = {record.name for record in await repository.experiments()}
    assert names == {"sound", "blob", "tree", "tag", "none", "text", "empty", "link"}


@pytest.mark.parametrize("flat", [False, True])
async def test_a_tree_of_100_000_files_is_read_in_time(
    repo_path: Path, git: Git, sound: aexp.Record, flat: bool
) -> None:
    """A commit of 100,000 files, in folders or in one, is read like any other; so is a dvc.yaml that names them all."""
    blob = git("hash-object", "-w", "--stdin", cwd=repo_path, input="a: 1\n")
    places = (f"all/part-{n}.yaml" if flat else f"all/{n // 300}/part-{n}.yaml" for n in range(100_000))
    lines = "".join(f"100644 blob {blob}\t{place}\n" for place in places)
    git("read-tree", "HEAD", cwd=repo_path)
    git("update-index", "--add", "--index-info", cwd=repo_path, input=lines)
    large = git("write-tree", cwd=repo_path)
    plain = commit(repo_path, git, "plain", {"params.yaml": b"lr: 7\n"}, upon=large)
    greedy = commit(repo_path, git, "greedy", {"params.yaml": b"lr: 7\n", "dvc.yaml": b"params: [all]\n"}, upon=large)

    first, second = await read_beside(repo_path, sound, plain, greedy)

    assert (first.damaged, first.params) == (None, {"lr": 7})
    assert second.damaged is not None
    assert "more than 1,000 files" in second.damaged


async def test_many_large_files_are_too_large_together(repo_path: Path, git: Git, sound: aexp.Record) -> None:
    """Files that could be read one by one are not read when all of them would take too long."""
    text = b"a: " + b"x" * 200_000 + b"\n"
    files = {f"all/{n:02}.yaml": text + b"n%d: 1\n" % n for n in range(30)}
    theirs = commit(repo_path, git, "theirs", {**files, "dvc.yaml": b"params: [all]\n"})

    (record,) = await read_beside(repo_path, sound, theirs)

    assert record.damaged is not None
    assert "2,000,000 bytes" in record.damaged
