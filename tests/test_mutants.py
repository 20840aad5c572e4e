"""The list of mutants is up to date: each can be made, is no error of syntax, and names tests that exist."""

import ast
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


def listed() -> Any:
    """The module that lists the mutants; it is no test, and in no package."""
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "tests" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mutants"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("mutant", listed().MUTANTS, ids=lambda mutant: str(mutant.name))
def test_a_mutant_can_be_made(mutant: Any) -> None:
    """The text that a mutant changes is there once, what comes out is Python, and its tests are there."""
    changed = mutant.applied((ROOT / mutant.file).read_text())

    ast.parse(changed)
    for test in mutant.tests:
        path, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / path).read_text()


def test_names_are_unique() -> None:
    """No two mutants have one name, by which they are called."""
    names = [mutant.name for mutant in listed().MUTANTS]

    assert len(set(names)) == len(names)
