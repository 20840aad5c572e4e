"""Where everything stands: refs, the files of an experiment's commit, the folders in the common Git directory."""

import re
from functools import lru_cache
from typing import Final

EXPERIMENTS: Final = "refs/exps/"
"""Refs of experiments, as DVC names them (`dvc.repo.experiments.refs`)."""

INTERNAL: Final = tuple(f"{EXPERIMENTS}{word}" for word in ("apply", "celery", "exec", "temp", "stash"))
"""Refs below `refs/exps/` that belong to DVC itself; DVC skips them by string prefix, and so do we."""

DVC_BASELINE: Final = f"{EXPERIMENTS}exec/EXEC_BASELINE"
DVC_HEAD: Final = f"{EXPERIMENTS}exec/EXEC_HEAD"
"""The commit that DVC's run or save in this work tree started from: while it lasts, and until the next."""

PRIVATE: Final = "refs/aexp/"
"""Our own refs: DVC and a plain push ignore them."""

TRASH: Final = f"{PRIVATE}trash/"
"""What was removed, replaced or given up, for `restore()`."""

ANCHORS: Final = f"{PRIVATE}wip/"
"""What keeps the baselines and the captured code of open experiments from being collected."""

PARAMS: Final = "params.yaml"
METRICS: Final = "metrics.json"
PIPELINE: Final = "dvc.yaml"
LOCK: Final = "dvc.lock"
ACCOUNT: Final = "experiment.json"
SERIES: Final = "plots/metrics"
IMAGES: Final = "plots/images"
CUSTOM: Final = "plots/custom"

_IGNORED: Final = """\
# Add patterns of files dvc should ignore, which could improve
# the performance. Learn more at
# https://dvc.org/doc/user-guide/dvcignore
"""

SKELETON: Final = (
    (".dvc/config", ""),
    (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n"),
    (".dvcignore", _IGNORED),
)
"""What `dvc init` makes. `dvc exp apply` takes away what an experiment does not have: without these, DVC itself."""

ROOT: Final = "aexp"
"""Our folder in the common Git directory."""

WORKSPACES: Final = "workspaces"
"""The folder of private checkouts in ours."""

FORMAT: Final = "1"
"""The content of `aexp/format`: the version of everything below `aexp/`."""

_REF = r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/([^/]+)\Z"
_NAME: Final = len(EXPERIMENTS) + 42
"""Where the name begins in an experiment's ref."""
_TRASHED = rf"{TRASH}([0-9]{{13,15}})-([0-9a-f]{{40}})/([^/]+)\Z"


def experiment_ref(baseline: str, name: str) -> str:
    """Return the ref of the experiment *name* that started from the commit *baseline* (40 hex digits)."""
    return f"{EXPERIMENTS}{baseline[:2]}/{baseline[2:]}/{name}"


def parse_experiment_ref(ref: str) -> tuple[str, str] | None:
    """Return (baseline, name) of an experiment's *ref*; None for any other ref."""
    match = re.match(_REF, ref)
    return None if match is None else (match[1] + match[2], match[3])


def split_experiment_ref(ref: str) -> tuple[str, str]:
    """Return (baseline, name) of a ref that is known to be an experiment's: what `parse_experiment_ref` returned."""
    return _baseline(ref[:_NAME]), ref[_NAME:]


@lru_cache(1024)
def _baseline(top: str) -> str:
    """Return the baseline of the refs that begin with *top*; thousands of records share it."""
    return top[len(EXPERIMENTS) :].replace("/", "")


def anchor_ref(session: str, number: int) -> str:
    """Return the ref that keeps a baseline and captured code of *session* from being collected."""
    return f"{ANCHORS}{session}/{number}"


def anchor_prefix(session: str) -> str:
    """Return what the anchors of *session* begin with."""
    return f"{ANCHORS}{session}/"


def trash_ref(milliseconds: int, ref: str) -> str:
    """Return the ref that keeps what was removed from the experiment's *ref*, or replaced there, at *milliseconds* since 1970.

    It tells the baseline, so that `restore()` knows where the experiment stood (decision 0014).
    """
    baseline, name = parse_experiment_ref(ref) or ("", ref)
    return f"{TRASH}{milliseconds:013d}-{baseline}/{name}"


def parse_trash_ref(ref: str) -> tuple[int, str] | None:
    """Return (milliseconds, the experiment's ref) of a *ref* in the trash; None for any other ref."""
    match = re.match(_TRASHED, ref)
    return None if match is None else (int(match[1]), experiment_ref(match[2], match[3]))


def segment_name(number: int) -> str:
    """Return the file name of the journal's segment *number*, counted from 1."""
    return f"journal-{number:06d}.log"


def segment_number(name: str) -> int | None:
    """Return the number of the segment called *name*; None when it is not a segment."""
    match = re.fullmatch(r"journal-(\d{6,})\.log", name)
    return None if match is None else int(match[1])
