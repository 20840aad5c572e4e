"""The account of one experiment, as its journal tells it: everything but its points and files."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from attrs import evolve, field, frozen

from .._data import Artifact
from .._layout import experiment_ref
from .._lifecycle import Status
from .._values import Code, CodeMode, Failure, Skipped
from .artifacts import artifact_from_json, artifact_to_json, with_artifact
from .gitobjects import Signature
from .journal import Kind
from .params import from_json, merge, to_json
from .sections import Plot, plot_from_json, plot_to_json, with_plot


@frozen(kw_only=True)
class Account:
    """What is known of an experiment; each record of the journal gives the next one (`told`)."""

    number: int
    id: str
    name: str
    baseline: str
    code: Code
    created: float
    origin: Mapping[str, Any]
    params: Mapping[str, Any] = field(factory=dict)
    tags: tuple[str, ...] = ()
    message: str = ""
    step: int = 0
    status: Status = Status.RUNNING
    error: Failure | None = None
    ended: float | None = None
    duration: float | None = None
    checkpoints: tuple[str, ...] = ()
    force: bool = False
    complete: bool = True
    """False while the points of a resumed experiment are still being copied into this session."""
    joins: str = ""
    """The id of the experiment that it is a part of: a program that joined; else empty."""
    joined: tuple[str, ...] = ()
    """The sessions of the programs that joined it, and whose points and files are its own now."""
    outs: tuple[str, ...] = ()
    """Paths that are still to be taken from the work tree."""
    artifacts: tuple[Artifact, ...] = ()
    ignored: tuple[str, ...] = ()
    """The paths of those artifacts that Git ignores without a line of ours."""
    plots: tuple[Plot, ...] = ()
    fate: str = ""
    """Empty while it is open; else the kind of the record that ended it: saved, kept, discarded or moved."""

    @property
    def ref(self) -> str:
        """The ref it is saved on."""
        return experiment_ref(self.baseline, self.name)


FATES: Final = frozenset({Kind.SAVED, Kind.KEPT, Kind.DISCARDED, Kind.MOVED})


def begin(account: Account) -> list[Any]:
    """Return the payload of the record that begins *account* in a journal."""
    return [
        account.number,
        {
            "id": account.id,
            "name": account.name,
            "baseline": account.baseline,
            "code": code_to_json(account.code),
            "created": account.created,
            "origin": account.origin,
            "params": to_json(account.params),
            "tags": account.tags,
            "message": account.message,
            "step": account.step,
            "status": account.status,
            "error": failure_to_json(account.error),
            "ended": account.ended,
            "duration": account.duration,
            "checkpoints": account.checkpoints,
            "force": account.force,
            "complete": account.complete,
            "joins": account.joins,
            "joined": account.joined,
            "outs": account.outs,
            "artifacts": [artifact_to_json(artifact) for artifact in account.artifacts],
            "ignored": account.ignored,
            "plots": [plot_to_json(plot) for plot in account.plots],
        },
    ]


def begun(payload: list[Any]) -> Account:
    """Undo `begin`."""
    number, told = payload
    told = dict(told)
    return Account(
        number=number,
        code=code_from_json(told.pop("code")),
        params=from_json(told.pop("params")),
        tags=tuple(told.pop("tags")),
        status=Status(told.pop("status")),
        error=failure_from_json(told.pop("error")),
        checkpoints=tuple(told.pop("checkpoints")),
        joined=tuple(told.pop("joined", ())),
        outs=tuple(told.pop("outs", ())),
        artifacts=tuple([artifact_from_json(each) for each in told.pop("artifacts", ())]),
        ignored=tuple(told.pop("ignored", ())),
        plots=tuple([plot_from_json(each) for each in told.pop("plots", ())]),
        **told,
    )


def told(account: Account, kind: str, payload: list[Any]) -> Account:
    """Return *account* after the journal's record (*kind*, *payload*); records about points and files change nothing."""
    if kind == Kind.PARAMS:
        return evolve(account, params=merge(account.params, from_json(payload[1])))
    if kind == Kind.STEP:
        return evolve(account, step=payload[1])
    if kind == Kind.TAGS:
        return evolve(account, tags=tuple(payload[1]))
    if kind == Kind.MESSAGE:
        return evolve(account, message=payload[1])
    if kind == Kind.END:
        end = payload[1]
        return evolve(
            account,
            status=Status(end["status"]),
            error=failure_from_json(end["error"]),
            ended=end["ended"],
            duration=end["duration"],
        )
    if kind == Kind.JOINED:
        return evolve(account, joined=(*account.joined, payload[1]))
    if kind == Kind.ARTIFACT:
        return kept(account, artifact_from_json(payload[1]), ignored=payload[2])
    if kind == Kind.PLOT:
        return evolve(account, plots=with_plot(account.plots, plot_from_json(payload[1])))
    if kind == Kind.OUTS:
        return without(account, payload[2], outs=tuple(payload[1]))
    if kind == Kind.RESUMED:
        return evolve(account, complete=True)
    if kind == Kind.SAVED and not payload[2]:
        return evolve(account, checkpoints=(*account.checkpoints, payload[1]))
    if kind in FATES:
        return evolve(account, fate=kind)
    return account


