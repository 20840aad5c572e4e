"""What `git status --porcelain=v2 -z` and `git diff-tree -z` say: what changed (git-status(1), git-diff-tree(1))."""

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from .gitobjects import GITLINK


@frozen
class Change:
    """A path that differs from HEAD: `mode` is its mode in the work tree, 0 when it is gone.

    `head` is the (mode, id) that HEAD has there, None where HEAD has nothing.
    """

    path: bytes
    mode: int
    tracked: bool
    head: tuple[int, bytes] | None = None

    @property
    def is_submodule(self) -> bool:
        """Say whether the path is a submodule."""
        return self.mode == GITLINK


def parse_status(output: bytes) -> Iterator[Change]:
    """Yield every change that *output* lists; renames must have been switched off."""
    for line in output.split(b"\0"):
        kind = line[:2]
        if kind == b"1 ":
            fields = line.split(b" ", 8)
            yield Change(fields[8], int(fields[5], 8), True, _entry(fields[3], fields[6]))
        elif kind == b"u ":
            fields = line.split(b" ", 10)
            yield Change(fields[10], int(fields[6], 8), True, _entry(fields[4], fields[8]))  # "ours" of a merge
        elif kind == b"? ":
            yield Change(line[2:], 0o100644, False)
        elif kind == b"2 ":
            raise ValueError("a rename where renames are switched off")


def _entry(mode: bytes, id: bytes) -> tuple[int, bytes] | None:
    return (int(mode, 8), bytes.fromhex(id.decode())) if int(mode, 8) else None


@frozen(eq=False, repr=False)
class Difference:
    """A path in which two trees differ: the (mode, id) there in the one and the other, None where there is nothing."""

    path: bytes
    old: tuple[int, bytes] | None
    new: tuple[int, bytes] | None

    @property
    def kind(self) -> Literal["added", "changed", "removed"]:
        """Say what happened on the way from the old tree to the new one."""
        if self.old is None:
            return "added"
        return "removed" if self.new is None else "changed"


def parse_differences(output: bytes) -> Iterator[Difference]:
    """Yield every difference that *output* of `git diff-tree -r -z --raw --no-renames` lists."""
    place = 0
    while place < len(output):  # not split at once: there may be a hundred thousand
        middle = output.index(b"\0", place)
        end = output.index(b"\0", middle + 1)
        old_mode, new_mode, old, new, _ = output[place + 1 : middle].split(b" ")
        yield Difference(output[middle + 1 : end], _entry(old_mode, old), _entry(new_mode, new))
        place = end + 1


def quoted(path: bytes) -> bytes:
    """Return *path* as one line for `git hash-object --stdin-paths`, which takes C quotes (quote.c of Git)."""
    if b"\n" not in path and not path.startswith(b'"'):
        return path
    return b'"' + b"".join(b"\\%03o" % byte if byte < 32 or byte in b'"\\' else bytes((byte,)) for byte in path) + b'"'
