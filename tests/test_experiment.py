"""One experiment: its name, its parameters, its files and its description."""

import asyncio
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel

import aexp
from aexp import State

Git = Callable[..., str]


async def saved(repository: aexp.Repository, name: str, **options: Any) -> aexp.Record:
    """Save an experiment in which nothing was logged."""
    return await (await repository.experiment(name, **options).init()).save()


def own(record: aexp.Record | None) -> Any:
    """The parameters that the experiment itself was given, without those of the files in its tree."""
    assert record is not None
    return record.params_by_file["aexp/params.yaml"]


# ---- names ----


async def test_an_experiment_without_a_name_is_given_one(repository: aexp.Repository) -> None:
    """Without a name it is given two words and a number at `init()`, and no two that are open share one."""
    experiments = [repository.experiment() for _ in range(60)]
    assert {experiment.name for experiment in experiments} == {""}
    await asyncio.gather(*[experiment.init() for experiment in experiments])
    names = [experiment.name for experiment in experiments]

    assert len(set(names)) == 60
    assert all(re.fullmatch(r"[a-z]+-[a-z]+-\d{1,4}", name) for name in names)
    record = await experiments[0].save()
    assert record.name == names[0]
    assert record.ref.endswith(f"/{names[0]}")
    await asyncio.gather(*[experiment.discard() for experiment in experiments[1:]])


async def test_two_spellings_of_an_accent_are_one_name(repository: aexp.Repository) -> None:
    """A name is kept composed, so the other spelling of the same letters is taken, too."""
    record = await saved(repository, "cafe\u0301")

    assert record.name == "caf\u00e9"
    with pytest.raises(aexp.NameTaken):
        await repository.experiment("caf\u00e9").init()


@pytest.mark.parametrize("name", ["", "a/b", "a b", "../a", "HEAD", "-x", "deadbeef", 7])
async def test_a_bad_name_is_refused_at_once(repository: aexp.Repository, repo_path: Path, name: Any) -> None:
    """A name that Git cannot hold is refused by `experiment()`, before anything is written."""
    with pytest.raises(aexp.InvalidName):
        repository.experiment(name)
    assert not (repo_path / ".git" / "aexp").exists()


@pytest.mark.parametrize("kind", ["branch", "tag"])
async def test_the_name_of_a_branch_or_tag_is_refused(
    repository: aexp.Repository, repo_path: Path, git: Git, kind: str
) -> None:
    """The name of a branch or tag is refused by `init()`: Git commands would find that first."""
    git(kind, "release", cwd=repo_path)
    experiment = repository.experiment("release")

    with pytest.raises(aexp.InvalidName, match="release"):
        await experiment.init()
    assert experiment.state is State.UNINITIALIZED
    assert git("for-each-ref", "refs/exps", "refs/aexp", cwd=repo_path) == ""


async def test_a_saved_name_is_taken(repository: aexp.Repository) -> None:
    """The name of a saved experiment is refused on the same baseline, and the error names its commit."""
    record = await saved(repository, "it")
    experiment = repository.experiment("it")

    with pytest.raises(aexp.NameTaken) as told:
        await experiment.init()
    assert (told.value.name, told.value.rev) == ("it", record.rev)
    assert experiment.state is State.UNINITIALIZED
    assert await repository.get("it") == record


async def test_the_name_of_an_open_experiment_is_taken(repository: aexp.Repository) -> None:
    """Of two experiments of one name that begin at once, one is refused; the name is free again when it was discarded."""
    both = [repository.experiment("it"), repository.experiment("it")]
    answers = await asyncio.gather(*[each.init() for each in both], return_exceptions=True)
    (told,) = [answer for answer in answers if isinstance(answer, aexp.NameTaken)]
    (first,) = [each for each in both if each.state is State.ACTIVE]

    assert (told.name, told.rev) == ("it", None)
    await first.discard()
    assert (await saved(repository, "it")).name == "it"


