"""The sessions of a repository while they live: what runs in them, what happens, what was logged.

A session that joined another is a part of that one's experiment, as long as that stands: its points are told as the
experiment's own, and nothing else of it.
"""

import os
import time
from contextlib import suppress
from operator import itemgetter
from typing import Final

from attrs import evolve

from . import _sessions
from ._events import Event, EventKind, Running
from ._files import Breath
from ._formats.account import Account
from ._formats.params import merge
from ._formats.series import Curve
from ._tails import PROBE, Standing, Tail, holder
from ._values import Series
from .errors import AmbiguousName

SLICE: Final = 0.05
"""Seconds that one call reads: who waits for the thread, or cancels, waits no longer."""
SETTLED: Final = 10**8
"""Nanoseconds after which another change of a folder has another time, however coarse the file system's clock is."""
_OF_PARTS: Final = frozenset({EventKind.METRICS, EventKind.PARAMS, EventKind.DESCRIBED})
"""What is told of what happens in a part."""


class Living:
    """The sessions of a repository, read as they grow; who asks again reads only what is new. It belongs to one thread.

    With *all*, it is told also of sessions that begin and end while nobody asks.
    """

    def __init__(self, common: str, *, all: bool = False) -> None:
        self.common = common
        self._tails: dict[str, Tail] = {}
        self._patience = PROBE if all else 0.0  # who asks once wants to know who lives now
        self._over = set(_sessions.names(common, _sessions.DONE)) if all else None
        self._changed = 0

    def read(self, *, dead: bool, tell: bool) -> tuple[list[Event], bool]:
        """Read on for a moment; return what has happened, if it is to be *told*, and whether there is more to read now.

        Sessions that are *dead* are left unread unless asked for.
        """
        now, events, breath = time.monotonic(), list[Event](), Breath()
        there = self._look_for_sessions()
        for tail in list(self._tails.values()):
            breath()
            gone = tail.id not in there
            if gone:
                tail.place = _sessions.DONE
            elif not self._is_due(tail, now) or not (tail.alive or dead):
                continue
            if not gone or dead:
                for news in tail.read(now + SLICE):
                    breath()
                    if tell:
                        events += self._events(tail, *news)
                if not tail.drained:
                    return events, True
            if gone and tail.joins:  # it is taken in: what it was told as stands in another session
                del self._tails[tail.id]
            elif gone:
                del self._tails[tail.id]
                events.append(Event(kind=EventKind.CLOSED, session=tail.id))
            elif not tail.alive and not tail.mourned:
                tail.mourned = True
                for each in tail.left():
                    events += self._events(tail, EventKind.INTERRUPTED, each) if not each.account.fate else []
        return events, False

    def running(self) -> list[Running]:
        """Return the open experiments of living sessions, oldest first."""
        breath, found = Breath(), []
        for tail in self._own():
            for standing in tail.under_way():
                breath()
                found.append(self._whole(tail, standing))
        return sorted(found, key=lambda each: (each.created, each.name))

    def standing(self) -> list[Event]:
        """Return what a watch begins with: what is running, and what was interrupted, the oldest first."""
        breath, found = Breath(), []
        for tail in self._own():
            kind = EventKind.RUNNING if tail.alive else EventKind.INTERRUPTED
            for standing in tail.under_way() if tail.alive else tail.left():
                breath()
                found += [(standing.account.created, event) for event in self._events(tail, kind, standing)]
        return [event for _, event in sorted(found, key=itemgetter(0))]

    def history(self, name: str, metric: str | None, *, left: bool) -> dict[str, Series] | None:
        """Return the series of the experiment under way, or *left* behind, with the name, id or ref *name*.

        None when there is none. Of several that were left it is the newest; of several under way it raises
        `AmbiguousName`. Raises `JournalCorrupt` for damage where its points lie.
        """
        found = [
            (tail, standing)
            for tail in self._own()
            for standing in (tail.left() if left else tail.under_way())
            if name in (standing.account.name, standing.account.id, standing.account.ref)
        ]
        if not found:
            return None
        if len(found) > 1 and not left:
            refs = sorted({standing.account.ref for _, standing in found})
            ids = sorted(standing.account.id for _, standing in found)
            raise AmbiguousName(name, refs if len(refs) == len(found) else ids)
        tail, standing = max(found, key=lambda pair: pair[1].account.created)
        breath, curves = Breath(), dict[str, Curve]()
        tail.curves(standing, metric, curves)
        for part, its in self._parts(standing.account):
            part.curves(its, metric, curves)
        return {name: curve.series(breath) for name, curve in curves.items()}

    # ---- parts ----

    def _own(self) -> list[Tail]:
        return [tail for tail in self._tails.values() if not tail.part]

    def _parts(self, whole: Account) -> list[tuple[Tail, Standing]]:
        """Return what programs at work, or dead and not taken in yet, have logged to the experiment *whole*."""
        tails = [
            tail
            for tail in self._tails.values()
            if tail.part and tail.joins == whole.id and tail.id not in whole.joined
        ]
        return [(tail, standing) for tail in tails for standing in (tail.under_way() or tail.left())]

    def _events(self, tail: Tail, kind: EventKind, standing: Standing, rev: str | None = None) -> list[Event]:
        """Return the event of what happened to an experiment, as it stands now; of a part, only what it logged."""
        if not tail.part:
            return [Event(kind=kind, session=tail.id, experiment=self._whole(tail, standing), rev=rev)]
        if kind not in _OF_PARTS:
            return []
        return [
            Event(kind=kind, session=each.id, experiment=self._whole(each, its))
            for each in self._own()
            for its in (each.under_way() if each.alive else ())
            if its.account.id == tail.joins
        ]

    def _whole(self, tail: Tail, standing: Standing) -> Running:
        """Return how an experiment stands, with what its parts have logged so far."""
        running = tail.running(standing)
        for place, its in self._parts(standing.account):
            part = place.running(its)
            running = evolve(
                running,
                summary={**running.summary, **part.summary},
                params=merge(running.params, part.params),
                tags=tuple(dict.fromkeys((*running.tags, *part.tags))),
                message=running.message or part.message,
                step=max(running.step, part.step),
                points=running.points + part.points,
            )
        return running

    # ---- sessions ----

    def _look_for_sessions(self) -> set[str]:
        there = _sessions.names(self.common)
        for id in there:
            if id not in self._tails:
                self._tails[id] = Tail(self.common, id, holder(_sessions.folder(self.common, id)))
        for tail in self._tails.values():
            tail.part = bool(tail.joins) and tail.holder[_sessions.JOINS].get("session") in there
        self._look_for_past_sessions()
        return set(there)

    def _look_for_past_sessions(self) -> None:
        if self._over is None:
            return
        with suppress(FileNotFoundError):
            changed = os.stat(_sessions.folder(self.common, "", _sessions.DONE)).st_mtime_ns
            if changed == self._changed:
                return
            past = set(_sessions.names(self.common, _sessions.DONE))
            for id in sorted(past - self._over - self._tails.keys()):
                path = _sessions.folder(self.common, id, _sessions.DONE)
                self._tails[id] = Tail(self.common, id, holder(path))
            self._over |= past
            if time.time_ns() - changed > SETTLED:
                self._changed = changed

    def _is_due(self, tail: Tail, now: float) -> bool:
        """Look whether the owner lives, if it is time; say whether there may be something new to read."""
        if now - tail.looked < self._patience:
            return tail.alive or not tail.drained
        tail.looked = now
        tail.alive = tail.alive and _sessions.is_alive(self.common, tail.id)
        return True
