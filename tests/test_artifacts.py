"""Artifacts: kept once by their content, referenced from the commit as `dvc add` does it, brought back by `apply`."""

import asyncio
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

import aexp
from aexp._data import Artifact
from aexp._datacache import DataCache
from aexp._formats.artifacts import artifact_from_json, artifact_to_json, default_name
from aexp._formats.dvcfile import dvc_file, manifest, parse_manifest, with_line
from aexp._keeping import BATCH, Keeper
from aexp._names import check_artifact_name

Git = Callable[..., str]
MEGABYTE = 2**20


def md5(content: bytes) -> str:
    """The MD5 of a content, in hex."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def objects(cache: Path) -> dict[str, bytes]:
    """What a store holds, by what it is called; everything in it is read-only."""
    found = {}
    for path in cache.glob("files/md5/*/*"):
        assert path.stat().st_mode & 0o777 == 0o444
        found[path.parent.name + path.name] = path.read_bytes()
    return found


def content_of(repo: Path, git: Git, name: str, path: str) -> str:
    """A file of an experiment's commit."""
    ref = git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}", cwd=repo)
    return git("show", f"{ref}:{path}", cwd=repo)


@pytest.fixture
def data(repo_path: Path) -> Path:
    """The repository, with a model of three megabytes and a folder of data that Git does not know."""
    (repo_path / "model.pt").write_bytes(b"weights" * 500_000)
    (repo_path / "set" / "deep").mkdir(parents=True)
    (repo_path / "set" / "a").write_bytes(b"1")
    (repo_path / "set" / "deep" / "b").write_bytes(b"22")
    return repo_path


@pytest.fixture
def spare(repo_path: Path) -> Path:
    """Where data is kept in a repository without DVC."""
    return repo_path / ".git" / "aexp" / "cache"


# ---- what is kept ----


async def test_a_file_and_a_folder_are_kept(data: Path, git: Git, spare: Path) -> None:
    """Their content is in the store, the commit references it, the record tells it, and the work tree is as it was."""
    before = git("status", "--porcelain", "--untracked-files=all", cwd=data)
    async with aexp.Repository(data) as repository:
        async with repository.experiment("it") as experiment:
            one = await experiment.log_artifact("model.pt", type="model", desc="d", labels=["a", "b"], meta={"k": 1})
            two = await experiment.log_artifact(data / "set")
        listed = await repository.experiments()
        assert (await repository.get("it")).artifacts == listed[0].artifacts == (one, two)
        assert (await repository.experiments())[0].artifacts == (one, two)  # out of the index
        assert listed.to_dicts()[0]["artifacts"] == ["model", "set"]
    weights, inside = md5(b"weights" * 500_000), {"a": md5(b"1"), "deep/b": md5(b"22")}
    entries = json.dumps([{"md5": id, "relpath": path} for path, id in sorted(inside.items())], sort_keys=True).encode()
    assert (one.name, one.path, one.hash, one.size, one.files) == ("model", "model.pt", weights, 3_500_000, None)
    assert (one.type, one.desc, one.labels, one.meta) == ("model", "d", ("a", "b"), {"k": 1})
    assert (two.name, two.hash, two.size, two.files) == ("set", md5(entries) + ".dir", 3, 2)
    assert objects(spare).keys() == {weights, *inside.values(), two.hash}
    assert objects(spare)[two.hash] == entries
    assert git("status", "--porcelain", "--untracked-files=all", cwd=data) == before
    assert content_of(data, git, "it", ".gitignore") == "/model.pt\n/set"
    dvc_yaml = YAML(typ="safe").load(content_of(data, git, "it", "aexp/dvc.yaml"))
    told = {"path": "../model.pt", "type": "model", "desc": "d", "labels": ["a", "b"], "meta": {"k": 1}}
    assert dvc_yaml["artifacts"] == {"model": told, "set": {"path": "../set"}}


async def test_artifacts_come_back_without_dvc(data: Path) -> None:
    """`apply()` finds them in the Git directory, and undo takes them away again."""
    async with aexp.Repository(data) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.log_artifact("model.pt")
            await experiment.log_artifact("set")
        shutil.rmtree(data / "set")
        (data / "model.pt").unlink()
        applied = await repository.apply("it")
        assert applied.missing == ()
        assert (data / "model.pt").read_bytes() == b"weights" * 500_000
        assert (data / "set" / "deep" / "b").read_bytes() == b"22"
        await repository.undo_apply()
    assert not (data / "set").exists()
    assert not (data / "model.pt").exists()


