"""The door for programs that are not Git: one is started, read and ended here, by the thread that attends to it.

Whatever it prints takes bounded memory, whatever it leaves behind does not keep us, and stopping it stops all that it
started and that stayed in its process group.
"""

import errno
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from select import PIPE_BUF
from typing import IO, Final

from attrs import frozen

from ._files import translated, translating
from ._formats.printed import LAST, Lines, Listener, Log, Tail
from ._groups import lives, send
from ._terminal import Terminal
from ._values import Output
from .errors import CommandFailed

READ: Final = 64 * 2**10
"""Bytes read at a time."""
LINGER: Final = 0.5
"""Seconds of silence after which the pipes of a program that has ended are left to what it left running."""
LINGER_MOST: Final = 5.0
"""Seconds after its end for which such leftovers may go on printing into the log."""
TELL: Final = 0.25
"""Seconds that the head of a log may gather before it is handed on."""
WATCH: Final = 0.05
"""Seconds between two looks at a program that nothing else tells about."""
DYING: Final = 5.0
"""Seconds after SIGKILL that a program which hangs in the kernel is waited for."""


@frozen(eq=False, repr=False)
class Order:
    """A program to run: what, where, with which variables, and what becomes of its streams."""

    arguments: tuple[str, ...]
    folder: str
    variables: Mapping[str, str]
    output: Output
    stdin: bool
    """Whether it reads our standard input, else /dev/null."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    listener: Listener | None = None
    """What wants to hear each line; who runs the program brings it there."""


Tell = Callable[[int, list[bytes]], None]
"""What is given the lines of a stream (1 or 2), and calls `Program.go_on` when it has taken them."""


@frozen(eq=False, repr=False)
class Ended:
    """How a program ended: exit code, or minus the signal that killed it; and the last of what it printed."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Program:
    """One program; `run` attends to it in the thread that calls it, `stop` may be called from any other."""

    def __init__(self, order: Order, heard: Callable[[bytes], None]) -> None:
        self.order, self._heard = order, heard
        self._tell: Tell | None = None
        self._log, self._said, self._lines = Log(), {1: Tail(LAST), 2: Tail(LAST)}, {1: Lines(), 2: Lines()}
        self._untaken: set[int] = set()
        self._taken: SimpleQueue[int] = SimpleQueue()
        self._selector = selectors.PollSelector()  # unlike epoll, it takes files, too
        self._unshown: dict[int, memoryview] = {}
        self._broken: set[int] = set()
        self._terminal: Terminal | None = None
        self._told = self._active = self._ended = 0.0
        self._stopping: float | None = None
        self._killed: float | None = None
        self._wanted = self._halted = False
        self._wake_end = self._wake = -1
        self._waking = threading.Lock()  # so that nothing is written into a descriptor that has become another's

    def stop(self) -> bool:
        """Ask for its end: SIGTERM to its whole group, SIGKILL after the grace. Returns False: it is not over yet."""
        self._wanted = True
        self._awake()
        return False

    def go_on(self, stream: int) -> None:
        """Read *stream* again: what was told of it has been taken. From any thread."""
        self._taken.put(stream)
        self._awake()

    def _awake(self) -> None:
        with self._waking, suppress(OSError):  # it has not begun, has ended, or was asked often enough
            os.write(self._wake, b"!")

    def run(self, tell: Tell | None = None) -> Ended:
        """Start it, and return when it has ended; raise `CommandFailed` when it cannot be started.

        *tell* is given each line. Nothing more is read of its stream until `go_on`, so what is untaken stays bounded.
        """
        self._tell = tell
        with translating(self.order.folder):
            self._wake_end, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        try:
            process = self._process = self._started()
            terminal = self._terminal = Terminal.of_ours() if self.order.stdin else None
            if terminal is not None:
                terminal.lend(process.pid)
            try:
                self._attend(process)
            finally:
                if self._terminal is not None:
                    self._terminal.take_back(process.pid, restore=(process.returncode or 0) < 0)
            return Ended(process.returncode, self._said[1].content(), self._said[2].content())
        finally:
            self._selector.close()
            with self._waking:
                os.close(self._wake)
                self._wake = -1
            os.close(self._wake_end)

    def _started(self) -> "subprocess.Popen[bytes]":
        order = self.order
        stream = None if order.output == "inherit" else subprocess.PIPE
        try:
            return subprocess.Popen(
                order.arguments,
                cwd=order.folder,
                env=order.variables,
                stdin=None if order.stdin else subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                process_group=0,
            )
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC):
                raise translated(error, order.folder) from error
            code = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126  # as shells say it
            raise CommandFailed(order.arguments, code, f"cannot be started: {error}") from error

    # ---- attending ----

    def _attend(self, process: "subprocess.Popen[bytes]") -> None:
        self._active = time.monotonic()
        self._selector.register(self._wake_end, selectors.EVENT_READ, 0)
        for name, pipe in ((1, process.stdout), (2, process.stderr)):
            if pipe is not None:
                self._selector.register(pipe, selectors.EVENT_READ, name)
        exit = _exit_descriptor(process.pid)
        if exit is not None:
            self._selector.register(exit, selectors.EVENT_READ, 0)
        try:
            while not self._is_over(process):
                for key, _ in self._selector.select(self._patience(process, exit)):
                    self._turn_to(key, exit)
                self._hand_on()
        finally:
            self._finish(process, exit)

    def _turn_to(self, key: selectors.SelectorKey, exit: int | None) -> None:
        if key.fd == self._wake_end:
            os.read(self._wake_end, READ)
            while not self._taken.empty():
                stream = self._taken.get()
                self._untaken.discard(stream)
                self._read_again(stream)
        elif key.fd == exit:
            self._selector.unregister(exit)  # it stays readable
        elif key.data in self._unshown and key.fd == key.data:
            self._show(key.data)
        else:
            self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, READ)
        if not data:
            self._selector.unregister(key.fileobj)
            return
        self._active = time.monotonic()
        self._keep(key.data, data)
        if self._tell is not None and (lines := self._lines[key.data].add(data)):
            self._untaken.add(key.data)
            self._selector.unregister(key.fileobj)
            self._tell(key.data, lines)
        elif self.order.output == "show" and key.data not in self._broken:
            self._unshown[key.data] = memoryview(data)
            self._selector.unregister(key.fileobj)  # nothing more is read of it before this is shown
            try:
                self._selector.register(key.data, selectors.EVENT_WRITE, key.data)
            except (OSError, ValueError):
                self._read_again(key.data)

    def _show(self, stream: int) -> None:
        """Write a piece that does not block, to our own stream; a reader that went away is not written to again."""
        view = self._unshown[stream]
        try:
            self._unshown[stream] = view = view[os.write(stream, view[:PIPE_BUF]) :]
        except BlockingIOError:
            return
        except OSError:
            self._broken.add(stream)
            view = view[:0]
        self._active = time.monotonic()
        if not view:
            self._selector.unregister(stream)
            self._read_again(stream)

    def _keep(self, stream: int, data: bytes) -> None:
        self._log.add(data)
        self._said[stream].add(data)

    def _read_again(self, stream: int) -> None:
        """Read the stream of the program again, which something held back."""
        self._unshown.pop(stream, None)
        pipe = self._process.stdout if stream == 1 else self._process.stderr
        assert pipe is not None
        self._selector.register(pipe, selectors.EVENT_READ, stream)

    def _hand_on(self) -> None:
        """Hand on what has gathered of the log's head."""
        now = time.monotonic()
        if self._log.waiting and (now > self._told + TELL or self._log.waiting >= READ):
            self._told = now
            self._heard(self._log.take())

    def _patience(self, process: "subprocess.Popen[bytes]", exit: int | None) -> float | None:
        if self._wanted or self._ended or exit is None or self.order.stdin:
            return WATCH
        return TELL if self._log.waiting else None

    # ---- its end ----

    def _is_over(self, process: "subprocess.Popen[bytes]") -> bool:
        now = time.monotonic()
        if not self._ended and self._has_ended(process):
            self._ended = self._active = now
        if self._wanted:
            return self._is_stopped(process, now)
        if not self._ended:
            return False
        if self._unshown or self._untaken:
            return False  # who takes it from us is slow, and shall have it all
        silent = now > self._active + LINGER or now > self._ended + LINGER_MOST
        return silent or not self._is_heard()

    def _is_heard(self) -> bool:
        return any(key.data and key.fd != key.data for key in self._selector.get_map().values())

    def _has_ended(self, process: "subprocess.Popen[bytes]") -> bool:
        try:
            pid, status = os.waitpid(process.pid, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:  # the program ignores SIGCHLD, or somebody else reaped it
            process.returncode = process.returncode or 0
            return True
        if not pid:
            if self._halted:
                self._go_on(process.pid)
            return False
        if os.WIFSTOPPED(status):
            if self._terminal is not None:
                self._terminal.suspend(process.pid)
            self._halted = self.order.stdin and self._terminal is None
            return False
        process.returncode = os.waitstatus_to_exitcode(status)
        return True

    def _go_on(self, group: int) -> None:
        """Lend the terminal, once it is ours, to a program that was stopped because it wanted to read from it."""
        self._terminal = Terminal.of_ours()
        if self._terminal is not None:
            self._halted = False
            self._terminal.lend(group)

    def _is_stopped(self, process: "subprocess.Popen[bytes]", now: float) -> bool:
        """Send what is due to the group; say whether it is gone, or will not go."""
        if self._stopping is None:
            self._stopping = now + self.order.grace
            send(process.pid, signal.SIGTERM)
            send(process.pid, signal.SIGCONT)  # one that is stopped does not hear it before
        if self._ended and not lives(process.pid):
            return True
        if self._killed is None and now > self._stopping:
            self._killed = now
            send(process.pid, signal.SIGKILL)
        if self._killed is None:
            return False
        if now > self._killed + DYING and not self._ended:
            process.returncode = -signal.SIGKILL  # it hangs in the kernel, and will end when that lets it
            return True
        return bool(self._ended)

    def _finish(self, process: "subprocess.Popen[bytes]", exit: int | None) -> None:
        if process.returncode is None:  # something went wrong here: nobody attends to it any more
            send(process.pid, signal.SIGKILL)
            process.wait()
        for stream, pipe in ((1, process.stdout), (2, process.stderr)):
            if pipe is not None:
                self._drain(stream, pipe)
        if exit is not None:
            os.close(exit)
        for piece in (self._log.take(), self._log.rest()):
            if piece:
                self._heard(piece)

    def _drain(self, stream: int, pipe: IO[bytes]) -> None:
        """Keep what lies in a pipe when the program is gone, and close it."""
        os.set_blocking(pipe.fileno(), False)
        lines: list[bytes] = []
        with suppress(BlockingIOError):
            for _ in range(16):  # a pipe holds that much at most; who still writes is not followed
                data = os.read(pipe.fileno(), READ)
                if not data:
                    break
                self._keep(stream, data)
                lines += self._lines[stream].add(data)
        pipe.close()
        if self._tell is not None and (lines := lines + self._lines[stream].rest()):
            self._tell(stream, lines)


def _exit_descriptor(pid: int) -> int | None:
    """Return a descriptor that is readable when the process has ended, where the system has such."""
    opened = getattr(os, "pidfd_open", None)
    if opened is None:
        return None
    with suppress(OSError):
        found: int = opened(pid)
        return found
    return None
