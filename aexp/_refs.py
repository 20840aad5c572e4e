"""Refs: listed, moved by compare-and-set under Git's own locks, deleted by `git`, swept of what the dead left."""

import os
import re
import stat
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from attrs import frozen

from ._files import Breath, lock, make_folders, remove, sync_folder, translating, write_many
from ._git import Handle, read_ref, run
from ._layout import trash_ref
from .errors import AexpError, GitError, ReadOnlyRepository

SLICE: Final = 1 << 16
"""Bytes of packed refs made into text at once."""
WINDOW: Final = 1 << 20
"""Bytes of packed refs searched at once."""
_DURABLE: Final = ("core.fsync=reference", "core.filesRefLockTimeout=1000", "core.packedRefsTimeout=5000")
"""The settings of `git update-ref`: it syncs refs before they stand (Git 2.36), and waits for locks, in milliseconds."""
_PATIENCE: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16, 0.16, 0.16)
"""How long to wait for a ref's lock that another process is passing through, in seconds, try by try."""


def list_refs(handle: Handle, prefix: str) -> dict[str, str]:
    """Return every ref below *prefix* (which ends in `/`) with the rev it holds, "" where the file is damaged.

    Read in Python: libgit2 holds the interpreter while it lists (8 ms a thousand), and leaves damaged refs out.
    """
    found: dict[str, str] = {}
    breath, packed = Breath(), _packed(handle)
    places, name_at = range(len(packed)), partial(_name_at, packed)
    start, last = (bisect_left(places, each, key=name_at) for each in _span(packed, os.fsencode(prefix)))
    while start < last:  # in slices, because no thread runs while bytes become text
        stop = packed.find(b"\n", min(start + SLICE, last - 1)) + 1 or last
        lines = packed[start:stop].decode("utf-8", "surrogateescape").split("\n")
        found.update([(line[41:], line[:40]) for line in lines if line.startswith(prefix, 41)])
        start = stop
        breath()
    for ref, path in _loose(os.path.join(handle.common, prefix), prefix):
        breath()
        with suppress(FileNotFoundError):
            _take(found, ref, path)
    return found


def refs_called(handle: Handle, prefix: str, name: str) -> dict[str, str]:
    """Return, as `list_refs` does, the refs two folders below *prefix* whose last part is *name*.

    Among 100,000 refs this takes a fiftieth of listing them.
    """
    found: dict[str, str] = {}
    breath, packed, mark, place = Breath(), _packed(handle), os.fsencode(f"/{name}\n"), 0
    while place < len(packed):
        hit = packed.find(mark, place, place + WINDOW)
        place = max(place + 1, place + WINDOW - len(mark)) if hit < 0 else hit + 1
        if hit >= 0:
            line = packed[packed.rfind(b"\n", 0, hit) + 1 : hit + len(mark) - 1].decode("utf-8", "surrogateescape")
            if line.startswith(prefix, 41):
                found[line[41:]] = line[:40]
        breath()
    for folder, top in _folders(os.path.join(handle.common, prefix), prefix, 2):
        breath()
        path = os.path.join(folder, name)
        with suppress(FileNotFoundError, NotADirectoryError):
            other = stat.S_ISDIR(os.lstat(path).st_mode)  # refs stand below that name
            if not other and (
                sys.platform != "darwin" or name in os.listdir(folder)
            ):  # macOS finds other spellings, too
                _take(found, f"{top}{name}", path)
    return found


def _take(found: dict[str, str], ref: str, path: str) -> None:
    try:
        held = _held(path)
    except (IsADirectoryError, PermissionError):  # it is damaged, and the others are not
        held = b""
    if not held.startswith(b"ref:"):
        found[ref] = held.decode() if re.fullmatch(rb"[0-9a-f]{40}", held) else ""


