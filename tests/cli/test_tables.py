"""How values become words, and records become columns that fit: pure functions."""

import math
import re
from array import array
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

import aexp
from aexp.cli import _curves, _grid, _sparks, _words

NOW = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "True"),
        (7, "7"),
        (10**400, hex(10**400)),
        (0.1 + 0.2, "0.3"),
        (0.00912345678, "0.0091235"),
        (1234567.0, "1.2346e+06"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ("text", "text"),
        ("a\tb\nc\x1b[0m\u202e", r"a\tb\nc\x1b[0m\u202e"),
        ("grün ✓ 日本", "grün ✓ 日本"),
        ("\ud800", r"\ud800"),
        ([1, 0.5, "x"], "[1, 0.5, x]"),
        ({"a": 1}, "{a: 1}"),
    ],
    ids=repr,
)
def test_a_value_is_shown_as_dvc_shows_it(value: Any, shown: str) -> None:
    """Numbers have 5 significant digits, nothing is a dash, and what would drive a terminal is an escape."""
    assert _words.cell(value, 5) == shown


@given(st.text())
def test_text_is_always_fit_for_a_terminal(text: str) -> None:
    """Whatever a text holds, what is shown of it is printable, and it is the same text where it was so."""
    shown = _words.visible(text)

    assert shown.isprintable()
    assert not text.isprintable() or shown == text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"),
        (0.0012345, "0.0012 s"),
        (9.87, "9.9 s"),
        (59.6, "1 min"),
        (75, "1 min 15 s"),
        (3600, "1 h"),
        (3600 * 5 + 61, "5 h 1 min"),
        (86400 * 2 + 3600, "2 d 1 h"),
        (math.inf, "-"),
    ],
)
def test_a_length_of_time_has_two_units(seconds: float | None, shown: str) -> None:
    """A length of time is told in the two largest units that say something."""
    assert _words.length(seconds) == shown


def test_a_time_is_shown_as_dvc_shows_it() -> None:
    """Today's times are shown as hours, others as days, in the time zone of who looks."""
    there = timezone(timedelta(hours=9))

    assert _words.clock(NOW - timedelta(hours=2), NOW) == "01:00 PM"
    assert _words.clock(NOW - timedelta(days=1), NOW) == "Mar 03, 2026"
    assert _words.clock(NOW, NOW.astimezone(there)) == "12:00 AM"
    assert _words.precise(NOW, NOW.astimezone(there)) == "2026-03-05 00:00:00"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_json_holds_no_constant_that_is_not_json(value: Any) -> None:
    """NaN and infinities become strings, at any depth; all else stays what it is."""

    def constants(value: Any) -> list[Any]:
        if isinstance(value, list):
            return [each for item in value for each in constants(item)]
        return [value] if isinstance(value, float) and not math.isfinite(value) else []

    assert constants(_words.plain(value)) == []
    if not constants(value):
        assert _words.plain(value) == value


ROWS: list[dict[str, Any]] = [
    {"name": "a", "params.lr": 0.1, "params.model.depth": 4, "metrics.loss": 1.0, "metrics.step": 9},
    {"name": "b", "params.lr": 0.2, "params.model.depth": 4, "metrics.loss": 2.0, "metrics.lr": 3.0, "metrics.step": 9},
]


def test_columns_are_metrics_and_then_params() -> None:
    """Metrics come before parameters, each under its short name unless two have the same one."""
    found = _grid.columns(ROWS)

    assert [column.title for column in found] == ["loss", "step", "metrics.lr", "params.lr", "model.depth"]
    assert [column.kind for column in found] == ["metric", "metric", "metric", "param", "param"]
    assert [list(column.values) for column in found][2] == [None, 3.0]
    assert [column.varies for column in found] == [True, False, True, True, False]


def test_what_tells_most_comes_first() -> None:
    """What was asked for comes first, then what varies, a metric and a parameter by turns; the step comes last."""
    found = _grid.columns(ROWS)

    def names(asked: str) -> list[str]:
        return [column.name for column in _grid.ranked(found, lambda name: name == asked)]

    assert names("") == ["metrics.loss", "params.lr", "metrics.lr", "params.model.depth", "metrics.step"]
    assert names("params.model.depth")[:2] == ["params.model.depth", "metrics.loss"]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(0, 200))
def test_what_fits_has_room(widths: list[int], room: int) -> None:
    """The columns taken never need more room than there is, and the first is taken whenever it fits."""
    found = [_grid.Column(str(place), "metric", [width]) for place, width in enumerate(widths)]
    taken = _grid.fit(found, room, lambda column: int(column.values[0]))

    assert sum(column.values[0] for column in taken) <= room
    assert not widths or widths[0] > room or taken[0] is found[0]
    assert [int(column.name) for column in taken] == sorted(int(column.name) for column in taken)


@given(st.text(st.sampled_from("ab./_-"), max_size=80), st.integers(1, 30))
def test_a_title_is_folded_behind_its_separators(title: str, width: int) -> None:
    """A folded title is the same text in at most three lines, unless it is longer than anything may be."""
    lines = _grid.folded(title, width)

    assert len(lines) <= _grid.LINES
    assert all(len(line) <= max(width, _grid.WIDEST) for line in lines)
    if "…" not in "".join(lines):
        assert "".join(lines) == title


def test_a_long_text_loses_its_middle() -> None:
    """What is too long keeps its beginning and its end."""
    assert _grid.shortened("abcdefghij", 7) == "abc…hij"
    assert _grid.shortened("abcdefghij", 10) == "abcdefghij"
    assert _grid.shortened("abcdefghij", None) == "abcdefghij"
    assert cell_len(_grid.shortened("日本語の実験", 7)) == 7


@given(st.lists(st.floats(), max_size=50), st.integers(1, 20))
@example([-1.7e308, 1.7e308], 2)
@example([1.7e308] * 4, 2)
def test_a_sparkline_is_as_wide_as_it_may_be(values: list[float], width: int) -> None:
    """Any series has a sparkline, of a block for each point until the width is used; its ends are the extremes."""
    line = _sparks.sparkline(values, width)

    assert len(line) == min(len(values), width)
    assert set(line) <= {*_sparks.BLOCKS, " "}


def test_a_sparkline_rises_with_the_values() -> None:
    """The lowest value is the lowest block, the highest the highest, and what is no number is a blank."""
    assert _sparks.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == _sparks.BLOCKS
    assert _sparks.sparkline([1.0, math.nan, 0.0]) == "█ ▁"
    assert _sparks.sparkline([2.0] * 3) == "▁▁▁"
    assert _sparks.sparkline([0.0] * 8 + [1.0] * 8, 2) == "▁█"
    assert _sparks.sparkline([-1.7e308, 1.7e308]) == "▁█"
    assert _sparks.sparkline([]) == ""


@pytest.mark.parametrize("width", range(30, 130, 7))
def test_a_plot_is_as_wide_as_it_may_be(width: int) -> None:
    """No line of a plot is wider than it may be, whatever its numbers are; a single point is drawn, too."""
    for values in ([1.0], [0.0, 1e-300, -1e300], [math.pi * 1e5, math.inf, -math.e / 1e5] * 9):
        series = aexp.Series(array("q", range(len(values))), array("d", values), array("d", values))
        lines = _curves.plot("loss", series, width=width, height=12, colour=False).split("\n")

        assert max(map(len, lines)) <= width
        assert len(lines) <= 12
        assert re.search("[\u2801-\u28ffx]", "".join(lines[1:]))
