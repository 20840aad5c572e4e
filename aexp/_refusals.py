"""What the words mean that `git` and libgit2 (both in English, see `_git.environment`) say when they refuse."""

import os

from ._files import spoken, told_of_disk, translated
from .errors import AexpError, GitError, UnsupportedRepository


def refused(common: str, action: str, said: str) -> AexpError:
    """Return the error of ours that *said* means; *action* completes "Git could not ..."."""
    number = spoken(said)
    ours = None if number is None else translated(OSError(number, os.strerror(number)), common)
    return ours if isinstance(ours, AexpError) else GitError(action, said)


def unusable(path: str, error: Exception) -> AexpError:
    """Return why the repository at *path*, which could not be opened, cannot be used."""
    reason = str(error)
    if isinstance(error, OSError) and isinstance(ours := told_of_disk(error), AexpError):
        return ours
    if "owner" in reason or "not owned" in reason:
        folder = os.path.dirname(path.rstrip("/"))
        return UnsupportedRepository(
            path, "it belongs to another user", f"run `git config --global --add safe.directory {folder}`"
        )
    if "object format" in reason or "objectformat" in reason:
        return UnsupportedRepository(path, "it uses SHA-256 object names", "DVC and libgit2 need a SHA-1 repository")
    if "refstorage" in reason:
        return UnsupportedRepository(path, "it uses the reftable format", "run `git refs migrate --ref-format=files`")
    return UnsupportedRepository(path, reason, "see `git status` there")
