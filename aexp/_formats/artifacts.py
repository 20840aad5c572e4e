"""The artifacts of an experiment: as JSON, in its dvc.yaml, and as the files that they are in its commit."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from posixpath import join, normpath, relpath
from typing import Any, Final, Protocol

from .._data import Artifact
from .._names import work_tree_fault
from .dvcfile import MD5, dvc_file, with_line
from .params import from_json, to_json

MOST: Final = 64
"""How many characters of a name a default name keeps."""


def default_name(path: str, taken: Iterable[str]) -> str:
    """Return a name for the artifact at *path* that dvc.yaml can hold and that is not *taken*: its stem, if it can be."""
    stem = path.rpartition("/")[2].partition(".")[0] or path.rpartition("/")[2]
    name = re.sub(r"[^A-Za-z0-9_-]", "-", stem)[:MOST].strip("-_") or "artifact"
    return free_name(name, taken)


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return *name*, with a number behind it where it is *taken*."""
    used, number, found = set(taken), 2, name
    while found in used:
        found, number = f"{name}-{number}", number + 1
    return found


def with_artifact(artifacts: Sequence[Artifact], artifact: Artifact) -> tuple[Artifact, ...]:
    """Return *artifacts* with *artifact* in the place of the one that had its path, or behind them."""
    if any(each.path == artifact.path for each in artifacts):
        return tuple(artifact if each.path == artifact.path else each for each in artifacts)
    return (*artifacts, artifact)


def section(artifacts: Sequence[Mapping[str, Any]], folder: str) -> dict[str, Any]:
    """Return the section `artifacts` of the dvc.yaml in *folder*, from artifacts as JSON holds them."""
    found: dict[str, Any] = {}
    for each in map(artifact_from_json, artifacts):
        told = {"type": each.type, "desc": each.desc, "labels": list(each.labels) or None, "meta": each.meta or None}
        kept = {key: value for key, value in told.items() if value is not None}
        found[free_name(each.name, found)] = {"path": relpath(each.path, folder), **kept}
    return found


class Referenced(Protocol):
    """Data that a `.dvc` file or a dvc.lock speaks of (`_datacache.Out`)."""

    @property
    def path(self) -> str: ...
    @property
    def md5(self) -> str: ...
    @property
    def executable(self) -> bool: ...
    @property
    def size(self) -> int: ...
    @property
    def files(self) -> int | None: ...


def described(folder: str, pipeline: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return what the section `artifacts` of the dvc.yaml in *folder* says, by path: its name and the rest."""
    found: dict[str, Mapping[str, Any]] = {}
    artifacts = pipeline.get("artifacts")
    for name, each in artifacts.items() if isinstance(artifacts, Mapping) else ():
        if isinstance(each, Mapping) and isinstance(each.get("path"), str):
            found[normpath(join(folder, each["path"]))] = {**each, "name": str(name)}
    return found


def found_artifacts(outs: Iterable[Referenced], told: Mapping[str, Mapping[str, Any]]) -> tuple[Artifact, ...]:
    """Return the artifacts that the files of DVC in a commit speak of, with what is *told* of each path."""
    found, names = list[Artifact](), set[str]()
    for out in outs:
        if "://" in out.path or work_tree_fault(out.path) is not None:
            continue
        about = told.get(out.path, {})
        labels = about.get("labels")
        text = {key: about[key] for key in ("type", "desc") if isinstance(about.get(key), str)}
        artifact = Artifact(
            name=free_name(about["name"], names) if "name" in about else default_name(out.path, names),
            path=out.path,
            hash=out.md5,
            size=out.size,
            files=out.files,
            executable=out.executable,
            labels=tuple(each for each in labels if isinstance(each, str)) if isinstance(labels, list) else (),
            meta=about["meta"] if isinstance(about.get("meta"), Mapping) else {},
            **text,
        )
        names.add(artifact.name)
        found.append(artifact)
    return tuple(found)


def artifact_files(
    artifacts: Sequence[Mapping[str, Any]], ignored: Collection[str], read: Callable[[str], bytes]
) -> dict[str, bytes | None]:
    """Return by path what a commit gets for *artifacts*, as JSON holds them; None: what stands there goes.

    They are what `dvc add` writes. *read* returns the content that a file has in the commit so far, empty for none;
    the paths *ignored* need no line in `.gitignore`.
    """
    found: dict[str, bytes | None] = {}
    for artifact in map(artifact_from_json, artifacts):
        folder, slash, name = artifact.path.rpartition("/")
        found[artifact.path] = None
        found[f"{artifact.path}.dvc"] = dvc_file(artifact)
        if artifact.path not in ignored:
            place = f"{folder}{slash}.gitignore"
            found[place] = with_line(found.get(place) or read(place), name)
    return found


def artifact_to_json(artifact: Artifact) -> dict[str, Any]:
    """Return *artifact* as JSON holds it."""
    return {
        "name": artifact.name,
        "path": artifact.path,
        "type": artifact.type,
        "desc": artifact.desc,
        "labels": artifact.labels,
        "meta": to_json(artifact.meta),
        "hash": artifact.hash,
        "size": artifact.size,
        "files": artifact.files,
        "executable": artifact.executable,
    }


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("name", "path", "hash"), (str,)),
    **dict.fromkeys(("type", "desc"), (str, type(None))),
    "labels": (list, tuple),
    "meta": (dict,),
    "size": (int,),
    "files": (int, type(None)),
    "executable": (bool,),
}


def artifact_from_json(value: Mapping[str, Any]) -> Artifact:
    """Undo `artifact_to_json`; raise `ValueError` for what is no artifact."""
    if not isinstance(value, dict) or value.keys() != _TYPES.keys():
        raise ValueError("an artifact that is none")
    for key, types in _TYPES.items():
        if type(value[key]) not in types:
            raise ValueError(f"an artifact whose {key} is {type(value[key]).__name__}")
    if not re.fullmatch(MD5, value["hash"]) or {type(label) for label in value["labels"]} - {str}:
        raise ValueError(f"an artifact whose hash is {value['hash']!r}, or a label of which is no text")
    return Artifact(**{**value, "labels": tuple(value["labels"]), "meta": from_json(value["meta"])})
