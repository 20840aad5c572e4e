"""Comparing two commits, be they experiments or not: their parameters, metrics and files."""

import os
from collections.abc import Iterator, Sequence
from typing import Final

from ._comparison import ChangeKind, Comparison, FileChanges, Side, changes, flat_params
from ._files import Breath
from ._formats.experiment import is_carried
from ._formats.status import Difference, parse_differences
from ._git import Handle, resolve_commit, run, run_bounded
from ._pipelines import Pipelines
from ._records import find, read_record
from ._values import Record
from .errors import ExperimentNotFound, GitError, NoBaseline

PATCH_LIMIT: Final = 4 * 2**20
"""How long a patch may be, in bytes; it is for reading, and `git diff` has no limit."""


def find_commit(handle: Handle, name: str) -> tuple[str, str, str]:
    """Return (name, ref, rev) of the experiment that *name* means, or of any other commit it names, whose ref is "".

    An experiment comes first. Raises `ExperimentNotFound` when it is neither, `AmbiguousName`.
    """
    try:
        ref, rev = find(handle, name)
    except ExperimentNotFound as error:
        if type(error) is not ExperimentNotFound:
            raise
        try:
            return name, "", resolve_commit(handle, name)[0]
        except NoBaseline:
            raise ExperimentNotFound(
                name, "and no other commit; `await repository.experiments()` lists what is there"
            ) from None
    if not rev:
        raise GitError(f"read {ref}", "it is empty or holds no commit; restore it with `git update-ref`")
    return ref.rpartition("/")[2], ref, rev


def tree_differences(handle: Handle, old: str, new: str) -> Iterator[Difference]:
    """Yield every path in which two trees or commits differ, sorted by their bytes.

    By `git`, which skips equal folders by their id and keeps the interpreter free.
    """
    breath = Breath()
    for each in parse_differences(run(handle, "diff-tree", "-r", "-z", "--raw", "--no-renames", old, new)):
        breath()
        yield each


def compare(library: Pipelines, left: str, right: str, folder: str, patch: bool) -> Comparison:
    """Return what the commits named *left* and *right* differ in, with a *patch* on demand."""
    handle = library.handle
    (old, old_side), (new, new_side) = (_read(library, name, folder) for name in (left, right))
    own = f"{folder}/"
    paths, kinds, passed = list[str](), list[ChangeKind](), [folder]
    for each in tree_differences(handle, old_side.rev, new_side.rev):
        path = os.fsdecode(each.path)
        if None in (each.old, each.new) and is_carried(path, (each.old or each.new or (0, b""))[1]):
            passed.append(path)
        elif not path.startswith(own):
            paths.append(path)
            kinds.append(each.kind)
    return Comparison(
        left=old_side,
        right=new_side,
        params=changes(flat_params(old.params), flat_params(new.params)),
        metrics=changes(old.metrics, new.metrics),
        files=FileChanges(paths, kinds),
        patch=_patch(handle, old_side.rev, new_side.rev, passed) if patch else None,
    )


def _read(library: Pipelines, name: str, folder: str) -> tuple[Record, Side]:
    name, ref, rev = find_commit(library.handle, name)
    record = read_record(library, ref, rev, folder)
    return record, Side(name, rev, record.damaged)


def _patch(handle: Handle, old: str, new: str, passed: Sequence[str]) -> str:
    """Return what `git diff` prints of all paths but those *passed* over; it starts no program that attributes or a configuration may name."""
    quiet = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
    found, whole = run_bounded(
        handle, PATCH_LIMIT, "diff", *quiet, old, new, "--", ":(top)", *(f":(top,exclude,literal){p}" for p in passed)
    )
    if whole:
        return found.decode("utf-8", "replace")
    text = found[: found.rfind(b"\n") + 1].decode("utf-8", "replace")
    return f"{text}# cut off here, at {PATCH_LIMIT:,} bytes; `git diff {old[:10]} {new[:10]}` prints the whole\n"
