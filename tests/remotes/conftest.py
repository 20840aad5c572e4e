"""A line to a Git server of this machine that a test can cut, or let fall silent."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

import pytest

Git = Callable[..., str]

PROGRAMS = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()


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
