"""Asking for experiments: the language of `where=`, the order of `sort=`, the best of a metric."""

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp import InvalidQuery, Status
from aexp._query import best_of, compile_select, compile_sort, compile_where, select
from aexp._values import Failure, Record


def record(name: str = "a", **fields: Any) -> Record:
    """A record with nothing in it but what is given."""
    return Record(
        **{
            "name": name,
            "id": name,
            "rev": "1" * 40,
            "ref": f"refs/exps/22/{'2' * 38}/{name}",
            "baseline": "2" * 40,
            "status": Status.FINISHED,
            "created": datetime(2026, 1, 15, 12, tzinfo=UTC),
            **fields,
        }
    )


FULL = record(
    "Try-1",
    status=Status.FAILED,
    error=Failure("ValueError", "out of memory"),
    tags=("good", "small"),
    message="a first look",
    duration=90.0,
    ended=datetime(2026, 1, 15, 12, 1, 30, tzinfo=UTC),
    params={
        "lr": 0.1,
        "epochs": 10,
        "optimizer": "Adam",
        "model": {"depth": 4, "layers": [64, 32], "head.bias": True},
        "data.size": 7,
        "data": {"size": 8, "seed": None},
        "off": False,
        "lambda": 2,
    },
    metrics={
        "acc": 0.9,
        "train/loss": 0.25,
        "valid.loss": 0.5,
        "step": 9,
        "bad": math.nan,
        "top": math.inf,
        "note": "fine",
    },
)
EMPTY = record("b")

TRUE = [
    "params.lr == 0.1",
    "params.lr < 0.2 and status == 'failed'",
    "params.model.depth >= 4",
    'params["model.depth"] == 4',
    'params["model"].depth == 4',
    'params.model["depth"] == 4',
    'params["data.size"] == 7',
    "params.data.size == 8",
    'params.model["head.bias"]',
    'params["lambda"] == 2',
    "params.model.layers == [64, 32]",
    "params.model.layers == (64, 32)",
    "params.model.layers[0] == 64 and params.model.layers[-1] == 32",
    "params.data.seed is None",
    "params.off is False",
    "params.lr is not None",
    "'lr' in params and 'acc' in metrics",
    "metrics.acc > 0.8",
    "metrics.train.loss == 0.25",
    'metrics["train/loss"] == 0.25',
    "metrics.valid.loss == 0.5",
    'metrics["valid.loss"] == 0.5',
    "metrics.train.loss < metrics.valid.loss < metrics.acc",
    "metrics.top > 10 ** 300",
    "metrics.bad != metrics.bad",
    "metrics.note == 'fine'",
    "name == 'Try-1'",
    "lower(name) == 'try-1'",
    "'Try' in name",
    "'good' in tags and 'large' not in tags",
    "tags == ['good', 'small']",
    "len(tags) == 2",
    "status in ('failed', 'cancelled')",
    "status in {'failed', 'cancelled'}",
    "error",
    "'memory' in error",
    "error.type == 'ValueError' and error.message == 'out of memory'",
    "message == 'a first look'",
    "duration > 60",
    "created >= '2026-01-15'",
    "'2026-01-01' <= created < '2026-02-01'",
    "created == '2026-01-15T13:00:00+01:00'",
    "created < ended",
    "baseline == '" + "2" * 40 + "'",
    "damaged is None",
    "abs(params.lr - 0.1) < 1e-9",
    "-params.epochs == -10 and +params.epochs == 10",
    "params.epochs * 2 + 1 == 21 and params.epochs // 3 == 3 and params.epochs % 3 == 1",
    "params.epochs / 4 == 2.5 and params.epochs ** 2 == 100",
    "(params.momentum or 0.9) == 0.9",
    "not params.off",
    "not (params.lr > 1 or params.epochs > 100)",
    "params.lr < 1 < params.epochs",
    "True",
    "  params.lr < 1  ",
    "\n    params.lr < 1\n    and params.epochs == 10  # both\n    and (\n      error\n    )\n",
]

