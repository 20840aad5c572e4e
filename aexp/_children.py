"""Long `git` children: fed, listened to while they work, and ended whole when they are to stop or fall silent."""

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Final, Literal

from attrs import define, field, frozen

from ._git import Handle, command, environment, place
from ._groups import lives, send
from .errors import GitNotFound

TICK: Final = 0.05
"""How often a child's end and the wish to stop it are looked for, in seconds."""
GRACE: Final = 0.4
"""How long a child that is told to end may clean up, and then what it started, in seconds."""
_OUTSIDE_VARIABLES: Final = (
    r"GIT_(?:SSH_VARIANT|PROXY_\w+|SSL_\w+|HTTP_\w+|CONFIG_COUNT|CONFIG_KEY_\d+|CONFIG_VALUE_\d+)\Z"
)
PORTION: Final = 1 << 16
WORDS: Final = 1 << 16
"""How much of what a child writes to its standard error is kept: the last of it."""


Child = subprocess.Popen[bytes]


Ending = Literal["exit", "stopped", "silent", "flood"]


@frozen
class Limits:
    """How long a child may say nothing, in seconds: before its first word, and afterwards; and how much it may print."""

    first: float
    silence: float
    output: int = 1 << 28


@frozen
class Said:
    """What a child printed, the last of what it wrote to its standard error, and how it ended."""

    ending: Ending
    code: int
    out: bytes
    words: str


def outside(variables: Mapping[str, str], ssh: str | None, connect: float) -> dict[str, str]:
    """Return what a `git` that speaks to a remote needs of the environment *variables*, beside `environment`.

    Proxies, certificates, credential helpers and ssh stay as they were set; *ssh* is `core.sshCommand`. Nothing
    prompts: no terminal, no window, ssh in BatchMode. A `GIT_ASKPASS` that was set stays, since CI answers with it.
    """
    kept = {key: value for key, value in variables.items() if re.match(_OUTSIDE_VARIABLES, key)}
    command = variables.get("GIT_SSH_COMMAND") or ssh or ("ssh" if "GIT_SSH" not in variables else "")
    if re.fullmatch(r"(?:\S*/)?ssh", (command.split() or [""])[0]):  # another program may not know these options
        kept["GIT_SSH_COMMAND"] = f"{command} -o BatchMode=yes -o ConnectTimeout={max(1, round(connect))}"
    if "GIT_ALLOW_PROTOCOL" in variables:  # it would override that `ext` is refused
        allowed = variables["GIT_ALLOW_PROTOCOL"].split(":")
        kept["GIT_ALLOW_PROTOCOL"] = ":".join(each for each in allowed if each != "ext")
    return kept | {"GIT_ASKPASS": variables.get("GIT_ASKPASS", ""), "SSH_ASKPASS": "", "SSH_ASKPASS_REQUIRE": "never"}


def converse(
    handle: Handle,
    *arguments: str,
    extra: Mapping[str, str],
    limits: Limits,
    stopped: Callable[[], bool],
    input: bytes = b"",
    heard: Callable[[str], None] | None = None,
    flooded: Callable[[], bool] | None = None,
    niced: bool = False,
) -> Said:
    """Run `git` until it ends, until *stopped* or *flooded*, or until it says nothing for longer than *limits* allow.

    *heard* is given each line of its standard error, and each state of a progress line. On return the child and all
    that it started are gone, but for what it left running on purpose when it ended by itself (an ssh master). *niced*
    lets everybody else on the machine go first.
    """
    child = _start(handle, *arguments, extra=extra, niced=niced)
    try:
        ending, out, words = _Conversation(child, limits, stopped, heard or _ignore, flooded or _never, input).hold()
    except BaseException:
        end(child)
        raise
    if ending == "exit":
        child.wait()
    else:
        end(child)
    return Said(ending, child.returncode, out, words)


