"""Files and folders of the work tree into the content store of DVC: hashed, stored once, whole or not at all.

An object is written beside the store, synced, made read-only, and only then given its name; what stands in the work
tree is read, and never changed or linked to (decision 0030).
"""

import hashlib
import os
import stat
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Final

from attrs import define, field, frozen

from ._beneath import SLICE, Beneath
from ._datacache import YOUNG, DataCache, clone, made
from ._exchanged import TransferProgress
from ._files import Breath, Stopped, sync, sync_disk, sync_folder, translating, write_all
from ._formats.dvcfile import manifest
from ._names import work_tree_fault
from .errors import DataMissing, UnsafePath

BATCH: Final = 1_000
"""How many objects are synced together."""
SMALL: Final = 2**15
"""Files of fewer bytes are hashed in less time than another thread takes to wake up."""
TRIES: Final = 3
"""How often a file is read that changes meanwhile."""
SKIPPED: Final = (".git", ".hg", ".dvc")
"""Folders that are no part of the data, as in DVC (`dvc/ignore.py`)."""
KNOWN: Final = 2**17
"""How many files are remembered by what the disk says of them; 40 MB at most."""
FRESH: Final = 50_000_000
"""Nanoseconds in which a file may change again without another time: disks count in steps of the kernel's clock."""
COARSE: Final = 2_000_000_000
"""The same where times are whole seconds."""
THREADS: Final = min(4, os.cpu_count() or 1)
"""How many files are hashed at once."""
CHUNK: Final = 64
"""How many files of a folder a thread takes at a time, so that no thread waits long for another at the end."""

_FIVE: Final = struct.Struct("5Q")
_WORD: Final = 2**64 - 1  # a disk may say any year
Tell = Callable[[TransferProgress], None]
PAUSE: Final = 0.1
"""Seconds between two tellings."""


@frozen
class Kept:
    """What is in the store now: the MD5 (with `.dir` for a folder), the bytes, and the number of files of a folder."""

    md5: str
    size: int
    files: int | None
    executable: bool


@define(eq=False)
class Keeper:
    """Keeps files in stores, and remembers what it has hashed; any number of threads may use it."""

    _known: dict[str, bytes] = field(factory=dict)
    """By path: size, times and inode, and the MD5 behind them."""

    def keep(
        self,
        top: str,
        path: str,
        cache: DataCache,
        left_out: Collection[str],
        stopped: Callable[[], bool],
        tell: Tell,
    ) -> Kept:
        """Bring the file or folder *path* of the work tree at *top*, but for *left_out*, into *cache*; durable on return.

        Raises `DataMissing` when nothing is there or it does not stop changing, and `UnsafePath` for a link or what is no
        file, also inside. *stopped* ends it with `Stopped`; nothing half is left.
        """
        with translating(cache.folder), Beneath(top) as ground:
            kind = ground.kind(path)
            if kind is None:
                raise _nothing(ground, path)
            if kind not in ("file", "folder"):
                raise _unfit(path, kind)
            with cache.scratch() as scratch:
                work = _Work(self._known, top, cache, scratch, stopped, tell)
                if kind == "file":
                    work.of_files = 1
                    md5, size, executable = work.all([path])[0]
                    work.finish()
                    return Kept(md5, size, None, executable)
                return work.folder(ground, path, left_out)


