"""An experiment as a commit: its message, the files of its folder, and the record read back from them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

import orjson
from attrs import evolve, field, frozen

from .._data import Artifact
from .._layout import ACCOUNT, METRICS, PARAMS, PIPELINE, SERIES, SKELETON, parse_experiment_ref, split_experiment_ref
from .._lifecycle import Status
from .._names import metric_file
from .._packing import unpacked_later
from .._values import Record
from .account import Account, Intent, code_from_json, code_to_json, failure_from_json, failure_to_json
from .artifacts import artifact_from_json, artifact_to_json
from .gitobjects import Commit, Kind, Signature, object_id, trailers
from .params import from_json, merge, to_json
from .pipeline import Data
from .plain import DEPTH, NODES
from .sections import pipeline, plot_to_json
from .series import Number, Points, flat, nested, tsv

FORMAT: Final = 1
"""The version of experiment.json."""
_ENDING: Final = r"\n\nAexp-Id: (\w+)\nAexp-Name: [^\n]+\nAexp-Status: \w+\n\Z"
"""How the messages of `intend` end, found in a tenth of the time that any trailers take."""
_STATUS: Final = {status.value: status for status in Status}
MARK: Final = b'"$'
"""What JSON holds in which `from_json` has something to do."""
_CARRIED: Final = {path: object_id(Kind.BLOB, text.encode()) for path, text in SKELETON}

Files = Mapping[str, Mapping[str, Any]]
"""What parameter or metric files hold, by their path."""


@frozen(eq=False, repr=False)
class Others:
    """What a tree holds besides the experiment's own folder: parameters and metrics by file, and what is wrong there."""

    params: Files = field(factory=dict)
    metrics: Files = field(factory=dict)
    damaged: str | None = None
    needs: bytes = b""
    """The ids of the objects that this was read from, one behind the other."""
    whole: bool = True
    """False when something was missing that may come: content that DVC keeps, and that is not in its cache."""
    data: Sequence[Data] = ()
    """What the tree's stages depend on and make, and what its `.dvc` files track, when that was asked for."""
    places: tuple[int, int] = (0, 0)
    """Where DVC has aexp's own files among the parameter and the metric files."""
    exact: bool = False
    """Whether `dvc exp show` reads this tree as we do, as far as we can tell."""

    def unpack(self, name: str, packed: bytes) -> Mapping[str, Any]:
        """Return the field *name* of a record that left its own part *packed*: params, metrics, or one of them by file."""
        own = unpack_files(packed)
        if name.startswith("params"):
            files = {**self.params, **own} if self.params else own
            return together(files) if name == "params" else files
        files = {**self.metrics, **own} if self.metrics else own
        return measured(files) if name == "metrics" else files


@frozen(eq=False, repr=False)
class Author:
    """Who makes the commits: author, committer (name and e-mail each) and the minutes east of UTC."""

    author: tuple[str, str]
    committer: tuple[str, str]
    offset: int

    def signatures(self, seconds: int) -> tuple[Signature, Signature]:
        """Return author and committer of a commit made at *seconds* since 1970."""
        return Signature(*self.author, seconds, self.offset), Signature(*self.committer, seconds, self.offset)


def iso(seconds: float | None) -> str | None:
    """Return *seconds* since 1970 as ISO 8601 in UTC, to the microsecond."""
    return None if seconds is None else moment(seconds).isoformat()