FALSE = [
    "params.lr > 0.1",
    "params.lr < '1'",
    "'1' > params.lr",
    "params.optimizer < 5",
    "params.model < 5",
    "name < 5",
    "5 in name",
    "5 not in name",
    "[1] != params.lr and False",
    "params.lr in 5",
    "params.model.depth.x == 1",
    "params.model.layers[2] == 1",
    "params.model.layers[-3] == 1",
    "params.model[0] == 1",
    "params.lr[0] == 0",
    "metrics.train == 1",
    "metrics.bad > 0 or metrics.bad <= 0",
    "error.type == 'KeyError'",
    "created < '2026-01-15'",
    "created < 5",
    "created == params.optimizer",
    "created == params.lr",
    "params.optimizer + 1 == 1",
    "params.optimizer * 2 == 'AdamAdam'",
    "params.model.layers + params.model.layers",
    "params.epochs / 0 == params.epochs / 0",
    "params.epochs % 0 == 0 or params.epochs // 0 == 0",
    "(-params.epochs) ** 0.5",
    "params.epochs ** params.epochs ** params.epochs",
    "params.epochs ** 100000 > 0",
    "metrics.top - metrics.top == 0",
    "1e308 * params.epochs < 1e308",
    "len(params.lr) == 1",
    "lower(params.lr) == '0.1'",
    "abs(name) == 1",
    "-name",
    "None",
    "''",
]

MISSING = [
    "params.x",
    "params.x == 1",
    "params.x != 1",
    "1 != params.x",
    "params.x < 1",
    "params.x >= 1",
    "params.x == params.y",
    "params.x != params.y",
    "params.x is None",
    "params.x is not None",
    "None is not params.x",
    "params.x in (1, 2)",
    "params.x not in (1, 2)",
    "1 in params.x",
    "1 not in params.x",
    "params.x in params.y",
    "params.x not in params.y",
    "params.x.y.z == 1",
    'params["x.y"] == 1',
    "params.x + 1 != 2",
    "-params.x != 1",
    "abs(params.x) != 1",
    "len(params.x) != 1",
    "lower(params.x) != 'a'",
    "metrics.acc != 1",
    "metrics.train.loss != 1",
    "0 < params.x < 1",
    "duration < 5",
    "duration >= 5",
    "ended > '2020-01-01'",
    "error",
    "error.type != 'ValueError'",
    "created != params.x",
    "params.x and True",
    "params.x or False",
]


@pytest.mark.parametrize("text", TRUE)
def test_an_expression_that_holds(text: str) -> None:
    """These expressions are true of the record."""
    assert compile_where(text)(FULL) is True


@pytest.mark.parametrize("text", FALSE)
def test_an_expression_that_does_not_hold(text: str) -> None:
    """These expressions are false of the record; types that have no order are no error."""
    assert compile_where(text)(FULL) is False


@pytest.mark.parametrize("text", MISSING)
def test_what_is_missing_is_false(text: str) -> None:
    """A comparison with what the record does not have is false, whichever it is, and its negation true."""
    assert compile_where(text)(EMPTY) is False
    assert compile_where(f"not ({text})")(EMPTY) is True


INVALID = {
    "": 1,
    "   ": 1,
    "params.lr < ": 12,
    "not": 4,
    "params.lr = 1": 11,
    "params.lr <> 1": 11,
    "params.lambda == 1": 8,
    "lr < 1": 1,
    "params.lr < 1 and acc > 1": 19,
    "'größe' in name and acc > 1": 21,
    "'größe' in name and = 1": 21,
    "  acc > 1": 3,
    "\n params.lr < 1\n and acc > 1": 22,
    "params.lr < 1\n) or (params.lr > 1": 1,
    "params.lr < 1) # \n or (name": 19,
    "1,\n2": 1,
    "params.lr < 1 & metrics.acc > 1": 13,
    "~error": 1,
    "name.lower() == 'a'": 1,
    "name.x == 'a'": 1,
    "tags[0] == 'a'": 1,
    "metrics[0] == 1": 1,
    "error.traceback == 'a'": 1,
    "'a'.b == 1": 1,
    "params[1.5]": 8,
    "params[True]": 8,
    "params[name]": 8,
    "params[1:2]": 8,
    "params.__class__": 1,
    "__import__('os')": 1,
    "__name__": 1,
    "open('x')": 1,
    "len()": 1,
    "len(name, name)": 1,
    "len(name=name)": 1,
    "len(*name)": 5,
    "abs(name)(1)": 1,
    "name if error else tags": 1,
    "lambda: 1": 1,
    "[x for x in tags]": 1,
    "(x := 1)": 2,
    "f'{name}'": 1,
    "b'a' == name": 1,
    "1j < 2": 1,
    "... is None": 1,
    "{'a': 1}": 1,
    "{**params}": 1,
    "name in [name]": 10,
    "name in [[1]]": 10,
    "params.x is 5": 13,
    "params.x is params.y": 13,
    "1 << 3": 1,
    "name @ name": 1,
    "await name": 1,
    "yield": 1,
    "*name": 1,
    "1 / 0 == params.lr": 1,
    "params.lr > 9**9**9": 13,
    "params.lr > 'a' * 10**9": 13,
    "name < 1 + 'a'": 8,
    "created > 'yesterday'": 11,
    "created in ('2026-01-01', 'x')": 12,
    "'2026' in created": 1,
    "name == 'a": 9,
    "(name": 1,
    "name)": 5,
    "na\0me": 1,
    "name == '\ud800'": 1,
    "9" * 5000: 1,
    "a" * 10_001: 10_001,
}


