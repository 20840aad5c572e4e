"""Watching a repository: what is running now, in this and in other processes, and what happens to it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from ._access import Access
from ._events import Event, Running
from ._living import Living

TICK: Final = 0.15
"""Seconds between two looks at the journals."""


class Watching(Access):
    """The part of a `Repository` that sees experiments while they run."""

    async def running(self) -> list[Running]:
        """Return every experiment that is open now, of this or of another process, the oldest first.

        What this process has logged is in there. An experiment whose process died is not: `interrupted()` lists it.
        Writes nothing of its own; raises `DiskFull` or `JournalFailed` when what was logged here cannot be written.
        """
        await self._written()
        await self._catch_up(dead=False)
        return await self._live(Living.running)

    async def watch(self) -> AsyncGenerator[Event, None]:
        """Yield what happens to experiments of this and other processes, from now on and for as long as anybody asks.

        First comes what is there: an event of the kind `running` for each open experiment, and `interrupted` for each
        that a dead process left. Events are late by a quarter of a second at most, a death by a second more; who
        takes them slowly misses none, but gets what was logged meanwhile as one. Raises `RepositoryClosed` when the
        repository is closed. Cancelled or closed, it leaves nothing behind.
        """
        own = await self._live(_another)
        while (await self._live(_read, own, False))[1]:
            pass
        for event in await self._live(_standing, own):
            yield event
        while True:
            events, more = await self._live(_read, own, True)
            for event in events:
                yield event
            if not more:
                await asyncio.sleep(TICK)


def _another(shared: Living) -> Living:
    return Living(shared.common)


def _read(_: Living, own: Living, tell: bool) -> tuple[list[Event], bool]:
    return own.read(dead=True, tell=tell)


def _standing(_: Living, own: Living) -> list[Event]:
    return own.standing()
