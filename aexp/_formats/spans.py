"""Where the values of a YAML or JSON document stand in its text, so that one can be changed and the rest left alone."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from attrs import field, frozen
from ruamel.yaml import YAML
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    ScalarEvent,
)

_PROPERTIES: Final = re.compile(r"(?:[&!]\S*\s+)+|[&!]\S*\Z")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRINGS: Final = json.JSONDecoder(strict=False)
_WORD: Final = re.compile(r"[^\s,\]}]+")


@frozen(eq=False, repr=False)
class Node:
    """One value: its text is `text[begin:end]`, without the anchor and tag before it, which begin at `outset`."""

    kind: Literal["mapping", "sequence", "scalar", "alias"]
    outset: int
    begin: int
    end: int
    flow: bool = True
    entries: "tuple[tuple[Node | None, Node], ...]" = ()
    """Pairs of key and value; a sequence's have no keys."""
    anchor: str | None = None
    """The anchor it sets, or that an alias stands for."""
    style: str | None = None
    """The quotes of a scalar, or `|` and `>`."""
    content: Any = field(default=None, repr=False)
    """What a scalar says, as text for YAML."""


# ---- JSON ----


def json_spans(text: str) -> Node:
    """Return the tree of a JSON document, which must be sound."""
    return _json_node(text, _after_space(text, 0))


def _after_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    assert found is not None
    return found.end()


def _json_node(text: str, begin: int) -> Node:
    opening = text[begin]
    if opening in "{[":
        return _json_collection(text, begin)
    if opening == '"':
        content, end = _STRINGS.raw_decode(text, begin)
        return Node("scalar", begin, begin, end, style='"', content=content)
    word = _WORD.match(text, begin)
    assert word is not None
    return Node("scalar", begin, begin, word.end(), content=word[0])


def _json_collection(text: str, begin: int) -> Node:
    entries: list[tuple[Node | None, Node]] = []
    keyed = text[begin] == "{"
    place = _after_space(text, begin + 1)
    while text[place] not in "}]":
        key = None
        if keyed:
            key = _json_node(text, place)
            place = _after_space(text, _after_space(text, key.end) + 1)
        value = _json_node(text, place)
        entries.append((key, value))
        place = _after_space(text, value.end)
        if text[place] == ",":
            place = _after_space(text, place + 1)
    return Node("mapping" if keyed else "sequence", begin, begin, place + 1, entries=tuple(entries))


# ---- YAML ----


def yaml_spans(text: str) -> Node | None:
    """Return the tree of the first YAML document in *text*, which must be sound; None when it holds nothing."""
    events = iter(YAML(typ="safe", pure=True).parse(text))
    for event in events:
        if isinstance(event, DocumentStartEvent):
            node = _yaml_node(text, next(events), events)
            for _ in events:  # the parser frees what it holds
                pass
            return None if node.kind == "scalar" and node.outset == node.end and not node.style else node
    return None


def _yaml_node(text: str, event: Any, events: Iterator[Event]) -> Node:
    outset, end = event.start_mark.index, event.end_mark.index
    if isinstance(event, AliasEvent):
        return Node("alias", outset, outset, end, anchor=event.anchor)
    found = _PROPERTIES.match(text, outset, end) if isinstance(event, ScalarEvent) else None
    begin = outset if found is None or not (event.anchor or event.tag) else found.end()
    if isinstance(event, ScalarEvent):
        return Node("scalar", outset, begin, end, anchor=event.anchor, style=event.style, content=event.value)
    assert isinstance(event, CollectionStartEvent)
    if event.anchor or event.tag:
        found = _PROPERTIES.match(text, outset)
        begin = outset if found is None else found.end()
    entries: list[tuple[Node | None, Node]] = []
    keyed = isinstance(event, MappingStartEvent)
    while not isinstance(following := next(events), CollectionEndEvent):
        key = _yaml_node(text, following, events) if keyed else None
        value = _yaml_node(text, next(events) if keyed else following, events)
        if value.outset == value.end:  # nothing is written; where that stands, the parser says too late
            mark, before = (":", key.end) if key is not None else ("-", entries[-1][1].end if entries else begin)
            place = text.find(mark, before) + 1
            value = Node("scalar", place, place, place)
        entries.append((key, value))
    flow = bool(event.flow_style)
    end = following.end_mark.index if flow or not entries else entries[-1][1].end
    kind: Literal["mapping", "sequence"] = "mapping" if keyed else "sequence"
    return Node(kind, outset, begin, end, flow, tuple(entries), event.anchor)
