"""Errors as the command tells them: one line with what to type now, and an exit code."""

from cyclopts import CycloptsError

import aexp
from aexp_command import BROKEN, MISUSED, REFUSED

from ._commands import as_commands


class Misuse(ValueError):
    """Arguments that do not go together."""


def explain(error: Exception) -> tuple[int, str]:
    """Return the exit code and the line for *error*; a query's also shows the place, in two lines more."""
    match error:
        case aexp.InvalidQuery() | Misuse():
            return MISUSED, str(error)
        case CycloptsError():
            said, _, _ = _one_line(str(error)).partition(" Available commands:")  # there are many
            return MISUSED, f"{said.rstrip('.')}; {_help(error)}"
        case aexp.AexpError():
            return REFUSED, _one_line(_advice(error) or as_commands(str(error)))
        case FileNotFoundError() | PermissionError() | IsADirectoryError() | KeyError() | ValueError():
            return REFUSED, _one_line(str(error.args[0]) if isinstance(error, KeyError) else str(error))
        case OSError():
            return REFUSED, _one_line(str(error))
    return BROKEN, _one_line(
        f"{type(error).__name__}: {error}; this is an error of aexp itself, please report it with what --traceback prints"
    )


def _advice(error: aexp.AexpError) -> str | None:
    """Return what the command says where the library's message speaks of calls; None where that says it well."""
    match error:
        case aexp.AmbiguousName(name=name, matches=matches):
            return f"{name!r} stands on several commits; give one of the full refs: {', '.join(matches)}"
        case aexp.NoBaseline(baseline="HEAD"):
            return "HEAD names no commit; make a first commit"
        case aexp.NoBaseline(baseline=baseline):
            return f"{baseline} names no commit; `git log --all` shows those there are"
        case aexp.RepositoryNotFound(path=path):
            return f"no Git repository at {path} or above it; run `git init` there, or name another with -C"
    return None


def _help(error: CycloptsError) -> str:
    verb = " ".join(error.command_chain or ())
    return f"see `aexp {verb} --help`" if verb else "see `aexp --help`"


def _one_line(text: str) -> str:
    return " ".join(text.split())