@pytest.mark.parametrize("text", INVALID, ids=lambda text: text[:30].encode("unicode_escape").decode())
def test_what_is_not_of_the_language_is_refused(text: str) -> None:
    """Anything else is refused, with the column where it stands."""
    with pytest.raises(InvalidQuery) as caught:
        compile_where(text)

    if not {"\0", "\ud800"} & set(text):  # where these stand, Python does not say
        assert caught.value.column == INVALID[text], caught.value
    assert caught.value.text == text
    assert isinstance(caught.value, ValueError)


def test_an_error_points_at_its_place() -> None:
    """The message shows the line of the query with a caret below the place."""
    with pytest.raises(InvalidQuery) as caught:
        compile_where("params.lr < 1\n  and acc\t> 0.5")

    reason, line, caret = str(caught.value).splitlines()
    assert reason.startswith("there is no field acc; is it params.acc, metrics.acc, or text in quotes?")
    assert line == "      and acc > 0.5"
    assert caret == "          ^"


def test_an_error_shows_a_part_of_a_long_query() -> None:
    """Of a long query the message shows what stands around the place."""
    with pytest.raises(InvalidQuery) as caught:
        compile_where("params.lr < 1 and " * 200 + "acc > 1" + " and params.lr < 1" * 200)

    _, line, caret = str(caught.value).splitlines()
    assert line[len(caret) - 1 :].startswith("acc > 1")
    assert len(line) < 150


HOSTILE = [
    "9**9**9**9",
    "params.epochs**9**9",
    "params.epochs**params.epochs**params.epochs**params.epochs",
    "'a'*10**9",
    "'%099999999d' % 1",
    "not " * 2400 + "name",
    "-" * 9990 + "1",
    "1" + "+1" * 4900,
    "params" + ".b" * 4900,
    "params" + "[0]" * 3300,
    "0<" * 4000 + "params.lr",
    "**".join("2" * 4000),
    "(" * 4000 + "1" + ")" * 4000,
    "[" * 190 + "]" * 190,
    "abs(" * 190 + "1" + ")" * 190,
    "name if name else " * 500 + "name",
    "lambda:" * 1400 + "1",
    "0x" + "f" * 9000 + " ** params.epochs > 1",
    " and ".join(["params.lr < 1"] * 500),
    "params.epochs" + " * params.epochs" * 90,
    "().__class__.__bases__[0].__subclasses__()",
    "params.__init__.__globals__",
    "params.get('lr')",
    "exec('1')",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:30])
def test_a_hostile_expression_costs_nothing(text: str) -> None:
    """Whatever an expression is made of, it is refused or evaluated within moments, and nothing else is raised."""
    huge = evolve(FULL, params={**FULL.params, "epochs": 1 << 4000, "lr": 1 << 10_000_000})
    start = time.perf_counter()
    try:
        test = compile_where(text)
    except InvalidQuery:
        pass
    else:
        assert [test(each) for each in (FULL, EMPTY, huge)]

    assert time.perf_counter() - start < 1


WORDS = [
    *("params", "metrics", "name", "tags", "created", "status", "error", "lr", "acc", "x", "__class__", "lambda"),
    *("and", "or", "not", "in", "is", "None", "True", "if", "else", "for", "abs", "len", "lower", "lambda"),
    *("<", "<=", "==", "!=", ">", "+", "-", "*", "/", "//", "%", "**", "&", "~", ".", ",", ":", "=", ":=", "#"),
    *("(", ")", "[", "]", "{", "}", "'a'", '"', "'2026-01-01'", "0", "1", "10", "0.5", "1e999", "\n", "é", "\\"),
]


