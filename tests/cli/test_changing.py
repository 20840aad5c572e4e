"""The verbs that compare, bring back, name, remove, restore and keep in shape."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp
from aexp.cli._commands import as_commands

Run = Callable[..., Any]
Git = Callable[..., str]
ROOT = Path(__file__).parents[2]


async def two(path: Path) -> None:
    """Save two experiments that differ in a parameter, metrics and a file."""
    async with aexp.Repository(path) as repository:
        for name, lr in (("one", 0.1), ("two", 0.2)):
            (path / "train.py").write_text(f"lr = {lr}  # {name}\n")
            async with repository.experiment(name, params={"lr": lr, name: True}) as experiment:
                await experiment.log_metric("acc", lr * 2, 0)
    (path / "train.py").write_text("lr = 0.1\n")


def trimmed(text: str) -> str:
    """The lines of the text, without blanks at their ends."""
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


async def test_diff_shows_what_differs(command: Run, repo_path: Path) -> None:
    """`aexp diff` prints metrics, parameters and files that differ, and the change of numbers."""
    await two(repo_path)

    assert trimmed(command("diff", "one", "two").out) == trimmed("""
 ─────────────────────────
 Metric  one  two  Change
 ─────────────────────────
 acc     0.2  0.4     0.2
 ─────────────────────────
 ──────────────────────────
 Param   one   two  Change
 ──────────────────────────
 lr      0.1   0.2     0.1
 one    True     -       -
 two       -  True       -
 ──────────────────────────
