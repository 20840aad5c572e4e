"""The bytes of Git's objects: blobs, trees and commits.

An object's id is its 20 raw bytes (SHA-1); hexadecimal stands only in commits, where Git writes it so.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from hashlib import sha1
from typing import Final, NamedTuple

from attrs import field, frozen, validators

from .._values import Pause, nothing
from ..errors import UnsafePath

FILE: Final = 0o100644
EXECUTABLE: Final = 0o100755
SYMLINK: Final = 0o120000
GITLINK: Final = 0o160000
FOLDER: Final = 0o040000

_WORDS: Final = (b"", b"commit", b"tree", b"blob")
_PORTION: Final = 1 << 16
"""From this size on, a tree is parsed entry by entry: at once, a hundred thousand would keep everybody waiting."""
_COPIED: Final = 1 << 16
"""From this size on, a content is not copied behind its header to be hashed."""
_MODES: Final = {b"%o" % mode: mode for mode in (FILE, EXECUTABLE, SYMLINK, GITLINK, FOLDER)}
_NAMED_MODES: Final = {mode: b"%o " % mode for mode in (FILE, EXECUTABLE, SYMLINK, GITLINK, FOLDER)}
_TREE_ENTRY: Final = rb"(?s)([0-7]+) ([^\0]+)\0(.{20})"
_CRUD: Final = ",:;<>\"\\'" + "".join(map(chr, range(33)))
"""What Git strips from both ends of a name or an address (`crud()` in its ident.c)."""
_FORBIDDEN_INSIDE: Final = str.maketrans("", "", "<>\n\0")
_LAST_OFFSET: Final = 99 * 60 + 59
_NOWHERE: Final = frozenset({b"", b".", b".."})
_GIT_FOLDER: Final = rb"(?si)(?:\.git|git~1)[ .]*(?::.*)?"
"""What `git fsck` calls `hasDotgit`: names under which Windows and macOS find the folder `.git`."""
_TRAILER: Final = r"([A-Za-z0-9-]+)[ \t]*:(.*)"


class Kind(IntEnum):
    """A kind of object, by its number in packs (gitformat-pack(5))."""

    COMMIT = 1
    TREE = 2
    BLOB = 3

    @property
    def word(self) -> bytes:
        """The name of this kind in the header that an object is hashed with."""
        return _WORDS[self]


def object_id(kind: Kind, content: bytes) -> bytes:
    """Return the id of the object of this *kind* and *content*, in 20 bytes."""
    header = b"%b %d\0" % (_WORDS[kind], len(content))
    if len(content) < _COPIED:
        return sha1(header + content, usedforsecurity=False).digest()
    digest = sha1(header, usedforsecurity=False)
    digest.update(content)
    return digest.digest()


class Entry(NamedTuple):
    """One line of a tree: a name, and the object that stands there."""

    name: bytes
    mode: int
    id: bytes


def parse_tree(content: bytes) -> dict[bytes, Entry]:
    """Return the entries of a tree by name, in the order they stand in; raise `ValueError` if it is damaged."""
    if len(content) > _PORTION:
        return {entry[0]: entry for entry in tree_entries(content)}
    entries: dict[bytes, Entry] = {}
    size = 0
    for mode, name, oid in re.findall(_TREE_ENTRY, content):
        entries[name] = Entry(name, _MODES.get(mode) or int(mode, 8), oid)
        size += len(mode) + len(name) + 22  # a space, a NUL and the id
    if size != len(content):
        raise ValueError("damaged tree: its bytes are not a list of entries; run `git fsck`")
    return entries


def tree_entries(content: bytes, pause: Pause = nothing) -> Iterator[Entry]:
    """Yield the entries of a tree of any size, one by one; raise `ValueError` where it is damaged."""
    match, place = re.compile(_TREE_ENTRY).match, 0
    while place < len(content):
        pause()
        found = match(content, place)
        if found is None:
            raise ValueError("damaged tree: its bytes are not a list of entries; run `git fsck`")
        mode, name, oid = found.groups()
        place = found.end()
        yield Entry(name, _MODES.get(mode) or int(mode, 8), oid)


def encode_tree(entries: Iterable[Entry]) -> bytes:
    """Return the bytes of the tree with these *entries*, in Git's order; raise `ValueError` if two share a name."""
    given = list(entries)
    if len({entry.name for entry in given}) != len(given):
        raise ValueError("a tree holds each name once")
    return _encode_distinct(given)


def _encode_distinct(entries: Iterable[Entry]) -> bytes:
    modes = _NAMED_MODES
    return b"".join(
        [(modes.get(mode) or b"%o " % mode) + name + b"\0" + oid for name, mode, oid in sorted(entries, key=_place)]
    )


def _place(entry: Entry) -> bytes:
    """The key of Git's order: a folder stands where its name with a slash would."""
    return entry[0] + b"/" if entry[1] == FOLDER else entry[0]


@frozen
class Signature:
    """Who did something, and when: seconds since 1970, and minutes east of Greenwich."""

    name: str
    email: str
    time: int = field(validator=[validators.ge(0), validators.lt(2**63)])
    offset: int = field(validator=[validators.ge(-_LAST_OFFSET), validators.le(_LAST_OFFSET)])


