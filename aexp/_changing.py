"""Changing what is saved: other names, removal and its undoing, branches."""

from collections.abc import Collection, Sequence

from ._access import Access
from ._store import Store
from ._values import Record


class Changing(Access):
    """The part of a `Repository` that moves refs of saved experiments; commits stay as they are.

    Each call is one transaction: cancelled, it did nothing or all. *name* is an experiment's name, full ref or rev.
    """

    async def branch(self, name: str, branch: str | None = None) -> str:
        """Make a branch at the experiment *name*, and return what it is called: *branch*, or `<name>-branch`.

        HEAD, the index and the work tree stay as they are. Raises `BranchExists`, `InvalidName`, `ExperimentNotFound`.
        """
        return await self._write(_branch, name, branch)

    async def rename(self, name: str, new_name: str) -> Record:
        """Call the experiment *name* *new_name*, on the same baseline, and return its record; the rev stays.

        Raises `InvalidName`, `NameTaken`, `ExperimentNotFound`; `NotOwner` when it is open in a program that is
        alive, `InvalidTransition` when it was left open by one that is not.
        """
        return await self._write(_rename, name, new_name, self._taken())

    async def remove(self, *names: str) -> list[Record]:
        """Remove the experiments *names*, all or none, and return their records; `restore()` undoes it for 14 days.

        Of one that is `damaged` because its commit is missing, nothing is left to restore. Raises
        `ExperimentNotFound`, and `NotOwner` or `InvalidTransition` as `rename` does.
        """
        return await self._write(_remove, names, self._taken())

    async def restore(self, name: str, new_name: str | None = None) -> Record:
        """Bring back the experiment *name* that was removed or replaced last, to the baseline it stood on.

        It is called *new_name* from then on, if that is given. Returns its record. Raises `ExperimentNotFound`;
        `AmbiguousName` with the full refs when it was removed from several baselines; `NameTaken`.
        """
        return await self._write(_restore, name, new_name, self._taken())

    def _taken(self) -> Collection[str]:
        return () if self._desk is None else frozenset(self._desk.taken)


def _branch(store: Store, name: str, branch: str | None) -> str:
    from . import _trash

    return _trash.branch(store, name, branch)


def _rename(store: Store, name: str, new_name: str, taken: Collection[str]) -> Record:
    from . import _trash

    return _trash.rename(store, name, new_name, taken)


def _remove(store: Store, names: Sequence[str], taken: Collection[str]) -> list[Record]:
    from . import _trash

    return _trash.remove(store, names, taken)


def _restore(store: Store, name: str, new_name: str | None, taken: Collection[str]) -> Record:
    from . import _trash

    return _trash.restore(store, name, new_name, taken)
