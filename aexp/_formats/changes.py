"""What differs between the values of a parameter file before and after an override, one change at a time."""

from collections.abc import Mapping
from typing import Any, Literal

from attrs import frozen


@frozen(eq=False, repr=False)
class Change:
    """The key or index at the end of `path` gets `value` (set, insert), or goes (delete)."""

    kind: Literal["set", "insert", "delete"]
    path: tuple[Any, ...]
    value: Any = None


def same(left: object, right: object) -> bool:
    """Say whether two values are equal and of the same types all through: 1, 1.0 and True differ, NaN is itself."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (left == right or (left != left and right != right))


def first_change(old: Mapping[Any, Any], new: Mapping[Any, Any], above: tuple[Any, ...] = ()) -> Change | None:
    """Return the first change that leads from *old* to *new*; None when nothing differs.

    Lists of one length are compared item by item; of different lengths, the whole list is set.
    """
    for key, value in old.items():
        if key not in new:
            return Change("delete", (*above, key))
        change = _between(value, new[key], (*above, key))
        if change is not None:
            return change
    return next((Change("insert", (*above, key), value) for key, value in new.items() if key not in old), None)


def _between(old: Any, new: Any, path: tuple[Any, ...]) -> Change | None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return first_change(old, new, path)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        changes = (_between(*pair, (*path, place)) for place, pair in enumerate(zip(old, new, strict=True)))
        return next((change for change in changes if change is not None), None)
    return None if same(old, new) else Change("set", path, new)
