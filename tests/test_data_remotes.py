"""Data on its way to a remote and back: all of it or an error, nothing half, and never seen before it is there."""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import aexp

Git = Callable[..., str]
SECRETS = "    access_key_id = key\n    secret_access_key = secret\n"


def md5(content: bytes) -> str:
    """The MD5 of a content, in hex."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def objects(store: Path) -> dict[str, bytes]:
    """What a store holds; each is what its name says."""
    found = {path.parent.name + path.name: path.read_bytes() for path in store.glob("files/md5/*/*")}
    assert all(md5(content) == name.removesuffix(".dir") for name, content in found.items())
    assert not [path for path in store.rglob("*") if path.is_file() and "files" not in path.parts]
    return found


def refs(path: Path, git: Git) -> list[str]:
    """The experiments of a repository."""
    return git("for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps", cwd=path).split()


def outside_of_git(path: Path) -> set[Path]:
    """Everything below a folder but what Git keeps."""
    return {each for each in path.rglob("*") if ".git" not in each.parts}


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """An S3 server: its address."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(300):
                try:
                    with urllib.request.urlopen(f"{address}/moto-api/"):
                        break
                except OSError:
                    assert process.poll() is None
                    __import__("time").sleep(0.1)
            with urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT")):
                pass
            yield address
        finally:
            process.terminate()


