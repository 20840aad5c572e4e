"""Parameter files of an experiment's tree: read from Git, changed by overrides, and handed back as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from ._formats.edits import edited, merged
from ._formats.gitobjects import FOLDER, SYMLINK, parse_tree
from ._formats.overrides import Override
from ._formats.params import SIZE, decoded
from ._git import Handle, read_object
from .errors import InvalidParams, UnsafePath


def with_overrides(
    handle: Handle, tree: str, overrides: Sequence[Override], known: Mapping[str, str]
) -> dict[str, str]:
    """Return the new text of each file that *overrides* name, by path.

    *known* holds the texts that the experiment has already; other files are those of *tree*. Raises `InvalidParams`
    for a file that is not there or a change that is not possible, `UnsafePath` for a symbolic link.
    """
    by_file: dict[str, list[Override]] = {}
    for each in overrides:
        by_file.setdefault(each.file, []).append(each)
    return {file: edited(_text(handle, tree, file, known), file, given) for file, given in by_file.items()}


def with_values(handle: Handle, tree: str, file: str, values: Mapping[str, Any], known: Mapping[str, str]) -> str:
    """Return the new text of *file* with *values* merged over its own; as `with_overrides` otherwise."""
    return merged(_text(handle, tree, file, known), file, values)


def _text(handle: Handle, tree: str, file: str, known: Mapping[str, str]) -> str:
    if file in known:
        return known[file]
    id, mode = bytes.fromhex(tree), FOLDER
    for part in file.split("/"):
        entry = parse_tree(read_object(handle, id)[1]).get(part.encode()) if mode == FOLDER else None
        if entry is None:
            raise InvalidParams(
                "there is no such file in the code that the experiment started with; commit it, or give code='all'",
                file=file,
            )
        id, mode = entry.id, entry.mode
    if mode == SYMLINK:
        raise UnsafePath(file, "it is a symbolic link; name the file that it leads to")
    if mode == FOLDER:
        raise InvalidParams("it is a folder", file=file)
    content = read_object(handle, id)[1]
    if len(content) > SIZE:
        raise InvalidParams(f"{len(content):,} bytes are more than the limit of {SIZE:,}", file=file)
    return decoded(content, file)
