"""Process groups: a signal to all that a program started and that stayed with it, and whether any of them is alive."""

import os
from contextlib import suppress

from ._files import Breath, read


def send(group: int, number: int) -> bool:
    """Send a signal to a process group; say whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user; on macOS also: only a zombie is left
        return number == 0
    return True


def lives(group: int) -> bool:
    """Say whether a process of the group is alive; a zombie, which waits for a slow init to reap it, is not."""
    if not send(group, 0):
        return False
    seen, breath = False, Breath()
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        breath()
        if name.isdigit():
            with suppress(OSError, ValueError):
                state, _, found = read(f"/proc/{name}/stat").rpartition(b")")[2].split()[:3]
                seen = True
                if int(found) == group and state not in (b"Z", b"X"):
                    return True
    return not seen  # no such file system here: it was only asked whether there is one
