"""Whatever goes in is what DVC's tables and diffs, other YAML readers, and aexp itself give back: for any values."""

import asyncio
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo
from dvc.repo.experiments.collect import collect_rev
from dvc.utils.diff import diff, format_dict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

import aexp

Tool = Callable[..., Any]
pytestmark = pytest.mark.timeout(300)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
WORDS = st.sampled_from(
    [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "true",
        "False",
        "null",
        "~",
        "2020-01-01",
        "2020-01-01T10:00:00Z",
        "12:30:45",
        "1e5",
        "1e-5",
        ".5",
        "0o17",
        "010",
        "0x1F",
        "1_000",
        "nan",
        ".nan",
        ".inf",
        "-.inf",
        "inf",
        "=",
        "<<",
        "-",
        "?",
        ":",
        "#x",
        "&a",
        "*a",
        "!t",
        "%d",
        "@a",
        "`b",
        "{}",
        "[]",
        "${x}",
        "${train.lr}",
        "$x",
        "1:30",
        "+1",
        "-0",
        "..",
        "a.b",
        "'q'",
        '"q"',
    ]
)
NUMBERS = st.integers() | st.floats() | st.integers(-(2**80), 2**80)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXT | WORDS
KEYS = (TEXT | WORDS).filter(bool)
PARAMS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
    ),
    max_size=4,
)
SEGMENT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=6
).filter(lambda text: text not in (".", ".."))
NAME = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)
METRICS = st.dictionaries(NAME, st.floats() | st.integers(-(2**53), 2**53) | st.booleans(), max_size=5)


@pytest.fixture(scope="module")
def home(dvc_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository for all examples; each removes its experiments."""
    return Path(shutil.copytree(dvc_template, tmp_path_factory.mktemp("round") / "repository"))


def save(path: Path, experiments: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, aexp.Record]:
    """Save an experiment of each name with its params and metrics; return what aexp reads of them afterwards."""

    async def work() -> dict[str, aexp.Record]:
        async with aexp.Repository(path) as repository:
            for name, (params, metrics) in experiments.items():
                async with repository.experiment(name, params=params, force=True) as experiment:
                    await experiment.log_metrics(metrics, 3)
            return {name: await repository.get(name) for name in experiments}

    return asyncio.run(work())


def spelled(value: Any) -> Any:
    """The value as it must come back: floats that are not finite as the strings that DVC uses."""
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "inf", -math.inf: "-inf"}.get(value, "nan")
    if isinstance(value, dict):
        return {key: spelled(each) for key, each in value.items()}
    return [spelled(each) for each in value] if isinstance(value, list) else value


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type, key order included; -0.0 is not 0.0, and True is not 1."""
    return json.dumps(left) == json.dumps(right)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as names joined by `/`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(params=PARAMS, metrics=METRICS)
def test_a_row_is_what_was_logged(home: Path, params: dict[str, Any], metrics: dict[str, Any]) -> None:
    """`dvc exp show`: every param and metric, by value and type; the row written ahead; aexp; PyYAML and ruamel.yaml."""
    record = save(home, {"one": (params, metrics)})["one"]
    with Repo(str(home)) as repo:
        kept = (home / ".dvc/tmp/exps/cache" / record.rev[:2] / record.rev[2:]).read_bytes()
        state = collect_rev(repo, record.rev, force=True)
    assert state.error is None
    assert state.data.as_bytes() == kept
    shown = json.loads(kept)
    assert same(shown["params"]["aexp/params.yaml"]["data"], spelled(params))
    wanted = {name: spelled(value) for name, value in metrics.items()}
    measured = flat(shown["metrics"]["aexp/metrics.json"]["data"])
    assert measured.pop("step") == wanted.pop("step", 3 if metrics else 0)
    assert {name: json.dumps(value) for name, value in measured.items()} == {
        name: json.dumps(value) for name, value in wanted.items()
    }
    assert repr(dict(record.params_by_file["aexp/params.yaml"])) == repr(params)
    assert {name: repr(value) for name, value in record.metrics.items() if name != "step"} == {
        name: repr(value) for name, value in metrics.items() if name != "step"
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(params=PARAMS)
def test_other_readers_of_yaml_agree(home: Path, git: Tool, params: dict[str, Any]) -> None:
    """PyYAML (1.1) and ruamel.yaml (1.2, both loaders) read from params.yaml what DVC does."""
    record = save(home, {"one": (params, {})})["one"]
    text = git("cat-file", "-p", f"{record.rev}:aexp/params.yaml", cwd=home) + "\n"
    assert same(yaml.safe_load(text), spelled(params))
    for kind in ("safe", "rt"):
        assert same(YAML(typ=kind, pure=kind == "rt").load(text), spelled(params))


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(left=st.tuples(PARAMS, METRICS), right=st.tuples(PARAMS, METRICS))
def test_diffs_say_what_differs(
    home: Path, dvc: Tool, left: tuple[dict[str, Any], dict[str, Any]], right: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """`dvc params diff` and `metrics diff` are strict JSON, and what DVC makes of the very values that were logged."""
    records = save(home, {"one": left, "two": right})
    params = dvc("params", "diff", "--json", "one", "two", cwd=home).json
    metrics = dvc("metrics", "diff", "--json", "one", "two", cwd=home).json
    assert params == difference("aexp/params.yaml", left[0], right[0])
    summaries = (dict(records[name].metrics_by_file["aexp/metrics.json"]) for name in ("one", "two"))
    assert metrics == difference("aexp/metrics.json", *summaries)
    both = dvc("exp", "diff", "--json", "one", "two", cwd=home).json
    assert (both.get("params", {}), both.get("metrics", {})) == (params, metrics)


def difference(file: str, old: dict[str, Any], new: dict[str, Any]) -> Any:
    """What DVC's own arithmetic says of the two contents of *file*."""
    told = diff(*(format_dict({file: {"data": spelled(content)}}) for content in (old, new)))
    return json.loads(json.dumps(told))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(points=st.lists(st.tuples(st.integers(0, 2**53), st.floats()), min_size=1, max_size=8), name=NAME)
def test_plots_hold_every_point(home: Path, dvc: Tool, points: list[tuple[int, float]], name: str) -> None:
    """`dvc plots diff --json` has a datapoint for each point logged, ordered by step, every float64 exact."""

    async def work() -> None:
        async with aexp.Repository(home) as repository, repository.experiment("one", force=True) as experiment:
            for step, value in points:
                await experiment.log_metric(name, value, step)

    asyncio.run(work())
    told = dvc("plots", "diff", "--json", "one", cwd=home).json
    (plot,) = [each for found in told["data"].values() for each in found]
    values = plot["content"]["data"]["values"]
    column = name
    wanted = sorted(points, key=lambda point: point[0])
    assert [(int(each["step"]), repr(float(each[column]))) for each in values] == [
        (step, repr(value)) for step, value in wanted
    ]
