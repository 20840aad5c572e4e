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
    low, high = min(numbers), max(numbers)
    step = (high - low) / (len(BLOCKS) - 1) or 1.0
    return "".join(BLOCKS[round((value - low) / step)] if math.isfinite(value) else " " for value in means)


def _means(values: Sequence[float], parts: int) -> Iterator[float]:
    """Yield the mean of the numbers in each of *parts* stretches of *values*, NaN where there is none."""
    for part in range(parts):
        stretch = values[part * len(values) // parts : (part + 1) * len(values) // parts]
        numbers = [value for value in stretch if math.isfinite(value)]
        yield sum(numbers) / len(numbers) if numbers else math.nan
