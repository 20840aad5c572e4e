"""docs/reliability.md names tests for each promise: they are there, and the promises are those of the README."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reliability.md"
NAMED = sorted(set(re.findall(r"`(?:(tests/[\w/]+\.py)::)?(test_\w+)(?:\.py)?`", PAGE.read_text())))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_is_named_is_there(path: str, name: str) -> None:
    """A test, or a file of tests, that the page calls a proof exists."""
    places = [ROOT / path] if path else sorted((ROOT / "tests").rglob("test_*.py"))

    assert any(place.stem == name or f"def {name}(" in place.read_text() for place in places)


def test_every_promise_has_a_proof() -> None:
    """Each row of the tables of promises names a test."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    promised = [row for row in rows if "`test_" in row or "tested by" not in row]

    assert len(NAMED) > 30
    assert all("`test_" in row for row in promised if row.count("|") == 4)
