"""Records as tables: dicts, pandas, polars, Arrow, HTML."""

import math
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from typing import Any

import nanoarrow
import pandas
import polars
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp import Records, Status
from aexp._tables import COLUMNS, MOST_COLUMNS, MOST_ROWS, leaves
from aexp._values import Failure, Record

CREATED = datetime(2026, 1, 15, 12, 0, 0, 5, tzinfo=UTC)


def record(name: str, **fields: Any) -> Record:
    """A record with nothing in it but what is given."""
    return Record(
        **{
            "name": name,
            "id": name,
            "rev": "1" * 40,
            "ref": f"refs/exps/22/{'2' * 38}/{name}",
            "baseline": "2" * 40,
            "status": Status.FINISHED,
            "created": CREATED,
            **fields,
        }
    )


RECORDS = Records(
    [
        record(
            "a",
            tags=("good", "small"),
            duration=1.5,
            ended=CREATED + timedelta(seconds=1.5),
            params={"lr": 1, "depth": 4, "big": 2**53 + 1, "model": {"layers": [64, 32], "name": "cnn"}, "any": 1},
            metrics={"train/loss": 0.5, "ok": True, "huge": 2**63},
        ),
        record(
            "b",
            status=Status.FAILED,
            error=Failure("ValueError", "boom", "Traceback"),
            created=datetime(2026, 1, 15, 14, tzinfo=timezone(timedelta(hours=2))),
            params={"lr": 0.1, "model": {"name": "rnn"}, "any": "x", "odd": [1, "x"], "null": None},
            metrics={"train/loss": math.nan},
        ),
    ]
)
SHAPE = (2, len(COLUMNS) + 11)


def test_dicts_are_flat() -> None:
    """Each record is a flat dict of what it has; status and error are text."""
    first, second = RECORDS.to_dicts()

    assert list(first)[: len(COLUMNS)] == list(COLUMNS)
    assert {key: value for key, value in first.items() if "." in key} == {
        "params.lr": 1,
        "params.depth": 4,
        "params.big": 2**53 + 1,
        "params.model.layers": [64, 32],
        "params.model.name": "cnn",
        "params.any": 1,
        "metrics.train/loss": 0.5,
        "metrics.ok": True,
        "metrics.huge": 2**63,
    }
    assert first["tags"] == ["good", "small"]
    assert first["created"] == CREATED
    assert type(second["status"]) is str
    assert (second["status"], second["error"], second["params.null"]) == ("failed", "ValueError: boom", None)


def test_of_two_params_with_one_name_the_upper_stands() -> None:
    """A key with a dot in it wins over a nested one of the same name."""
    assert leaves({"a": {"b": 1}, "a.b": 2}, "p.") == {"p.a.b": 2}
    assert leaves({"a.b": 2, "a": {"b": 1, "c": {}}}, "p.") == {"p.a.b": 2}


def test_pandas() -> None:
    """A data frame has a row for each record, and the best type for each column."""
    frame = RECORDS.to_pandas()

    assert frame.shape == SHAPE
    assert list(frame["name"]) == ["a", "b"]
    assert str(frame["created"].dtype) == "datetime64[us, UTC]"
    assert list(frame["created"]) == [CREATED, datetime(2026, 1, 15, 12, tzinfo=UTC)]
    assert frame["ended"].isna().tolist() == [False, True]
    assert frame["duration"].dtype == "float64"
    assert frame["params.lr"].tolist() == [1.0, 0.1]
    assert frame["params.depth"].dtype == "Int64"
    assert frame["params.big"][0] == 2**53 + 1
    assert frame["params.any"].tolist() == [1, "x"]
    assert frame["params.model.layers"][0] == [64, 32]
    assert frame["metrics.ok"].dtype == "boolean"
    assert frame["metrics.huge"][0] == float(2**63)
    assert frame["tags"].tolist() == [["good", "small"], []]
    assert list(frame[frame["params.depth"] == 4]["name"]) == ["a"]


