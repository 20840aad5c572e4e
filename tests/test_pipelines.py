"""What dvc.yaml, dvc.lock and `.dvc` files name, read without DVC; tests/compat compares it with DVC itself."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aexp._formats.pipeline import Data, merge_named, named, tracked, walk_order
from aexp._formats.shown import shown, spelled
from aexp._git import open_handle
from aexp._pipelines import Pipelines

LOCK = {
    "stages": {
        "fit": {
            "deps": [{"path": "train.py", "hash": "md5", "md5": "a" * 32, "size": 9}],
            "outs": [
                {"path": "model.bin", "hash": "md5", "md5": "b" * 32, "size": 5},
                {"path": "m.json", "hash": "md5", "md5": "c" * 32, "size": 2},
            ],
        },
    }
}


def test_a_stage_names_its_files() -> None:
    """Paths are relative to the stage's folder; a metric has a hash unless it is not cached; deps and outs their content."""
    stage = {
        "cmd": "run",
        "wdir": "work",
        "deps": ["train.py"],
        "outs": ["model.bin"],
        "metrics": ["m.json", {"plain.json": {"cache": False}}],
        "params": ["lr", {"../p.toml": ["a.b", "c"]}, {"whole.yaml": None}],
    }
    found = named("sub/dvc.yaml", {"stages": {"fit": stage}, "metrics": ["../top.json"]}, LOCK)
    assert found.exact
    assert found.metrics == (("sub/work/m.json", "c" * 32), ("sub/work/plain.json", None))
    assert found.whole_metrics == ("top.json",)
    assert found.params == (
        ("sub/work/params.yaml", ("lr",)),
        ("sub/p.toml", ("a.b", "c")),
        ("sub/work/whole.yaml", None),
    )
    assert found.deps == (Data("sub/work/train.py", "a" * 32, 9, None, dep=True),)
    assert found.outs == (Data("sub/work/model.bin", "b" * 32, 5, None),)


@pytest.mark.parametrize(
    "content",
    [
        {"unknown": 1},
        {"metrics": "m.json"},
        {"metrics": [{"m.json": {"cache": False}}]},
        {"metrics": ["../outside.json"]},
        {"metrics": ["/etc/m.json"]},
        {"params": ["${x}.yaml"]},
        {"plots": [{"p.tsv": {"colour": "red"}}]},
        {"artifacts": {"model": {"type": "model"}}},
        {"stages": {"fit": {"outs": ["x"]}}},
        {"stages": {"fit": {"cmd": "run ${x}"}}},
        {"stages": {"fit": {"foreach": [1], "do": {"cmd": "run"}}}},
        {"stages": {"fit": {"cmd": "run", "deps": ["s3://bucket/x"]}}},
        {"stages": {"fit": {"cmd": "run", "params": ["a.*"]}}},
        {"stages": {"a b": {"cmd": "run"}}},
    ],
)
def test_what_dvc_may_see_in_another_way_is_not_exact(content: dict[str, Any]) -> None:
    """Templates, unknown keys, paths out of the tree and other shapes are read as far as they go, and said to be no more."""
    assert not named("dvc.yaml", content, {}).exact


def test_expressions_are_taken_from_the_lock() -> None:
    """A stage with expressions names what dvc.lock says it had when it last ran; a matrix each of its stages."""
    lock = {
        "stages": {
            "fit@svm": {"params": {"p.yaml": {"lr": 1}}, "outs": [{"path": "out-svm.json", "md5": "d" * 32}]},
            "fit@tree": {"outs": [{"path": "out-tree.json", "md5": "e" * 32}, {"path": "other", "md5": "f" * 32}]},
            "fitter": {"outs": [{"path": "out-x.json", "md5": "0" * 32}]},
        }
    }
    stage = {"matrix": {"k": ["svm", "tree"]}, "cmd": "run ${item.k}", "metrics": ["out-${item.k}.json"]}
    found = named("dvc.yaml", {"stages": {"fit": stage}}, lock)
    assert found.metrics == (("out-svm.json", "d" * 32), ("out-tree.json", "e" * 32))
    assert found.params == (("p.yaml", ("lr",)),)


def test_a_dvc_file_tracks_data() -> None:
    """Its outs come from outside; an import, or a hash of another kind, is not exact."""
    out = {"md5": "a" * 32 + ".dir", "size": 3, "nfiles": 2, "hash": "md5", "path": "data"}
    found = tracked("sub/data.dvc", {"outs": [out]})
    assert (found.outs, found.exact) == ((Data("sub/data", "a" * 32 + ".dir", 3, 2, source=True),), True)
    assert not tracked("data.dvc", {"outs": [out], "deps": [{"path": "x"}]}).exact
    assert not tracked("data.dvc", {"outs": [out | {"hash": "sha256"}]}).exact


