"""`aexp list`: which experiments there are, by the commit they stand on."""

from collections.abc import Sequence
from typing import Annotated

from attrs import evolve
from cyclopts import Parameter

import aexp

from . import _output, _shapes
from ._options import All, Json, Place, Rev, baseline_of, called, flag
from ._words import count, visible


async def list_(
    remote: Annotated[str | None, Parameter(help="A Git remote to list, instead of this repository.")] = None,
    /,
    *,
    all: All = False,
    rev: Rev = None,
    name_only: Annotated[bool, flag("Print names only, one a line.", "--name-only", "--names-only")] = False,
    sha_only: Annotated[bool, flag("Print revs only, one a line.", "--sha-only", "--shas-only")] = False,
    json: Json = False,
    place: Place,
) -> None:
    """Print the names and revs of experiments; of HEAD's, unless others are asked for."""
    async with aexp.Repository(place) as repository:
        found = await repository.baselines(baseline_of(all=all, rev=rev))
        if remote is not None:
            found = _there(await repository.remote_experiments(remote), found, all=all)
        if json:
            _output.write_json([_shapes.baseline(each) for each in found])
        elif name_only:
            _write([visible(each.name) for baseline in found for each in baseline.experiments])
        elif sha_only:
            _write([each.rev for baseline in found for each in baseline.experiments if each.rev])
        else:
            _write(lines(found))
        if any(each.experiments for each in found):
            return
        if remote is None:
            await none_here(repository, all=all, rev=rev)
        else:
            _output.say(
                f"no experiments on {visible(remote)}{'' if all else ' of ' + (rev or 'HEAD') + '; --all lists those of every commit'}"
            )


def _there(remote: Sequence[aexp.RemoteExperiment], here: Sequence[aexp.Baseline], *, all: bool) -> list[aexp.Baseline]:
    """Return the commits that experiments of a remote stand on: those that are asked for, or all."""
    known = {each.rev: each for each in here}
    standing: dict[str, list[aexp.Reference]] = {} if all else {each.rev: [] for each in here}
    for each in remote:
        if all or each.baseline in known:
            reference = aexp.Reference(name=each.name, ref=each.ref, rev=each.rev)
            standing.setdefault(each.baseline, []).append(reference)
    return [
        evolve(known.get(rev) or aexp.Baseline(rev=rev), experiments=tuple(experiments))
        for rev, experiments in standing.items()
    ]


def lines(found: list[aexp.Baseline]) -> list[str]:
    """Return what is printed: a line for each commit that has experiments, and one below it for each of them."""
    return [
        line
        for baseline in found
        if baseline.experiments
        for line in (
            f"{visible(called(baseline))}:",
            *(f"\t{each.rev[:7] or 'damaged'} [{visible(each.name)}]" for each in baseline.experiments),
        )
    ]


def _write(lines: list[str]) -> None:
    if lines:
        _output.write("\n".join(lines))


async def none_here(repository: aexp.Repository, *, all: bool, rev: str | None) -> None:
    """Say that nothing was found, and whether there is something elsewhere."""
    elsewhere = sum(len(each.experiments) for each in await repository.baselines())
    if all or not elsewhere:
        _output.say("no experiments yet")
    else:
        _output.say(f"no experiments of {rev or 'HEAD'}; --all lists {count(elsewhere, 'experiment')} of other commits")
