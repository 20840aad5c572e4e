"""The board: running experiments where `dvc exp show` looks for those of `dvc exp run --temp` (interop reference, 3.3b).

DVC lists `.dvc/tmp/exps/standalone/run/` once, and then opens what it has listed, one after the other, for seconds when
there are many; something missing there ends it with an error. So a place on the board is made and taken away by one
rename, marked as finished long before it goes, and used again for the experiments that follow.
"""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
from attrs import define, field, frozen

from . import _dvc, _git, _sessions
from ._files import Breath, make_folders
from ._formats.experiment import summary_tree
from ._formats.sections import pipeline
from ._formats.series import Number
from ._layout import METRICS, PARAMS, PIPELINE

DVC: Final = ".dvc"
RUNS: Final = os.path.join(DVC, "tmp", "exps", "standalone", "run")
OURS: Final = os.path.join(DVC, "tmp", "aexp")
SETTLE: Final = 60.0
"""Seconds after which no `dvc exp show` is under way that listed a place before it was marked as finished (decision 0041)."""
REST: Final = 10.0
"""Seconds before a place is used again: who listed it meanwhile may still read it, and would take the next for the last."""
MANY: Final = 256
"""From how many places on they are used again at once."""
IDLE: Final = 60.0
"""Seconds after which a place that nobody uses is taken away."""
_RUNNING: Final = 2
_FINISHED: Final = 6
"""`dvc.repo.experiments.executor.base.TaskStatus`."""


@frozen
class Row:
    """What the board shows of an experiment."""

    id: str
    name: str
    baseline: str
    params: str
    """The text of params.yaml."""
    summary: Mapping[str, Number]
    step: int


@define(eq=False, repr=False)
class _Place:
    """A place on the board, and the experiment it shows."""

    id: str
    row: Row | None = None
    since: float = 0.0
    """When it became free, by the monotonic clock."""


@define(eq=False, repr=False)
class Board:
    """The places of one session below the DVC repository at *root*."""

    root: str
    folder: str
    """aexp's folder of the commits."""
    session: str
    _places: list[_Place] = field(factory=list)
    _made: int = 0
    _baselines: set[str] = field(factory=set)

    @property
    def empty(self) -> bool:
        """Say whether nothing was put up, or all was taken away."""
        return not self._places

    def show(self, rows: Sequence[Row]) -> None:
        """Show *rows* and nothing else: only files that change are written, each in one step. Raises `OSError`."""
        breath, now = Breath(), time.monotonic()
        wanted = {row.id: row for row in rows}
        for place in self._places:
            breath()
            row = place.row and wanted.pop(place.row.id, None)
            if row is not None:
                self._fill(place, row)
                place.row = row
            elif place.row is not None:
                self._finish(place, now)
        free = sorted((place for place in self._places if place.row is None), key=lambda place: place.since)
        for row in wanted.values():
            breath()
            rested = free and (now - free[0].since > REST or len(self._places) >= MANY)
            self._begin(free.pop(0) if rested else self._new_place(), row)
        for place in free:
            if now - place.since > IDLE:
                self._take_away(place)

    def close(self) -> None:
        """Mark every place as finished, so that DVC shows none of them, and take away what has been so for a while.

        The rest goes with the next `sweep`: nobody waits here for a DVC that may be looking.
        """
        now = time.monotonic()
        for place in list(self._places):
            if place.row is not None:
                self._finish(place, now)
            elif now - place.since > SETTLE:
                self._take_away(place)
        if not self._places:
            _take_down(self.root, self.session)

    # ---- places ----

    @property
    def _home(self) -> str:
        return os.path.join(self.root, OURS, self.session)

    def _new_place(self) -> _Place:
        if not self._places:
            check_plain(self.root)
        self._made += 1
        id = place_id(self.session, self._made)
        home = os.path.join(self._home, id)
        for folder in (DVC, self.folder):
            make_folders(os.path.join(home, folder), durable=False)
        self._write(os.path.join(home, DVC, ".gitignore"), b"/config.local\n/tmp\n/cache\n/site\n")
        self._write(os.path.join(home, DVC, "config"), _config(os.path.join(home, DVC, "site")))
        self._write(os.path.join(home, self.folder, PIPELINE), pipeline(False))
        place = _Place(id)
        self._places.append(place)
        return place

    def _begin(self, place: _Place, row: Row) -> None:
        home = os.path.join(self._home, place.id)
        self._write(os.path.join(home, ".git"), f"gitdir: {self._git_folder(row.baseline)}\n".encode())
        self._fill(place, row)
        entry = os.path.join(self.root, RUNS, place.id)
        if os.path.isdir(entry):
            self._write(os.path.join(entry, f"{place.id}.run"), self._run(place, row, _RUNNING))
        else:
            self._put_up(place, row, entry)
        place.row = row

    def _put_up(self, place: _Place, row: Row, entry: str) -> None:
        made = os.path.join(self._home, "entry")
        shutil.rmtree(made, ignore_errors=True)
        make_folders(made, durable=False)
        make_folders(os.path.dirname(entry), durable=False)
        process = {"pid": os.getpid(), "stdin": None, "stdout": None, "stderr": None, "returncode": None}
        self._write(os.path.join(made, f"{place.id}.json"), orjson.dumps(process))
        self._write(os.path.join(made, f"{place.id}.run"), self._run(place, row, _RUNNING))
        os.rename(made, entry)

    def _fill(self, place: _Place, row: Row) -> None:
        """Write what has changed of the experiment since it was shown last."""
        home, before = os.path.join(self._home, place.id, self.folder), place.row
        if before is None or before.params != row.params:
            self._write(os.path.join(home, PARAMS), row.params.encode())
        if before is None or (before.summary, before.step) != (row.summary, row.step):
            self._write(os.path.join(home, METRICS), orjson.dumps(summary_tree(row.summary, row.step)))

    def _finish(self, place: _Place, now: float) -> None:
        assert place.row is not None
        entry = os.path.join(self.root, RUNS, place.id)
        self._write(os.path.join(entry, f"{place.id}.run"), self._run(place, place.row, _FINISHED))
        place.row, place.since = None, now

    def _take_away(self, place: _Place) -> None:
        self._places.remove(place)
        _take_away(self.root, self.session, place.id)

    def _run(self, place: _Place, row: Row, status: int) -> bytes:
        """Return DVC's `ExecutorInfo`."""
        return orjson.dumps(
            {
                "git_url": f"file://{self.root}",
                "baseline_rev": row.baseline,
                "location": "tempdir",
                "root_dir": os.path.join(self._home, place.id),
                "dvc_dir": DVC,
                "name": row.name,
                "wdir": ".",
                "result_hash": None,
                "result_ref": None,
                "result_force": False,
                "status": status,
            }
        )

    def _git_folder(self, baseline: str) -> str:
        """Return the Git directory, empty but for a HEAD, that all places on one *baseline* share."""
        name = f"git-{baseline}"
        if baseline not in self._baselines:
            made = os.path.join(self._home, "git")
            shutil.rmtree(made, ignore_errors=True)
            _git.make_empty(made)
            self._write(os.path.join(made, "HEAD"), f"{baseline}\n".encode())
            os.rename(made, os.path.join(self._home, name))
            self._baselines.add(baseline)
        return f"../{name}"

    def _write(self, path: str, content: bytes) -> None:
        """Put *content* in the place of the file *path*; nobody needs it after a power cut, so it is not synced."""
        made = os.path.join(self._home, "file")
        with open(made, "wb") as file:
            file.write(content)
        os.replace(made, path)


