"""Where experiments stand, and what was made of them on the way: the values that `baselines()` and `checkpoints()` return."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class Reference:
    """Where a saved experiment stands: its name, its full ref, and the commit there ("" where the ref is damaged)."""

    name: str
    ref: str
    rev: str


@frozen(kw_only=True)
class Baseline:
    """A commit that experiments stand on.

    `names` are the branches, then the tags, that point at it; `created` is the time of the commit, None when it
    cannot be read; `experiments` are ordered by name.
    """

    rev: str
    names: tuple[str, ...] = ()
    created: datetime | None = None
    experiments: tuple[Reference, ...] = ()


@frozen(kw_only=True)
class Checkpoint:
    """A commit that was made of an experiment before it ended: when, the first line of its message, the metrics then."""

    rev: str
    created: datetime
    message: str
    metrics: Mapping[str, Any] = field(factory=dict)