changed  train.py
""")


async def test_diff_with_head_and_as_a_patch(command: Run, repo_path: Path, git: Git) -> None:
    """One experiment is compared with HEAD; --patch has what `git apply` takes."""
    await two(repo_path)
    found = json.loads(command("diff", "one", "--json").out)

    assert (found["left"]["name"], found["right"]["name"], found["patch"]) == ("HEAD", "one", None)
    assert found["metrics"]["acc"] == {"kind": "added", "old": None, "new": 0.2, "difference": None}
    assert found["files"] == [{"path": "train.py", "kind": "changed"}]
    patch = command("diff", "one", "--patch").out
    git("apply", "-", cwd=repo_path, input=patch[patch.index("diff --git") :])
    assert (repo_path / "train.py").read_text() == "lr = 0.1  # one\n"
    assert command("diff", "one", "one").err == "aexp: one and one are equal\n"
    assert "| acc    | 0.2 | 0.4 | 0.2    |" in command("diff", "one", "two", "--md").out
    assert command("diff", "one", "nobody").err.startswith("aexp: no experiment 'nobody'")


async def test_a_patch_has_colours_in_a_terminal(terminal: Run, repo_path: Path) -> None:
    """In a terminal what was removed is red and what was added is green, as `git diff` has it."""
    await two(repo_path)
    shown = terminal("diff", "one", "two", "--patch").out

    assert "\x1b[31m-lr = 0.1  # one" in shown
    assert "\x1b[32m+lr = 0.2  # two" in shown


async def test_apply_and_undo(command: Run, repo_path: Path) -> None:
    """`aexp apply` writes the files of an experiment, and `aexp undo` puts every one back."""
    await two(repo_path)
    done = command("apply", "two", "train.py")

    assert (done.code, done.out) == (0, "written train.py\n")
    assert done.err == "aexp: two is applied: 1 path changed; `aexp undo` puts back what was there\n"
    assert (repo_path / "train.py").read_text() == "lr = 0.2  # two\n"
    assert command("apply", "two", "train.py").err == "aexp: the work tree is that of two already\n"
    undone = json.loads(command("undo", "--json").out)
    assert (undone["name"], undone["restored"], undone["kept"]) == ("two", ["train.py"], None)
    assert (repo_path / "train.py").read_text() == "lr = 0.1\n"
    assert command("undo").code == 1


async def test_apply_keeps_what_is_in_no_commit(command: Run, repo_path: Path) -> None:
    """What would be lost is refused with what to type; --force overwrites it, and undo brings it back."""
    await two(repo_path)
    (repo_path / "train.py").write_text("mine\n")
    done = command("apply", "two")

    assert (done.code, done.out) == (1, "")
    assert "what is in no commit would be overwritten at 'train.py'" in done.err
    assert "or pass --force, which keeps it for `aexp undo`\n" in done.err
    assert command("apply", "two", "--force").code == 0
    assert "aexp/params.yaml" in json.loads(command("apply", "one", "-f", "--json").out)["written"]
    assert command("undo").code == command("undo").code == 0
    assert (repo_path / "train.py").read_text() == "mine\n"


async def test_names_are_changed(command: Run, repo_path: Path, git: Git) -> None:
    """rename, branch, remove and restore do what their names say, and print what it is they changed."""
    await two(repo_path)
    rev = git("for-each-ref", "--format=%(objectname:short=7)", "refs/exps/**/one", cwd=repo_path)

    assert command("rename", "one", "uno").out == f"{rev}  finished     uno\n"
    assert command("branch", "uno").out == "uno-branch\n"
    assert command("branch", "uno", "dos").out == "dos\n"
    assert [git("rev-parse", "--short=7", name, cwd=repo_path) for name in ("uno-branch", "dos")] == [rev, rev]
    assert command("remove", "uno").out == f"{rev}  finished     uno\n"
    assert command("list", "--name-only").out == "two\n"
    assert command("restore", "uno", "one").out == f"{rev}  finished     one\n"
    assert [each["name"] for each in json.loads(command("remove", "--all", "--json").out)] == ["one", "two"]
    assert command("remove", "--all").err == "aexp: no experiments there\n"


async def test_what_cannot_be_changed_says_what_to_type(command: Run, repo_path: Path) -> None:
    """A name that is taken or gone is one line, whose advice is in verbs and flags."""
    await two(repo_path)

    taken = command("rename", "one", "two")
    assert (taken.code, taken.err.count("\n")) == (1, 1)
    assert "the name 'two' is taken" in taken.err
    assert command("remove", "nobody").err == "aexp: no experiment 'nobody'; `aexp list --all` lists what is there\n"
    for words in ((), ("one", "--all"), ("one", "--rev", "HEAD")):
        assert command("remove", *words).code == 2
    assert command("list", "--name-only").out == "one\ntwo\n"


@pytest.mark.parametrize("room", sorted((ROOT / "aexp").glob("*.py")), ids=lambda room: room.name)
def test_advice_of_the_library_becomes_commands(room: Path) -> None:
    """Whatever call a message of the library advises, the command line has a verb or a flag in its place."""
    for text in re.findall(r'f?"([^"\n]*(?:await repository\.|force=True|salvage=True)[^"\n]*)"', room.read_text()):
        said = as_commands(re.sub(r"\{([^}]*)!r\}", r"'\1'", text))
        assert "await" not in said, said
        assert "=True" not in said, said


def test_advice_without_calls_stays() -> None:
    """A message that names no call is told as it is."""
    assert as_commands("free some and call again, nothing was lost") == "free some and call again, nothing was lost"
    assert (
        as_commands("await repository.recover() saves it as it stands, await repository.resume('x') goes on with it")
        == "`aexp recover` saves it as it stands"
    )
    assert as_commands("or await repository.remove('refs/exps/a')") == "or `aexp remove refs/exps/a`"


async def test_doctor_says_what_to_do(command: Run, repo_path: Path) -> None:
    """`aexp doctor` ends with 0 where all is well, and with 1, and what to type, where something is broken."""
    await two(repo_path)
    good = command("doctor")
    assert (good.code, good.err) == (0, "")
    assert re.search(r"^ok +git +git \d", good.out, re.MULTILINE)

    ref = (await repository_of(repo_path, "one")).ref
    (repo_path / ".git" / ref).parent.joinpath("torn").write_text("\0")
    bad = command("doctor")
    assert bad.code == 1
    assert re.search(r"^error +damaged +.*torn.*`aexp remove refs/exps/.*/torn`$", bad.out, re.MULTILINE)
    levels = {each["level"] for each in json.loads(command("doctor", "--json").out)}
    assert {"ok", "error"} <= levels <= {"ok", "note", "warning", "error"}


async def repository_of(path: Path, name: str) -> aexp.Record:
    """The record of an experiment."""
    async with aexp.Repository(path) as repository:
        return await repository.get(name)


async def test_maintain_says_what_it_did(command: Run, repo_path: Path) -> None:
    """`aexp maintain` prints what it swept, or that there was nothing; --json has every field."""
    await two(repo_path)
    lock = repo_path / ".git" / "objects" / "pack" / "tmp_pack_aexp"
    lock.write_bytes(b"")

    assert set(json.loads(command("maintain", "--json").out)) == {
        "retired", "swept", "anchors", "journals", "trash", "interrupted", "packs_before", "packs_after",
        "packed_refs", "freed", "failures",
    }  # fmt: skip
    assert command("maintain").out == "there was nothing to do\n"
