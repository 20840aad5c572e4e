"""Files that survive: sync, atomic replacement, durable folders, locks; and threads to wait for the disk in.

No Git here, no event loop.
"""

import errno
import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from .errors import AexpError, DiskFailed, DiskFull, JournalFailed, ReadOnlyRepository, TooManyOpenFiles

T = TypeVar("T")
P = ParamSpec("P")
TOGETHER: Final = 8
"""How many syncs are asked for at once."""
REST: Final = 1e-4
"""Seconds that a thread stands back for when it gives way; the kernel adds 50 µs."""
PAUSE: Final = 1e-3
"""Seconds that a thread works in Python before it gives way."""
REFUSALS: Final = (DiskFailed, DiskFull, ReadOnlyRepository, TooManyOpenFiles)
"""What a disk may say, and may not say any more when it is asked again."""
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
_BROKEN = {errno.EIO, errno.ENXIO, errno.ENODEV, errno.EBADMSG, errno.ESTALE, errno.ETIMEDOUT}
_SPOKEN = {os.strerror(number): number for number in (*_NO_SPACE, *_READ_ONLY, *_NO_DESCRIPTOR, errno.EIO)}
"""What libgit2 and `git` end a message with, in place of a number."""


def translated(error: OSError, path: str | None = None) -> OSError | AexpError:
    """Return the error of ours that *error* is, or *error* itself when it is of no kind that we name."""
    place, number = str(path or error.filename or "a file"), error.errno or spoken(str(error))
    if number in _NO_SPACE:
        return DiskFull(place)
    if number in _READ_ONLY:
        return ReadOnlyRepository(place)
    if number in _NO_DESCRIPTOR:
        return TooManyOpenFiles(place)
    if number in _BROKEN:
        return DiskFailed(place, OSError(number, os.strerror(number)))
    return error


def spoken(words: str) -> int | None:
    """Return the number of the system's error that *words* (in English) tell of; None when of no kind that we name."""
    return next((number for said, number in _SPOKEN.items() if said in words), None)


@contextmanager
def translating(path: str | None = None) -> Iterator[None]:
    """Turn the operating system's errors in the block into ours, where we have a name for them."""
    try:
        yield
    except AexpError:
        raise
    except OSError as error:
        ours = translated(error, path)
        if ours is error:
            raise
        raise ours from error


def told_of_disk(error: OSError) -> OSError | AexpError:
    """Return the error of ours for a disk that is full, broken or read-only, or no descriptor left; any other as it is."""
    ours = error if isinstance(error, AexpError) else translated(error)
    return error if isinstance(ours, ReadOnlyRepository) and error.errno != errno.EROFS else ours


def of_journal(error: OSError, path: str) -> AexpError:
    """Return the error of ours that *error* is for the journal at *path*, which can be written or cannot."""
    ours = translated(error, path)
    return ours if isinstance(ours, AexpError) and not isinstance(ours, DiskFailed) else JournalFailed(path, error)


