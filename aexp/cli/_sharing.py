"""`aexp push` and `aexp pull`: experiments to a Git remote, and from it."""

from collections.abc import Awaitable, Sequence
from typing import Annotated

from cyclopts import Parameter

import aexp

from . import _output, _shapes
from ._options import All, Json, Names, Place, Rev, baseline_of, flag
from ._progress import Bar
from ._words import count, visible

Remote = Annotated[str, Parameter(help="The name of a Git remote, a URL, or a folder.")]
NoData = Annotated[bool, flag("Leave artifacts and other data of DVC where it is.", "--no-data", "--no-cache")]
Force = Annotated[bool, flag("Replace what stands there under the same name.", "--force", "-f")]


async def push(
    remote: Remote = "origin",
    /,
    *names: Names,
    all: All = False,
    rev: Rev = None,
    force: Force = False,
    no_data: NoData = False,
    json: Json = False,
    place: Place,
) -> None:
    """Push experiments to a Git remote: those that are named, else every one of HEAD."""
    async with aexp.Repository(place) as repository:
        chosen = names or [
            each.ref
            for baseline in await repository.baselines(baseline_of(all=all, rev=rev))
            for each in baseline.experiments
        ]
        if not chosen:
            _write([], remote, json=json)
            return
        with Bar() as bar:
            done, error = await _settled(
                repository.push(*chosen, remote=remote, force=force, data=not no_data, progress=_told_to(bar))
            )
        _write(done, remote, json=json, data=not no_data)
        if error is not None:
            raise error


async def pull(
    remote: Remote = "origin",
    /,
    *names: Names,
    all: All = False,
    rev: Rev = None,
    force: Force = False,
    no_data: NoData = False,
    json: Json = False,
    place: Place,
) -> None:
    """Pull experiments from a Git remote: those that are named, else every one of HEAD."""
    async with aexp.Repository(place) as repository:
        chosen = list(names) or await _there(repository, remote, None if all else rev or "HEAD")
        if not chosen:
            _write([], remote, json=json)
            return
        with Bar() as bar:
            done, error = await _settled(
                repository.pull(*chosen, remote=remote, force=force, data=not no_data, progress=_told_to(bar))
            )
        _write(done, remote, json=json, data=not no_data)
        if error is not None:
            raise error


def _told_to(bar: Bar) -> aexp.Progress:
    return lambda told: bar(told.phase, told.done, told.total)


async def _there(repository: aexp.Repository, remote: str, rev: str | None) -> list[str]:
    """Return the refs of what a remote has, of one commit or of all."""
    wanted = {each.rev for each in await repository.baselines(rev)} if rev is not None else None
    return [
        each.ref for each in await repository.remote_experiments(remote) if wanted is None or each.baseline in wanted
    ]


async def _settled(
    work: Awaitable[Sequence[aexp.Transfer]],
) -> tuple[Sequence[aexp.Transfer], aexp.AexpError | None]:
    """Return what became of each experiment, and the error when only some of them could be transferred."""
    try:
        return await work, None
    except (aexp.Diverged, aexp.RemoteError) as error:
        if not error.transfers:
            raise
        return error.transfers, error


def _write(done: Sequence[aexp.Transfer], remote: str, *, json: bool, data: bool = True) -> None:
    if json:
        _output.write_json([_shapes.transfer(each) for each in done])
        return
    for each in done:
        reason = f": {visible(each.reason)}" if each.reason else ""
        _output.write(f"{each.rev[:7]}  {each.outcome:<10}  {visible(each.name)}{reason}")
    if not done:
        _output.say(f"no experiments to exchange with {visible(remote)}; --all means those of every commit")
    left = sum(each.data == "not transferred" for each in done)
    if left and data:
        noun = count(left, "experiment")
        _output.say(f"data of {noun} stayed: DVC names no remote for it; `dvc remote add --default NAME URL` does")
