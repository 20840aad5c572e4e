"""What `--json` prints, and what docs/cli.md promises of it: fields are added, never renamed or removed."""

from collections.abc import Sequence
from typing import Any

import aexp

from ._commands import as_commands


def record(found: aexp.Record) -> dict[str, Any]:
    """Return the shape of a record."""
    return {
        "name": found.name,
        "id": found.id,
        "rev": found.rev,
        "ref": found.ref,
        "baseline": found.baseline,
        "status": found.status.value,
        "error": None if found.error is None else failure(found.error),
        "tags": found.tags,
        "message": found.message,
        "created": found.created,
        "ended": found.ended,
        "duration": found.duration,
        "checkpoints": found.checkpoints,
        "artifacts": [artifact(each) for each in found.artifacts],
        "damaged": found.damaged,
        "push": None if found.push is None else push(found.push),
        "params": found.params,
        "metrics": found.metrics,
    }


def push(found: aexp.Push) -> dict[str, Any]:
    """Return the shape of how an automatic push stands."""
    return {"remote": found.remote, "state": found.state, "since": found.since, "reason": found.reason}


def artifact(found: aexp.Artifact) -> dict[str, Any]:
    """Return the shape of an artifact."""
    return {
        "name": found.name,
        "path": found.path,
        "type": found.type,
        "desc": found.desc,
        "labels": found.labels,
        "meta": found.meta,
        "hash": found.hash,
        "size": found.size,
        "files": found.files,
        "executable": found.executable,
    }


def failure(found: aexp.Failure) -> dict[str, Any]:
    """Return the shape of the exception that ended an experiment."""
    return {"type": found.type, "message": found.message, "traceback": found.traceback}


def baseline(found: "aexp.Baseline") -> dict[str, Any]:
    """Return the shape of a commit that experiments stand on."""
    return {
        "rev": found.rev,
        "names": found.names,
        "created": found.created,
        "experiments": [{"name": each.name, "rev": each.rev, "ref": each.ref} for each in found.experiments],
    }


def interrupted(found: aexp.Interrupted) -> dict[str, Any]:
    """Return the shape of an interrupted experiment."""
    return {
        "name": found.name,
        "id": found.id,
        "ref": found.ref,
        "baseline": found.baseline,
        "status": found.status.value,
        "created": found.created,
        "session": found.session,
    }


def series(found: aexp.Series) -> dict[str, Any]:
    """Return the shape of the points of a metric; a timestamp is None where none was given."""
    stamps = [None if stamp != stamp else stamp for stamp in found.timestamps]
    return {"steps": list(found.steps), "values": list(found.values), "timestamps": stamps}


def log(found: aexp.Record, checkpoints: "Sequence[aexp.Checkpoint]") -> dict[str, Any]:
    """Return the shape of a record with what its checkpoints say."""
    told = [
        {"rev": each.rev, "created": each.created, "message": each.message, "metrics": each.metrics}
        for each in checkpoints
    ]
    return record(found) | {"checkpoints": told}


def comparison(found: "aexp.Comparison") -> dict[str, Any]:
    """Return the shape of what two commits differ in."""
    shape: dict[str, Any] = {"left": side(found.left), "right": side(found.right)}
    for title, changes in (("metrics", found.metrics), ("params", found.params)):
        shape[title] = {
            name: {"kind": each.kind, "old": each.old, "new": each.new, "difference": each.difference}
            for name, each in changes.items()
        }
    return shape | {"files": [{"path": each.path, "kind": each.kind} for each in found.files], "patch": found.patch}


def side(found: "aexp.Side") -> dict[str, Any]:
    """Return the shape of one of two commits."""
    return {"name": found.name, "rev": found.rev, "damaged": found.damaged}


def applied(found: "aexp.Applied") -> dict[str, Any]:
    """Return the shape of what `apply` did."""
    return {
        "name": found.name,
        "rev": found.rev,
        "written": found.written,
        "removed": found.removed,
        "unchanged": found.unchanged,
        "missing": found.missing,
        "skipped": [{"path": each.path, "reason": each.reason} for each in found.skipped],
        "undo": found.undo,
    }


def undone(found: "aexp.Undone") -> dict[str, Any]:
    """Return the shape of what `undo` did."""
    return {"name": found.name, "rev": found.rev, "restored": found.restored, "kept": found.kept}


def running(found: "aexp.Running") -> dict[str, Any]:
    """Return the shape of an experiment that is not saved yet."""
    return {
        "name": found.name,
        "id": found.id,
        "ref": found.ref,
        "baseline": found.baseline,
        "status": found.status.value,
        "created": found.created,
        "ended": found.ended,
        "error": None if found.error is None else failure(found.error),
        "session": found.session,
        "host": found.host,
        "user": found.user,
        "pid": found.pid,
        "tags": found.tags,
        "message": found.message,
        "checkpoints": found.checkpoints,
        "params": found.params,
        "metrics": found.summary,
        "step": found.step,
        "points": found.points,
    }


def event(found: "aexp.Event") -> dict[str, Any]:
    """Return the shape of something that happened."""
    return {
        "kind": found.kind.value,
        "session": found.session,
        "rev": found.rev,
        "experiment": None if found.experiment is None else running(found.experiment),
    }


def maintenance(found: "aexp.Maintenance") -> dict[str, Any]:
    """Return the shape of what `maintain` did."""
    return {
        "retired": found.retired,
        "swept": found.swept,
        "anchors": found.anchors,
        "journals": found.journals,
        "trash": found.trash,
        "interrupted": [interrupted(each) for each in found.interrupted],
        "packs_before": found.packs_before,
        "packs_after": found.packs_after,
        "packed_refs": found.packed_refs,
        "freed": found.freed,
        "failures": found.failures,
    }


def finding(found: "aexp.Finding") -> dict[str, Any]:
    """Return the shape of one thing that `doctor` looked at."""
    remedy = None if found.remedy is None else as_commands(found.remedy)
    return {"subject": found.subject, "level": found.level, "text": found.text, "remedy": remedy}


def transfer(found: aexp.Transfer) -> dict[str, Any]:
    """Return the shape of what became of an experiment in `push` or `pull`."""
    return {
        "name": found.name,
        "ref": found.ref,
        "rev": found.rev,
        "outcome": found.outcome,
        "found": found.found,
        "reason": found.reason,
        "data": found.data,
    }
