"""A measured figure, its target, and tables of figures."""

import statistics
from collections.abc import Mapping, Sequence

import attrs

WORSE = 1.3
WIDTHS = (80, 13, 13, 8, 9)


@attrs.frozen
class Figure:
    """What was measured: `ours` beside `bare` (None where there is nothing to divide by), both in `unit`.

    The value, which is the ratio where there is a bare figure, is held against `at_most` or `at_least`.
    """

    name: str
    ours: float
    unit: str
    bare: float | None = None
    ratio: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def value(self) -> float:
        """The number that is held against the target."""
        return self.ours if self.ratio is None else self.ratio

    @property
    def target(self) -> str:
        """The target in words; empty if there is none."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None if there is none."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    def to_dict(self) -> Mapping[str, str | float | None]:
        """The fields, for JSON."""
        return attrs.asdict(self)


def compare(
    name: str,
    ours: Sequence[float],
    bare: Sequence[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """The figure of alternating rounds: the medians of both sides, and the median of the ratios round by round."""
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
    medians = statistics.median(ours), statistics.median(bare)
    return Figure(name, medians[0], unit, medians[1], ratio, at_most=at_most, at_least=at_least)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that is not exceeded by `share` (0 to 1) of them."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(figures: Sequence[Figure], *, header: bool = True) -> str:
    """The figures as lines of text."""
    rows = [("figure", "ours", "bare", "ratio", "target", "")] if header else []
    for figure in figures:
        bare = "" if figure.bare is None else f"{figure.bare:,.4g} {figure.unit}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        verdict = {True: "ok", False: "MISSED", None: ""}[figure.ok]
        rows.append((figure.name, f"{figure.ours:,.4g} {figure.unit}", bare, ratio, figure.target, verdict))
    return "\n".join(_line(row) for row in rows)


def _line(row: tuple[str, ...]) -> str:
    """One line of the table."""
    first, *others = (cell.rjust(width) for cell, width in zip(row, WIDTHS, strict=False))
    return f"{first.strip():<{WIDTHS[0]}}{''.join(others)}  {row[-1]}".rstrip()


def better(one: Figure, other: Figure) -> Figure:
    """The better of two measurements of a figure, by its target; the first where it has none."""
    if one.at_most is not None:
        return min(one, other, key=lambda figure: figure.value)
    return one if one.at_least is None else max(one, other, key=lambda figure: figure.value)


def worse(before: Sequence[Figure], now: Sequence[Figure]) -> list[str]:
    """A line for each ratio with a target that is more than 1.3 x worse now."""
    earlier = {figure.name: figure for figure in before}
    lines = []
    for figure in now:
        old = earlier.get(figure.name)
        if old is None or not old.ratio or not figure.ratio or figure.ok is None:
            continue
        growth = figure.ratio / old.ratio if figure.at_most is not None else old.ratio / figure.ratio
        if growth > WORSE:
            lines.append(f"worse by {growth:.2f} x: {figure.name}: {figure.ratio:.2f}, was {old.ratio:.2f}")
    return lines
