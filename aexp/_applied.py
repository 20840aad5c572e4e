"""Bringing an experiment's files into a work tree, decided: what is to be written, what is in the way, what was done."""

from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import field, frozen

from ._formats.gitobjects import EXECUTABLE, SYMLINK
from ._values import Skipped


@frozen(kw_only=True)
class Applied:
    """What `apply()` did: the paths it wrote and removed, and what it did not.

    `unchanged` counts the files that differ from HEAD in the experiment and stood there already. `missing` are data
    files whose content the cache of DVC does not hold. `skipped` says what was left alone, and why. `undo` is the
    folder that keeps what was replaced, until `undo_apply()` puts it back; None when nothing was changed.
    """

    name: str
    rev: str
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    missing: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    undo: str | None = None


@frozen(kw_only=True)
class Undone:
    """What `undo_apply()` did: the paths that are again as they were before `name` was applied.

    `kept` is the folder with what `force=True` took away; None when it took nothing.
    """

    name: str
    rev: str
    restored: tuple[str, ...] = ()
    kept: str | None = None


@frozen
class Blob:
    """A file or link as Git keeps it, filters not yet applied."""

    mode: int
    id: bytes


@frozen
class Data:
    """A file as DVC keeps it, by the MD5 of its content."""

    md5: str
    executable: bool = False


Wanted = Blob | Data | None
"""What shall stand at a path; None for nothing."""


@frozen
class Seen:
    """What stands at a path: a file, a link, or nothing that could be lost there.

    `id` is of the blob that Git would make of it. `ours` says that the last apply wrote it just so. `md5` is known for
    data only.
    """

    kind: Literal["absent", "file", "link"] = "absent"
    executable: bool = False
    id: bytes = b""
    md5: str = ""
    ours: bool = False


@frozen
class Choice:
    """A path that must change, from what to what; not yet with the content."""

    path: str
    before: Literal["file", "link"] | None
    wanted: Wanted


@frozen(kw_only=True)
class Decision:
    """What must change, what would be lost by it, and what stands already as it should."""

    choices: tuple[Choice, ...] = ()
    conflicts: tuple[str, ...] = ()
    unchanged: int = 0


@frozen(eq=False, repr=False)
class Wish:
    """What shall stand where, by path; what HEAD holds there; and the MD5s that a data cache can give back there."""

    wanted: dict[str, Wanted] = field(factory=dict)
    head: dict[str, Blob] = field(factory=dict)
    cached: dict[str, str] = field(factory=dict)
    skipped: list[Skipped] = field(factory=list)
    missing: list[str] = field(factory=list)

    def skip(self, path: str, reason: str) -> None:
        """Leave *path* as it is."""
        self.wanted.pop(path, None)
        self.skipped.append(Skipped(path, reason))


def matches(wanted: Wanted, seen: Seen, *, filemode: bool = True) -> bool:
    """Say whether what is *seen* is what is *wanted*."""
    if wanted is None or seen.kind == "absent":
        return wanted is None and seen.kind == "absent"
    if isinstance(wanted, Data):
        return seen.kind == "file" and seen.md5 == wanted.md5 and (seen.executable or not wanted.executable)
    if wanted.mode == SYMLINK:
        return seen.kind == "link" and seen.id == wanted.id
    same_mode = not filemode or seen.executable == (wanted.mode == EXECUTABLE)
    return seen.kind == "file" and seen.id == wanted.id and same_mode


def decide(wish: Wish, seen: Mapping[str, Seen], *, filemode: bool = True) -> Decision:
    """Say what must change so that everything stands as wished, and which changes would lose what is kept nowhere else.

    Nothing is lost where nothing stands, where HEAD holds it, where a data cache does, or where the last apply wrote it.
    """
    choices: list[Choice] = []
    conflicts: list[str] = []
    unchanged = 0
    for path in sorted(wish.wanted):
        wanted, here = wish.wanted[path], seen[path]
        if matches(wanted, here, filemode=filemode):
            unchanged += wanted is not None
            continue
        kept = (
            here.kind == "absent"
            or here.ours
            or (path in wish.head and matches(wish.head[path], here, filemode=filemode))
            or (here.md5 != "" and wish.cached.get(path) == here.md5)
        )
        if not kept:
            conflicts.append(path)
        choices.append(Choice(path, None if here.kind == "absent" else here.kind, wanted))
    return Decision(choices=tuple(choices), conflicts=tuple(conflicts), unchanged=unchanged)


def parents(path: str) -> list[str]:
    """Return the folders above *path*, the outermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: place + 1]) for place in range(len(parts))]


def clash(paths: Sequence[str], *, ignore_case: bool) -> tuple[str, str] | None:
    """Return two of the files at *paths* of which one stands where the other needs a folder, or both have one name.

    *ignore_case* is how the disk compares names.
    """
    folded: dict[str, str] = {}
    for path in paths:
        key = path.casefold() if ignore_case else path
        if key in folded:
            return folded[key], path
        folded[key] = path
    for path in paths:
        for folder in parents(path.casefold() if ignore_case else path):
            if folder in folded:
                return folded[folder], path
    return None
