"""Asking a repository: records by name and by query, the best one, series, files."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import _records
from ._access import Access
from ._lifecycle import Status
from ._pipelines import Pipelines
from ._query import Mode, compile_best, compile_select
from ._values import Record, Records, Series, StrPath
from .errors import ExperimentNotFound

if TYPE_CHECKING:
    from ._comparison import Comparison
    from ._lineage import Baseline, Checkpoint
    from ._living import Living


class Reading(Access):
    """The part of a `Repository` that changes nothing."""

    async def experiments(
        self,
        *,
        where: str | None = None,
        sort: str | Sequence[str] | None = None,
        limit: int | None = None,
        baseline: str | None = None,
    ) -> Records:
        """Return the record of every experiment, of one *baseline* (any name of a commit) or of all, oldest first.

        *where* keeps those it is true for: `"params.lr < 0.1 and 'good' in tags"`. *sort* is a field or several, each
        descending behind a `-`: `"-metrics.acc"`; those without it come last. *limit* is how many at most. One that
        cannot be read is there too, with `damaged` set. Raises `InvalidQuery` before anything is read; `NoBaseline`.
        """
        choose = compile_select(where=where, sort=sort, limit=limit)
        return Records(await self._read(_records.choose, self._settings.folder, choose, baseline))

    async def best(self, metric: str, *, mode: Mode = "max", where: str | None = None) -> Record:
        """Return the record with the largest value of *metric*, or by *mode* the smallest, of those that *where* keeps.

        NaN is no value; of equal ones the oldest is the best. Raises `ExperimentNotFound` when none has the metric,
        and `InvalidQuery` before anything is read.
        """
        return await self._read(_records.choose, self._settings.folder, compile_best(metric, mode, where))

    async def baselines(self, baseline: str | None = None) -> "list[Baseline]":
        """Return the commits that experiments stand on, HEAD first and then the newest, with the names that stand there.

        No experiment is read, so this is the fast way to a list of names. *baseline*, any name of a commit, returns
        that one, also when nothing stands on it. Raises `NoBaseline`.
        """
        return await self._read(_read_baselines, baseline)

    async def get(self, name: str) -> Record:
        """Return the record of the experiment *name*: its name, full ref, or rev.

        Raises `ExperimentNotFound`, or `AmbiguousName` when it stands on several baselines.
        """
        return await self._read(_records.get, name, self._settings.folder)

    async def history(self, name: str, metric: str | None = None) -> dict[str, Series]:
        """Return the full series of *metric*, or of every metric, of the experiment *name*: its name, id, full ref or rev.

        It may be saved, running in this or another process, or left by one that died. One that is running goes before
        a saved one of the same name, which its rev still means; one that was left comes last, but before its own
        checkpoint. All that this process has logged is there; of another process, all it has
        written; of a damaged journal, what can be read. Raises `ExperimentNotFound`, `AmbiguousName`, and `KeyError` for a metric that was not logged.
        """
        await self._written(name)
        await self._catch_up(dead=False)
        found = await self._live(_under_way, name, metric)
        if found is None:
            found = await self._saved_or_left(name, metric)
        if metric is not None and metric not in found:
            raise KeyError(f"{name} has no metric {metric!r}")
        return found

    async def checkpoints(self, name: str) -> "list[Checkpoint]":
        """Return the checkpoints of the experiment *name*, the oldest first. Raises `ExperimentNotFound`."""
        return await self._read(_read_checkpoints, name, self._settings.folder)

    async def _saved_or_left(self, name: str, metric: str | None) -> dict[str, Series]:
        missing: ExperimentNotFound | None = None
        try:
            record = await self._read(_records.get, name, self._settings.folder)
            asked = record.id if record.status is Status.INTERRUPTED and not record.rev.startswith(name) else ""
        except ExperimentNotFound as error:
            missing, asked = error, name
        if asked:
            await self._catch_up(dead=True)
            found = await self._live(_left, asked, metric)
            if found is not None:
                return found
        if missing is not None:
            raise missing
        return await self._read(_records.history, name, metric, self._settings.folder)

    async def read(self, name: str, path: StrPath) -> bytes:
        """Return the content of the file *path*, relative to the top of the repository, in the experiment *name*.

        Raises `ExperimentNotFound`, `FileNotFoundError`, `IsADirectoryError`.
        """
        return await self._read(_records.file, name, os.fspath(path))

    async def compare(self, left: str, right: str, *, patch: bool = False) -> "Comparison":
        """Return what differs between two experiments, or any two commits: parameters, metrics and files.

        *left* and *right* are an experiment's name, full ref or rev, or whatever names a commit: `HEAD`, a branch.
        *patch* adds what `git diff` prints, in UTF-8 and of at most 4 MiB. What aexp itself wrote is compared as
        parameters and metrics, not as files. Raises `ExperimentNotFound` for what names neither, `AmbiguousName`.
        """
        return await self._read(_compare, left, right, self._settings.folder, patch)


def _under_way(living: "Living", name: str, metric: str | None) -> dict[str, Series] | None:
    return living.history(name, metric, left=False)


def _left(living: "Living", name: str, metric: str | None) -> dict[str, Series] | None:
    return living.history(name, metric, left=True)


def _read_baselines(library: Pipelines, baseline: str | None) -> "list[Baseline]":
    from . import _baselines

    return _baselines.read_baselines(library, baseline)


def _read_checkpoints(library: Pipelines, name: str, folder: str) -> "list[Checkpoint]":
    from . import _baselines

    return _baselines.read_checkpoints(library, name, folder)


def _compare(library: Pipelines, left: str, right: str, folder: str, patch: bool) -> "Comparison":
    from . import _differences

    return _differences.compare(library, left, right, folder, patch)
