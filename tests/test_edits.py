"""Overrides written into parameter files: the values change, and no other byte."""

import difflib
import json
import math
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aexp import InvalidParams
from aexp._formats.changes import same
from aexp._formats.edits import edited, merged
from aexp._formats.overrides import overridden, parse_override
from aexp._formats.params import load_text

YAML = """\
# what the training reads
train:
  lr: 0.1  # the rate
  optimizer: 'adam'   # quoted
  layers:  # sizes
    - 64   # first
    - 32
  flow: {a: 1, b: "x", c: [1, {d: 2}]}  # on one line
  nothing:   # yet
seed: &seed 42
other: *seed
defaults: &defaults
  x: 1
derived:
  <<: *defaults
  z: 3
text: |
  hello
    world

items:
- name: one   # the first
  size: 1
-   name: two
    size: 2
? odd
: 7
# the end
"""
JSON = '{\n\t"a": 1,\n\t"b": {"x": [1, 2], "y": "\\u00e9"},\n\t"c": []\n}\n'
TOML = """\
# top
title = "x" # the title

[train]
lr = 0.1   # rate
layers = [
  1, # one
  2,
]
point = {x = 1, y = 2}

[[runs]]
a = 1
[[runs]]
a = 2

[other.deep]
q = 2020-01-01
"""
PYTHON = '''\
"""What the training reads: é."""
LR = 0.1  # the rate
names = ["a", "é", "b"]; K = {"x": 1, 'y': [1, 2]}
class Train:
    epochs: int = 5
    def __init__(self):
        self.optimizer = 'adam'
'''

CASES = [
    ("p.yaml", YAML, "train.lr=0.2", "-  lr: 0.1  # the rate", "+  lr: 0.2  # the rate"),
    ("p.yaml", YAML, "train.optimizer=sgd", "-  optimizer: 'adam'   # quoted", "+  optimizer: 'sgd'   # quoted"),
    ("p.yaml", YAML, 'train.optimizer="it\'s"', "-  optimizer: 'adam'   # quoted", "+  optimizer: 'it''s'   # quoted"),
    ("p.yaml", YAML, "train.layers.0=16", "-    - 64   # first", "+    - 16   # first"),
    ("p.yaml", YAML, "train.flow.c.1.d=[x]", "{d: 2}]}  # on one line", "{d: [x]}]}  # on one line"),
    ("p.yaml", YAML, "~train.flow.a", '{a: 1, b: "x", c', '{b: "x", c'),
    ("p.yaml", YAML, "+train.flow.e=5", "{d: 2}]}", "{d: 2}], e: 5}"),
    ("p.yaml", YAML, "train.nothing=no", "-  nothing:   # yet", '+  nothing: "no"   # yet'),
    ("p.yaml", YAML, "other=5", "-other: *seed", "+other: 5"),
    ("p.yaml", YAML, "derived.z=4", "-  z: 3", "+  z: 4"),
    ("p.yaml", YAML, "items.1.size=9", "-    size: 2", "+    size: 9"),
    ("p.yaml", YAML, "odd=8", "-: 7", "+: 8"),
    ("p.json", JSON, "a=2.5", '-\t"a": 1,', '+\t"a": 2.5,'),
    ("p.json", JSON, "b.x.1=null", '"x": [1, 2]', '"x": [1, null]'),
    ("p.json", JSON, "b.y='ü'", '"y": "\\u00e9"', '"y": "\\u00fc"'),
    ("p.toml", TOML, "train.lr=0.5", "-lr = 0.1   # rate", "+lr = 0.5   # rate"),
    ("p.toml", TOML, "train.layers.0=9", "-  1, # one", "+  9, # one"),
    ("p.toml", TOML, "train.point.y=3", "y = 2}", "y = 3}"),
    ("p.toml", TOML, "runs.1.a=3", "-a = 2", "+a = 3"),
    ("p.toml", TOML, "other.deep.q=soon", "-q = 2020-01-01", '+q = "soon"'),
    ("p.py", PYTHON, "LR=0.2", "-LR = 0.1  # the rate", "+LR = 0.2  # the rate"),
    ("p.py", PYTHON, "K.y.0=7", "'y': [1, 2]}", "'y': [7, 2]}"),
    ("p.py", PYTHON, "Train.epochs=9", "-    epochs: int = 5", "+    epochs: int = 9"),
    ("p.py", PYTHON, "Train.optimizer=sgd", "'adam'", "'sgd'"),
]


def edit(file: str, text: str, *overrides: str) -> str:
    """The text after the overrides."""
    return edited(text, file, [parse_override(each) for each in overrides])


