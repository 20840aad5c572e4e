"""`aexp version` and `aexp completion`: the command itself."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

import aexp

from . import _output
from ._options import Json, flag

Shell = Literal["bash", "zsh", "fish"]
NEXT = {
    "bash": "a new shell with bash-completion finds it; without that, put `source {path}` into ~/.bashrc",
    "zsh": "put `fpath=({folder} $fpath)` into ~/.zshrc, before `compinit`, unless it is there",
    "fish": "a new shell finds it",
}
"""What is left to do after the script is in its place."""
LIBRARIES = ("pygit2", "anyio", "orjson", "cyclopts", "rich")


def version(*, json: Json = False) -> None:
    """Print the version of aexp, and of what it stands on."""
    found = {
        "aexp": aexp.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
    }
    if json:
        _output.write_json(found)
    else:
        first, *others = (f"{name} {number}" for name, number in found.items())
        _output.write(f"{first} ({', '.join(others)})")


def completion(
    shell: Annotated[Shell, Parameter(help="The shell the script is for.")],
    /,
    *,
    install: Annotated[bool, flag("Put it where the shell looks for it, and print where.", "--install")] = False,
    app: Annotated[App, Parameter(parse=False)],
) -> None:
    """Print a script that completes verbs, flags, names of experiments, commits and metrics."""
    if install:
        path = Path(app.install_completion(shell=shell, add_to_startup=False))
        _output.write(str(path))
        _output.say(NEXT[shell].format(path=path, folder=path.parent))
    else:
        _output.write(app.generate_completion(prog_name="aexp", shell=shell).rstrip("\n"))
