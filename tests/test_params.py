"""Parameters: every reader finds in their file what was written, and no file can overwhelm ours."""

import contextlib
import io
import json
import math
import time
from collections.abc import Callable
from typing import Any, cast

import orjson
import pytest
import ruamel.yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aexp._formats.params import dump_params, from_json, load_params, merge, plain, to_json
from aexp.errors import InvalidParams

texts = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    st.text("yesnoftrul ~:-?#&*!|>%@`'\"\\{}[],=<.0189e_+\t\r\n\x7f\x85\xa0\u2028\ufeff\ufffe\U0001f600", max_size=12),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(1 << 80), 1 << 80), st.floats(allow_nan=False), texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)
params = st.dictionaries(texts, values, max_size=5)


def typed(value: object) -> object:
    """The value with every type written beside it, so that 1, 1.0 and True differ, and NaN equals NaN."""
    if isinstance(value, dict):
        return [(key, typed(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [typed(item) for item in value]
    return type(value).__name__, hex(value) if isinstance(value, int) else repr(value)


def read_as_dvc(content: bytes) -> object:
    """What DVC reads: ruamel.yaml, YAML 1.2."""
    return ruamel.yaml.YAML(typ="safe", pure=True).load(content.decode())


def read_as_pyyaml(content: bytes) -> object:
    """What most of Python reads: PyYAML, YAML 1.1."""
    return pytest.importorskip("yaml").safe_load(content.decode())


def read_as_aexp(content: bytes) -> object:
    """What aexp reads."""
    return load_params(content, "params.yaml")


readers = pytest.mark.parametrize("read", [read_as_dvc, read_as_pyyaml, read_as_aexp])
Reader = Callable[[bytes], object]


def test_merge_goes_into_mappings_and_replaces_the_rest() -> None:
    """The new value wins, key by key; a list is one value; neither argument changes."""
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}
    new = {"a": {"c": [3]}, "d": {"x": 1}, "e": 2, "g": None}
    before = json.dumps([old, new])

    assert merge(old, new) == {"a": {"b": 1, "c": [3]}, "d": {"x": 1}, "e": 2, "g": None}
    assert json.dumps([old, new]) == before


@given(params, params)
def test_merging_twice_changes_nothing(old: dict[str, Any], new: dict[str, Any]) -> None:
    """A merge is idempotent, keeps the order of keys, and merging nothing changes nothing."""
    merged = merge(old, new)

    assert typed(merge(merged, new)) == typed(merged)
    assert typed(merge(old, {})) == typed(old)
    assert list(merged) == list(dict.fromkeys([*old, *new]))


AMBIGUOUS = [
    *["", " ", "  a", "a ", "yes", "No", "ON", "off", "y", "N", "true", "False", "null", "NULL", "~", "None", "nan"],
    *["inf", "-inf", ".inf", ".NaN", "1", "010", "0o10", "0x1F", "0b1", "1_000", "1e5", "1e-05", "1.", ".5", "+1"],
    *["1:30", "12:30:45", "2020-01-01", "2020-01-01 10:00:00", "=", "<<", "-", "- a", "?", "? a", ":", "a: b", "a:"],
    *["a #b", "#", "&a", "*a", "!a", "!!int", "|", ">", "%TAG", "@a", "`a", "'", '"', "\\", "[", "]", "{", "}", ","],
    *["---", "...", "--- a", "a\nb", "a\n", "\n", "a\r\nb", "\t", "a\tb", "\x85", "a\u2028b", "\u2029", "\ufeff"],
    *["\ufffe", "\uffff", "\x7f", "\x80", "\x01", "\x1b[0m", "\U0001f600", "caf\u00e9", "e\u0301", "\xa0", "\xad"],
    *["a, b", "a  b", "it's", 'say "x"', "C:\\x", "${a}", "{{x}}", "a/b.c-d_e", "x" * 5000, "word " * 2000, "0", "_1"],
]


@readers
def test_no_text_is_read_as_something_else(read: Reader) -> None:
    """Every text that some YAML takes for a number, a word or a sign is read back as that text, as value and as key."""
    for text in AMBIGUOUS:
        kept = {"v": text, text + "k": [text], text: {text: text}, "l": [[text], {text: 1}]}
        assert typed(read(dump_params(kept))) == typed(kept)


@readers
def test_numbers_and_words_keep_their_type(read: Reader) -> None:
    """Numbers of every size, booleans, None and empty containers are read back as they are."""
    floats = [0.0, -0.0, 1e-5, 1e22, 1.5e300, 5e-324, 0.1, 1e16, -1e-7, 123456789.0, 2.0**53, 1.79e308]
    ints = [0, -1, 2**63, -(2**64), 10**600, 10**5000, -(10**5000)]
    kept = {"floats": floats, "ints": ints, "words": [True, False, None], "empty": [{}, []], "d": {}, "l": []}

    assert typed(read(dump_params(kept))) == typed(kept)


@readers
def test_floats_that_are_not_finite_become_text(read: Reader) -> None:
    """NaN and the infinities are written as the strings that DVC uses, because its tables are JSON."""
    assert read(dump_params({"a": [math.nan, math.inf, -math.inf]})) == {"a": ["nan", "inf", "-inf"]}


def test_params_look_like_a_person_wrote_them() -> None:
    """Plain words stand without quotes, nesting is by indentation, keys keep their order, and no line is folded."""
    kept = {"lr": 1e-5, "name": "resnet 50", "tags": ["a", "1"], "m": {"z": 1, "a": None}, "e": {}, "no": "x" * 300}

    assert dump_params(kept).decode() == (
        f'lr: 1.0e-05\nname: resnet 50\ntags:\n- a\n- "1"\nm:\n  z: 1\n  a: null\ne: {{}}\n"no": {"x" * 300}\n'
    )
    assert dump_params({}) == b"{}\n"


@readers
def test_the_deepest_params_are_read(read: Reader) -> None:
    """100 levels of mappings or lists, which is what `plain` allows, are written and read back."""
    kept: Any = []
    for level in range(99):
        kept = [kept] if level % 2 else {"a": kept}

    assert read(dump_params(plain(kept))) == kept


@pytest.mark.parametrize("value", [object(), (1,), b"x"])
def test_only_plain_params_are_written(value: object) -> None:
    """What did not go through `plain` is refused, not guessed at."""
    with pytest.raises(TypeError):
        dump_params({"a": value})


@settings(max_examples=150)
@given(params)
@example({"\ufeff": "\ufeff", "a" * 130: "b"})
def test_every_reader_finds_the_same_params(kept: dict[str, Any]) -> None:
    """DVC, PyYAML and aexp read back exactly what was written, types and order included, unless it is not finite."""
    expected = typed(_with_text_for_infinity(kept))
    content = dump_params(kept)

    assert typed(plain(kept)) == typed(kept)
    assert typed(read_as_aexp(content)) == expected
    assert typed(read_as_dvc(content)) == expected
    assert typed(read_as_pyyaml(content)) == expected


def _with_text_for_infinity(value: object) -> object:
    if isinstance(value, dict):
        return {key: _with_text_for_infinity(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_text_for_infinity(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


@given(st.dictionaries(texts | st.sampled_from(["$float", "$int", "$", "$$float"]), values | st.floats(), max_size=3))
@example({"$float": "nan"})
@example({"a": {"$float": math.nan}, "b": [{"$$int": 10**5000}, -math.inf, 2**63, -(2**63), True, 1, 1.0, -0.0]})
def test_json_holds_every_value_exactly(kept: dict[str, Any]) -> None:
    """Through JSON and back, every number, text and mapping is what it was, whatever its keys look like."""
    assert typed(from_json(orjson.loads(orjson.dumps(to_json(kept))))) == typed(kept)


def test_the_json_form_shows_what_is_special() -> None:
    """Floats that are not finite and ints beyond 64 bits are marked; a mapping that looks marked gets another `$`."""
    kept = {"a": math.nan, "b": 2**64, "c": {"$float": 1}, "d": {"$float": 1, "e": 2}}

    marked = {"a": {"$float": "nan"}, "b": {"$int": "0x10000000000000000"}, "c": {"$$float": 1}, "d": kept["d"]}
    assert to_json(kept) == marked


@pytest.mark.parametrize(
    ("file", "content", "kept"),
    [
        ("p.yaml", "a: 1 # x\nb: {c: [no, 010, 0o10]}\n", {"a": 1, "b": {"c": ["no", 10, 8]}}),
        ("p.yaml", "a: [1e-5, 1_000]\n", {"a": [1e-5, 1000]}),
        ("p.yaml", "a: [12:30, 12:30:45]", {"a": ["12:30", "12:30:45"]}),
        ("p.yaml", "2020-01-01: 2020-01-02 10:00:00\n", {"2020-01-01": "2020-01-02T10:00:00"}),
        ("p.yml", "a: &a {x: 1}\nb: {<<: *a, y: 2}\n", {"a": {"x": 1}, "b": {"x": 1, "y": 2}}),
        ("p.yml", "a: &a {x: 1}\nb: [*a, *a]\n", {"a": {"x": 1}, "b": [{"x": 1}, {"x": 1}]}),
        ("p.yml", "a: &a 1\nb: &a 2\nc: *a\n1: x\n~: y\n", {"a": 1, "b": 2, "c": 2, "1": "x", "null": "y"}),
        ("p.yaml", "%YAML 1.1\n---\na: no\nb: 1:30\n", {"a": False, "b": 90}),
        ("p.yaml", "a: .inf\nb: !!set {x, y}\nc: 0x10\n", {"a": math.inf, "b": ["x", "y"], "c": 16}),
        ("p.yaml", "", {}),
        ("p.yaml", "# nothing\n", {}),
        ("p.yaml", "\ufeffa: 1", {"a": 1}),
        ("P.JSON", '{"a": [1, 1.0, null, true]}', {"a": [1, 1.0, None, True]}),
        ("p.json", '{"a": [NaN, -Infinity]}', {"a": [math.nan, -math.inf]}),
        ("p.toml", "a = 1\n[b.c]\nx = inf\n", {"a": 1, "b": {"c": {"x": math.inf}}}),
        ("p.toml", "d = 2020-01-01\nt = 10:00:00\n", {"d": "2020-01-01", "t": "10:00:00"}),
        ("p.toml", f"x = '''\n{'a.' * 99}'''", {"x": "a." * 99}),
        ("conf", "a: 1", {"a": 1}),
    ],
)
def test_a_parameter_file_is_read(file: str, content: str, kept: dict[str, Any]) -> None:
    """YAML is read by the rules of YAML 1.2, as DVC reads it; JSON and TOML by the suffix of the file."""
    assert typed(load_params(content.encode(), file)) == typed(kept)


@pytest.mark.parametrize(
    ("file", "content", "line", "words"),
    [
        ("p.yaml", b"a: 1\na: 2", 2, "duplicate key"),
        ("p.yaml", b"x: &x {a: 1}\ny:\n  <<: *x\n  b: 1\n  b: 2", 5, "duplicate key"),
        ("p.yaml", b"a: 1\nb: [", 2, "not usable as YAML"),
        ("p.yaml", b"a: 1\n---\nb: 1", 2, "another document"),
        ("p.yaml", b"a: !!python/object:os.system x", 1, "python/object"),
        ("p.yaml", b"a: !!binary aGVsbG8=", None, r"params\.a is of type bytes"),
        ("p.yaml", b"a: 2020-13-45", None, "month"),
        ("p.yaml", b"a: &a [*a]", 1, "alias"),
        ("p.yaml", b"\n\na: *b", 3, "alias"),
        ("p.yaml", b"1: a\n'1': b", None, "stands twice"),
        ("p.yaml", b"a: 1\nb: \xff", 2, "not UTF-8"),
        ("p.yaml", b"\xff\xfea\0:\0", 1, "not UTF-8"),
        ("p.yaml", b"a: \0", None, "not usable as YAML"),
        ("p.yaml", b'a: "\\0"', None, r"U\+0000"),
        ("p.yaml", b"- 1", None, "must be a mapping"),
        ("p.yaml", b"a: " + b"9" * 5000, 1, "digits"),
        ("p.yaml", b"a: 1\n" * 2_000_001, None, "more than the limit"),
        ("p.json", b'{"a": 1, "a": 2}', None, 'duplicate key "a"'),
        ("p.json", b"{\n'a'", 2, "not usable as JSON"),
        ("p.json", b"", 1, "not usable as JSON"),
        ("p.json", b"3", None, "must be a mapping"),
        ("p.json", b"[" * 100_000, None, "not usable as JSON"),
        ("p.json", b'{"a":' * 101 + b"1" + b"}" * 101, None, "more than 100 levels"),
        ("p.json", b'{"a": "\\ud800"}', None, r"U\+D800"),
        ("p.toml", b"a = 1\nb = x\n", 2, "not usable as TOML"),
        ("p.toml", b"a = 1\na = 2\n", 2, "not usable as TOML"),
        ("p.toml", b"a = " + b"[" * 100_000, None, "not usable as TOML"),
        ("p.toml", b"x = 1\n" + b"a." * 200_000 + b"a = 1", 2, "100 parts"),
    ],
)
def test_a_bad_parameter_file_is_refused(file: str, content: bytes, line: int | None, words: str) -> None:
    """A file that cannot be read in full is refused with its name, and its line where that is known."""
    with pytest.raises(InvalidParams, match=words) as refused:
        load_params(content, file)
    assert (refused.value.file, refused.value.line) == (file, line)


def laughs(first: str, each: str, levels: int = 9) -> str:
    """Lines of which each names the one before ten times."""
    lines = [f"a0: &a0 {first}", *(f"a{n}: &a{n} " + each.replace("@", f"*a{n - 1}") for n in range(1, levels))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs("[x]", f"[{','.join('@' * 10)}]"),
        laughs("{x: 1}", "{" + ",".join(f"k{n}: @" for n in range(10)) + "}"),
        laughs("{x: 1}", f"{{<<: [{','.join('@' * 10)}]}}"),
        laughs("x" * 100_000, f"[{','.join('@' * 500)}]", 2),
        "a: " + "[" * 100_000,
        "a: " + "{b: " * 5_000,
        "- " * 5_000,
        "? " * 5_000,
        "\n".join(" " * level + "a:" for level in range(1_500)),
        "%YAML 1.1\n---\na: " + ":".join(["1"] * 100_000),
        "%YAML 1.1\n---\na: !!int '" + ":".join(["1"] * 100_000) + "'",
    ],
    ids=["lists", "mappings", "merges", "text", "brackets", "braces", "dashes", "questions", "indent", "base60", "tag"],
)
def test_a_yaml_bomb_is_refused_at_once(text: str) -> None:
    """A small file that stands for a huge or a deep value is refused within a second, before the value is built."""
    start = time.perf_counter()
    with pytest.raises(InvalidParams, match=r"too large|100 levels|4300 digits") as refused:
        load_params(text.encode(), "p.yaml")

    assert time.perf_counter() - start < 1
    assert refused.value.line is not None


signs = [
    *["a", "b", "1", "-1", "1e5", "0o7", "true", "null", "~", ":", ",", "-", "?", "|", ">"],
    *["'", '"', "[", "]", "{", "}", "&a", "*a", "!", "!!int", "!!float", "!!bool", "!!binary", "!!timestamp", "!!omap"],
    *["!!pairs", "!!set", "!!map", "!x", "---", "...", "#", "<<", "=", "2020-99-01", "10:00", "\\", "@", "%", "\n"],
    *["\n  ", "\n- ", " ", ": ", "- ", "%TAG ! x:\n---\n", "%YAML 1.1\n---\n", "$"],
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(signs), max_size=12))
def test_a_reader_either_reads_or_refuses(parts: list[str]) -> None:
    """Whatever stands in a file, reading it ends in a mapping or in `InvalidParams`, and never in another error."""
    for file in ("p.yaml", "p.json", "p.toml"):
        with contextlib.suppress(InvalidParams):
            assert isinstance(load_params("".join(parts).encode(), file), dict)


def test_a_reader_has_no_memory() -> None:
    """Anchors, directives and errors of one file do not reach the next; a custom emitter is not left behind either."""
    with pytest.raises(InvalidParams):
        load_params(b"%YAML 1.1\n---\na: &x 1\nb: [", "p.yaml")

    assert load_params(b"a: no", "p.yaml") == {"a": "no"}
    with pytest.raises(InvalidParams, match="alias"):
        load_params(b"b: *x", "p.yaml")
    stream = io.StringIO()
    cast(Any, ruamel.yaml.YAML()).dump({"a": "no"}, stream)
    assert stream.getvalue() == "a: no\n"
