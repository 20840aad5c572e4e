"""Values as words: numbers, times and lengths of time, and text that a terminal can be trusted with."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

NONE: Final = "-"
"""What stands for a value that is not there, as in DVC's tables."""


def cell(value: Any, precision: int) -> str:
    """Return *value* as a cell of a table: floats in *precision* significant digits, as DVC shows them."""
    match value:
        case None:
            return NONE
        case bool():
            return str(value)
        case float():
            return f"{value:.{precision}g}"
        case int():
            return str(value) if value.bit_length() < 1024 else hex(value)
        case str():
            return visible(value)
        case datetime():
            return value.isoformat()
        case list() | tuple():
            return f"[{', '.join(cell(each, precision) for each in value)}]"
        case Mapping():
            return f"{{{', '.join(f'{visible(str(key))}: {cell(each, precision)}' for key, each in value.items())}}}"
    return visible(str(value))


def visible(text: str) -> str:
    """Return *text* with an escape for what would move the cursor, change the colours, or turn the line around."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def clock(time: datetime, now: datetime) -> str:
    """Return *time* as DVC shows it: the hour today, the day otherwise; in the time zone of *now*."""
    local = time.astimezone(now.tzinfo)
    return local.strftime("%I:%M %p") if local.date() == now.date() else local.strftime("%b %d, %Y")


def precise(time: datetime, now: datetime) -> str:
    """Return *time* to the second, in the time zone of *now*."""
    return time.astimezone(now.tzinfo).strftime("%Y-%m-%d %H:%M:%S")


def length(seconds: float | None) -> str:
    """Return a length of time in the two largest units that say something: `3 h 20 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    for unit, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit} {rest} {small}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def count(number: int, noun: str) -> str:
    """Return a number of things: `1 experiment`, `2,000 experiments`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(value: Any) -> Any:
    """Return *value* as JSON can hold it: times in ISO 8601 and UTC, NaN and infinities as the strings DVC uses."""
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return value.astimezone(UTC).isoformat()
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case list() | tuple():
            return [plain(each) for each in value]
    return str(value)


def size(bytes: float) -> str:
    """Return a number of bytes in the largest unit that keeps it above 1: `1.5 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if bytes < 1024:
            return f"{bytes:.3g} {unit}" if unit != "bytes" else f"{bytes:,.0f} bytes"
        bytes /= 1024
    return f"{bytes:.3g} TiB"
