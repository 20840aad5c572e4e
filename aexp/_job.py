"""One commit that is wanted, and all that it will hold besides the code: read from the journal."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from . import _sessions
from ._files import Breath
from ._formats.account import Intent
from ._formats.experiment import folder_files, joined, summary, summary_tree
from ._formats.files import Files
from ._formats.journal import Extents, Kind
from ._formats.series import Points, collect
from ._layout import IMAGES


@frozen(eq=False, repr=False)
class Job:
    """One commit to make: the intent that stands in a journal at `sequence`, and where its points and files lie."""

    intent: Intent
    sequence: int
    folder: str
    session: str
    extents: Extents


@frozen(eq=False, repr=False)
class Contents:
    """What a commit adds to the code: the summary, and the content of every file by its path."""

    summary: Mapping[str, Any]
    own: Mapping[str, bytes]
    """The files of the experiment's own folder, which holds no others."""
    files: Files
    """What else was logged."""


def contents_of(job: Job) -> Contents:
    """Return what the commit of *job* adds: a pure function of the journal up to the intent."""
    intent, metrics, files = job.intent, dict[str, Points](), Files()
    for kind, payload in _sessions.read_extents(job.folder, job.session, job.extents, intent.number, job.sequence):
        if kind == Kind.POINTS:
            collect([payload[1]], metrics)
        else:
            files.add(kind, payload)
    highest = max((max(points.steps) for points in metrics.values()), default=0)
    tree = summary_tree(summary(metrics), max(highest, intent.experiment["step"]))
    own: dict[str, bytes] = {}
    breath = Breath()
    images = files.has_below(f"{intent.folder}/{IMAGES}")
    for path, parts in folder_files(intent, metrics, tree, images=images):
        breath()
        own[f"{intent.folder}/{path}"] = joined(parts)
    return Contents(tree, own, files)
