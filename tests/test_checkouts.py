"""Private checkouts: what a program finds in one, what is taken from it, and that nothing else is touched."""

import asyncio
import configparser
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

import aexp

Git = Callable[..., str]


def places(path: Path) -> list[Path]:
    """The folders of the checkouts that lie in a repository now."""
    return sorted((path / ".git" / "aexp" / "workspaces").glob("*"))


def picture(path: Path, git: Git) -> tuple[object, ...]:
    """All of the user's that no experiment may touch: files, index, HEAD, branches, worktrees, configuration, stash."""
    files = {
        str(each.relative_to(path)): (each.lstat().st_mtime_ns, each.lstat().st_ino, each.lstat().st_mode)
        for each in sorted(path.rglob("*"))
        if ".git" not in each.relative_to(path).parts
    }
    inside = path / ".git"
    return (
        files,
        (inside / "index").read_bytes(),
        (inside / "HEAD").read_text(),
        (inside / "config").read_text(),
        git("for-each-ref", "refs/heads", "refs/tags", "refs/stash", cwd=path),
        git("worktree", "list", cwd=path),
        (inside / "worktrees").exists(),
    )


def changed(record: aexp.Record | None, path: Path, git: Git) -> dict[str, str]:
    """What the experiment changed against its baseline, outside of aexp's own folder: letter by path."""
    assert record is not None
    lines = git("diff-tree", "-r", "--no-renames", "--name-status", record.baseline, record.rev, cwd=path).splitlines()
    ours = ("aexp/", ".dvc")  # what `dvc init` makes comes with every commit
    return {name: letter for letter, name in (line.split("\t") for line in lines) if not name.startswith(ours)}


def left_out(record: aexp.Record | None) -> dict[str, str]:
    """What the record says was left out, with the reasons."""
    assert record is not None
    assert record.code is not None
    return {each.path: each.reason for each in record.code.skipped}


# ---- what is in it ----