@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=30))
def test_any_text_is_refused_or_understood(text: str) -> None:
    """Whatever the text, it is refused with a column within it, or gives a test that says yes or no to any record."""
    try:
        test = compile_where(text)
    except InvalidQuery as error:
        refused: InvalidQuery | None = error
    else:
        refused = None
        assert {type(test(FULL)), type(test(EMPTY))} == {bool}
    assert refused is None or 1 <= refused.column <= len(text) + 1


NUMBERS: dict[str, float] = {
    "params.lr": 0.1,
    "params.epochs": 10,
    "params.model.depth": 4,
    "metrics.acc": 0.9,
    "metrics.train.loss": 0.25,
}
TEXTS = {"name": "Try-1", "params.optimizer": "Adam", "status": "failed"}


@st.composite
def numeric(draw: st.DrawFn, depth: int = 2) -> str:
    """The text of an expression that is a number."""
    kind = draw(st.integers(0, 6)) if depth else draw(st.integers(0, 1))
    if kind == 0:
        return draw(st.sampled_from(list(NUMBERS)))
    if kind == 1:
        return repr(draw(st.integers(0, 20) | st.floats(0, 20)))
    left = draw(numeric(depth - 1))
    if kind == 2:
        return f"{draw(st.sampled_from(['-', '+', 'abs']))}({left})"
    if kind == 3:
        return f"({left} {draw(st.sampled_from(['/', '//', '%']))} {draw(st.integers(1, 9))})"
    if kind == 4:
        return f"({left}) ** {draw(st.integers(0, 3))}"
    return f"({left} {draw(st.sampled_from(['+', '-', '*']))} {draw(numeric(depth - 1))})"


@st.composite
def comparison(draw: st.DrawFn) -> str:
    """The text of a comparison."""
    signs = st.sampled_from(["<", "<=", "==", "!=", ">", ">="])
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return f"{draw(st.sampled_from(list(TEXTS)))} {draw(signs)} {draw(st.sampled_from(['Adam', 'x', 'failed']))!r}"
    if kind == 1:
        within = draw(st.lists(st.integers(0, 10), max_size=3))
        return f"{draw(numeric(1))} {draw(st.sampled_from(['in', 'not in']))} {within}"
    if kind == 2:
        return f"{draw(numeric())} {draw(signs)} {draw(numeric())} {draw(signs)} {draw(numeric())}"
    return f"{draw(numeric())} {draw(signs)} {draw(numeric())}"


@st.composite
def condition(draw: st.DrawFn, absent: frozenset[str], depth: int = 3) -> tuple[str, str]:
    """A condition as a query, and as Python where every comparison with a field that is absent is False."""
    kind = draw(st.integers(0, 3)) if depth else 0
    if kind == 0:
        text = draw(comparison())
        return text, "False" if any(field in text for field in absent) else text
    left = draw(condition(absent, depth - 1))
    if kind == 1:
        return f"not ({left[0]})", f"not ({left[1]})"
    word = draw(st.sampled_from(["and", "or"]))
    right = draw(condition(absent, depth - 1))
    return f"({left[0]}) {word} ({right[0]})", f"({left[1]}) {word} ({right[1]})"


@given(st.data())
def test_python_agrees(data: st.DataObject) -> None:
    """An expression is true of a record exactly when it is true in Python, comparisons with what is missing aside."""
    absent = data.draw(st.frozensets(st.sampled_from([*NUMBERS, "params.optimizer"]), max_size=2))
    text, python = data.draw(condition(absent))
    values = {**NUMBERS, "params.optimizer": "Adam"}
    names: dict[str, Any] = {"name": "Try-1", "status": "failed", "abs": abs}
    tested: dict[str, Any] = {"params": {}, "metrics": {}, "name": "Try-1", "status": Status.FAILED}
    for field in values.keys() - absent:
        root, _, key = field.partition(".")
        space = names.setdefault(root, SimpleNamespace())
        *groups, last = key.split(".")
        tree: Any = tested[root]
        for group in groups:
            space.__dict__.setdefault(group, SimpleNamespace())
            space = getattr(space, group)
            tree = tree.setdefault(group, {}) if root == "params" else tree
        setattr(space, last, values[field])
        tree[last if root == "params" else key.replace(".", "/")] = values[field]

    assert compile_where(text)(record(**tested)) is bool(eval(python, {"__builtins__": {}}, names))


