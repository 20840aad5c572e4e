"""What `git status --porcelain=v2 -z` says: the changes of a work tree (git-status(1))."""

from collections.abc import Iterator

from attrs import frozen

from .gitobjects import GITLINK


@frozen
class Change:
    """A path that differs from HEAD: `mode` is its mode in the work tree, 0 when it is gone."""

    path: bytes
    mode: int
    tracked: bool

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
            yield Change(fields[8], int(fields[5], 8), True)
        elif kind == b"u ":
            fields = line.split(b" ", 10)
            yield Change(fields[10], int(fields[6], 8), True)
        elif kind == b"? ":
            yield Change(line[2:], 0o100644, False)
        elif kind == b"2 ":
            raise ValueError("a rename where renames are switched off")


def quoted(path: bytes) -> bytes:
    """Return *path* as one line for `git hash-object --stdin-paths`, which takes C quotes (quote.c of Git)."""
    if b"\n" not in path and not path.startswith(b'"'):
        return path
    return b'"' + b"".join(b"\\%03o" % byte if byte < 32 or byte in b'"\\' else bytes((byte,)) for byte in path) + b'"'
