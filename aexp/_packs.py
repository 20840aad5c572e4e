"""Packs: written whole and synced, kept from being collected, read back, swept of what the dead left."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from attrs import frozen

from ._files import read, remove, sync, sync_folder, translating, write_all, write_new
from ._formats.gitobjects import Kind
from ._formats.gitpack import PackEncoder
from .errors import GitError

PARTS: Final = ("pack", "idx", "keep")
"""What is written under a temporary name, and is whole when it gets its own."""
_HALF: Final = rf"tmp_(?:{'|'.join(PARTS)})_aexp-([0-9a-f]{{32}})"
_KEPT: Final = rb"aexp ([0-9a-f]{32})\s*"
TRIES: Final = 3
"""How often a pack is written when somebody takes it away half-written."""


@frozen(eq=False, repr=False)
class Pack:
    """A pack that stands in the repository, kept from being collected until `release`."""

    path: str
    """Without the ending: `.pack`, `.idx` and `.keep` stand beside each other."""
    index: bytes
    """What its index holds."""

    def verify(self) -> None:
        """Read pack and index back from the disk; raise `GitError` unless they are what was written."""
        with translating(self.path):
            content = memoryview(read(f"{self.path}.pack"))
            checksum = hashlib.sha1(content[:-20], usedforsecurity=False).digest()
            sound = checksum == content[-20:] == self.index[-40:-20] and read(f"{self.path}.idx") == self.index
        if not sound:
            raise GitError(f"verify {self.path}.pack", "it does not hold what was written")

    def release(self) -> None:
        """Let Git repack or collect it: its objects are reachable now, or not wanted.

        A disk that refuses changes nothing for who asked: the `.keep` goes when the session is put away.
        """
        with suppress(OSError):
            remove(f"{self.path}.keep")


def write_pack(common: str, objects: Sequence[tuple[Kind, bytes]], fetch: Callable[[bytes], bytes], owner: str) -> Pack:
    """Write *objects* (kind, id), whose contents *fetch* gives, as one pack with a `.keep`; all is synced on return.

    The order is `.keep`, pack, index, folder: a pack that can be seen is whole and kept. Temporary names begin with
    `tmp_`, which no Git opens and `git gc --prune=now` removes, also under our hands: then it is written again.
    """
    folder = os.path.join(common, "objects", "pack")
    with translating(folder):
        for left in reversed(range(TRIES)):
            try:
                return _write_once(folder, objects, fetch, owner)
            except FileNotFoundError:
                if not left:
                    raise
    raise AssertionError("unreachable")


def _write_once(
    folder: str, objects: Sequence[tuple[Kind, bytes]], fetch: Callable[[bytes], bytes], owner: str
) -> Pack:
    temporary = [os.path.join(folder, f"tmp_{what}_aexp-{owner}-{os.getpid()}") for what in PARTS]
    encoder, undo = PackEncoder(len(objects)), list(temporary)
    try:
        _write_stream(temporary[0], _pack_chunks(encoder, objects, fetch))
        index = encoder.index()
        _write_stream(temporary[1], [index])
        path = os.path.join(folder, f"pack-{encoder.checksum}")
        _write_stream(temporary[2], [f"aexp {owner}\n".encode()])
        undo.append(f"{path}.keep")
        os.rename(temporary[2], f"{path}.keep")
        os.rename(temporary[0], f"{path}.pack")
        os.rename(temporary[1], f"{path}.idx")
        sync_folder(folder)
        return Pack(path, index)
    except BaseException:
        for name in undo:
            remove(name)
        raise


def _pack_chunks(
    encoder: PackEncoder, objects: Sequence[tuple[Kind, bytes]], fetch: Callable[[bytes], bytes]
) -> Iterator[bytes]:
    yield encoder.header()
    for kind, id in objects:
        yield encoder.add(kind, id, fetch(id))
    yield encoder.trailer()


def _write_stream(path: str, chunks: Iterable[bytes]) -> None:
    remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
    try:
        gathered: list[bytes] = []
        size = 0
        for chunk in chunks:
            gathered.append(chunk)
            size += len(chunk)
            if size > 2**20:
                write_all(descriptor, b"".join(gathered))
                gathered, size = [], 0
        write_all(descriptor, b"".join(gathered))
        sync(descriptor)
    finally:
        os.close(descriptor)


def adopt_packs(common: str, quarantine: str, owner: str) -> list[Pack]:
    """Move the packs that a `git` child wrote and synced into the object folder *quarantine* into the repository.

    Each is kept from being collected until `release`. One that stands here already stays as it is, and so does what
    keeps it. The index comes last: no Git sees a pack before it is whole and kept.
    """
    source, target = os.path.join(quarantine, "pack"), os.path.join(common, "objects", "pack")
    adopted = []
    with translating(target):
        os.makedirs(target, exist_ok=True)
        for name in sorted(os.listdir(source)):
            stem, ending = os.path.splitext(name)
            path = os.path.join(target, stem)
            if ending == ".idx" and not os.path.exists(f"{path}.idx"):
                with suppress(FileExistsError):  # somebody is just making the same pack, and keeps it
                    write_new(f"{path}.keep", f"aexp {owner}\n".encode(), mode=0o444)
                for part in (".pack", ".rev", ".promisor", ".idx"):
                    with suppress(FileNotFoundError):
                        os.rename(os.path.join(source, f"{stem}{part}"), f"{path}{part}")
                adopted.append(Pack(path, b""))
        sync_folder(target)
    return adopted


def owners(common: str) -> set[str]:
    """Return the sessions, living or dead, of which a half-written pack or a `.keep` file lies among the packs."""
    folder, found = os.path.join(common, "objects", "pack"), set[str]()
    with translating(folder):
        for name in os.listdir(folder):
            half = re.match(_HALF, name)
            if half is not None:
                found.add(half[1])
            elif name.endswith(".keep"):
                with suppress(FileNotFoundError):  # another process released its own
                    kept = re.fullmatch(_KEPT, read(os.path.join(folder, name)))
                    found |= {kept[1].decode()} if kept is not None else set()
    return found


def sweep_packs(common: str, owner: str) -> list[str]:
    """Remove what the dead session *owner* left among the packs: half-written ones, and its `.keep` files.

    Returns their paths.
    """
    swept: list[str] = []
    folder = os.path.join(common, "objects", "pack")
    with translating(folder):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name.startswith(tuple(f"tmp_{what}_aexp-{owner}" for what in PARTS)):
                remove(path)
                swept.append(path)
            elif name.endswith(".keep") and _is_of(path, owner):
                stem = path.removesuffix(".keep")
                if not os.path.exists(
                    f"{stem}.idx"
                ):  # no Git sees a pack without its index, and no `git gc` removes it
                    remove(f"{stem}.pack")
                remove(path)
                swept.append(path)
    return swept


def _is_of(keep: str, owner: str) -> bool:
    with suppress(FileNotFoundError):  # another process released its own
        return read(keep).strip() == f"aexp {owner}".encode()
    return False
