"""Any object that holds parameters, as new plain mappings, lists and scalars."""

import dataclasses
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AnySet
from contextlib import contextmanager
from datetime import date, time
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import InvalidParams

if TYPE_CHECKING:
    from decimal import Decimal

DEPTH = 100
"""How deep mappings and lists may be nested."""

NODES = 1_000_000
"""How many values, lists and mappings there may be in all."""

# The lowest limit that Python can be given for turning digits into an int is 640; 2**2000 has 603.
DECIMAL_BITS = 2_000

_ATOMS = frozenset({int, float, bool, type(None)})
_BYTES = (bytes, bytearray, memoryview)
_NO_TEXT = "[\0\ud800-\udfff]"


def plain(params: object) -> dict[str, Any]:
    """A deep copy of the parameters that consists of dict, list, str, int, float, bool and None only.

    Accepts mappings, sequences and sets (sorted), attrs and dataclass instances, pydantic models, OmegaConf
    containers, enums (their value), paths, dates (ISO 8601), `Decimal` (a float where that is exact, otherwise its
    digits as a str), scalars and arrays of numpy and torch. A key may also be a number, a bool, None, an enum or a
    date; it becomes text as in JSON. Raises `InvalidParams`, which names the key, for anything else: text with NUL
    or half a surrogate pair, two keys with one text, a cycle, more than `DEPTH` levels or `NODES` values.
    """
    result = _Walk().value(params)
    if not isinstance(result, dict):
        raise InvalidParams(f"params must be a mapping of names to values, not {_kind(params)}")
    return result


class _Walk:
    """One conversion: the keys that lead to where it is, the objects it is inside of, and the values it has met."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._inside: set[int] = set()
        self._nodes = 0

    def value(self, value: object) -> Any:
        """The plain form of a value and of all that it holds."""
        self._nodes += 1
        if self._nodes > NODES:
            self._refuse(f"is too large: more than {NODES:,} values in all; log a large table as an artifact")
        simple = self._simple(value)
        if type(simple) is str:
            return self._text(simple)
        if type(simple) in _ATOMS:
            return simple
        if isinstance(simple, Mapping):
            with self._level(value):
                return self._mapping(simple.items())
        if isinstance(simple, Sequence | AnySet) and not isinstance(simple, _BYTES):
            with self._level(value):
                items = self._items(simple)
                return items if isinstance(simple, Sequence) else _sorted(items)
        return self._refuse(f"is of type {_kind(value)}, which no parameter file can hold; turn it into text")

    def _simple(self, value: object) -> object:
        """The value as an exact str, int, float, bool or None, or as a mapping, sequence or set; or what is neither."""
        for _ in range(DEPTH):  # an enum of a path takes two steps; no honest object takes many
            if type(value) is str or type(value) in _ATOMS or type(value) in (dict, list):
                return value
            try:
                simpler = _simpler(value)
            except Exception as error:  # third-party code, which may raise anything
                self._refuse(f"cannot be read from {_kind(value)}: {type(error).__name__}: {str(error)[:200]}")
            if type(simpler) is type(value):
                return simpler
            value = simpler
        return value

    def _text(self, text: str) -> str:
        found = None if text.isascii() and "\0" not in text else re.search(_NO_TEXT, text)
        if found is not None:
            self._refuse(f"contains U+{ord(found[0]):04X}, which no parameter file can hold; log such data as a file")
        return text

    def _mapping(self, items: Iterable[tuple[object, object]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            text = self._key(key)
            self._path.append(f".{text}")
            if text in result:
                self._refuse("stands twice: two different keys become this text")
            result[text] = self.value(value)
            self._path.pop()
        return result

    def _key(self, key: object) -> str:
        """A key as text, in the spelling that JSON has for keys that are none."""
        simple = self._simple(key)
        if type(simple) is str:
            return self._text(simple)
        if simple is None:
            return "null"
        if isinstance(simple, bool):
            return "true" if simple else "false"
        if isinstance(simple, float) or (isinstance(simple, int) and simple.bit_length() <= DECIMAL_BITS):
            return repr(simple)
        return self._refuse(f"has a key of type {_kind(key)}; keys are text")

    def _items(self, values: Iterable[object]) -> list[Any]:
        result = []
        for index, value in enumerate(values):
            self._path.append(f"[{index}]")
            result.append(self.value(value))
            self._path.pop()
        return result

    @contextmanager
    def _level(self, value: object) -> Iterator[None]:
        """Inside of `value`, which is a mapping or holds other values."""
        if id(value) in self._inside:
            self._refuse("contains itself")
        if len(self._inside) >= DEPTH:
            self._refuse(f"is nested more than {DEPTH} levels deep")
        self._inside.add(id(value))
        yield
        self._inside.remove(id(value))

    def _refuse(self, reason: str) -> NoReturn:
        path = "params" + "".join(self._path)
        raise InvalidParams(f"{path if len(path) <= 200 else path[:200] + '...'} {reason}")


def _simpler(value: object) -> Any:
    """The value one step closer to being plain; itself when there is no such step."""
    kind = type(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, PurePath):
        return str(value)
    decimal = sys.modules.get("decimal")  # who has a Decimal has imported it
    if decimal is not None and isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, date | time):
        return value.isoformat()
    omegaconf = sys.modules.get("omegaconf")  # only an object of a module that is loaded can have come here
    if omegaconf is not None and isinstance(value, omegaconf.Container):
        return omegaconf.OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in kind.__attrs_attrs__}
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if hasattr(kind, "model_dump"):
        return kind.model_dump(value)
    if hasattr(kind, "__fields__") and hasattr(kind, "dict"):  # pydantic 1
        return kind.dict(value)
    return _array(value) if hasattr(kind, "dtype") else value


def _number(value: "Decimal") -> float | str:
    """The float that equals the decimal, where there is one; otherwise its digits, of which none may be lost."""
    if value.is_snan():
        return str(value)
    number = float(value)
    return number if value.is_nan() or value == number else str(value)


def _array(value: Any) -> Any:
    """What a scalar or an array of numpy, torch or the like holds; itself when that has no exact plain form."""
    if getattr(value.dtype, "kind", "") in ("m", "M"):  # numpy gives times of a nanosecond as a bare int
        return value
    if math.prod(getattr(value, "shape", ())) > NODES:
        raise ValueError(f"it has more than {NODES:,} elements")
    return value.tolist() if hasattr(value, "tolist") else value.item()


def _sorted(values: list[Any]) -> list[Any]:
    try:
        return sorted(values)
    except TypeError:  # of several types, which have no order of their own
        return sorted(values, key=repr)


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
