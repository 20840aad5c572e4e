"""Parameter files of an experiment's tree: read from Git, changed by overrides, and handed back as text."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ._dvc import FOLDER as FOLDER_OF_DVC
from ._formats.edits import edited, merged
from ._formats.gitobjects import FOLDER, SYMLINK, parse_tree
from ._formats.overrides import DEFAULT_FILE, Override
from ._formats.params import SIZE, decoded
from ._git import Handle, read_object
from ._hydra import Composition, composed, composition
from .errors import InvalidParams, UnsafePath


def with_overrides(
    handle: Handle, tree: str, overrides: Sequence[Override], known: Mapping[str, str]
) -> dict[str, str]:
    """Return the new text of each file that *overrides* name, by path.

    Where the DVC configuration says so, Hydra composes params.yaml. *known* holds the texts that the experiment has already; other files are those of *tree*. Raises `InvalidParams`
    for a file that is not there or a change that is not possible, `UnsafePath` for a symbolic link.
    """
    by_file: dict[str, list[Override]] = {}
    for each in overrides:
        by_file.setdefault(each.file, []).append(each)
    texts = {}
    for file, given in by_file.items():
        how = _composition(handle, file)
        if how is not None:
            texts[file] = composed(handle, tree, how, given, file)
        else:
            texts[file] = edited(_text(handle, tree, file, known), file, given)
    return texts


def _composition(handle: Handle, file: str) -> Composition | None:
    """Return how Hydra composes *file*, which is params.yaml beside a `.dvc` whose configuration says so; None otherwise."""
    folder, _, name = file.rpartition("/")
    root = os.path.join(handle.worktree or "", folder)
    if handle.worktree is None or name != DEFAULT_FILE or not os.path.isdir(os.path.join(root, FOLDER_OF_DVC)):
        return None
    return composition(root, handle.worktree, os.environ)


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
