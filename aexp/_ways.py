"""Whose experiment a program begins: one of its own, that of the program that started it, or that of a run of DVC.

The environment decides; it is handed in, so that nothing here depends on the process.
"""

from collections.abc import Mapping
from typing import Any, Final

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
DVC_BASELINE: Final = "DVC_EXP_BASELINE_REV"


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


@frozen
class Within:
    """The run of DVC (`dvc exp run`) that this program is a stage of, which commits what lies in the work tree."""

    root: str
    """The DVC repository that the run was started in."""
    baseline: str
    name: str

    def to_json(self) -> dict[str, str]:
        """Return what experiment.json says of it, by which the commit that DVC makes is known as this experiment's."""
        return {"baseline": self.baseline, "name": self.name}


def run_of_dvc(variables: Mapping[str, str], worktree: str | None) -> Within | None:
    """Return the run of DVC that commits what an experiment in *worktree* writes; None: the experiment makes its own commit.

    *variables* is the environment, where DVC says in which repository (its path free of links, here), upon which
    commit and under which name it runs (interop reference 3.3). Another repository is none of its business: a run
    works in its own work tree, or, with `--temp` and `--queue`, in one below `.dvc/tmp/exps`. Who joins an experiment
    of aexp joins that (`way`).
    """
    root, baseline, name = (variables.get(key, "") for key in (DVC_ROOT, DVC_BASELINE, DVC_NAME))
    if worktree is None or not (root and baseline and name) or isinstance(way(variables), Join):
        return None
    here = root == worktree or root.startswith(f"{worktree}/")
    apart = worktree.startswith(f"{root}/.dvc/tmp/exps/")
    return Within(root, baseline, name) if here or apart else None


def is_of(experiment: Mapping[str, Any], baseline: str, name: str) -> bool:
    """Say whether *experiment*, the content of an experiment.json, was written for DVC's commit of *name* on *baseline*."""
    return bool(experiment.get("within") == {"baseline": baseline, "name": name})
