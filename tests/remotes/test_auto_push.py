"""`Settings.auto_push`: what is saved is pushed by itself, now or later, and never in anybody's way."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import aexp

Git = Callable[..., str]
Saved = Callable[..., Awaitable[list[aexp.Record]]]
Refs = Callable[..., dict[str, str]]
Leftovers = Callable[[Path], list[str]]
Proxy = Any  # that of conftest.py; its line is cut until its limit is set

pytestmark = pytest.mark.remotes

ALONG = aexp.Settings(auto_push="origin")


async def pushed(path: Path, refs_of: Refs, count: int, seconds: float = 20.0) -> dict[str, str]:
    """The refs of the experiments in the repository at *path*, once there are *count* of them."""
    found = refs_of(path)
    for _ in range(int(seconds / 0.05)):
        if len(found) >= count:
            break
        await asyncio.sleep(0.05)
        found = refs_of(path)
    return found


async def stands(
    repository: aexp.Repository, name: str, state: str, reason: str = "", seconds: float = 20.0
) -> aexp.Push:
    """How the push of *name* stands, once that is *state* for a *reason*."""
    end = time.monotonic() + seconds
    while True:
        push = (await repository.get(name)).push
        if push is not None and push.state == state and reason in push.reason:
            return push
        if time.monotonic() > end:
            pytest.fail(f"{name} is not {state} in time: {push}")
        await asyncio.sleep(0.05)


async def test_many_saves_are_one_push(repo_path: Path, remote: Path, saved: Saved, refs_of: Refs) -> None:
    """Experiments that are saved together go together, and their records say that they have arrived."""
    (remote / "hooks").mkdir(exist_ok=True)
    hook = remote / "hooks" / "post-receive"
    hook.write_text(f"#!/bin/sh\ncat > /dev/null\necho push >> '{remote}/count'\n")
    hook.chmod(0o755)
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        records = await saved(repository, *(f"run-{number}" for number in range(20)))
        assert {record.ref: record.rev for record in records} == await pushed(remote, refs_of, 20)
        assert (await stands(repository, "run-7", "pushed")).remote == "origin"
        listed = await repository.experiments()
        found = await repository.diagnose()

    assert {each.push.state for each in listed if each.push} == {"pushed"}
    assert (remote / "count").read_text().count("push") <= 3  # a push had begun, perhaps, when the others were saved
    assert [(each.level, each.text) for each in found if each.subject == "auto push"] == [
        ("ok", "20 pushed to origin by themselves, none waiting")
    ]


async def test_without_it_nothing_is_pushed_or_noted(
    repo_path: Path, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """Neither the experiments of a session without it, nor those that another session left."""
    lost = aexp.Settings(auto_push="nowhere", push_timeout=0.0)
    async with aexp.Repository(repo_path, settings=lost) as repository:
        await saved(repository, "left")
    async with aexp.Repository(repo_path) as repository:
        await saved(repository, "private")
        assert (await repository.get("private")).push is None
        assert (await repository.get("left")).push is not None
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        (record,) = await saved(repository, "public")

    assert refs_of(remote) == {record.ref: record.rev}


async def test_closing_pushes_what_was_just_saved(repo_path: Path, remote: Path, saved: Saved, refs_of: Refs) -> None:
    """A short script need not wait for anything: leaving the block does, for a moment."""
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        (record,) = await saved(repository, "short")

    assert refs_of(remote) == {record.ref: record.rev}


async def test_a_dead_remote_delays_nobody_and_is_tried_again(
    repo_path: Path, remote: Path, proxy: Proxy, saved: Saved, refs_of: Refs
) -> None:
    """Saving works as ever, the record and the doctor say what is wrong, and when the line is mended all arrive."""
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        first = await saved(repository, "one", "two")
        push = await stands(repository, "one", "waiting", "unreachable")
        second = await saved(repository, "three")
        found = {each.subject: each for each in await repository.diagnose()}
        assert found["auto push"].level == "warning"
        assert push.reason in found["auto push"].text
        assert refs_of(remote) == {}
        proxy.set(10**9, stall=False)
        assert await pushed(remote, refs_of, 3) == {each.ref: each.rev for each in (*first, *second)}
        assert (await stands(repository, "three", "pushed")).reason == ""


async def test_closing_waits_for_a_silent_remote_only_so_long(
    repo_path: Path, remote: Path, proxy: Proxy, saved: Saved, refs_of: Refs, leftovers: Leftovers
) -> None:
    """After `push_timeout` the `git` under way is ended, and the next session pushes what is left."""
    proxy.set(300, stall=True)
    patient = aexp.Settings(auto_push="origin", push_timeout=1.0)
    async with aexp.Repository(repo_path, settings=patient) as repository:
        records = await saved(repository, "one", "two")
        begun = time.monotonic()
    assert 0.9 < time.monotonic() - begun < 10
    assert refs_of(remote) == {}
    assert leftovers(repo_path) == []
    async with aexp.Repository(repo_path) as repository:
        assert (await stands(repository, "one", "waiting")).reason == ""
    proxy.set(10**9, stall=False)
    async with aexp.Repository(repo_path, settings=ALONG):
        assert await pushed(remote, refs_of, 2) == {each.ref: each.rev for each in records}


@pytest.mark.parametrize("cut", [100, 600, 2_000, 4_000])
async def test_a_line_that_is_cut_loses_nothing(
    cut: int, repo_path: Path, remote: Path, proxy: Proxy, saved: Saved, refs_of: Refs, git: Git
) -> None:
    """Wherever it was cut, what is on the remote is whole, and the rest follows."""
    proxy.set(cut, stall=False)
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        records = await saved(repository, "one", "two", "three")
        await asyncio.sleep(1.0)
        git("fsck", "--full", "--strict", cwd=remote)
        proxy.set(10**9, stall=False)
        assert await pushed(remote, refs_of, 3) == {each.ref: each.rev for each in records}
        for name in ("one", "two", "three"):
            await stands(repository, name, "pushed")


async def test_closing_can_be_cancelled(repo_path: Path, remote: Path, proxy: Proxy, saved: Saved) -> None:
    """It ends at once then, everything else is closed, and what waited still waits."""
    proxy.set(300, stall=True)
    repository = await aexp.Repository(repo_path, settings=ALONG).open()
    await saved(repository, "one")
    closing = asyncio.create_task(repository.aclose())
    await asyncio.sleep(0.5)
    begun = time.monotonic()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert time.monotonic() - begun < 5
    async with aexp.Repository(repo_path) as again:
        assert (await stands(again, "one", "waiting")).remote == "origin"
    with pytest.raises(aexp.RepositoryClosed):
        await repository.get("one")


KILLED = """
import asyncio, os, signal, sys
import aexp

