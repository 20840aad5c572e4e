"""Overrides: what their grammar means, and what they do to values."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aexp import InvalidParams
from aexp._formats.overrides import Override, overlaid, overridden, parse_override

VALUES = {
    "1": 1,
    "+5": 5,
    "-5": -5,
    "1_000": 1000,
    "0.5": 0.5,
    ".5": 0.5,
    "5.": 5.0,
    "1e5": 1e5,
    "inf": float("inf"),
    "-inf": float("-inf"),
    "null": None,
    "NULL": None,
    "true": True,
    "False": False,
    "": "",
    "no": "no",
    "0x10": "0x10",
    "010": "010",
    "2021-02-02": "2021-02-02",
    "a:b": "a:b",
    "foo bar": "foo bar",
    "a/b@c.d%": "a/b@c.d%",
    "1 2": "1 2",
    "12abc": "12abc",
    "1.2.3": "1.2.3",
    "'x, y'": "x, y",
    '"it\'s"': "it's",
    r"'it\'s'": "it's",
    r"'a\b'": r"a\b",
    r"'a\\'": "a\\",
    r"a\,b\ c": "a,b c",
    "' 1 '": " 1 ",
    "'日本'": "日本",
    "[]": [],
    "{}": {},
    "[1, [a, 'b'], {c: d}]": [1, ["a", "b"], {"c": "d"}],
    "{a: 1, b c: {d: [true]}}": {"a": 1, "b c": {"d": [True]}},
    "  7  ": 7,
}

REFUSED = {
    "a": "has no value",
    "a.b": "has no value",
    "=1": "write [FILE:]KEY=VALUE",
    ":a=1": "write [FILE:]KEY=VALUE",
    "a..b=1": "write [FILE:]KEY=VALUE",
    "list[0]=1": "write [FILE:]KEY=VALUE",
    "-a=1": "write [FILE:]KEY=VALUE",
    "a=日本": "put quotes around text",
    "a=b=c": "put quotes around text with '='",
    "a=~": "put quotes around text with '~'",
    "a=(": "a value is missing",
    "a=1,2": "a sweep",
    "a=choice(1,2)": "functions are not called here",
    "a=${b}": "interpolations are not resolved here",
    "a=[1": "is missing",
    "a=[1,]": "a value is missing",
    "a={b}": "':' is missing",
    "a='b' c": "text stands beside the quotes",
    "a='b": "put quotes around text",
    "a=" + "[" * 1000 + "]" * 1000: "levels deep",
    "a=" + "9" * 5000: "more than 4300 digits",
}

BASE: dict[Any, Any] = {"a": {"b": 1, "c": {"d": "x"}}, "l": [1, 2, {"k": 3}], "s": "hi", "n": None, 7: "seven"}


@pytest.mark.parametrize(("text", "value"), VALUES.items())
def test_a_value_has_the_type_that_its_spelling_says(text: str, value: Any) -> None:
    """Numbers, booleans, null, lists and mappings are what they look like; all else is text."""
    found = parse_override(f"a={text}").value

    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(("text", "reason"), REFUSED.items(), ids=lambda text: text[:20])
def test_what_is_no_override_is_refused_with_the_reason(text: str, reason: str) -> None:
    """An override that cannot be understood says why, and what to write instead."""
    with pytest.raises(InvalidParams) as refused:
        parse_override(text)

    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("text", "file", "action", "path", "valued"),
    [
        ("a=1", "params.yaml", "set", ("a",), True),
        ("+a.b=1", "params.yaml", "append", ("a", "b"), True),
        ("++a.0.b=1", "params.yaml", "upsert", ("a", "0", "b"), True),
        ("~a.b", "params.yaml", "delete", ("a", "b"), False),
        ("~a=1", "params.yaml", "delete", ("a",), True),
        ("conf/p.toml:a=b:c", "conf/p.toml", "set", ("a",), True),
        ("my file.json:$x-y=", "my file.json", "set", ("$x-y",), True),
    ],
)
def test_an_override_names_a_file_an_action_and_a_key(
    text: str, file: str, action: str, path: tuple[str, ...], valued: bool
) -> None:
    """The file stands before the first colon that comes before the equals sign; without it, it is params.yaml."""
    found = parse_override(text)

    assert (found.file, found.action, found.path, found.valued) == (file, action, path, valued)


@given(st.text(max_size=30))
def test_any_text_is_an_override_or_refused(text: str) -> None:
    """No text makes the parser fail in another way."""
    with suppress(InvalidParams):
        assert isinstance(parse_override(text), Override)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\\'"), max_size=30))
def test_text_in_quotes_comes_through_as_it_is(text: str) -> None:
    """Whatever stands between quotes is the value."""
    assert parse_override(f"a='{text}'").value == text


def applied(*overrides: str) -> dict[str, Any]:
    """BASE after the overrides."""
    return overridden(BASE, [parse_override(each) for each in overrides])


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("a.b=2", "a", {"b": 2, "c": {"d": "x"}}),
        ("a={b:5}", "a", {"b": 5, "c": {"d": "x"}}),
        ("a={}", "a", BASE["a"]),
        ("+a={z:5}", "a", {"b": 1, "c": {"d": "x"}, "z": 5}),
        ("+a.z=5", "a", {"b": 1, "c": {"d": "x"}, "z": 5}),
        ("++a.b.z=5", "a", {"b": {"z": 5}, "c": {"d": "x"}}),
        ("~a.c", "a", {"b": 1}),
        ("~a.b=1", "a", {"c": {"d": "x"}}),
        ("l.0=9", "l", [9, 2, {"k": 3}]),
        ("l.2.k=9", "l", [1, 2, {"k": 9}]),
        ("~l.0", "l", [2, {"k": 3}]),
        ("l=[5]", "l", [5]),
        ("+n=1", "n", 1),
        ("++x.y.z=1", "x", {"y": {"z": 1}}),
        ("7=8", 7, 8),
    ],
)
def test_an_override_changes_one_place(override: str, key: Any, value: Any) -> None:
    """What it names gets the value, mappings are merged, and all else is as it was."""
    assert applied(override) == {**BASE, key: value}


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("a.z=1", "there is no a.z; write +a.z=1 to add it"),
        ("z.y=1", "there is nothing below 'z'"),
        ("a={z:1}", "there is no 'z' in it"),
        ("+a.b=2", "is there already; write it without the +, or with ++"),
        ("l.7=1", "there is no l.7"),
        ("+l.3=1", "the list has 3 items"),
        ("~z", "there is no z"),
        ("~a.b=2", "a.b is 1"),
        ("db/x=1", "it chooses a configuration group"),
        ("db@x=1", "it chooses a configuration group"),
        ("a=[1]", "a holds keys, not a list"),
        ("l={a:1}", "l holds a list, not keys"),
        ("s.x=1", "there is nothing below 's'"),
    ],
)
def test_what_cannot_be_changed_says_why(override: str, reason: str) -> None:
    """An override of a key that is not there, or there already, names the key and what to write instead."""
    with pytest.raises(InvalidParams) as refused:
        applied(override)

    assert reason in str(refused.value)
    assert refused.value.file == "params.yaml"


def test_values_are_never_changed_in_place() -> None:
    """Overrides give new values; what went in stays as it was, and what was shared in it is shared still."""
    shared = {"x": 1}
    values = {"one": shared, "two": shared}
    found = overridden(values, [parse_override("one.x=2")])

    assert values == {"one": {"x": 1}, "two": {"x": 1}}
    assert found == {"one": {"x": 2}, "two": {"x": 2}}


def test_a_mapping_is_laid_over_mapping_by_mapping() -> None:
    """New keys are added, mappings merged, lists and all else replaced."""
    assert overlaid(BASE, {"a": {"b": 2, "e": 3}, "l": []}) == BASE | {"a": {"b": 2, "c": {"d": "x"}, "e": 3}, "l": []}
