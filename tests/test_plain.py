"""Any object that holds parameters: whatever a program uses, the same plain values are kept."""

import dataclasses
import enum
import math
from collections import OrderedDict, UserDict, UserList, namedtuple
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from aexp._formats.plain import plain
from aexp.errors import InvalidParams


def typed(value: object) -> object:
    """The value with every type written beside it, so that 1, 1.0 and True differ, and NaN equals NaN."""
    if isinstance(value, dict):
        return [(key, typed(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value).__name__, hex(value) if isinstance(value, int) else repr(value)


class Color(enum.Enum):
    """A value that is not plain."""

    RED = "red"
    DEEP = PurePosixPath("a/b")


class Level(enum.IntEnum):
    """An int that is not plain."""

    LOW = 1


class Loud(str):
    """A str that pretends to be another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


@attrs.frozen
class Model:
    """Parameters as an attrs class."""

    depth: int = 4
    color: Color = Color.RED


@dataclasses.dataclass
class Training:
    """Parameters as a dataclass."""

    lr: float = 0.1
    model: object = dataclasses.field(default_factory=Model)


Size = namedtuple("Size", "width height")

PLAIN = {"lr": 0.1, "model": {"depth": 4, "color": "red"}}


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [
        (Training(), PLAIN),
        ({"a": (1, 2), "b": {3, 1, 2}, "c": frozenset("ba")}, {"a": [1, 2], "b": [1, 2, 3], "c": ["a", "b"]}),
        ({"a": {1, "x", None}}, {"a": ["x", 1, None]}),
        ({"a": {(2, 1), (1, 2)}}, {"a": [[1, 2], [2, 1]]}),
        ({"a": Size(1, 2), "b": range(3), "c": UserList([1])}, {"a": [1, 2], "b": [0, 1, 2], "c": [1]}),
        ({Color.RED: Color.RED, "deep": Color.DEEP, "low": Level.LOW}, {"red": "red", "deep": "a/b", "low": 1}),
        ({1: 1, 1.5: 2, None: 3}, {"1": 1, "1.5": 2, "null": 3}),
        ({True: 1, False: 0, date(2026, 1, 2): 2}, {"true": 1, "false": 0, "2026-01-02": 2}),
        ({"a": Loud("quiet"), Loud("key"): 1}, {"a": "quiet", "key": 1}),
        ({"a": date(2026, 1, 2)}, {"a": "2026-01-02"}),
        ({"a": datetime(2026, 1, 2, 3, tzinfo=UTC)}, {"a": "2026-01-02T03:00:00+00:00"}),
        ({"a": Decimal("0.5"), "b": Decimal("0.1"), "c": Decimal("1E+400")}, {"a": 0.5, "b": "0.1", "c": "1E+400"}),
        ({"a": Decimal("sNaN"), "b": Decimal("Infinity")}, {"a": "sNaN", "b": math.inf}),
        (MappingProxyType({"a": OrderedDict(b=UserDict(c=1))}), {"a": {"b": {"c": 1}}}),
        ({"a": PurePosixPath("x/y")}, {"a": "x/y"}),
        ({"a": 10**5000}, {"a": 10**5000}),
        ({}, {}),
    ],
)
def test_any_object_becomes_plain(given_value: object, kept: object) -> None:
    """What a program usually holds parameters in becomes mappings, lists and scalars of exact types."""
    assert typed(plain(given_value)) == typed(kept)


def test_a_pydantic_model_becomes_plain() -> None:
    """A pydantic model is the mapping that it dumps, with what is in it made plain too."""
    pydantic = pytest.importorskip("pydantic")
    inner = pydantic.create_model("Inner", color=(Color, Color.RED), path=(PurePosixPath, PurePosixPath("a")))
    outer = pydantic.create_model("Outer", inner=(inner, inner()), sizes=(tuple[int, ...], (1, 2)))

    assert plain(outer()) == {"inner": {"color": "red", "path": "a"}, "sizes": [1, 2]}
    assert plain({"a": outer()})["a"] == plain(outer())


def test_an_old_pydantic_model_becomes_plain() -> None:
    """What looks like a model of pydantic 1 is the mapping that its `dict` returns."""

    class Old:
        """What pydantic 1 shows of itself."""

        __fields__ = ("a",)

        def dict(self) -> Any:
            return {"a": (1,)}

    assert plain(Old()) == {"a": [1]}


def test_an_omegaconf_container_becomes_plain() -> None:
    """Interpolations are resolved; one that cannot be names its parameter."""
    omegaconf = pytest.importorskip("omegaconf")
    made = omegaconf.OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": [1, "${a}"]}})

    assert typed(plain(made)) == typed({"a": 1, "b": {"c": 1, "d": [1, 1]}})
    assert plain({"x": made.b.d}) == {"x": [1, 1]}
    with pytest.raises(InvalidParams, match=r"params\.x cannot be read from omegaconf"):
        plain({"x": omegaconf.OmegaConf.create({"a": "${nowhere}"})})


def test_numpy_scalars_and_arrays_become_plain() -> None:
    """A number of numpy is a number, an array a list; what would lose its meaning or is huge is refused."""
    numpy = pytest.importorskip("numpy")
    given_value = {
        "f": numpy.float64(0.5),
        "g": numpy.float32(0.5),
        "i": numpy.int8(3),
        "b": numpy.bool_(1),
        "s": numpy.str_("x"),
        "a": numpy.arange(4).reshape(2, 2),
        "z": numpy.array(7),
    }

    kept = {"f": 0.5, "g": 0.5, "i": 3, "b": True, "s": "x", "a": [[0, 1], [2, 3]], "z": 7}
    assert typed(plain(given_value)) == typed(kept)
    for odd in (numpy.datetime64(1, "ns"), numpy.longdouble(1), numpy.complex128(1), numpy.zeros(1_000_001)):
        with pytest.raises(InvalidParams, match=r"params\.a "):
            plain({"a": odd})


def test_plain_shares_nothing_with_what_it_was_given() -> None:
    """A program may go on changing its parameters; what aexp keeps stays as it was."""
    shared = [1]
    inner: dict[str, object] = {"b": shared}

    kept = plain({"a": inner, "c": shared})
    shared.append(2)
    inner["b"] = []

    assert kept == {"a": {"b": [1]}, "c": [1]}
    assert kept["a"]["b"] is not kept["c"]


@pytest.mark.parametrize(
    ("given_value", "words"),
    [
        ({"model": {"depth": object()}}, r"params\.model\.depth is of type object"),
        ({"a": [0, b"x"]}, r"params\.a\[1\] is of type bytes"),
        ({"a": 1j}, r"params\.a is of type complex"),
        ({"a": Model}, r"params\.a is of type type"),
        ({"a": {1: 0, "1": 0}}, r"params\.a\.1 stands twice"),
        ({"a": "\ud800"}, r"params\.a contains U\+D800"),
        ({"a": "x\0"}, r"params\.a contains U\+0000"),
        ({"a\0": 1}, r"params contains U\+0000"),
        ({"a": {(1, 2): 0}}, r"params\.a has a key of type tuple"),
        ({10**5000: 0}, r"params has a key of type int"),
        ([1], "must be a mapping"),
        (None, "must be a mapping"),
        ("lr=1", "must be a mapping"),
    ],
)
def test_what_no_file_can_hold_is_refused(given_value: object, words: str) -> None:
    """A parameter that cannot be kept is refused by the path of its keys and the name of its type."""
    with pytest.raises(InvalidParams, match=words):
        plain(given_value)


def test_an_object_that_fails_names_its_parameter() -> None:
    """An error in the code of an object is reported at the parameter that it is."""

    @attrs.define
    class Broken:
        """Its attribute was never set."""

        value: int = attrs.field(init=False)

    with pytest.raises(InvalidParams, match=r"params\.a cannot be read from .*Broken: AttributeError"):
        plain({"a": Broken()})


def test_a_cycle_is_refused() -> None:
    """A mapping, a list or an object inside itself is refused at the place where it returns."""
    mapping: dict[str, object] = {}
    mapping["a"] = {"b": mapping}
    items: list[object] = []
    items.append(items)
    training = Training()
    training.model = [training]

    for cyclic, place in ((mapping, r"\.a\.b"), ({"x": items}, r"\.x\[0\]"), (training, r"\.model\[0\]")):
        with pytest.raises(InvalidParams, match=rf"params{place} contains itself"):
            plain(cyclic)


def nested(depth: int) -> dict[str, Any]:
    """A mapping in a mapping, `depth` of them."""
    result: dict[str, Any] = {}
    for _ in range(depth - 1):
        result = {"a": result}
    return result


def test_depth_has_a_limit() -> None:
    """100 levels are kept; 101 are refused, and so is an object that never ends."""

    class Endless:
        """Each of its dumps holds another."""

        def model_dump(self) -> object:
            return {"a": Endless()}

    deep = nested(100)

    assert plain(deep) == deep
    for deeper in (nested(101), Endless()):
        with pytest.raises(InvalidParams, match=r"params\.a\.a.* is nested more than 100 levels"):
            plain(deeper)


def test_size_has_a_limit() -> None:
    """A few lists that hold each other many times over are refused before they fill the memory."""
    bomb: object = 0
    for _ in range(8):
        bomb = [bomb] * 10
    for huge in (bomb, range(10**12)):
        with pytest.raises(InvalidParams, match="is too large"):
            plain({"a": huge})
