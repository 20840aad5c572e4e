"""Tables of records: rows into typed columns, and these into pandas, polars, Arrow and HTML."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, Literal

from attrs import frozen

from .errors import MissingExtra

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Rows = Sequence[Mapping[str, Any]]
Type = Literal["bool", "int", "float", "text", "time"]


@frozen
class Kind:
    """What a column holds: values of one type, or lists of them."""

    type: Type
    listed: bool = False


TEXT: Final = Kind("text")
TEXTS: Final = Kind("text", listed=True)

COLUMNS: Final[Mapping[str, Kind]] = {
    "name": TEXT,
    "id": TEXT,
    "rev": TEXT,
    "ref": TEXT,
    "baseline": TEXT,
    "status": TEXT,
    "error": TEXT,
    "tags": TEXTS,
    "message": TEXT,
    "created": Kind("time"),
    "ended": Kind("time"),
    "duration": Kind("float"),
    "checkpoints": TEXTS,
    "artifacts": TEXTS,
    "damaged": TEXT,
}
"""The columns that every table of records has; those of parameters and metrics are what the rows hold."""

HIDDEN: Final = frozenset({"id", "ref", "baseline", "message", "ended", "checkpoints", "artifacts"})
"""Columns that HTML leaves out."""
MOST_ROWS: Final = 100
"""How many rows HTML shows."""
MOST_COLUMNS: Final = 50
"""How many columns HTML shows."""
MOST_LETTERS: Final = 100
"""How many characters of a cell HTML shows."""

_NO_NAME: Final = "[\0\ud800-\udfff]"
"""What the name of a column in Arrow's C interface cannot hold."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST: Final = 1023
"""How many bits an integer has that surely is a float64."""