async def test_one_name_on_two_baselines_is_two_names(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A name is taken on its own baseline only."""
    first = await saved(repository, "it")
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    second = await saved(repository, "it")

    assert first.baseline != second.baseline
    assert {first.ref, second.ref} == {record.ref for record in await repository.experiments()}


@pytest.mark.parametrize("place", ["experiment", "save"])
async def test_force_replaces_and_keeps_what_it_replaced(
    repository: aexp.Repository, repo_path: Path, git: Git, place: str
) -> None:
    """With `force` the name is taken over; what had it before stays in the trash."""
    first = await saved(repository, "it", force=True)
    if place == "experiment":
        second = await saved(repository, "it", force=True)
    else:
        git("update-ref", "-d", first.ref, cwd=repo_path)
        experiment = await repository.experiment("it").init()
        git("update-ref", first.ref, first.rev, cwd=repo_path)
        with pytest.raises(aexp.NameTaken) as told:
            await experiment.save()
        assert (told.value.rev, experiment.state) == (first.rev, State.COMPLETED)
        second = await experiment.save(force=True)

    assert await repository.get("it") == second != first
    assert git("for-each-ref", "--format=%(objectname)", "refs/aexp/trash", cwd=repo_path) == first.rev


async def test_force_takes_the_name_of_an_open_experiment(repository: aexp.Repository) -> None:
    """With `force` even the name of an open experiment is taken; that one is told when it is saved, and loses nothing."""
    first = await repository.experiment("it").init()
    await first.log_metric("m", 1.0)
    second = await saved(repository, "it", force=True)

    with pytest.raises(aexp.NameTaken) as told:
        await first.save()
    assert told.value.rev == second.rev
    assert (await first.save(force=True)).metrics == {"m": 1.0, "step": 0}


# ---- parameters ----


@attrs.frozen
class Optimizer:
    """Parameters as an attrs class holds them."""

    lr: float = 0.1


@dataclasses.dataclass
class Training:
    """Parameters as a dataclass holds them."""

    epochs: int = 3
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)


class Model(BaseModel):
    """Parameters as pydantic holds them."""

    depth: int = 4
    layers: list[int] = [8, 8]


OBJECTS: dict[str, tuple[object, dict[str, Any]]] = {
    "attrs": (Optimizer(), {"lr": 0.1}),
    "dataclass": (Training(), {"epochs": 3, "optimizer": {"lr": 0.1}}),
    "pydantic": (Model(), {"depth": 4, "layers": [8, 8]}),
    "OmegaConf": (OmegaConf.create({"a": {"b": 1}, "c": "${a.b}"}), {"a": {"b": 1}, "c": 1}),
    "mapping of all": ({"m": Model(), "p": PurePosixPath("a/b")}, {"m": {"depth": 4, "layers": [8, 8]}, "p": "a/b"}),
}


@pytest.mark.parametrize("kind", OBJECTS)
async def test_parameters_may_be_objects(repository: aexp.Repository, kind: str) -> None:
    """Objects of attrs, dataclasses, pydantic and OmegaConf are taken as the mappings they stand for, everywhere."""
    given, expected = OBJECTS[kind]
    experiment = await repository.experiment("first", params=given).init()
    assert dict(experiment.params) == expected
    assert own(await experiment.save()) == expected

    experiment = await repository.experiment("second").init()
    await experiment.set_params(given)
    assert own(await experiment.save()) == expected
    assert own(await repository.get("second")) == expected


async def test_parameters_are_merged(repository: aexp.Repository) -> None:
    """Later parameters are merged over earlier ones, mapping by mapping; lists and values are replaced."""
    async with repository.experiment("it", params={"a": 1, "m": {"x": 1, "w": [1, 2]}}) as experiment:
        await experiment.set_params({"m": {"w": [3], "z": None}}, a=2, b=True)
        await experiment.set_params(m={"x": "one"})
        await experiment.set_params()
        assert experiment.params == {"a": 2, "m": {"x": "one", "w": [3], "z": None}, "b": True}

    assert own(experiment.record) == {"a": 2, "m": {"x": "one", "w": [3], "z": None}, "b": True}
    assert await repository.read("it", "aexp/params.yaml") == b"a: 2\nm:\n  x: one\n  w:\n  - 3\n  z: null\nb: true\n"


async def test_parameters_set_at_once_are_all_kept(repository: aexp.Repository) -> None:
    """Any number of tasks may set parameters at once; those of each are kept."""
    async with repository.experiment("it") as experiment:
        await asyncio.gather(*[experiment.set_params({f"p{n}": n}, common={f"c{n}": n}) for n in range(50)])

    kept = own(experiment.record)
    assert kept["common"] == {f"c{n}": n for n in range(50)}
    assert all(kept[f"p{n}"] == n for n in range(50))


async def test_an_experiment_keeps_its_own_copy_of_the_parameters(repository: aexp.Repository) -> None:
    """What the program changes in its objects later changes no experiment that was given them."""
    given: dict[str, Any] = {"m": {"x": 1}, "l": [1]}
    first, second = repository.experiment("first", params=given), repository.experiment("second", params=given)
    given["m"]["x"] = 2
    given["l"].append(2)
    async with first, second:
        more = {"n": {"y": [1]}}
        await first.set_params(more)
        more["n"]["y"].append(2)
        await second.set_params(m={"x": 3})
        with pytest.raises(TypeError):
            first.params["m"] = 4  # type: ignore[index]

    assert own(first.record) == {"m": {"x": 1}, "l": [1], "n": {"y": [1]}}
    assert own(second.record) == {"m": {"x": 3}, "l": [1]}


@pytest.mark.parametrize(
    "params",
    [{"f": object()}, {"f": b"x"}, [1], "lr=1", {"a": "\ud800"}],
    ids=["object", "bytes", "list", "text", "surrogate"],
)
async def test_parameters_that_no_file_can_hold_are_refused(repository: aexp.Repository, params: Any) -> None:
    """What no parameter file can hold raises `InvalidParams` at the call, and nothing of it is kept."""
    with pytest.raises(aexp.InvalidParams):
        repository.experiment("it", params=params)
    experiment = await repository.experiment("it", params={"good": 1}).init()
    with pytest.raises(aexp.InvalidParams):
        await experiment.set_params({"good": 2} | params if isinstance(params, dict) else params)

    assert own(await experiment.save()) == {"good": 1}


# ---- files ----


async def test_files_stand_in_the_commit(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Logged files stand in the commit at their paths, text as UTF-8; the same path again replaces it."""
    async with repository.experiment("it") as experiment:
        await experiment.log_file("out/report.txt", "caf\u00e9\n")
        await experiment.log_file(PurePosixPath("raw.bin"), bytes(range(256)))
        await experiment.log_file("empty", b"")
        await experiment.log_file("./out/again", b"first")
        await experiment.log_file("out/again", b"second")
        await experiment.log_file("train.py", "lr = 0.2\n")
        await experiment.log_file("aexp/notes.md", "beside ours\n")
        await experiment.log_file("\u65e5\u672c/f\u00fcr.txt", "x")

    assert await repository.read("it", "out/report.txt") == "caf\u00e9\n".encode()
    assert await repository.read("it", "raw.bin") == bytes(range(256))
    assert await repository.read("it", "empty") == b""
    assert await repository.read("it", PurePosixPath("out/again")) == b"second"
    assert await repository.read("it", "train.py") == b"lr = 0.2\n"
    assert await repository.read("it", "aexp/notes.md") == b"beside ours\n"
    assert await repository.read("it", "\u65e5\u672c/f\u00fcr.txt") == b"x"
    assert (repo_path / "train.py").read_text() == "lr = 0.1\n", "the work tree is the user's"
    assert git("status", "--porcelain", cwd=repo_path) == ""


UNSAFE = [
    *["", ".", "/", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/", "C:/x", "a\\b", "a\0b", "a\nb", "\ud800"],
    *[".git/config", ".GIT/config", "sub/.git/hooks/x", ".git", "git~1/x", ".git /x", ".g\u200cit/x", ".git::$DATA/x"],
    *[".gitmodules", ".dvc/config", ".dvc/config.local", ".dvc/tmp/x", "x" * 256],
    *["aexp/params.yaml", "aexp/dvc.yaml", "aexp/metrics.json", "aexp/experiment.json", "AEXP/Params.yaml"],
    *["aexp", "aexp/plots", "aexp/plots/metrics", "aexp/plots/metrics/loss.tsv", "aexp/metrics.json/x"],
]


@pytest.mark.parametrize("path", UNSAFE, ids=ascii)
async def test_an_unsafe_path_is_refused(repository: aexp.Repository, path: str) -> None:
    """A path that leaves the repository, or where Git, DVC or aexp keep something, is refused with a reason."""
    experiment = await repository.experiment("it").init()
    with pytest.raises(aexp.UnsafePath) as told:
        await experiment.log_file(path, b"x")

    assert told.value.path == path
    assert told.value.reason
    record = await experiment.save()
    assert record.code is not None
    with pytest.raises((FileNotFoundError, IsADirectoryError)):
        await repository.read("it", "x")


async def test_a_path_is_a_file_or_a_folder(repository: aexp.Repository) -> None:
    """A file where another logged file needs a folder is refused, either way round, and the first one stays."""
    async with repository.experiment("it") as experiment:
        await experiment.log_file("a/b", "1")
        for path in ("a", "a/b/c"):
            with pytest.raises(aexp.UnsafePath):
                await experiment.log_file(path, "2")
        await experiment.log_file("a.b", "3")

    assert await repository.read("it", "a/b") == b"1"
    assert await repository.read("it", "a.b") == b"3"


@pytest.mark.parametrize("content", [7, None, ["a"], 1.5, True])
async def test_a_file_is_bytes_or_text(repository: aexp.Repository, content: Any) -> None:
    """A content that is neither bytes nor text raises `TypeError`, and no file is made of it."""
    experiment = await repository.experiment("it").init()
    with pytest.raises(TypeError):
        await experiment.log_file("x", content)
    with pytest.raises(TypeError):
        await experiment.log_file(7, b"x")  # type: ignore[arg-type]
    await experiment.save()

    with pytest.raises(FileNotFoundError):
        await repository.read("it", "x")


async def test_a_large_file_is_refused(repo_path: Path) -> None:
    """A file above the limit is refused, since it would stay in Git for ever; one of exactly that size is taken."""
    async with aexp.Repository(repo_path, settings=aexp.Settings(file_limit=100)) as repository:
        async with repository.experiment("it") as experiment:
            with pytest.raises(aexp.InvalidParams, match="101 bytes"):
                await experiment.log_file("x", b"x" * 101)
            await experiment.log_file("y", "\u00e9" * 50)
        assert len(await repository.read("it", "y")) == 100


# ---- description ----


async def test_tags_and_message_are_recorded(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Tags and message are those set last, also after the work has ended; the message is that of the commit."""
    experiment = await repository.experiment("it", tags=["old"], message="first").init()
    await experiment.set_tags("a", "b", "a", "c d")
    await experiment.set_message("why\n\nbecause")
    await experiment.complete()
    await experiment.set_tags("late")
    record = await experiment.save(message="the last word")

    assert (record.tags, record.message) == (("late",), "the last word")
    assert git("log", "-1", "--format=%s", record.rev, cwd=repo_path) == "the last word"
    assert (await repository.get("it")).tags == ("late",)


@pytest.mark.parametrize("tag", ["", " a", "a ", "a,b", "a\nb", "x" * 101, 7])
async def test_a_bad_tag_is_refused(repository: aexp.Repository, tag: Any) -> None:
    """A tag that could not be told from two, or cannot be seen, is refused, and the tags stay as they were."""
    with pytest.raises(aexp.InvalidName):
        repository.experiment("it", tags=[tag])
    experiment = await repository.experiment("it", tags=["good"]).init()
    with pytest.raises(aexp.InvalidName):
        await experiment.set_tags("better", tag)

    assert (await experiment.save()).tags == ("good",)


@pytest.mark.parametrize("message", ["a\0b", "\ud800", 7])
async def test_a_message_that_no_commit_can_hold_is_refused(repository: aexp.Repository, message: Any) -> None:
    """A message with a NUL or half a surrogate pair is refused wherever one is given."""
    with pytest.raises((aexp.InvalidName, TypeError)):
        repository.experiment("it", message=message)
    experiment = await repository.experiment("it").init()
    for call in (experiment.set_message, experiment.make_checkpoint):
        with pytest.raises((aexp.InvalidName, TypeError)):
            await call(message)
    with pytest.raises((aexp.InvalidName, TypeError)):
        await experiment.save(message=message)

    assert (await experiment.save()).message == ""
