"""What the stored results say of one measure of one peer in one case, beside ours."""

from collections.abc import Mapping

from attrs import frozen
from roster import OURS
from stored import Result, Stored
from wording import Column, quantity

CLEARLY = 1.05


@frozen
class Cell:
    """A measure of a peer in a case, and how it stands to ours."""

    column: Column
    result: Result
    value: float
    ours: float | None
    ratio: float | None

    @property
    def better(self) -> bool:
        """Whether the peer is clearly better than ours, by the medians."""
        if self.ours is None:
            return False
        less, more = (self.ours, self.value) if self.column.more_is_better else (self.value, self.ours)
        return less * CLEARLY < more

    @property
    def times(self) -> str:
        """How many times ours."""
        assert self.ratio is not None
        return f"{self.ratio:.2g} x" if self.ratio < 10 else f"{self.ratio:,.0f} x"

    def __str__(self) -> str:
        """The median, and the ratio where it says something."""
        text = quantity(self.value, self.column.unit)
        if self.ratio is None or not self.column.compared or self.result.peer == OURS:
            return text
        return f"{text} ({self.times})"


def ratio_of(theirs: Result, ours: Result | None, measure: str) -> float | None:
    """The median over the rounds of theirs by ours; None where there is nothing to divide by."""
    if ours is None:
        return None
    pairs = [
        {**mine, "theirs": other[measure]}
        for other, mine in zip(theirs.rounds, ours.rounds, strict=False)
        if mine.get(measure) and measure in other
    ]
    ratios = sorted(pair["theirs"] / pair[measure] for pair in pairs)
    return ratios[len(ratios) // 2] if ratios else None


def cell_of(stored: Stored, subject: str, case: Mapping[str, int], peer: str, column: Column) -> Cell | None:
    """What is known of a peer; None if it was not measured."""
    result = stored.find(subject, case, peer)
    value = result.median(column.measure) if result else None
    if result is None or value is None:
        return None
    ours = stored.find(subject, case, OURS)
    return Cell(column, result, value, ours and ours.median(column.measure), ratio_of(result, ours, column.measure))
