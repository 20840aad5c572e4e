"""A line that is cut or that stalls anywhere: refs are old or new on both sides, and nothing is left."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

import pytest

import aexp

Git = Callable[..., str]
Refs = Callable[..., dict[str, str]]
Leftovers = Callable[[Path], list[str]]
Check = Callable[[Path], None]

pytestmark = [pytest.mark.remotes, pytest.mark.timeout(180)]

PROGRAMS = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
SIZE = 12_000  # bytes of noise in each experiment
NAMES = ("one", "two", "three")


class Proxy:
    """A line to a port of this machine that is cut, or goes silent, when `limit` bytes have gone through it."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.limit = 0
        self.gone = 0
        self.stall = False
        self.over = False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.server.getsockname()[1])
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def set(self, limit: int, *, stall: bool) -> None:
        """Begin to count anew."""
        self.limit, self.gone, self.stall = limit, 0, stall

    def accept(self) -> None:
        """Take connections, each in a thread."""
        self.server.settimeout(0.05)
        while not self.over:
            with suppress(TimeoutError):
                connection, _ = self.server.accept()
                self.threads.append(threading.Thread(target=self.carry, args=(connection,)))
                self.threads[-1].start()

    def carry(self, near: socket.socket) -> None:
        """Carry bytes both ways until the limit, or until one side closes."""
        with near, socket.create_connection(("127.0.0.1", self.target)) as far, suppress(OSError):
            while not self.over:
                for ready in select([near, far], [], [], 0.05)[0]:
                    portion = ready.recv(max(1, min(1024, self.limit - self.gone)))
                    if not portion:
                        return
                    (far if ready is near else near).sendall(portion)
                    self.gone += len(portion)
                    while self.gone >= self.limit:
                        if not self.stall or self.over:
                            return
                        time.sleep(0.02)
                        if not select([near], [], [], 0)[0]:
                            continue
                        if near.recv(1, socket.MSG_PEEK) == b"":
                            return

    def close(self) -> None:
        """End every thread."""
        self.over = True
        for thread in self.threads:
            thread.join()
        self.server.close()


@contextmanager
def daemon(top: Path) -> Iterator[int]:
    """`git daemon` over the repositories below *top*; yields its port."""
    if not Path(PROGRAMS, "git-daemon").exists():
        pytest.skip("git-daemon is not installed here: NO CUT LINE IS TESTED")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    options = ["--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}"]
    command = [f"{PROGRAMS}/git-daemon", *options, f"--base-path={top}", str(top)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            for _ in range(200):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


@pytest.fixture
def proxy(remote: Path, repo_path: Path, other_path: Path, tmp_path: Path, git: Git) -> Iterator[Proxy]:
    """A line to a daemon that serves the bare repository; it is the origin of both clones."""
    with daemon(tmp_path) as port:
        proxy = Proxy(port)
        for path in (repo_path, other_path):
            git("remote", "set-url", "origin", f"git://127.0.0.1:{proxy.port}/remote.git", cwd=path)
        yield proxy
        proxy.close()


def settled(check: Callable[[], object], seconds: float = 5.0) -> bool:
    """Say whether *check* becomes false in time: a server notices later than we that the line is gone."""
    end = time.monotonic() + seconds
    while check() and time.monotonic() < end:
        time.sleep(0.02)
    return not check()


@pytest.mark.parametrize("stall", [False, True], ids=["cut", "stalled"])
@pytest.mark.parametrize("verb", ["push", "pull"])
async def test_wherever_the_line_fails_all_is_old_or_new(
    repo_path: Path,
    remote: Path,
    other_path: Path,
    proxy: Proxy,
    git: Git,
    refs_of: Refs,
    leftovers: Leftovers,
    fsck: Check,
    verb: str,
    stall: bool,
) -> None:
    """Cut or stalled after any few kilobytes, a transfer raises `RemoteError`, both sides are sound, and again it works."""
    settings = aexp.Settings(connect_timeout=0.6, stall_timeout=0.6)
    async with (
        aexp.Repository(repo_path, settings=settings) as near,
        aexp.Repository(other_path, settings=settings) as far,
    ):
        for name in NAMES:
            async with near.experiment(name) as experiment:
                await experiment.log_file("noise.bin", os.urandom(SIZE))
        wanted = refs_of(repo_path)
        if verb == "pull":
            proxy.set(2**30, stall=False)
            await near.push()
        target = remote if verb == "push" else other_path
        step = 9000 if stall else 2500
        limit, failures, done = 300, 0, False
        while not done:
            for ref in refs_of(target):
                git("update-ref", "-d", ref, cwd=target)
            forget_objects(git, target)
            proxy.set(limit, stall=stall)
            done = await succeeded(near.push() if verb == "push" else far.pull())
            failures += not done
            found = refs_of(target)
            assert found.items() <= wanted.items()
            if verb == "pull":
                assert found == (wanted if done else {})
            for path in (repo_path, other_path):
                assert leftovers(path) == []
            assert settled(lambda: [each for each in leftovers(remote) if not each.startswith("objects/tmp_objdir-")])
            fsck(remote)
            fsck(other_path)
            limit += step
        assert refs_of(target) == wanted
        git("prune", "--expire=now", cwd=remote)  # a git that receives over a cut line leaves its own quarantine
        assert leftovers(remote) == []
        assert failures >= (3 if stall else 12)


async def succeeded(call: Awaitable[list[aexp.Transfer]]) -> bool:
    """Say whether the transfer came to its end; what it raises otherwise must say that the line is to blame."""
    try:
        transfers = await call
    except aexp.RemoteError as error:
        if error.kind not in ("unreachable", "timeout"):
            raise
        return False
    return {each.outcome for each in transfers} <= {"new", "up to date"}


def forget_objects(git: Git, path: Path) -> None:
    """Drop every object that no ref holds, so that the next transfer has all to carry."""
    git("reflog", "expire", "--expire=now", "--all", cwd=path)
    git("-c", "gc.auto=0", "repack", "-a", "-d", "-q", cwd=path)
    git("prune", "--expire=now", cwd=path)
