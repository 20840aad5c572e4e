"""The fields of a record as a query names them, and what stands for a field that is not there."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ._values import Record

Get = Callable[[Any], Any]
"""Gets a value from a record."""
Part = str | int
"""A key, or a place in a list."""


class Missing:
    """What a record does not have: it is false, and every comparison with it is false."""

    __slots__ = ()

    def __bool__(self) -> bool:
        """Be false."""
        return False

    def _never(self, other: object) -> bool:
        return False

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _never
    __hash__ = object.__hash__


MISSING: Final = Missing()


def is_number(value: object) -> bool:
    """Say whether *value* is a number, which NaN is not."""
    return isinstance(value, int | float) and value == value


FIELDS: Final[Mapping[str, Get]] = {
    **{name: operator.attrgetter(name) for name in ("name", "id", "rev", "ref", "baseline", "status", "message")},
    **{name: operator.attrgetter(name) for name in ("created", "ended", "duration", "damaged", "params", "metrics")},
    "tags": lambda record: list(record.tags),
    "artifacts": lambda record: [each.name for each in record.artifacts],
    "checkpoints": lambda record: list(record.checkpoints),
    "error": lambda record: None if record.error is None else str(record.error),
}
ERROR: Final[Mapping[str, Get]] = {
    "type": lambda record: MISSING if record.error is None else record.error.type,
    "message": lambda record: MISSING if record.error is None else record.error.message,
}
MOMENTS: Final = frozenset({"created", "ended"})


def param(parts: Sequence[tuple[Part, bool]]) -> Get:
    """Return what walks nested parameters; the flag of a part says that its dots may separate keys, too."""
    (first, dotted), *others = parts
    if not others and not dotted:
        return lambda record: record.params.get(first, MISSING)
    steps = [_dotted(str(part)) if dotted else _step(part) for part, dotted in parts]

    def get(record: Record) -> Any:
        value: Any = record.params
        for step in steps:
            value = step(value)
        return value

    return get


def _step(part: Part) -> Get:
    if isinstance(part, int):
        return lambda value: value[part] if isinstance(value, list) and -len(value) <= part < len(value) else MISSING
    return lambda value: (
        value.get(part, MISSING) if type(value) is dict or isinstance(value, Mapping) else MISSING  # the first is fast
    )


def _dotted(key: str) -> Get:
    whole, steps = _step(key), [_step(part) for part in key.split(".")]

    def get(value: Any) -> Any:
        found = whole(value)
        if found is MISSING:
            found = value
            for step in steps:
                found = step(found)
        return found

    return get


def metric(parts: Sequence[str]) -> Get:
    """Return what gets the metric whose groups are *parts*, joined by `/` or as they are."""
    name, dotted = "/".join(parts), ".".join(parts)
    if len(parts) == 1:
        return lambda record: record.metrics.get(name, MISSING)
    return lambda record: record.metrics.get(name, record.metrics.get(dotted, MISSING))
