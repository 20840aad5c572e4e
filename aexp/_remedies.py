"""What can be wrong with a remote, and what to do about it."""

from collections.abc import Mapping
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