def sync(descriptor: int) -> None:
    """Bring a file's content and size to the disk; on macOS through the drive's cache, too."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def sync_folder(path: str) -> None:
    """Bring the names in the folder *path* to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_disk(folder: str) -> bool:
    """Bring all that waits for the disk of *folder* to it, at once; False where the system cannot (syncfs(2))."""
    if sys.platform != "linux":
        return False
    import ctypes

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return bool(ctypes.CDLL(None, use_errno=True).syncfs(descriptor) == 0)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write *content* whole, however short the single writes are."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_new(path: str, content: bytes, *, mode: int = 0o644) -> None:
    """Make the file *path*, which must not exist, whole or not at all, and sync it; the folder is left to the caller."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, content)
        sync(descriptor)
    except BaseException:
        remove(path)
        raise
    finally:
        os.close(descriptor)


def replace(path: str, content: bytes, *, mode: int = 0o644) -> None:
    """Make the file *path* anew with *content*: others see the old one or the new one, whole; nothing is synced."""
    draft = f"{path}.aexp-{os.getpid()}-{threading.get_ident()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, content)
        os.replace(draft, path)
    except BaseException:
        remove(draft)
        raise
    finally:
        os.close(descriptor)


def write_many(contents: Mapping[str, bytes]) -> None:
    """Make each file (path -> content), anew where one of that name lies, and sync them, several at once.

    The file system answers syncs that wait together with one write of its journal (100 files: 11 ms instead of 33 ms
    on ext4). Raises the first error.
    """
    pairs = list(contents.items())
    shares = [pairs[place::TOGETHER] for place in range(min(TOGETHER, len(pairs)))]
    if len(shares) < TOGETHER:
        _write_share(pairs)
        return
    with ThreadPoolExecutor(TOGETHER, thread_name_prefix="aexp-sync") as threads:
        list(threads.map(_write_share, shares))


def _write_share(pairs: Sequence[tuple[str, bytes]]) -> None:
    for path, content in pairs:
        remove(path)
        write_new(path, content)


def make_folders(path: str, *, durable: bool = True) -> list[str]:
    """Make the folder *path* and those above it that are missing; return the folders that got a new name."""
    missing: list[str] = []
    probe = path
    while not os.path.isdir(probe):
        missing.append(probe)
        probe = os.path.dirname(probe)
    changed = []
    for folder in reversed(missing):
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise
        changed.append(os.path.dirname(folder))
    if durable:
        for folder in changed:
            sync_folder(folder)
    return changed


def move_folder(source: str, target: str) -> None:
    """Rename a folder, durably: both parents are synced."""
    os.rename(source, target)
    sync_folder(os.path.dirname(target))
    if os.path.dirname(source) != os.path.dirname(target):
        sync_folder(os.path.dirname(source))


def remove(path: str) -> None:
    """Remove the file *path* if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def read(path: str) -> bytes:
    """Return the content of the file *path*."""
    with open(path, "rb") as file:
        return file.read()


def lock(path: str) -> int | None:
    """Take the lock on the existing file *path* for as long as the descriptor lives; None when another holds it.

    `flock`, because the kernel frees it on any death, and because no other close in this process does
    (POSIX record locks have neither property).
    """
    while True:
        try:
            descriptor = _opened(path)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
                return None
            raise
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # the folder was renamed or replaced between open and lock


def _opened(path: str) -> int:
    """Open the file for writing, which NFS asks of who locks; where nothing can be written, for reading."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _is_still(path: str, descriptor: int) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    ours = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


class Stopped(Exception):
    """A long call was told to stop, and has; it left nothing half done."""


class Thread(Executor):
    """One thread, started at once, that makes the calls it is given, one after the other.

    The executors of the standard library are shut as soon as the interpreter begins to end; this one works on until
    `shutdown`, or for as long as anything does.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call *function* behind what was asked for before; the future gives what it returns or raises."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: function(*args, **kwargs)))
        return future

    def _work(self) -> None:
        while (asked := self._calls.get()) is not None:
            future, call = asked
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del asked, future, call  # what they hold must not live until the next call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread when it has done what it was asked for."""
        self._calls.put(None)
        if wait:
            self._thread.join()


def give_way() -> None:
    """Give the interpreter to the event loop.

    A thread that works in Python without this keeps the loop waiting for 5 ms at a time (the switch interval);
    `sched_yield` starves it instead (performance reference, part 1a). So does a shorter sleep: it is over before a
    processor that was idle has woken the loop's thread, which then waits for the next time, again and again, and
    never for as long as the switch interval (measured beside 1 µs: 4 ms in a thousand, 20 to 130 ms at worst).
    """
    time.sleep(REST)


class Breath:
    """Gives way whenever a millisecond has passed since the last time."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = time.perf_counter() + PAUSE

    def __call__(self) -> None:
        """Give way if it is time."""
        if time.perf_counter() > self._due:
            give_way()
            self._due = time.perf_counter() + PAUSE
