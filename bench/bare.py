"""The bare sequence of a save: build the same objects as aexp, write them in one pack, move the refs.

It decides nothing and recovers from nothing. It syncs what a durable save must sync, in that order: the keep file, the
pack, the index and their folder; a journal with a line for each experiment; each ref; the folder of the refs.
"""

import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path

import pygit2

COMMIT, TREE, BLOB = 1, 2, 3
KINDS = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob"}
FILE_MODE, TREE_MODE = 0o100644, 0o040000
FOLDER = "aexp"


def sync_write(path: Path, content: bytes) -> None:
    """Write a new file and sync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Sync the entries of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Pack:
    """The objects of one pack, in the order in which they are added."""

    def __init__(self) -> None:
        self._entries: list[bytes] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._size = 12

    def add(self, kind: int, content: bytes) -> bytes:
        """Add an object and return its id; twice the same is kept once."""
        oid = hashlib.sha1(b"%s %d\0%s" % (KINDS[kind], len(content), content)).digest()
        if oid not in self._places:
            rest, byte, head = len(content) >> 4, kind << 4 | len(content) & 15, bytearray()
            while rest:
                head.append(byte | 0x80)
                rest, byte = rest >> 7, rest & 0x7F
            head.append(byte)
            entry = bytes(head) + zlib.compress(content, 1)
            self._places[oid] = zlib.crc32(entry), self._size
            self._entries.append(entry)
            self._size += len(entry)
        return oid

    def write(self, folder: Path) -> Path:
        """Write pack, index and keep file into `folder`, synced; return the keep file."""
        body = b"".join([struct.pack(">4sLL", b"PACK", 2, len(self._entries)), *self._entries])
        trailer = hashlib.sha1(body).digest()
        keep, pack, index = (folder / f"pack-{trailer.hex()}.{ending}" for ending in ("keep", "pack", "idx"))
        sync_write(keep, b"bench\n")
        sync_write(folder / f"tmp_pack_{trailer.hex()}", body + trailer)
        sync_write(folder / f"tmp_idx_{trailer.hex()}", self._index(trailer))
        os.rename(folder / f"tmp_pack_{trailer.hex()}", pack)
        os.rename(folder / f"tmp_idx_{trailer.hex()}", index)
        sync_folder(folder)
        return keep

    def _index(self, trailer: bytes) -> bytes:
        """The pack index, version 2."""
        oids, counts = sorted(self._places), [0] * 256
        for oid in oids:
            counts[oid[0]] += 1
        for first in range(1, 256):
            counts[first] += counts[first - 1]
        places = [self._places[oid] for oid in oids]
        body = b"".join(
            [
                b"\xfftOc",
                struct.pack(">L256L", 2, *counts),
                *oids,
                struct.pack(f">{len(oids)}L", *(crc for crc, _ in places)),
                struct.pack(f">{len(oids)}L", *(offset for _, offset in places)),
                trailer,
            ]
        )
        return body + hashlib.sha1(body).digest()


def tree(entries: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The content of a tree object."""
    ordered = sorted(
        (f"{name}/" if mode == TREE_MODE else name, name, mode, oid) for name, (mode, oid) in entries.items()
    )
    return b"".join(b"%o %s\0%s" % (mode, name.encode(), oid) for _, name, mode, oid in ordered)


def add_files(pack: Pack, files: Mapping[str, bytes]) -> bytes:
    """Add files and the trees that hold them; return the id of the topmost tree."""
    entries: dict[str, tuple[int, bytes]] = {}
    below: dict[str, dict[str, bytes]] = {}
    for path, content in files.items():
        first, _, rest = path.partition("/")
        if rest:
            below.setdefault(first, {})[rest] = content
        else:
            entries[first] = FILE_MODE, pack.add(BLOB, content)
    for name, inner in below.items():
        entries[name] = TREE_MODE, add_files(pack, inner)
    return pack.add(TREE, tree(entries))


class BareRepository:
    """What the bare loop knows of a repository before it starts: its baseline, the baseline's root tree, a journal."""

    def __init__(self, path: Path) -> None:
        repository = pygit2.Repository(str(path))
        baseline = repository[repository.head.target]
        assert isinstance(baseline, pygit2.Commit)
        self.baseline: str = str(baseline.id)
        self.root: dict[str, tuple[int, bytes]] = {
            str(entry.name): (int(entry.filemode), entry.id.raw) for entry in baseline.tree
        }
        self.packs: Path = path / ".git" / "objects" / "pack"
        self.refs: Path = path / ".git" / "refs" / "exps" / self.baseline[:2] / self.baseline[2:]
        self.refs.mkdir(parents=True)
        self.journal: int = os.open(path / ".git" / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def save(self, experiments: Mapping[str, Mapping[str, bytes]], *, sync_refs: bool = True) -> None:
        """Save a group of experiments, each a name and its files below `aexp/`."""
        pack, commits = Pack(), dict[str, str]()
        for name, files in experiments.items():
            root = pack.add(TREE, tree({**self.root, FOLDER: (TREE_MODE, add_files(pack, files))}))
            commits[name] = pack.add(COMMIT, self._commit(name, root)).hex()
        keep = pack.write(self.packs)
        os.write(self.journal, "".join(json.dumps(pair) + "\n" for pair in commits.items()).encode())
        os.fdatasync(self.journal)
        self._move_refs(commits, sync=sync_refs)
        keep.unlink()

    def _commit(self, name: str, root: bytes) -> bytes:
        """The content of a commit object."""
        who = f"Bench <bench@example.org> {int(time.time())} +0000"
        lines = [f"tree {root.hex()}", f"parent {self.baseline}", f"author {who}", f"committer {who}", ""]
        trailers = [f"Aexp-Id: {name}", f"Aexp-Name: {name}", "Aexp-Status: finished"]
        return "\n".join([*lines, f"aexp: {name}", "", *trailers, ""]).encode()

    def _move_refs(self, commits: Mapping[str, str], *, sync: bool) -> None:
        """Make each ref under its lock."""
        for name, rev in commits.items():
            lock = self.refs / f"{name}.lock"
            if sync:
                sync_write(lock, f"{rev}\n".encode())
            else:
                descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
                os.write(descriptor, f"{rev}\n".encode())
                os.close(descriptor)
            os.rename(lock, self.refs / name)
        sync_folder(self.refs)