async def main():
    async with aexp.Repository(sys.argv[1], settings=aexp.Settings(auto_push="origin")) as repository:
        async with repository.experiment(sys.argv[2], force=True) as experiment:
            await experiment.log_metric("loss", 0.5, step=0)
        if sys.argv[3] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(float(sys.argv[3]))

asyncio.run(main())
"""


def ended(*commands: list[str]) -> list[int]:
    """The exit codes of programs that ran beside each other."""
    return [process.wait() for process in [subprocess.Popen(command) for command in commands]]


async def test_what_a_killed_process_has_saved_is_pushed_by_the_next(
    repo_path: Path, remote: Path, refs_of: Refs
) -> None:
    """That `save()` has returned is enough: the next session with `auto_push` goes on, without being asked."""
    assert ended([sys.executable, "-c", KILLED, str(repo_path), "one", "killed"]) == [-signal.SIGKILL]
    assert refs_of(remote) == {}
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        assert await pushed(remote, refs_of, 1) == refs_of(repo_path)
        await stands(repository, "one", "pushed")


async def test_two_processes_push_beside_each_other(repo_path: Path, remote: Path, refs_of: Refs) -> None:
    """Each experiment of four processes that save at once arrives, and the list says so of each."""
    command = [sys.executable, "-c", KILLED, str(repo_path)]
    assert ended(*([*command, f"run-{number}", "0.7"] for number in range(4))) == [0] * 4
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        assert await pushed(remote, refs_of, 4) == refs_of(repo_path)
        for number in range(4):
            await stands(repository, f"run-{number}", "pushed")


async def test_another_experiment_of_the_name_stays(
    repo_path: Path, other: aexp.Repository, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """It is told as refused, the others go, and it is tried again only by the next session, when it may have been mended."""
    (theirs,) = await saved(other, "same", loss=0.1)
    await other.push("same")
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        ours, fine = await saved(repository, "same", "fine")
        push = await stands(repository, "same", "refused", "another experiment")
        await stands(repository, "fine", "pushed")
        assert refs_of(remote) == {theirs.ref: theirs.rev, fine.ref: fine.rev}
        (finding,) = [each for each in await repository.diagnose() if push.reason in each.text]
        assert ours.ref in finding.text
        await repository.rename("same", "ours")
        await repository.push("ours")
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        await stands(repository, "ours", "pushed")


async def test_no_secret_of_a_url_is_kept(repo_path: Path, git: Git, saved: Saved) -> None:
    """Neither a remote that is given as a URL, nor what Git says about one, brings a password into list, record or finding."""
    url = "https://ada:lovelace-1815@127.0.0.1:1/x?token=babbage"
    git("remote", "add", "origin", url, cwd=repo_path)
    for remote in (url, "origin"):
        async with aexp.Repository(repo_path, settings=aexp.Settings(auto_push=remote)) as repository:
            name = "by-name" if remote == "origin" else "by-url"
            await saved(repository, name)
            push = await stands(repository, name, "waiting", "unreachable")
            told = f"{push} {await repository.diagnose()} {(repo_path / '.git/aexp/pushes').read_text()}"
        assert "lovelace" not in told
        assert "babbage" not in told


@pytest.mark.parametrize("remote_name", ["nowhere", "--upload-pack=touch /tmp/x", "ext::sh -c true", ""])
async def test_a_remote_that_is_none_is_told_not_raised(remote_name: str, repo_path: Path, saved: Saved) -> None:
    """The experiment is saved, and waits with the reason."""
    async with aexp.Repository(repo_path, settings=aexp.Settings(auto_push=remote_name)) as repository:
        await saved(repository, "one")
        push = await stands(repository, "one", "waiting", ":")
    assert push.reason.startswith(("unknown", "unsafe"))


async def test_data_goes_along_and_missing_data_stops_only_its_own(
    repo_path: Path, remote: Path, tmp_path: Path, saved: Saved, refs_of: Refs
) -> None:
    """Artifacts are on the remote for data before the experiment is seen; one whose data is lost is refused alone."""
    (repo_path / ".dvc").mkdir()
    (repo_path / ".dvc" / "config").write_text(
        f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path}/store\n"
    )
    patient = aexp.Settings(auto_push="origin", push_timeout=0.0)
    async with aexp.Repository(repo_path, settings=patient) as repository:
        for name in ("lost", "kept"):
            (repo_path / "model.bin").write_text(name)
            async with repository.experiment(name) as experiment:
                artifact = await experiment.log_artifact("model.bin")
                if name == "lost":
                    place = repo_path / ".dvc" / "cache" / "files" / "md5" / artifact.hash[:2] / artifact.hash[2:]
        os.unlink(place)
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        await stands(repository, "kept", "pushed")
        assert "model.bin" in (await stands(repository, "lost", "refused")).reason
        kept = await repository.get("kept")
    assert refs_of(remote) == {kept.ref: kept.rev}
    assert (tmp_path / "store" / "files" / "md5" / artifact.hash[:2] / artifact.hash[2:]).read_text() == "kept"


async def test_the_short_form_does_not_wait_for_a_push(
    repo_path: Path, remote: Path, proxy: Proxy, refs_of: Refs
) -> None:
    """`save()` of `await aexp.init()` closes the repository and returns, also while the remote is silent."""
    proxy.set(300, stall=True)
    experiment = await aexp.init("one", path=repo_path, settings=ALONG)
    begun = time.monotonic()
    await experiment.save()
    assert time.monotonic() - begun < 5
    proxy.set(10**9, stall=False)
    proxy.limit = 0  # the line that stalls is cut
    await asyncio.sleep(0.2)
    proxy.set(10**9, stall=False)
    second = await aexp.init("two", path=repo_path, settings=ALONG)
    await second.save()
    assert len(await pushed(remote, refs_of, 2)) == 2


async def test_recovered_experiments_are_pushed(repo_path: Path, remote: Path, refs_of: Refs) -> None:
    """What `recover()` saves is saved like anything else."""
    script = KILLED.replace(
        '            await experiment.log_metric("loss", 0.5, step=0)\n',
        "            await experiment.flush()\n            os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    assert ended([sys.executable, "-c", script, str(repo_path), "one", "0"]) == [-signal.SIGKILL]
    async with aexp.Repository(repo_path, settings=ALONG) as repository:
        (record,) = await repository.recover()
        assert await pushed(remote, refs_of, 1) == {record.ref: record.rev}
