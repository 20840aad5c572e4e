"""Overrides lead to the values that `dvc exp run -S` writes."""

from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import aexp
from aexp._formats.changes import same
from aexp._formats.edits import edited
from aexp._formats.overrides import parse_override
from aexp._formats.params import load_text

pytestmark = pytest.mark.compat

TEXTS = {
    "p.yaml": """\
# what the training reads
train:
  lr: 0.1  # the rate
  optimizer: 'adam'   # quoted
  layers:  # sizes
    - 64
    - 32
  flow: {a: 1, b: "x", c: [1, {d: 2}]}  # on one line
  nothing:
seed: &seed 42
other: *seed
base: &base
  x: 1
  y: 2
ref: *base
text: |
  hello
  world
points: [[1, 2], [3, 4]]
items:
- name: one
  size: 1
- name: two
  size: 2
""",
    "p.json": '{\n  "train": {"lr": 0.1, "layers": [1, 2], "flow": {}},\n  "seed": 42,\n  "text": "\\u00e9"\n}\n',
    "p.toml": (
        'seed = 42 # c\n\n[train]\nlr = 0.1\nlayers = [1, 2]\nflow = {a = 1}\ntext = "x"\n\n[other.deep]\nq = "z"\n'
    ),
}
KEYS = {
    "p.yaml": [
        *("train", "train.lr", "train.optimizer", "train.layers", "train.layers.1", "train.flow", "train.flow.a"),
        *("train.flow.c", "train.flow.c.1.d", "train.nothing", "train.new", "train.new.deep", "seed", "other", "text"),
        *("points.1.0", "points", "items.0.size", "items.1.name", "items.1.new", "new", "new.er.est"),
    ],
    "p.json": [
        "train",
        "train.lr",
        "train.layers.0",
        "train.layers",
        "train.flow",
        "train.flow.x",
        "seed",
        "text",
        "n",
    ],
    "p.toml": [
        "train",
        "train.lr",
        "train.layers.1",
        "train.layers",
        "train.flow.a",
        "seed",
        "other.deep.q",
        "n",
        "other",
    ],
}
VALUES = [
    *(
        "1",
        "-5",
        "+5",
        "1_000",
        "0.5",
        ".5",
        "5.",
        "1e5",
        "1e-5",
        "inf",
        "nan",
        "null",
        "true",
        "False",
        "",
        "no",
        "0x10",
    ),
    *(
        "010",
        "2021-02-02",
        "a:b",
        "foo bar",
        "'quoted \"one\"'",
        '"it\'s"',
        "x\\,y",
        "[]",
        "{}",
        "[1,2]",
        "[a,[b,{c:1}]]",
    ),
    *(
        "{a:1}",
        "{lr:1}",
        "{x:{y:[1]}}",
        "'é'",
        "'# no comment'",
        "'a: b'",
        "[x y, 'null']",
        "~",
        "日本",
        "1,2",
        "(",
        "a=b",
    ),
]


def dvc_says(folder: Path, file: str, text: str, overrides: list[str]) -> Any:
    """The values after DVC has applied the overrides to the file; None when it refuses."""
    path = folder / file
    path.write_text(text)
    try:
        apply_overrides(path, overrides)
    except DvcException:
        return None
    except (TypeError, LookupError, ValueError):  # it breaks down, as for an item of a list that is taken away
        assume(False)
    return load_text(path.read_text(), file)


def we_say(file: str, text: str, overrides: list[str]) -> Any:
    """The values after ours; None when we refuse."""
    try:
        return load_text(edited(text, file, [parse_override(each) for each in overrides]), file)
    except aexp.InvalidParams:
        return None


def overrides_of(file: str) -> SearchStrategy[str]:
    """Overrides of the file's keys with values of every kind."""
    given_value = st.builds(
        "{}{}={}".format, st.sampled_from(["", "", "+", "++"]), st.sampled_from(KEYS[file]), st.sampled_from(VALUES)
    )
    return given_value | st.sampled_from(KEYS[file]).map("~{}".format)


@pytest.mark.parametrize("file", TEXTS)
@given(data=st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_dvc_accepts_we_accept_with_the_same_values(file: str, tmp_path: Path, data: st.DataObject) -> None:
    """Overrides of any kind lead to the values that DVC writes; what DVC refuses, we refuse."""
    overrides = data.draw(st.lists(overrides_of(file), min_size=1, max_size=3))
    theirs, ours = dvc_says(tmp_path, file, TEXTS[file], overrides), we_say(file, TEXTS[file], overrides)

    assert (theirs is None) == (ours is None), (theirs, ours)
    assert same(theirs, ours), (theirs, ours)


PYTHON = '''\
"""What the training reads."""
LR = 0.1  # the rate
DEPTH = 4
SIZES = [1, 2]
class Train:
    epochs = 5
    def __init__(self):
        self.patience = 3
'''
NUMBERS = st.sampled_from(["1", "-5", "+5", "1_000", "0.5", ".5", "5.", "1e5", "1e-5", "12345.75"])


@given(key=st.sampled_from(["LR", "DEPTH", "Train.epochs", "Train.patience"]), value=NUMBERS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_in_python_become_what_dvc_makes_of_them(tmp_path: Path, key: str, value: str) -> None:
    """In a Python file DVC changes numbers, and so do we, to the same values; what is no key there both refuse."""
    override = f"{key}={value}"

    assert dvc_says(tmp_path, "p.py", PYTHON, [override]) == we_say("p.py", PYTHON, [override])  # 5. is 5 to DVC
    assert dvc_says(tmp_path, "p.py", PYTHON, ["nothing=1"]) is we_say("p.py", PYTHON, ["nothing=1"]) is None