def moment(seconds: float) -> datetime:
    """Return *seconds* since 1970 as a datetime in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def intend(
    account: Account,
    author: Author,
    *,
    now: float,
    folder: str,
    params: str,
    final: bool,
    expected: str | None,
    skeleton: bool = False,
) -> Intent:
    """Fix every input of the next commit of *account*, made at *now* (seconds since 1970)."""
    by, through = author.signatures(max(0, int(now)))
    title = account.message or f"aexp: {account.name}"
    status = account.status if final else Status.RUNNING
    message = f"{title}\n\nAexp-Id: {account.id}\nAexp-Name: {account.name}\nAexp-Status: {status}\n"
    return Intent(
        number=account.number,
        final=final,
        ref=account.ref,
        expected=expected,
        parents=account.checkpoints[-1:] or (account.baseline,),
        tree=account.code.tree,
        folder=folder,
        message=message,
        author=by,
        committer=through,
        params=params,
        experiment=_experiment(account, status),
        ignored=account.ignored,
        skeleton=skeleton,
    )


def upon(account: Account, held: str | None, *, force: bool = False) -> tuple[Account, str | None]:
    """Return *account* and the rev that its ref must hold for its next commit, when the ref holds *held* now.

    Checkpoints whose ref somebody removed may be collected at any time, so nothing is built on them.
    """
    if account.checkpoints and held is None:
        return evolve(account, checkpoints=()), None
    return account, held if force else next(iter(account.checkpoints[-1:]), None)


def _experiment(account: Account, status: Status) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "id": account.id,
        "name": account.name,
        "status": status,
        "error": failure_to_json(account.error),
        "tags": account.tags,
        "message": account.message,
        "created": iso(account.created),
        "ended": iso(account.ended),
        "duration": account.duration,
        "step": account.step,
        "checkpoints": account.checkpoints,
        **account.origin,
        "code": code_to_json(account.code),
        **({"artifacts": list(map(artifact_to_json, account.artifacts))} if account.artifacts else {}),
        **({"plots": list(map(plot_to_json, account.plots))} if account.plots else {}),
        "params": to_json(account.params),
    }


def summary(metrics: Mapping[str, Points]) -> dict[str, Number]:
    """Return the last value of each metric, in the order they were first logged."""
    return {name: points.values[-1] for name, points in metrics.items()}


def summary_tree(last: Mapping[str, Number], step: int) -> dict[str, Any]:
    """Return the content of metrics.json: *last* nested by `/`, and the step where no metric has that name.

    NaN and infinities become the strings "nan", "inf", "-inf", as DVCLive writes them.
    """
    tree = nested({name: value if isfinite(value) else str(float(value)) for name, value in last.items()})
    tree.setdefault("step", step)
    return tree


def folder_files(
    intent: Intent, metrics: Mapping[str, Points], tree: Mapping[str, Any], *, images: bool = False
) -> Iterator[tuple[str, list[bytes]]]:
    """Yield (path inside the folder, content in slices) of every file aexp itself writes; *images* says whether some were logged."""
    plots, artifacts = (orjson.dumps(intent.experiment.get(key, ())) for key in ("plots", "artifacts"))
    folder = "" if artifacts == b"[]" else intent.folder
    yield PIPELINE, [pipeline(bool(metrics), images, plots, artifacts, folder)]
    yield PARAMS, [intent.params.encode()]
    yield METRICS, [_json(tree)]
    yield ACCOUNT, [_json(intent.experiment)]
    for name, points in metrics.items():
        yield f"{SERIES}/{metric_file(name)}", list(tsv(name, points))


def _json(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def is_carried(path: str, id: bytes) -> bool:
    """Say whether the blob *id* at *path* is what commits carry for DVC (decision 0020), and nobody's change."""
    return _CARRIED.get(path) == id


def commit_id(message: str) -> str | None:
    """Return the experiment id that a commit's *message* names; None for a commit that aexp did not make."""
    usual = re.search(_ENDING, message)
    return usual[1] if usual else trailers(message).get("Aexp-Id")


def record(
    rev: str, ref: str, experiment: Mapping[str, Any], metrics: Mapping[str, Any], folder: str, others: Others
) -> Record:
    """Return the record of the commit *rev* on *ref* from the content of its experiment.json and metrics.json.

    *others* is what the tree's other files hold; where a name stands in several, the experiment's own wins.
    """
    params = _packed([[f"{folder}/{PARAMS}", experiment["params"]]])
    measured = _packed([[f"{folder}/{METRICS}", metrics]])
    if MARK in measured:
        measured = pack_files({f"{folder}/{METRICS}": metrics})
    found = unpacked_later(_told(rev, ref, experiment, others.damaged), others, params, measured)
    if MARK in params:
        _ = found.params  # what is marked may be marked wrongly, which is to be known now
    return found


def pack_files(files: Files) -> bytes:
    """Return what *files* hold as a record keeps it; raise `ValueError` or `TypeError` for what JSON cannot hold."""
    return _packed([[path, to_json(content)] for path, content in files.items()])


def _packed(value: object) -> bytes:
    """Return *value* as JSON, copied: to free 10,000 of the pieces that orjson cuts it from takes 15 ms at once."""
    return bytes(memoryview(orjson.dumps(value)))


def unpack_files(packed: bytes) -> dict[str, Mapping[str, Any]]:
    """Undo `pack_files`."""
    pairs = orjson.loads(packed)
    return dict(pairs) if MARK not in packed else {path: from_json(content) for path, content in pairs}


def _told(rev: str, ref: str, experiment: Mapping[str, Any], damaged: str | None) -> tuple[Any, ...]:
    """Return the values of a record's fields, in order, but the mappings."""
    baseline, name = split_experiment_ref(ref)
    ended = experiment["ended"]
    return (
        *(name, experiment["id"], rev, ref, baseline),
        _STATUS.get(experiment["status"]) or Status(experiment["status"]),
        failure_from_json(experiment["error"]),
        tuple(experiment["tags"]),
        experiment["message"],
        datetime.fromisoformat(experiment["created"]),
        None if ended is None else datetime.fromisoformat(ended),
        experiment["duration"],
        tuple(experiment["checkpoints"]),
        code_from_json(experiment["code"]),
        tuple([artifact_from_json(each) for each in experiment.get("artifacts") or ()]),
        damaged,
    )