def place_id(session: str, number: int) -> str:
    """Return the id of a place: 40 hex digits, as DVC shows them, which only *session* can have made."""
    return hashlib.sha1(f"aexp {session} {number}".encode(), usedforsecurity=False).hexdigest()


def check_plain(root: str) -> None:
    """Raise `NotADirectoryError` when a symbolic link leads out of where the board stands."""
    for path in (RUNS, OURS):
        place = os.path.join(root, path)
        if os.path.realpath(place) != os.path.join(os.path.realpath(root), path):
            raise NotADirectoryError(f"{place} leads somewhere else")


def sweep(handle: _git.Handle, path: str) -> str | None:
    """Take away what dead sessions have put up in the DVC repository of *path*, and return that; None without one.

    The names in `OURS` say what is whose.
    """
    root = _dvc.find_root(path, handle.worktree)
    if root is not None:
        with suppress(OSError):  # somebody else does it, too, or nothing can be written
            _sweep(root, handle.common)
    return root


def _sweep(root: str, common: str) -> None:
    try:
        check_plain(root)
        sessions = os.listdir(os.path.join(root, OURS))
    except OSError:  # nothing there, or nothing that we could change
        return
    dead = [id for id in sessions if re.fullmatch("[0-9a-f]{32}", id) and not _sessions.is_alive(common, id)]
    for id in dead:
        left = [place for place in _places(root, id) if _may_be_seen(root, id, place)]
        for place in set(_places(root, id)).difference(left):
            _take_away(root, id, place)
        if not left:
            _take_down(root, id)


def _places(root: str, session: str) -> list[str]:
    return [name for name in os.listdir(os.path.join(root, OURS, session)) if re.fullmatch("[0-9a-f]{40}", name)]


def _may_be_seen(root: str, session: str, place: str) -> bool:
    """Say whether a DVC that is under way may still open what a dead session has put up; mark it as finished."""
    path = os.path.join(root, RUNS, place, f"{place}.run")
    with suppress(OSError, ValueError):
        with open(path, "rb") as file:
            told: dict[str, Any] = orjson.loads(file.read())
        if told["status"] == _FINISHED:
            return time.time() - os.stat(path).st_mtime < SETTLE
        made = os.path.join(root, OURS, session, "file")
        with open(made, "wb") as file:
            file.write(orjson.dumps({**told, "status": _FINISHED}))
        os.replace(made, path)
        return True
    return False


def _take_away(root: str, session: str, place: str) -> None:
    home = os.path.join(root, OURS, session)
    gone = os.path.join(home, f"gone-{place}")
    with suppress(FileNotFoundError):
        os.rename(os.path.join(root, RUNS, place), gone)
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(FileNotFoundError):
        os.rename(os.path.join(home, place), gone)
    shutil.rmtree(gone, ignore_errors=True)


def _take_down(root: str, session: str) -> None:
    shutil.rmtree(os.path.join(root, OURS, session), ignore_errors=True)
    with suppress(OSError):
        os.rmdir(os.path.join(root, OURS))


def _config(site: str) -> bytes:
    """Return the configuration of a place: DVC keeps what it remembers of it there, and not for ever in its own folder."""
    return b"" if any(letter in site for letter in "\"'\n#") else f"[core]\n    site_cache_dir = {site}\n".encode()
