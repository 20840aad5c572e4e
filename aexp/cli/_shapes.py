"""What `--json` prints, and what docs/cli.md promises of it: fields are added, never renamed or removed."""

from collections.abc import Sequence
from typing import Any

import aexp


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
        "artifacts": found.artifacts,
        "damaged": found.damaged,
        "params": found.params,
        "metrics": found.metrics,
    }


def failure(found: aexp.Failure) -> dict[str, Any]:
    """Return the shape of the exception that ended an experiment."""
    return {"type": found.type, "message": found.message, "traceback": found.traceback}


def baseline(found: aexp.Baseline) -> dict[str, Any]:
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


def log(found: aexp.Record, checkpoints: Sequence[aexp.Checkpoint]) -> dict[str, Any]:
    """Return the shape of a record with what its checkpoints say."""
    told = [
        {"rev": each.rev, "created": each.created, "message": each.message, "metrics": each.metrics}
        for each in checkpoints
    ]
    return record(found) | {"checkpoints": told}
