"""The record of an apply on disk: lines of JSON that say what is to be changed, so that it can be taken back."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from attrs import field, frozen


@frozen
class Content:
    """What a step puts: a file of this size and SHA-1, or a link to *text*."""

    kind: Literal["file", "link"]
    text: str
    size: int = 0


@frozen
class Step:
    """One change of the work tree: what stood at *path* (None: nothing), and what shall stand there (None: nothing)."""

    path: str
    before: Literal["file", "link"] | None
    after: Content | None


@frozen(eq=False, repr=False)
class Plan:
    """Every change of one apply: of which experiment, in which work tree, and step by step.

    A step's number is its place in `steps`. `made` and `removed` are folders, the outermost first; `removed` with their
    modes. `worktree` is the work tree's own Git directory, relative to the common one: "" for the main one.
    """

    name: str
    rev: str
    worktree: str
    steps: Sequence[Step] = ()
    made: Sequence[str] = ()
    removed: Sequence[tuple[str, int]] = field(default=())


def encode_plan(plan: Plan) -> Iterator[bytes]:
    """Yield the lines of *plan*; the last one says that none is missing. Bytes that are no UTF-8 stand as surrogates."""
    head = {"format": 1, "name": plan.name, "rev": plan.rev, "worktree": plan.worktree}
    yield _line(head | {"made": plan.made, "removed": plan.removed, "steps": len(plan.steps)})
    for step in plan.steps:
        after = None if step.after is None else [step.after.kind, step.after.text, step.after.size]
        yield _line([step.path, step.before, after])


def decode_plan(lines: Iterable[bytes]) -> Plan:
    """Return the plan that *lines* hold; raise `ValueError` when some are missing or damaged."""
    rest = iter(lines)
    head = json.loads(next(rest, b"null"))
    if not isinstance(head, dict) or head.get("format") != 1:
        raise ValueError("the plan of an apply is damaged, or of a newer aexp")
    steps = []
    for path, before, after in map(json.loads, rest):
        steps.append(Step(path, before, None if after is None else Content(*after)))
    if len(steps) != head["steps"]:
        raise ValueError(f"the plan of an apply holds {len(steps)} of {head['steps']} steps")
    removed = [(path, mode) for path, mode in head["removed"]]
    return Plan(head["name"], head["rev"], head["worktree"], steps, head["made"], removed)


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"
