"""The private checkout of an experiment: lent, filled with what the experiment holds, and taken from at the end."""

import asyncio
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from attrs import frozen

from ._description import Description
from ._formats.account import without
from ._formats.journal import Extents, Kind
from ._git import open_handle
from ._lifecycle import Action, State, after
from ._store import Store
from ._values import Settings
from ._ways import Join
from ._workers import aside, settled
from .errors import AexpError

if TYPE_CHECKING:
    from ._checkouts import Checkout
    from ._harvest import Harvest, Laid

Held = Mapping[str, tuple[int, bytes | None]]
"""The files that an experiment holds beside its code: mode and content by path, no content for what was taken away."""


@frozen(eq=False)
class Lent:
    """A checkout that an experiment has, and what was laid into it."""

    checkout: "Checkout"
    laid: "Laid"


class Workplace(Description):
    """What an experiment does in private checkouts of its tree."""

    __slots__ = ("_join", "_lent")

    _join: Join | None
    """The experiment of another program that this one joined."""
    _lent: list[Lent]
    """The checkouts that are open now."""

    def workspace(self) -> AbstractAsyncContextManager[Path]:
        """Return a private checkout of the experiment's tree: `async with experiment.workspace() as path`.

        It holds the captured code, the files that the experiment was given, its overrides, and the data of DVC that the
        cache has. It has a Git repository of its own, with HEAD detached at the baseline, that borrows the objects of
        the user's and shares no ref, index or lock with it; of the user's work tree nothing is touched.

        When the block ends, however it ends, files that were changed, made or deleted there are taken into the
        experiment; those that Git ignores only when `outs` or a dvc.yaml names them. What is left out (secrets, links
        that lead out, large files) is told in `record.code.skipped`. Then the checkout is removed, or cleaned and kept
        for the next experiment.

        Raises `InvalidTransition`, `GitError`, `DiskFull`; at the end `CheckoutLost` when the folder is no longer there.
        Cancelled, it was either not made or is taken from first.
        """
        return Workspace(self)

    async def _borrow(self) -> Lent:
        """Lend a checkout, filled with what the experiment holds; cancelled, it is given back."""
        after(self._state, Action.RUN)
        if self._join is not None:
            raise RuntimeError(f"this program joined the experiment {self._join.name}; ask for a workspace there")
        task = asyncio.ensure_future(self._prepare())
        try:
            return await settled(task)
        except BaseException:
            if not task.cancelled() and task.exception() is None:
                await settled(asyncio.ensure_future(self._end(task.result())))
            raise

    async def _prepare(self) -> Lent:
        account, desk = self._here()
        files: Held = {}
        if any(not path.startswith(f"{desk.settings.folder}/") for path in self._stream.files):
            await self._journal.flush()
            files = await desk.worker.run(_held, account.number, self._stream.extents.copy())
        async with desk.making:
            lent = await aside(_lend, desk.place, account.baseline, account.code.tree, files)
        self._lent.append(lent)
        return lent

    async def _end(self, lent: Lent) -> None:
        """Take what has changed in a checkout, and give it back."""
        try:
            await self._reap(lent)
        finally:
            self._lent.remove(lent)
            most = 0 if self._desk is None else self._desk.settings.idle_workspaces
            await aside(_give_back, lent.checkout, most)

    async def _reap_all(self) -> None:
        """Take what has changed in the checkouts that are open, before the experiment ends; warn where that fails."""
        for lent in list(self._lent):
            try:
                await self._in_turn(self._reap(lent))
            except (AexpError, OSError) as error:  # the experiment is saved with all the rest
                warnings.warn(f"nothing is taken from {lent.checkout.path}: {error}", RuntimeWarning, 2)

    def _file_writer(self) -> tuple[Callable[..., None], Callable[[], None]]:
        """Return what puts a file into the journal, and what waits until all that was put is there; for any thread."""
        account, _ = self._here()
        journal, stream = self._journal, self._stream

        def put(*said: Any) -> None:
            journal.record(Kind.FILE, [account.number, *said], stream)

        def settle() -> None:
            for written in journal.record_now(Kind.SEGMENT, None):
                written.result()

        return put, settle

    async def _reap(self, lent: Lent) -> None:
        """Take what has changed in a checkout that we have; nothing once the experiment has ended."""
        if self._state not in (State.ACTIVE, State.COMPLETED) or lent not in self._lent:
            return
        account, desk = self._here()
        put, settle = self._file_writer()
        async with desk.making:
            taken = await aside(_reaped, lent, desk.settings, account.outs, put, settle)
        for path in taken.files:
            self._edited.pop(path, None)  # what was known of it is so no longer
        self._stream.files |= set(taken.files)
        outs, skipped = tuple(taken.outs), self._untold(taken.skipped)
        if skipped or outs != account.outs:
            self._journal.record(Kind.OUTS, [account.number, outs, skipped])
            self._account = without(self._here()[0], skipped, outs=outs)

    def _untold(self, skipped: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return what of *skipped* is not told already: each of several programs may leave the same out."""
        told = {(each.path, each.reason) for each in self._here()[0].code.skipped}
        return [each for each in skipped if tuple(each) not in told]


class Workspace(AbstractAsyncContextManager[Path]):
    """What `Experiment.workspace` returns."""

    def __init__(self, experiment: Workplace) -> None:
        self._experiment = experiment
        self._lent: Lent | None = None

    @property
    def lent(self) -> Lent:
        """The checkout, while the block lasts."""
        assert self._lent is not None
        return self._lent

    async def __aenter__(self) -> Path:
        """Lend the checkout, and return where it stands."""
        if self._lent is not None:
            raise RuntimeError("this workspace is open; experiment.workspace() gives another one")
        self._lent = await self._experiment._borrow()
        return Path(self._lent.checkout.path)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take what has changed into the experiment, and give the checkout back."""
        lent, self._lent = self.lent, None
        try:
            await self._experiment._in_turn(self._experiment._end(lent))
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"aexp could not take what is in the workspace: {type(failure).__name__}: {failure}")


# ---- in threads of their own, which import what few programs need ----


def _lend(place: str, baseline: str, tree: str, files: Held) -> Lent:
    from . import _checkouts, _harvest

    handle = open_handle(place)
    checkout = _checkouts.lend(handle, baseline, tree)
    try:
        laid = _harvest.lay(checkout, files)
        _harvest.furnish(checkout, handle.worktree, os.environ)
        return Lent(checkout, laid)
    except BaseException:
        _checkouts.give_back(checkout, 0)
        raise


def _held(store: Store, number: int, extents: Extents) -> Held:
    from . import _harvest

    return _harvest.held(store, number, extents)


def _reaped(
    lent: Lent, settings: Settings, outs: tuple[str, ...], put: Callable[..., None], settle: Callable[[], None]
) -> "Harvest":
    from . import _harvest

    return _harvest.reap(lent.checkout, _harvest.Wanted(settings, outs, lent.laid), put, settle)


def _give_back(checkout: "Checkout", most: int) -> None:
    from . import _checkouts

    _checkouts.give_back(checkout, most)
