"""What `dvc exp show` computes of a commit and keeps (`dvc.repo.experiments.serialize.SerializableExp`)."""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from .pipeline import Data

Files = Mapping[str, Mapping[str, Any]]


def shown(rev: str, made: datetime, params: Files, metrics: Files, data: Iterable[Data]) -> bytes:
    """Return the bytes that DVC keeps of the commit *rev*, made at the local time *made*, in `.dvc/tmp/exps/cache`.

    Raises `ValueError` for what JSON cannot hold.
    """
    found = list(data)
    watched = {each.path: {"hash": each.hash, "size": each.size, "nfiles": each.nfiles} for each in found if each.dep}
    made_by = {
        each.path: {
            "hash": each.hash,
            "size": each.size,
            "nfiles": each.nfiles,
            "use_cache": each.cached,
            "is_data_source": each.source,
        }
        for each in found
        if not each.dep
    }
    entry = {
        "rev": rev,
        "timestamp": made.isoformat(),
        "params": {path: {"data": content} for path, content in params.items()},
        "metrics": {path: {"data": content} for path, content in metrics.items()},
        "deps": watched,
        "outs": made_by,
        "meta": {},
    }
    return json.dumps(entry).encode()


def spelled(value: Any) -> Any:
    """Return *value* as DVC reads it from our params.yaml: floats that are not finite are the strings that name them."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: spelled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [spelled(each) for each in value]
    return value
