"""The verbs that change something: the work tree (apply, undo), or the refs of experiments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import aexp

from . import _output, _shapes
from ._errors import Misuse
from ._options import All, Json, Name, Names, Place, Rev, baseline_of, flag
from ._tree import status
from ._words import count, visible

MOST = 20
"""How many paths are printed of each kind."""


async def apply(
    name: Name,
    /,
    *paths: Annotated[Path, Parameter(help="Only these files and folders, relative to the top of the repository.")],
    force: Annotated[
        bool, flag("Overwrite what is in no commit, and keep it for `aexp undo`.", "--force", "-f")
    ] = False,
    json: Json = False,
    place: Place,
) -> None:
    """Make the files of the work tree those of an experiment; HEAD, the branch and the index stay, `aexp undo` puts back."""
    async with aexp.Repository(place) as repository:
        done = await repository.apply(name, force=force, paths=[str(path) for path in paths] or None)
    if json:
        _output.write_json(_shapes.applied(done))
        return
    _write("written", done.written)
    _write("removed", done.removed)
    for each in done.skipped:
        _output.say(f"left alone: {visible(each.path)}: {each.reason}")
    if done.missing:
        names = ", ".join(map(visible, done.missing[:3]))
        _output.say(
            f"the cache of DVC lacks {count(len(done.missing), 'data file')} ({names}); `dvc pull` or `dvc exp pull` gets them"
        )
    changed = len(done.written) + len(done.removed)
    _output.say(
        f"{visible(done.name)} is applied: {count(changed, 'path')} changed; `aexp undo` puts back what was there"
        if changed
        else f"the work tree is that of {visible(done.name)} already"
    )


async def undo(
    *,
    force: Annotated[
        bool, flag("Also where applied files were edited since; they are moved aside.", "--force", "-f")
    ] = False,
    json: Json = False,
    place: Place,
) -> None:
    """Put back, to the byte, what the last `aexp apply` here replaced."""
    async with aexp.Repository(place) as repository:
        done = await repository.undo_apply(force=force)
    if json:
        _output.write_json(_shapes.undone(done))
        return
    _write("restored", done.restored)
    if done.kept is not None:
        _output.say(f"what was edited since is in {done.kept}")


def _write(word: str, paths: Sequence[str]) -> None:
    for path in paths[:MOST]:
        _output.write(f"{word} {visible(path)}")
    if len(paths) > MOST:
        _output.say(f"{word} {count(len(paths) - MOST, 'more path')}; --json names them all")


async def branch(
    name: Name,
    branch: Annotated[str | None, Parameter(help="The name of the branch, at first NAME-branch.")] = None,
    /,
    *,
    place: Place,
) -> None:
    """Make a branch at an experiment, and print its name; HEAD, the index and the work tree stay."""
    async with aexp.Repository(place) as repository:
        _output.write(visible(await repository.branch(name, branch)))


async def rename(
    name: Name,
    new_name: Annotated[str, Parameter(help="What it is called from then on.")],
    /,
    *,
    json: Json = False,
    place: Place,
) -> None:
    """Give an experiment another name, on the same commit; its rev stays."""
    async with aexp.Repository(place) as repository:
        _told([await repository.rename(name, new_name)], json=json)


async def remove(
    *names: Names,
    all: All = False,
    rev: Rev = None,
    json: Json = False,
    place: Place,
) -> None:
    """Remove the experiments that are named, or all of a commit, or all there are; `aexp restore` undoes it for 14 days."""
    if bool(names) == (all or rev is not None):
        raise Misuse("name experiments to remove, or all of them with --all, or those of a commit with --rev")
    async with aexp.Repository(place) as repository:
        chosen = names or [
            each.ref
            for baseline in await repository.baselines(baseline_of(all=all, rev=rev))
            for each in baseline.experiments
        ]
        _told(await repository.remove(*chosen) if chosen else [], json=json)


async def restore(
    name: Annotated[str, Parameter(help="An experiment that was removed or replaced.")],
    new_name: Annotated[str | None, Parameter(help="What it is called from then on.")] = None,
    /,
    *,
    json: Json = False,
    place: Place,
) -> None:
    """Bring back an experiment that was removed or replaced, to the commit it stood on."""
    async with aexp.Repository(place) as repository:
        _told([await repository.restore(name, new_name)], json=json)


def _told(records: Sequence[aexp.Record], *, json: bool) -> None:
    if json:
        _output.write_json([_shapes.record(each) for each in records])
    for each in [] if json else records:
        _output.write(f"{each.rev[:7] or 'damaged'}  {status(each):<11}  {visible(each.name)}")
    if not records:
        _output.say("no experiments there")