# ---- sort ----


def named(records: Sequence[Record]) -> str:
    """The names of the records, together."""
    return "".join(each.name for each in records)


def with_values(values: dict[str, Any]) -> list[Record]:
    """A record for each name, with the value as its parameter x; None for none."""
    return [record(name, params={} if value is None else {"x": value}) for name, value in values.items()]


def test_what_is_missing_comes_last_in_both_directions() -> None:
    """Records without the field, and those with None or NaN there, come last, in the order they had."""
    records = with_values({"a": None, "b": 2, "c": math.nan, "d": 1, "e": math.inf})
    records.append(record("f", params={"x": None}))

    assert named(select(records, sort="params.x")) == "dbeacf"
    assert named(select(records, sort="-params.x")) == "ebdacf"


def test_equal_records_keep_their_order() -> None:
    """Sorting is stable, in both directions."""
    records = with_values({"a": 1, "b": 2, "c": 1, "d": 2, "e": True})

    assert named(select(records, sort="params.x")) == "acebd"
    assert named(select(records, sort=" - params.x")) == "bdace"


def test_types_are_sorted_apart() -> None:
    """Numbers come before text, and text before lists: a mixture is no error."""
    records = with_values({"a": "x", "b": [2], "c": 1, "d": {"y": 1}, "e": 0.5, "f": "w", "g": [1 << 20_000]})

    assert named(select(records, sort="params.x"))[:4] == "ecfa"
    assert named(select(records, sort="-params.x"))[-4:] == "afce"


def test_several_keys() -> None:
    """The second key orders what the first leaves equal."""
    records = [record(name, params={"x": x, "y": y}) for name, x, y in [("a", 1, 1), ("b", 2, 1), ("c", 1, 2)]]

    assert named(select(records, sort=["params.x", "-params.y"])) == "cab"
    assert named(select(records, sort=("-params.x", "params.y"))) == "bac"
    assert named(select(records, sort=[])) == "abc"


def test_every_field_can_be_sorted_by() -> None:
    """Times, texts, tags and groups of metrics are keys, too."""
    early = record("a", created=datetime(2026, 1, 1, tzinfo=UTC), tags=("z",), metrics={"train/loss": 1})
    late = record("b", created=datetime(2026, 1, 2), tags=("y",), metrics={"train/loss": 0})  # noqa: DTZ001

    for key in ("created", "name", "-tags", "-metrics.train.loss", '-metrics["train/loss"]', "baseline", "error"):
        assert named(select([late, early], sort=key)) == ("ba" if key in ("baseline", "error") else "ab"), key


@pytest.mark.parametrize(("key", "column"), {"-acc": 2, "acc": 1, "--name": 2, "-": 1, "": 1, "len(name)": 1}.items())
def test_a_wrong_key_is_refused(key: str, column: int) -> None:
    """A key to sort by is one field; the error points into the key as it was given."""
    with pytest.raises(InvalidQuery) as caught:
        compile_sort(["name", key])

    assert (caught.value.text, caught.value.column) == (key, column)


@given(st.lists(st.none() | st.integers() | st.floats() | st.booleans() | st.text() | st.lists(st.integers())))
def test_nothing_is_lost_in_sorting(values: list[Any]) -> None:
    """Sorting any values gives the same records, and numbers as Python sorts them."""
    records = [record(str(place), params={"x": value}) for place, value in enumerate(values)]
    order = compile_sort("params.x")(records)
    numbers = [each.params["x"] for each in order if isinstance(each.params["x"], int | float)]
    sound = [value for value in numbers if value == value]

    assert sorted(each.name for each in order) == sorted(each.name for each in records)
    assert sound == sorted(sound)
    assert [each.params["x"] for each in compile_sort("-params.x")(records)][: len(sound)] == sorted(
        sound, reverse=True
    ) or any(isinstance(value, str | list) for value in values)


