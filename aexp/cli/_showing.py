"""`aexp show` and `aexp best`: experiments as a table."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal

from attrs import evolve, frozen
from cyclopts import Parameter

import aexp

from . import _grid, _output, _screen, _shapes, _sparks, _tables, _tree
from ._listing import none_here
from ._options import All, Csv, Json, Metric, Place, Precision, Rev, Where, baseline_of, flag, option
from ._progress import Bar
from ._words import count, visible


@Parameter(name="*")
@frozen(kw_only=True)
class Look:
    """How a table looks."""

    keep: Annotated[tuple[str, ...], option("Keep columns that match this regular expression.", "--keep")] = ()
    drop: Annotated[tuple[str, ...], option("Leave out columns that match this one.", "--drop")] = ()
    only_changed: Annotated[bool, flag("Leave out columns whose values are all the same.", "--only-changed")] = False
    precision: Precision = 5
    sparklines: Annotated[bool, flag("Draw the course of each metric beside its value.", "--sparklines")] = False


PLAIN = Look()
Sort = Annotated[
    tuple[str, ...],
    option(
        "Order by this field, largest first behind a -; again for the next.",
        "--sort",
        "--sort-by",
        allow_leading_hyphen=True,
    ),
]
Limit = Annotated[int | None, Parameter(help="At most so many experiments.", show_default=False)]
Markdown = Annotated[bool, flag("Print a table in Markdown, with every column.", "--md")]


async def show(
    *,
    where: Where = None,
    sort: Sort = (),
    sort_order: Annotated[
        Literal["asc", "desc"], Parameter(help="desc turns every --sort around, as a - before it does.")
    ] = "asc",
    limit: Limit = None,
    all: All = False,
    rev: Rev = None,
    look: Look = PLAIN,
    json: Json = False,
    csv: Csv = False,
    md: Markdown = False,
    place: Place,
) -> None:
    """Draw experiments, the newest first, below the commits they stand on; of HEAD's, unless others are asked for."""
    async with aexp.Repository(place) as repository:
        baseline = baseline_of(all=all, rev=rev)
        order = [*sort] if sort_order == "asc" else [key[1:] if key.startswith("-") else f"-{key}" for key in sort]
        records = await repository.experiments(where=where, sort=order or "-created", limit=limit, baseline=baseline)
        asked = _asked([where or "", *sort], look.keep)
        if json:
            _output.write_json([_shapes.record(each) for each in records])
        elif csv:
            _output.write_csv(*_tables.whole(records, _columns(records, look)))
        elif records or md:
            await _draw(repository, records, await repository.baselines(baseline), look, asked, md=md)
        if not records and where is None:
            await none_here(repository, all=all, rev=rev)
        elif not records:
            _output.say(visible(f"no experiment {'' if all else f'of {baseline} '}where {where}"))


async def best(
    metric: Metric,
    /,
    *,
    mode: Annotated[Literal["max", "min"], Parameter(help="Which value is the best.")] = "max",
    where: Where = None,
    name_only: Annotated[bool, flag("Print the name only.", "--name-only")] = False,
    look: Look = PLAIN,
    json: Json = False,
    place: Place,
) -> None:
    """Draw the experiment with the largest or smallest value of a metric, of all commits."""
    async with aexp.Repository(place) as repository:
        record = await repository.best(metric, mode=mode, where=where)
        if json:
            _output.write_json(_shapes.record(record))
        elif name_only:
            _output.write(visible(record.name))
        else:
            baselines = await repository.baselines(record.baseline)
            asked = _asked([f"metrics.{metric}", where or ""], look.keep)
            await _draw(repository, aexp.Records([record]), baselines, look, asked, md=False)


def _columns(records: aexp.Records, look: Look) -> list[_grid.Column]:
    return _grid.chosen(
        _grid.columns(records.to_dicts()), keep=look.keep, drop=look.drop, only_changed=look.only_changed
    )


def _asked(texts: Sequence[str], keep: Sequence[str]) -> Callable[[str], bool]:
    """Return what says whether a column is named in the *texts* of queries, or kept by a pattern."""
    kept = _grid.matcher(keep)
    named = [text.replace('["', ".").replace("['", ".").replace("/", ".") for text in texts]
    return lambda name: kept(name) or any(name.replace("/", ".") in text for text in named)


async def _draw(
    repository: aexp.Repository,
    records: aexp.Records,
    baselines: Sequence[aexp.Baseline],
    look: Look,
    asked: Callable[[str], bool],
    *,
    md: bool,
) -> None:
    columns = _columns(records, look)
    lines = _tree.lines(records, baselines, datetime.now().astimezone())
    if md:
        _output.write(_tables.tree_markdown(lines, columns, look.precision))
        return
    beside = await _courses(repository, records) if look.sparklines else {}
    screen = _screen.screen()
    if screen.options.ascii_only:
        lines = [evolve(line, lead=line.lead.translate(_tree.ASCII)) for line in lines]
    drawn = _tables.draw(
        lines,
        columns,
        room=_screen.room(screen),
        precision=look.precision,
        asked=asked,
        beside=beside,
    )
    _screen.draw(screen, drawn.table)
    if drawn.left_out:
        _output.say(_tables.missing(drawn.left_out, len(columns)))
    damaged = [record for record in records if record.damaged is not None]
    if damaged:
        said = f"{count(len(damaged), 'experiment')} cannot be read, such as {damaged[0].name}: {damaged[0].damaged}"
        _output.say(visible(said))


async def _courses(repository: aexp.Repository, records: Sequence[aexp.Record]) -> Mapping[str, list[str]]:
    """Return the sparklines of every metric, one for each record."""
    series: list[Mapping[str, aexp.Series]] = []
    with Bar() as bar:
        for record in records:
            series.append({} if record.damaged is not None else await repository.history(record.ref))
            bar("reading histories", len(series), len(records))
    names = dict.fromkeys(name for each in series for name in each)
    return {
        f"metrics.{name}": [_sparks.sparkline(each[name].values) if name in each else "" for each in series]
        for name in names
    }