async def test_it_holds_what_the_experiment_holds(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Captured edits, overrides and logged files are there; what is untracked in the work tree, or comes later, is not."""
    (repo_path / "train.py").write_text("lr = 0.2\n")
    (repo_path / "mine.txt").write_text("untracked\n")
    before = picture(repo_path, git)
    async with repository.experiment("one", overrides=["train.lr=0.5"]) as experiment:
        await experiment.log_file("conf/more.txt", "more")
        async with experiment.workspace() as path:
            texts = {name: (path / name).read_text() for name in ("train.py", "README.md", "conf/more.txt")}
            params = (path / "params.yaml").read_text()
            names = {each.name for each in path.iterdir()}

    assert texts == {"train.py": "lr = 0.2\n", "README.md": "# a model\n", "conf/more.txt": "more"}
    assert "lr: 0.5 # the learning rate" in params
    assert names == {".git", "README.md", "conf", "data", "params.yaml", "train.py"}
    assert picture(repo_path, git) == before


async def test_git_works_in_it(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """HEAD is detached at the baseline, history, branches and tags are known, and what the experiment changed is staged."""
    git("tag", "v1", cwd=repo_path)
    git("config", "user.nick", 'a "b" \\ c', cwd=repo_path)
    (repo_path / "train.py").write_text("lr = 0.2\n")
    async with repository.experiment("one") as experiment, experiment.workspace() as path:
        assert git("rev-parse", "HEAD", cwd=path) == experiment.baseline
        assert git("rev-parse", "--abbrev-ref", "HEAD", cwd=path) == "HEAD"
        assert git("rev-parse", "--show-toplevel", cwd=path) == str(path)
        assert git("status", "--short", cwd=path) == "M  train.py"
        assert git("describe", "--tags", "main", cwd=path) == "v1"
        assert git("config", "user.nick", cwd=path) == 'a "b" \\ c'
        assert git("worktree", "list", cwd=repo_path).count("\n") == 0


async def test_git_in_it_changes_nothing_outside(
    repository: aexp.Repository, repo_path: Path, git: Git, fsck: Callable[[Path], None]
) -> None:
    """Commits, branches, stashes, tags and even a collection of garbage stay in the checkout."""
    before = picture(repo_path, git)
    async with repository.experiment("one") as experiment:
        await experiment.run(
            "git checkout -q -b side; echo x > x; git add x; git commit -qm x; git tag t; echo y >> train.py;"
            " git stash -q; git branch -D main; git gc -q --prune=now; git config core.bare true; rm -rf .git"
        )

    assert changed(experiment.record, repo_path, git) == {"x": "A"}
    assert picture(repo_path, git) == before
    fsck(repo_path)


async def test_a_checkout_without_git_does_not_lead_to_ours(repository: aexp.Repository, repo_path: Path) -> None:
    """A program that has removed the `.git` of its checkout finds no other above it."""
    async with repository.experiment("one") as experiment:
        done = await experiment.run("rm -rf .git; git status", check=False)

    assert done.returncode == 128
    assert b"not a git repository" in done.stderr


async def test_variables_of_a_hook_do_not_reach_it(
    repository: aexp.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run from a hook of Git, whose variables name the user's repository and index, programs still work on their own."""
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    async with repository.experiment("one") as experiment:
        done = await experiment.run('echo "$PWD"; git rev-parse --show-toplevel')

    here, top = done.stdout.decode().split()
    assert here == top


# ---- what is taken ----


async def test_what_changes_is_taken(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Changed, new and deleted files are in the commit, with modes, links and any name; the work tree has none of it."""
    before = picture(repo_path, git)
    async with repository.experiment("one") as experiment, experiment.workspace() as path:
        (path / "train.py").write_text("lr = 0.3\n")
        (path / "out").mkdir()
        (path / "out" / "größe \n.bin").write_bytes(b"\0\xff" * 1000)
        (path / "run.sh").write_text("#!/bin/sh\n")
        (path / "run.sh").chmod(0o755)
        (path / "latest").symlink_to("out")
        (path / "README.md").unlink()
        (path / "data" / "notes.txt").unlink()
        (path / "data").rmdir()
        (path / "data").write_text("a file now\n")
    record = await repository.get("one")
    modes = git("ls-tree", record.rev, "run.sh", "latest", cwd=repo_path).split()

    assert changed(record, repo_path, git) == {
        "README.md": "D",
        "data": "A",
        "data/notes.txt": "D",
        "latest": "A",
        '"out/gr\\303\\266\\303\\237e \\n.bin"': "A",
        "run.sh": "A",
        "train.py": "M",
    }
    assert (modes[0], modes[4]) == ("120000", "100755")
    assert await repository.read("one", "out/größe \n.bin") == b"\0\xff" * 1000
    assert picture(repo_path, git) == before


async def test_one_program_goes_on_where_the_other_ended(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """Each run has a checkout of its own, and finds what those before it have changed, made and deleted."""
    async with repository.experiment("one", overrides=["train.lr=0.5"]) as experiment:
        await experiment.run("echo first > made.txt; rm README.md; echo 'lr = 1' > train.py; mkdir d; echo d > d/e")
        await experiment.run(
            "test ! -e README.md; grep -q 'lr: 0.5' params.yaml; cat made.txt train.py > both.txt; rm made.txt"
        )
        await experiment.run("test ! -e made.txt; git checkout -q HEAD -- train.py params.yaml; rm -r d; echo d > d")
        await experiment.run("test -f d; test ! -e made.txt")

    assert changed(experiment.record, repo_path, git) == {"README.md": "D", "both.txt": "A", "d": "A"}
    assert await repository.read("one", "both.txt") == b"first\nlr = 1\n"


async def test_a_workspace_is_shared_by_the_runs_in_it(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """While a workspace is open, programs run in it, one after another or at once, in the folder that is asked for."""
    async with repository.experiment("one") as experiment, experiment.workspace() as path:
        (path / "in.txt").write_text("1\n")
        await experiment.run("cat ../in.txt > out.txt", cwd="data")
        await asyncio.gather(*(experiment.run(f"cat out.txt > {n}.txt", cwd="data") for n in range(3)))
        assert (path / "data" / "2.txt").read_text() == "1\n"
    assert await repository.read("one", "data/out.txt") == b"1\n"
    assert len(places(repo_path)) == 1


async def test_ignored_files_are_taken_when_they_are_named(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """What Git ignores stays out, unless `outs` or the top level of a dvc.yaml names it; secrets stay out, and are told."""
    (repo_path / ".gitignore").write_text("*.log\nbuild/\nscores.json\nmodel.bin\n")
    (repo_path / "dvc.yaml").write_text("metrics:\n- scores.json\nplots:\n- curves.log:\n    x: step\n")
    git("add", "--all", cwd=repo_path)
    git("commit", "--quiet", "--message=ignores", cwd=repo_path)
    async with repository.experiment("one", outs=["build", "absent"]) as experiment:
        await experiment.run(
            "echo a > a.log; mkdir build; echo b > build/b; echo '{\"acc\": 1}' > scores.json; echo c > curves.log;"
            " echo m > model.bin; echo k > .env"
        )
        await experiment.run("test -e build/b; test -e scores.json; test ! -e a.log; test ! -e model.bin")

    assert changed(experiment.record, repo_path, git) == {"build/b": "A", "scores.json": "A", "curves.log": "A"}
    assert left_out(experiment.record) == {
        ".env": "the name of a file that holds secrets",
        "absent": "it is not there",
    }


async def test_outs_come_from_the_workspace(repository: aexp.Repository, repo_path: Path) -> None:
    """An out that a program made in its checkout is that one, whatever lies in the work tree."""
    (repo_path / "report.md").write_text("old, the user's\n")
    async with repository.experiment("one", outs=["report.md"]) as experiment:
        await experiment.run("echo new > report.md")

    assert await repository.read("one", "report.md") == b"new\n"


async def test_large_files_are_told(repo_path: Path, git: Git) -> None:
    """Files above the limit stay out, tracked or not, and are told; the rest is taken."""
    settings = aexp.Settings(file_limit=1000, capture_limit=2500)
    async with aexp.Repository(repo_path, settings=settings) as repository, repository.experiment("one") as experiment:
        await experiment.run(
            "head -c 2000 /dev/zero | tee train.py > big; for n in 1 2 3; do head -c 900 /dev/zero > $n; done"
        )

    told = left_out(experiment.record)
    assert told.keys() == {"train.py", "big", "3"}
    assert changed(experiment.record, repo_path, git) == {"1": "A", "2": "A"}


async def test_filters_of_git_apply(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Line ends and filters are as Git makes them: what is checked out is smudged, what is taken is clean."""
    (repo_path / ".gitattributes").write_text("*.txt eol=crlf\n*.up filter=up\n")
    (repo_path / "x.up").write_text("abc\n")
    git("config", "filter.up.smudge", "tr a-z A-Z", cwd=repo_path)
    git("config", "filter.up.clean", "tr A-Z a-z", cwd=repo_path)
    git("add", "--all", cwd=repo_path)
    git("commit", "--quiet", "--message=filters", cwd=repo_path)
    async with repository.experiment("one") as experiment, experiment.workspace() as path:
        assert (path / "data" / "notes.txt").read_bytes().endswith(b"\r\n")
        assert (path / "x.up").read_bytes() == b"ABC\n"
        (path / "new.txt").write_bytes(b"a\r\n")
        (path / "new.up").write_bytes(b"DEF\n")

    assert changed(experiment.record, repo_path, git) == {"new.txt": "A", "new.up": "A"}
    assert await repository.read("one", "new.txt") == b"a\n"
    assert await repository.read("one", "new.up") == b"def\n"


async def test_a_failing_program_leaves_what_it_made(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """What a program wrote before it failed is in the failed experiment, and so is what an exception left in a block."""
    with pytest.raises(aexp.CommandFailed):
        async with repository.experiment("one") as one:
            await one.run("echo partial > result; exit 3")
    with pytest.raises(KeyError):  # noqa: PT012  # the block is what is tested
        async with repository.experiment("two") as two, two.workspace() as path:
            (path / "result").write_text("partial")
            raise KeyError

    for each in (one, two):
        assert changed(each.record, repo_path, git) == {"result": "A"}
        assert each.record is not None
        assert each.record.status == aexp.Status.FAILED


async def test_saving_inside_the_block_takes_what_is_there(
    repository: aexp.Repository, repo_path: Path, git: Git
) -> None:
    """An experiment that is saved while its workspace is open holds what stood there then; what comes later is dropped."""
    experiment = await repository.experiment("one").init()
    async with experiment.workspace() as path:
        (path / "before").write_text("x")
        record = await experiment.save()
        (path / "after").write_text("x")

    assert changed(record, repo_path, git) == {"before": "A"}


async def test_parameters_can_be_changed_after_a_program_changed_the_file(repository: aexp.Repository) -> None:
    """`set_params(file=)` changes the file as the program left it."""
    async with repository.experiment("one", overrides=["train.lr=0.5"]) as experiment:
        await experiment.run("echo 'seed: 1' >> params.yaml")
        await experiment.set_params({"seed": 2}, file="params.yaml")

    text = (await repository.read("one", "params.yaml")).decode()
    assert "lr: 0.5 #" in text
    assert text.endswith("seed: 2\n")


async def test_settings_of_dvc_do_not_depend_on_the_place(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git
) -> None:
    """DVC in a checkout has the cache and the remotes of the project: by absolute paths, and the local ones win."""
    (repo_path / ".dvc").mkdir()
    (repo_path / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    remotes = (
        "['remote \"a\"']\n    url = ../../a\n['remote \"b\"']\n    url = ../../b\n['remote \"c\"']\n    url = s3://c\n"
    )
    (repo_path / ".dvc" / "config").write_text(f"[cache]\n    dir = ../../cache\n{remotes}")
    (repo_path / ".dvc" / "config.local").write_text("['remote \"b\"']\n    url = /mine\n    password = secret\n")
    git("add", "--all", cwd=repo_path)
    git("commit", "--quiet", "--message=dvc", cwd=repo_path)
    async with repository.experiment("one") as experiment, experiment.workspace() as path:
        found = configparser.RawConfigParser()
        found.read(path / ".dvc" / "config.local")
        site = found["core"]["site_cache_dir"]

    assert site == str(path.parent / "site")
    assert found["cache"]["dir"] == str(tmp_path / "cache")
    assert dict(found["'remote \"a\"'"]) == {"url": str(tmp_path / "a")}
    assert dict(found["'remote \"b\"'"]) == {"url": "/mine", "password": "secret"}
    assert "'remote \"c\"'" not in found
    assert changed(experiment.record, repo_path, git) == {}


# ---- who runs in it ----


async def test_aexp_init_in_it_joins(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """A program in the checkout that calls `aexp.init()` logs into this experiment, and begins none of its own."""
    program = """
        import asyncio, aexp
        async def main():
            async with aexp.init("other", params={"depth": 4}) as experiment:
                await experiment.log_metric("loss", 0.5, step=3)
                done = await experiment.run("echo inner > inner.txt")
                print(done.returncode)
        asyncio.run(main())
    """
    async with repository.experiment("one") as experiment:
        await experiment.run([sys.executable, "-c", textwrap.dedent(program)])

    record = await repository.get("one")
    assert (record.metrics["loss"], record.params["depth"]) == (0.5, 4)
    assert changed(record, repo_path, git) == {"inner.txt": "A"}
    assert len(await repository.experiments()) == 1


async def test_a_bare_repository_has_checkouts(repo_path: Path, tmp_path: Path, git: Git) -> None:
    """No work tree is needed."""
    git("clone", "--quiet", "--bare", repo_path, tmp_path / "bare.git", cwd=tmp_path)
    async with aexp.Repository(tmp_path / "bare.git") as repository, repository.experiment("one") as experiment:
        await experiment.run("cat train.py > copy.py")

    assert changed(experiment.record, tmp_path / "bare.git", git) == {"copy.py": "A"}


async def test_a_linked_worktree_has_checkouts(repo_path: Path, tmp_path: Path, git: Git) -> None:
    """An experiment of a linked worktree runs in a checkout of that, and the list of worktrees stays as it is."""
    git("worktree", "add", "--quiet", tmp_path / "linked", cwd=repo_path)
    (tmp_path / "linked" / "train.py").write_text("lr = 9\n")
    before = git("worktree", "list", cwd=repo_path)
    async with aexp.Repository(tmp_path / "linked") as repository, repository.experiment("one") as experiment:
        done = await experiment.run("cat train.py; git status --short")

    assert done.stdout == b"lr = 9\nM  train.py\n"
    assert git("worktree", "list", cwd=repo_path) == before


# ---- the pool ----


async def test_a_checkout_is_lent_again(repository: aexp.Repository, repo_path: Path) -> None:
    """The next experiment gets the same folder, by another name, without anything that the last one left there."""
    seen = []
    for name in ("one", "two"):
        async with repository.experiment(name) as experiment, experiment.workspace() as path:
            seen.append((path.lstat().st_ino, (path / "train.py").read_text(), (path / "new").exists()))
            (path / "train.py").write_text("spoiled = 1\n")
            (path / "new").mkdir()
            (path / "new" / ".git").mkdir()
            (path / "data").rename(path / "elsewhere")

    assert seen[0] == seen[1]
    assert seen[0][1:] == ("lr = 0.1\n", False)
    assert len(places(repo_path)) == 1


async def test_a_checkout_follows_the_code(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """After the code has changed, a checkout that waits becomes one of the new state."""
    async with repository.experiment("one") as experiment:
        await experiment.run("true")
    (repo_path / "train.py").write_text("lr = 0.2\n")
    git("commit", "--quiet", "--all", "--message=next", cwd=repo_path)
    async with repository.experiment("two") as experiment:
        done = await experiment.run("cat train.py; git rev-parse HEAD; git status --short")

    assert done.stdout.decode().split("\n")[:3] == ["lr = 0.2", experiment.baseline, ""]
    assert len(places(repo_path)) == 1


async def test_what_is_changed_while_it_waits_is_found(repository: aexp.Repository, repo_path: Path) -> None:
    """A checkout that somebody writes into while it is nobody's is put right before it is lent."""
    async with repository.experiment("one") as experiment:
        await experiment.run("true")
    (place,) = places(repo_path)
    times = (place / "tree" / "train.py").stat()
    (place / "tree" / "train.py").write_text("lr = 0.9\n")  # of the same size
    os.utime(place / "tree" / "train.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    (place / "tree" / "new").write_text("x")
    async with repository.experiment("two") as experiment:
        done = await experiment.run("cat train.py; ls")

    assert done.stdout.decode().split() == ["lr", "=", "0.1", "README.md", "data", "params.yaml", "train.py"]


async def test_the_pool_is_bounded(repo_path: Path) -> None:
    """No more checkouts wait than the settings allow; none, if they say so."""
    for most in (2, 0):
        settings = aexp.Settings(idle_workspaces=most)
        async with aexp.Repository(repo_path, settings=settings) as repository:
            experiments = [await repository.experiment(f"{most}-{n}").init() for n in range(4)]
            await asyncio.gather(*(each.run("sleep 0.3") for each in experiments))
            for each in experiments:
                await each.save()

        assert len(places(repo_path)) <= 2
    none = aexp.Settings(idle_workspaces=0)
    async with aexp.Repository(repo_path, settings=none) as repository, repository.experiment("last") as experiment:
        await experiment.run("true")
    assert len(places(repo_path)) <= 1


async def test_many_at_once_see_only_their_own(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Twelve experiments in checkouts at once hold each its own parameters and files."""

    async def one(number: int) -> aexp.Record:
        async with repository.experiment(f"e{number}", overrides=[f"train.lr={number}"]) as experiment:
            await experiment.run(f"echo {number} > out; sleep 0.1; grep lr: params.yaml >> out")
        assert experiment.record is not None
        return experiment.record

    records = await asyncio.gather(*map(one, range(12)))

    for number, record in enumerate(records):
        text = (await repository.read(record.name, "out")).decode().split()
        assert (text[0], text[2]) == (str(number), str(number))
        assert changed(record, repo_path, git) == {"out": "A", "params.yaml": "M"}


# ---- bad guests ----


async def test_a_program_that_removes_its_checkout(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """The experiment fails and says why; no file counts as deleted, and the next one has a whole checkout."""
    before = picture(repo_path, git)
    with pytest.raises(aexp.CheckoutLost):
        async with repository.experiment("one") as experiment:
            await experiment.run('rm -rf "$PWD"')
    record = await repository.get("one")
    async with repository.experiment("two") as experiment:
        done = await experiment.run("ls")

    assert (record.status, record.error and record.error.type) == (aexp.Status.FAILED, "CheckoutLost")
    assert changed(record, repo_path, git) == {}
    assert done.stdout.split() == [b"README.md", b"data", b"params.yaml", b"train.py"]
    assert picture(repo_path, git) == before


async def test_an_experiment_outlives_its_checkout(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """An experiment that is saved while a checkout of it is gone is saved with all the rest, and a warning says so."""
    experiment = await repository.experiment("one").init()
    await experiment.log_metric("loss", 0.5)
    async with experiment.workspace() as path:
        path.rename(path.with_name("elsewhere"))
        with pytest.warns(RuntimeWarning, match="nothing is taken from"):
            record = await experiment.save()

    assert record.metrics["loss"] == 0.5
    assert changed(record, repo_path, git) == {}
    assert not places(repo_path)


async def test_a_checkout_that_became_a_link(repository: aexp.Repository, repo_path: Path, tmp_path: Path) -> None:
    """A link in the place of the checkout is not followed: nothing behind it is taken, changed or removed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    with pytest.raises(aexp.CheckoutLost):
        async with repository.experiment("one") as experiment:
            await experiment.run(f'd="$PWD"; cd /; rm -rf "$d"; ln -s {outside} "$d"')
    with pytest.raises(aexp.CheckoutLost):
        async with repository.experiment("two") as experiment:
            await experiment.run('d="$PWD"; cd /; rm -rf "$d"; mkdir "$d"; touch "$d/new"')

    assert (outside / "precious").read_text() == "x"
    assert not places(repo_path)


async def test_links_out_of_it(repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git) -> None:
    """Links that lead out are not taken and not followed, in the place of a folder that Git has, too; they are told."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "notes.txt").write_text("precious")
    os.mkfifo(outside / "fifo")
    for name in ("one", "two"):
        async with repository.experiment(name) as experiment:
            await experiment.run(
                f"test ! -L data; rm -r data; ln -s {outside} data; ln -s ../../../../config up; ln -s / root; ln train.py hard"
            )

        assert changed(experiment.record, repo_path, git) == {"data/notes.txt": "D", "hard": "A"}
        assert left_out(experiment.record).keys() == {"data", "up", "root"}
    assert sorted(each.name for each in outside.iterdir()) == ["fifo", "notes.txt"]
    assert (outside / "notes.txt").read_text() == "precious"


async def test_what_is_no_file(repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git) -> None:
    """FIFOs and sockets keep nobody waiting, also where Git looks for rules; they are left out, and gone afterwards."""
    for name in ("one", "two"):
        async with repository.experiment(name) as experiment, experiment.workspace() as path:
            os.mkfifo(path / ".gitignore")
            os.mkfifo(path / "data" / ".gitattributes")
            (path / "train.py").unlink()
            os.mkfifo(path / "train.py")
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(tmp_path / "s"))  # a name of at most 108 bytes
                (tmp_path / "s").rename(path / "s")
            (path / "new").write_text("x")

        assert changed(experiment.record, repo_path, git) == {"new": "A", "train.py": "D"}
        assert set(left_out(experiment.record)) >= {".gitignore", "data/.gitattributes", "train.py", "s"}


POWERLESS = """
import ctypes, os, sys
if os.geteuid() == 0 and sys.platform == "linux":  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: to root every mode is as good
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: gone from the next program on
os.execv(sys.argv[1], sys.argv[1:])
"""
LOCKING = """
import asyncio, os, pathlib, sys, aexp
async def main(path, command):
    (path / "locked").touch(mode=0o000)
    try:
        (path / "locked").read_bytes()
        sys.exit("modes do not keep us out")
    except PermissionError:
        (path / "locked").unlink()
    async with aexp.Repository(path) as repository:
        for name in ("one", "two"):
            async with repository.experiment(name) as experiment:
                await experiment.run(command)
asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("top", ["500", "000"])
async def test_modes_that_lock_us_out(repository: aexp.Repository, repo_path: Path, git: Git, top: str) -> None:
    """Folders and files of mode 000 are read, taken and removed all the same, by a process that no privilege helps."""
    command = (
        "mkdir -p a/b sealed; echo x > a/b/c; echo y > sealed/new; ln a/b/c twice; mkfifo .gitignore sealed/.gitattributes"
        "; chmod 000 a/b/c a/b a data train.py sealed/new sealed .git; chmod " + top + " ."
    )
    done = await anyio.run_process(
        [sys.executable, "-c", POWERLESS, sys.executable, "-c", LOCKING, str(repo_path), command], check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")
    for name in ("one", "two"):
        record = await repository.get(name)
        assert changed(record, repo_path, git) == {"sealed/new": "A"}
        assert left_out(record).keys() == {"a/b/c", "twice", ".gitignore", "sealed/.gitattributes"}
    assert len(places(repo_path)) == 1


async def test_folders_deeper_than_a_path(repository: aexp.Repository, repo_path: Path) -> None:
    """A nest of folders whose path no call takes ends the experiment well, and is removed."""
    program = (
        "import os\nfor n in range(1500):\n    os.mkdir('deep-folder'); os.chdir('deep-folder')\nopen('x', 'w').close()"
    )
    for name in ("one", "two"):
        async with repository.experiment(name) as experiment:
            await experiment.run([sys.executable, "-c", program])
            async with experiment.workspace() as path:
                assert not (path / "deep-folder").exists()


async def test_a_daemon_keeps_its_checkout(repository: aexp.Repository, repo_path: Path, tmp_path: Path) -> None:
    """A program that stays behind, out of our reach, does not get to write into the checkout of another experiment."""
    daemon = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    async with repository.experiment("one") as experiment:
        await experiment.run(f'setsid {sys.executable} -c "{daemon}" > /dev/null 2>&1 & sleep 0.5')
    pid = int((tmp_path / "pid").read_text())
    try:
        assert not places(repo_path)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("way", ["environment", "folder", "file", "path"])
async def test_who_stays_behind_spoils_nothing(repository: aexp.Repository, repo_path: Path, way: str) -> None:
    """A program that leaves group, folder and environment behind, and goes on writing, writes into no other checkout."""
    writes = {
        "environment": 'cd /; while sleep 0.02; do echo spoiled >> "$0/train.py"; done',
        "folder": "while sleep 0.15; do echo spoiled >> train.py; done",
        "file": 'cd /; exec 3>> "$0/train.py"; while sleep 0.6; do echo spoiled >&3; done',
        "path": 'cd /; while sleep 0.02; do echo spoiled >> "$0/train.py"; done',
    }[way]
    clean = "" if way == "environment" else 'env -i PATH="$PATH" '
    ends = "trap 'exit 0' TERM; (sleep 4; kill $$) &"
    async with repository.experiment("one") as experiment:
        await experiment.run(
            [
                "sh",
                "-c",
                f'setsid {clean}sh -c "$1" "$PWD" > /dev/null 2>&1 & sleep 0.3',
                "sh",
                writes.replace("while", f"{ends} while", 1),
            ]
        )
    for number in range(4):
        async with repository.experiment(f"next-{number}") as experiment, experiment.workspace() as path:
            await asyncio.sleep(0.4)
            assert (path / "train.py").read_text() == "lr = 0.1\n"


async def test_names_that_are_no_text(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Names that are not UTF-8 are left out and told, and nothing else is lost by that; any other name is taken."""
    async with repository.experiment("one", outs=["d"]) as experiment:
        await experiment.run(
            r"""printf 1 > "$(printf 'bad\377')"; mkdir d; printf 1 > "$(printf 'd/\376')"; printf 2 > ' "q\\'; printf 3 > '*'"""
        )

    assert changed(experiment.record, repo_path, git) == {'" \\"q\\\\\\\\"': "A", "*": "A"}
    assert left_out(experiment.record) == dict.fromkeys((r"bad\xff", r"d/\xfe"), "a name that is not UTF-8")


async def test_git_is_spoiled_for_the_next(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """What a program does to the `.git` of its checkout (hooks, settings, flags in the index) ends with it."""
    async with repository.experiment("one") as experiment:
        await experiment.run(
            "git update-index --assume-unchanged train.py; git update-index --skip-worktree params.yaml;"
            " echo x >> train.py; echo x >> params.yaml; git config alias.st '!false'; mkdir -p .git/hooks;"
            " echo '*' > .git/info/exclude; echo hidden > hidden; chmod 000 .git"
        )
    async with repository.experiment("two") as other:
        done = await other.run("cat train.py; git config alias.st; ls .git/hooks; git status --short; ls", check=False)

    assert changed(experiment.record, repo_path, git) == {"train.py": "M", "params.yaml": "M", "hidden": "A"}
    assert done.stdout.split() == [b"lr", b"=", b"0.1", b"README.md", b"data", b"params.yaml", b"train.py"]


GITS = {
    "a link to ours": "rm -rf .git; ln -s {user}/.git .git",
    "a file that names ours": "rm -rf .git; echo gitdir: {user}/.git > .git",
    "a FIFO": "rm -rf .git; mkfifo .git",
    "a file of junk": "rm -rf .git; echo junk > .git",
    "a folder without objects": "rm -rf .git/objects",
    "a worktree more": "git worktree add -q ../elsewhere; git worktree add -q sub; touch sub/inner",
    "a repository in it": "git init -q sub; touch sub/inner; git init -q data",
    "a submodule": "git -c protocol.file.allow=always submodule --quiet add {user} sub; git rm -qf --cached .gitmodules; rm .gitmodules",
    "refs of junk": "for ref in heads/main exps/aa/b aexp/x; do mkdir -p .git/refs/${{ref%/*}}; echo junk > .git/refs/$ref; done;"
    " echo junk > .git/HEAD; rm .git/index",
    "objects of nobody": "echo /nowhere > .git/objects/info/alternates; echo /nowhere > ../git/objects/info/junk",
    "hooks": "mkdir -p .git/hooks; for hook in post-checkout post-index-change reference-transaction; do"
    " printf '#!/bin/sh\ntouch {user}/hooked; sleep 100' > .git/hooks/$hook; done; chmod +x .git/hooks/*;"
    " git config core.hooksPath .git/hooks; git config core.fsmonitor 'sleep 100'",
    "a filter that never ends": "echo '* filter=slow' > .git/info/attributes; git config filter.slow.clean 'sleep 100'",
    "locks": "touch .git/index.lock .git/HEAD.lock .git/config.lock ../git/index.lock",
}


@pytest.mark.parametrize("what", GITS)
async def test_whatever_becomes_of_its_git(repository: aexp.Repository, repo_path: Path, git: Git, what: str) -> None:
    """What a program wrote beside a `.git` that it wrecked is taken; nothing of ours changes, and the next checkout is whole."""
    async with repository.experiment("before") as experiment:
        await experiment.run("true")
    before = picture(repo_path, git)
    async with asyncio.timeout(50), repository.experiment("one") as experiment:
        await experiment.run(f"{GITS[what].format(user=repo_path)}; echo new > new")
    async with asyncio.timeout(50), repository.experiment("two") as other:
        done = await other.run("git status --short; git fsck --no-dangling; git rev-parse HEAD; ls -A")

    assert changed(experiment.record, repo_path, git) == {"new": "A"}
    assert done.stdout.decode().split() == [other.baseline, ".git", "README.md", "data", "params.yaml", "train.py"]
    assert picture(repo_path, git) == before


@pytest.mark.parametrize("gone", ["$d/../git", "${d%/*}"])
async def test_a_checkout_whose_neighbourhood_is_gone(
    repository: aexp.Repository, repo_path: Path, git: Git, gone: str
) -> None:
    """A program that removes all of its checkout, or what Git needs beside it, fails the experiment, and no other."""
    with pytest.raises(aexp.CheckoutLost):
        async with repository.experiment("one") as experiment:
            await experiment.run(f'd="$PWD"; cd /; rm -rf "{gone}"')
    async with repository.experiment("two") as experiment:
        await experiment.run("echo new > new")

    assert changed(await repository.get("one"), repo_path, git) == {}
    assert changed(experiment.record, repo_path, git) == {"new": "A"}
    assert len(places(repo_path)) == 1


async def test_children_that_stay(repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git) -> None:
    """A hundred children, deaf ones, and daemons in sessions of their own neither keep the experiment nor get another's files."""
    pids = tmp_path / "pids"
    began = time.monotonic()
    async with repository.experiment("one") as experiment:
        await experiment.run(
            f"for i in $(seq 100); do sleep 60 & echo $! >> {pids}; done; (trap '' TERM HUP INT; exec sleep 60) & echo $! >> {pids};"
            f" setsid sh -c 'echo $$ >> {pids}; sleep 3; echo late > late; exec sleep 60' & echo new > new"
        )
    async with repository.experiment("two") as other:
        await other.run("sleep 3")
    seconds = time.monotonic() - began
    for pid in pids.read_text().split():
        with suppress(ProcessLookupError):  # who prints when nobody reads any more
            os.kill(int(pid), signal.SIGKILL)

    assert seconds < 45
    assert changed(experiment.record, repo_path, git) == {"new": "A"}
    assert changed(other.record, repo_path, git) == {}


# ---- cancelled, killed ----


@pytest.mark.parametrize("how", ["task", "twice", "timeout", "scope"])
async def test_cancelled_while_it_runs(repository: aexp.Repository, repo_path: Path, git: Git, how: str) -> None:
    """However a run is cancelled, its program is gone, what it wrote is in the cancelled experiment, and the checkout is free."""

    async def work() -> None:
        async with repository.experiment(how) as experiment:
            await experiment.run("echo partial > result; exec sleep 60")

    if how == "timeout":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await work()
    elif how == "scope":
        with anyio.move_on_after(1):
            await work()
    else:
        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        if how == "twice":
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    record = await repository.get(how)
    assert record.status == aexp.Status.CANCELLED
    assert changed(record, repo_path, git) == {"result": "A"}
    assert [(each / "idle").exists() for each in places(repo_path)] == [True]


async def test_cancelled_at_any_moment(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Whenever a workspace is cancelled, its checkout waits for the next, nothing hangs, and the experiment is whole."""
    before = picture(repo_path, git)
    for number in range(12):

        async def work(name: str = f"e{number}") -> None:
            async with repository.experiment(name) as experiment, experiment.workspace() as path:
                (path / "result").write_text("x")
                await asyncio.sleep(0.01)

        task = asyncio.create_task(work())
        await asyncio.sleep(number * 0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert all((each / "idle").exists() for each in places(repo_path))
    assert len(places(repo_path)) == 1
    assert picture(repo_path, git) == before


async def test_closing_the_repository_ends_what_is_open(repo_path: Path, git: Git) -> None:
    """A workspace whose repository is closed before it still gives its checkout back."""
    repository = await aexp.Repository(repo_path).open()
    experiment = await repository.experiment("one").init()
    async with experiment.workspace() as path:
        (path / "x").write_text("x")
        record = await experiment.save()
        await repository.aclose()

    assert changed(record, repo_path, git) == {"x": "A"}
    assert [(each / "idle").exists() for each in places(repo_path)] == [True]


def killed(path: Path, program: str, word: str, after: float) -> None:
    """Let a process work in a repository, and kill it some seconds after it has said a word."""
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        while word not in process.stdout.readline():
            pass
        time.sleep(after)
        process.kill()


KILLED = """
import asyncio, sys, aexp
async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        while True:
            async with repository.experiment() as experiment:
                print("begun", flush=True)
                async with experiment.workspace() as path:
                    print("lent", flush=True)
                    for number in range(50):
                        (path / f"new-{number}").write_text("x" * 1000)
                    await experiment.run("sleep 0.05")
                print("returned", flush=True)
asyncio.run(main())
"""


@pytest.mark.faults
@pytest.mark.timeout(180)
async def test_killed_at_any_moment(repo_path: Path, git: Git, fsck: Callable[[Path], None]) -> None:
    """SIGKILL while a checkout is made, used, taken from or returned leaves nothing that the next `open()` does not clear."""
    for number in range(60):
        (repo_path / f"file-{number}.txt").write_text(f"{number}\n" * 100)
    git("add", "--all", cwd=repo_path)
    git("commit", "--quiet", "--message=more", cwd=repo_path)
    before = picture(repo_path, git)
    for number in range(12):
        word, after = ("begun", "lent", "returned")[number % 3], number * 0.013
        killed(repo_path, KILLED, word, after)
        await asyncio.sleep(0.2)  # the program that was started ends by itself
        async with aexp.Repository(repo_path) as repository:
            assert all((each / "idle").exists() for each in places(repo_path))
            await repository.recover()
            async with repository.experiment(f"after-{number}") as experiment:
                done = await experiment.run("git status --short; ls | wc -l")
            assert done.stdout.split() == [b"64"]
            assert changed(experiment.record, repo_path, git) == {}

    assert picture(repo_path, git) == before
    fsck(repo_path)


async def test_maintain_removes_what_waits_too_long(repository: aexp.Repository, repo_path: Path) -> None:
    """A checkout that nobody asked for during a day is removed, and one that was left spoiled at once."""
    async with repository.experiment("one") as experiment:
        await experiment.run("true")
    (place,) = places(repo_path)
    assert not (await repository.maintain()).swept
    yesterday = time.time() - 100_000
    os.utime(place / "idle", (yesterday, yesterday))
    spoiled = place.with_name("spoiled")
    spoiled.mkdir()
    (spoiled / "owner.lock").touch()

    swept = (await repository.maintain()).swept

    assert sorted(swept) == sorted(f"aexp/workspaces/{each.name}" for each in (place, spoiled))
    assert not places(repo_path)


async def test_the_checkout_of_a_program_that_goes_on_is_left(repo_path: Path) -> None:
    """When our process was killed, the folder of a program that still runs is not taken from under it."""
    killed(repo_path, KILLED.replace("sleep 0.05", "sleep 3"), "lent", 0.5)
    async with aexp.Repository(repo_path) as repository:
        assert len(places(repo_path)) == 1
        await asyncio.sleep(3.5)
        await repository.maintain()
        assert not places(repo_path)


async def test_a_checkout_is_a_folder_of_the_user(repository: aexp.Repository) -> None:
    """Nobody else may write into it, and what is read-only in Git's folder stays so."""
    async with repository.experiment("one") as experiment, experiment.workspace() as path:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o002
