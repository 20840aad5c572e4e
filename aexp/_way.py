"""Where an experiment goes: onto a ref of its own, or into the run of DVC that this program is a stage of."""

from collections.abc import Mapping
from typing import Any

from attrs import frozen


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


def way(variables: Mapping[str, str], worktree: str | None) -> Within | None:
    """Return the run of DVC that commits what an experiment in *worktree* writes; None: the experiment makes its own commit.

    *variables* is the environment, where DVC says in which repository (its path free of links, here), upon which
    commit and under which name it runs (interop reference 3.3). Another repository is none of its business: a run
    works in its own work tree, or, with `--temp` and `--queue`, in one below `.dvc/tmp/exps`.
    """
    root, baseline, name = (variables.get(f"DVC_{key}", "") for key in ("ROOT", "EXP_BASELINE_REV", "EXP_NAME"))
    if not root or not baseline or not name or worktree is None:
        return None
    here = root == worktree or root.startswith(f"{worktree}/")
    apart = worktree.startswith(f"{root}/.dvc/tmp/exps/")
    return Within(root, baseline, name) if here or apart else None


def is_of(experiment: Mapping[str, Any], baseline: str, name: str) -> bool:
    """Say whether *experiment*, the content of an experiment.json, was written for DVC's commit of *name* on *baseline*."""
    return bool(experiment.get("within") == {"baseline": baseline, "name": name})
