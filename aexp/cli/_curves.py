"""The course of metrics as a plot in the terminal."""

import math
from collections.abc import Sequence
from typing import Final

import plotille

import aexp

from ._words import visible

MARGIN: Final = 20
"""How many characters stand left and right of a curve."""
FRAME: Final = 4
"""How many lines stand above and below it."""


def plot(metric: str, series: aexp.Series, *, width: int, height: int, colour: bool) -> str:
    """Return the course of a metric as a picture of at most *width* characters and *height* lines, in braille.

    What is no finite number is left out. Raises `ValueError` when no number is left.
    """
    points = [(step, value) for step, value in zip(series.steps, series.values, strict=True) if math.isfinite(value)]
    if not points:
        raise ValueError(f"{metric} has no finite value to draw; --json and --csv have its points")
    steps, values = zip(*points, strict=True)
    figure = plotille.Figure()
    figure.width, figure.height, figure.origin = max(width - MARGIN, 10), max(height - FRAME, 2), False
    figure.color_mode, figure.with_colors = "names", colour
    figure.set_x_limits(**_limits(steps))
    figure.set_y_limits(**_limits(values))
    for kind in (float, int):
        figure.register_label_formatter(kind, _tick)
    figure.plot(steps, values, lc="cyan", marker=None if len(points) > 1 else "x")
    figure.x_label = "step"
    _, *lines = figure.show().replace("\u2800", " ").split("\n")  # the first has the name of the other axis
    return "\n".join([f"{visible(metric)} by step", *(line.removesuffix("> (step)").rstrip() for line in lines)])


def _limits(values: Sequence[float]) -> dict[str, float]:
    low, high = min(values), max(values)
    if low == high:  # a plot has a height
        return {"min_": low - 1, "max_": high + 1}
    return {"min_": low, "max_": high}


def _tick(value: float, chars: int, delta: float, left: bool = False) -> str:
    text = f"{value:.4g}"
    return text.ljust(chars) if left else text.rjust(chars)
