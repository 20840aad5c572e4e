"""The dvc.yaml of an experiment's folder: where DVC finds its parameters, metrics, plots, images and artifacts."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isfinite
from typing import Any

import orjson
from attrs import asdict, frozen

from .._layout import CUSTOM, IMAGES, METRICS, PARAMS, SERIES
from ..errors import InvalidParams
from .artifacts import section
from .params import dump_params, plain


@frozen(kw_only=True)
class Plot:
    """How a plot of data points is drawn: the keys of `plots` in dvc.yaml (interop reference 2.1)."""

    name: str
    x: str
    y: str | tuple[str, ...]
    template: str | None = None
    title: str | None = None
    x_label: str | None = None
    y_label: str | None = None


def plot_to_json(plot: Plot) -> dict[str, Any]:
    """Return *plot* as JSON holds it."""
    return {key: value for key, value in asdict(plot).items() if value is not None}


def plot_from_json(value: Mapping[str, Any]) -> Plot:
    """Undo `plot_to_json`."""
    y = value["y"]
    return Plot(**{**value, "y": y if isinstance(y, str) else tuple(y)})


def with_plot(plots: Sequence[Plot], plot: Plot) -> tuple[Plot, ...]:
    """Return *plots* with *plot* in the place of the one that had its name, or behind them."""
    if any(each.name == plot.name for each in plots):
        return tuple(plot if each.name == plot.name else each for each in plots)
    return (*plots, plot)


def datapoints(plot: Plot, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the file that holds the data points of *plot*: a JSON list of mappings.

    Floats that are not finite become the strings "nan", "inf" and "-inf", as in metrics.json. Raises `InvalidParams`
    for what JSON cannot hold, and a row without a key that the plot names.
    """
    wanted = {plot.x, *((plot.y,) if isinstance(plot.y, str) else plot.y)}
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise InvalidParams(f"the plot {plot.name} takes a sequence of mappings, not {type(rows).__name__}")
    found = plain({"datapoints": rows})["datapoints"]
    for number, row in enumerate(found):
        if not isinstance(row, dict):
            raise InvalidParams(f"data point {number} of the plot {plot.name} is no mapping of names to values")
        if missing := wanted - row.keys():
            raise InvalidParams(f"data point {number} of the plot {plot.name} has no {', '.join(sorted(missing))}")
        for key, value in row.items():
            if type(value) is float and not isfinite(value):
                row[key] = str(value)
    return orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@lru_cache(64)
def pipeline(
    series: bool, images: bool = False, plots: bytes = b"[]", artifacts: bytes = b"[]", folder: str = ""
) -> bytes:
    """Return the dvc.yaml in *folder*; *series* and *images* say whether there are some, *plots* and *artifacts* are JSON."""
    sections: dict[str, Any] = {"params": [PARAMS], "metrics": [METRICS]}
    drawn: list[Any] = [{SERIES: {"x": "step"}}] if series else []
    drawn += [IMAGES] if images else []
    for plot in orjson.loads(plots):
        drawn.append({f"{CUSTOM}/{plot.pop('name')}.json": plot})
    if drawn:
        sections["plots"] = drawn
    if artifacts != b"[]":
        sections["artifacts"] = section(orjson.loads(artifacts), folder)
    return dump_params(sections)
