"""The index: what commits say of experiments, kept beside the repository so that nobody reads them twice.

A cache in SQLite, `aexp/index.sqlite` in the common Git directory, which may be deleted at any time. A row is a function
of a commit, and commits never change, so no row is ever stale; what is not (refs, living sessions, damage) is not in it.
Whatever is wrong with the file, reading goes on without it.
"""

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from ._files import Breath, make_folders, remove
from ._formats.experiment import Others
from ._formats.row import VERSION, Row, checksum, pack_others, sound_rows, unpack_others
from ._layout import ROOT
from .errors import AexpError

if TYPE_CHECKING:
    from sqlite3 import Connection, Error

NAME: Final = "index.sqlite"
PATIENCE: Final = 0.2
"""Seconds to wait for another process that writes, before reading goes on without the index."""
SLICE: Final = 200
"""How many rows are looked up or written at once; SQLite once took no more than 999 values."""

_DAMAGE: Final = frozenset({1, 11, 24, 26})
"""What SQLite calls ERROR (there is no such table), CORRUPT, FORMAT and NOTADB (https://sqlite.org/rescode.html)."""
_CORRUPT: Final = 11
_RECORDS: Final = """
CREATE TABLE records (
    rev TEXT, folder TEXT, head BLOB, params BLOB, metrics BLOB, needs BLOB, others BLOB, checksum INTEGER,
    PRIMARY KEY (rev, folder)
)"""
_OTHERS: Final = "CREATE TABLE others (id BLOB PRIMARY KEY, content BLOB, checksum INTEGER)"
_SELECT: Final = "SELECT rev, head, params, metrics, needs, others, checksum FROM records WHERE folder = ?"
_INSERT: Final = "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Index:
    """The index of a repository during one look at its experiments, with aexp's files in *folder* of each commit."""

    def __init__(self, common: str, folder: str) -> None:
        import sqlite3  # who does not list experiments need not load it: a twentieth of `import aexp`

        self._sqlite = sqlite3
        self._path = os.path.join(common, ROOT, NAME)
        self._folder = folder
        self._connection: Connection | None = None
        self._given_up = False

    # ---- read ----

    def others(self) -> dict[bytes, Others]:
        """Return what records share, by its id."""
        asked = self._ask("SELECT id, content, checksum FROM others")
        return {
            id: unpack_others(content) for some in asked for id, content, sum in some if checksum(id, content) == sum
        }

    def rows(self, revs: Sequence[str] | None = None) -> Iterator[list[Row]]:
        """Yield the rows of *revs*, or all there are in the order they were written, some at a time.

        What is damaged is left out.
        """
        if revs is None:
            yield from self._rows(_SELECT, ())
        for place in range(0, len(revs or ()), SLICE):
            some = (revs or ())[place : place + SLICE]
            yield from self._rows(f"{_SELECT} AND rev IN ({', '.join('?' * len(some))})", some)

    def _rows(self, query: str, values: Sequence[str]) -> Iterator[list[Row]]:
        for some in self._ask(query, (self._folder, *values)):
            yield sound_rows(some)

    def _ask(self, query: str, values: Sequence[str] = ()) -> Iterator[list[tuple[Any, ...]]]:
        """Yield what the index answers, some at a time, until it has no more to say, is found damaged, or stays busy."""
        with self._careful():
            file = self._reached(create=False)
            found = None if file is None else file.execute(query, values)
            while found is not None and (some := found.fetchmany(SLICE)):
                yield some

    # ---- write ----

    def add(self, rows: Sequence[Row], others: Mapping[bytes, Others]) -> None:
        """Keep *rows*, and of *others* what they share; give up when another process is writing for long."""
        if not rows:
            return
        with self._careful():
            file = self._reached(create=True)
            if file is None:
                return
            contents = [(id, pack_others(others[id])) for id in {row.others for row in rows} if id]
            breath = Breath()
            with _transaction(file):
                file.executemany(
                    "INSERT OR REPLACE INTO others VALUES (?, ?, ?)", [(*each, checksum(*each)) for each in contents]
                )
                for place in range(0, len(rows), SLICE):
                    breath()
                    file.executemany(
                        _INSERT,
                        [
                            (row.rev, self._folder, *row[1:], checksum(row.rev.encode(), *row[1:]))
                            for row in rows[place : place + SLICE]
                        ],
                    )

    def prune(self, used: Collection[str]) -> None:
        """Remove the rows of other revs than those *used*."""
        with self._careful():
            file = self._reached(create=False)
            if file is None:
                return
            with _transaction(file):
                held = [rev for (rev,) in file.execute("SELECT rev FROM records WHERE folder = ?", (self._folder,))]
                gone = [(rev, self._folder) for rev in held if rev not in used]
                file.executemany("DELETE FROM records WHERE rev = ? AND folder = ?", gone)
                file.execute("DELETE FROM others WHERE id NOT IN (SELECT others FROM records)")

    # ---- the file ----

    @contextmanager
    def _careful(self) -> Iterator[None]:
        """Go on without the index when something is wrong with it; what is damaged is taken away, to be made anew."""
        try:
            yield
        except (self._sqlite.Error, AexpError, OSError, OverflowError, TypeError, ValueError) as error:
            self.close()
            if isinstance(error, self._sqlite.Error) and _is_damage(error):
                with suppress(OSError):
                    _take_away(self._path)
            else:
                self._given_up = True

    def _reached(self, *, create: bool) -> "Connection | None":
        """Return the file, opened; None when it was given up, or is not there in this version and not to be made."""
        if self._connection is None and not self._given_up and _is_file(self._path, missing=create):
            if create:
                make_folders(os.path.dirname(self._path), durable=False)
            mode = "rwc" if create else "rw"  # where nothing can be written, "rw" opens it for reading
            path = self._path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
            address = f"file:{path}?mode={mode}"
            file = self._sqlite.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)
            try:
                file.execute("PRAGMA synchronous = OFF")  # after a power cut it may be damaged, and is made anew
                if _version(file) == VERSION or (create and _make_tables(file)):
                    self._connection = file
            finally:
                if self._connection is None:
                    file.close()
        return self._connection

    def close(self) -> None:
        """Let the file go."""
        file, self._connection = self._connection, None
        if file is not None:
            file.close()


def _is_file(path: str, *, missing: bool) -> bool:
    """Say whether *path* is a file: anything else, a pipe say, is not opened; *missing* is what a path is that is not there."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return missing


def _is_damage(error: "Error") -> bool:
    """Say whether the file is to blame; an error without a code is Python's own: a column holds what it should not."""
    return getattr(error, "sqlite_errorcode", _CORRUPT) & 0xFF in _DAMAGE


def _take_away(path: str) -> None:
    for ending in ("", "-journal", "-wal", "-shm"):
        remove(path + ending)


def _version(file: "Connection") -> int:
    (version,) = file.execute("PRAGMA user_version").fetchone()
    return int(version)


def _make_tables(file: "Connection") -> bool:
    """Make the tables of this version in place of any others, unless another process has just done so."""
    with _transaction(file):
        if _version(file) != VERSION:
            kept = file.execute("SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
            for kind, name in kept:
                file.execute(f'DROP {kind} IF EXISTS "{name}"')
            for table in (_RECORDS, _OTHERS):
                file.execute(table)
            file.execute(f"PRAGMA user_version = {VERSION}")
    return True


@contextmanager
def _transaction(file: "Connection") -> Iterator[None]:
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if file.in_transaction:
            file.execute("ROLLBACK")
        raise
    file.execute("COMMIT")
