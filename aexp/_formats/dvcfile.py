"""What `dvc add` writes: the `.dvc` file, the line in `.gitignore`, and the manifest of a folder, byte for byte.

Formats of DVC 3, source: dvc 3.67 (`dvc/output.py`, `dvc_data/hashfile/tree.py`, `scmrepo/git`).
"""

import io
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import orjson

from .._data import Artifact
from .._names import work_tree_fault
from ..errors import UnsafePath

MD5: Final = r"[0-9a-f]{32}(\.dir)?"
"""What DVC calls an object: the MD5 of its content, and for the manifest of a folder `.dir` behind it."""


def dvc_file(artifact: Artifact) -> bytes:
    """Return the content of `<path>.dvc`."""
    name = artifact.path.rpartition("/")[2]
    return _dvc_file(artifact.hash, artifact.size, artifact.files, artifact.executable, name)


@lru_cache(1024)
def _dvc_file(hash: str, size: int, files: int | None, executable: bool, name: str) -> bytes:
    from ruamel.yaml import YAML

    out: dict[str, Any] = {"md5": hash, "size": size}
    if files is not None:
        out["nfiles"] = files
    if executable:
        out["isexec"] = True
    stream, yaml = io.StringIO(), YAML()  # DVC writes with these settings, which quote and fold as no other does
    yaml.default_flow_style = False
    yaml.dump({"outs": [{**out, "hash": "md5", "path": name}]}, stream)
    return stream.getvalue().encode()


def with_line(content: bytes, name: str) -> bytes:
    """Return a `.gitignore` with the *content* it has, and the line that keeps *name*, in its folder, out of Git."""
    line = "/" + re.sub(r"[\\\[\]!*#?]", r"\\\g<0>", name)
    if line.encode() in content.splitlines():
        return content
    return content + (b"\n" if content and not content.endswith(b"\n") else b"") + line.encode() + b"\n"


def manifest(files: Mapping[str, str]) -> Iterator[bytes]:
    """Yield, in slices, the object that stands for a folder; *files* gives the MD5 of each file by its relative path."""
    paths = sorted(files)
    if not paths:
        yield b"[]"
    for place in range(0, len(paths), 200):
        some = [{"md5": files[path], "relpath": path} for path in paths[place : place + 200]]
        text = json.dumps(some, sort_keys=True)[1:-1]
        yield f"{', ' if place else '['}{text}{']' if place + 200 >= len(paths) else ''}".encode()


def parse_manifest(content: bytes, name: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a folder by its relative path; None when *content* is no manifest.

    Raises `UnsafePath` for a path that leaves the folder, and a file that is named twice.
    """
    try:
        entries = orjson.loads(content)
        files = {entry["relpath"]: entry["md5"] for entry in entries}
    except (ValueError, TypeError, KeyError):
        return None
    if len(files) != len(entries):
        raise UnsafePath(name, "this manifest of DVC names a file twice")
    return files


def manifest_fault(path: object, md5: object) -> str | None:
    """Say what is wrong with an entry of a manifest; None for a sound one."""
    fault = work_tree_fault(path) if isinstance(path, str) else "it is no text"
    if fault is not None:
        return fault
    return None if isinstance(md5, str) and re.fullmatch(r"[0-9a-f]{32}", md5) else "it has no MD5"
