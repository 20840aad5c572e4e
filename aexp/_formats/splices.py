"""One change to a YAML or JSON document, made in its text; all bytes that do not belong to the changed value stay."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen

from ..errors import InvalidParams
from .changes import Change
from .params import EXPANDED
from .spans import Node, json_spans, yaml_spans
from .yaml import dump_flow, load_yaml


def splice_json(text: str, change: Change) -> str:
    """Return the JSON document *text* after *change*, indented and spaced as its neighbours are."""
    ascii_only = text.isascii()
    return _Document(text, json_spans(text), lambda value: json.dumps(value, ensure_ascii=ascii_only)).spliced(change)


def splice_yaml(text: str, change: Change) -> str:
    """Return the YAML document *text* after *change*; comments, quotes, anchors, order and line ends stay."""
    return _Document(text, yaml_spans(text), dump_flow).spliced(change)


@frozen(eq=False, repr=False)
class _Document:
    text: str
    root: Node | None
    written: Callable[[Any], str]
    """How a value is written on one line."""

    def spliced(self, change: Change) -> str:
        if self.root is None:
            return self._begun(change)
        *above, last = change.path
        node = self.root
        for key in above:
            node = self._target(self._entry(node, key)[1])
        if change.kind == "insert" or (change.kind == "set" and self._comes_by_merge(node, last)):
            return self._inserted(node, last, change.value)
        key, value = self._entry(node, last)
        if change.kind == "delete":
            return self._deleted(node, key, value)
        return self._replaced(key, value, self._as_before(value, change.value))

    # ---- finding ----

    def _entry(self, node: Node, key: Any) -> tuple[Node | None, Node]:
        if node.kind == "sequence" and isinstance(key, int):
            return node.entries[key]
        for place, value in node.entries:
            if place is not None and (place.content == key or self._means(place, key)):
                return place, value
        raise _too_hard(f"{key!r} is not written where it could be changed")

    def _comes_by_merge(self, node: Node, key: Any) -> bool:
        """Say whether a mapping has *key* from another one, by the merge key `<<`; one of its own wins over that."""
        written = [place.content for place, _ in node.entries if place is not None and not place.style]
        return node.kind == "mapping" and "<<" in written and key not in written

    def _means(self, place: Node, key: Any) -> bool:
        return not isinstance(key, str) and load_yaml(self.text[place.outset : place.end], EXPANDED) == key

    def _nodes(self, node: Node | None) -> Iterator[Node]:
        """Yield every value, in the order of the text."""
        if node is None:
            return
        yield node
        for key, value in node.entries:
            yield from self._nodes(key)
            yield from self._nodes(value)

    def _target(self, node: Node) -> Node:
        """Return what an alias stands for; any other node is itself."""
        if node.kind != "alias":
            return node
        named = [each for each in self._nodes(self.root) if each.kind != "alias" and each.anchor == node.anchor]
        return [each for each in named if each.outset < node.outset][-1]

    def _first_alias(self, node: Node) -> Node | None:
        """Return the first alias that stands for *node*."""
        if node.kind == "alias" or node.anchor is None:
            return None
        aliases = (each for each in self._nodes(self.root) if each.kind == "alias" and each.anchor == node.anchor)
        return next((each for each in aliases if self._target(each) is node), None)

    # ---- changing ----

    def _as_before(self, node: Node, value: Any) -> str:
        """Write *value* with the quotes that the value before had."""
        plain = self.written(value)
        if not isinstance(value, str) or node.style not in ("'", '"'):
            return plain
        if node.style == "'" and value.isprintable():
            return "'" + value.replace("'", "''") + "'"
        return plain if plain.startswith('"') else f'"{plain}"'

    def _replaced(self, key: Node | None, node: Node, new: str) -> str:
        text, alias = self._without_anchors(node), self._first_alias(node)
        kept = f"&{node.anchor} " if node.anchor and node.kind == "scalar" and alias is None else ""
        begin, end = node.outset, self._content_end(node)
        if node.outset == node.end:
            return text[:begin] + f" {new}" + text[end:]
        if not node.flow:
            end += len(self.text[end:].partition("\n")[0])  # a comment there is about the last part of what goes
            begin = begin if key is None else self.text.index(":", key.end) + 1
            new = new if key is None else f" {new}"
        return text[:begin] + kept + new + text[end:]

    def _without_anchors(self, node: Node) -> str:
        """Return the text in which what *node* names by anchors stands where it is first referred to, behind *node*."""
        text, moved = self.text, [(self._first_alias(each), each) for each in self._nodes(node)]
        outside = [(alias, each) for alias, each in moved if alias is not None and alias.begin >= node.end]
        for alias, each in sorted(outside, key=lambda pair: pair[0].begin, reverse=True):
            text = text[: alias.begin] + f"&{each.anchor} {self.written(self._value(each))}" + text[alias.end :]
        return text

    def _value(self, node: Node) -> Any:
        node = self._target(node)
        if node.kind == "scalar":
            return load_yaml(self.text[node.begin : node.end], EXPANDED)
        if node.kind == "sequence":
            return [self._value(each) for _, each in node.entries]
        if any(key is not None and key.content == "<<" for key, _ in node.entries):
            raise _too_hard(f"other places refer to it by its anchor &{node.anchor}")
        return {self._value(key): self._value(each) for key, each in node.entries if key is not None}

    def _content_end(self, node: Node) -> int:
        """Return where *node* ends, without the line ends that a block scalar takes with it."""
        last = node
        while last.entries and not last.flow:
            last = last.entries[-1][1]
        if last.style in ("|", ">"):
            return last.outset + len(self.text[last.outset : last.end].rstrip())
        return last.end

    def _inserted(self, node: Node, key: Any, value: Any) -> str:
        if node.kind != "mapping":
            raise _too_hard("a key cannot be added there")
        if not node.flow and node.entries:
            return self._new_lines(node, key, value)
        text, name = self.text, self.written(key)
        if not node.entries:
            return text[: node.begin] + f"{{{name}: {self.written(value)}}}" + text[node.end :]
        last_key, last = node.entries[-1]
        before = node.entries[-2][1].end if len(node.entries) > 1 else node.begin
        assert last_key is not None
        gap = text[before : last_key.begin]
        colon = re.sub(r"[^: ]", "", text[last_key.end : last.outset])
        spaced = " " if " " in colon else ""
        gap = self._line_end() + gap.rpartition("\n")[2] if "\n" in gap else spaced
        return text[: last.end] + f",{gap}{name}{colon}{self.written(value)}" + text[last.end :]

    def _line_end(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    def _new_lines(self, node: Node, key: Any, value: Any) -> str:
        """Put a key below the others of a block."""
        first, _ = node.entries[0]
        assert first is not None
        indent = " " * (first.outset - self._line_begin(first.outset))
        last = node.entries[-1][1]
        end = self._content_end(node)
        while last.entries and not last.flow:
            last = last.entries[-1][1]
        lines = self._line_end().join(_block(indent, self.written(key), value, self.written))
        if last.style in ("|", ">"):
            end = last.end
            broken = self.text[:end].endswith("\n")
            return self.text[:end] + ("" if broken else self._line_end()) + lines + self._line_end() + self.text[end:]
        found = self.text.find("\n", end)
        if found < 0:
            return self.text + self._line_end() + lines
        return self.text[: found + 1] + lines + self._line_end() + self.text[found + 1 :]

    def _line_begin(self, place: int) -> int:
        return self.text.rfind("\n", 0, place) + 1

    def _deleted(self, node: Node, key: Node | None, value: Node) -> str:
        if key is None or node.kind != "mapping":
            raise _too_hard("only a key of a mapping can be taken away")
        text = self._without_anchors(value)
        place = [each for each, _ in node.entries].index(key)
        if len(node.entries) == 1:
            begin, end = node.begin, self._content_end(node)
            above = text[:begin].rstrip()
            if not node.flow and above.endswith(":"):
                return f"{above} {{}}" + text[end:]
            return text[:begin] + "{}" + text[end:]
        following = node.entries[place + 1][0] if place + 1 < len(node.entries) else None
        if node.flow:
            if following is not None:
                return text[: key.outset] + text[following.outset :]
            return text[: node.entries[place - 1][1].end] + text[value.end :]
        begin, end = self._line_begin(key.outset), self._content_end(value)
        if text[begin : key.outset].strip() and following is not None:  # it stands behind a dash
            return text[: key.outset] + text[following.outset :]
        if value.style in ("|", ">"):
            return text[:begin] + text[value.end :]
        stop = text.find("\n", max(end, key.end))
        return text[:begin] + ("" if stop < 0 else text[stop + 1 :])

    def _begun(self, change: Change) -> str:
        """Write the first key of a document that holds nothing."""
        if change.kind != "insert" or len(change.path) != 1:
            raise _too_hard("the file holds nothing")
        broken = not self.text or self.text.endswith("\n")
        lines = _block("", self.written(change.path[0]), change.value, self.written)
        return self.text + ("" if broken else self._line_end()) + self._line_end().join(lines) + self._line_end()


def _block(indent: str, name: str, value: Any, written: Callable[[Any], str]) -> list[str]:
    """Return the lines of a key and its value: of a mapping one a key, of anything else one."""
    if not isinstance(value, dict) or not value:
        return [f"{indent}{name}: {written(value)}"]
    below = [_block(f"{indent}  ", written(key), each, written) for key, each in value.items()]
    return [f"{indent}{name}:", *(line for lines in below for line in lines)]


def _too_hard(reason: str) -> InvalidParams:
    return InvalidParams(f"it cannot be changed without rewriting the file: {reason}; edit the file by hand")