def configure(path: Path, url: str, endpoint: str = "") -> None:
    """Let DVC's configuration name a remote for data; secrets go where Git does not look."""
    (path / ".dvc").mkdir(exist_ok=True)
    (path / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    more = f"    endpointurl = {endpoint}\n    region = us-east-1\n" if endpoint else ""
    (path / ".dvc" / "config").write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n{more}")
    if endpoint:
        (path / ".dvc" / "config.local").write_text(f"['remote \"store\"']\n{SECRETS}")


class Two:
    """A repository with data, another one without, a Git remote between them, and a remote for data."""

    def __init__(self, one: Path, two: Path, hub: Path, store: Path) -> None:
        self.one, self.two, self.hub, self.store = one, two, hub, store


@pytest.fixture
def two(repo_path: Path, tmp_path: Path, git: Git) -> Two:
    """Both know the Git remote as origin, and the data remote is a folder."""
    hub, store, other = tmp_path / "hub.git", tmp_path / "store", tmp_path / "two"
    configure(repo_path, "../../store")
    (repo_path / ".dvcignore").touch()
    git("add", ".dvc", ".dvcignore", cwd=repo_path)
    git("commit", "--quiet", "--message=dvc", cwd=repo_path)
    git("clone", "--quiet", "--bare", repo_path, hub, cwd=tmp_path)
    git("remote", "add", "origin", hub, cwd=repo_path)
    git("clone", "--quiet", hub, other, cwd=tmp_path)
    (repo_path / "model.pt").write_bytes(b"weights" * 500_000)
    (repo_path / "set" / "deep").mkdir(parents=True)
    (repo_path / "set" / "a").write_bytes(b"1")
    (repo_path / "set" / "deep" / "b").write_bytes(b"22")
    return Two(repo_path, other, hub, store)


async def save(path: Path) -> aexp.Record:
    """Save an experiment with a model and a folder."""
    async with aexp.Repository(path) as repository, repository.experiment("it") as experiment:
        await experiment.log_artifact("model.pt")
        await experiment.log_artifact("set")
    assert experiment.record is not None
    return experiment.record


async def push(path: Path, *, data: bool = True, settings: aexp.Settings | None = None) -> list[str]:
    """Push the experiment; say what became of its data."""
    async with aexp.Repository(path, settings=settings) as repository:
        return [each.data for each in await repository.push("it", data=data)]


async def pull(path: Path, *, data: bool = True) -> list[str]:
    """Pull the experiment; say what became of its data."""
    async with aexp.Repository(path) as repository:
        return [each.data for each in await repository.pull("it", data=data)]


# ---- there and back ----


@pytest.mark.parametrize("kind", ["folder", "s3"])
async def test_there_and_back(kind: str, two: Two, request: pytest.FixtureRequest) -> None:
    """What was pushed is pulled elsewhere and applied; again, nothing travels."""
    if kind == "s3":
        address = request.getfixturevalue("server")
        for path in (two.one, two.two):
            configure(path, "s3://bucket/some/where", address)
    record = await save(two.one)
    told: list[aexp.TransferProgress] = []
    async with aexp.Repository(two.one) as repository:
        (sent,) = await repository.push("it", progress=told.append)
        assert (sent.data, sent.outcome) == ("transferred", "new")
        assert [each.done for each in told if each.phase == "sending data"][-1] == 4
        assert sum(each.bytes or 0 for each in told if each.phase == "sending data") > 3_500_000
        told.clear()
        (sent,) = await repository.push("it", progress=told.append)
        assert (sent.data, sent.outcome) == ("transferred", "up to date")
        assert not any(each.bytes for each in told if each.phase == "sending data")
    async with aexp.Repository(two.two) as repository:
        (came,) = await repository.pull("it", progress=told.append)
        assert (came.data, came.outcome) == ("transferred", "new")
        assert (await repository.get("it")).artifacts == record.artifacts
        assert (await repository.apply("it")).missing == ()
        (came,) = await repository.pull("it")
        assert (came.data, came.outcome) == ("transferred", "up to date")
    assert (two.two / "model.pt").read_bytes() == b"weights" * 500_000
    assert (two.two / "set" / "deep" / "b").read_bytes() == b"22"
    assert objects(two.two / ".dvc" / "cache") == objects(two.one / ".dvc" / "cache")
    if kind == "folder":
        assert objects(two.store) == objects(two.one / ".dvc" / "cache")


async def test_data_that_came_late(two: Two) -> None:
    """An experiment that was pushed and pulled without its data gets it by doing so again."""
    await save(two.one)
    assert await push(two.one, data=False) == ["not transferred"]
    assert await pull(two.two, data=False) == ["not transferred"]
    assert not two.store.exists()
    assert await push(two.one) == ["transferred"]
    assert await pull(two.two) == ["transferred"]
    assert objects(two.two / ".dvc" / "cache") == objects(two.one / ".dvc" / "cache")


async def test_what_was_cut_off_goes_on(two: Two) -> None:
    """What is there is not sent again; a file that is too short there is."""
    await save(two.one)
    await push(two.one)
    before = objects(two.store)
    folder = next(two.store.glob("files/md5/*/*.dir"))
    folder.unlink()
    model = two.store / "files" / "md5" / md5(b"weights" * 500_000)[:2] / md5(b"weights" * 500_000)[2:]
    model.chmod(0o644)
    model.write_bytes(b"weig")
    kept = {path: path.stat().st_mtime_ns for path in two.store.glob("files/md5/*/*") if path != model}
    assert await push(two.one) == ["transferred"]
    assert objects(two.store) == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


async def test_without_a_remote_for_data(two: Two, git: Git) -> None:
    """Experiments travel alone, and the transfer says so."""
    (two.one / ".dvc" / "config").write_text("")
    await save(two.one)
    assert await push(two.one) == ["not transferred"]
    assert refs(two.hub, git)


# ---- what must not be ----


async def test_data_that_is_damaged_here(two: Two, git: Git) -> None:
    """`DataMissing`, and no ref was pushed; without data it can be."""
    await save(two.one)
    id = md5(b"weights" * 500_000)
    place = two.one / ".dvc" / "cache" / "files" / "md5" / id[:2] / id[2:]
    place.chmod(0o644)
    place.write_bytes(b"garbage")
    with pytest.raises(aexp.DataMissing, match="damaged in the cache") as raised:
        await push(two.one)
    assert raised.value.paths == ("model.pt",)
    place.unlink()
    with pytest.raises(aexp.DataMissing, match="it is not in the cache"):
        await push(two.one)
    assert refs(two.hub, git) == []
    assert id not in objects(two.store)
    assert await push(two.one, data=False) == ["not transferred"]


@pytest.mark.parametrize("fault", ["flipped", "gone"])
async def test_data_that_is_damaged_there(fault: str, two: Two, git: Git) -> None:
    """`DataMissing`; no experiment is seen, and nothing of the wrong object is here. Without data it can be pulled."""
    await save(two.one)
    await push(two.one)
    id = md5(b"22")
    place = two.store / "files" / "md5" / id[:2] / id[2:]
    place.chmod(0o644)
    place.write_bytes(b"23") if fault == "flipped" else place.unlink()
    with pytest.raises(aexp.DataMissing, match=r"set/deep/b.*(something else|does not have it)"):
        await pull(two.two)
    assert refs(two.two, git) == []
    here = objects(two.two / ".dvc" / "cache")
    assert id not in here
    assert not [name for name in here if name.endswith(".dir")]
    assert await pull(two.two, data=False) == ["not transferred"]


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside", ".git/hooks/post-checkout", "a\n"])
async def test_a_hostile_manifest(path: str, two: Two, git: Git, tmp_path: Path) -> None:
    """One that leaves its folder raises `UnsafePath`; no ref, no object, no file anywhere."""
    content = json.dumps([{"md5": md5(b"evil"), "relpath": path}]).encode()
    for name, blob in {md5(b"evil"): b"evil", f"{md5(content)}.dir": content}.items():
        place = two.store / "files" / "md5" / name[:2] / name[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(blob)
    (two.one / "set.dvc").write_text(f"outs:\n- md5: {md5(content)}.dir\n  hash: md5\n  path: set\n")
    git("add", "set.dvc", cwd=two.one)
    async with aexp.Repository(two.one) as repository, repository.experiment("it"):
        pass
    await push(two.one, data=False)
    before = outside_of_git(tmp_path)
    with pytest.raises(aexp.UnsafePath):
        await pull(two.two)
    assert refs(two.two, git) == []
    assert objects(two.two / ".dvc" / "cache") == {}
    assert outside_of_git(tmp_path) - before == {two.two / ".dvc" / "cache"}


@pytest.mark.parametrize(
    ("url", "more", "kind"),
    [
        ("gs://bucket", "", "unsafe"),
        ("../../store", "    version_aware = true\n", "unsafe"),
        ("", "", "unknown"),
    ],
)
async def test_remotes_that_cannot_be_used(url: str, more: str, kind: str, two: Two, git: Git) -> None:
    """`RemoteError` says why, and nothing is pushed."""
    await save(two.one)
    configure(two.one, url)
    with (two.one / ".dvc" / "config").open("a") as file:
        file.write(more)
    with pytest.raises(aexp.RemoteError) as raised:
        await push(two.one)
    assert (raised.value.remote, raised.value.kind) == ("store", kind)
    assert refs(two.hub, git) == []


async def test_a_server_that_is_not_there(two: Two, git: Git) -> None:
    """`RemoteError` of the kind unreachable, soon, and nothing is pushed."""
    pytest.importorskip("s3fs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    await save(two.one)
    configure(two.one, "s3://bucket", f"http://127.0.0.1:{port}")
    with pytest.raises(aexp.RemoteError) as raised:
        await push(two.one, settings=aexp.Settings(connect_timeout=2.0))
    assert raised.value.kind == "unreachable"
    assert "secret" not in str(raised.value)
    assert refs(two.hub, git) == []


async def test_a_bucket_that_is_not_there(two: Two, git: Git, server: str) -> None:
    """`RemoteError`, and nothing is pushed."""
    await save(two.one)
    configure(two.one, "s3://nowhere/x", server)
    with pytest.raises(aexp.RemoteError) as raised:
        await push(two.one)
    assert raised.value.kind in ("unknown", "failed")
    assert refs(two.hub, git) == []


async def test_without_the_library(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """`MissingExtra` names the extra."""
    await save(two.one)
    configure(two.one, "s3://bucket", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(aexp.MissingExtra, match=r"aexp\[remote\]"):
        await push(two.one)


@pytest.mark.parametrize("way", ["push", "pull"])
async def test_cancelled_on_the_way(way: str, two: Two, git: Git) -> None:
    """No ref, no half object on either side; again, it goes on."""
    for number in range(300):
        (two.one / "set" / f"{number}").write_text(str(number))
    await save(two.one)
    if way == "pull":
        await push(two.one)
    async with aexp.Repository(two.one if way == "push" else two.two) as repository:
        call = repository.push if way == "push" else repository.pull
        phase = "sending data" if way == "push" else "fetching data"
        task: asyncio.Task[list[aexp.Transfer]]
        task = asyncio.create_task(call("it", progress=lambda news: task.cancel() if news.phase == phase else None))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert refs(two.hub if way == "push" else two.two, git) == []
        target = two.store if way == "push" else two.two / ".dvc" / "cache"
        assert not [name for name in objects(target) if name.endswith(".dir")]
        await call("it")
    assert objects(target) == objects(two.one / ".dvc" / "cache")


# ---- with DVC ----


def dvc(cwd: Path, *arguments: str) -> str:
    """Run DVC; return what it prints."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.compat
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["folder", "s3"])
async def test_dvc_on_the_other_side(kind: str, two: Two, git: Git, request: pytest.FixtureRequest) -> None:
    """`dvc pull` gets what aexp pushed, and aexp pulls what `dvc exp push` sent."""
    if kind == "s3":
        address = request.getfixturevalue("server")
        for path in (two.one, two.two):
            configure(path, f"s3://bucket/{os.path.basename(two.one.parent)}", address)
    else:  # DVC 3.67 resolves a relative url of another commit's configuration from the root of the disk
        for path in (two.one, two.two):
            configure(path, str(two.store))
        git("commit", "--quiet", "--all", "--message=store", cwd=two.one)
    await save(two.one)
    await push(two.one)
    dvc(two.two, "exp", "pull", "origin", "it")
    dvc(two.two, "exp", "apply", "it")
    assert (two.two / "model.pt").read_bytes() == b"weights" * 500_000
    assert json.loads(dvc(two.two, "status", "--json")) == {}

    (two.two / "model.pt").unlink()  # it may be a link into the cache
    (two.two / "model.pt").write_bytes(b"better")
    async with aexp.Repository(two.two) as repository, repository.experiment("back") as experiment:
        await experiment.log_artifact("model.pt")
    dvc(two.two, "exp", "push", "origin", "back")
    async with aexp.Repository(two.one) as repository:
        (came,) = await repository.pull("back")
        assert came.data == "transferred"
        shutil.rmtree(two.one / "set")
        assert (await repository.apply("back", force=True)).missing == ()
    assert (two.one / "model.pt").read_bytes() == b"better"


# ---- web servers, and remotes of single outs ----


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, for who knows the password."""

    def do_GET(self) -> None:
        """Send a file."""
        if self.is_known():
            super().do_GET()

    def do_HEAD(self) -> None:
        """Say how long a file is."""
        if self.is_known():
            super().do_HEAD()

    def is_known(self) -> bool:
        """Say whether who asks may; if not, say so to him."""
        wanted = "Basic " + base64.b64encode(b"ada:lovelace-1815").decode()
        if self.headers.get("Authorization") != wanted:
            self.send_error(401)
        return self.headers.get("Authorization") == wanted

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def site(two: Two) -> Iterator[str]:
    """The data remote as a web server shows it: its address."""
    pytest.importorskip("aiohttp")
    two.store.mkdir(exist_ok=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(two.store))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def known(path: Path, password: str) -> None:
    """Give DVC's configuration a password where Git does not look."""
    (path / ".dvc" / "config.local").write_text(
        f"['remote \"store\"']\n    auth = basic\n    user = ada\n    password = {password}\n"
    )


async def test_data_is_pulled_from_a_web_server(two: Two, site: str, git: Git) -> None:
    """What stands in a folder that a web server shows is pulled from it, and nothing is pushed to it."""
    record = await save(two.one)
    await push(two.one)
    configure(two.two, site)
    known(two.two, "wrong")
    with pytest.raises(aexp.RemoteError) as raised:
        await pull(two.two)
    assert raised.value.kind == "authentication"
    assert refs(two.two, git) == []
    known(two.two, "lovelace-1815")
    assert await pull(two.two) == ["transferred"]
    assert objects(two.two / ".dvc" / "cache") == objects(two.one / ".dvc" / "cache")
    model = record.artifacts[0].hash
    shutil.rmtree(two.two / ".dvc" / "cache")
    (two.store / "files" / "md5" / model[:2] / model[2:]).unlink()
    with pytest.raises(aexp.DataMissing, match=r"model\.pt"):
        await pull(two.two)
    configure(two.one, site)
    known(two.one, "lovelace-1815")
    git("update-ref", "-d", record.ref, cwd=two.hub)
    with pytest.raises(aexp.RemoteError) as raised:
        await push(two.one)
    assert raised.value.kind == "refused"
    assert "lovelace" not in str(raised.value)
    assert refs(two.hub, git) == []


async def test_an_out_may_have_a_remote_to_itself(two: Two, tmp_path: Path, git: Git) -> None:
    """Data whose `.dvc` file names a remote goes there and comes from there, the rest goes to the default one."""
    for path in (two.one, two.two):
        with (path / ".dvc" / "config").open("a") as file:
            file.write(f"['remote \"vault\"']\n    url = {tmp_path / 'vault'}\n")
    content, cache = b"private", two.one / ".dvc" / "cache" / "files" / "md5"
    place = cache / md5(content)[:2] / md5(content)[2:]
    record = await save(two.one)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    (two.one / "private.dvc").write_text(
        f"outs:\n- md5: {md5(content)}\n  size: 7\n  hash: md5\n  path: private\n  remote: vault\n"
    )
    git("add", "--force", "private.dvc", cwd=two.one)
    async with aexp.Repository(two.one) as repository, repository.experiment("it", force=True) as experiment:
        await experiment.log_artifact("model.pt")
    assert await push(two.one) == ["transferred"]
    assert set(objects(tmp_path / "vault")) == {md5(content)}
    assert set(objects(two.store)) == {record.artifacts[0].hash}
    assert await pull(two.two) == ["transferred"]
    assert set(objects(two.two / ".dvc" / "cache")) == {md5(content), record.artifacts[0].hash}
