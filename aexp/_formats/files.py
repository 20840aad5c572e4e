"""The files of an experiment on their way through the journal, and put together from its records."""

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, Final

from attrs import define, field

from .gitobjects import EXECUTABLE, FILE, SYMLINK
from .journal import Kind

SLICE: Final = 3 * 2**20
"""Bytes encoded at a time, about 2 ms: a multiple of 3, so that the slices join into one text."""


def encoded(content: bytes) -> Iterator[str]:
    """Yield *content* in base 64, as JSON can hold it, in slices."""
    for begin in range(0, len(content), SLICE):
        yield binascii.b2a_base64(content[begin : begin + SLICE], newline=False).decode("ascii")


LINK: Final = "link"
"""What a record of the kind `FILE` says of a symbolic link; its content is where it leads."""


def said_of(mode: int) -> list[object]:
    """Return what a record of the kind `FILE` says of a file of this *mode*, behind its content."""
    return [True] if mode == EXECUTABLE else [LINK] if mode == SYMLINK else []


def _mode(said: Sequence[Any]) -> int:
    return FILE if not said else SYMLINK if said[0] == LINK else EXECUTABLE


@define(eq=False, repr=False)
class Files:
    """What a commit gets besides the files that aexp itself writes; the last that was said of a path counts."""

    _found: dict[str, tuple[int, bytes | None]] = field(factory=dict)

    def add(self, kind: str, payload: Sequence[Any]) -> None:
        """Learn from a record of the kinds `FILE` and `LOG`."""
        path, text = payload[1], payload[2]
        content = None if text is None else binascii.a2b_base64(text)
        if kind == Kind.LOG:
            content = (self._found.get(path, (FILE, None))[1] or b"") + (content or b"")
        self._found[path] = (_mode(payload[3:]), content)

    def __iter__(self) -> Iterator[tuple[str, int, bytes | None]]:
        """Yield (path, mode, content) of each; without content, what stands there is taken away."""
        return ((path, mode, content) for path, (mode, content) in self._found.items())

    def content(self, path: str) -> bytes | None:
        """Return what was logged as the file *path*; None when it was not, or taken away."""
        return self._found.get(path, (FILE, None))[1]

    def found(self) -> dict[str, tuple[int, bytes | None]]:
        """Return (mode, content) by path."""
        return dict(self._found)

    def has_below(self, folder: str) -> bool:
        """Say whether a file was logged below *folder*."""
        return any(path.startswith(f"{folder}/") for path, (_, content) in self._found.items() if content is not None)

    def are_within(self, folder: str) -> bool:
        """Say whether all of them lie in *folder*."""
        return all(path.startswith(f"{folder}/") for path in self._found)