def _packed(handle: Handle) -> bytes:
    """Return the file of packed refs: a line each, `rev SP ref`, behind a header; lines with `^` belong to those before."""
    try:
        with open(os.path.join(handle.common, "packed-refs"), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _span(packed: bytes, prefix: bytes) -> tuple[bytes, bytes]:
    """Return the first and the last name between which the refs below *prefix* stand: all, if they are not sorted."""
    if b" sorted" in packed[: packed.find(b"\n")]:
        return prefix, prefix[:-1] + bytes([prefix[-1] + 1])
    return b"", b"\xff"


def _name_at(packed: bytes, place: int) -> bytes:
    """Return the name of the ref whose line holds *place*, or of the next one when there is none in it."""
    start = packed.rfind(b"\n", 0, place) + 1
    while packed[start : start + 1] in (b"#", b"^"):
        start = packed.find(b"\n", start) + 1 or len(packed)
    stop = packed.find(b"\n", start)
    return packed[start + 41 : stop if stop >= 0 else len(packed)] or b"\xff"


def _folders(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield each folder *depth* levels below *folder*, with the beginning of the names of its refs."""
    if not depth:
        yield folder, prefix
        return
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _folders(entry.path, f"{prefix}{entry.name}/", depth - 1)


def _held(path: str) -> bytes:
    """Return what a ref's file holds; through bare descriptors, in a third of the time that a file object takes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would never answer
    try:
        return os.read(descriptor, 4096).strip()
    finally:
        os.close(descriptor)


def _loose(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _loose(entry.path, f"{prefix}{entry.name}/")
                elif not entry.name.endswith(".lock"):
                    yield f"{prefix}{entry.name}", entry.path
    except (FileNotFoundError, NotADirectoryError):
        return


@frozen(eq=False, repr=False)
class Move:
    """A ref that shall hold *new* if it holds *expected* now (None: if it does not exist)."""

    ref: str
    new: str
    expected: str | None


@frozen(eq=False, repr=False)
class Refused:
    """A move that was not made: the ref holds *found*, or could not be locked because of *error*."""

    found: str | None = None
    error: AexpError | None = None


def write_values(handle: Handle, moves: Sequence[Move], scratch: str) -> None:
    """Write what the refs of *moves* are to hold into *scratch*, synced, for `move_refs` to put in their places.

    Locks that a disk which refused left of ours are taken away first: their values tell that they are ours.
    """
    with translating(scratch):
        sweep_locks(handle, scratch)
        write_many(
            {path: f"{move.new}\n".encode() for path, move in zip(_values_of(moves, scratch), moves, strict=True)}
        )


def _values_of(moves: Sequence[Move], scratch: str) -> list[str]:
    return [os.path.join(scratch, f"ref-{place}") for place in range(len(moves))]


def move_refs(handle: Handle, moves: Sequence[Move], scratch: str) -> list[Refused | None]:
    """Make every move whose ref holds what it should, each under Git's own lock; all are durable on return.

    Lock, look, set: libgit2 looks before it locks, so two processes can both believe they made a ref
    (reliability reference, finding 2). The lock is a hard link to a file that already holds the new rev, so a
    lock that a killed process leaves says whose it is. *scratch* is a folder of ours on the same disk, where
    `write_values` has put the values.
    """
    answers: list[Refused | None] = []
    changed: set[str] = set()
    with translating(os.path.join(handle.common, "refs")):
        for value, move in zip(_values_of(moves, scratch), moves, strict=True):
            try:
                answers.append(_move_ref(handle, move, value, changed))
            except GitError as error:
                answers.append(Refused(error=error))
            finally:
                remove(value)
        for folder in changed:
            with suppress(FileNotFoundError):  # `git pack-refs` took it away, and the refs in it
                sync_folder(folder)
    return answers


def _move_ref(handle: Handle, move: Move, value: str, changed: set[str]) -> Refused | None:
    path = os.path.join(handle.common, move.ref)
    locked = f"{path}.lock"
    for pause in (*_PATIENCE, None):
        try:
            changed.update(make_folders(os.path.dirname(path), durable=False))
            os.link(value, locked)
            break
        except (FileExistsError, FileNotFoundError) as error:
            if pause is None:
                remedy = f"{locked} is held by another process; remove it if that one is dead"
                raise GitError(f"lock {move.ref}", remedy) from error
            if pause == _PATIENCE[2]:
                _sweep_dead(handle, os.path.dirname(os.path.dirname(value)))
            time.sleep(pause)
        except NotADirectoryError as error:
            raise GitError(f"make {move.ref}", "another ref stands where its folder belongs") from error
    held = True
    try:
        found = read_ref(handle, move.ref)
        if found == move.new:  # set before, by somebody who was killed, perhaps before it was synced
            changed.update(_folders_up(path, handle.common))
            return None
        if found != move.expected:
            changed.update(
                _folders_up(path, handle.common)
            )  # perhaps set by ourselves, before a disk refused to sync it
            return Refused(found=found)
        os.rename(locked, path)
        held = False
        changed.add(os.path.dirname(path))
        return None
    except IsADirectoryError as error:
        raise GitError(f"make {move.ref}", "refs stand below that name") from error
    finally:
        if held:
            remove(locked)


def _folders_up(path: str, top: str) -> Iterator[str]:
    while (path := os.path.dirname(path)) != top:
        yield path


def make_ref(handle: Handle, ref: str, rev: str, scratch: str) -> Refused | None:
    """Make *ref*, which must not exist."""
    moves = [Move(ref, rev, None)]
    write_values(handle, moves, scratch)
    return move_refs(handle, moves, scratch)[0]


def keep(handle: Handle, ref: str, rev: str, scratch: str) -> None:
    """Keep the commit *rev* of the experiment on *ref* in the trash."""
    now = time.time_ns() // 1_000_000
    for milliseconds in range(now, now + 1000):
        refused = make_ref(handle, trash_ref(milliseconds, ref), rev, scratch)
        if refused is None:
            return
        if refused.error is not None:
            raise refused.error
    raise GitError(f"keep {rev} in the trash", "a thousand others of that name were put there just now")


def _sweep_dead(handle: Handle, sessions: str) -> None:
    """Remove the ref locks of sessions in the folder *sessions* whose owner is dead."""
    for name in os.listdir(sessions):
        descriptor = lock(os.path.join(sessions, name, "owner.lock"))
        if descriptor is not None:
            try:
                sweep_locks(handle, os.path.join(sessions, name))
            finally:
                os.close(descriptor)


def sweep_locks(handle: Handle, scratch: str) -> list[str]:
    """Remove every ref lock that is one file with a value in *scratch*, the folder of a dead session held by the caller.

    Returns the paths of the locks.
    """
    swept = []
    values = {os.lstat(path).st_ino: path for path in _values(scratch)}
    if values:
        for prefix in ("refs/exps/", "refs/aexp/"):
            for path in locks(os.path.join(handle.common, prefix)):
                with suppress(FileNotFoundError):  # a living process let it go meanwhile
                    if os.lstat(path).st_ino in values:
                        os.unlink(path)
                        swept.append(path)
    for path in values.values():
        remove(path)
    return swept


def values_of(scratch: str) -> set[int]:
    """Return the inodes of the values in *scratch*, a session's folder: a lock that is one of them is that session's."""
    found = set()
    with suppress(FileNotFoundError):  # it was put away
        for path in _values(scratch):
            with suppress(FileNotFoundError):
                found.add(os.lstat(path).st_ino)
    return found


def _values(scratch: str) -> list[str]:
    return [os.path.join(scratch, name) for name in os.listdir(scratch) if name.startswith("ref-")]


def locks(folder: str) -> Iterator[str]:
    """Yield the path of every lock in *folder* and below it."""
    for where, _, names in os.walk(folder):
        yield from (os.path.join(where, name) for name in names if name.endswith(".lock"))


def change_refs(handle: Handle, create: Mapping[str, str], delete: Mapping[str, str], *, reason: str = "aexp") -> None:
    """Make each ref of *create* (ref -> rev), which must not exist, and delete each of *delete* that holds its rev.

    One transaction of `git update-ref`, all or none, durable on return: libgit2 loses other people's refs when
    `git pack-refs` runs beside it (reliability reference, finding 1). Killed after it was asked, the child still ends
    what it began. Raises `GitError` when a ref is not as expected, or locked for more than a second.
    """
    if not create and not delete:
        return
    asked = _asked(create, delete)
    try:
        for pause in (*_PATIENCE, None):
            try:
                run(handle, "update-ref", "-m", reason, "-z", "--stdin", input=asked, config=_DURABLE)
                break
            except GitError as error:
                if pause is None or not _is_passing(error.detail):
                    raise
                time.sleep(pause)
    except GitError:
        if not os.access(os.path.join(handle.common, "refs"), os.W_OK):  # Git does not say why it can make no folder
            raise ReadOnlyRepository(handle.common) from None
        raise
    top = os.path.dirname(handle.common)  # so that `packed-refs` is among what is synced
    try:
        for folder in {
            each for ref in (*create, *delete) for each in _folders_up(os.path.join(handle.common, ref), top)
        }:
            with suppress(FileNotFoundError):  # Git takes away folders that are empty
                sync_folder(folder)
    except OSError:
        with suppress(AexpError):  # so that an error means that nothing was done
            run(handle, "update-ref", "-m", reason, "-z", "--stdin", input=_asked(delete, create), config=_DURABLE)
        raise


def _asked(create: Mapping[str, str], delete: Mapping[str, str]) -> bytes:
    """Return the orders to `git update-ref --stdin -z` that make and delete refs, all or none."""
    lines = [*(("create", *each) for each in create.items()), *(("delete", *each) for each in delete.items())]
    orders = "".join(f"{verb} {ref}\0{rev}\0" for verb, ref, rev in lines)
    return f"start\0{orders}prepare\0commit\0".encode("utf-8", "surrogateescape")


def _is_passing(said: str) -> bool:
    """Say whether what *said* tells is over in a moment: `git pack-refs` holds a lock, or takes empty folders away.

    Git tries thrice to make a folder that vanishes under its hands (files-backend.c), which a busy machine uses up.
    """
    return "cannot lock ref" in said and (
        "Unable to create" in said or "unable to create" in said or "No such file" in said
    )


def delete_refs(handle: Handle, refs: Mapping[str, str]) -> None:
    """Delete each ref that still holds the rev beside it, all or none."""
    change_refs(handle, {}, refs)


def drop_broken(handle: Handle, ref: str) -> None:
    """Remove the file of a *ref* that holds no rev, which no `git update-ref` does; nothing when it holds one now.

    Under the ref's lock, which is a second name of that file. What `git pack-refs` once wrote of it stands again.
    """
    path = os.path.join(handle.common, ref)
    with translating(path):
        try:
            os.link(path, f"{path}.lock")
        except FileNotFoundError:
            return
        except FileExistsError as error:
            raise GitError(f"lock {ref}", f"{path}.lock is there; remove it if no process holds it") from error
        try:
            if not list_refs(handle, f"{os.path.dirname(ref)}/").get(ref):
                remove(path)
                sync_folder(os.path.dirname(path))
        finally:
            remove(f"{path}.lock")
        for folder in list(_folders_up(path, os.path.join(handle.common, "refs")))[:-1]:
            with suppress(OSError):
                os.rmdir(folder)
