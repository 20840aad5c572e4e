"""Parameters in a Python file, as DVC finds them: names that are given literals; nothing in it is ever run.

At the top level, in a class (`Train.epochs`), and `self.x = ...` in its `__init__` (dvc.utils.serialize._py).
"""

import ast
import math
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidParams
from .changes import Change


def load_python(text: str) -> dict[str, Any]:
    """Return the parameters in *text*; raise `InvalidParams` when it is no Python."""
    return _values(_parsed(text))


def splice_python(text: str, change: Change) -> str:
    """Return *text* after *change*, which sets a literal that stands there; raise `InvalidParams` for any other."""
    if change.kind != "set":
        raise InvalidParams("in a Python file, values that are there can be changed, not added or taken away")
    node: ast.AST = _parsed(text)
    for key in change.path:
        node = _named(node, key)
    assert isinstance(node, ast.expr)
    lines = text.splitlines(keepends=True)
    begin, end = _place(lines, node.lineno, node.col_offset), _place(lines, node.end_lineno, node.end_col_offset)
    return text[:begin] + _literal(change.value) + text[end:]


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise InvalidParams(f"not usable as Python: {error}", line=line) from error


def _assigned(body: ast.AST, *, of_self: bool = False) -> Iterator[tuple[str, ast.AST]]:
    """Yield what *body* names: the expressions that are assigned, and classes."""
    for statement in getattr(body, "body", ()):
        match statement:
            case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
                match target:
                    case ast.Name(id=name) if not of_self:
                        yield name, value
                    case ast.Attribute(value=ast.Name(id="self"), attr=name):
                        yield name, value
            case ast.ClassDef(name=name):
                yield name, statement
            case ast.FunctionDef(name="__init__"):
                yield from _assigned(statement, of_self=True)


def _values(body: ast.AST) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, node in _assigned(body):
        if isinstance(node, ast.ClassDef):
            found[name] = _values(node)
            continue
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        found[name] = sorted(value, key=repr) if isinstance(value, set) else _listed(value)
    return found


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


def _named(node: ast.AST, key: Any) -> ast.AST:
    """Return what *key* names in a module, a class, or a literal."""
    if isinstance(node, ast.Dict):
        pairs = [value for each, value in zip(node.keys, node.values, strict=True) if each and _is(each, key)]
    elif isinstance(node, ast.List | ast.Tuple):
        pairs = [node.elts[key]]
    else:
        pairs = [value for name, value in _assigned(node) if name == key]  # type: ignore[misc]
    if not pairs:
        raise InvalidParams(f"{key!r} is not written as a literal")
    return pairs[-1]


def _is(node: ast.expr, key: Any) -> bool:
    return isinstance(node, ast.Constant) and node.value == key


def _place(lines: list[str], line: int | None, column: int | None) -> int:
    """Return the place of a column, which `ast` counts in bytes of UTF-8, in the whole text."""
    assert line is not None
    assert column is not None
    return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())


def _literal(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidParams(f"Python has no literal for {value}")
    return repr(value)
