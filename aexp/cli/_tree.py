"""Experiments as a tree of lines: each commit, and below it what stands on it. Pure: values in, lines out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from attrs import frozen

import aexp

from ._options import called
from ._words import NONE, clock, visible

ASCII: Final = str.maketrans({"├": "|", "└": "`", "─": "-"})
"""The branches of the tree where a terminal has no other letters."""


@frozen
class Line:
    """A line of the table: what leads it, when it was made, how it ended, and the place of its record, if it has one."""

    lead: str
    created: str
    status: str = ""
    place: int | None = None


def lines(records: Sequence[aexp.Record], baselines: Sequence[aexp.Baseline], now: datetime) -> list[Line]:
    """Return the lines of *records*, in their order below the commit they stand on; the commits as they come."""
    known = {each.rev: each for each in baselines}
    standing: dict[str, list[int]] = {each.rev: [] for each in baselines}
    for place, record in enumerate(records):
        standing.setdefault(record.baseline, []).append(place)
    return [line for rev, places in standing.items() if places for line in _below(rev, places, records, known, now)]


def _below(
    rev: str,
    places: Sequence[int],
    records: Sequence[aexp.Record],
    known: Mapping[str, aexp.Baseline],
    now: datetime,
) -> list[Line]:
    baseline = known.get(rev, aexp.Baseline(rev=rev))
    created = NONE if baseline.created is None else clock(baseline.created, now)
    return [
        Line(visible(called(baseline)), created),
        *(
            Line(
                f"{'└' if place == places[-1] else '├'}── {visible(records[place].name)}",
                clock(records[place].created, now),
                status(records[place]),
                place,
            )
            for place in places
        ),
    ]


def status(record: aexp.Record) -> str:
    """Return the word for how an experiment ended."""
    return "damaged" if record.damaged is not None else str(record.status)
