"""The language of queries: a safe part of Python's syntax, compiled to closures over a record."""

import ast
import keyword
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

from attrs import frozen

from ._fields import ERROR, FIELDS, MISSING, MOMENTS, Get, Part, metric, param
from .errors import InvalidQuery

LENGTH: Final = 10_000
"""How many characters an expression may have."""
DEPTH: Final = 100
"""How deep an expression may be nested."""
BITS: Final = 4096
"""How large an integer may be that takes part in arithmetic."""

# ---- operators: each returns MISSING where there is no value ----


def _arithmetic(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def compute(left: Any, right: Any) -> Any:
        if not (_is_small(left) and _is_small(right)):
            return MISSING
        try:
            return function(left, right)
        except (ArithmeticError, ValueError):
            return MISSING

    return compute


def _is_small(value: object) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= BITS)


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > BITS:
        return MISSING
    result = base**exponent
    return MISSING if isinstance(result, complex) else result


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, str | list | frozenset | Mapping) else MISSING


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else MISSING


def _moment(value: Any) -> Any:
    """Return a text as the moment it says in ISO 8601, in UTC unless it says another zone; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return MISSING
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _numeric(function: Callable[[Any], Any]) -> Get:
    return lambda value: function(value) if _is_small(value) else MISSING


_COMPARISONS: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left is not MISSING and left in right,
    ast.NotIn: lambda left, right: left is not MISSING and left not in right,
    ast.Is: lambda left, right: left is right and left is not MISSING,
    ast.IsNot: lambda left, right: left is not right and left is not MISSING and right is not MISSING,
}
_BINARY: Final[Mapping[type[ast.operator], Callable[[Any, Any], Any]]] = {
    ast.Add: _arithmetic(operator.add),
    ast.Sub: _arithmetic(operator.sub),
    ast.Mult: _arithmetic(operator.mul),
    ast.Div: _arithmetic(operator.truediv),
    ast.FloorDiv: _arithmetic(operator.floordiv),
    ast.Mod: _arithmetic(operator.mod),
    ast.Pow: _arithmetic(_power),
}
_UNARY: Final[Mapping[type[ast.unaryop], Get]] = {
    ast.Not: operator.not_,
    ast.USub: _numeric(operator.neg),
    ast.UAdd: _numeric(operator.pos),
}
_CALLS: Final[Mapping[str, Get]] = {"abs": _numeric(abs), "len": _length, "lower": _lower}
_HINTS: Final[Mapping[type[ast.AST], str]] = {
    ast.BitAnd: "& is not of the language; write `and`",
    ast.BitOr: "| is not of the language; write `or`",
    ast.Invert: "~ is not of the language; write `not`",
    ast.Call: "there are no methods; there are the functions abs(), len() and lower()",
}
_OUTSIDE: Final = (
    "this is not of the language, which has fields, constants and lists of them, `and`, `or`, `not`, comparisons, "
    "`in`, `is None`, arithmetic, abs(), len() and lower()"
)


# ---- from text to closures ----


@frozen(eq=False, repr=False)
class Term:
    """A part of an expression, compiled; a constant one looks at no record, a moment is a field that holds a time."""

    get: Get
    constant: bool = False
    moment: bool = False


class Reader:
    """Compiles one text: *source* is what is parsed, *text*, of the same length, what an error shows."""

    def __init__(self, text: str, source: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a query is text, not {type(text).__name__}")
        self._text = text
        source = source.replace("\r", " ")
        self._source = source.lstrip()
        self._shift = len(source) - len(self._source)
        self._wrapped = "\n" in self._source.rstrip()
        if self._wrapped:  # several lines are one expression
            self._source = f"({self._source}\n)"
            self._shift -= 1

    def refuse(self, node: ast.AST, reason: str) -> NoReturn:
        """Raise `InvalidQuery` at the place of *node*."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        before = self._source.split("\n")[line - 1].encode()[:column].decode(errors="ignore")
        self._refuse(line, len(before), reason)

    def _refuse(self, line: int, column: int, reason: str) -> NoReturn:
        above = sum(len(each) + 1 for each in self._source.split("\n")[: line - 1])
        place = min(max(above + column + self._shift, 0), len(self._text))
        raise InvalidQuery(self._text, place + 1, reason) from None

    def expression(self) -> ast.expr:
        """Return the tree of the source, which may still hold anything."""
        if len(self._text) > LENGTH:
            raise InvalidQuery(self._text, LENGTH + 1, f"a query has at most {LENGTH:,} characters")
        if not self._source:
            raise InvalidQuery(self._text, 1, "the query is empty; leave it out instead")
        try:
            body = ast.parse(self._source, mode="eval").body
        except SyntaxError as error:
            if error.msg == "invalid syntax" and not error.offset:
                self._refuse(1, len(self._source.rstrip()), "something is missing at the end")
            line, column = error.lineno or 1, (error.offset or 1) - 1
            self._refuse(line, column, self._said(line, column, error.msg))
        except (MemoryError, RecursionError):
            self._refuse(1, 0, f"it is nested more than {DEPTH} levels deep")
        except ValueError as error:
            self._refuse(1, 0, f"it cannot be read: {error}")
        if self._wrapped and (body.lineno, body.col_offset) == (1, 0):  # our parentheses do not hold all of it
            self._refuse(1, 1, "the parentheses do not match, or this is a list by itself")
        return body

    def _said(self, line: int, column: int, message: str) -> str:
        """Return what the parser said, in our words where it met a name that Python keeps for itself."""
        found = (self._source.split("\n")[line - 1 :] or [""])[0]
        word = re.match(r"\w*", found[max(column, 0) :])
        if word and keyword.iskeyword(word[0]) and found[:column].rstrip().endswith("."):
            return f'Python keeps the word {word[0]} for itself; write ["{word[0]}"] instead of .{word[0]}'
        return message

    def term(self, node: ast.expr, depth: int) -> Term:
        """Compile *node* and all below it; *depth* is how deep it stands."""
        if depth >= DEPTH:
            self.refuse(node, f"it is nested more than {DEPTH} levels deep")
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return Term(lambda _: value, constant=True)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return self._field(node)
            case ast.BoolOp(op=op, values=values):
                terms = [self.term(each, depth + 1) for each in values]
                gets = [term.get for term in terms]
                return self._together(node, _all(gets) if isinstance(op, ast.And) else _any(gets), terms)
            case ast.Compare():
                return self._compare(node, depth + 1)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
                return self._applied(node, _UNARY[type(op)], operand, depth + 1)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
                return self._computed(node, _BINARY[type(op)], left, right, depth + 1)
            case ast.Call(func=ast.Name(id=name)):
                return self._call(node, name, depth + 1)
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                values = [self._item(each, depth + 1) for each in items]
                held = frozenset(values) if isinstance(node, ast.Set) else values
                return Term(lambda _: held, constant=True)
        culprit: ast.AST = getattr(node, "op", node)
        return self.refuse(node, _HINTS.get(type(culprit), _OUTSIDE))

    def _together(self, node: ast.expr, get: Get, terms: Iterable[Term]) -> Term:
        """Return the term of *get*, computed once and for all if the *terms* that it is made of are constant."""
        if not all(term.constant for term in terms):
            return Term(get)
        value = get(None)
        if value is MISSING:
            self.refuse(node, "this has no value: it is too large, divides by zero, or is of the wrong type")
        return Term(lambda _: value, constant=True)

    def _applied(self, node: ast.expr, function: Get, operand: ast.expr, depth: int) -> Term:
        term = self.term(operand, depth)
        get = term.get
        return self._together(node, lambda record: function(get(record)), [term])

    def _computed(
        self, node: ast.expr, function: Callable[[Any, Any], Any], left: ast.expr, right: ast.expr, depth: int
    ) -> Term:
        terms = [self.term(left, depth), self.term(right, depth)]
        first, second = terms[0].get, terms[1].get
        return self._together(node, lambda record: function(first(record), second(record)), terms)

    def _call(self, node: ast.Call, name: str, depth: int) -> Term:
        if name not in _CALLS:
            self.refuse(node, f"there is no function {name}; there are abs, len and lower")
        if len(node.args) != 1 or node.keywords:
            self.refuse(node, f"{name}() takes one value")
        return self._applied(node, _CALLS[name], node.args[0], depth)

    def _item(self, node: ast.expr, depth: int) -> Any:
        term = self.term(node, depth)
        value = term.get(None) if term.constant else MISSING
        if value is MISSING or isinstance(value, list | frozenset):
            self.refuse(node, "a list holds constants only")
        return value

    # ---- comparisons ----

    def _compare(self, node: ast.Compare, depth: int) -> Term:
        operands = [node.left, *node.comparators]
        terms = [self.term(each, depth) for each in operands]
        tests = []
        for place, op in enumerate(node.ops):
            left, right = terms[place : place + 2]
            if isinstance(op, ast.Is | ast.IsNot) and not any(map(_is_singleton, operands[place : place + 2])):
                self.refuse(operands[place + 1], "`is` compares with None, True or False; write == instead")
            if left.moment or right.moment:
                left, right = self._dated(operands[place], left), self._dated(operands[place + 1], right)
            tests.append(_tested(_COMPARISONS[type(op)], left, right))
        return self._together(node, tests[0] if len(tests) == 1 else _all(tests), terms)

    def _dated(self, node: ast.expr, term: Term) -> Term:
        """Return the term with its texts read as moments."""
        get = term.get
        if term.moment:
            return term
        if not term.constant:
            return Term(lambda record: _moment(get(record)))
        value = get(None)
        moments = [_moment(each) for each in value] if isinstance(value, list | frozenset) else _moment(value)
        if moments is MISSING or (isinstance(moments, list) and any(each is MISSING for each in moments)):
            self.refuse(node, 'this is no time in ISO 8601, like "2026-01-31" or "2026-01-31T12:30:00+02:00"')
        return Term(lambda _: moments, constant=True)

    # ---- fields ----

    def _field(self, node: ast.expr) -> Term:
        links: list[ast.Attribute | ast.Subscript] = []
        root = node
        while isinstance(root, ast.Attribute | ast.Subscript):
            links.append(root)
            root = root.value
        if len(links) > DEPTH:
            self.refuse(node, f"it is nested more than {DEPTH} levels deep")
        if not isinstance(root, ast.Name):
            self.refuse(root, "only fields have parts: params.lr, metrics.acc")
        parts = [self._part(link) for link in reversed(links)]
        name = root.id
        if name not in FIELDS:
            shown = "" if name.startswith("__") else f"; is it params.{name}, metrics.{name}, or text in quotes?"
            self.refuse(root, f"there is no field {name}{shown}; there are {', '.join(FIELDS)}")
        if not parts:
            return Term(FIELDS[name], moment=name in MOMENTS)
        if name == "params":
            return Term(param(parts))
        keys = [key for key, _ in parts if isinstance(key, str)]
        if name == "metrics" and len(keys) == len(parts):
            return Term(metric(keys))
        if name == "error" and len(parts) == 1 and parts[0][0] in ERROR:
            return Term(ERROR[keys[0]])
        return self.refuse(links[-1], "only params and metrics have parts, and error has .type and .message")

    def _part(self, link: ast.Attribute | ast.Subscript) -> tuple[Part, bool]:
        """Return the key, or the place in a list, that a link of a chain names, and whether dots in it may separate."""
        if isinstance(link, ast.Attribute):
            if link.attr.startswith("__"):
                self.refuse(link, f'there is no field {link.attr}; write ["{link.attr}"] for a key of this name')
            return link.attr, False
        match link.slice:
            case ast.Constant(value=str() as key):
                return key, "." in key
            case ast.Constant(value=int() as place) if not isinstance(place, bool):
                return place, False
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as place)):
                return -place, False
        return self.refuse(link.slice, "a key in brackets is a text or a whole number")


def _is_singleton(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))


def _all(gets: Sequence[Get]) -> Get:
    """Return `and`: it gives the first value that is false, or the last."""

    def get(record: Any) -> Any:
        value: Any = True
        for each in gets:
            value = each(record)
            if not value:
                break
        return value

    return get


def _any(gets: Sequence[Get]) -> Get:
    """Return `or`: it gives the first value that is true, or the last."""

    def get(record: Any) -> Any:
        value: Any = False
        for each in gets:
            value = each(record)
            if value:
                break
        return value

    return get


def _tested(function: Callable[[Any, Any], Any], left: Term, right: Term) -> Get:
    first, second = left.get, right.get
    if right.constant:
        value = second(None)

        def against(record: Any) -> Any:
            try:
                return function(first(record), value)
            except TypeError:
                return False

        return against

    def between(record: Any) -> Any:
        try:
            return function(first(record), second(record))
        except TypeError:
            return False

    return between
