"""Ours."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from trackers.tracker import Params, Tracker, Values

import aexp


class Aexp(Tracker):
    """One repository, opened once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.repository = aexp.Repository(folder)

    async def __aenter__(self) -> Self:
        """Open the repository."""
        await self.repository.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.repository.aclose()

    async def open(self, name: str, params: Params) -> aexp.Experiment:
        """Begin an experiment; it captures the code."""
        return await self.repository.experiment(name, params=params).init()

    async def log(self, run: aexp.Experiment, step: int, values: Values) -> None:
        """Wait until the points are accepted."""
        await run.log_metrics(values, step)

    async def close(self, run: aexp.Experiment) -> None:
        """Save a commit, synced."""
        await run.save()

    async def close_all(self, runs: Sequence[aexp.Experiment]) -> None:
        """Save all at once: those that wait become one group."""
        await asyncio.gather(*(run.save() for run in runs))

    async def count(self) -> int:
        """All records."""
        return len(await self.repository.experiments())

    def forget(self) -> None:
        """Remove the index."""
        (self.folder / ".git" / "aexp" / "index.sqlite").unlink(missing_ok=True)

    async def kept(self, name: str) -> int:
        """What `recover()` brings back."""
        if name not in [record.name for record in await self.repository.recover()]:
            return 0
        return sum(len(series.values) for series in (await self.repository.history(name)).values())

    async def push(self, remote: str) -> None:
        """One connection for all."""
        await self.repository.push(remote=remote)