def _start(handle: Handle, *arguments: str, extra: Mapping[str, str], niced: bool) -> Child:
    """Start `git` in a session of its own: it has no terminal to prompt on, and can be ended whole."""
    try:
        return subprocess.Popen(
            [*(("nice", "-n", "10") if niced else ()), *command(), *arguments],
            cwd=place(handle),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment(extra),
            start_new_session=True,
        )
    except FileNotFoundError:
        raise GitNotFound("none") from None


def end(child: Child) -> None:
    """End *child* and its whole process group: `git` is asked first, then all that it started, then by force.

    One after the other, because what serves a folder is in the group, too: it cleans up when its line goes silent,
    but not while its own children die beside it.
    """
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    if child.poll() is None:
        child.terminate()
    _wait(child, GRACE)
    send(child.pid, signal.SIGTERM)
    _wait(child, GRACE)
    send(child.pid, signal.SIGKILL)
    child.wait()


def _wait(child: Child, grace: float) -> None:
    due = time.monotonic() + grace
    while (child.poll() is None or lives(child.pid)) and time.monotonic() < due:
        time.sleep(0.01)


def _ignore(_: str) -> None:
    """Hear nothing."""


def _never() -> bool:
    return False


@define(eq=False, repr=False)
class _Conversation:
    """One child, while it works."""

    child: Child
    limits: Limits
    stopped: Callable[[], bool]
    heard: Callable[[str], None]
    flooded: Callable[[], bool]
    input: bytes
    out: list[bytes] = field(factory=list)
    size: int = 0
    words: bytes = b""
    unfinished: bytes = b""
    due: float = 0.0

    def hold(self) -> tuple[Ending, bytes, str]:
        """Feed and listen until the child has ended, or has to be."""
        self.due = time.monotonic() + self.limits.first
        with selectors.DefaultSelector() as ready:
            for stream, event in self._streams():
                os.set_blocking(stream.fileno(), False)
                ready.register(stream, event)
            ending = self._listen(ready)
        for stream, _ in self._streams():
            stream.close()
        self._hear(b"\n")
        return ending, b"".join(self.out), self.words.decode("utf-8", "replace")

    def _streams(self) -> list[tuple[IO[bytes], int]]:
        child = self.child
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        return [
            (child.stdin, selectors.EVENT_WRITE),
            (child.stdout, selectors.EVENT_READ),
            (child.stderr, selectors.EVENT_READ),
        ]

    def _listen(self, ready: selectors.BaseSelector) -> Ending:
        while True:
            if self.stopped():
                return "stopped"
            over = self.child.poll() is not None
            events = ready.select(0 if over else TICK)
            for key, _ in events:
                if not self._attend(key.fileobj, key.fd):
                    ready.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
            if self.size > self.limits.output or self.flooded():
                return "flood"
            # Not until the pipes are closed: an ssh master or a credential daemon that goes on holds them open.
            if over and not any(key.events & selectors.EVENT_READ for key, _ in events):
                return "exit"
            if time.monotonic() > self.due:
                return "silent"

    def _attend(self, stream: object, descriptor: int) -> bool:
        """Read from or write to a stream that is ready; say whether it goes on."""
        if stream is self.child.stdin:
            return self._feed(descriptor)
        portion = os.read(descriptor, PORTION)
        self.due = time.monotonic() + self.limits.silence
        if stream is self.child.stdout:
            self.out.append(portion)
            self.size += len(portion)
        else:
            self._hear(portion)
        return bool(portion)

    def _feed(self, descriptor: int) -> bool:
        try:
            self.input = self.input[os.write(descriptor, self.input[:PORTION]) :] if self.input else b""
        except BrokenPipeError:  # it has heard enough; what it says tells why
            return False
        return bool(self.input)

    def _hear(self, portion: bytes) -> None:
        self.words = (self.words + portion)[-WORDS:]
        *lines, self.unfinished = re.split(rb"[\r\n]+", self.unfinished + portion)
        self.unfinished = self.unfinished[-WORDS:]
        for line in lines:
            if line:
                self.heard(line.decode("utf-8", "replace"))
