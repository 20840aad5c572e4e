"""Parameters that stand in a Python file as constants, as DVC reads them; the file is never run."""

import ast
from contextlib import suppress
from typing import Any

from ..errors import InvalidParams


def load_python(text: str) -> dict[str, Any]:
    """Return the literals that are assigned to names in *text*: in the module, in its classes, and to `self` in `__init__`.

    What is no literal is passed over. Raises `InvalidParams` with the line for what is no Python.
    """
    try:
        return _constants(ast.parse(text), of_self=False)
    except SyntaxError as error:
        raise InvalidParams(f"not usable as Python: {error.msg}", line=error.lineno) from error
    except (ValueError, RecursionError, MemoryError) as error:  # a NUL; thousands of brackets
        raise InvalidParams(f"not usable as Python: {error}") from error


def _constants(tree: ast.Module | ast.ClassDef | ast.FunctionDef, *, of_self: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = _constants(node, of_self=False)
        elif isinstance(node, ast.FunctionDef) and node.name == "__init__":
            found |= _constants(node, of_self=True)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            name = _name(targets[0], of_self=of_self) if len(targets) == 1 else None
            if name is not None:
                with suppress(ValueError, TypeError, RecursionError, MemoryError):
                    found[name] = ast.literal_eval(node.value)
    return found


def _name(target: ast.expr, *, of_self: bool) -> str | None:
    if isinstance(target, ast.Name):
        return None if of_self else target.id
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return target.attr
    return None
