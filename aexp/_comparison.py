"""What two experiments, or any two commits, differ in: the values that `compare()` returns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from attrs import field, frozen

from . import _tables

ChangeKind = Literal["added", "changed", "removed"]


@frozen
class Side:
    """One of two commits that were compared: what it was called, and its rev.

    `name` is the experiment's, or for another commit what was asked for. `damaged` says why some of its parameters
    or metrics cannot be read, so that they seem to be missing; it is None for a sound commit.
    """

    name: str
    rev: str
    damaged: str | None = None


@frozen
class Change:
    """A value that differs: `old` on the left, `new` on the right, and for two numbers `difference`, new - old.

    A side that does not have it at all is None, and `kind` says so: "added" is on the right only, "removed" on the
    left only. A None beside "changed" is a value that is None.
    """

    kind: ChangeKind
    old: Any
    new: Any
    difference: float | int | None = None


@frozen
class FileChange:
    """A file that differs, by its path from the top of the repository; "changed" may be its content, mode or type."""

    path: str
    kind: ChangeKind


class FileChanges(Sequence[FileChange]):
    """The files that differ, each made when it is looked at.

    A hundred thousand objects that come at once keep the event loop waiting while the garbage collector looks at them.
    """

    __slots__ = ("_kinds", "_paths")

    def __init__(self, paths: Sequence[str] = (), kinds: Sequence[ChangeKind] = ()) -> None:
        self._paths = tuple(paths)
        self._kinds = tuple(kinds)

    @overload
    def __getitem__(self, index: int) -> FileChange: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[FileChange, ...]: ...
    def __getitem__(self, index: int | slice) -> FileChange | tuple[FileChange, ...]:
        """Return the file at *index*, or those of a slice."""
        if isinstance(index, slice):
            return tuple(map(FileChange, self._paths[index], self._kinds[index]))
        return FileChange(self._paths[index], self._kinds[index])

    def __len__(self) -> int:
        """Return how many differ."""
        return len(self._paths)

    def __iter__(self) -> Iterator[FileChange]:
        """Yield the files in order."""
        return map(FileChange, self._paths, self._kinds)

    def __eq__(self, other: object) -> bool:
        """Compare file by file, with a tuple of them, too."""
        return tuple(self) == tuple(other) if isinstance(other, (FileChanges, tuple)) else NotImplemented

    def __hash__(self) -> int:
        """Hash like a tuple of them."""
        return hash(tuple(self))

    def __repr__(self) -> str:
        """Show them like a tuple."""
        return repr(tuple(self))


@frozen(kw_only=True)
class Comparison:
    """What differs between two commits; what is equal is not in it.

    `params` are flat (`model.depth`), `metrics` as logged (`train/loss`). `files` are in Git's order, by the bytes of their paths, without those of
    aexp's own folder, which `params` and `metrics` speak of. `patch` is what `git diff` prints, when it was asked for.
    """

    left: Side
    right: Side
    params: Mapping[str, Change] = field(factory=dict)
    metrics: Mapping[str, Change] = field(factory=dict)
    files: Sequence[FileChange] = ()
    patch: str | None = field(default=None, repr=False)

    def __bool__(self) -> bool:
        """Say whether anything differs."""
        return bool(self.params or self.metrics or self.files)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a row for each difference: `section` (params, metrics, files), `name`, `kind`, `old`, `new`, `difference`."""
        rows = [
            {
                "section": section,
                "name": name,
                "kind": each.kind,
                "old": each.old,
                "new": each.new,
                "difference": each.difference,
            }
            for section, found in (("params", self.params), ("metrics", self.metrics))
            for name, each in found.items()
        ]
        nothing = dict.fromkeys(("old", "new", "difference"))
        rows += [{"section": "files", "name": each.path, "kind": each.kind, **nothing} for each in self.files]
        return rows


def flat_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested parameters under their dotted names."""
    return _tables.leaves(params, "")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Change]:
    """Return what differs between two flat mappings, by name, in order."""
    found: dict[str, Change] = {}
    for name in sorted({*old, *new}):
        if name not in old:
            found[name] = Change("added", None, new[name])
        elif name not in new:
            found[name] = Change("removed", old[name], None)
        elif not _same(old[name], new[name]):
            found[name] = Change("changed", old[name], new[name], _difference(old[name], new[name]))
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same(old: Any, new: Any) -> bool:
    """Say whether two values are equal to a reader: 1 and 1.0 are, NaN and NaN are, 1 and true are not."""
    if _is_number(old) and _is_number(new):
        return bool(old == new or (old != old and new != new))
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    return type(old) is type(new) and bool(old == new)


def _difference(old: Any, new: Any) -> float | int | None:
    if not (_is_number(old) and _is_number(new)):
        return None
    try:
        return new - old  # type: ignore[no-any-return]
    except OverflowError:  # an int that no float can hold, and a float
        return None