def part_record(account: Account, last: Mapping[str, Number], folder: str) -> Record:
    """Return the record of a part of an experiment, before that is saved: it has no rev."""
    params_by_file = {f"{folder}/{PARAMS}": account.params}
    metrics = dict(last) if "step" in last else {**last, "step": account.step}
    return Record(
        name=account.name,
        id=account.joins,
        rev="",
        ref=account.ref,
        baseline=account.baseline,
        status=account.status,
        error=account.error,
        tags=account.tags,
        message=account.message,
        created=moment(account.created),
        ended=None if account.ended is None else moment(account.ended),
        duration=account.duration,
        artifacts=account.artifacts,
        params=account.params,
        params_by_file=params_by_file,
        metrics=metrics,
        metrics_by_file={f"{folder}/{METRICS}": nested(metrics)},
    )


def foreign_record(rev: str, ref: str, commit: Commit, others: Others, artifacts: tuple[Artifact, ...] = ()) -> Record:
    """Return the record of a commit that aexp did not make, from the files that its dvc.yaml files name."""
    baseline, name = parse_experiment_ref(ref) or ("", ref)
    made = moment(commit.committer.time)
    values = (
        *(name, rev, rev, ref, baseline),
        Status.FINISHED,
        None,
        (),
        commit.message.strip(),
        *(made, made),
        *(None, (), None, artifacts),
        others.damaged,
    )
    try:
        params, metrics = pack_files(others.params), pack_files(others.metrics)
    except (TypeError, ValueError):  # half a surrogate pair in the name of a file
        return evolve(
            unpacked_later(values, Others(), b"[]", b"[]"),
            params=together(others.params),
            params_by_file=others.params,
            metrics=measured(others.metrics),
            metrics_by_file=others.metrics,
        )
    return unpacked_later(values, Others(), params, metrics)


def together(files: Files) -> Mapping[str, Any]:
    """Return the parameters of several files as one mapping; of equal keys the last file's counts."""
    merged: Mapping[str, Any] = {}
    for content in files.values():
        merged = merge(merged, content) if merged else content
    return merged


def measured(files: Files) -> dict[str, Any]:
    """Return the metrics of several files as one flat mapping; of equal names the last file's counts."""
    found = [flat(tree) for tree in files.values()]
    return found[0] if len(found) == 1 else {name: value for each in found for name, value in each.items()}


def damaged_record(rev: str, ref: str, reason: str) -> Record:
    """Return the record of an experiment that cannot be read, because of *reason*."""
    baseline, name = parse_experiment_ref(ref) or ("", ref)
    return Record(
        name=name,
        id="",
        rev=rev,
        ref=ref,
        baseline=baseline,
        status=Status.INTERRUPTED,
        created=moment(0),
        damaged=reason,
    )


def parse_json(content: bytes) -> Mapping[str, Any]:
    """Return the mapping that *content* holds; raise `ValueError` for anything else, or one nested too deep."""
    containers = content.count(b"{") + content.count(b"[")
    if containers > NODES:
        raise ValueError(f"the file holds more than {NODES:,} mappings and lists")
    value = orjson.loads(content)
    if not isinstance(value, dict):
        raise ValueError("the file holds no mapping")
    if containers > DEPTH and _is_deep(value):
        raise ValueError(f"the file is nested more than {DEPTH} levels deep")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(DEPTH + 2):  # parameters stand one level below the top
        below: list[object] = []
        for each in level:
            below += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        level = below
    return bool(level)


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("id", "name", "status", "message", "created"), (str,)),
    "ended": (str, type(None)),
    "error": (dict, type(None)),
    "duration": (int, float, type(None)),
    **dict.fromkeys(("tags", "checkpoints"), (list,)),
    **dict.fromkeys(("code", "params"), (dict,)),
}


def parse_account(content: bytes) -> Mapping[str, Any]:
    """Return what experiment.json holds; raise `ValueError` when that is not an account of ours."""
    account = parse_json(content)
    for key, types in _TYPES.items():
        if type(account.get(key, ())) not in types:
            found = type(account[key]).__name__ if key in account else "missing"
            raise ValueError(f"{ACCOUNT}: {key} is {found}, and no {' or '.join(each.__name__ for each in types)}")
    if type(account.get("artifacts", [])) is not list:
        raise ValueError(f"{ACCOUNT}: artifacts are no list")
    texts = [account.get("session", ""), *account["tags"], *account["checkpoints"]]
    if set(map(type, texts)) != {str}:
        raise ValueError(f"{ACCOUNT}: a tag, a checkpoint or the session is no text")
    for time in (account["created"], account["ended"]):
        if time is not None and datetime.fromisoformat(time).tzinfo is None:
            raise ValueError(f"{ACCOUNT}: {time} names no time zone")
    return account


def joined(parts: Sequence[bytes]) -> bytes:
    """Return the slices of a file as one."""
    return parts[0] if len(parts) == 1 else b"".join(parts)