def leaves(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values of nested mappings under their dotted names, each behind *prefix*.

    Of two values with one name, the one that is less deep stands.
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            below = leaves(value, f"{prefix}{key}.")
            found.update((name, below[name]) for name in below if name not in found)
        else:
            found[f"{prefix}{key}"] = value
    return found


@frozen(eq=False, repr=False)
class Column:
    """A column of a table: what it holds, and its values as the rows have them, None where they have none."""

    name: str
    kind: Kind
    values: list[Any]

    def clean(self) -> list[Any]:
        """Return the values as the kind says: whatever else there is becomes text."""
        convert = _CONVERT[self.kind.type]
        if self.kind.listed:
            return [
                None if value is None else [None if each is None else convert(each) for each in value]
                for value in self.values
            ]
        return [None if value is None else convert(value) for value in self.values]


def columns(rows: Rows) -> list[Column]:
    """Return the columns of *rows*: those that every table has, then those of parameters, then those of metrics."""
    names = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    order = [*COLUMNS, *sorted(names, key=lambda name: name.startswith("metrics."))]
    found: dict[str, Column] = {}
    for name in order:
        values = [row.get(name) for row in rows]
        shown = re.sub(_NO_NAME, "\N{REPLACEMENT CHARACTER}", name)
        found.setdefault(shown, Column(shown, COLUMNS.get(name) or _kind(values), values))
    return list(found.values())


def _kind(values: list[Any]) -> Kind:
    if set(map(type, values)) <= {list, type(None)} and any(value is not None for value in values):
        return Kind(_type([each for value in values if value is not None for each in value]), listed=True)
    return Kind(_type(values))


def _type(values: list[Any]) -> Type:
    types = set(map(type, values)) - {type(None)}
    if types == {bool}:
        return "bool"
    if types and types <= {bool, int, float}:
        bits = max((value.bit_length() for value in values if isinstance(value, int)), default=0)
        if float not in types and bits < 64:
            return "int"
        return "float" if bits <= _LARGEST else "text"
    return "text"


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(_printable(value), ensure_ascii=False, default=str)
    return text if text.isascii() else re.sub("[\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def _printable(value: Any) -> Any:
    """Return *value* with integers of thousands of digits, which Python does not write, in hexadecimal."""
    if isinstance(value, Mapping):
        return {str(key): _printable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(each) for each in value]
    return hex(value) if isinstance(value, int) and value.bit_length() > _LARGEST else value


def _time(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


_CONVERT: Final[Mapping[Type, Callable[[Any], Any]]] = {
    "bool": bool,
    "int": int,
    "float": float,
    "text": _text,
    "time": _time,
}


# ---- pandas ----


def to_pandas(rows: Rows) -> "pandas.DataFrame":
    """Return *rows* as a pandas data frame; integers and bools that are missing somewhere get a nullable type."""
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise _missing(error, "pandas", "pandas") from None

    def series(column: Column) -> "pandas.Series[Any]":
        kind, values = column.kind, column.clean()
        if kind.listed or (kind.type == "text" and not _are_texts(column.values)):
            return pandas.Series(column.values, dtype=object)
        match kind.type:
            case "bool":
                return pandas.Series(values, dtype="boolean" if None in values else "bool")
            case "int":
                return pandas.Series(values, dtype="Int64" if None in values else "int64")
            case "float":
                return pandas.Series(values, dtype="float64")
            case "time":
                return pandas.Series(values, dtype="datetime64[us, UTC]")
        return pandas.Series(values, dtype=None if any(value is not None for value in values) else object)

    return pandas.DataFrame({column.name: series(column) for column in columns(rows)})


def _are_texts(values: list[Any]) -> bool:
    return all(value is None or isinstance(value, str) for value in values)


# ---- polars ----


def to_polars(rows: Rows) -> "polars.DataFrame":
    """Return *rows* as a polars data frame."""
    try:
        import polars
    except ModuleNotFoundError as error:
        raise _missing(error, "polars", "polars") from None
    types: dict[Type, Any] = {
        "bool": polars.Boolean(),
        "int": polars.Int64(),
        "float": polars.Float64(),
        "text": polars.String(),
        "time": polars.Datetime("us", "UTC"),
    }

    def series(column: Column) -> "polars.Series":
        type = types[column.kind.type]
        return polars.Series(column.name, column.clean(), dtype=polars.List(type) if column.kind.listed else type)

    return polars.DataFrame([series(column) for column in columns(rows)])


# ---- Arrow ----


def to_arrow(rows: Rows) -> "pyarrow.Table":
    """Return *rows* as an Arrow table."""
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise _missing(error, "pyarrow", "arrow") from None
    types: dict[Type, Any] = {
        "bool": pyarrow.bool_(),
        "int": pyarrow.int64(),
        "float": pyarrow.float64(),
        "text": pyarrow.string(),
        "time": pyarrow.timestamp("us", tz="UTC"),
    }

    def array(column: Column) -> Any:
        type = types[column.kind.type]
        return pyarrow.array(column.clean(), pyarrow.list_(type) if column.kind.listed else type)

    return pyarrow.table({column.name: array(column) for column in columns(rows)})


def arrow_stream(rows: Rows, schema: object = None) -> object:
    """Return *rows* as a stream of the Arrow C interface, made by pyarrow, or by nanoarrow where that is missing."""
    try:
        table: Any = to_arrow(rows)
        return table.__arrow_c_stream__(schema)
    except MissingExtra as missing:
        try:
            import nanoarrow
        except ModuleNotFoundError:
            raise missing from None
    arrays = {column.name: _nano_array(nanoarrow, column) for column in columns(rows)}
    fields = nanoarrow.struct({name: array.schema for name, array in arrays.items()})
    whole = nanoarrow.c_array_from_buffers(fields, len(rows), [None], children=list(arrays.values()))
    return nanoarrow.c_array_stream(whole).__arrow_c_stream__(requested_schema=schema)


def _nano_array(nanoarrow: Any, column: Column) -> Any:
    types: dict[Type, Any] = {
        "bool": nanoarrow.bool_(),
        "int": nanoarrow.int64(),
        "float": nanoarrow.float64(),
        "text": nanoarrow.string(),
        "time": nanoarrow.timestamp("us", timezone="UTC"),
    }
    kind, values = column.kind, column.clean()
    type = types[kind.type]
    if kind.type == "time":
        values = [None if value is None else (value - _EPOCH) // timedelta(microseconds=1) for value in values]
    if not kind.listed:
        return nanoarrow.c_array(values, type)
    present = nanoarrow.c_array([value is not None for value in values], nanoarrow.bool_()).view().buffer(1)
    ends = nanoarrow.c_buffer(list(accumulate((len(value or ()) for value in values), initial=0)), nanoarrow.int32())
    items = nanoarrow.c_array([each for value in values if value is not None for each in value], type)
    return nanoarrow.c_array_from_buffers(nanoarrow.list_(type), len(values), [present, ends], children=[items])


def _missing(error: ModuleNotFoundError, library: str, extra: str) -> ImportError:
    """Return what is raised when *library* is not installed; the error itself when it lacks something of its own."""
    return MissingExtra(extra, library) if error.name == library else error


# ---- HTML ----


def to_html(rows: Rows, count: int) -> str:
    """Return *rows*, the first of *count*, as an HTML table, everything in it escaped."""
    found = [column for column in columns(rows) if _is_shown(column)]
    shown = found[:MOST_COLUMNS]
    head = "".join(f"<th>{_escaped(column.name)}</th>" for column in shown)
    lines = zip(*([_cell(column.name, value) for value in column.values] for column in shown), strict=True)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    said = "1 experiment" if count == 1 else f"{count:,} experiments"
    if len(rows) < count:
        said = f"the first {len(rows)} of {said}"
    if len(found) > len(shown):
        said = f"{said}, {len(shown)} of {len(found):,} columns"
    table = f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>' if rows else ""
    return f"<div>{table}<p>{said}</p></div>"


def _is_shown(column: Column) -> bool:
    return column.name not in HIDDEN and (column.name not in COLUMNS or any(column.values))


def _cell(name: str, value: Any) -> str:
    match value:
        case None:
            text = ""
        case float():
            text = f"{value:.6g}"
        case datetime():
            text = _time(value).strftime("%Y-%m-%d %H:%M:%S")
        case list() if all(isinstance(each, str) for each in value):
            text = ", ".join(value)
        case str() if name == "rev":
            text = value[:10]
        case _:
            text = _text(value)
    return f"<td>{_escaped(text)}</td>"


def _escaped(text: str) -> str:
    from html import escape  # only notebooks need it, and its table of entities is large

    return escape(_text(text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"))
