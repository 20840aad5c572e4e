"""The terminal: how wide it is, and what is drawn there."""

import os
import sys

from rich.console import Console, RenderableType

WIDE = 100_000
"""How many characters a line may have where nobody folds it."""


def screen() -> Console:
    """Return what draws on standard output; it heeds NO_COLOR, FORCE_COLOR, TERM and COLUMNS."""
    console = Console(highlight=False, markup=False, emoji=False)
    if room(console) is None:
        console.width = WIDE
    return console


def room(screen: Console) -> int | None:
    """Return how many characters a line has; None where standard output is no terminal, and a line may have any number."""
    return screen.width if is_terminal() or "COLUMNS" in os.environ else None


def is_terminal() -> bool:
    """Say whether somebody looks at standard output; FORCE_COLOR alone makes it no terminal."""
    return sys.stdout.isatty()


def draw(screen: Console, table: RenderableType) -> None:
    """Draw a table as wide as it is."""
    screen.print(table, crop=False, overflow="ignore", no_wrap=True)


def has_colour(screen: Console) -> bool:
    """Say whether colours may be drawn."""
    return screen.is_terminal and screen.color_system is not None and not screen.no_color