@frozen
class Commit:
    """What a commit says; the ids of its tree and its parents in hexadecimal."""

    tree: str
    parents: tuple[str, ...]
    author: Signature
    committer: Signature
    message: str


def encode_commit(
    tree: bytes, parents: Sequence[bytes], author: Signature, committer: Signature, message: str
) -> bytes:
    """Return the bytes of a commit, in UTF-8.

    Names and addresses lose what Git strips from them, the message loses NULs and ends with exactly one newline;
    what UTF-8 cannot hold (lone surrogates) becomes a question mark.
    """
    ancestry = "".join([f"parent {parent.hex()}\n" for parent in parents])
    text = message.replace("\0", "").rstrip("\n")
    return (
        f"tree {tree.hex()}\n{ancestry}author {_signed(author)}\ncommitter {_signed(committer)}\n\n{text}\n"
    ).encode("utf-8", "replace")


def _signed(who: Signature) -> str:
    hours, minutes = divmod(abs(who.offset), 60)
    sign = "-" if who.offset < 0 else "+"
    return f"{_without_crud(who.name)} <{_without_crud(who.email)}> {who.time} {sign}{hours:02}{minutes:02}"


def _without_crud(text: str) -> str:
    return text.strip(_CRUD).translate(_FORBIDDEN_INSIDE)


def parse_commit(content: bytes) -> Commit:
    """Return what a commit says; raise `ValueError` if it names no tree.

    Lenient, since old and foreign commits must be readable: a signature without name or time gets an empty one or 0,
    undecodable bytes become U+FFFD, and headers that are not asked for (gpgsig, mergetag) are skipped.
    """
    head, _, body = content.partition(b"\n\n")
    headers: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\n"):
        if not line.startswith(b" "):  # the second and later lines of a header begin with a space
            key, _, value = line.partition(b" ")
            headers.setdefault(key, []).append(value)
    if b"tree" not in headers:
        raise ValueError("damaged commit: it names no tree; run `git fsck`")
    encoding = headers.get(b"encoding", [b"utf-8"])[0].decode("ascii", "replace")
    author, committer = (
        _parse_signature(_decode(headers.get(key, [b""])[0], encoding)) for key in (b"author", b"committer")
    )
    return Commit(
        tree=headers[b"tree"][0].decode("ascii", "replace"),
        parents=tuple([oid.decode("ascii", "replace") for oid in headers.get(b"parent", ())]),
        author=author,
        committer=committer,
        message=_decode(body, encoding),
    )


def parse_brief(content: bytes) -> tuple[str, str]:
    """Return (tree, message) of a commit, as `parse_commit` does, in a tenth of its time."""
    head, _, body = content.partition(b"\n\n")
    if re.match(rb"tree [0-9a-f]{40}\n", head) and b"\nencoding " not in head:
        return head[5:45].decode(), body.decode("utf-8", "replace")
    commit = parse_commit(content)
    return commit.tree, commit.message


def _decode(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding, "replace")
    except (LookupError, ValueError):  # no such encoding, one that is not for text, or one that cannot replace
        return content.decode("utf-8", "replace")


def _parse_signature(line: str) -> Signature:
    name, _, rest = line.partition("<")
    email, _, rest = rest.partition(">")
    time, offset, *_ = [*rest.rpartition(">")[2].split(), "", ""]
    return Signature(name.strip(" "), email.strip(" "), _parse_time(time), _parse_offset(offset))


