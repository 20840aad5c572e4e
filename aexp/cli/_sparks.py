"""The course of a metric in a few characters."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

BLOCKS: Final = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """Return the course of *values* as at most *width* blocks; where there is no number, a blank."""
    means = list(_means(values, min(width, len(values))))
    numbers = [value for value in means if math.isfinite(value)]
    if not numbers:
        return " " * len(means)
    low, half = min(numbers), max(numbers) / 2 - min(numbers) / 2  # the whole may be more than a float holds
    return "".join(_block((value / 2 - low / 2) / (half or 1.0)) if math.isfinite(value) else " " for value in means)


def _block(share: float) -> str:
    return BLOCKS[round(share * (len(BLOCKS) - 1))]


def _means(values: Sequence[float], parts: int) -> Iterator[float]:
    """Yield the mean of the numbers in each of *parts* stretches of *values*, NaN where there is none."""
    for part in range(parts):
        stretch = values[part * len(values) // parts : (part + 1) * len(values) // parts]
        numbers = [value for value in stretch if math.isfinite(value)]
        yield sum(value / len(numbers) for value in numbers) if numbers else math.nan
