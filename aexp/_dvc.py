"""The `.dvc` folder of a work tree: which one counts, where its cache lies, what `dvc exp show` remembers there."""

import configparser
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from ._files import make_folders, replace

FOLDER: Final = ".dvc"
_HASH: Final = r"[0-9a-f]{32}(\.dir)?"


def find_root(path: str, worktree: str | None) -> str | None:
    """Return the DVC repository that *path* is in, as DVC looks for it: upward, here at most to the top of *worktree*."""
    if worktree is None:
        return None
    folder = os.path.realpath(path)
    while folder == worktree or folder.startswith(f"{worktree}{os.sep}"):
        if os.path.isdir(os.path.join(folder, FOLDER)):
            return folder
        folder = os.path.dirname(folder)
    return None


def read_cached(hash: str, place: str, tops: tuple[str, ...], limit: int) -> bytes | None:
    """Return the content that DVC's cache keeps under *hash*, or None when it is not there or above *limit* bytes.

    *place* is the path of the file that has the content; the cache is that of the nearest `.dvc` folder above it, in
    one of the work trees *tops*.
    """
    if re.fullmatch(_HASH, hash) is None:
        return None
    for cache in _caches(place, tops):
        with suppress(OSError), open(os.path.join(cache, "files", "md5", hash[:2], hash[2:]), "rb") as file:
            content = file.read(limit + 1)
            return content if len(content) <= limit else None
    return None


def _caches(place: str, tops: tuple[str, ...]) -> Iterator[str]:
    for top in tops:
        folder = os.path.dirname(place)
        while True:
            found = os.path.join(top, folder, FOLDER)
            if os.path.isdir(found):
                yield _cache_of(found)
                break
            if not folder:
                break
            folder = os.path.dirname(folder)


def _cache_of(folder: str) -> str:
    """Return the cache that the configuration in *folder* names, relative to itself; by default it is in *folder*."""
    cache = "cache"
    for name in ("config", "config.local"):
        parser = configparser.RawConfigParser(strict=False)
        with suppress(OSError, configparser.Error, UnicodeDecodeError):
            parser.read(os.path.join(folder, name), encoding="utf-8")
            cache = parser.get("cache", "dir", fallback=cache).strip("'\"")
    return os.path.join(folder, cache)


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