def _parse_time(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0


def _parse_offset(text: str) -> int:
    if not re.fullmatch("[+-][0-9]{4}", text):
        return 0
    minutes = int(text[1:3]) * 60 + int(text[3:])
    return min(minutes, _LAST_OFFSET) * (-1 if text[0] == "-" else 1)


def trailers(message: str) -> dict[str, str]:
    """Return the `Key: value` lines of the last paragraph of *message*, unfolded; of equal keys the last one counts.

    The first paragraph is the title and holds no trailers.
    """
    paragraphs = re.split(r"\n(?:[ \t]*\n)+", message.strip())
    found: dict[str, str] = {}
    key = ""
    for line in paragraphs[-1].split("\n") if len(paragraphs) > 1 else ():
        if key and line[:1] in (" ", "\t"):
            found[key] = f"{found[key]} {line.strip()}".strip()
        elif match := re.fullmatch(_TRAILER, line):
            key = match[1]
            found[key] = match[2].strip()
        else:
            key = ""
    return found


class _Folder(dict[bytes, "_Change"]):
    """What changes in a folder, by name."""


class _Cleared(_Folder):
    """What is put into a folder after all that stood at its path was taken away."""


_Change = tuple[int, bytes] | _Folder


def find_entry(root: bytes, path: str, read: Callable[[bytes], Mapping[bytes, Entry]]) -> Entry | None:
    """Return what stands at *path* in the tree *root*; None for nothing. *read* returns the entries of a tree."""
    entry, entries = None, read(root)
    for part in path.split("/"):
        if entry is not None:
            entries = read(entry.id) if entry.mode == FOLDER else {}
        entry = entries.get(os.fsencode(part))
        if entry is None:
            return None
    return entry


def writer(objects: dict[bytes, tuple[Kind, bytes]]) -> Callable[[Kind, bytes], bytes]:
    """Return what puts an object into *objects* and returns its id."""

    def write(kind: Kind, content: bytes) -> bytes:
        id = object_id(kind, content)
        objects[id] = (kind, content)
        return id

    return write


def edit_tree(
    root: bytes | None,
    edits: Mapping[str, tuple[int, bytes] | None],
    read: Callable[[bytes], Mapping[bytes, Entry]],
    write: Callable[[Kind, bytes], bytes],
    *,
    replace: Collection[str] = (),
) -> bytes:
    """Lay *edits* over the tree *root* (None: an empty one) and return the id of the new root.

    *edits* gives each path its (mode, blob id), or None to take away the file or folder that may stand there.
    The folders in *replace* are emptied first. Everything is taken away before anything is put, so that the order of
    the edits does not matter; a file gives way to a folder, and a folder to a file, whichever is put. A folder in
    which nothing is left disappears, but the root may be empty.

    *read* returns the entries of a tree and is asked for folders on the way to an edit only; *write* takes
    (`Kind.TREE`, content), returns the id, and is not called for folders that stay as they are. Paths are posix;
    surrogate escapes in them stand for bytes that are not UTF-8, as in `os.fsencode`.

    Raise `UnsafePath` for a path that a tree cannot hold, and `ValueError` if one of *edits* puts a file where
    another needs a folder.
    """
    tree = _rebuild(root, _plan(edits, replace), read, write)
    return write(Kind.TREE, b"") if tree is None else tree


def _plan(edits: Mapping[str, tuple[int, bytes] | None], replace: Collection[str]) -> _Folder:
    top = _Folder()
    for path in (*replace, *[path for path, put in edits.items() if put is None]):
        _take_away(top, path)
    folders = {"": top}  # those that something was put into; most edits share theirs with the one before
    for path, put in edits.items():
        if put is None:
            continue
        parent, slash, name = path.rpartition("/")
        folder = folders.get(parent + slash)
        if folder is None:
            folder = folders[parent + slash] = _descend(top, parent, path)
        place = _segment(name, path)
        if place in folder and _puts(folder[place]):
            raise _collision(path)
        folder[place] = put
    return top


def _take_away(top: _Folder, path: str) -> None:
    *parents, name = [_segment(part, path) for part in path.split("/")]
    folder = top
    for part in parents:
        below = folder.setdefault(part, _Folder())
        if not isinstance(below, _Folder) or isinstance(below, _Cleared):
            return  # it goes with all that is above it
        folder = below
    folder[name] = _Cleared()


def _descend(top: _Folder, parent: str, path: str) -> _Folder:
    folder = top
    for part in parent.split("/"):
        below = folder.setdefault(_segment(part, path), _Folder())
        if not isinstance(below, _Folder):
            raise _collision(path)
        folder = below
    return folder


def _puts(change: _Change) -> bool:
    return not isinstance(change, _Folder) or any(map(_puts, change.values()))


def _collision(path: str) -> ValueError:
    return ValueError(f"the edits put a file at {path!r} and a file below or above it; a tree holds one of them")


def _segment(part: str, path: str) -> bytes:
    try:
        name = part.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UnsafePath(path, "it holds a surrogate that stands for no byte") from None
    if name in _NOWHERE or "\0" in part:
        raise UnsafePath(path, "a part of it is empty, `.`, `..` or holds a NUL")
    if is_git_folder(name):
        raise UnsafePath(path, "a part of it is Git's own folder, on some file system")
    return name


def is_git_folder(name: bytes) -> bool:
    """Say whether some file system takes *name* for `.git`, so that no tree may hold it."""
    return re.fullmatch(_GIT_FOLDER, name) is not None


def _rebuild(
    old: bytes | None,
    folder: _Folder,
    read: Callable[[bytes], Mapping[bytes, Entry]],
    write: Callable[[Kind, bytes], bytes],
) -> bytes | None:
    """Return the id of the tree *old* with the changes of *folder*, or None if nothing is left in it."""
    changed = isinstance(folder, _Cleared)
    entries = {} if old is None or changed else dict(read(old))
    for name, change in folder.items():
        here = entries.get(name)
        if isinstance(change, _Folder):
            tree = _rebuild(here.id if here and here.mode == FOLDER else None, change, read, write)
            entry = Entry(name, FOLDER, tree) if tree else None
            if here and here.mode != FOLDER and not (entry or isinstance(change, _Cleared)):
                continue  # a file stays where only paths below it were to go
        else:
            entry = Entry(name, *change)
        if entry == here:
            continue
        changed = True
        if entry:
            entries[name] = entry
        else:
            del entries[name]
    if not changed:
        return old
    return write(Kind.TREE, _encode_distinct(entries.values())) if entries else None
