"""`aexp push`, `aexp pull` and `aexp list REMOTE`: experiments on Git remotes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Run = Callable[..., Any]
Git = Callable[..., str]


@pytest.fixture
async def there(repo_path: Path, tmp_path: Path, git: Git) -> Path:
    """A bare remote called origin, which has the branch; two experiments are saved here."""
    bare = tmp_path / "there.git"
    git("init", "--quiet", "--bare", bare, cwd=tmp_path)
    git("remote", "add", "origin", bare, cwd=repo_path)
    git("push", "--quiet", "origin", "main", cwd=repo_path)
    async with aexp.Repository(repo_path) as repository:
        for name in ("one", "two"):
            async with repository.experiment(name, params={"name": name}):
                pass
    return bare


def outcomes(text: str) -> dict[str, str]:
    """What became of each experiment, by name."""
    return {match[2]: match[1] for match in re.finditer(r"^[0-9a-f]{7}  (.{10})  (\w+)(?:: |$)", text, re.MULTILINE)}


async def test_experiments_travel(command: Run, repo_path: Path, there: Path) -> None:
    """What is pushed is on the remote and listed there, and comes back with a pull, the same to the commit."""
    before = json.loads(command("show", "--json").out)
    pushed = command("push", "origin", "one")

    assert (pushed.code, pushed.err) == (0, "")
    assert outcomes(pushed.out) == {"one": "new       "}
    assert command("list", "origin", "--name-only").out == "one\n"
    assert outcomes(command("push").out) == {"one": "up to date", "two": "new       "}
    assert command("list", "origin").out == command("list").out
    assert command("remove", "--all").code == 0
    assert outcomes(command("pull", "origin", "two").out) == {"two": "new       "}
    (first, second) = json.loads(command("pull", "--all", "--json").out)
    assert (first["name"], first["outcome"], second["outcome"]) == ("one", "new", "up to date")
    assert json.loads(command("show", "--json").out) == before


async def test_what_stands_there_is_not_replaced(command: Run, repo_path: Path, there: Path) -> None:
    """Another experiment of the same name stays on the remote, which is said after the others went; --force replaces it."""
    assert command("push").code == 0
    async with aexp.Repository(repo_path) as repository:
        for name in ("one", "three"):
            async with repository.experiment(name, params={"again": True}, force=True):
                pass
    done = command("push")

    assert done.code == 1
    assert outcomes(done.out) == {"one": "diverged  ", "two": "up to date", "three": "new       "}
    assert done.err.count("\n") == 1
    assert "--force" in done.err
    assert "force=True" not in done.err
    assert outcomes(command("push", "origin", "one", "--force").out) == {"one": "forced    "}


async def test_nothing_to_exchange_is_no_error(command: Run, there: Path) -> None:
    """Where nothing stands on HEAD, nothing is pushed or pulled, and that is said."""
    assert command("pull").err == "aexp: no experiments to exchange with origin; --all means those of every commit\n"
    assert (
        command("list", "origin").err == "aexp: no experiments on origin of HEAD; --all lists those of every commit\n"
    )
    assert command("remove", "--all").code == 0
    assert command("push").err == "aexp: no experiments to exchange with origin; --all means those of every commit\n"


def test_a_remote_that_is_not_there(command: Run) -> None:
    """A remote that nobody knows is one line on standard error."""
    for words in (("push", "nowhere", "x"), ("pull", "nowhere"), ("list", "nowhere")):
        done = command(*words)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done.err


async def test_a_transfer_shows_how_far_it_is(terminal: Run, repo_path: Path, there: Path) -> None:
    """In a terminal a bar with a rate is drawn while experiments travel, and taken away at the end."""
    done = terminal("push", columns=120, NO_COLOR="1")

    assert done.code == 0
    assert re.search(r"objects.*\d of \d.*", done.out)
    assert outcomes(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", done.out)) == {"one": "new       ", "two": "new       "}


async def test_data_travels_where_it_can(command: Run, repo_path: Path, there: Path, git: Git) -> None:
    """Data goes to the remote that DVC's configuration names; without one it stays, which is said unless it was wished."""
    (repo_path / "model.bin").write_bytes(b"weights")
    async with aexp.Repository(repo_path) as repository, repository.experiment("heavy") as experiment:
        await experiment.log_artifact("model.bin")
    silent, told = command("push", "origin", "heavy", "--no-data"), command("push", "origin", "heavy", "--json")

    assert (silent.code, silent.err) == (0, "")
    assert json.loads(told.out)[0]["data"] == "not transferred"
    assert "`dvc remote add --default NAME URL`" in command("push", "origin", "heavy").err
