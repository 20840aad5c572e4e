"""The arguments and flags that several verbs have, and what completes them in a shell."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

import aexp

if TYPE_CHECKING:
    from cyclopts.completion._engine import CompletionContext

Completer = Callable[["CompletionContext"], list[tuple[str, str]]]


def flag(text: str, *names: str) -> Parameter:
    """Return a flag, which is given or not."""
    return Parameter(name=names or None, negative="", show_default=False, help=text)


def option(text: str, *names: str, **more: Any) -> Parameter:
    """Return an option that takes a value; given again, it takes another where the verb has several."""
    return Parameter(name=names or None, negative="", show_default=False, help=text, **more)


def _asked(
    question: Callable[[aexp.Repository, "CompletionContext"], Coroutine[Any, Any, dict[str, str]]],
) -> Completer:
    """Return a completer that asks the repository which the command line names."""

    async def ask(context: "CompletionContext") -> list[tuple[str, str]]:
        given = context.get("--repository")
        path = (given.raw if given else None) or "."
        async with aexp.Repository(path) as repository:
            return list((await question(repository, context)).items())

    return lambda context: asyncio.run(ask(context))


async def _names(repository: aexp.Repository, _: "CompletionContext") -> dict[str, str]:
    found = await repository.baselines()
    return {each.name: f"on {called(baseline)}" for baseline in found for each in baseline.experiments}


async def _commits(repository: aexp.Repository, _: "CompletionContext") -> dict[str, str]:
    found = await repository.baselines()
    return {name: f"{len(each.experiments)} experiments" for each in found for name in (*each.names, each.rev[:7])}


async def _names_and_commits(repository: aexp.Repository, context: "CompletionContext") -> dict[str, str]:
    return await _names(repository, context) | await _commits(repository, context) | {"HEAD": ""}


async def _metrics(repository: aexp.Repository, context: "CompletionContext") -> dict[str, str]:
    name = context.get("name")
    if name is not None and name.raw:
        return dict.fromkeys((await repository.get(name.raw)).metrics, "")
    return {each: "" for record in await repository.experiments() for each in record.metrics}


def called(baseline: aexp.Baseline) -> str:
    """Return how people call a commit: by its first branch or tag, or by the beginning of its rev."""
    return baseline.names[0] if baseline.names else baseline.rev[:7]


def _from_1_to_17(_: object, value: int) -> None:
    if not 1 <= value <= 17:
        raise ValueError("a number has from 1 to 17 significant digits")


Place = Annotated[str, Parameter(parse=False)]
"""The path of the repository: `-C` and AEXP_REPOSITORY give it to every verb."""
Names = Annotated[str, Parameter(help="Experiments: names, full refs, or revs.", completer=_asked(_names), negative="")]
Name = Annotated[str, Parameter(help="An experiment: its name, full ref, or rev.", completer=_asked(_names))]
Commit = Annotated[
    str, Parameter(help="An experiment, or whatever else names a commit.", completer=_asked(_names_and_commits))
]
Metric = Annotated[str, Parameter(help="The name of a metric.", completer=_asked(_metrics))]
Metrics = Annotated[str, Parameter(help="Names of metrics.", completer=_asked(_metrics), negative="")]
All = Annotated[bool, flag("Experiments of every commit, not of HEAD only.", "--all", "-A", "--all-commits")]
Rev = Annotated[str | None, option("Experiments of this commit.", "--rev", completer=_asked(_commits))]
Json = Annotated[bool, flag("Print JSON.", "--json")]
Csv = Annotated[bool, flag("Print CSV, with every column and every digit.", "--csv")]
Where = Annotated[str | None, option("Only those this is true for: \"params.lr < 0.1 and 'good' in tags\".", "--where")]
Precision = Annotated[
    int,
    Parameter(help="How many significant digits of a number are shown.", validator=_from_1_to_17),
]


def baseline_of(*, all: bool, rev: str | None) -> str | None:
    """Return the baseline that `--all` and `--rev` ask for, None for every one."""
    return None if all else rev or "HEAD"