def test_polars() -> None:
    """A polars data frame has the same columns, each of one type; what has several is text."""
    frame = RECORDS.to_polars()

    assert frame.shape == SHAPE
    assert frame.columns == RECORDS.to_pandas().columns.tolist()
    assert frame.schema["created"] == polars.Datetime("us", "UTC")
    assert frame.schema["tags"] == polars.List(polars.String)
    assert frame["params.big"].to_list() == [2**53 + 1, None]
    assert frame["params.any"].to_list() == ["1", "x"]
    assert frame["params.odd"].to_list() == [None, ["1", "x"]]
    assert frame["params.model.layers"].to_list() == [[64, 32], None]
    assert frame["metrics.ok"].to_list() == [True, None]


def test_arrow() -> None:
    """An Arrow table holds what the polars data frame holds."""
    table = RECORDS.to_arrow()

    assert table.schema.field("created").type == pyarrow.timestamp("us", tz="UTC")
    assert table.schema.field("params.null").type == pyarrow.string()
    assert polars.DataFrame(table).equals(RECORDS.to_polars(), null_equal=True)


def hide(patch: pytest.MonkeyPatch, *libraries: str) -> None:
    """Make it as if the libraries were not installed."""
    for library in libraries:
        patch.setitem(sys.modules, library, None)


def test_the_arrow_stream() -> None:
    """Whoever reads Arrow's C interface reads records; nanoarrow gives what pyarrow gives."""
    expected = RECORDS.to_arrow()

    assert polars.DataFrame(pyarrow.table(RECORDS)).equals(polars.DataFrame(expected), null_equal=True)
    with pytest.MonkeyPatch.context() as patch:
        hide(patch, "pyarrow")
        stream = nanoarrow.c_array_stream(RECORDS)
    found = pyarrow.RecordBatchReader._import_from_c_capsule(stream.__arrow_c_stream__()).read_all()

    assert found.schema == expected.schema
    assert polars.DataFrame(found).equals(polars.DataFrame(expected), null_equal=True)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_small_tables(size: int) -> None:
    """Tables of no records have their columns, too, with the same types as others."""
    records = Records([record(str(place)) for place in range(size)])

    assert records.to_pandas().shape == (size, len(COLUMNS))
    assert records.to_polars().schema == Records([record("x")]).to_polars().schema
    assert records.to_arrow().schema == Records([record("x")]).to_arrow().schema
    with pytest.MonkeyPatch.context() as patch:
        hide(patch, "pyarrow")
        stream = nanoarrow.c_array_stream(records)
    assert pyarrow.RecordBatchReader._import_from_c_capsule(stream.__arrow_c_stream__()).read_all().num_rows == size


