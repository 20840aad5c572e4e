"""What an experiment keeps by its content: files and folders of the work tree, however large."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ._data import Artifact
from ._description import Description
from ._desk import Desk
from ._exchanged import Progress
from ._formats.account import Account, kept
from ._formats.artifacts import artifact_to_json, default_name
from ._formats.journal import Kind
from ._formats.plain import plain
from ._lifecycle import Action, after
from ._names import check_artifact_name, check_message
from ._store import Store
from ._values import StrPath
from ._workers import errand
from .errors import InvalidName, UnsafePath

if TYPE_CHECKING:
    from ._artifacts import Spot
    from ._keeping import Keeper, Kept


class Deposit(Description):
    """The part of an experiment that puts data into a store."""

    __slots__ = ()

    async def log_artifact(
        self,
        path: StrPath,
        name: str | None = None,
        *,
        type: str | None = None,
        desc: str | None = None,
        labels: Collection[str] = (),
        meta: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Artifact:
        """Keep the file or folder *path* of the work tree by its content, and put a reference to it into the commit.

        *path* is relative to the top of the repository, or absolute inside it; a private checkout (`workspace()`, and
        that of a program which the experiment runs) counts as the repository. The content goes, once, into the cache
        of DVC as it is configured, or into the common Git directory where there is no DVC; the commit gets what
        `dvc add` writes, and *name* (the stem of the path by default), *type*, *desc*, *labels* and *meta* in
        dvc.yaml. The work tree stays as it is. A path that was logged before is replaced. On return the content is
        durable, and `flush()` makes the reference so. *progress* is called on the event loop.

        Raises `DataMissing` when nothing is there, or it does not stop changing; `UnsafePath` for what lies outside, is tracked by Git or by a stage
        of DVC, or is a symbolic link; `DiskFull`, `InvalidName` for a name that another path has, and
        `InvalidParams` for *meta* that JSON cannot hold. Cancelled, it did nothing or all; what was kept already stays.
        """
        after(self._state, Action.LOG)
        account, desk = self._here()
        told = self._censor.clean(_told(type, desc, labels, meta), "artifacts")
        chosen = None if name is None else check_artifact_name(name)
        here = os.getcwd() if account.joins else None
        spot = await desk.worker.run(_locate, account.code, account.baseline, path, dict(os.environ), here)
        self._check_place(spot.path, chosen)
        keep = partial(_keeper(desk).keep, spot.top, spot.path, spot.cache, spot.left_out)
        found = await errand("aexp-data", keep, progress, desk.hands)
        return await self._in_turn(self._note(spot, chosen, told, found))

    async def _note(self, spot: "Spot", name: str | None, told: Mapping[str, Any], found: "Kept") -> Artifact:
        after(self._state, Action.LOG)
        self._check_place(spot.path, name)
        account, _ = self._here()
        artifact = Artifact(
            name=_named(account, spot.path, name),
            path=spot.path,
            hash=found.md5,
            size=found.size,
            files=found.files,
            executable=found.executable,
            **told,
        )
        self._journal.record(Kind.ARTIFACT, [account.number, artifact_to_json(artifact), spot.ignored])
        self._account = kept(account, artifact, ignored=spot.ignored)
        return artifact

    def _check_place(self, path: str, name: str | None) -> None:
        """Raise when *path* and what was logged so far cannot be in one commit, or *name* is that of another path."""
        account, _ = self._here()
        others = [each for each in account.artifacts if each.path != path]
        for other in (*self._stream.files, *(each.path for each in others)):
            if other == path or other.startswith(f"{path}/") or path.startswith(f"{other}/"):
                raise UnsafePath(path, f"{other} was logged, and both cannot be in one commit")
        for each in others:
            if each.name == name:
                raise InvalidName("an artifact", name, f"the artifact at {each.path} is called so; choose another name")


def _locate(store: Store, *asked: Any) -> "Spot":
    from ._artifacts import locate

    return locate(store, *asked)


def _keeper(desk: Desk) -> "Keeper":
    if desk.keeper is None:
        from ._keeping import Keeper

        desk.keeper = Keeper()
    return desk.keeper


def _named(account: Account, path: str, name: str | None) -> str:
    if name is not None:
        return name
    before = next((each.name for each in account.artifacts if each.path == path), None)
    return before or default_name(path, [each.name for each in account.artifacts])


def _told(
    type: str | None, desc: str | None, labels: Collection[str], meta: Mapping[str, Any] | None
) -> dict[str, Any]:
    if isinstance(labels, str):
        raise TypeError("labels are a collection of texts, not one text")
    for text in (type, desc, *labels):
        if text is not None:
            check_message(text)
    plainly = {} if meta is None else plain(meta)
    return {"type": type, "desc": desc, "labels": tuple(dict.fromkeys(labels)), "meta": plainly}