def test_stages_come_first_and_a_whole_file_wins() -> None:
    """Files keep the place of their first mention; one that is named whole anywhere is meant whole."""
    one = named("dvc.yaml", {"params": ["b.yaml"], "stages": {"s": {"cmd": "x", "params": [{"a.yaml": ["k"]}]}}}, {})
    two = named(
        "z/dvc.yaml", {"stages": {"s": {"cmd": "x", "params": [{"../b.yaml": ["k"]}, {"../a.yaml": ["l"]}]}}}, {}
    )
    params, metrics = merge_named([one, two], "params.yaml")
    assert params == {"a.yaml": ("k", "l"), "b.yaml": None, "params.yaml": None}
    assert list(params) == ["a.yaml", "b.yaml", "params.yaml"]
    assert metrics == {}


def test_paths_are_walked_as_git_sorts_folders() -> None:
    """The files of a folder come before what is in its folders; `a.b/` comes before `a/`, as in a tree."""
    paths = ["z.dvc", "a/b.dvc", "dvc.yaml", "a.b/dvc.yaml", "a/b/dvc.yaml"]
    assert sorted(paths, key=walk_order) == ["dvc.yaml", "z.dvc", "a.b/dvc.yaml", "a/b.dvc", "a/b/dvc.yaml"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), JSON)
def test_reading_never_fails(content: dict[str, Any], inner: Any) -> None:
    """Whatever stands in the files, something is named, or nothing."""
    named("dvc.yaml", content, {})
    for section in ("stages", "metrics", "params", "plots", "artifacts"):
        named("dvc.yaml", {section: inner}, {"stages": inner})
        named(
            "dvc.yaml",
            {"stages": {"s": {section: inner, "cmd": "x", "deps": inner, "wdir": inner}}},
            {"stages": {"s": inner}},
        )
        named(
            "dvc.yaml",
            {"stages": {"s": {"cmd": "${x}", "metrics": inner}}},
            {"stages": {"s": {"params": inner, "outs": inner}}},
        )
    tracked("x.dvc", {"outs": inner})


def test_a_row_is_json_as_dvc_writes_it() -> None:
    """Keys in DVC's order, a naive local time, ASCII; floats that are not finite are words where they were written so."""
    data = [Data("d", "1", 2, None, dep=True), Data("o", None, None, None, cached=False, source=True)]
    row = shown("f" * 40, datetime(2026, 1, 2, 3, 4, 5), {"p": spelled({"é": [float("nan")]})}, {}, data)  # noqa: DTZ001
    assert row == (
        b'{"rev": "'
        + b"f" * 40
        + b'", "timestamp": "2026-01-02T03:04:05", "params": {"p": {"data": {"\\u00e9": ["nan"]}}}, '
        b'"metrics": {}, "deps": {"d": {"hash": "1", "size": 2, "nfiles": null}}, "outs": {"o": {"hash": null, "size": null, '
        b'"nfiles": null, "use_cache": false, "is_data_source": true}}, "meta": {}}'
    )
    assert json.loads(row)


def test_cached_metrics_are_read_from_the_cache(repo_path: Path, git: Any) -> None:
    """A metric that a stage keeps in DVC's cache is read there, once it is there; no link in a tree is followed."""
    (repo_path / "dvc.yaml").write_text("stages:\n  s:\n    cmd: x\n    metrics: [m.json]\nmetrics: [link.json]\n")
    (repo_path / "dvc.lock").write_text(
        f"schema: '2.0'\nstages:\n  s:\n    cmd: x\n    outs:\n    - path: m.json\n      hash: md5\n      md5: {'ab' * 16}\n"
    )
    (repo_path / "secret.json").write_text('{"secret": 1}')
    (repo_path / "link.json").symlink_to("secret.json")
    git("add", ".", cwd=repo_path)
    git("commit", "--quiet", "-m", "s", cwd=repo_path)
    tree = git("rev-parse", "HEAD^{tree}", cwd=repo_path)
    library = Pipelines(open_handle(str(repo_path)))
    missing = library.others(tree, "")
    assert (missing.metrics, missing.damaged, missing.whole) == ({}, None, False)
    place = repo_path / ".dvc/cache/files/md5/ab"
    place.mkdir(parents=True)
    (place / ("ab" * 15)).write_text('{"acc": 0.5}')
    found = library.others(tree, "")
    assert (found.metrics, found.whole) == ({"m.json": {"acc": 0.5}}, True)
