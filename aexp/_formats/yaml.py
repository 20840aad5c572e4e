"""YAML that every reader takes for the same values, and a reader that no document can overwhelm."""

import io
import math
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.parser import Parser
from ruamel.yaml.scanner import Scanner
from ruamel.yaml.tag import Tag

from ..errors import InvalidParams
from .plain import DECIMAL_BITS, DEPTH

# Text that YAML 1.1 and 1.2 both read as text without quotes: a whitelist, because the two differ on much else.
_UNQUOTED = r"[A-Za-z](?:[A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?"
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf", "infinity"})
_STR = Tag(suffix="tag:yaml.org,2002:str")


def dump_yaml(value: object) -> bytes:
    """Plain values as a YAML document in block style, which readers of YAML 1.1 and of 1.2 read alike.

    Floats that are not finite are written as the strings `nan`, `inf` and `-inf`, as DVC does in its metrics: its
    tables would not be valid JSON otherwise. Raises `TypeError` for a value that is not plain.
    """
    stream = io.StringIO()
    # DVC and people read lines; no width is so large that a long string could be folded.
    emitter = _Emitter(stream, width=1 << 62, allow_unicode=True)
    for event in _document(value):
        emitter.emit(event)
    return stream.getvalue().encode()


def dump_flow(value: object) -> str:
    """Return a plain value as YAML on one line, as `{a: 1, b: [x, y]}`; floats that are not finite as `.nan`, `.inf`."""
    stream = io.StringIO()
    emitter = _Emitter(stream, width=1 << 62, allow_unicode=True)
    for event in _document([value], flow=True):  # in a list, because a word alone would be followed by `...`
        emitter.emit(event)
    return stream.getvalue().removesuffix("\n")[1:-1]


class _Emitter(Emitter):
    """ruamel's emitter without the `YAML` object around it, which costs half as much again and lists a folder."""

    use_version = None  # what the emitter would otherwise ask its serializer for


def _document(value: object, *, flow: bool = False) -> Iterator[Event]:
    yield StreamStartEvent()
    yield DocumentStartEvent(explicit=False)
    yield from _node(value, flow)
    yield DocumentEndEvent(explicit=False)
    yield StreamEndEvent()


def _node(value: object, flow: bool) -> Iterator[Event]:
    """The events of one value; an alias is never among them."""
    if isinstance(value, dict):
        yield MappingStartEvent(None, None, True, flow_style=flow or not value)
        for key, item in value.items():
            yield from _node(key, True)
            yield from _node(item, flow)
        yield MappingEndEvent()
    elif isinstance(value, list):
        yield SequenceStartEvent(None, None, True, flow_style=flow or not value)
        for item in value:
            yield from _node(item, flow)
        yield SequenceEndEvent()
    elif isinstance(value, str):
        yield _scalar(value, quoted=_needs_quotes(value))
    elif isinstance(value, float) and not math.isfinite(value):
        yield _scalar(f".{value!r}".replace(".-", "-.") if flow else repr(value), quoted=not flow)
    else:
        yield _scalar(_number_or_word(value), quoted=False)


def _scalar(text: str, *, quoted: bool) -> Event:
    # The emitter asks an empty scalar for its tag; on any other, a tag would only make keys look longer.
    return ScalarEvent(None, None if text else _STR, (True, True, True), text, style='"' if quoted else None)


def _needs_quotes(text: str) -> bool:
    """Whether a reader of either YAML might take the text for something else, or for other text."""
    return re.fullmatch(_UNQUOTED, text) is None or text.lower() in _NOT_TEXT


