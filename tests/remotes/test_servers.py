"""Push, pull and list over every kind of Git server, each a real one on this machine."""

import asyncio
import base64
import os
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import aexp

Git = Callable[..., str]
Saved = Callable[..., Awaitable[list[aexp.Record]]]
Refs = Callable[..., dict[str, str]]
Leftovers = Callable[[Path], list[str]]

pytestmark = pytest.mark.remotes

USER, PASSWORD = "ada", "lovelace-1815"
PROGRAMS = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def program(name: str) -> str:
    """The path of a program that comes with Git; skips the test where it is not installed."""
    path = Path(PROGRAMS, name)
    if not path.exists():
        pytest.skip(f"{name} is not installed here: NOTHING OVER THIS KIND OF SERVER IS TESTED")
    return str(path)


@contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A server in a process of its own, until the block is left."""
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True) as process:
        try:
            for _ in range(200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            else:
                pytest.fail(f"{command[0]} does not listen: {log.read_text()}")
            yield
        finally:
            process.terminate()
            process.wait()


@contextmanager
def git_daemon(top: Path) -> Iterator[str]:
    """`git daemon` over every repository below *top*; yields its URL."""
    port = free_port()
    options = ["--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}"]
    with serving([program("git-daemon"), *options, f"--base-path={top}", str(top)], port, top / "daemon.log"):
        yield f"git://127.0.0.1:{port}"


class Backend(BaseHTTPRequestHandler):
    """Hands requests to `git http-backend`, as any web server does (CGI, RFC 3875); asks for a password below /private."""

    protocol_version = "HTTP/1.1"
    top = Path()

    def do_GET(self) -> None:
        """Answer a GET."""
        self.answer(b"")

    def do_POST(self) -> None:
        """Answer a POST, whose body may come in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return self.answer(body)

    def answer(self, body: bytes) -> None:
        """Run the backend and send what it says."""
        path, _, query = self.path.partition("?")
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if path.startswith("/private/") and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            return self.end_headers()
        variables = {
            "GIT_PROJECT_ROOT": str(self.top),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": USER,
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path.removeprefix("/private"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        environment = os.environ | variables
        done = subprocess.run(
            [program("git-http-backend")], input=body, env=environment, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def http_server(top: Path) -> Iterator[str]:
    """A web server over every repository below *top*; yields its URL."""
    program("git-http-backend")
    handler = type("Served", (Backend,), {"top": top})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def ssh_server(top: Path) -> Iterator[str]:
    """A `sshd` of its own, with its own keys; yields a URL. `GIT_SSH_COMMAND` must be what `ssh_command(top)` is."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd or no ssh here (Debian: openssh-server): NOTHING OVER SSH IS TESTED")
    for name in ("host", "user", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(top / name)]
        subprocess.run(command, check=True)
    shutil.copy(top / "user.pub", top / "authorized")
    port = free_port()
    config = f"""
        Port {port}
        ListenAddress 127.0.0.1
        HostKey {top}/host
        AuthorizedKeysFile {top}/authorized
        PidFile none
        StrictModes no
        UsePAM no
        PasswordAuthentication no
        KbdInteractiveAuthentication no
        PermitRootLogin prohibit-password
        SetEnv GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    """
    (top / "sshd_config").write_text("\n".join(line.strip() for line in config.splitlines()))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where a sshd of root's separates its privileges
    with serving([SSHD, "-D", "-e", "-f", str(top / "sshd_config")], port, top / "sshd.log"):
        yield f"ssh://127.0.0.1:{port}{top}"


def ssh_command(top: Path) -> str:
    """How ssh is to be called: with nobody's configuration, and the key made for the test."""
    options = ["IdentitiesOnly=yes", "StrictHostKeyChecking=no", f"UserKnownHostsFile={top}/known"]
    return shlex.join(
        ["ssh", "-F", "none", "-i", str(top / "user"), *(part for each in options for part in ("-o", each))]
    )


@contextmanager
def no_server(top: Path) -> Iterator[str]:
    """No server: the folder itself."""
    yield top.as_uri()


SERVERS = {"file": no_server, "git": git_daemon, "http": http_server, "ssh": ssh_server}


@pytest.fixture(params=SERVERS)
def url(
    request: pytest.FixtureRequest, remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Git
) -> Iterator[str]:
    """The URL of the bare repository `remote`, over each kind of server; it is the origin of the fresh repository."""
    git("config", "http.receivepack", "true", cwd=remote)
    monkeypatch.setenv("GIT_SSH_COMMAND", ssh_command(tmp_path))
    with SERVERS[request.param](tmp_path) as base:
        url = f"{base}/remote.git"
        git("remote", "set-url", "origin", url, cwd=tmp_path / "repository")
        yield url


async def test_push_pull_and_list(
    url: str,
    repository: aexp.Repository,
    other: aexp.Repository,
    repo_path: Path,
    remote: Path,
    other_path: Path,
    saved: Saved,
    refs_of: Refs,
    leftovers: Leftovers,
    fsck: Callable[[Path], None],
) -> None:
    """Over every kind of server a hundred experiments go, are listed, and come, and stay what they were."""
    records = await saved(repository, *(f"try-{number}" for number in range(100)))
    assert {each.outcome for each in await repository.push()} == {"new"}
    assert refs_of(remote) == {record.ref: record.rev for record in records}
    assert {each.outcome for each in await repository.push()} == {"up to date"}
    listed = await other.remote_experiments(url)
    assert {each.ref: each.rev for each in listed} == refs_of(remote)
    assert {each.outcome for each in await other.pull(remote=url)} == {"new"}
    assert refs_of(other_path) == refs_of(remote)
    assert {each.outcome for each in await other.pull(remote=url)} == {"up to date"}
    assert await other.get("try-7") == await repository.get("try-7")
    for path in (repo_path, remote, other_path):
        assert leftovers(path) == []
        fsck(path)


async def test_diverged_forced_and_refused(
    url: str, repository: aexp.Repository, other: aexp.Repository, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """Over every kind of server it is told what diverged, what was forced, and what a hook refused."""
    (theirs,) = await saved(other, "same", loss=1.0)
    await other.push(remote=url)
    await saved(repository, "same", "fine")
    with pytest.raises(aexp.Diverged) as diverged:
        await repository.push()
    assert {each.name: (each.outcome, each.found) for each in diverged.value.transfers} == {
        "same": ("diverged", theirs.rev),
        "fine": ("new", None),
    }
    with pytest.raises(aexp.Diverged):
        await repository.pull()
    forced = {each.name: (each.outcome, each.found) for each in await repository.push(force=True)}
    assert forced["same"] == ("forced", theirs.rev)
    hook = remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho the house is closed >&2\nexit 1\n")
    hook.chmod(0o755)
    await saved(repository, "late")
    with pytest.raises(aexp.RemoteError) as refused:
        await repository.push("late")
    assert refused.value.kind == "refused"
    assert [each.outcome for each in refused.value.transfers] == ["refused"]


async def test_two_programs_push_the_same_name_at_once(
    url: str, repository: aexp.Repository, other: aexp.Repository, remote: Path, saved: Saved, refs_of: Refs
) -> None:
    """Of two that push other experiments of the same names at the same time, each name has one winner, and losers know."""
    names = [f"try-{number}" for number in range(10)]
    ours = await saved(repository, *names)
    theirs = await saved(other, *names, loss=1.0)
    answers = await asyncio.gather(repository.push(), other.push(remote=url), return_exceptions=True)
    held = refs_of(remote)
    for records, answer in zip((ours, theirs), answers, strict=True):
        assert isinstance(answer, list | aexp.Diverged | aexp.RemoteError)
        transfers = answer if isinstance(answer, list) else answer.transfers
        won = {each.ref for each in transfers if each.outcome == "new"}
        assert {ref: held[ref] for ref in won} == {record.ref: record.rev for record in records if record.ref in won}
    assert len(held) == len(names)


async def test_a_repository_that_is_not_there(url: str, repository: aexp.Repository, saved: Saved) -> None:
    """Over every kind of server, a repository that does not exist is told as unknown, or as access that is denied."""
    await saved(repository, "one")
    for call in (repository.push, repository.pull, repository.remote_experiments):
        with pytest.raises(aexp.RemoteError) as caught:
            await call(remote=url.replace("remote.git", "nowhere.git"))
        assert caught.value.kind in ("unknown", "authentication")


async def test_a_password_comes_from_a_helper_and_is_never_asked_for(
    repository: aexp.Repository,
    repo_path: Path,
    remote: Path,
    tmp_path: Path,
    saved: Saved,
    git: Git,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a credential the error says so, with one in the URL it is not shown, with a helper or askpass it works."""
    git("config", "http.receivepack", "true", cwd=remote)
    await saved(repository, "one")
    with http_server(tmp_path) as base:
        private = f"{base}/private/remote.git"
        begun = time.monotonic()
        with pytest.raises(aexp.RemoteError) as caught:
            await repository.push(remote=private)
        assert caught.value.kind == "authentication"
        assert time.monotonic() - begun < 10
        for secret in ("wrong-password", f"{PASSWORD}x"):
            with pytest.raises(aexp.RemoteError) as caught:
                await repository.push(remote=private.replace("://", f"://{USER}:{secret}@"))
            assert caught.value.kind == "authentication"
            assert secret not in str(caught.value)
            assert secret not in repr(caught.value)

        good = private.replace("://", f"://{USER}:{PASSWORD}@")
        assert [each.outcome for each in await repository.push(remote=good)] == ["new"]
        askpass = tmp_path / "askpass"
        askpass.write_text(f'#!/bin/sh\ncase "$1" in Username*) echo {USER};; *) echo {PASSWORD};; esac\n')
        askpass.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setenv("GIT_ASKPASS", str(askpass))
            assert [each.outcome for each in await repository.push(remote=private)] == ["up to date"]
        helper = f"!f() {{ echo username={USER}; echo password={PASSWORD}; }}; f"
        git("config", "credential.helper", helper, cwd=repo_path)
        assert [each.outcome for each in await repository.push(remote=private)] == ["up to date"]


async def test_ssh_with_the_wrong_key_does_not_prompt(
    repository: aexp.Repository, remote: Path, tmp_path: Path, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the server does not know, and a host key that has changed, are told at once as authentication."""
    await saved(repository, "one")
    with ssh_server(tmp_path) as base:
        monkeypatch.setenv("GIT_SSH_COMMAND", ssh_command(tmp_path))
        assert [each.outcome for each in await repository.push(remote=f"{base}/remote.git")] == ["new"]
        stranger = ssh_command(tmp_path).replace(str(tmp_path / "user"), str(tmp_path / "stranger"))
        for command in (
            stranger,
            ssh_command(tmp_path).replace("Checking=no", "Checking=yes").replace("/known", "/none"),
        ):
            monkeypatch.setenv("GIT_SSH_COMMAND", command)
            begun = time.monotonic()
            with pytest.raises(aexp.RemoteError) as caught:
                await repository.push(remote=f"{base}/remote.git")
            assert caught.value.kind == "authentication"
            assert time.monotonic() - begun < 10


async def test_nobody_listens(repository: aexp.Repository, remote: Path, saved: Saved) -> None:
    """A port on which nobody listens, and a host that does not exist, are unreachable."""
    await saved(repository, "one")
    port = free_port()
    for remote_url in (f"git://127.0.0.1:{port}/x", f"http://127.0.0.1:{port}/x", f"ssh://127.0.0.1:{port}/x"):
        with pytest.raises(aexp.RemoteError) as caught:
            await repository.push(remote=remote_url)
        assert caught.value.kind == "unreachable"
    with pytest.raises(aexp.RemoteError) as caught:
        await repository.push(remote="https://host.invalid/x")
    assert caught.value.kind == "unreachable"
