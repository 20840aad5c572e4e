"""How errors show what they speak of."""

import os
from collections.abc import Mapping, Sequence
from typing import Final, Literal

RemoteFault = Literal["unknown", "unsafe", "authentication", "unreachable", "timeout", "refused", "hostile", "failed"]
"""What is wrong with a remote; see `RemoteError`."""

REMEDIES: Final[Mapping[RemoteFault, str]] = {
    "unknown": "`git remote -v` lists the remotes of this repository",
    "unsafe": "pass the name of a remote, an https, ssh or git URL, or a folder",
    "authentication": "aexp never prompts; `git ls-remote` there must work without asking: set up a credential helper or "
    "an ssh key",
    "unreachable": "what has arrived stands; call again when the remote can be reached",
    "timeout": "what has arrived stands; call again, or raise connect_timeout or stall_timeout in Settings",
    "refused": "ask who runs the remote; what it accepted stands",
    "hostile": "nothing was taken from it; pull others by name, and tell who runs the remote",
    "failed": "`git ls-remote` there shows whether Git itself can use it",
}
"""What to do when a remote cannot be used, by the kind of the fault."""


def listed(names: Sequence[str]) -> str:
    """Return the first five of *names*, and how many more there are."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" * (len(names) > 5))


def pointed_at(text: str, place: int) -> str:
    """Return the line of *text* that holds *place*, or what of it stands near, with a caret below the place."""
    first, last = text.rfind("\n", 0, place) + 1, text.find("\n", place)
    first, last = max(first, place - 60), min(len(text) if last < 0 else last, place + 60)
    line = "".join(letter if letter.isprintable() else " " for letter in text[first:last])
    return f"    {line}\n    {' ' * (place - first)}^"


def cause_of(error: OSError) -> str:
    """Return what the system says of *error*."""
    return os.strerror(error.errno) if error.errno else error.strerror or str(error)
