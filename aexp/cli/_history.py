"""`aexp history` and `aexp log`: what happened in one experiment."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from rich.console import Group
from rich.text import Text

import aexp

from . import _curves, _output, _screen, _shapes, _sparks, _tables
from ._options import Csv, Json, Metrics, Name, Place, Precision, called, flag
from ._tree import status
from ._words import cell, count, length, precise, visible

HEIGHT = 20
"""How many lines a plot has; half as many where there are several."""


async def history(
    name: Name,
    /,
    *metrics: Metrics,
    precision: Precision = 5,
    json: Json = False,
    csv: Csv = False,
    place: Place,
) -> None:
    """Draw the course of the metrics that are named; without a name, print a line for every metric."""
    async with aexp.Repository(place) as repository:
        found = await repository.history(name)
    unknown = [metric for metric in metrics if metric not in found]
    if unknown:
        known = ", ".join(sorted(found)) or "none"
        raise ValueError(f"{name} has no metric {unknown[0]!r}; it has {known}")
    chosen = {metric: found[metric] for metric in metrics or found}
    if json:
        _output.write_json({metric: _shapes.series(series) for metric, series in chosen.items()})
    elif csv:
        _output.write_csv(["metric", "step", "value", "timestamp"], _points(chosen))
    elif metrics:
        screen = _screen.screen()
        for metric, series in chosen.items():
            _output.write(
                _curves.plot(
                    metric,
                    series,
                    width=_screen.room(screen) or 80,
                    height=HEIGHT if len(chosen) == 1 else HEIGHT // 2,
                    colour=_screen.has_colour(screen),
                )
            )
    elif chosen:
        _screen.draw(_screen.screen(), _overview(chosen, precision))
    else:
        _output.say(f"{name} has no history: no metric was logged in steps")


def _points(found: Mapping[str, aexp.Series]) -> Iterator[tuple[Any, ...]]:
    for metric, series in found.items():
        shape = _shapes.series(series)
        for step, value, stamp in zip(shape["steps"], shape["values"], shape["timestamps"], strict=True):
            yield metric, step, value, stamp


def _overview(found: Mapping[str, aexp.Series], precision: int) -> Group:
    columns: dict[str, list[str]] = {
        title: [] for title in ("Metric", "Points", "First", "Least", "Most", "Last", "Course")
    }
    for metric, series in found.items():
        numbers = [value for value in series.values if value == value]
        ends = (series.values[0], min(numbers, default=None), max(numbers, default=None), series.values[-1])
        row = [visible(metric), f"{len(series):,}", *(cell(value, precision) for value in ends)]
        for cells, text in zip(columns.values(), [*row, _sparks.sparkline(series.values, 16)], strict=True):
            cells.append(text)
    return _tables.table(
        [_tables.Part([title], cells, right=title not in ("Metric", "Course")) for title, cells in columns.items()]
    )


async def log(
    name: Name,
    /,
    *,
    precision: Precision = 5,
    stack: Annotated[bool, flag("Print the whole traceback of a failure.", "--stack")] = False,
    json: Json = False,
    place: Place,
) -> None:
    """Tell what happened in an experiment, and when: how it began, its checkpoints, how it ended."""
    async with aexp.Repository(place) as repository:
        record = await repository.get(name)
        checkpoints = [] if record.damaged is not None else await repository.checkpoints(record.ref)
        (baseline,) = await repository.baselines(record.baseline)
    if json:
        _output.write_json(_shapes.log(record, checkpoints))
        return
    screen = _screen.screen()
    now = datetime.now().astimezone()
    for line in _told(record, checkpoints, baseline, precision, now):
        _screen.draw(screen, line)
    if record.error is not None and stack and record.error.traceback:
        _output.write("\n".join(visible(line) for line in record.error.traceback.rstrip("\n").split("\n")))


def _told(
    record: aexp.Record,
    checkpoints: Sequence[aexp.Checkpoint],
    baseline: aexp.Baseline,
    precision: int,
    now: datetime,
) -> Iterator[Text]:
    """Yield the lines that are printed."""
    word = status(record)
    yield Text.assemble(
        (visible(record.name), "bold"), "  ", (word, _tables.COLOURS.get(word, "")), f"  {record.rev[:7]}"
    )
    yield _event(record.created, f"began on {visible(called(baseline))} ({baseline.rev[:7]}){_code(record)}", now)
    if record.params:
        yield _more("params", _flat(record.params), precision)
    for each in checkpoints:
        yield _event(each.created, f"checkpoint {each.rev[:7]}: {visible(each.message)}", now)
        yield _more("metrics", each.metrics.items(), precision)
    if record.ended is not None:
        lasted = "" if record.duration is None else f" after {length(record.duration)}"
        yield _event(record.ended, f"{word}{lasted}", now)
    if record.error is not None:
        yield Text(f"{' ' * 21}{visible(str(record.error))}", "red")
    if record.damaged is not None:
        yield Text(f"{' ' * 21}it cannot be read: {visible(record.damaged)}", "red")
    if record.push is not None:
        reason = f": {visible(record.push.reason)}" if record.push.reason else ""
        state = "waiting to be pushed" if record.push.state == "waiting" else record.push.state
        yield _event(record.push.since, f"{state}, {visible(record.push.remote)}{reason}", now)
    yield _more("metrics", record.metrics.items(), precision)
    kept = [each.path for each in record.artifacts]
    for title, words in (("tags", record.tags), ("artifacts", kept), ("message", [record.message])):
        if any(words):
            yield Text(f"{' ' * 21}{title}: {visible(', '.join(words))}", "dim")


def _event(time: datetime, text: str, now: datetime) -> Text:
    return Text(f"{precise(time, now)}  {text}")


def _more(title: str, values: Iterable[tuple[str, Any]], precision: int) -> Text:
    return Text(
        f"{' ' * 21}{title}: {', '.join(f'{visible(key)} {cell(value, precision)}' for key, value in values)}", "dim"
    )


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in params.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _code(record: aexp.Record) -> str:
    """Say what of the code was captured; nothing where nobody knows, as of experiments that DVC made."""
    if record.code is None:
        return ""
    if record.code.mode == "none":
        return ", with the code as committed"
    skipped = f", {count(len(record.code.skipped), 'file')} left out" if record.code.skipped else ""
    return f", with changes{skipped}" if record.code.changed else f", with no changes{skipped}"