def _number_or_word(value: object) -> str:
    """A finite number, a bool or None in the spelling that both YAML 1.1 and 1.2 know."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= DECIMAL_BITS else hex(value)
    if isinstance(value, float):
        text = repr(value)  # 1e-05 is a string in YAML 1.1, which wants a dot
        return text if "." in text else text.replace("e", ".0e")
    raise TypeError(f"{type(value).__name__} is not plain; pass parameters through plain() first")


# What ruamel lets through besides its own errors: a date of the 40th of May, a tag on the wrong kind of node.
_FAULTS = (YAMLError, ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def load_yaml(text: str, expanded: int) -> object:
    """The values of a document by the rules of YAML 1.2, as DVC reads it; None when there are none.

    Dates become `datetime` objects, and an alias the object that it stands for. Raises `InvalidParams` with the
    line, where there is one, for what is no YAML or has two documents, a key twice, an unknown tag, more than
    `DEPTH` levels, or more than *expanded* once its aliases are written out: the sum of its characters, and ten for each node.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Scanner = _GuardedScanner
    yaml.Parser = partial(_GuardedParser, expanded=expanded)
    yaml.Constructor = _StrictConstructor
    yaml.composer.warn_double_anchors = False
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise _invalid(problem, None if mark is None else mark.line + 1) from error
    except _FAULTS as error:
        raise _invalid(str(error) or type(error).__name__, None) from error


def _invalid(problem: str, line: int | None) -> InvalidParams:
    return InvalidParams(f"not usable as YAML: {' '.join(problem.split())[:200]}", line=line)


class _GuardedScanner(Scanner):
    """The scanner, which looks 1,024 characters ahead of the parser and takes a second for so many brackets."""

    def fetch_flow_collection_start(self, *token: Any, **push: Any) -> None:
        """Reads a bracket or a brace that opens, unless too many are open."""
        if self.flow_level >= DEPTH:
            raise MarkedYAMLError(problem=f"nested more than {DEPTH} levels deep", problem_mark=self.reader.get_mark())
        super().fetch_flow_collection_start(*token, **push)


class _GuardedParser(Parser):
    """The parser, counting what it hands out: a bomb is refused at the event that is too much, before it is built."""

    # Python refuses to read so many digits, except in base 60 (YAML 1.1), where it would take minutes.
    _LONG_NUMBER = r"[-+]?[0-9][0-9_:.]{4300}"

    def __init__(self, loader: Any, expanded: int) -> None:
        super().__init__(loader)
        self._most = expanded
        self._expanded = 0
        self._open: list[tuple[str | None, int]] = []
        self._sizes: dict[str, int] = {}

    def get_event(self) -> Any:
        """The next event, unless it is one too many."""
        event = super().get_event()
        if isinstance(event, ScalarEvent):
            if (event.implicit[0] or event.tag) and re.match(self._LONG_NUMBER, event.value):
                self._refuse("a number has more than 4300 digits", event)
            self._count(10 + len(event.value), event)
            if event.anchor is not None:
                self._sizes[event.anchor] = 10 + len(event.value)
        elif isinstance(event, AliasEvent):
            if event.anchor not in self._sizes:
                self._refuse(f"the alias *{event.anchor} stands before or inside what it names", event)
            self._count(self._sizes[event.anchor], event)
        elif isinstance(event, CollectionStartEvent):
            self._open.append((event.anchor, self._expanded))
            self._sizes.pop(event.anchor, None)
            if len(self._open) > DEPTH:
                self._refuse(f"nested more than {DEPTH} levels deep", event)
            self._count(10, event)
        elif isinstance(event, CollectionEndEvent):
            anchor, before = self._open.pop()
            if anchor is not None:
                self._sizes[anchor] = self._expanded - before
        return event

    def _count(self, size: int, event: NodeEvent) -> None:
        self._expanded += size
        if self._expanded > self._most:
            aliased = " once its aliases are written out" if self._sizes else ": it holds more than is read in a second"
            self._refuse(f"too large{aliased}", event)

    def _refuse(self, problem: str, event: NodeEvent) -> None:
        raise MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


class _StrictConstructor(SafeConstructor):
    """The safe constructor, which overlooks a key that stands twice in a mapping with a merge key `<<`."""

    def flatten_mapping(self, node: MappingNode) -> None:
        """Puts what `<<` names into the mapping, unless a key of its own stands twice."""
        seen = set()
        for key, _ in [] if getattr(node, "merge", None) else node.value:  # once flattened, it may repeat keys
            if not isinstance(key, ScalarNode):
                continue
            if (str(key.tag), key.value) in seen:
                raise DuplicateKeyError(problem=f'found duplicate key "{key.value}"', problem_mark=key.start_mark)
            seen.add((str(key.tag), key.value))
        super().flatten_mapping(node)
