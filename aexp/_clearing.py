"""Folders that a program may have left in any state: made readable, and removed whole; no link is followed."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from ._files import Breath

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TRIES: Final = 3
"""How often a folder is emptied into which somebody writes meanwhile."""


def open_up(top: str) -> Iterator[str]:
    """Make the folder *top* and every folder and file below it readable for its owner; remove and yield what is neither file, folder nor link.

    A FIFO in the place of a `.gitignore` would keep Git waiting for ever. The mode of a file with a second name, which
    may stand outside, is left alone. What lies too deep for a path is passed over.
    """
    breath = Breath()
    with suppress(OSError):
        _open(top, os.lstat(top).st_mode)
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                breath()
                with suppress(OSError):
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        _open(entry.path, mode)
                        waiting.append(entry.path)
                    elif stat.S_ISREG(mode):
                        if not mode & 0o400 and entry.stat(follow_symlinks=False).st_nlink == 1:
                            os.chmod(entry.path, mode & 0o777 | 0o600)
                    elif not stat.S_ISLNK(mode):
                        os.unlink(entry.path)
                        yield os.path.relpath(entry.path, top)


def _open(folder: str, mode: int) -> None:
    if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
        os.chmod(folder, mode & 0o777 | 0o700)


def wipe(path: str) -> None:
    """Remove the folder *path* with all below it, whatever its modes and however deep; nothing if it is not there.

    Every folder inside is moved up to *path* before it is emptied, so that neither the length of paths nor the number
    of open folders grows. Raises `OSError` when something cannot be removed, or somebody keeps writing into it.
    """
    for left in reversed(range(TRIES)):
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                return
            os.chmod(path, 0o700)
            top = os.open(path, _FOLDER)
        except FileNotFoundError:
            return
        try:
            _empty(top)
        finally:
            os.close(top)
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not left:
                raise
        else:
            return


def _empty(top: int) -> None:
    breath = Breath()
    waiting = list(_without_files(top))
    while waiting:
        name = waiting.pop()
        try:
            os.chmod(name, 0o700, dir_fd=top)
            folder = os.open(name, _FOLDER, dir_fd=top)
        except FileNotFoundError:
            continue
        try:
            for inner in _without_files(folder):
                breath()
                with suppress(FileNotFoundError):
                    os.chmod(inner, 0o700, dir_fd=folder)  # moving it changes it: its `..` is another one
                    moved = f"{secrets.token_hex(12)}~"
                    os.rename(inner, moved, src_dir_fd=folder, dst_dir_fd=top)
                    waiting.append(moved)
        finally:
            os.close(folder)
        with suppress(OSError):  # somebody writes into it: the next try comes for it
            os.rmdir(name, dir_fd=top)


def _without_files(folder: int) -> Iterator[str]:
    """Remove the files in an open folder, and yield the names of the folders in it."""
    breath = Breath()
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        breath()
        if is_folder:
            yield name
        else:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
