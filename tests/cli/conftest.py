"""The command as a process: its output in pipes, or in a terminal of its own."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import frozen

VARIABLES = ("AEXP_REPOSITORY", "COLUMNS", "FORCE_COLOR", "LINES", "NO_COLOR", "PAGER", "TTY_COMPATIBLE")


@pytest.fixture(scope="session", autouse=True)
def plain_terminal() -> Iterator[None]:
    """No test sees how the terminal of who runs it is set up."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        yield


@frozen
class Done:
    """What a command did: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


COMMAND = (sys.executable, "-m", "aexp_command")


@pytest.fixture
def command(repo_path: Path) -> Callable[..., Done]:
    """`command("list", "--json")` runs `aexp` as a process in the fresh repository; its output goes to pipes."""

    def run(*words: str, cwd: Path = repo_path, input: str | None = None, **variables: str) -> Done:
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=cwd,
            env=os.environ | variables,
            input=input,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=50,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def terminal(repo_path: Path) -> Callable[..., Done]:
    """`terminal("show", columns=80)` runs `aexp` in a terminal of its own, which shows both outputs as `out`.

    *until* is what the terminal must show before *then* happens: a signal to the command, or keys that are typed.
    """

    def run(
        *words: str,
        cwd: Path = repo_path,
        columns: int = 80,
        until: str = "",
        then: signal.Signals | bytes | None = None,
        **variables: str,
    ) -> Done:
        pid, descriptor = pty.fork()
        if pid == 0:
            try:
                os.chdir(cwd)
                os.execve(sys.executable, [*COMMAND, *words], os.environ | {"TERM": "xterm-256color"} | variables)
            finally:
                os._exit(127)
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        shown, end = b"", time.monotonic() + 50
        while time.monotonic() < end:
            if then is not None and until.encode() in shown:
                if isinstance(then, bytes):
                    os.write(descriptor, then)
                else:
                    os.kill(pid, then)
                then = None
            if select.select([descriptor], [], [], 0.1)[0]:
                try:
                    piece = os.read(descriptor, 65536)
                except OSError:  # Linux says so when nobody holds the other end any more
                    break
                if not piece:
                    break
                shown += piece
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return Done(code, shown.decode("utf-8", "replace").replace("\r\n", "\n"), "")

    return run
