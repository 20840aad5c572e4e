"""Files that a program wrote into the work tree: the outs an experiment names, and what DVCLive leaves.

Every folder on the way is opened in the one above it and never through a symbolic link, so nothing outside the work
tree is read, whatever is moved about meanwhile.
"""

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from fnmatch import fnmatch
from typing import Final

from attrs import define, field, frozen

from ._capture import printable
from ._files import Breath
from ._formats.files import encoded
from ._formats.gitobjects import is_git_folder
from ._formats.params import load_params
from ._store import Store
from ._values import Settings
from .errors import AexpError

PIPELINES: Final = ("dvc.yaml", "dvclive/dvc.yaml")
"""Where DVCLive writes its dvc.yaml: in the folder it runs in, or, when asked to, in its own (interop reference 3.1)."""
LIVE: Final = ("params.yaml", "metrics.json", "plots")
"""What stands in DVCLive's folder."""
LARGE: Final = 2**20
"""A dvc.yaml of more bytes is not looked at."""


NO_TEXT: Final = "a name that is not UTF-8"
BATCH: Final = 8 * 2**20
"""Bytes read before what was put is waited for, so that memory holds no more, however much is taken."""


@define(eq=False, repr=False)
class Taken:
    """What was put into an experiment, and what was left out, with the reasons."""

    files: list[str] = field(factory=list)
    skipped: list[tuple[str, str]] = field(factory=list)


Signature = tuple[int, int, int] | None


@frozen(eq=False, repr=False)
class Before:
    """The folder that a program runs in, and how DVCLive's files stood there before."""

    folder: str
    pipelines: Mapping[str, Signature]
    metrics: Mapping[str, Signature]


Put = Callable[..., None]
"""Takes a path, the content in base 85 (None: what stands there is taken away), and True for an executable file."""


def take(store: Store, paths: Sequence[str], room: int, put: Put, settle: Callable[[], object]) -> Taken:
    """Put the files and folders *paths* of the work tree; as `take_from` otherwise."""
    top = store.handle.worktree
    if top is None:
        return Taken(skipped=[(path, "the repository has no work tree") for path in paths])
    return take_from(top, store.settings, paths, room, put, settle)


def take_from(
    top: str, settings: Settings, paths: Sequence[str], room: int, put: Put, settle: Callable[[], object]
) -> Taken:
    """Put the files and folders *paths*, relative to the folder *top*, up to *room* bytes in all.

    *settle* is called now and then, to wait until what was put is on the disk. A folder replaces the one that the
    experiment's tree has there. What is not there, a symbolic link, no regular file, a secret or too large is left
    out, and said.
    """
    taken, gathered = Taken(), 0
    for path in paths:
        try:
            for place, content, executable in _found(top, path, settings, room, taken, put):
                room, gathered = room - len(content), gathered + len(content)
                put(place, "".join(_breathing(encoded(content))), *([True] if executable else []))
                taken.files.append(place)
                if gathered > BATCH:
                    settle()
                    gathered = 0
        except OSError as error:
            taken.skipped.append((path, _reason(error)))
    return taken


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return f"it cannot be read: {error.strerror}"


def _breathing(slices: Iterator[str]) -> Iterator[str]:
    breath = Breath()
    for each in slices:
        breath()
        yield each


def _found(
    top: str, path: str, settings: Settings, room: int, taken: Taken, put: Put
) -> Iterator[tuple[str, bytes, bool]]:
    *folders, last = path.split("/")
    above = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in folders:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            os.close(above)
            above = inner
        if stat.S_ISDIR(os.stat(last, dir_fd=above, follow_symlinks=False).st_mode):
            put(path, None)
        yield from _below(above, last, path, settings, room, taken)
    finally:
        os.close(above)


def _below(
    above: int, name: str, path: str, settings: Settings, room: int, taken: Taken
) -> Iterator[tuple[str, bytes, bool]]:
    """Yield the file *name* of the open folder *above*, or all files below the folder of that name."""
    found = os.stat(name, dir_fd=above, follow_symlinks=False)
    reason = _refusal(name, found, settings) if is_text(name) else NO_TEXT
    if reason is not None:
        taken.skipped.append((printable(path), reason))
        return
    if not stat.S_ISDIR(found.st_mode):
        content = _content(above, name, settings.file_limit, room)
        if isinstance(content, str):
            taken.skipped.append((path, content))
        else:
            yield path, content, bool(found.st_mode & 0o100)
        return
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    try:
        with closing(os.scandir(folder)) as entries:
            names = sorted(entry.name for entry in entries)
        for each in names:
            try:
                for place in _below(folder, each, f"{path}/{each}", settings, room, taken):
                    room -= len(place[1])
                    yield place
            except FileNotFoundError:
                continue  # it went away meanwhile
    finally:
        os.close(folder)


def is_text(path: str) -> bool:
    """Say whether *path* is UTF-8, as a journal needs it."""
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def _refusal(name: str, found: os.stat_result, settings: Settings) -> str | None:
    if is_git_folder(os.fsencode(name)):
        return "Git's own folder, on some file system"
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link"
    if stat.S_ISDIR(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file"
    if any(fnmatch(name.lower(), pattern.lower()) for pattern in settings.secret_files):
        return "the name of a file that holds secrets"
    return f"larger than {settings.file_limit} bytes" if found.st_size > settings.file_limit else None


def _content(above: int, name: str, limit: int, room: int) -> bytes | str:
    """Return what the file holds, or why it is left out; it may have become another since it was looked at."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=above)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return "not a regular file"
        content = file.read(limit + 1)
    if len(content) > limit:
        return f"larger than {limit} bytes"
    return content if len(content) <= room else "too much data in all"


# ---- DVCLive ----


def before(_: Store, folder: str) -> Before:
    """Look at DVCLive's files in *folder*, before a program runs there."""
    place = os.path.realpath(folder)
    pipelines = {path: _signature(os.path.join(place, path)) for path in PIPELINES}
    metrics = {path: _signature(path) for pipeline in PIPELINES for path in _metrics(os.path.join(place, pipeline))}
    return Before(place, pipelines, metrics)


def written(store: Store, before: Before) -> list[str]:
    """Return the paths, relative to the top of the work tree, that DVCLive has written since *before*."""
    top, paths = store.handle.worktree, list[str]()
    if top is None:
        return paths
    for pipeline, signature in before.pipelines.items():
        place = os.path.join(before.folder, pipeline)
        for metrics in _metrics(place):
            now = _signature(metrics)
            if now is None or now == before.metrics.get(metrics):
                continue
            folder = os.path.dirname(metrics)
            paths += [path for name in LIVE if os.path.lexists(path := os.path.join(folder, name))]
            if _signature(place) != signature:
                paths.append(place)
    found = [os.path.relpath(path, os.path.realpath(top)) for path in dict.fromkeys(paths)]
    return [path for path in found if not path.startswith("..")]


def _metrics(pipeline: str) -> Iterator[str]:
    """Yield the paths that a dvc.yaml names as metrics at its top level, as DVCLive calls them."""
    sections: Mapping[str, object] = {}
    with suppress(OSError, AexpError), open(pipeline, "rb") as file:
        sections = load_params(file.read(LARGE), pipeline)
    named = sections.get("metrics")
    for each in named if isinstance(named, list) else ():
        if isinstance(each, str) and os.path.basename(each) == "metrics.json" and os.path.dirname(each):
            yield os.path.realpath(os.path.join(os.path.dirname(pipeline), each))


def _signature(path: str) -> Signature:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None
