"""What an experiment from elsewhere must not do to a work tree: leave it, reach into `.git`, run anything."""

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import aexp

Git = Callable[..., str]
Entry = tuple[str, str, bytes]


def blob(path: Path, content: bytes) -> str:
    """Write a blob; return its id."""
    done = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=path, input=content, capture_output=True, check=True
    )
    return done.stdout.decode().strip()


def raw_tree(path: Path, entries: list[tuple[bytes, bytes, str]]) -> str:
    """Write a tree of (mode, name, id) as it is, however wrong; return its id."""
    content = b"".join(mode + b" " + name + b"\0" + bytes.fromhex(id) for mode, name, id in entries)
    done = subprocess.run(
        ["git", "hash-object", "-w", "-t", "tree", "--literally", "--stdin"],
        cwd=path,
        input=content,
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().strip()


def experiment(path: Path, git: Git, tree: str, name: str = "evil") -> str:
    """Make an experiment of a tree, as if it had been pulled."""
    rev = git("commit-tree", tree, "-p", "HEAD", "-m", "evil", cwd=path)
    head = git("rev-parse", "HEAD", cwd=path)
    git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", rev, cwd=path)
    return rev


def with_files(path: Path, git: Git, files: Mapping[str, str | tuple[str, str]], name: str = "evil") -> str:
    """Make an experiment of HEAD's tree and these files; a pair is a mode and a content."""
    index = {"GIT_INDEX_FILE": str(path.parent / "evil-index")}

    def run(*arguments: str, input: str | None = None) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=path,
            env=os.environ | index,
            input=input,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    run("read-tree", "HEAD")
    for file, what in files.items():
        mode, content = ("100644", what) if isinstance(what, str) else what
        run(
            "-c",
            "core.protectNTFS=false",
            "update-index",
            "--add",
            "--cacheinfo",
            f"{mode},{blob(path, content.encode())},{file}",
        )
    return experiment(path, git, run("write-tree"), name)


def everything(path: Path) -> dict[str, Any]:
    """All that is in a folder, with the Git directory but for objects, refs and what aexp keeps there."""
    found: dict[str, Any] = {}
    for each in sorted(path.rglob("*")):
        name = str(each.relative_to(path))
        if not re.search(r"(?:^|/)\.git/(?:objects|refs|aexp)", name):
            found[name] = os.readlink(each) if each.is_symlink() else None if each.is_dir() else each.read_bytes()
    return found


NAMES = (
    b"..",
    b".git",
    b".GIT",
    b".Git ",
    b".git.",
    b"git~1",
    b"GIT~1",
    b".git::$INDEX_ALLOCATION",
    ".g\u200cit".encode(),
    b"a\\b",
    b"../../x",
    b"/etc/x",
    b"line\nfeed",
    b"bell\x07",
    b".",
)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_no_work_tree_may_hold_is_refused(
    name: bytes, deep: bool, repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """A tree with such a file, or such a folder, raises `UnsafePath`, with or without force, and nothing is written."""
    content = blob(repo_path, b"#!/bin/sh\necho evil\n")
    below = [(b"40000", name, raw_tree(repo_path, [(b"100755", b"config", content)]))]
    tree = raw_tree(repo_path, below if deep else [(b"100644", name, content)])
    experiment(repo_path, git, tree)
    before = everything(repo_path.parent)

    for force in (False, True):
        with pytest.raises(aexp.UnsafePath):
            await repository.apply("evil", force=force)

    assert everything(repo_path.parent) == before


async def test_a_link_and_a_folder_of_one_name_are_refused(
    repository: aexp.Repository, repo_path: Path, git: Git, tmp_path: Path
) -> None:
    """A tree that holds a name twice, as a link out and as a folder, writes nothing through the link."""
    (tmp_path / "outside").mkdir()
    link = blob(repo_path, str(tmp_path / "outside").encode())
    inner = raw_tree(repo_path, [(b"100644", b"thru", blob(repo_path, b"evil"))])
    for order in (1, -1):
        entries = [(b"120000", b"data", link), (b"40000", b"data", inner)][::order]
        experiment(repo_path, git, raw_tree(repo_path, entries))
        with pytest.raises((aexp.UnsafePath, aexp.GitError)):
            await repository.apply("evil", force=True, paths=["data"])
    assert list((tmp_path / "outside").iterdir()) == []


async def test_nothing_is_written_through_a_link(
    repository: aexp.Repository, repo_path: Path, git: Git, tmp_path: Path
) -> None:
    """A first experiment brings a link to a folder outside, a second one a file below it: the folder stays empty."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with_files(repo_path, git, {"d": ("120000", str(outside)), "s": ("120000", "../outside")}, "first")
    with_files(repo_path, git, {"d/thru": "evil\n", "s/thru": "evil\n"}, "second")

    skipped = (await repository.apply("first")).skipped
    assert {each.path: "link" in each.reason for each in skipped} == {"d": True, "s": True}
    assert "d" not in everything(repo_path)
    await repository.apply("first", paths=["d", "s"])
    assert os.readlink(repo_path / "d") == str(outside)
    await repository.apply("second")

    assert list(outside.iterdir()) == []
    assert (repo_path / "d" / "thru").read_text() == (repo_path / "s" / "thru").read_text() == "evil\n"


async def test_a_folder_that_is_a_link_in_the_work_tree_is_not_followed(
    repository: aexp.Repository, repo_path: Path, git: Git, tmp_path: Path
) -> None:
    """Where the user made a link of a folder, apply refuses; with force it replaces the link, not what it leads to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "notes.txt").write_text("precious\n")
    with_files(repo_path, git, {"data/notes.txt": "theirs\n"})
    (repo_path / "data" / "notes.txt").unlink()
    (repo_path / "data").rmdir()
    (repo_path / "data").symlink_to(outside)
    before = everything(repo_path)

    with pytest.raises(aexp.DirtyWorkspace) as told:
        await repository.apply("evil")

    assert told.value.paths == ("data",)
    await repository.apply("evil", force=True)
    assert (outside / "notes.txt").read_text() == "precious\n"
    assert (repo_path / "data" / "notes.txt").read_text() == "theirs\n"
    await repository.undo_apply()
    assert everything(repo_path) == before
    assert (outside / "notes.txt").read_text() == "precious\n"


GUARDED = {
    ".gitattributes": "* filter=evil\n",
    "data/.gitattributes": "* filter=evil\n",
    ".gitmodules": '[submodule "x"]\n path = x\n url = ext::sh -c evil\n',
    ".dvc/config": "[cache]\n dir = /etc\n",
    ".dvc/config.local": "[cache]\n dir = /etc\n",
    ".hooks/pre-commit": "#!/bin/sh\nevil\n",
    "team.gitconfig": "[core]\n pager = evil\n",
}


async def test_settings_and_hooks_need_to_be_named(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Files that Git or DVC take settings from are left alone and reported; named one by one they are applied."""
    git("config", "core.hooksPath", ".hooks", cwd=repo_path)
    git("config", "include.path", "../team.gitconfig", cwd=repo_path)
    with_files(repo_path, git, GUARDED | {"plain.py": "x = 1\n", ".dvc/plots/a.json": "{}"})

    applied = await repository.apply("evil")

    assert applied.written == (".dvc/plots/a.json", "plain.py")
    assert {each.path for each in applied.skipped} == set(GUARDED)
    assert not any((repo_path / path).exists() for path in GUARDED)
    assert (await repository.apply("evil", paths=[".hooks", ".dvc"])).written == ()
    assert (await repository.apply("evil", paths=list(GUARDED))).written == tuple(sorted(GUARDED))
    assert (repo_path / ".gitattributes").read_text() == "* filter=evil\n"


async def test_attributes_of_an_experiment_start_no_filter(
    repository: aexp.Repository, repo_path: Path, git: Git, tmp_path: Path
) -> None:
    """A filter that the user has set up runs for what his own attributes name, not for what the experiment's do."""
    git("config", "filter.upper.smudge", f"tee -a {tmp_path}/ran | tr a-z A-Z", cwd=repo_path)
    git("config", "filter.upper.clean", "tr A-Z a-z", cwd=repo_path)
    with_files(repo_path, git, {".gitattributes": "*.py filter=upper\n", "new.py": "theirs\n", "d/new.py": "theirs\n"})

    for paths in (None, [".gitattributes", "new.py", "d/new.py"]):
        await repository.apply("evil", paths=paths)
        assert (repo_path / "new.py").read_text() == "theirs\n"
        assert not (tmp_path / "ran").exists()
        await repository.undo_apply()
    (repo_path / ".gitattributes").write_text("new.py filter=upper\n")
    git("add", ".gitattributes", cwd=repo_path)
    git("commit", "--quiet", "--message=mine", cwd=repo_path)
    applied = await repository.apply("evil")

    assert (repo_path / "new.py").read_text() == "THEIRS\n"
    assert ".gitattributes" in {each.path for each in applied.skipped}
    assert (await repository.apply("evil")).written == ()


async def test_no_hook_runs(repository: aexp.Repository, repo_path: Path, git: Git, tmp_path: Path) -> None:
    """Neither a checkout hook nor one that hears of a changed index is run."""
    hooks = repo_path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-index-change", "post-merge", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/ran\n")
        (hooks / name).chmod(0o755)
    with_files(repo_path, git, {"new.py": "x\n"})
    (tmp_path / "ran").unlink(missing_ok=True)

    await repository.apply("evil")
    await repository.undo_apply()

    assert not (tmp_path / "ran").exists()


async def test_a_repository_in_the_way_stays(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A nested repository is neither replaced by a file nor written into, with or without force."""
    with_files(repo_path, git, {"nested": "a file\n"}, "file")
    with_files(repo_path, git, {"nested/new": "a file\n"}, "inside")
    git("init", "--quiet", "nested", cwd=repo_path)
    before = everything(repo_path)

    for force in (False, True):
        with pytest.raises(aexp.UnsafePath, match="repository of its own"):
            await repository.apply("file", force=force)
        applied = await repository.apply("inside", force=force)
        assert [each.path for each in applied.skipped] == ["nested/new"]
    assert everything(repo_path) == before


async def test_what_is_no_file_stays(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A FIFO where a file is to be written is refused, and nobody waits for who might write into it."""
    with_files(repo_path, git, {"pipe": "a file\n"})
    os.mkfifo(repo_path / "pipe")
    for force in (False, True):
        with pytest.raises(aexp.UnsafePath, match="neither a file"):
            await repository.apply("evil", force=force)


async def test_names_that_differ_in_case_only(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """On a disk that ignores case, as Git knows of it, two names that differ in nothing else are refused."""
    with_files(repo_path, git, {"Model": "1\n", "model/a": "2\n"})
    git("config", "core.ignorecase", "true", cwd=repo_path)
    with pytest.raises(aexp.UnsafePath, match="cannot both stand"):
        await repository.apply("evil")
    git("config", "core.ignorecase", "false", cwd=repo_path)
    assert (await repository.apply("evil")).written == ("Model", "model/a")


async def test_an_object_that_is_missing_changes_nothing(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """When an object of the experiment is lost, the error says so before anything is changed."""
    rev = with_files(repo_path, git, {"train.py": "theirs\n", "z.py": "lost\n"})
    id = git("rev-parse", f"{rev}:z.py", cwd=repo_path)
    (repo_path / ".git" / "objects" / id[:2] / id[2:]).unlink()
    before = everything(repo_path)

    with pytest.raises(aexp.GitError):
        await repository.apply("evil")

    assert everything(repo_path) == before
    assert [each.name for each in (repo_path / ".git/aexp/applied").iterdir()] == ["lock"]


async def test_a_damaged_plan_is_told(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """When the record of an apply is damaged, the error names its folder, and nothing is changed."""
    with_files(repo_path, git, {"train.py": "theirs\n"})
    mark = (await repository.apply("evil")).undo
    assert mark is not None
    (Path(mark) / "plan").write_text('{"format": 1')
    before = everything(repo_path)
    for call in (repository.undo_apply(), repository.apply("evil")):
        with pytest.raises(aexp.GitError) as told:
            await call
        assert mark in str(told.value)
    assert everything(repo_path) == before
