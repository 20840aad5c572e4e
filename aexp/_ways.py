"""Whose experiment `aexp.init()` begins: one of its own, or that of the program that started this one.

The environment decides; it is handed in, so that nothing here depends on the process.
"""

from collections.abc import Mapping
from typing import Final

from attrs import frozen

EXPERIMENT: Final = "AEXP_EXPERIMENT"
"""The id of the experiment to join."""
NAME: Final = "AEXP_NAME"
BASELINE: Final = "AEXP_BASELINE"
REPOSITORY: Final = "AEXP_REPOSITORY"
"""The top of its work tree; of a bare repository, the repository."""
SESSION: Final = "AEXP_SESSION"
"""The session that has the experiment in its journal."""

DVC_ROOT: Final = "DVC_ROOT"
DVC_NAME: Final = "DVC_EXP_NAME"


@frozen
class Own:
    """The program begins an experiment of its own."""


@frozen
class Join:
    """The program was started by an experiment, and what it logs belongs there."""

    experiment: str
    name: str
    baseline: str
    repository: str
    session: str


Way = Own | Join


def way(variables: Mapping[str, str]) -> Way:
    """Return the way that the environment *variables* ask for."""
    told = [variables.get(key, "") for key in (EXPERIMENT, NAME, BASELINE, REPOSITORY, SESSION)]
    return Join(*told) if all(told) else Own()


def variables(join: Join) -> dict[str, str]:
    """Return the environment variables that `way` reads *join* from."""
    return {
        EXPERIMENT: join.experiment,
        NAME: join.name,
        BASELINE: join.baseline,
        REPOSITORY: join.repository,
        SESSION: join.session,
    }


def dvc_variables(join: Join, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the variables under which DVCLive writes its files but makes no experiment of its own.

    `DVC_ROOT` alone says so. With `DVC_EXP_BASELINE_REV`, DVCLive would also stage its files in the user's index
    (interop reference 3.3; `dvclive.live.Live.end`). Where `dvc` itself started us, what it set stays.
    """
    return {} if inherited.get(DVC_ROOT) else {DVC_ROOT: join.repository, DVC_NAME: join.name}
