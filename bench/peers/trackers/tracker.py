"""What all trackers have in common here: runs that are opened, logged to and closed, in a folder of their own.

An adapter runs in the environment of its tracker, so it imports that tracker and the standard library only. It does
what the tracker's own documentation shows; nobody's durability or defaults are turned down to look fast, nor up.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Params = Mapping[str, float | str]
Values = Mapping[str, float]
Rows = Sequence[tuple[int, Values]]


class Tracker:
    """A tracker that keeps its runs in the work tree of a Git repository at `folder`, which is the current folder.

    Trackers that know no `await` are called as their users call them: synchronously, from the coroutine.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def __aenter__(self) -> Self:
        """Open what the tracker opens once."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""

    async def open(self, name: str, params: Params) -> Any:
        """Begin a run; other runs may be open in the same process."""
        raise NotImplementedError

    async def log(self, run: Any, step: int, values: Values) -> None:
        """Log the values of a step."""
        raise NotImplementedError

    async def log_all(self, run: Any, rows: Rows) -> None:
        """Log many steps, as fast as the tracker's own calls allow."""
        for step, values in rows:
            await self.log(run, step, values)

    async def close(self, run: Any) -> None:
        """End a run; all of it is kept."""
        raise NotImplementedError

    async def close_all(self, runs: Sequence[Any]) -> None:
        """End many runs, one after another, and let other tasks have their turn in between."""
        for run in runs:
            await self.close(run)
            await asyncio.sleep(0)

    async def count(self) -> int:
        """How many runs the tracker lists, each with its parameters and the last values of its metrics."""
        raise NotImplementedError

    def forget(self) -> None:
        """Remove what the tracker caches of runs that it has listed."""

    async def kept(self, name: str) -> int:
        """How many points of the run `name`, whose process was killed, a reader finds; the runs have one metric."""
        raise NotImplementedError

    async def push(self, remote: str) -> None:
        """Push all runs to a Git remote."""
        raise NotImplementedError