def kept(account: Account, artifact: Artifact, *, ignored: bool) -> Account:
    """Return *account* with *artifact*, instead of the one that had its path."""
    paths = [path for path in account.ignored if path != artifact.path]
    return evolve(
        account,
        artifacts=with_artifact(account.artifacts, artifact),
        ignored=(*paths, artifact.path) if ignored else tuple(paths),
    )


def without(account: Account, skipped: Iterable[Sequence[str]], *, outs: tuple[str, ...]) -> Account:
    """Return *account* with *outs* still to be taken, and with *skipped*, (path, reason) each, told as left out."""
    left = tuple(Skipped(path, reason) for path, reason in skipped)
    return evolve(account, outs=outs, code=evolve(account.code, skipped=(*account.code.skipped, *left)))


def code_to_json(code: Code) -> dict[str, Any]:
    """Return *code* as JSON holds it."""
    return {
        "mode": code.mode,
        "tree": code.tree,
        "changed": code.changed,
        "skipped": [[skipped.path, skipped.reason] for skipped in code.skipped],
    }


def code_from_json(value: Mapping[str, Any]) -> Code:
    """Undo `code_to_json`; experiments that started from the same code share what it returns."""
    skipped = tuple([(path, reason) for path, reason in value["skipped"]])
    return _code(value["mode"], value["tree"], value["changed"], skipped)


@lru_cache(64, typed=True)
def _code(mode: CodeMode, tree: str, changed: bool, skipped: tuple[tuple[str, str], ...]) -> Code:
    return Code(mode, tree, changed, tuple([Skipped(path, reason) for path, reason in skipped]))


def failure_to_json(error: Failure | None) -> dict[str, str] | None:
    """Return *error* as JSON holds it."""
    return None if error is None else {"type": error.type, "message": error.message, "traceback": error.traceback}


def failure_from_json(value: Mapping[str, str] | None) -> Failure | None:
    """Undo `failure_to_json`."""
    return None if value is None else Failure(value["type"], value["message"], value["traceback"])


@frozen(kw_only=True)
class Intent:
    """Every input of one commit that is not a point or a file: with the journal up to it, it fixes the commit's id."""

    number: int
    final: bool
    """False for a checkpoint."""
    ref: str
    expected: str | None
    """The rev that the ref must hold for the commit to take its place; None: there is no such ref."""
    parents: tuple[str, ...]
    tree: str
    folder: str
    message: str
    author: Signature
    committer: Signature
    params: str
    """The text of params.yaml."""
    experiment: Mapping[str, Any]
    """The content of experiment.json."""
    ignored: tuple[str, ...] = ()
    """The paths of artifacts that Git ignores without a line of ours."""
    skeleton: bool = False
    """Whether the commit holds what `dvc init` makes, if the code does not."""


def artifacts_of(intent: Intent) -> tuple[Sequence[Mapping[str, Any]], tuple[str, ...]]:
    """Return the artifacts of a commit, as JSON holds them, and the paths of those that Git ignores already."""
    return intent.experiment.get("artifacts", ()), intent.ignored


def intent_to_json(intent: Intent) -> list[Any]:
    """Return the payload of an intent's record."""
    who = [[s.name, s.email, s.time, s.offset] for s in (intent.author, intent.committer)]
    fixed = {
        "final": intent.final,
        "ref": intent.ref,
        "expected": intent.expected,
        "parents": intent.parents,
        "tree": intent.tree,
        "folder": intent.folder,
        "message": intent.message,
        "who": who,
        "params": intent.params,
        "experiment": intent.experiment,
        "ignored": intent.ignored,
        "skeleton": intent.skeleton,
    }
    return [intent.number, fixed]


def intent_from_json(payload: list[Any]) -> Intent:
    """Undo `intent_to_json`."""
    number, fixed = payload
    fixed = dict(fixed)
    author, committer = (Signature(*who) for who in fixed.pop("who"))
    parents, ignored = tuple(fixed.pop("parents")), tuple(fixed.pop("ignored", ()))
    return Intent(number=number, author=author, committer=committer, parents=parents, ignored=ignored, **fixed)
