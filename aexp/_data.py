"""Data that an experiment keeps by its content."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class Artifact:
    """A file or folder that is kept by its content: `hash` is its MD5, with `.dir` behind it for a folder.

    `name` is what dvc.yaml calls it; `path` is relative to the top of the repository; `size` is in bytes, of a folder
    those of all its `files`, whose number is None for a single file. The rest is what its experiment said of it.
    """

    name: str
    path: str
    type: str | None = None
    desc: str | None = None
    labels: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(factory=dict, hash=False)
    hash: str
    size: int
    files: int | None = None
    executable: bool = False
