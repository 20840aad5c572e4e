"""The data of experiments on its way: what commits reference, from the cache to a remote for data, and back."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any, Final

from attrs import define, evolve, field, frozen

from . import _datacache
from ._artifacts import keeping_place
from ._datacache import DataCache, Out, made, outs_of
from ._depots import Depot, asked, opened, remote_of
from ._exchanged import TransferProgress
from ._files import Breath, Stopped, sync, sync_folder, translating, write_all
from ._formats.gitobjects import FOLDER, SYMLINK, parse_commit, parse_tree
from ._formats.params import load_params
from ._git import read_object
from ._lines import Line
from .errors import DataMissing, InvalidParams

JOBS: Final = 8
"""How many objects are on their way at once."""
WAY_OUT: Final = "or pass data=False to leave the data behind"


@frozen(eq=False)
class Load:
    """Data that must be on both sides: a file or a folder, which path speaks of it, and the cache that it belongs to."""

    md5: str
    path: str
    cache: DataCache
    remote: str = ""
    """The remote for data that it has to itself (`remote` of an out); empty for the default one."""


@define(eq=False)
class Freight:
    """Brings data to the remote for data, or from there; *home* is the environment, where DVC has settings, too."""

    home: Mapping[str, str]
    _guard: threading.Lock = field(factory=threading.Lock)
    _done: int = 0
    _total: int = 0
    _bytes: int = 0
    _due: float = 0.0

    def send(self, line: Line, revs: Iterable[str]) -> bool:
        """Bring the data that the commits *revs* reference to the remote; False when no remote for data is configured.

        What is there is not sent again, and a folder's manifest goes behind its files. Raises `DataMissing` when some
        is neither here nor there, or damaged here; `RemoteError`.
        """
        return self._with_each(line, revs, self._send)

    def fetch(self, line: Line, revs: Iterable[str]) -> bool:
        """Bring the data that the commits *revs* reference into the cache; False when no remote for data is configured.

        What is here is not fetched again; what comes is looked at whole before it is here. Raises `DataMissing` when
        the remote does not have it, or sends something else; `UnsafePath` for a manifest that leaves its folder;
        `RemoteError`.
        """
        return self._with_each(line, revs, self._fetch)

    def _with_each(self, line: Line, revs: Iterable[str], move: Callable[[Line, Depot, Sequence[Load]], None]) -> bool:
        loads = _loads(line, revs, self.home)
        top = line.handle.worktree
        shares: dict[tuple[str, str], list[Load]] = {}
        for load in loads if top is not None else ():
            shares.setdefault((_root(load, top or ""), load.remote), []).append(load)
        missing = False
        for (root, own), share in shares.items():
            wanted = remote_of(root, self.home, own)
            if wanted is None:
                missing = True
                continue
            self._done = self._bytes = 0
            with opened(wanted, line.limits) as depot:
                move(line, depot, share)
        return bool(shares) and not missing

    # ---- out ----

    def _send(self, line: Line, depot: Depot, loads: Sequence[Load]) -> None:
        folders = [load for load in loads if load.md5.endswith(".dir")]
        there = self._all(line, folders, lambda load: asked(depot, lambda: depot.size(load.md5)))
        new = [load for load, size in zip(folders, list(there), strict=True) if size is None]
        files = {load.md5: load for load in loads if not load.md5.endswith(".dir")}
        for load in new:
            inside = load.cache.manifest(load.md5)
            if inside is None:
                raise DataMissing(
                    [load.path], f"its manifest is not in the cache, and not on {depot.name!r}; pull it, {WAY_OUT}"
                )
            files |= {md5: evolve(load, md5=md5, path=f"{load.path}/{path}") for path, md5 in inside.items()}
        self._done, self._total = 0, len(files) + len(new)
        for group in (list(files.values()), new):
            for _ in self._all(line, group, lambda load: self._send_one(line, depot, load)):
                pass

    def _send_one(self, line: Line, depot: Depot, load: Load) -> None:
        source = load.cache.path(load.md5)
        there = asked(depot, lambda: depot.size(load.md5))
        if there is not None and (source is None or there == os.stat(source).st_size):
            self._say(line, "sending data", 0)
            return
        if source is None or not load.cache.holds(load.md5):
            how = "not" if source is None else "damaged"
            raise DataMissing([load.path], f"it is {how} in the cache, and not on {depot.name!r}; pull it, {WAY_OUT}")
        asked(depot, lambda: depot.send(load.md5, source))
        self._say(line, "sending data", os.stat(source).st_size)

    # ---- in ----

    def _fetch(self, line: Line, depot: Depot, loads: Sequence[Load]) -> None:
        folders = [load for load in loads if load.md5.endswith(".dir")]
        files = {load.md5: load for load in loads if not load.md5.endswith(".dir")}
        self._total = len(folders) + len(files)
        caches = {load.cache for load in loads}
        with translating(), ExitStack() as stack:
            benches = {cache: stack.enter_context(cache.scratch()) for cache in caches}
            waiting: list[tuple[Load, str | None]] = []
            for load, made_at in zip(
                folders, self._all(line, folders, lambda load: self._bring(line, depot, load, benches)), strict=True
            ):
                inside = _manifest(load, made_at)
                files |= {md5: evolve(load, md5=md5, path=f"{load.path}/{path}") for path, md5 in inside.items()}
                waiting.append((load, made_at))
            self._total = len(folders) + len(files)

            def bring(load: Load) -> None:
                made_at = self._bring(line, depot, load, benches)
                if made_at is not None:
                    _put(load, made_at)

            for _ in self._all(line, list(files.values()), bring):
                pass
            for load, made_at in waiting:  # a manifest says that its files are there
                if made_at is not None:
                    _put(load, made_at)
            for folder in {os.path.dirname(load.cache.place(load.md5)) for load in (*files.values(), *folders)}:
                with suppress(FileNotFoundError):  # it was in the other store
                    sync_folder(folder)

    def _bring(self, line: Line, depot: Depot, load: Load, benches: Mapping[DataCache, str]) -> str | None:
        """Fetch an object, and return where it lies, verified and synced; None when the cache has it."""
        if load.cache.trusts(load.md5):
            self._say(line, "fetching data", 0)
            return None
        path = os.path.join(benches[load.cache], load.md5)
        hashed, size = hashlib.md5(usedforsecurity=False), 0
        parts = depot.parts(load.md5)
        with suppress(FileNotFoundError):
            os.unlink(path)
        target = made(path)
        try:
            while part := asked(depot, lambda: next(parts, b""), missing=True):
                if line.stopped():
                    raise Stopped
                write_all(target, part)
                hashed.update(part)
                size += len(part)
            sync(target)
            os.fchmod(target, 0o444)
        except FileNotFoundError as error:
            raise DataMissing(
                [load.path], f"{depot.name!r} does not have it; push it from where it was made, {WAY_OUT}"
            ) from error
        finally:
            os.close(target)
        if hashed.hexdigest() != load.md5.removesuffix(".dir"):
            raise DataMissing(
                [load.path], f"{depot.name!r} holds something else as {load.md5}; nothing was taken, {WAY_OUT}"
            )
        self._say(line, "fetching data", size)
        return path

    # ---- both ----

    def _all(self, line: Line, loads: Sequence[Load], call: Callable[[Load], Any]) -> Iterator[Any]:
        """Yield what *call* returns for each of *loads*, several at once; what has not begun when one fails never does."""
        over = threading.Event()

        def one(load: Load) -> Any:
            if over.is_set() or line.stopped():
                raise Stopped
            return call(load)

        with ThreadPoolExecutor(JOBS, thread_name_prefix="aexp-data") as threads:
            futures = [threads.submit(one, load) for load in loads]
            try:
                for future in futures:
                    yield future.result()
            except BaseException:
                over.set()
                for future in futures:
                    future.cancel()
                raise

    def _say(self, line: Line, phase: str, size: int) -> None:
        with self._guard:
            self._done, self._bytes = self._done + 1, self._bytes + size
            if time.monotonic() > self._due or self._done == self._total:
                self._due = time.monotonic() + 0.1
                line.teller.tell(TransferProgress(phase=phase, done=self._done, total=self._total, bytes=self._bytes))


def _manifest(load: Load, made_at: str | None) -> Mapping[str, str]:
    """Return the files of a folder, from the manifest that was just fetched or stands in the cache."""
    inside = load.cache.manifest(load.md5) if made_at is None else _datacache.read_manifest(made_at, load.md5)
    if inside is None:
        raise DataMissing([load.path], f"its manifest {load.md5} is none")
    return inside


def _put(load: Load, made_at: str) -> None:
    place = load.cache.place(load.md5)
    load.cache.make(os.path.dirname(place))
    os.rename(made_at, place)


# ---- what commits reference ----


def _root(load: Load, top: str) -> str:
    folders = load.path.split("/")[:-1]
    for end in range(len(folders), -1, -1):
        root = os.path.join(top, *folders[:end])
        if os.path.isdir(os.path.join(root, ".dvc")):
            return root
    return top


def _loads(line: Line, revs: Iterable[str], home: Mapping[str, str]) -> list[Load]:
    """Return the data that the trees of *revs* reference, each object once."""
    found: dict[tuple[str, str], Load] = {}
    seen: set[tuple[str, bytes]] = set()
    for rev in dict.fromkeys(revs):
        for out in _outs(line, bytes.fromhex(parse_commit(read_object(line.handle, rev)[1]).tree), "", seen):
            key = out.md5, out.remote
            if key not in found and "://" not in out.path and not out.path.startswith(("/", "..")):
                found[key] = Load(out.md5, out.path, keeping_place(line.handle, out.path, home), out.remote)
    return list(found.values())


def _outs(line: Line, tree: bytes, folder: str, seen: set[tuple[str, bytes]]) -> Iterator[Out]:
    if (folder, tree) in seen:  # experiments share most of their trees
        return
    seen.add((folder, tree))
    breath, entries = Breath(), parse_tree(read_object(line.handle, tree)[1])
    for name, entry in entries.items():
        breath()
        path = f"{folder}{os.fsdecode(name)}"
        if entry.mode == FOLDER:
            yield from _outs(line, entry.id, f"{path}/", seen)
        elif entry.mode != SYMLINK and (name.endswith(b".dvc") or name == b"dvc.lock"):
            with suppress(InvalidParams):  # nobody can say what it references
                beside = entries.get(b"dvc.yaml") if name == b"dvc.lock" else None
                pipeline = load_params(read_object(line.handle, beside.id)[1], "dvc.yaml") if beside else {}
                yield from outs_of(path, load_params(read_object(line.handle, entry.id)[1], f"{path}.yaml"), pipeline)
