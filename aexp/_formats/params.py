"""Parameters: any object into plain nested mappings, and the files that hold them."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..errors import InvalidParams
from .plain import DEPTH, plain
from .python import load_python

__all__ = [
    "dump_params",
    "from_json",
    "is_json",
    "load_params",
    "load_values",
    "merge",
    "plain",
    "plain_params",
    "to_json",
]

EXPANDED = 30_000_000
"""How large a YAML document may be with every alias written out: the sum of its characters, and ten for each node.

A file of 10 MB with a million values, each under a key, is just below it.
"""
SIZE = 10_000_000
"""How many bytes a parameter file may have."""


def merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A new mapping with the keys of both, where `new` wins; mappings are merged key by key, lists are replaced.

    Neither argument is changed; values that are not merged are shared with them.
    """
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        merged[key] = merge(before, value) if isinstance(before, Mapping) and isinstance(value, Mapping) else value
    return merged


def dump_params(params: Mapping[str, Any]) -> bytes:
    """Plain parameters as the text of `params.yaml`, which DVC, PyYAML and ruamel.yaml all read back as they are.

    Keys keep their order. Floats that are not finite become the strings `nan`, `inf` and `-inf`.
    """
    from .yaml import dump_yaml  # ruamel.yaml takes 7 ms to import

    return dump_yaml(dict(params))


def load_params(content: bytes, file: str, *, limit: int = SIZE, expanded: int = EXPANDED) -> dict[str, Any]:
    """The plain parameters in a file: JSON, TOML or Python by the suffix of its name, YAML 1.2 otherwise.

    Dates become ISO 8601 strings; JSON may hold NaN and Infinity, as Python writes them; empty YAML holds nothing.
    Raises `InvalidParams` with the name of the file, and the line where it is known, for anything that cannot be
    read in full: more than `limit` bytes, other than UTF-8, a key that stands twice, too deep or too large (YAML: more
    than `expanded` once its aliases are written out).
    """
    return plain_params(load_values(content, file, limit=limit, expanded=expanded), file)


def plain_params(values: object, file: str) -> dict[str, Any]:
    """What `load_values` returned, as plain parameters; raises `InvalidParams` with the name of the file."""
    try:
        return plain(values)
    except InvalidParams as error:
        raise InvalidParams(error.reason, file=file, line=error.line) from error.__cause__


def load_values(content: bytes, file: str, *, limit: int = SIZE, expanded: int = EXPANDED) -> object:
    """The values in a file as its format gives them: dates are dates, and JSON may hold a bare number.

    Raises `InvalidParams` as `load_params` does. Empty YAML is an empty mapping.
    """
    if len(content) > limit:
        raise InvalidParams(f"{len(content):,} bytes are more than the limit of {limit:,}", file=file)
    text = decoded(content, file)
    try:
        values = load_text(text, file, expanded=expanded)
    except InvalidParams as error:
        raise InvalidParams(error.reason, file=file, line=error.line) from error.__cause__
    return {} if values is None and _reader(file) is None else values


def is_json(values: object) -> bool:
    """Whether JSON holds these values as they are: no date, no set, no bytes among them."""
    if isinstance(values, dict):
        return all(isinstance(key, str | int | float | None) and is_json(value) for key, value in values.items())
    if isinstance(values, list):
        return all(map(is_json, values))
    return values is None or type(values) in (str, int, float, bool)


def load_text(text: str, file: str, *, expanded: int = EXPANDED) -> object:
    """Return the values in a file as its own reader gives them: with dates, and what YAML's aliases share still shared.

    Raises `InvalidParams` without the name of the file.
    """
    reader = _reader(file)
    if reader is not None:
        return reader(text)
    from .yaml import load_yaml

    return load_yaml(text, expanded)


def _reader(file: str) -> Callable[[str], object] | None:
    """Return what reads *file*, by its suffix; None for YAML."""
    return _READERS.get(PurePosixPath(file).suffix.lower())


def decoded(content: bytes, file: str) -> str:
    """Return the text of a parameter file; raise `InvalidParams` for anything but UTF-8."""
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidParams(f"not UTF-8: {error.reason} at byte {error.start}", file=file, line=line) from error


def _load_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise InvalidParams(f"not usable as JSON: {error.msg}", line=error.lineno) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of levels
        raise InvalidParams(f"not usable as JSON: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) == len(pairs):
        return mapping
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise ValueError(f'found duplicate key "{key[:200]}"')
        seen.add(key)
    return mapping


# tomllib takes time that grows with the square of the number of parts of a dotted key.
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+"""
_DEEP_KEY = rf"(?m)(?:^|[\[{{,])[ \t]*+(?:{_PART}\.[ \t]*+){{{DEPTH}}}"
_TOML_LINE = r"\(at line (\d+), column \d+\)\Z"


def _load_toml(text: str) -> object:
    import tomllib  # only parameter files in TOML need it

    deep = re.search(_DEEP_KEY, text)
    if deep is not None:
        line = text.count("\n", 0, deep.start()) + 1
        raise InvalidParams(f"not usable as TOML: a key of more than {DEPTH} parts", line=line)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = re.search(_TOML_LINE, str(error))
        raise InvalidParams(f"not usable as TOML: {error}", line=int(found[1]) if found else None) from error


_READERS = {".json": _load_json, ".toml": _load_toml, ".py": load_python}


def to_json(params: object) -> Any:
    """Plain values as values that JSON can hold exactly; `from_json` turns them back.

    A float that is not finite is `{"$float": "nan"}`, an int beyond 64 bits `{"$int": "0x..."}`; a mapping whose only
    key begins with `$` gets another `$` before it, so that no parameter is taken for one of these.
    """
    if isinstance(params, dict):
        prefix = "$" if _is_marked(params) else ""
        return {prefix + key: to_json(value) for key, value in params.items()}
    if isinstance(params, list):
        return [to_json(value) for value in params]
    if isinstance(params, float) and not math.isfinite(params):
        return {"$float": repr(params)}
    if isinstance(params, int) and not -(1 << 63) <= params < 1 << 63:
        return {"$int": hex(params)}  # Python refuses to write or read more than 4300 decimal digits
    return params


def from_json(value: object) -> Any:
    """The plain values that `to_json` turned into `value`."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if not _is_marked(value):
        return {key: from_json(item) for key, item in value.items()}
    ((key, item),) = value.items()
    if key == "$float":
        return float(item)
    if key == "$int":
        return int(item, 16)
    return {key.removeprefix("$"): from_json(item)}


def _is_marked(mapping: dict[str, Any]) -> bool:
    return len(mapping) == 1 and next(iter(mapping)).startswith("$")
