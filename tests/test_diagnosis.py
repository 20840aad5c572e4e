"""The look at a repository: what is well, what is not and what to do about it; and what DVC sees after changes."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import aexp
from aexp._findings import MANY_PACKS, Disk, Lock, Seen, Shape, judge
from aexp._layout import experiment_ref

Git = Callable[..., str]
Fsck = Callable[[Path], None]
CRASH = """
import asyncio, os, sys
import aexp

async def main(path):
    repository = await aexp.Repository(path).open()
    for name in sys.argv[2:]:
        experiment = await repository.experiment(name).init()
        await experiment.log_metric("m", 1.0)
        await experiment.flush()
        if name.startswith("saved"):
            await experiment.save()
    await asyncio.sleep(0.3)  # the journal says that they are saved
    print("ready", flush=True)
    os._exit(0)

asyncio.run(main(sys.argv[1]))
"""


def crash(path: Path, *names: str) -> None:
    """Let a process begin experiments, save those that are called so, and die without closing."""
    subprocess.run([sys.executable, "-c", CRASH, path, *names], check=True, stdout=subprocess.DEVNULL)


async def saved(repository: aexp.Repository, name: str) -> aexp.Record:
    """Save an experiment in which one point was logged."""
    async with repository.experiment(name) as experiment:
        await experiment.log_metric("m", 1.0)
    assert experiment.record is not None
    return experiment.record


def sessions(path: Path, place: str = "sessions") -> list[str]:
    """The sessions in a place."""
    return sorted(os.listdir(path / ".git" / "aexp" / place))


def by_subject(findings: list[aexp.Finding]) -> dict[str, aexp.Finding]:
    """The last finding about each subject."""
    return {finding.subject: finding for finding in findings}


async def test_a_sound_repository_is_well(repository: aexp.Repository, repo_path: Path) -> None:
    """In a sound repository all is ok, but that DVC is not told of it yet; its folder settles that."""
    await saved(repository, "it")
    findings = await repository.diagnose()

    assert {finding.subject for finding in findings if finding.level != "ok"} == {"DVC"}
    assert by_subject(findings)["DVC"].remedy == "dvc init"
    assert [finding.text for finding in findings if finding.subject == "experiments"] == ["1 saved, none damaged"]
    (repo_path / ".dvc").mkdir()
    assert {finding.level for finding in await repository.diagnose()} == {"ok"}


async def test_what_is_wrong_is_found(repository: aexp.Repository, repo_path: Path, git: Git) -> None:
    """Locks, interrupted experiments, damaged records, damaged journals and leftovers are found, each with a remedy."""
    record = await saved(repository, "it")
    (repo_path / ".git" / experiment_ref(record.baseline, "empty")).write_text("")
    (repo_path / ".git" / "index.lock").write_text("")
    os.utime(repo_path / ".git" / "index.lock", (0, time.time() - 7200))
    crash(repo_path, "open")
    crash(repo_path, "saved-it")
    crash(repo_path, "broken")
    segment = min((repo_path / ".git" / "aexp" / "sessions" / sessions(repo_path)[-1]).glob("*.log"))
    segment.write_bytes(segment.read_bytes().replace(b"BEGIN", b"BEGUN").replace(b"begin", b"begun"))
    before = {path: path.lstat().st_mtime_ns for path in all_below(repo_path)}

    found = by_subject(await repository.diagnose())

    assert {subject for subject, finding in found.items() if finding.level in ("warning", "error")} == {
        "damaged",
        "interrupted",
        "journal",
        "lock",
    }
    assert "index.lock, 2 hours old" in found["lock"].text
    assert "resume('open')" in (found["interrupted"].remedy or "")
    assert "salvage=True" in (found["journal"].remedy or "")
    assert "maintain()" in (found["leftovers"].remedy or "")
    assert f"remove('refs/exps/{record.baseline[:2]}" in (found["damaged"].remedy or "")
    assert {path: path.lstat().st_mtime_ns for path in all_below(repo_path)} == before
    assert all(finding.remedy for finding in found.values() if finding.level in ("warning", "error"))


async def test_kinds_of_repositories_are_told(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path, git: Git
) -> None:
    """Bare, shallow, linked, sparse and partial repositories are said to be so."""
    await saved(repository, "it")
    git("commit", "--quiet", "--allow-empty", "--message=next", cwd=repo_path)
    git("config", "uploadpack.allowFilter", "true", cwd=repo_path)
    url = f"file://{repo_path}"
    git("clone", "--quiet", "--bare", "--depth=1", url, tmp_path / "bare", cwd=tmp_path)
    git("clone", "--quiet", "--filter=blob:none", "--sparse", url, tmp_path / "partial", cwd=tmp_path)
    git("worktree", "add", "--quiet", tmp_path / "linked", cwd=repo_path)
    for name, kinds in (("bare", "(bare, shallow)"), ("partial", "(sparse, partial)"), ("linked", "(linked)")):
        async with aexp.Repository(tmp_path / name) as other:
            assert by_subject(await other.diagnose())["repository"].text == f"{tmp_path / name} {kinds}"
            assert not (await other.maintain()).failures


LOOKER = """
import asyncio, sys
import aexp

