"""Lay an experiment's files into the work tree, for the run of DVC that will commit them (docs/decisions/0019)."""

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import partial

from ._files import Breath, make_folders, read, remove, replace, translating
from ._formats.account import artifacts_of
from ._formats.artifacts import artifact_files
from ._formats.experiment import record
from ._formats.gitobjects import EXECUTABLE, FILE, SYMLINK
from ._formats.images import SUFFIXES
from ._git import run
from ._job import Job, contents_of
from ._layout import CUSTOM, IMAGES, SERIES
from ._store import Store
from ._values import Record
from .errors import AexpError, UnsafePath


def lay(store: Store, jobs: Sequence[Job]) -> list[Record | Exception]:
    """Write the files of *jobs* into the work tree and stage them; an answer is the record, without a rev, or why not.

    DVC's run commits what is staged when it ends, on the ref that the record names.
    """
    answers: list[Record | Exception] = []
    for job in jobs:
        try:
            answers.append(_lay(store, job))
        except (AexpError, OSError, ValueError) as error:
            answers.append(error)
    return answers


def _lay(store: Store, job: Job) -> Record:
    handle, intent = store.handle, job.intent
    assert handle.worktree is not None  # a run has one (_way.py)
    found = contents_of(job)
    breath = Breath()
    files = [*((path, FILE, content) for path, content in found.own.items()), *found.files]
    for path, mode, content in files:
        breath()
        _write(handle.worktree, path, mode, content)
    for path, kept in artifact_files(*artifacts_of(intent), partial(_content, handle.worktree)).items():
        if kept is not None:  # the data itself stays where it is
            _write(handle.worktree, path, FILE, kept)
            files.append((path, FILE, kept))
    written = {path for path, _, content in files if content is not None}
    _forget_drawn(handle.worktree, intent.folder, written)
    run(
        handle,
        "add",
        "--force",
        "--",
        intent.folder,
        *(path for path in written if not path.startswith(f"{intent.folder}/")),
    )
    others = store.library.others(intent.tree, intent.folder)
    return record("", intent.ref, intent.experiment, found.summary, intent.folder, others)


def _content(worktree: str, path: str) -> bytes:
    with suppress(FileNotFoundError, NotADirectoryError):
        return read(os.path.join(worktree, path))
    return b""


def _write(worktree: str, path: str, mode: int, content: bytes | None) -> None:
    place = os.path.join(worktree, path)
    folder = os.path.dirname(place)
    with translating(place):
        make_folders(folder, durable=False)
        if os.path.realpath(folder) != folder or os.path.islink(place):
            raise UnsafePath(path, "a symbolic link stands in the way, and it may lead out of the repository")
        if content is None:
            remove(place)
        elif mode == SYMLINK:
            remove(place)
            os.symlink(content, os.fsencode(place))
        else:
            replace(place, content, mode=0o755 if mode == EXECUTABLE else 0o644)


def _forget_drawn(worktree: str, folder: str, written: Collection[str]) -> None:
    """Remove the series, images and plots of an earlier experiment, which would be shown as this one's."""
    for drawn, suffixes in ((SERIES, (".tsv",)), (IMAGES, SUFFIXES), (CUSTOM, (".json",))):
        for place, _, names in os.walk(os.path.join(worktree, folder, drawn)):
            for name in names:
                path = os.path.join(place, name)
                if name.lower().endswith(suffixes) and os.path.relpath(path, worktree) not in written:
                    remove(path)
