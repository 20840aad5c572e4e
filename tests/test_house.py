"""The house keeps its own measure: budgets and habits that no linter checks. The floors are in pyproject.toml."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import aexp
from aexp import errors

ROOT = Path(__file__).parent.parent
ROOMS = [*sorted((ROOT / "aexp").rglob("*.py")), ROOT / "aexp_command.py"]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))

LINES = 400
FUNCTION_LINES = 60  # aim at 40; the docstring is not counted
EXTRAS = {
    "PIL",
    "hydra",
    "numpy",
    "omegaconf",
    "cyclopts",
    "nanoarrow",
    "pandas",
    "polars",
    "pyarrow",
    "s3fs",
}  # imported when used: nobody needs them to log a metric
RARE = {
    "ctypes",
    "csv",
    "html",
    "ruamel",
    "sqlite3",
    "tomlkit",
    "tomllib",
}  # few programs need them, and every import of aexp would pay
LATE = {  # rooms of ours that few programs enter, and every import of aexp would pay: decision 0027
    *(
        "_baselines",
        "_artifacts",
        "_board",
        "_checkouts",
        "_checkup",
        "_children",
        "_datacache",
        "_differences",
        "_findings",
        "_freight",
        "_harvest",
        "_joining",
        "_keeping",
        "_leftovers",
        "_lines",
        "_living",
    ),
    *("_outs", "_parameters", "_preview", "_programs", "_recovery", "_transfers", "_trash", "_undo", "_apply"),
    *("_tending", "_worktree", "images", "overrides", "yaml"),
}
STATEFUL = {
    "ContextVar",
    "Counter",
    "OrderedDict",
    "WeakKeyDictionary",
    "WeakSet",
    "WeakValueDictionary",
    "count",
    "defaultdict",
    "deque",
    "local",
}
UNBOUNDED = re.compile(r"\bcache\Z|\blru_cache\((maxsize=)?None")  # a cache that grows for ever

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(room: Path) -> str:
    """The path of a room, as a test is called."""
    return str(room.relative_to(ROOT))


every_room = pytest.mark.parametrize("room", ROOMS, ids=name_of)


def functions(tree: ast.AST) -> Iterator[Function]:
    """Every function and method in the tree."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def called(node: ast.expr | None) -> str:
    """The last name of what is called: `deque` of `collections.deque(...)`."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name
        case ast.Subscript(value=value):
            return called(value)
    return ""


def lines_of(function: Function) -> int:
    """How many lines a function has, without its docstring."""
    first, *_ = function.body
    documented = isinstance(first, ast.Expr) and ast.get_docstring(function) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def imported(node: ast.Import | ast.ImportFrom) -> set[str]:
    """The packages that a statement imports; the last name of our own rooms."""
    if isinstance(node, ast.ImportFrom) and node.level:
        return {node.module.rpartition(".")[2]} if node.module else {alias.name for alias in node.names}
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
    return {name.partition(".")[0] for name in names}


def is_empty(node: ast.expr | None) -> bool:
    """Say whether the expression makes an empty list, dict or set: something waiting to be filled."""
    match node:
        case ast.List(elts=[]) | ast.Dict(keys=[]):
            return True
        case ast.Call(func=ast.Name(id="list" | "dict" | "set" | "bytearray"), args=[], keywords=[]):
            return True
    return False


@every_room
def test_a_file_is_short(room: Path) -> None:
    """A file has at most 400 lines."""
    count = room.read_text().count("\n")

    assert count <= LINES, f"{name_of(room)} has {count} lines: split it by noun, on the same floor"


@every_room
def test_a_function_is_short(room: Path) -> None:
    """A function has at most 60 lines."""
    long = {f.name: lines_of(f) for f in functions(ast.parse(room.read_text())) if lines_of(f) > FUNCTION_LINES}

    assert not long, f"{name_of(room)}: {long} lines: give a part of it a name of its own"


@every_room
def test_a_room_says_what_it_is_for(room: Path) -> None:
    """A file begins with a docstring."""
    assert ast.get_docstring(ast.parse(room.read_text())), f"{name_of(room)}: say in the first line what it is for"


@every_room
def test_imports_stand_at_the_top(room: Path) -> None:
    """A function imports only what is optional or rare: any other hidden import is a circle that somebody met."""
    hidden = {
        f"line {node.lineno}: {ast.unparse(node)}"
        for function in functions(ast.parse(room.read_text()))
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom) and not imported(node) <= EXTRAS | RARE | LATE
    }

    assert not hidden, (
        f"{name_of(room)}: {sorted(hidden)}: move it to the top; for a new extra, extend EXTRAS; for a room, LATE"
    )


@every_room
def test_a_module_has_no_state(room: Path) -> None:
    """Nothing at module level waits to be filled, counts or remembers: state lives in an object that is passed on."""
    tree = ast.parse(room.read_text())
    values = {
        node.lineno: node.value for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign) and node.value
    }
    kept = [f"line {line}" for line, value in values.items() if is_empty(value) or called(value) in STATEFUL]
    rebound = [f"line {node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Global)]
    caches = [
        f"line {decorator.lineno}"
        for function in functions(tree)
        for decorator in function.decorator_list
        if UNBOUNDED.search(ast.unparse(decorator))
    ]

    assert not kept + rebound + caches, f"{name_of(room)}: {kept + rebound + caches}: keep it in an object, pass it on"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_a_test_is_a_sentence(path: Path) -> None:
    """Every test says in its docstring what is true."""
    silent = [
        function.name
        for function in functions(ast.parse(path.read_text()))
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]

    assert not silent, f"{name_of(path)}: write as the docstring what is true when they pass: {silent}"


def test_the_front_door_is_complete() -> None:
    """`aexp.__all__` is sorted, and is exactly what `aexp` shows, and its version."""
    known = {"cli", "Any", "Final", "TYPE_CHECKING", "import_module"}
    shown = {name for name in vars(aexp) if not name.startswith("_")} | set(aexp._LATE) | {"__version__"}

    assert list(aexp.__all__) == sorted(aexp.__all__), "sort __all__ in aexp/__init__.py"
    assert all(hasattr(aexp, name) for name in aexp.__all__)
    assert set(aexp.__all__) == shown - known, "make __all__ and the imports of aexp/__init__.py agree"


def error_classes() -> dict[str, type]:
    """Every error that aexp raises, by name."""
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, aexp.AexpError)
    }


def drawn_tree() -> Iterator[tuple[str, str, str | None]]:
    """Name, parent and built-in of each error in the tree that the docstring of errors.py draws."""
    path: list[tuple[int, str]] = []
    for match in re.finditer(
        r"^([ │├└─]*)\b(\w+)(?: +\((\w+)\))?", (errors.__doc__ or "").partition("\n\n    ")[2], re.MULTILINE
    ):
        branch, name, built_in = match.groups()
        while path and path[-1][0] >= len(branch):
            path.pop()
        yield name, path[-1][1] if path else "Exception", built_in
        path.append((len(branch), name))


def test_every_error_comes_in_by_the_front_door() -> None:
    """Each error of `aexp.errors` can be imported from `aexp`."""
    assert not set(error_classes()) - set(aexp.__all__), "import them in aexp/__init__.py"


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """The docstring of errors.py draws each error below its parent, beside the built-in it is a kind of."""
    drawn = {name: {parent, built_in} - {None} for name, parent, built_in in drawn_tree()}
    real = {name: {base.__name__ for base in error.__bases__} for name, error in error_classes().items()}

    assert drawn == real, "draw the tree in the docstring of aexp/errors.py anew"


def test_the_changelog_names_the_version() -> None:
    """The newest entry of the changelog is the version that is being built."""
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert newest[1] == aexp.__version__, "begin an entry in CHANGELOG.md, or set the version in aexp/__init__.py"


def test_every_decision_stands_in_the_index() -> None:
    """The index of the decisions links each of them, and nothing else."""
    folder = ROOT / "docs" / "decisions"
    linked = set(re.findall(r"\]\((\d{4}-[^)]+\.md)\)", (folder / "README.md").read_text()))

    assert linked == {path.name for path in folder.glob("[0-9]*.md")}, "bring docs/decisions/README.md up to date"