async def main():
    async with aexp.Repository(sys.argv[1]) as repository:
        for finding in await repository.diagnose():
            if finding.level != "ok":
                print(finding.subject, finding.level)
        for call in (repository.maintain(), repository.remove("it"), repository.rename("it", "x"), repository.branch("it")):
            try:
                await call
            except aexp.ReadOnlyRepository:
                print("read-only")

asyncio.run(main())
"""


MOUNTED = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def all_below(path: Path) -> list[Path]:
    """Every file and folder of the Git directory."""
    return [path / ".git", *(path / ".git").rglob("*")]


def read_only(path: Path, way: str) -> list[str]:
    """Make the repository read-only in one way; return what a command needs before it to see it so."""
    if way == "mount":
        prefix = ["unshare", "--mount", "--map-root-user"] if os.geteuid() else ["unshare", "--mount"]
        prefix += ["sh", "-c", MOUNTED, "sh", str(path)]
    else:
        for each in all_below(path):
            each.chmod(each.stat().st_mode & ~0o222)
        prefix = [] if os.geteuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    try:
        subprocess.run([*prefix, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no way to see a read-only repository ({way}) here: {error}")
    return prefix


@pytest.mark.parametrize("way", ["mount", "modes"])
async def test_a_read_only_repository_can_be_looked_at(repo_path: Path, fsck: Fsck, way: str) -> None:
    """Where nothing can be written a look finds that, and what changes something raises `ReadOnlyRepository`."""
    async with aexp.Repository(repo_path) as repository:
        await saved(repository, "it")
    prefix = read_only(repo_path, way)
    child = await asyncio.create_subprocess_exec(
        *prefix, sys.executable, "-c", LOOKER, repo_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = (await child.communicate())[0].decode().splitlines()
    for path in all_below(repo_path):
        path.chmod(path.stat().st_mode | 0o200)

    assert set(said) == {"permission error", "DVC note", "read-only"}
    assert said.count("read-only") == 4
    fsck(repo_path)


def seen(**what: object) -> Seen:
    """What is seen in a sound repository, with something else."""
    sound = {"git": "2.39", "shape": Shape(path="/r"), "disk": Disk(free=2**40, kind="ext4"), "dvc": True}
    return Seen(**{**sound, **what})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "subject", "level"),
    [
        ({"disk": Disk(free=2**29, kind="ext4")}, "disk", "warning"),
        ({"disk": Disk(free=2**20, kind="ext4")}, "disk", "error"),
        ({"disk": Disk(free=2**40, kind="nfs4")}, "file system", "warning"),
        ({"disk": Disk(free=2**40, kind="vfat")}, "file system", "error"),
        ({"disk": Disk(free=2**40, kind="", closed=("/r/refs",))}, "permission", "error"),
        ({"shape": Shape(path="/r", refusal="fatal: detected dubious ownership")}, "safe.directory", "error"),
        ({"shape": Shape(path="/r", bare=True)}, "work tree", "note"),
        ({"locks": (Lock(path="index.lock", age=5.0),)}, "lock", "note"),
        ({"locks": (Lock(path="index.lock", age=90.0),)}, "lock", "warning"),
        ({"locks": (Lock(path="x.lock", age=9.0, holder="process 1", dead=True),)}, "lock", "warning"),
        ({"locks": (Lock(path="x.lock", age=900.0, holder="process 1"),)}, "lock", "note"),
        ({"packs": MANY_PACKS + 1}, "packs", "note"),
        ({"loose_refs": 1001}, "refs", "note"),
        ({"old_trash": 1, "trash": 1}, "trash", "note"),
        ({"old_journals": 1, "journals": 1}, "journals", "note"),
        ({"orphans": 1}, "leftovers", "note"),
    ],
)
def test_what_is_seen_is_judged(what: dict[str, object], subject: str, level: str) -> None:
    """Each thing that can be wrong has its level; without it all is ok."""
    assert {finding.level for finding in judge(seen())} == {"ok"}
    assert [(finding.subject, finding.level) for finding in judge(seen(**what)) if finding.level != "ok"] == [
        (subject, level)
    ]


@pytest.mark.compat
@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("dvc", path=os.path.dirname(sys.executable)) is None, reason="dvc is not installed")
async def test_dvc_sees_every_change(repository: aexp.Repository, repo_path: Path) -> None:
    """After a rename, a removal, a restoring and upkeep, `dvc exp show` lists what stands, under its new name."""

    def dvc(*arguments: str) -> str:
        command = [os.path.join(os.path.dirname(sys.executable), "dvc"), *arguments]
        return subprocess.run(command, cwd=repo_path, capture_output=True, text=True, check=True).stdout

    def listed() -> set[str]:
        shown = dvc("exp", "show", "--json")
        names = set(dvc("exp", "list", "--all-commits", "--name-only").split())
        assert {name for name in ("one", "two", "three", "uno") if f'"name": "{name}"' in shown} == names
        return names

    dvc("init", "--quiet")
    for name in ("one", "two", "three"):
        await saved(repository, name)
    assert listed() == {"one", "two", "three"}
    await repository.rename("one", "uno")
    await repository.remove("two", "three")
    assert await repository.branch("uno") == "uno-branch"
    assert listed() == {"uno"}
    await repository.restore("two")
    assert not (await repository.maintain()).failures
    assert listed() == {"uno", "two"}
    dvc("exp", "rename", "uno", "eins")
    assert (await repository.get("eins")).name == "eins"