def test_a_limit() -> None:
    """A limit keeps the first, after sorting; a negative one is refused, and so is what is no whole number."""
    records = with_values({"a": 3, "b": 1, "c": 2, "d": None})

    assert named(select(records, where="params.x", sort="params.x", limit=2)) == "bc"
    assert named(select(records, limit=0)) == ""
    assert named(select(iter(records), limit=9)) == "abcd"
    with pytest.raises(ValueError, match="at least 0"):
        compile_select(limit=-1)
    with pytest.raises(TypeError):
        compile_select(limit=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, 5, b"name", str.isupper])
def test_a_query_is_text(text: Any) -> None:
    """A query of another type is a TypeError."""
    with pytest.raises(TypeError):
        compile_where(text)


# ---- best ----

MEASURED = [
    record("a", metrics={"acc": 0.5}),
    record("b", metrics={"acc": math.nan}, tags=("good",)),
    record("c", metrics={"acc": 0.75}),
    record("d", metrics={"acc": 0.25}, tags=("good",)),
    record("e", metrics={"acc": 0.75}, tags=("good",)),
    record("f", metrics={"acc": "0.9"}),
    record("g"),
]


def test_the_best() -> None:
    """The best has the largest or the smallest value; of equal ones it is the first, and NaN and text are no values."""
    assert best_of(MEASURED, "acc").name == "c"
    assert best_of(MEASURED, "acc", "min").name == "d"
    assert best_of(MEASURED, "acc", "max", "'good' in tags").name == "e"


def test_there_is_no_best() -> None:
    """Where no record has the metric, there is no best: the error says which metric, and of which records."""
    with pytest.raises(aexp.ExperimentNotFound, match="'loss'"):
        best_of(MEASURED, "loss")
    with pytest.raises(aexp.ExperimentNotFound, match="those where name == 'g'"):
        best_of(MEASURED, "acc", where="name == 'g'")
    with pytest.raises(ValueError, match="min, max"):
        best_of(MEASURED, "acc", "most")  # type: ignore[arg-type]


# ---- a repository ----


async def save(repository: aexp.Repository, name: str, lr: float, accuracy: float) -> None:
    """Save an experiment."""
    async with repository.experiment(name, params={"lr": lr}, tags=[f"lr-{lr}"]) as experiment:
        await experiment.log_metric("valid/acc", accuracy)


async def test_experiments_are_asked_for(repository: aexp.Repository) -> None:
    """`experiments()` filters, sorts and cuts; `best()` finds the best; both of what is on disk."""
    for name, lr, accuracy in [("a", 0.1, 0.5), ("b", 0.2, 0.75), ("c", 0.3, math.nan), ("d", 0.4, 0.25)]:
        await save(repository, name, lr, accuracy)

    found = await repository.experiments(where="params.lr < 0.35 and status == 'finished'", sort="-metrics.valid.acc")

    assert named(found) == "bac"
    assert named(await repository.experiments(sort=["status", "-params.lr"], limit=2)) == "dc"
    assert named(await repository.experiments(where="'lr-0.1' in tags", baseline="HEAD")) == "a"
    assert len(await repository.experiments(where="created < '2020-01-01'")) == 0
    assert (await repository.best("valid/acc")).name == "b"
    assert (await repository.best("valid/acc", mode="min", where="params.lr < 0.35")).name == "a"
    with pytest.raises(aexp.ExperimentNotFound):
        await repository.best("acc")


@pytest.mark.parametrize(
    "ask",
    [
        lambda repository: repository.experiments(where="acc > 1"),
        lambda repository: repository.experiments(sort="-acc"),
        lambda repository: repository.best("acc", where="acc > 1"),
    ],
)
async def test_a_query_is_refused_before_anything_is_read(
    ask: Callable[[aexp.Repository], Any], tmp_path: Path
) -> None:
    """A wrong query is an error even where there is no repository to read."""
    with pytest.raises(InvalidQuery):
        await ask(aexp.Repository(tmp_path / "nowhere"))


def test_asking_costs_less_than_reading() -> None:
    """Filtering and sorting cost a few microseconds a record."""
    records = [evolve(FULL, name=str(place), metrics={"acc": math.sin(place)}) for place in range(10_000)]
    choose = compile_select(where="params.lr < 1 and status == 'failed' and metrics.acc > -2", sort="-metrics.acc")
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert len(choose(records)) == len(records)
        times.append(time.perf_counter() - start)

    assert min(times) / len(records) < 10e-6
