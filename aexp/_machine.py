"""Where a session runs: process, host, user, Python, installed packages."""

import hashlib
import os
import platform
import pwd
import re
import socket
import sys
from contextlib import suppress
from typing import Any

from ._files import Breath, read


def owner() -> dict[str, Any]:
    """Return who holds a session, for people to read: process, when it was started, boot, host, user."""
    return {
        "pid": os.getpid(),
        "started": _ticks(),
        "boot": _boot(),
        "host": socket.gethostname(),
        "user": user(),
        "python": platform.python_version(),
    }


def origin() -> dict[str, str]:
    """Return what an experiment records of the machine: host, user, Python, and a digest of the installed packages."""
    return {
        "host": socket.gethostname(),
        "user": user(),
        "python": f"{platform.python_version()} {sys.platform}",
        "packages": packages_digest(),
    }


def packages_digest() -> str:
    """Return the SHA-256 of the sorted names and versions of what is installed, read off the names of its metadata folders.

    (`NAME-VERSION.dist-info`, PEP 376; `importlib.metadata` would read every file, and costs more to import than we do.)
    """
    breath, names = Breath(), set[str]()
    for place in sys.path:
        breath()
        with suppress(OSError):
            names.update(name for name in os.listdir(place or ".") if name.endswith((".dist-info", ".egg-info")))
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def file_system(path: str) -> str:
    """Return the type of the file system that *path* lies on, as Linux calls it; "" where that cannot be told."""
    try:
        lines = read("/proc/self/mounts").decode(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    found, kind = "", ""
    for line in lines:
        _, place, type, *_ = line.split(" ")
        place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)
        if len(place) >= len(found) and os.path.join(path, "").startswith(os.path.join(place, "")):
            found, kind = place, type
    return kind


def user() -> str:
    """Return the name of the user this process runs as."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _ticks() -> int:
    try:
        return int(read("/proc/self/stat").rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def _boot() -> str:
    try:
        return read("/proc/sys/kernel/random/boot_id").decode().strip()
    except OSError:
        return ""


def at_work(folder: str, variable: str) -> bool | None:
    """Say whether a process works in *folder*; None where that cannot be told.

    It stands there, has a file there open, or has the environment *variable*. Linux tells it, of the processes of the
    same user. Files that our own process has open do not count.
    """
    try:
        processes = [name for name in os.listdir("/proc") if name.isdecimal()]
    except FileNotFoundError:
        return None
    breath, mark, ours = Breath(), os.fsencode(variable), str(os.getpid())
    for process in processes:
        place = f"/proc/{process}"
        with suppress(OSError):
            if mark in read(f"{place}/environ").split(b"\0"):
                return True
            files = [] if process == ours else [f"{place}/fd/{name}" for name in os.listdir(f"{place}/fd")]
            for link in (f"{place}/cwd", *files):
                breath()
                with suppress(OSError):
                    found = os.readlink(link).removesuffix(" (deleted)")
                    if found == folder or found.startswith(f"{folder}/"):
                        return True
    return False
