"""Overrides written into a parameter file of the tree: what changes is the text of the values, and nothing else."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from ..errors import InvalidParams
from .changes import Change, first_change, same
from .overrides import Override, overlaid, overridden
from .params import load_text
from .python import splice_python
from .splices import splice_json, splice_yaml

MOST: Final = 10_000
"""How many changes are made to one file: each reads it anew."""


def edited(text: str, file: str, overrides: Sequence[Override]) -> str:
    """Return the parameter file *text* after *overrides*: YAML, JSON, TOML or Python, by the suffix of *file*.

    Comments, quotes, anchors, indentation and order of all that does not change stay byte for byte. What is returned
    has been read back, and holds exactly the values that the overrides lead to. Raises `InvalidParams` with the file
    and the reason: a key that is not there, a file that cannot be read, a change that would need a rewrite.
    """
    return _led_to(text, file, lambda values: overridden(values, overrides))


def merged(text: str, file: str, values: Mapping[str, Any]) -> str:
    """Return the parameter file *text* with *values* merged over its own, mapping by mapping; as `edited` otherwise."""
    return _led_to(text, file, lambda old: overlaid(old, values))


def _led_to(text: str, file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    try:
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        return mark + _changed(text.removeprefix(mark), file, change)
    except InvalidParams as error:
        raise InvalidParams(error.reason, file=file, line=error.line) from error.__cause__


def _changed(text: str, file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    values = _mapping(text, file)
    wanted = change(values)
    splice = _SPLICES.get(PurePosixPath(file).suffix.lower(), splice_yaml)
    for _ in range(MOST):
        next_change = first_change(values, wanted)
        if next_change is None:
            break
        before, text = text, splice(text, next_change)
        if text == before:
            raise _beyond(next_change)
        try:
            values = _mapping(text, file)
        except InvalidParams:
            raise _beyond(next_change) from None
    if not same(values, wanted):
        raise InvalidParams("the change cannot be made without rewriting the file; edit it by hand")
    return text


def _beyond(change: Change) -> InvalidParams:
    name = ".".join(map(str, change.path))
    return InvalidParams(f"{name} cannot be changed without rewriting the file; edit it by hand")


def _mapping(text: str, file: str) -> dict[str, Any]:
    values = load_text(text, file)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidParams(f"it holds {type(values).__name__}, and no keys to change")
    return values


def _splice_toml(text: str, change: Change) -> str:
    from tomlkit import parse  # only parameter files in TOML need it, and it takes 20 ms to import
    from tomlkit.exceptions import TOMLKitError

    try:
        document: Any = parse(text)
        node = document
        for key in change.path[:-1]:
            node = node[key]
        if change.kind == "delete":
            del node[change.path[-1]]
        else:
            node[change.path[-1]] = change.value
        return str(document.as_string())
    except (TOMLKitError, TypeError, ValueError, LookupError) as error:
        raise InvalidParams(f"TOML cannot hold it there: {error}") from error


_SPLICES: Final[Mapping[str, Callable[[str, Change], str]]] = {
    ".json": splice_json,
    ".toml": _splice_toml,
    ".py": splice_python,
}