def difference(before: str, after: str) -> list[str]:
    """The lines that went, behind a minus, and that came, behind a plus."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.mark.parametrize(("file", "text", "override", "old", "new"), CASES)
def test_one_line_changes_and_only_in_its_value(file: str, text: str, override: str, old: str, new: str) -> None:
    """A value is changed where it stands; comments, quotes, spaces and order are as they were."""
    before, after = difference(text, edit(file, text, override))

    assert old in before
    assert new in after
    assert after[1:].replace(new.removeprefix("+"), old.removeprefix("-")) == before[1:]


@pytest.mark.parametrize(
    ("override", "lines"),
    [
        ("+train.new=5", ["+  new: 5"]),
        ("++new.er.est=[1, x]", ["+new:", "+  er:", "+    est: [1, x]"]),
        ("+items.0.new=1", ["+  new: 1"]),
        ("~train.lr", ["-  lr: 0.1  # the rate"]),
        ("~train.layers", ["-  layers:  # sizes", "-    - 64   # first", "-    - 32"]),
        ("~items.0.name", ["-- name: one   # the first", "-  size: 1", "+- size: 1"]),
        ("derived.x=5", ["+  x: 5"]),
        ("seed=7", ["-seed: &seed 42", "-other: *seed", "+seed: 7", "+other: &seed 42"]),
        ("~seed", ["-seed: &seed 42", "-other: *seed", "+other: &seed 42"]),
        ("text=short", ["-text: |", "-  hello", "-    world", "+text: short"]),
    ],
)
def test_a_block_grows_and_shrinks_by_whole_lines(override: str, lines: list[str]) -> None:
    """Keys come in below their neighbours, indented as they are, and go with their lines and nothing else's."""
    found = [line for line in difference(YAML, edit("p.yaml", YAML, override)) if line.strip("+-")]

    assert sorted(found) == sorted(lines)


PLACES = {
    "p.yaml": {
        "train.lr": "  lr: 0.1",
        "train.flow.b": "  flow:",
        "train.layers.1": "    - 32",
        "items.1.name": "-   name: two",
    }
    | {"train.nothing": "  nothing:", "odd": ": 7", "derived.z": "  z: 3", "train.optimizer": "  optimizer:"},
    "p.json": {"a": '\t"a"', "b.x.0": '\t"b"', "b.y": '\t"b"', "c": '\t"c"'},
    "p.toml": {
        "title": "title",
        "train.lr": "lr",
        "train.layers.1": "  2,",
        "train.point.x": "point",
        "runs.0.a": "a = 1",
    }
    | {"other.deep.q": "q ="},
    "p.py": {
        "LR": "LR =",
        "names.1": "names =",
        "K.x": "names =",
        "Train.epochs": "    epochs",
        "Train.optimizer": "        self.",
    },
}
SPELLINGS = (
    *("1", "-5", "+5", "1_000", "0.5", ".5", "5.", "1e5", "1e-5", "true", "False", "", "no", "0x10", "010", "a:b"),
    *("2021-02-02", "foo bar", "'# no: comment'", '"it\'s"', r"a\,b", "'é'", "[]", "[1, [a, 'b']]", "[x y, 'null']"),
    *("[{a: 1}, 'null']", "null", "inf", "nan", "-inf"),
)


@pytest.mark.parametrize("file", PLACES)
@given(data=st.data())
def test_an_override_touches_only_the_line_of_its_value(file: str, data: st.DataObject) -> None:
    """Whatever value is set, in every format: one line differs, that of the value, and all is read back as it was meant."""
    text = {"p.yaml": YAML, "p.json": JSON, "p.toml": TOML, "p.py": PYTHON}[file]
    key = data.draw(st.sampled_from(sorted(PLACES[file])))
    quoted = st.text(st.characters(codec="utf-8", exclude_characters="\\\\'"), max_size=20).map("'{}'".format)
    override = f"{key}={data.draw(st.sampled_from(SPELLINGS) | quoted)}"
    hard = {"p.toml": (None,), "p.py": (math.inf, -math.inf, math.nan)}.get(file, ())
    value = parse_override(override).value
    if value in hard or (value != value and file == "p.py"):
        with pytest.raises(InvalidParams):
            edit(file, text, override)
        return
    wanted = overridden(load_text(text, file), [parse_override(override)])  # type: ignore[arg-type]
    after = edit(file, text, override)
    lines, others = text.split("\n"), after.split("\n")
    differing = [old for old, new in zip(lines, others, strict=True) if old != new]

    assert same(load_text(after, file), wanted)
    assert len(differing) <= 1
    assert all(line.startswith(PLACES[file][key]) for line in differing)


