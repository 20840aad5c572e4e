"""Where a session runs: process, host, user, Python, installed packages."""

import getpass
import hashlib
import os
import platform
import socket
import sys
from importlib.metadata import distributions
from typing import Any

from ._files import Breath, read


def owner() -> dict[str, Any]:
    """Return who holds a session, for people to read: process, when it was started, boot, host, user."""
    return {
        "pid": os.getpid(),
        "started": _ticks(),
        "boot": _boot(),
        "host": socket.gethostname(),
        "user": getpass.getuser(),
        "python": platform.python_version(),
    }


def origin() -> dict[str, str]:
    """Return what an experiment records of the machine: host, user, Python, and a digest of the installed packages."""
    return {
        "host": socket.gethostname(),
        "user": getpass.getuser(),
        "python": f"{platform.python_version()} {sys.platform}",
        "packages": packages_digest(),
    }


def packages_digest() -> str:
    """Return the SHA-256 of the sorted lines `name==version` of every installed distribution."""
    breath, lines = Breath(), set()
    for distribution in distributions():
        breath()
        name = distribution.metadata["Name"]
        if name:
            lines.add(f"{name.lower()}=={distribution.version}")
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


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