@define(eq=False)
class _Work:
    """One file or folder on its way into the store."""

    known: dict[str, bytes]
    top: str
    cache: DataCache
    scratch: str
    stopped: Callable[[], bool]
    tell: Tell
    of_files: int = 0
    files: int = 0
    length: int = 0
    """Bytes that were read."""
    _numbers: Iterator[int] = field(factory=count)
    _made: list[tuple[str, str]] = field(factory=list)
    """Objects that wait to be synced, and what they are to be called."""
    _folders: set[str] = field(factory=set)
    """Folders of the store whose names are to be synced."""
    _guard: threading.Lock = field(factory=threading.Lock)
    _due: float = 0.0
    _young: float = field(factory=lambda: time.time() - YOUNG)
    _rooms: list[memoryview] = field(factory=lambda: [memoryview(bytearray(SLICE)) for _ in range(THREADS)])
    """One for each thread to read into: making one takes as long as hashing what it holds."""

    def folder(self, ground: Beneath, path: str, left_out: Collection[str]) -> Kept:
        """Keep the folder *path*, but for *left_out*: its files, and then the manifest that names them."""
        each_path = (f"{path}/{each}" for each in sorted(below(ground, path, self.stopped)))
        paths = [each for each in each_path if each not in left_out]
        self.of_files = len(paths)
        found: dict[str, str] = {}
        size = 0
        for place in range(0, len(paths), BATCH):
            some = paths[place : place + BATCH]
            for each, (md5, length, _) in zip(some, self.all(some), strict=True):
                found[each[len(path) + 1 :]] = md5
                size += length
            self._publish()
        hashed, length, breath = hashlib.md5(usedforsecurity=False), 0, Breath()
        for part in manifest(found):
            breath()
            hashed.update(part)
            length += len(part)
        md5 = f"{hashed.hexdigest()}.dir"
        if not self._stands(md5, length):
            name = self._name()
            with open(name, "xb") as file:
                for part in manifest(found):
                    breath()
                    file.write(part)
            self._made.append((name, md5))
        self.finish()
        return Kept(md5, size, len(found), executable=False)

    def all(self, paths: Sequence[str]) -> list[tuple[str, int, bool]]:
        """Keep each of *paths*, several at once; return (MD5, size, whether it is executable) of each."""
        if len(paths) == 1:
            return self._share(paths)
        share = min(CHUNK, -(-len(paths) // THREADS))
        shares = [paths[place : place + share] for place in range(0, len(paths), share)]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="aexp-hash") as threads:
            return [each for found in threads.map(self._share, shares) for each in found]

    def _share(self, paths: Sequence[str]) -> list[tuple[str, int, bool]]:
        """Keep each of *paths*, in one thread; every call that is spared here is spared a hundred thousand times."""
        found, breath, room = [], Breath(), self._rooms.pop()
        with Beneath(self.top) as ground:
            for path in paths:
                self._look_up()
                kept = self._one(ground, path, room)
                found.append(kept)
                with self._guard:
                    self.files += 1
                if kept[1] < SMALL:  # hashing more lets the interpreter go for long enough
                    breath()
                if time.monotonic() > self._due:
                    self._say()
        self._rooms.append(room)
        return found

    def _look_up(self) -> None:
        if self.stopped():
            raise Stopped

    def _one(self, ground: Beneath, path: str, room: memoryview) -> tuple[str, int, bool]:
        for _ in range(TRIES):
            descriptor = _opened(ground, path)
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    raise _unfit(path, "other")
                size, times = before.st_size, _times(before)
                known = self.known.get(path, b"")
                md5 = known[len(times) :].hex() if known.startswith(times) else None
                if md5 is None or not self._stands(md5, size):
                    began = time.time_ns()
                    md5 = self._read(descriptor, size, room)
                    if md5 is None or _times(os.fstat(descriptor)) != times:
                        continue
                    if _is_settled(before, began):
                        self._remember(path, times, md5)
                return md5, size, bool(before.st_mode & 0o100)
            finally:
                os.close(descriptor)
        raise DataMissing([path], "it changes while it is read; log it when it is written whole")

    def _stands(self, md5: str, size: int) -> bool:
        """Say whether the store has the object; its folder is synced if its name may not be on the disk yet."""
        since = self.cache.standing(md5, size)
        if since is None:
            return False
        if since > self._young:
            self._folders.add(self.cache.home(md5))
        return True

    def _remember(self, path: str, times: bytes, md5: str) -> None:
        if len(self.known) >= KNOWN:
            self.known.clear()
        self.known[path] = times + bytes.fromhex(md5)

    def _read(self, descriptor: int, size: int, room: memoryview) -> str | None:
        """Return the MD5 of the open file, and see that the store has it; None when it is found to have changed."""
        if size < SLICE:
            length = os.readv(descriptor, [room[: size + 1]])
            if length != size:
                return None
            self._count(size)
            content = room[:size]
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            if not self._stands(md5, size):
                name = self._name()
                target = made(name)
                try:
                    write_all(target, content)
                finally:
                    os.close(target)
                self._wait(name, md5)
            return md5
        md5 = self._digest(descriptor, room)
        if not self._stands(md5, size):
            name = self._name()
            self._copy(descriptor, name)
            target = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if self._digest(target, room, counted=False) != md5:
                    return None
            finally:
                os.close(target)
            self._wait(name, md5)
        return md5

    def _digest(self, descriptor: int, room: memoryview, *, counted: bool = True) -> str:
        os.lseek(descriptor, 0, os.SEEK_SET)
        hashed = hashlib.md5(usedforsecurity=False)
        while length := os.readv(descriptor, [room]):
            self._look_up()
            hashed.update(room[:length])
            if counted:
                self._count(length)
                self._say()
        return hashed.hexdigest()

    def _say(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now > self._due:
            self._due = now + PAUSE
            self.tell(TransferProgress(phase="hashing", done=self.files, total=self.of_files, bytes=self.length))

    def _count(self, length: int) -> None:
        with self._guard:
            self.length += length

    def _copy(self, source: int, name: str) -> None:
        os.lseek(source, 0, os.SEEK_SET)
        target = made(name)
        try:
            if not clone(source, target):
                while part := os.read(source, SLICE):
                    self._look_up()
                    write_all(target, part)
        finally:
            os.close(target)

    def _name(self) -> str:
        with self._guard:
            return os.path.join(self.scratch, str(next(self._numbers)))

    def _wait(self, name: str, md5: str) -> None:
        with self._guard:
            self._made.append((name, md5))

    def _publish(self) -> None:
        """Sync the objects that were made, and give them their names."""
        self._look_up()
        made, self._made = self._made, []
        if not made:
            return
        together = len(made) > THREADS and sync_disk(self.scratch)
        breath = Breath()
        for name, md5 in made:
            breath()
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not together:
                    sync(descriptor)
                os.fchmod(descriptor, 0o444)
            finally:
                os.close(descriptor)
            place = self.cache.place(md5)
            folder = os.path.dirname(place)
            if folder not in self._folders or not os.path.isdir(folder):
                self.cache.make(folder)
                self._folders.add(folder)
            os.rename(name, place)

    def finish(self) -> None:
        """Publish what is left, and sync the names."""
        self._publish()
        for folder in sorted(self._folders):
            self._look_up()
            if os.path.isdir(folder):
                sync_folder(folder)
        self._say(last=True)


# ---- the work tree ----


def below(ground: Beneath, path: str, stopped: Callable[[], bool]) -> Iterator[str]:
    """Yield the path of each file below the folder *path*, relative to it; raise `UnsafePath` for a link, or a device."""
    folders, breath = [""], Breath()
    while folders:
        inside = folders.pop()
        if stopped():
            raise Stopped
        with os.scandir(ground.folder(f"{path}/{inside}".rstrip("/"))) as entries:
            for entry in entries:
                breath()
                place = f"{inside}{entry.name}"
                fault = _fault(entry.name)
                if fault is not None:
                    raise UnsafePath(f"{path}/{place}", fault)
                if entry.name in SKIPPED and entry.is_dir(follow_symlinks=False):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{place}/")
                elif entry.is_file(follow_symlinks=False):
                    yield place
                else:
                    raise _unfit(f"{path}/{place}", "link" if entry.is_symlink() else "other")


def _fault(name: str) -> str | None:
    """Say why no manifest may name a file so; None when it may, and for the folders that are left out."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is no UTF-8, which no manifest of DVC can hold"
    if name == ".dvcignore":
        return "DVC takes no folder that holds a .dvcignore; move it above"
    return None if name in SKIPPED else work_tree_fault(name)


def _opened(ground: Beneath, path: str) -> int:
    try:
        return ground.open(path)
    except FileNotFoundError:
        raise DataMissing([path], "it went away while it was read") from None
    except OSError as error:
        kind = ground.kind(path)
        if kind == "file":
            raise
        raise _unfit(path, kind or "other") from error


def _nothing(ground: Beneath, path: str) -> DataMissing | UnsafePath:
    blocker = ground.blocker(path)
    if blocker is not None:
        return UnsafePath(path, f"{blocker} is no folder; links are not followed")
    return DataMissing([path], "no file or folder of the work tree is there")


def _unfit(path: str, kind: str) -> UnsafePath:
    what = "a symbolic link, which is not followed; log what it points to" if kind == "link" else "no regular file"
    return UnsafePath(path, f"it is {what}")


def _times(found: os.stat_result) -> bytes:
    """Return what the disk says of a file that tells whether it was changed."""
    changed, moved = found.st_mtime_ns & _WORD, found.st_ctime_ns & _WORD
    return _FIVE.pack(found.st_size, changed, moved, found.st_ino, found.st_dev & _WORD)


def _is_settled(found: os.stat_result, began: int) -> bool:
    """Say whether a change after *began*, nanoseconds since 1970, would give the file another time."""
    age = began - max(found.st_mtime_ns, found.st_ctime_ns)
    if age <= FRESH or age > COARSE:
        return age > COARSE
    return bool(found.st_mtime_ns % 1_000_000_000 or found.st_ctime_ns % 1_000_000_000)