@pytest.mark.parametrize(
    ("call", "extra", "library", "absent"),
    [
        (Records.to_pandas, "pandas", "pandas", ["pandas"]),
        (Records.to_polars, "polars", "polars", ["polars"]),
        (Records.to_arrow, "arrow", "pyarrow", ["pyarrow"]),
        (Records.__arrow_c_stream__, "arrow", "pyarrow", ["pyarrow", "nanoarrow"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_missing_library_is_named(
    call: Callable[[Records], object], extra: str, library: str, absent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a library is not installed, the error is an ImportError that says which extra brings it."""
    hide(monkeypatch, *absent)

    with pytest.raises(aexp.MissingExtra, match=rf"pip install 'aexp\[{extra}\]'") as caught:
        call(RECORDS)

    assert isinstance(caught.value, ImportError)
    assert (caught.value.extra, caught.value.library, caught.value.name) == (extra, library, library)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([1 << 63, -(1 << 63) - 1, 1 << 1023, 1 << 2000])
    | st.floats()
    | st.text()
    | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "a.b", "\ud800"]), VALUES), max_size=4))
def test_any_params_make_a_table(params: list[dict[str, Any]]) -> None:
    """Whatever the parameters are, every form of the table has a row for each record, and is readable."""
    records = Records([record(str(place), params=each) for place, each in enumerate(params)])
    table = records.to_arrow()
    table.validate(full=True)

    assert len(records.to_pandas()) == len(records.to_polars()) == table.num_rows == len(records)
    assert records._repr_html_().encode()
    with pytest.MonkeyPatch.context() as patch:
        hide(patch, "pyarrow")
        stream = nanoarrow.c_array_stream(records)
    found = pyarrow.RecordBatchReader._import_from_c_capsule(stream.__arrow_c_stream__()).read_all()
    found.validate(full=True)
    assert polars.DataFrame(found).equals(polars.DataFrame(table), null_equal=True)


def test_integers_of_thousands_of_digits() -> None:
    """Integers that Python does not write in decimal stand in hexadecimal."""
    records = Records([record("a", params={"x": 1 << 20_000, "y": [1 << 20_000, "z"], "z": {"w": [[1 << 20_000]]}})])
    digits = "0x1" + "0" * 5000

    assert records.to_arrow()["params.x"].to_pylist() == [f'"{digits}"']
    assert records.to_polars()["params.y"].to_list() == [[f'"{digits}"', "z"]]
    assert records.to_pandas()["params.x"][0] == 1 << 20_000
    assert "0x1000" in records._repr_html_()


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Keep the name of an element."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += f"{data}\n"


PLAIN = {"div", "table", "thead", "tbody", "tr", "th", "td", "p"}


def test_html() -> None:
    """A notebook shows a table: names, statuses, parameters and metrics, and how many there are."""
    page = Page(RECORDS._repr_html_())

    assert set(page.tags) == PLAIN
    for text in ("name", "params.model.layers", "metrics.train/loss", "[64, 32]", "good, small", "1111111111", "nan"):
        assert text in page.text.splitlines(), text
    assert "2026-01-15 12:00:00" in page.text
    assert "ValueError: boom" in page.text
    assert page.text.endswith("2 experiments\n")


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;", "'"])
def test_hostile_names_are_text(hostile: str) -> None:
    """No name, parameter, metric, tag or error becomes markup."""
    records = Records(
        [
            record(
                hostile,
                tags=(hostile,),
                error=Failure(hostile, hostile),
                damaged=hostile,
                params={hostile: hostile, "list": [hostile], "mixed": [1, hostile], "map": {hostile: [{hostile: 1}]}},
                metrics={hostile: hostile},
            )
        ]
    )
    page = Page(records._repr_html_())

    assert set(page.tags) == PLAIN
    assert page.text.splitlines().count(hostile) == 6
    assert page.text.endswith("1 experiment\n")


def test_html_of_many() -> None:
    """Of many records and columns the first are shown, and the table says so."""
    params = {f"p{place}": "x" * 1000 for place in range(100)}
    records = Records([record(str(place), params=params) for place in range(1234)])
    page = Page(records._repr_html_())

    assert page.tags.count("tr") == MOST_ROWS + 1
    assert page.tags.count("th") == MOST_COLUMNS
    assert f"the first {MOST_ROWS} of 1,234 experiments, {MOST_COLUMNS} of 104 columns" in page.text
    assert "x" * 101 not in page.text
    assert Page(Records()._repr_html_()).text == "0 experiments\n"


async def test_what_a_repository_returns(repository: aexp.Repository) -> None:
    """The records of a repository make a table with their parameters and metrics."""
    for lr in (1, 0.5):
        async with repository.experiment(params={"lr": lr, "model": {"depth": 4}}) as experiment:
            await experiment.log_metric("train/loss", lr * 2)

    frame = (await repository.experiments()).to_pandas()

    assert frame["params.lr"].tolist() == [1.0, 0.5]
    assert frame["params.model.depth"].tolist() == [4, 4]
    assert frame["metrics.train/loss"].tolist() == [2.0, 1.0]
    assert pandas.api.types.is_datetime64_any_dtype(frame["ended"])