async def test_the_store_is_where_dvc_is_told_to_have_it(data: Path, tmp_path: Path, git: Git) -> None:
    """`cache.dir` of `.dvc/config`, over which `.dvc/config.local` wins; new folders are the group's when it is shared."""
    (data / ".dvc").mkdir()
    (data / ".dvc" / "config").write_text("[cache]\n    dir = nowhere\n    shared = group\n")
    (data / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {tmp_path / 'cache'}\n")
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        one = await experiment.log_artifact("model.pt")
    assert objects(tmp_path / "cache").keys() == {one.hash}
    assert (tmp_path / "cache" / "files" / "md5" / one.hash[:2]).stat().st_mode & 0o7777 == 0o2775
    assert os.listdir(tmp_path / "cache") == ["files"]


async def test_a_file_is_hashed_once(data: Path, spare: Path) -> None:
    """However many experiments log it; when it has changed, it is hashed anew."""
    await asyncio.sleep(0.1)  # a file that has just changed may change again within one tick of the clock
    told: list[aexp.TransferProgress] = []
    read: list[int | None] = []
    async with aexp.Repository(data) as repository:
        experiments = [await repository.experiment(f"e{number}").init() for number in range(20)]
        for experiment in experiments:
            await experiment.log_artifact("model.pt", progress=told.append)
            read.append(told[-1].bytes)
        assert read == [3_500_000] + [0] * 19
        (data / "model.pt").write_bytes(b"weighty" * 500_000)
        changed = await experiments[0].log_artifact("model.pt", progress=told.append)
        assert (told[-1].phase, told[-1].bytes) == ("hashing", 3_500_000)
        records = await asyncio.gather(*(experiment.save() for experiment in experiments))
    assert [record.artifacts[0].hash for record in records] == [changed.hash] + [md5(b"weights" * 500_000)] * 19
    assert objects(spare).keys() == {changed.hash, md5(b"weights" * 500_000)}


async def test_a_folder_of_many_files(repo_path: Path, spare: Path) -> None:
    """More files than are synced together: all are kept, and the same content once."""
    (repo_path / "many").mkdir()
    for number in range(BATCH + 50):
        (repo_path / "many" / f"{number:05}").write_text(str(number // 2))
    told: list[aexp.TransferProgress] = []
    async with aexp.Repository(repo_path) as repository, repository.experiment("it") as experiment:
        kept = await experiment.log_artifact("many", progress=told.append)
    assert (kept.files, told[-1].done, told[-1].total) == (BATCH + 50, BATCH + 50, BATCH + 50)
    assert len(objects(spare)) == BATCH // 2 + 25 + 1
    assert all(md5(content) == name.removesuffix(".dir") for name, content in objects(spare).items())


async def test_an_artifact_is_replaced(data: Path, git: Git) -> None:
    """Logged again, a path has its new content, and the name it had; `.gitignore` names it once."""
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        await experiment.log_artifact("model.pt", "best", type="model")
        (data / "model.pt").write_bytes(b"new")
        again = await experiment.log_artifact("model.pt")
        await experiment.log_artifact("set/a", "best/two")
    assert experiment.record is not None
    assert [(each.name, each.path) for each in experiment.record.artifacts] == [
        ("best", "model.pt"),
        ("best/two", "set/a"),
    ]
    assert experiment.record.artifacts[0] == again
    assert (again.hash, again.type) == (md5(b"new"), None)
    assert content_of(data, git, "it", ".gitignore") == "/model.pt"
    assert content_of(data, git, "it", "set/.gitignore") == "/a"


async def test_what_gitignore_says_stays(data: Path, git: Git) -> None:
    """A line is added to what is there, with a line feed before it if need be; none where Git ignores the path already."""
    (data / ".gitignore").write_text("*.pt\n# mine")
    git("add", ".gitignore", cwd=data)
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        await experiment.log_artifact("model.pt")
        await experiment.log_artifact("set")
    assert content_of(data, git, "it", ".gitignore") == "*.pt\n# mine\n/set"
    assert content_of(data, git, "it", "model.pt.dvc").startswith("outs:\n- md5: ")


async def test_an_artifact_that_code_all_has_captured(data: Path, git: Git) -> None:
    """It is in the commit by its reference alone."""
    async with aexp.Repository(data) as repository, repository.experiment("it", code="all") as experiment:
        await experiment.log_artifact("model.pt")
    files = git("ls-tree", "-r", "--name-only", experiment.ref, cwd=data).splitlines()
    assert "model.pt.dvc" in files
    assert "set/a" in files
    assert "model.pt" not in files


# ---- what is refused ----


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("train.py", "Git tracks it"),
        ("data", "Git tracks it"),
        ("train.py/inside", "train.py is no folder of the work tree"),
        ("../outside", "goes up"),
        (".git/config", "Git keeps its own files"),
        (".dvc/cache", "Git or DVC keeps its own files"),
        ("link", "a symbolic link"),
        ("link/b", "links are not followed"),
        ("with", "a symbolic link"),
        ("pipe", "no regular file"),
        ("aexp/dvc.yaml", "aexp itself writes"),
        ("out/model", "an out of the stage train"),
        ("kept/inside", "DVC tracks kept as a whole"),
        (".", "names no file"),
    ],
)
async def test_paths_that_are_refused(path: str, reason: str, data: Path, git: Git, spare: Path) -> None:
    """`UnsafePath` says why; nothing is kept, and the experiment goes on."""
    (data / "link").symlink_to("set/deep")
    (data / "with").mkdir()
    (data / "with" / "link").symlink_to("../set/a")
    os.mkfifo(data / "pipe")
    (data / "dvc.yaml").write_text("stages:\n  train:\n    cmd: ./train.py\n    outs:\n    - out\n")
    (data / "kept.dvc").write_text("outs: []\n")
    git("add", "dvc.yaml", "kept.dvc", cwd=data)
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        with pytest.raises(aexp.UnsafePath, match=reason):
            await experiment.log_artifact(path)
        await experiment.log_metric("acc", 1)
    assert experiment.record is not None
    assert experiment.record.artifacts == ()
    assert objects(spare) == {}


async def test_an_absolute_path_outside(data: Path, tmp_path: Path) -> None:
    """It is refused, and one inside is taken, by whatever links its folder is reached."""
    (tmp_path / "outside").write_text("x")
    (tmp_path / "way").symlink_to(data)
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        with pytest.raises(aexp.UnsafePath, match="outside of the work tree"):
            await experiment.log_artifact(tmp_path / "outside")
        assert (await experiment.log_artifact(tmp_path / "way" / "set" / "a")).path == "set/a"


async def test_what_is_not_there(data: Path) -> None:
    """`DataMissing` names the path."""
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        with pytest.raises(aexp.DataMissing, match="no file or folder of the work tree is there") as raised:
            await experiment.log_artifact("nowhere")
    assert raised.value.paths == ("nowhere",)


async def test_names_and_what_is_said(data: Path) -> None:
    """A name is one that DVC takes and no other path has; what is said of an artifact is text that a file can hold."""
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        await experiment.log_artifact("model.pt", "one")
        with pytest.raises(aexp.InvalidName, match=r"the artifact at model\.pt is called so"):
            await experiment.log_artifact("set", "one")
        for name in ("a b", "-a", "a.b", "é", "", "a\n"):
            with pytest.raises(aexp.InvalidName, match="DVC takes"):
                await experiment.log_artifact("set", name)
        with pytest.raises(TypeError, match="labels"):
            await experiment.log_artifact("set", labels="one")
        with pytest.raises(aexp.InvalidParams):
            await experiment.log_artifact("set", meta={"a": object()})
        with pytest.raises(aexp.InvalidName, match="NUL"):
            await experiment.log_artifact("set", desc="\0")
    with pytest.raises(aexp.InvalidTransition):
        await experiment.log_artifact("set")


async def test_files_and_artifacts_stay_apart(data: Path) -> None:
    """What was logged as a file cannot be an artifact, nor lie in one; and the other way about."""
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        await experiment.log_file("set/notes.txt", "x")
        with pytest.raises(aexp.UnsafePath, match="was logged"):
            await experiment.log_artifact("set")
        await experiment.log_artifact("model.pt")
        for path in ("model.pt", "model.pt.dvc", "model.pt/inside"):
            with pytest.raises(aexp.UnsafePath):
                await experiment.log_file(path, "x")


# ---- what may go wrong ----


@pytest.fixture
def keep(repo_path: Path, tmp_path: Path) -> Callable[..., object]:
    """Keep a path of the repository in a store at `store`, with what is to be done when it is told how far it is."""

    def kept(path: str, tell: Callable[[object], None] = lambda _: None, stopped: Callable[[], bool] = lambda: False):  # type: ignore[no-untyped-def]
        return Keeper().keep(str(repo_path), path, DataCache(str(tmp_path / "store")), (), stopped, tell)

    return kept


@pytest.mark.parametrize("size", [4, 2 * MEGABYTE])
def test_a_file_that_changes_while_it_is_read(size: int, repo_path: Path, tmp_path: Path) -> None:
    """It is read again; when it does not stop changing, `DataMissing` says so, and nothing is kept."""
    file = repo_path / "file"
    file.write_bytes(b"0" * size)
    turns = 0

    class Changing(DataCache):
        """A store before which the file changes, whenever it is asked."""

        def standing(self, md5: str, size: int) -> float | None:
            nonlocal turns
            if turns:
                turns -= 1
                file.write_bytes(str(turns).encode() * size)
            return super().standing(md5, size)

    store = Changing(str(tmp_path / "store"))
    turns = 1
    assert Keeper().keep(str(repo_path), "file", store, (), lambda: False, lambda _: None).md5 == md5(b"0" * size)
    turns = 1000
    file.write_bytes(b"x" * size)
    with pytest.raises(aexp.DataMissing, match="changes while it is read"):
        Keeper().keep(str(repo_path), "file", store, (), lambda: False, lambda _: None)
    assert objects(tmp_path / "store").keys() == {md5(b"0" * size)}
    assert os.listdir(tmp_path / "store") == ["files"]


async def test_cancelled_while_it_is_read(data: Path, spare: Path) -> None:
    """Nothing is kept and nothing logged; logged again, it is."""
    (data / "large").write_bytes(os.urandom(64 * MEGABYTE))
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        task: asyncio.Task[Artifact]
        task = asyncio.create_task(experiment.log_artifact("large", progress=lambda _: task.cancel()))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert objects(spare) == {}
        assert os.listdir(spare) == []
        kept = await experiment.log_artifact("model.pt")
    assert experiment.record is not None
    assert experiment.record.artifacts == (kept,)


async def test_a_listener_that_raises(data: Path, spare: Path) -> None:
    """Its exception ends the call, and nothing is logged."""

    def refuse(_: aexp.TransferProgress) -> None:
        raise RuntimeError("no more")

    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        with pytest.raises(RuntimeError, match="no more"):
            await experiment.log_artifact("model.pt", progress=refuse)
    assert experiment.record is not None
    assert experiment.record.artifacts == ()


@pytest.mark.faults
async def test_a_full_disk(data: Path, spare: Path) -> None:
    """`DiskFull`, nothing half, and with room again it is kept."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, hard))
        try:
            with pytest.raises(aexp.DiskFull):
                await experiment.log_artifact("model.pt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert objects(spare) == {}
        assert os.listdir(spare) == []
        await experiment.log_artifact("model.pt")


CHILD = """
import asyncio, sys, aexp
async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        experiment = await repository.experiment("it").init()
        await experiment.log_artifact("model.pt", "best", type="model")
        await experiment.log_artifact("set")
        await experiment.flush()
        print("logged", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.faults
@pytest.mark.parametrize("resumed", [False, True])
async def test_a_killed_process_loses_no_artifact(resumed: bool, data: Path, git: Git) -> None:
    """After `flush()` it is in the journal: recovered, or resumed and saved, the experiment has it."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, data, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"logged\n"
    child.send_signal(signal.SIGKILL)
    await child.wait()
    async with aexp.Repository(data) as repository:
        if resumed:
            experiment = await repository.resume("it")
            with pytest.raises(aexp.UnsafePath, match="was logged"):
                await experiment.log_artifact("set/a")
            await experiment.log_artifact("set/../model.pt".replace("set/../", ""))
            record = await experiment.save()
        else:
            (record,) = await repository.recover()
    assert [(each.name, each.path) for each in record.artifacts] == [("best", "model.pt"), ("set", "set")]
    assert "path: set\n" in content_of(data, git, "it", "set.dvc") + "\n"


def test_what_killed_processes_left_is_swept(repo_path: Path, tmp_path: Path, keep: Callable[..., object]) -> None:
    """Their scratch goes when something is kept again; that of a living one stays."""
    (repo_path / "file").write_text("x")
    left = tmp_path / "store" / "aexp-tmp" / "dead"
    left.mkdir(parents=True)
    (left / "lock").touch()
    (left / "0").write_bytes(b"half")
    with DataCache(str(tmp_path / "store")).scratch() as living:
        left.mkdir(exist_ok=True)
        keep("file")
        assert os.path.isdir(living)
        assert not left.exists()


@pytest.mark.parametrize("isolated", [False, True])
async def test_an_artifact_of_a_program_that_joined(isolated: bool, data: Path, spare: Path) -> None:
    """What a program logs that the experiment runs is the experiment's own, also from its private checkout."""
    program = (
        "import asyncio, aexp, pathlib\n"
        "pathlib.Path('model.pt').write_text('of the program')\n"
        "async def main():\n"
        "    async with aexp.init() as experiment:\n"
        "        await experiment.log_artifact('model.pt', type='model')\n"
        "asyncio.run(main())\n"
    )
    async with aexp.Repository(data) as repository, repository.experiment("it") as experiment:
        await experiment.run([sys.executable, "-c", program], isolated=isolated, cwd=None if isolated else data)
    assert experiment.record is not None
    assert [(each.path, each.type) for each in experiment.record.artifacts] == [("model.pt", "model")]
    assert list(objects(spare).values()) == [b"of the program"]
    assert ((data / "model.pt").read_bytes() == b"of the program") is not isolated


async def test_an_artifact_of_a_private_checkout(data: Path, git: Git) -> None:
    """By its absolute path, what was made in `workspace()` is kept under its path in the repository."""
    async with (
        aexp.Repository(data) as repository,
        repository.experiment("it") as experiment,
        experiment.workspace() as place,
    ):
        (place / "out").mkdir()
        (place / "out" / "best.pt").write_text("made there")
        (place / "more").mkdir()
        (place / "more" / "a").write_text("1")
        kept = await experiment.log_artifact(place / "out" / "best.pt")
        await experiment.log_artifact(place / "more")
    assert (kept.path, kept.hash) == ("out/best.pt", md5(b"made there"))
    assert content_of(data, git, "it", "out/.gitignore") == "/best.pt"
    files = git("ls-tree", "-r", "--name-only", experiment.ref, cwd=data).splitlines()
    assert {"more.dvc", "out/best.pt.dvc"} <= set(files)
    assert not {"more/a", "out/best.pt"} & set(files)
    assert not (data / "out").exists()


async def test_hostile_artifacts_in_a_commit(data: Path, git: Git) -> None:
    """An experiment.json whose artifacts are none makes a damaged record, and nothing worse."""
    async with aexp.Repository(data) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.log_artifact("model.pt")
        account = json.loads(content_of(data, git, "it", "aexp/experiment.json"))
        for bad in ({"artifacts": 1}, {"artifacts": [1]}, {"artifacts": [{**account["artifacts"][0], "hash": "../x"}]}):
            blob = git("hash-object", "-w", "--stdin", cwd=data, input=json.dumps({**account, **bad}))
            git("read-tree", experiment.ref, cwd=data)
            git("update-index", "--cacheinfo", f"100644,{blob},aexp/experiment.json", cwd=data)
            message = git("log", "-1", "--format=%B", experiment.ref, cwd=data)
            rev = git("commit-tree", git("write-tree", cwd=data), "-p", "HEAD", "-m", message, cwd=data)
            git("update-ref", f"{experiment.ref}-bad", rev, cwd=data)
            assert "artifact" in ((await repository.get(f"{experiment.ref}-bad")).damaged or "")


# ---- the bytes ----

names = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/\\"), min_size=1, max_size=40)


@given(st.dictionaries(names, st.binary(min_size=16, max_size=16).map(bytes.hex)))
def test_a_manifest_is_what_dvc_makes(files: dict[str, str]) -> None:
    """It is the JSON of the sorted entries, in however many slices, and is read back."""
    entries = sorted(({"md5": id, "relpath": path} for path, id in files.items()), key=lambda entry: entry["relpath"])
    content = b"".join(manifest(files))
    assert content == json.dumps(entries, sort_keys=True).encode()
    assert parse_manifest(content, "it") == files


def test_a_manifest_in_slices() -> None:
    """More entries than one slice has are one list."""
    files = {f"{number:04}": md5(b"") for number in range(401)}
    assert parse_manifest(b"".join(manifest(files)), "it") == files


@given(names, st.integers(0, 2**60), st.one_of(st.none(), st.integers(0, 2**30)), st.booleans())
@example("yes", 0, None, False)
@example("12345", 1, 2, False)
def test_a_dvc_file_says_what_it_was_told(name: str, size: int, files: int | None, executable: bool) -> None:
    """Whatever the name is, YAML gives it back."""
    kept = Artifact(name="a", path=f"in/{name}", hash="1" * 32, size=size, files=files, executable=executable)
    (out,) = YAML(typ="safe").load(dvc_file(kept))["outs"]
    told = {} if files is None else {"nfiles": files}
    told |= {"isexec": True} if executable else {}
    assert out == {"md5": "1" * 32, "size": size, **told, "hash": "md5", "path": name}
    assert artifact_from_json(json.loads(json.dumps(artifact_to_json(kept)))) == kept


def test_git_ignores_what_a_line_names(repo_path: Path, git: Git) -> None:
    """Names with the characters that patterns are made of are ignored themselves, and nothing else."""
    odd = ["a*b", "[x]", "!no", "#no", "what?", "a b", "ü", "plain"]
    content = b""
    for name in odd:
        content = with_line(content, name)
    assert with_line(content, "plain") == content
    (repo_path / ".gitignore").write_bytes(content)
    for name in [*odd, "axb", "x", "no"]:
        (repo_path / name).write_text("x")
    others = git("ls-files", "--others", "--exclude-standard", "-z", cwd=repo_path).split("\0")
    assert sorted(filter(None, others)) == [".gitignore", "axb", "no", "x"]


@given(names)
def test_a_default_name_is_one_that_dvc_takes(path: str) -> None:
    """Whatever the path is; and never one that is taken."""
    name = default_name(path, ())
    assert check_artifact_name(name) == name
    assert check_artifact_name(default_name(path, [name])) != name


@pytest.mark.parametrize(
    ("files", "size"),
    [
        pytest.param(5_000, 2_000, id="5,000 files"),
        pytest.param(100_000, 100_000, id="10 GB", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
async def test_memory_does_not_grow_with_the_bytes_of_a_folder(files: int, size: int, repo_path: Path) -> None:
    """However large it is, a folder takes the buffers of two threads and half a kilobyte a file; progress is told all along."""
    make_folders(repo_path / "many", files, size)
    told: list[tuple[aexp.TransferProgress, int]] = []
    async with aexp.Repository(repo_path) as repository, repository.experiment("it") as experiment:
        await experiment.log_artifact("train.py.txt")  # what is imported late is there
        before = resident()
        for _ in range(2):  # the second time nothing is written
            kept = await experiment.log_artifact("many", progress=lambda each: told.append((each, resident())))
            assert (kept.files, kept.size) == (files, files * size)
            assert (told[-1][0].done, told[-1][0].total) == (files, files)
    assert max(memory for _, memory in told) - before < 16 * MEGABYTE + 800 * files
    done = [each.done for each, _ in told]
    assert len(set(done)) > 3
    assert objects_count(repo_path / ".git" / "aexp" / "cache") == files + 2


def make_folders(path: Path, files: int, size: int) -> None:
    """Make a folder with this many files, each different, a thousand to a folder; and a small file beside it."""
    noise = os.urandom(MEGABYTE)
    (path.parent / "train.py.txt").write_bytes(noise[:10])
    for number in range(files):
        if number % 1000 == 0:
            (path / f"{number // 1000:03}").mkdir(parents=True)
        place = number * 7919 % (MEGABYTE - size)
        content = number.to_bytes(8, "big") + noise[place : place + size - 8]
        (path / f"{number // 1000:03}" / f"{number:06}").write_bytes(content)


def resident() -> int:
    """How many bytes of memory this process has."""
    if sys.platform != "linux":
        pytest.skip("what a process has of memory is asked of Linux: NOTHING IS SAID OF THE MEMORY OF LARGE FOLDERS")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def objects_count(store: Path) -> int:
    """How many objects a store holds."""
    return sum(1 for _ in store.glob("files/md5/*/*"))
