"""Experiments that are pushed by themselves: the list of what waits to be, and of what became of the others.

The list, `aexp/pushes` in the common Git directory, only grows while it is used, by single writes of whole lines, so
that no process ever waits for another to add to it; whoever pushes holds the lock on `aexp/pushing`, and makes it short again.
"""

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ._files import Breath, lock, sync, sync_folder, write_all
from ._layout import ROOT

if TYPE_CHECKING:
    from ._formats.pushes import Pushes

LONG: Final = 2_000
"""How many lines more than it says the list may have before it is written anew."""


def path_of(common: str) -> str:
    """Return where the list is."""
    return os.path.join(common, ROOT, "pushes")


def announce(common: str, remote: str | None, revs: Sequence[str]) -> None:
    """Note that *revs* are to be pushed to *remote*; called before their refs stand, so that a kill forgets none.

    A note that cannot be written costs an automatic push, so nothing is raised. Without a remote, it does nothing.
    """
    if remote is None or not revs:
        return
    from ._remotes import redacted

    with suppress(OSError):
        tell(common, [("waiting", rev, "") for rev in revs], redacted(remote))


def pushes_of(common: str, breath: Callable[[], None] | None = None) -> "Pushes | None":
    """Return what the list says; None when there is none that can be read."""
    try:
        with open(path_of(common), "rb") as file:
            content = file.read()
    except OSError:
        return None
    from ._formats.pushes import parse_pushes

    return parse_pushes(content, breath or Breath())


def tell(common: str, told: Sequence[tuple[str, str, str]], remote: str) -> None:
    """Add lines, (kind, rev, reason) each; should the list be written anew in this moment, add them to the new one, too."""
    from ._formats.pushes import line

    text, now = bytearray(), time.time()
    for kind, rev, reason in told:
        text += line(kind, now, remote, rev, reason)
    for _ in range(3):
        descriptor = os.open(path_of(common), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            write_all(descriptor, bytes(text))
            mine = os.fstat(descriptor).st_ino
        finally:
            os.close(descriptor)
        with suppress(FileNotFoundError):
            if os.stat(path_of(common)).st_ino == mine:
                return


def hold(common: str) -> int | None:
    """Take the right to push, for as long as the descriptor lives; None when another process has it."""
    place = os.path.join(common, ROOT, "pushing")
    os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    held = lock(place)
    if held is not None:  # what was noted so far survives a power cut from here on
        with suppress(FileNotFoundError):
            descriptor = os.open(path_of(common), os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)
    return held


def shorten(common: str, standing: Collection[str]) -> None:
    """Write the list anew when most of its lines say nothing any more; what is added meanwhile goes over to the new one."""
    from ._formats.pushes import dump_pushes, parse_pushes

    place, new = path_of(common), f"{path_of(common)}.new"
    with open(place, "rb") as file:
        found = parse_pushes(file.read(), Breath())
        if found.lines < len(found.known) + LONG:
            return
        with suppress(FileNotFoundError):
            os.unlink(new)
        target = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            write_all(target, dump_pushes(found, frozenset(standing)))
            sync(target)
            os.rename(new, place)
            write_all(target, file.read())
        finally:
            os.close(target)
    sync_folder(os.path.dirname(place))
