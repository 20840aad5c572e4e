"""Bringing an experiment into the work tree, and back out."""

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ._access import Access
from ._store import Store
from ._values import StrPath

if TYPE_CHECKING:
    from ._applied import Applied, Undone


class Applying(Access):
    """The part of a `Repository` that changes the work tree; nothing else does."""

    async def apply(self, name: str, *, force: bool = False, paths: Collection[StrPath] | None = None) -> "Applied":
        """Make the files of the work tree those of the experiment *name*, or of any other commit that *name* means.

        HEAD, the branch and the index stay; `git status` shows the difference. Files of HEAD that the experiment does
        not have are removed; files that neither has stay. Data of DVC is restored from its cache. *paths* names the
        files and folders to apply, instead of all; what Git or DVC takes settings from is applied only when it is
        named itself.

        Raises `DirtyWorkspace` when that would overwrite what is in no commit; *force* overwrites it, and keeps it for
        `undo_apply()`. Raises `ExperimentNotFound`, `AmbiguousName`, `UnsafePath`, `FileNotFoundError` for paths
        that are neither there nor in HEAD, `ApplyPending`, `UnsupportedRepository` in a bare repository; then
        nothing was changed. Cancelled, it did nothing or all.
        """
        if isinstance(paths, (str, os.PathLike)):
            raise TypeError("paths= takes a collection of paths, not one; write paths=[...]")
        chosen = None if paths is None else frozenset(os.fspath(path).rstrip("/").removeprefix("./") for path in paths)
        return await self._write(_apply, name, force, chosen, dict(os.environ))

    async def undo_apply(self, *, force: bool = False) -> "Undone":
        """Put back, to the byte, what the last `apply()` here replaced; the one before it is then the last.

        Works after an apply that was killed, too, and when it is killed itself it can be called again. Raises
        `DirtyWorkspace` when applied files were edited since; *force* moves them into `Undone.kept`. Raises
        `NothingApplied`, `ApplyPending`. Cancelled, it did nothing or all.
        """
        return await self._write(_take_back, force)


def _apply(
    store: Store, name: str, force: bool, paths: frozenset[str] | None, variables: Mapping[str, str]
) -> "Applied":
    from . import _apply

    return _apply.apply(store.handle, store.read_tree, name, force=force, paths=paths, home=variables)


def _take_back(store: Store, force: bool) -> "Undone":
    from . import _undo

    return _undo.undo(store.handle, force=force)
