"""What `dvc exp show` will say of new commits, written where DVC looks for it: its first table is as fast as its second.

A row is written when it is certain what DVC would say, byte by byte; otherwise DVC finds it out by itself.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from attrs import define

from . import _dvc
from ._files import Breath
from ._formats.gitobjects import Entry, Kind, edit_tree, object_id, parse_commit, parse_tree
from ._formats.shown import Files, shown, spelled
from ._git import open_handle, read_object
from ._layout import METRICS, PARAMS
from ._pipelines import Pipelines
from ._values import Record
from .errors import AexpError


@define(eq=False, repr=False)
class Preview:
    """Writes the rows of one DVC repository; it lives in one thread and never leaves it."""

    library: Pipelines
    root: str
    """The folder that holds `.dvc`."""

    def write(self, records: Sequence[Record], folder: str) -> None:
        """Write the rows of *records*, whose own files are in *folder*; nothing of it matters enough to raise."""
        breath = Breath()
        for record in records:
            breath()
            with suppress(OSError, AexpError, ValueError, TypeError, RecursionError):
                row = self._row(record, folder)
                if row is not None:
                    _dvc.remember(self.root, record.rev, row)

    def _row(self, record: Record, folder: str) -> bytes | None:
        """Return the row of *record*; None when DVC may see something in the tree that we do not."""
        library = self.library
        commit = parse_commit(read_object(library.handle, record.rev)[1])
        objects: dict[bytes, tuple[Kind, bytes]] = {}

        def read(id: bytes) -> dict[bytes, Entry]:
            return parse_tree((objects.get(id) or read_object(library.handle, id))[1])

        def write(kind: Kind, content: bytes) -> bytes:
            id = object_id(kind, content)
            objects[id] = (kind, content)
            return id

        around = edit_tree(bytes.fromhex(commit.tree), {}, read, write, replace=(folder,))
        top = os.path.relpath(self.root, library.handle.worktree or self.root)
        own = folder
        if top != ".":  # a DVC repository in a folder sees nothing but that
            for part in top.split(os.sep):
                entry = read(around).get(os.fsencode(part))
                if entry is None:
                    return None
                around = entry.id
            if not folder.startswith(f"{top}/"):
                return None
            own = folder.removeprefix(f"{top}/")
        others = library.others(around.hex(), own, objects, data=True)
        if not others.exact:
            return None
        ours = (f"{folder}/{PARAMS}", f"{folder}/{METRICS}")
        params = _put(others.params, others.places[0], f"{own}/{PARAMS}", spelled(record.params_by_file[ours[0]]))
        metrics = _put(others.metrics, others.places[1], f"{own}/{METRICS}", spelled(record.metrics_by_file[ours[1]]))
        made = datetime.fromtimestamp(commit.committer.time)  # noqa: DTZ006  # local and naive, as DVC has it
        return shown(record.rev, made, params, metrics, others.data)


def _put(files: Files, place: int, path: str, content: Mapping[str, Any]) -> Files:
    """Return *files* with one more, at *place* in their order."""
    pairs = list(files.items())
    return dict([*pairs[:place], (path, content), *pairs[place:]])


def open_preview(path: str, root: str) -> Preview:
    """Return the preview for the DVC repository at *root*, in the Git repository that *path* is in."""
    return Preview(Pipelines(open_handle(path)), root)