def test_an_alias_outlives_what_it_named() -> None:
    """When what an anchor names is changed or taken away, the other places keep the value they had."""
    text = "base: &base\n  x: 1 # one\n  y: [1]\nref: *base\nlast: *base\n"

    assert load_text(edit("p.yaml", text, "~base"), "p.yaml") == {"ref": {"x": 1, "y": [1]}, "last": {"x": 1, "y": [1]}}
    assert load_text(edit("p.yaml", text, "base=5"), "p.yaml") == {
        "base": 5,
        "ref": {"x": 1, "y": [1]},
        "last": {"x": 1, "y": [1]},
    }


def test_what_is_edited_below_an_alias_is_edited_where_it_stands() -> None:
    """An alias and what it stands for are one thing: to change it in one place changes it in both, as with DVC."""
    text = "base: &base\n  x: 1 # one\nref: *base\n"

    assert edit("p.yaml", text, "ref.x=2") == text.replace("x: 1", "x: 2")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "# nothing yet"])
def test_an_empty_file_can_be_begun(text: str) -> None:
    """A file that holds nothing gets its first key, behind what is there."""
    after = edit("params.yaml", text, "++a.b=1")

    assert after.startswith(text)
    assert load_text(after, "params.yaml") == {"a": {"b": 1}}


def test_line_ends_and_the_byte_order_mark_stay() -> None:
    """A file from Windows is still one."""
    text = "\ufeffa: 1\r\nb:\r\n  c: 2 # two\r\n"

    assert edit("p.yaml", text, "b.c=3", "+b.d=4") == "\ufeffa: 1\r\nb:\r\n  c: 3 # two\r\n  d: 4\r\n"


def test_json_grows_in_the_manner_of_its_neighbours() -> None:
    """A new key is indented, or squeezed, as the one before it."""
    assert edit("p.json", JSON, "+d=true") == JSON.replace('"c": []', '"c": [],\n\t"d": true')
    assert edit("p.json", '{"a":1,"b":{}}', "+c=1", "~a", "+b.x=y") == '{"b":{"x": "y"},"c":1}'


@pytest.mark.parametrize(
    ("file", "text", "override", "reason"),
    [
        ("p.toml", TOML, "title=null", "TOML cannot hold it"),
        ("p.py", PYTHON, "+new=1", "not added or taken away"),
        ("p.py", PYTHON, "~LR", "not added or taken away"),
        ("p.py", "x = 1 +\n", "x=1", "not usable as Python"),
        ("p.py", PYTHON, "LR=inf", "no literal for inf"),
        ("p.yaml", "a: [1\n", "a=1", "not usable as YAML"),
        ("p.yaml", "- 1\n", "a=1", "no keys to change"),
        ("p.json", "[1]", "a=1", "no keys to change"),
        ("p.json", '{"a": 1, "a": 2}', "a=1", "duplicate key"),
    ],
)
def test_what_cannot_be_written_says_why(file: str, text: str, override: str, reason: str) -> None:
    """The error names the file and the reason."""
    with pytest.raises(InvalidParams) as refused:
        edit(file, text, override)

    assert reason in str(refused.value)
    assert refused.value.file == file


def test_a_mapping_can_be_merged_into_a_file() -> None:
    """Values are laid over those of the file, and its comments stay."""
    after = merged(YAML, "p.yaml", {"train": {"lr": 0.3, "more": {"deep": [1]}}, "seed": math.inf})

    assert "  lr: 0.3  # the rate\n" in after
    assert load_text(after, "p.yaml") == overridden(
        load_text(YAML, "p.yaml"),  # type: ignore[arg-type]
        [parse_override(each) for each in ("train.lr=0.3", "+train.more={deep: [1]}", "seed=inf")],
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("file", ["p.yaml", "p.json"])
@given(
    old=st.dictionaries(st.text(max_size=8), values, max_size=4),
    new=st.dictionaries(st.text(max_size=8), values, max_size=4),
)
def test_any_values_can_be_merged_into_any_others(file: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Whatever a JSON or YAML file holds, whatever is laid over it is read back as it was meant."""
    text = json.dumps(old, indent=2, ensure_ascii=True)
    if file == "p.yaml":
        text = merged("", file, old)
        assert same(load_text(text, file) or {}, old)
    after = load_text(merged(text, file, new), file) or {}

    assert same(merged_again(old, new), after)


def merged_again(old: Any, new: Any) -> Any:
    """The values of `new` over those of `old`, in the plainest way."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {key: merged_again(old[key], value) if key in old else value for key, value in new.items()}


def test_toml_is_read_back_by_the_standard_library() -> None:
    """What TOML becomes after several overrides is TOML, with the values that were meant."""
    after = edit("p.toml", TOML, "train.lr=1e-5", "+train.sub.k=[1, {a: 1}]", "~title", "++new=x")

    assert tomllib.loads(after)["train"]["sub"] == {"k": [1, {"a": 1}]}
    assert tomllib.loads(after)["new"] == "x"
