"""The `.dvc` folder of a work tree: which one counts, and what `dvc exp show` remembers there."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from ._files import make_folders, replace

FOLDER: Final = ".dvc"


def find_root(path: str, worktree: str | None) -> str | None:
    """Return the DVC repository that *path* lies in, at the top of *worktree* at most; None without one."""
    if worktree is None:
        return None
    place = os.path.realpath(path)
    if os.path.commonpath([place, worktree]) != worktree:
        place = worktree
    while not os.path.isfile(os.path.join(place, FOLDER, ".gitignore")):  # without it our files would show up in Git
        if place == worktree:
            return None
        place = os.path.dirname(place)
    return place


def roots_above(place: str, tops: Iterable[str]) -> Iterator[str]:
    """Yield, for each of the work trees *tops*, the DVC repository that the path *place* in it belongs to."""
    for top in tops:
        folder = os.path.dirname(place)
        while folder and not os.path.isdir(os.path.join(top, folder, FOLDER)):
            folder = os.path.dirname(folder)
        if os.path.isdir(os.path.join(top, folder, FOLDER)):
            yield os.path.join(top, folder)


def remember(root: str, rev: str, entry: bytes) -> None:
    """Write what `dvc exp show` would remember of the commit *rev*, unless it does already; it is whole or not there.

    It is a cache, so nothing is synced, and nothing is written where a link leads out of *root*. Raises `OSError`.
    """
    folder = os.path.join(root, FOLDER, "tmp", "exps", "cache", rev[:2])
    path = os.path.join(folder, rev[2:])
    if os.path.realpath(folder) != folder or os.path.lexists(path):
        return
    make_folders(folder, durable=False)
    replace(path, entry)
