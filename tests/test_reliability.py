"""docs/reliability.md names tests for each promise: they are there, and the promises are those of the README."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
SOURCES = {path: path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py"))}
NAMED = sorted(set(re.findall(r"`(?:(tests/[\w/]+\.py)::)?(test_\w+)(?:\.py)?`", PAGE.read_text())))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    """A test, or a file of tests, that the page calls a proof exists."""
    places = [ROOT / path] if path else SOURCES

    assert any(place.stem == name or f"def {name}(" in SOURCES[place] for place in places)


def test_every_promise_has_a_proof() -> None:
    """Each row of the tables of promises names a test."""
    tables = [table for table in PAGE.read_text().split("\n\n") if table.startswith("| promise | tested by |")]
    rows = [row for table in tables for row in table.splitlines()[2:]]

    assert len(rows) > 25
    assert [row for row in rows if "`test_" not in row] == []
