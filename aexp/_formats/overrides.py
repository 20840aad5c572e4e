"""Overrides of parameters as `dvc exp run -S` takes them: parsed, and applied to values.

The grammar is that of Hydra's overrides (hydra-core 1.3, OverrideLexer.g4 and OverrideParser.g4), as far as one
experiment has use for it: sweeps, functions, interpolations and configuration groups are refused.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from attrs import frozen

from ..errors import InvalidParams
from .plain import DEPTH

DEFAULT_FILE: Final = "params.yaml"
"""The file that is meant where an override names none."""

Action = Literal["set", "append", "upsert", "delete"]
_ACTIONS: Final[Mapping[str, Action]] = {"": "set", "+": "append", "++": "upsert", "~": "delete"}

_GROUP: Final = r"[A-Za-z_][A-Za-z0-9_-]*(?:/[A-Za-z_][A-Za-z0-9_-]*)*(?:@[A-Za-z0-9_$.-]*)?"
"""A configuration group of Hydra, with the package that it is put into."""
_KEY: Final = (
    r"(?:[A-Za-z_$][A-Za-z0-9_$-]*|0|[1-9](?:_?[0-9])*)(?:\.(?:[A-Za-z_$][A-Za-z0-9_$-]*|0|[1-9](?:_?[0-9])*))*"
)
_UNSIGNED: Final = r"(?:0|[1-9](?:_?[0-9])*)"
_DIGITS: Final = r"[0-9](?:_?[0-9])*"
_POINT: Final = rf"(?:{_UNSIGNED}?\.{_DIGITS}|{_UNSIGNED}\.)"
_TOKENS: Final = re.compile(
    rf"""
      (?P<space>[ \t]+)
    | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<interpolation>\$\{{)
    | (?P<float>[+-]?(?:(?:{_POINT}|{_UNSIGNED})[eE][+-]?{_DIGITS}|{_POINT}|[iI][nN][fF]|[nN][aA][nN])(?![A-Za-z0-9_.]))
    | (?P<int>[+-]?{_UNSIGNED}(?![A-Za-z0-9_.]))
    | (?P<word>[A-Za-z_][A-Za-z0-9_-]*)
    | (?P<escaped>(?:\\[\\()\[\]{{}}:=, \t])+)
    | (?P<mark>[][{{}}(),:=])
    | (?P<other>[0-9/\-\\+.$%*@?|])
    """,
    re.VERBOSE,
)
_WORDS: Final[Mapping[str, bool | None]] = {"true": True, "false": False, "null": None}


@frozen
class Override:
    """One override: what is done at `path` of `file`, with `value` where the action has one."""

    file: str
    action: Action
    path: tuple[str, ...]
    value: Any
    valued: bool
    """Whether a value was given: `~a` deletes whatever `a` is, `~a=1` only a 1."""
    text: str


def parse_override(text: str) -> Override:
    """Return the override that *text* writes: `[FILE:][+|++|~]KEY.KEY=VALUE`; raise `InvalidParams`."""
    name, _, _ = text.partition("=")
    file, body = text.split(":", 1) if ":" in name else (DEFAULT_FILE, text)
    match = re.fullmatch(rf"(\+\+|\+|~|)({_KEY}|{_GROUP})(?:=(.*))?", body, re.DOTALL)
    if match is None or not file:
        raise _refused(text, file, "write [FILE:]KEY=VALUE, +KEY=VALUE, ++KEY=VALUE or ~KEY, with dots between keys")
    action, given = _ACTIONS[match[1]], match[3]
    if given is None and action != "delete":
        raise _refused(text, file, "it has no value; write KEY=VALUE, and KEY= for an empty text")
    value = "" if given is None else _Reader(text, file, given.lstrip(" \t")).whole()
    path = (match[2],) if "/" in match[2] or "@" in match[2] else tuple(match[2].split("."))
    return Override(file, action, path, value, given is not None, text)


def _refused(text: str, file: str, reason: str) -> InvalidParams:
    return InvalidParams(f"the override {text!r} cannot be understood: {reason}", file=file or None)


class _Reader:
    """Reads the value of an override, token by token."""

    def __init__(self, text: str, file: str, given: str) -> None:
        self._text, self._file = text, file
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(given):
            token = _TOKENS.match(given, place)
            if token is None:
                raise self._wrong(f"put quotes around text with {given[place]!r} in it")
            self._tokens.append((str(token.lastgroup), token[0]))
            place = token.end()
        self._place = 0

    def _wrong(self, reason: str) -> InvalidParams:
        return _refused(self._text, self._file, reason)

    def _mark(self, skip_space: bool = True) -> str:
        """Return the punctuation that comes next, "" for anything else and at the end."""
        place = self._place
        if skip_space and place < len(self._tokens) and self._tokens[place][0] == "space":
            place += 1
        if place < len(self._tokens) and self._tokens[place][0] == "mark":
            return self._tokens[place][1]
        return ""

    def _take(self, mark: str) -> None:
        if self._mark() != mark:
            raise self._wrong(f"a {mark!r} is missing")
        self._skip_space()
        self._place += 1
        self._skip_space()

    def _skip_space(self) -> None:
        if self._place < len(self._tokens) and self._tokens[self._place][0] == "space":
            self._place += 1

    def whole(self) -> Any:
        """Return the value; there must be nothing behind it."""
        if not self._tokens:
            return ""
        value = self._element(0)
        if self._mark() == ",":
            raise self._wrong("several values are a sweep; begin an experiment for each, or put [...] around a list")
        if self._place < len(self._tokens):
            raise self._wrong(f"put quotes around text with {self._tokens[self._place][1]!r} in it")
        return value

    def _element(self, depth: int) -> Any:
        if depth > DEPTH:
            raise self._wrong(f"nested more than {DEPTH} levels deep")
        mark = self._mark(skip_space=False)
        if mark == "[":
            return self._list(depth)
        if mark == "{":
            return self._mapping(depth)
        return self._primitive(colons=True)

    def _list(self, depth: int) -> list[Any]:
        self._take("[")
        items: list[Any] = []
        while self._mark() != "]":
            if items:
                self._take(",")
            items.append(self._element(depth + 1))
        self._close()
        return items

    def _mapping(self, depth: int) -> dict[Any, Any]:
        self._take("{")
        items: dict[Any, Any] = {}
        while self._mark() != "}":
            if items:
                self._take(",")
            key = self._primitive(colons=False)
            self._take(":")
            items[key] = self._element(depth + 1)
        self._close()
        return items

    def _close(self) -> None:
        self._skip_space()
        self._place += 1

    def _primitive(self, *, colons: bool) -> Any:
        taken: list[tuple[str, str]] = []
        while self._place < len(self._tokens):
            kind, text = self._tokens[self._place]
            if kind == "mark" and (text != ":" or not colons):
                break
            if kind == "interpolation":
                raise self._wrong("interpolations are not resolved here; write the value itself")
            taken.append((kind, text))
            self._place += 1
        while taken and taken[-1][0] == "space":
            taken.pop()
        while taken and taken[0][0] == "space":
            del taken[0]
        if not taken:
            raise self._wrong("a value is missing; write '' for an empty text")
        if self._mark() == "(":
            raise self._wrong("functions are not called here; put quotes around text with '(' in it")
        if len(taken) == 1:
            return self._typed(*taken[0])
        if any(kind == "quoted" for kind, _ in taken):
            raise self._wrong("text stands beside the quotes; put it inside")
        return "".join(_unescaped(text) if kind == "escaped" else text for kind, text in taken)

    def _typed(self, kind: str, text: str) -> Any:
        if kind == "quoted":
            return _unquoted(text)
        if kind == "int":
            if len(text) > 4300:  # Python refuses to read more digits
                raise self._wrong("a number has more than 4300 digits")
            return int(text)
        if kind == "float":
            return float(text)
        if kind == "word" and text.lower() in _WORDS:
            return _WORDS[text.lower()]
        return _unescaped(text) if kind == "escaped" else text


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _unquoted(text: str) -> str:
    """Return what stands between quotes: backslashes are halved before a quote and at the end, and kept elsewhere."""
    quote, inside = text[0], text[1:-1]
    inside = re.sub(rf"(\\+){quote}", lambda found: "\\" * (len(found[1]) // 2) + quote, inside)
    return re.sub(r"\\+\Z", lambda found: "\\" * (len(found[0]) // 2), inside)


# ---- applied to values ----


def overridden(values: Mapping[str, Any], overrides: Sequence[Override]) -> dict[str, Any]:
    """Return a copy of *values* after *overrides*, in order; what is shared in *values* (YAML's aliases) stays shared.

    Raises `InvalidParams` for a key that is not there, or is there already.
    """
    result: dict[str, Any] = _copied(values, {})
    for override in overrides:
        _apply(result, override)
    return result


def overlaid(values: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of *values* with *new* merged over it, mapping by mapping; lists are replaced."""
    result: dict[str, Any] = _copied(values, {})
    _merge(result, new, None)
    return result


def _copied(value: Any, known: dict[int, Any]) -> Any:
    """Return a copy in which what was one object is one object again."""
    if not isinstance(value, Mapping | list):
        return value
    if id(value) not in known:
        if isinstance(value, list):
            copy: list[Any] = []
            known[id(value)] = copy
            copy += [_copied(each, known) for each in value]
        else:
            tree: dict[Any, Any] = {}
            known[id(value)] = tree
            tree.update((key, _copied(each, known)) for key, each in value.items())
    return known[id(value)]


def _apply(root: dict[str, Any], override: Override) -> None:
    *above, last = override.path
    if "/" in last or "@" in last:
        raise _impossible(
            override, "it chooses a configuration group, and Hydra is not enabled in the DVC configuration"
        )
    adding = override.action in ("append", "upsert")
    node: Any = root
    for key in above:
        node = _below(node, key, override, adding)
    place = _place(node, last)
    there = place is not None
    if override.action == "delete":
        _delete(node, place, override)
        return
    if not there and not adding:
        raise _impossible(override, f"there is no {'.'.join(override.path)}; write {_added(override)} to add it")
    if not there and isinstance(node, list):
        raise _impossible(override, f"the list has {len(node)} items")
    old = node[place] if there else None
    merging = isinstance(override.value, dict | list)
    if override.action == "append" and old is not None and not merging:
        raise _impossible(override, f"{'.'.join(override.path)} is there already; write it without the +, or with ++")
    if isinstance(old, dict | list) and merging and type(old) is not type(override.value):
        kinds = ("keys", "a list") if isinstance(old, dict) else ("a list", "keys")
        raise _impossible(override, f"{'.'.join(override.path)} holds {kinds[0]}, not {kinds[1]}")
    if isinstance(old, dict) and isinstance(override.value, dict):
        _merge(old, override.value, None if adding else override)
    else:
        node[last if place is None else place] = override.value


def _place(node: Any, key: str) -> str | int | None:
    """Return the key or index by which *node* holds *key*; None when it does not."""
    if isinstance(node, list):
        return int(key) if key.isdigit() and int(key) < len(node) else None
    if isinstance(node, dict):
        if key in node:
            return key
        return next((each for each in node if not isinstance(each, str) and str(each) == key), None)
    return None


def _below(node: Any, key: str, override: Override, adding: bool) -> Any:
    place = _place(node, key)
    inner = None if place is None else node[place]
    if isinstance(inner, dict | list):
        return inner
    if not adding or isinstance(node, list):
        raise _impossible(override, f"there is nothing below {key!r}; write {_added(override)} to add it")
    made: dict[str, Any] = {}
    node[key if place is None else place] = made
    return made


def _merge(old: dict[Any, Any], new: Mapping[Any, Any], strictly: Override | None) -> None:
    """Merge *new* into *old*; for *strictly*, an override that does not add, its keys must be there."""
    for key, value in new.items():
        if key not in old and strictly is not None:
            raise _impossible(strictly, f"there is no {key!r} in it; write {_added(strictly)} to add it")
        if isinstance(old.get(key), dict) and isinstance(value, Mapping):
            _merge(old[key], value, strictly)
        else:
            old[key] = value


def _delete(node: Any, place: str | int | None, override: Override) -> None:
    name = ".".join(override.path)
    if place is None or node[place] is None:
        raise _impossible(override, f"there is no {name}")
    wanted = override.value if override.valued else None
    if wanted is not None and wanted != node[place]:
        raise _impossible(override, f"{name} is {node[place]!r}")
    del node[place]


def _added(override: Override) -> str:
    """Return the override that would add what *override* sets."""
    body = override.text.removeprefix(f"{override.file}:")
    return f"{override.text.removesuffix(body)}+{body}"


def _impossible(override: Override, reason: str) -> InvalidParams:
    return InvalidParams(f"the override {override.text!r} cannot be applied: {reason}", file=override.file)
