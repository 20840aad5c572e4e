"""What a program prints, kept within bounds: the head and the tail of its log, the last of each stream, and its lines."""

from collections.abc import Callable
from typing import Final, Literal

Listener = Callable[[Literal["stdout", "stderr"], bytes], object]
"""What is called with each line that a program prints."""
HEAD: Final = 512 * 2**10
"""Bytes of a log that are kept from its beginning."""
TAIL: Final = 512 * 2**10
"""Bytes of a log that are kept from its end."""
LAST: Final = 64 * 2**10
"""Bytes of each stream that a `CompletedProcess` holds."""
LONG: Final = 64 * 2**10
"""Bytes after which a line that has not ended is passed on as far as it is there."""


class Tail:
    """The last *most* bytes of what is added, in memory of twice that."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept = bytearray()
        self.total = 0
        """How many bytes were added."""

    def add(self, data: bytes) -> None:
        """Add *data*."""
        self.total += len(data)
        self._kept += data[-self._most :]
        if len(self._kept) > 2 * self._most:
            del self._kept[: -self._most]

    def content(self) -> bytes:
        """Return the last bytes added."""
        return bytes(self._kept[-self._most :])


class Log:
    """The log of one program: its head goes out while it works, what is kept of the rest when it has ended."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._room = HEAD
        self._tail = Tail(TAIL)

    def add(self, data: bytes) -> None:
        """Add *data*."""
        self._head += data[: self._room]
        rest = data[self._room :]
        self._room -= len(data) - len(rest)
        if rest:
            self._tail.add(rest)

    @property
    def waiting(self) -> int:
        """How many bytes of the head have not been taken."""
        return len(self._head)

    def take(self) -> bytes:
        """Return what came of the head since the last call."""
        taken, self._head = bytes(self._head), bytearray()
        return taken

    def rest(self) -> bytes:
        """Return what follows the head: how much is left out, and the tail."""
        tail = self._tail.content()
        left_out = self._tail.total - len(tail)
        return (f"\n[aexp: {left_out} bytes are left out here]\n".encode() if left_out else b"") + tail


class Lines:
    """The lines of a stream that comes in pieces: each with its end, which is LF, CR LF, or CR as of progress bars.

    Put together they are the stream, byte for byte.
    """

    def __init__(self) -> None:
        self._begun = b""

    def add(self, data: bytes) -> list[bytes]:
        """Return the lines that *data* ends, and what is longer than `LONG`."""
        lines = (self._begun + data).splitlines(keepends=True)
        unfinished = lines[-1:] and not lines[-1].endswith(b"\n") and len(lines[-1]) < LONG  # LF may follow a CR
        self._begun = lines.pop() if unfinished else b""
        return lines

    def rest(self) -> list[bytes]:
        """Return the last line when nothing ended it."""
        rest, self._begun = self._begun, b""
        return [rest] if rest else []
