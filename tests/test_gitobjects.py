"""Git's objects: the same bytes and ids as the git program makes."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aexp._formats import gitobjects
from aexp._formats.gitobjects import EXECUTABLE, FILE, FOLDER, GITLINK, SYMLINK, Commit, Entry, Kind, Signature
from aexp.errors import UnsafePath

BLOB = gitobjects.object_id(Kind.BLOB, b"one\n")
OTHER = gitobjects.object_id(Kind.BLOB, b"two\n")
ADA = Signature("Ada Lovelace", "ada@example.org", 1700000000, 60)
GRACE = Signature("Grace Hopper", "grace@example.org", 1700000001, -330)

Put = tuple[int, bytes]
examples = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
few_examples = settings(examples, max_examples=15)

ids = st.binary(min_size=20, max_size=20)
modes = st.sampled_from([FILE, EXECUTABLE, SYMLINK, GITLINK, FOLDER, 0o100664])
names = st.binary(min_size=1, max_size=8).filter(lambda name: not {0, ord("/")} & set(name))
trees = st.lists(st.builds(Entry, names, modes, ids), unique_by=lambda entry: entry.name, max_size=12)
# Few different words, close to each other in Git's order, so that files and folders meet in one place.
segments = st.sampled_from(["a", "a.b", "a-b", "a0", "ab", "é", "\udcff"])
paths = st.lists(segments, min_size=1, max_size=3).map("/".join)
puts = st.tuples(st.sampled_from([FILE, EXECUTABLE, SYMLINK, GITLINK]), st.sampled_from([BLOB, OTHER]))


class Objects(dict[bytes, bytes]):
    """Trees in memory, and a list of what the last edit read and wrote."""

    read_ids: list[bytes]
    written_ids: list[bytes]

    def edit(self, root: bytes | None, edits: Mapping[str, Put | None], *replace: str) -> bytes:
        """Edit *root* and return the id of the new tree."""
        self.read_ids, self.written_ids = [], []
        return gitobjects.edit_tree(root, edits, self._read, self._write, replace=replace)

    def _read(self, oid: bytes) -> Mapping[bytes, Entry]:
        self.read_ids.append(oid)
        return gitobjects.parse_tree(self[oid])

    def _write(self, kind: Kind, content: bytes) -> bytes:
        oid = gitobjects.object_id(kind, content)
        self.written_ids.append(oid)
        self[oid] = content
        return oid

    def files(self, root: bytes, prefix: str = "") -> dict[str, Put]:
        """Return every file of the tree *root* by its path."""
        found: dict[str, Put] = {}
        for name, mode, oid in gitobjects.parse_tree(self[root]).values():
            path = prefix + os.fsdecode(name)
            found |= self.files(oid, f"{path}/") if mode == FOLDER else {path: (mode, oid)}
        assert found or not prefix, f"{prefix} is an empty folder"
        return found


def git(home: Path, *arguments: str, given: bytes = b"", **variables: str) -> bytes:
    """Run git in the repository *home* with nobody's configuration, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"} | variables
    done = subprocess.run(["git", *arguments], cwd=home, input=given, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty bare repository."""
    git(tmp_path, "init", "--quiet", "--bare")
    return tmp_path


def _git_tree(repository: Path, files: Mapping[str, Put]) -> str:
    """Return the id of the tree that git makes of *files*, by way of an index."""
    lines = [b"%o %b\t%b\0" % (mode, oid.hex().encode(), os.fsencode(path)) for path, (mode, oid) in files.items()]
    index = repository / "an-index"
    index.unlink(missing_ok=True)
    git(repository, "update-index", "-z", "--index-info", given=b"".join(lines), GIT_INDEX_FILE=str(index))
    return git(repository, "write-tree", "--missing-ok", GIT_INDEX_FILE=str(index)).decode().strip()


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _laid_over(files: Mapping[str, Put], edits: Mapping[str, Put | None], replace: list[str]) -> dict[str, Put]:
    """What `edit_tree` promises, on a dictionary of files."""
    gone = [*replace, *(path for path, put in edits.items() if put is None)]
    left = {path: put for path, put in files.items() if not any(_lies_in(path, each) for each in gone)}
    for path, put in edits.items():
        if put is not None:
            left = {old: what for old, what in left.items() if not _lies_in(old, path) and not _lies_in(path, old)}
            left[path] = put
    return left


def _without_collisions(edits: Mapping[str, Put | None]) -> dict[str, Put | None]:
    kept: dict[str, Put | None] = {}
    for path, put in edits.items():
        if put is None or not any(what and (_lies_in(path, old) or _lies_in(old, path)) for old, what in kept.items()):
            kept[path] = put
    return kept


overlays = st.dictionaries(paths, st.none() | puts, max_size=6).map(_without_collisions)
baselines = st.dictionaries(paths, puts, max_size=8).map(_without_collisions)


@pytest.mark.parametrize("content", [b"", b"one\n", b"\0" * 70_000], ids=["empty", "small", "large"])
def test_a_blob_has_gits_id(repository: Path, content: bytes) -> None:
    """A blob has the id that `git hash-object` gives it, be it empty, small or large."""
    expected = git(repository, "hash-object", "--stdin", given=content).decode().strip()

    assert gitobjects.object_id(Kind.BLOB, content).hex() == expected


def test_ids_of_a_fixed_tree_and_commit() -> None:
    """These two ids pin every byte of a tree and of a commit; changing them changes the format."""
    entries = [
        Entry(b"run.sh", EXECUTABLE, BLOB),
        Entry(b"data", FOLDER, gitobjects.object_id(Kind.TREE, b"")),
        Entry(b"data.csv", FILE, OTHER),
        Entry(b"link", SYMLINK, BLOB),
        Entry(b"vendor", GITLINK, OTHER),
    ]
    tree = gitobjects.object_id(Kind.TREE, gitobjects.encode_tree(entries))
    commit = gitobjects.encode_commit(tree, [BLOB, OTHER], ADA, GRACE, "aexp: überzeugt\n\nAexp-Id: 7")

    assert tree.hex() == "ed25d21562e850b895253aafdfcbde31b53e83c8"
    assert gitobjects.object_id(Kind.COMMIT, commit).hex() == "22e719a29975f50bcac19b7e01d67d5dbf0df36e"


@examples
@given(trees)
def test_a_tree_is_read_as_it_was_written(entries: list[Entry]) -> None:
    """`parse_tree` gives back the entries that `encode_tree` was given, in the order of the bytes."""
    content = gitobjects.encode_tree(entries)
    parsed = gitobjects.parse_tree(content)

    assert {entry.name: entry for entry in entries} == parsed
    assert gitobjects.encode_tree(reversed(parsed.values())) == content


@few_examples
@given(entries=trees)
def test_a_tree_has_the_bytes_of_mktree(repository: Path, entries: list[Entry]) -> None:
    """A tree is byte for byte the one that `git mktree` writes, whatever the order of names, files and folders."""
    words = {FOLDER: b"tree", GITLINK: b"commit"}
    lines = [b"%o %b %b\t%b\0" % (e.mode, words.get(e.mode, b"blob"), e.id.hex().encode(), e.name) for e in entries]
    made = git(repository, "mktree", "--missing", "-z", given=b"".join(lines)).decode().strip()

    assert git(repository, "cat-file", "tree", made) == gitobjects.encode_tree(entries)


def test_a_tree_holds_a_name_once() -> None:
    """A name that stands twice, as a file and as a folder, is refused."""
    with pytest.raises(ValueError, match="each name once"):
        gitobjects.encode_tree([Entry(b"a", FILE, BLOB), Entry(b"a", FOLDER, OTHER)])


@pytest.mark.parametrize("damage", [b"junk", b"100644 a\0" + BLOB[:19], b"100644 a\0" + BLOB + b"\0"])
def test_a_damaged_tree_is_refused(damage: bytes) -> None:
    """Bytes that are not a list of entries are an error, not a shorter tree."""
    with pytest.raises(ValueError, match="damaged tree"):
        gitobjects.parse_tree(damage)


@pytest.mark.parametrize(
    ("name", "email", "offset"),
    [
        ("Ada Lovelace", "ada@example.org", 60),
        (" ,Ada <the> Countess\n; ", "<ada@example.org>", 0),
        ("'Zoë' \"Ω\" 李\t", "zoë @ example\n.org ", -570),
        ("a.b,c:d", ":;", 14 * 60),
    ],
)
def test_a_commit_has_the_bytes_of_commit_tree(repository: Path, name: str, email: str, offset: int) -> None:
    """A commit is byte for byte the one that `git commit-tree` makes, names cleaned as Git cleans them."""
    tree = git(repository, "mktree").decode().strip()
    parent = git(repository, "commit-tree", tree, given=b"first\n", **_identity(ADA)).decode().strip()
    author = Signature(name, email, 1700000000, offset)
    made = git(repository, "commit-tree", tree, "-p", parent, given=b"tried\n\nmore\n", **_identity(author))

    ours = gitobjects.encode_commit(bytes.fromhex(tree), [bytes.fromhex(parent)], author, author, "tried\n\nmore\n\n\n")
    assert git(repository, "cat-file", "commit", made.decode().strip()) == ours


def _identity(who: Signature) -> dict[str, str]:
    hours, minutes = divmod(abs(who.offset), 60)
    date = f"{who.time} {'-' if who.offset < 0 else '+'}{hours:02}{minutes:02}"
    both = {"NAME": who.name, "EMAIL": who.email, "DATE": date}
    return {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in both.items()}


@examples
@given(
    message=st.text(),
    parents=st.lists(ids, max_size=3),
    name=st.text(),
    time=st.integers(0, 10**17),
    offset=st.integers(-5999, 5999),
)
def test_a_commit_is_read_as_written(message: str, parents: list[bytes], name: str, time: int, offset: int) -> None:
    """`parse_commit` gives back what `encode_commit` was given; reading and writing again changes nothing."""
    content = gitobjects.encode_commit(BLOB, parents, Signature(name, "a@b", time, offset), ADA, message)
    commit = gitobjects.parse_commit(content)

    assert commit.tree == BLOB.hex()
    assert commit.parents == tuple(parent.hex() for parent in parents)
    assert (commit.author.time, commit.author.offset, commit.committer) == (time, offset, ADA)
    assert commit.message == message.replace("\0", "").rstrip("\n").encode("utf-8", "replace").decode() + "\n"
    assert gitobjects.encode_commit(BLOB, parents, commit.author, commit.committer, commit.message) == content


def test_signed_headers_are_skipped() -> None:
    """Headers of many lines, as signatures and merged tags have, do not reach the message or other headers."""
    head, body = gitobjects.encode_commit(BLOB, [], ADA, GRACE, "merged").split(b"\n\n")
    signed = head + b"\nmergetag object 1\n tree 2\n author 3\ngpgsig -----BEGIN\n \n abc\n -----END\n\n" + body

    assert gitobjects.parse_commit(signed) == Commit(BLOB.hex(), (), ADA, GRACE, "merged\n")


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("latin-1", "é"), ("cp1251", "й"), *((each, "\ufffd") for each in ("utf-8", "hex", "idna", "no such"))],
)
def test_the_encoding_of_a_commit_counts(encoding: str, expected: str) -> None:
    """A commit is decoded as its `encoding` header says; what cannot be decoded becomes U+FFFD and never an error."""
    head = gitobjects.encode_commit(BLOB, [], ADA, GRACE, "").rstrip().replace(b"Ada", b"\xe9")
    commit = gitobjects.parse_commit(head + f"\nencoding {encoding}\n\n".encode() + b"\xe9\n")

    assert (commit.author.name, commit.message) == (f"{expected} Lovelace", f"{expected}\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Ada <a@b> 12 +0100", Signature("Ada", "a@b", 12, 60)),
        (b"Ada <a> b> 12 -0030", Signature("Ada", "a", 12, -30)),
        (b"Ada <a@b> 12 +051800", Signature("Ada", "a@b", 12, 0)),
        (b"Ada <a@b> 12 +9999", Signature("Ada", "a@b", 12, 5999)),
        (b"Ada <a@b> -12 +0000", Signature("Ada", "a@b", 0, 0)),
        (b"Ada <a@b> 99999999999999999999999 +0000", Signature("Ada", "a@b", 0, 0)),
        (b"<a@b>", Signature("", "a@b", 0, 0)),
        (b"Ada", Signature("Ada", "", 0, 0)),
    ],
)
def test_odd_signatures_are_readable(line: bytes, expected: Signature) -> None:
    """A signature that Git would not write today is read as far as it makes sense."""
    assert gitobjects.parse_commit(b"tree 1\nauthor " + line + b"\n\n").author == expected


def test_a_commit_without_a_tree_is_refused() -> None:
    """Bytes that name no tree are not a commit."""
    with pytest.raises(ValueError, match="names no tree"):
        gitobjects.parse_commit(b"author Ada <a@b> 0 +0000\n\ntree 1\n")


@pytest.mark.parametrize(("time", "offset"), [(-1, 0), (2**63, 0), (0, 6000), (0, -6000)])
def test_a_signature_has_a_time_that_git_can_hold(time: int, offset: int) -> None:
    """A time before 1970, or an offset of a hundred hours, is refused at construction."""
    with pytest.raises(ValueError, match="must be"):
        Signature("Ada", "a@b", time, offset)


@pytest.mark.parametrize(
    "message",
    [
        "title\n\nAexp-Id: 7\nAexp-Name : lr-0.1\nAexp-Status:finished\n",
        "title\n\nbody: of the text\n\nKey: one\n  and more\nOther:\n",
        "Key: of a title\n",
        "title\n\nno trailers here\n",
        "title\n  \nKey: a: b\n\n\n",
    ],
)
def test_trailers_are_those_of_interpret_trailers(repository: Path, message: str) -> None:
    """The trailers of a message are those that `git interpret-trailers` finds."""
    lines = git(repository, "interpret-trailers", "--parse", given=message.encode()).decode().splitlines()

    assert gitobjects.trailers(message) == {
        key: value.strip() for key, _, value in (line.partition(":") for line in lines)
    }


def test_the_last_of_equal_trailers_counts() -> None:
    """Lines that are no trailers are passed over, and of two trailers with one key the last one counts."""
    assert gitobjects.trailers("title\n\nKey: 1\nsee above\n  and below\nKey: 2") == {"Key": "2"}


@examples
@given(files=baselines, edits=overlays, replace=st.lists(paths, max_size=2))
def test_an_edited_tree_is_the_edited_files(
    files: dict[str, Put], edits: dict[str, Put | None], replace: list[str]
) -> None:
    """Editing a tree is the same as editing the dictionary of its files, and leaves no empty folder."""
    objects = Objects()
    root = objects.edit(None, files)
    edited = objects.edit(root, edits, *replace)

    assert objects.files(edited) == _laid_over(files, edits, replace)


@few_examples
@given(files=baselines, edits=overlays, replace=st.lists(paths, max_size=2))
def test_an_edited_tree_has_gits_id(
    repository: Path, files: dict[str, Put], edits: dict[str, Put | None], replace: list[str]
) -> None:
    """An edited tree has the id of the tree that `git write-tree` makes of the same files."""
    objects = Objects()
    edited = objects.edit(objects.edit(None, files), edits, *replace)

    assert edited.hex() == _git_tree(repository, _laid_over(files, edits, replace))


def test_only_folders_on_the_way_are_touched() -> None:
    """Folders beside the path of an edit are neither read nor written."""
    objects = Objects()
    root = objects.edit(None, {"a/b/x": (FILE, BLOB), "a/c/y": (FILE, BLOB), "d/z": (FILE, BLOB)})
    top = gitobjects.parse_tree(objects[root])
    below = gitobjects.parse_tree(objects[top[b"a"].id])
    edited = objects.edit(root, {"a/b/x": (FILE, OTHER), "new/deep/file": (FILE, BLOB)})

    assert objects.read_ids == [root, top[b"a"].id, below[b"b"].id]
    assert len(objects.written_ids) == 5  # a/b, a, new/deep, new and the root
    assert objects.written_ids[-1] == edited


def test_edits_that_change_nothing_write_nothing() -> None:
    """Putting what is there and taking away what is not there gives the same root, without a write."""
    objects = Objects()
    root = objects.edit(None, {"a/b": (FILE, BLOB), "c": (SYMLINK, BLOB)})
    edits: dict[str, Put | None] = {"a/b": (FILE, BLOB), "a/none": None, "c/below/a/file": None, "x/y": None}

    assert objects.edit(root, edits, "gone") == root
    assert objects.written_ids == []


def test_a_replaced_folder_is_not_read() -> None:
    """A replaced folder holds what is put there and nothing else; its old entries are not looked at."""
    objects = Objects()
    root = objects.edit(None, {"aexp/old": (FILE, BLOB), "train.py": (FILE, BLOB)})
    edited = objects.edit(root, {"aexp/new/file": (FILE, OTHER)}, "aexp")

    assert objects.read_ids == [root]
    assert objects.files(edited) == {"aexp/new/file": (FILE, OTHER), "train.py": (FILE, BLOB)}


def test_a_root_may_be_empty() -> None:
    """A tree from which everything is taken away is Git's empty tree."""
    objects = Objects()
    root = objects.edit(None, {"a/b/c": (FILE, BLOB)})

    assert (
        objects.edit(root, {"a/b/c": None}) == objects.edit(None, {"a": None}) == gitobjects.object_id(Kind.TREE, b"")
    )


def test_a_whole_tree_can_be_put_in_place() -> None:
    """A put of the folder mode sets in an existing tree by its id."""
    objects = Objects()
    inner = objects.edit(None, {"b/c": (FILE, BLOB)})

    assert objects.edit(None, {"a": (FOLDER, inner)}) == objects.edit(None, {"a/b/c": (FILE, BLOB)})


@pytest.mark.parametrize("order", [("a", "a/b"), ("a/b", "a"), ("a/b/c", "a"), ("a", "a/b/c"), ("é", "\udcc3\udca9")])
def test_a_file_and_a_folder_at_one_path_are_refused(order: tuple[str, str]) -> None:
    """Edits that put a file where another edit needs a folder, or two files at one name, are an error in any order."""
    with pytest.raises(ValueError, match="holds one of them"):
        Objects().edit(None, dict.fromkeys(order, (FILE, BLOB)))


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a/", "a//b", ".", "a/../b", "a/./b", "a\0b", "\ud800"),
        *(".git/config", "a/.GIT/b", "a/.git", "GIT~1", ".git. ", ".git::$INDEX_ALLOCATION"),
    ],
)
@pytest.mark.parametrize("as_what", ["put", "deletion", "replacement"])
def test_a_path_that_a_tree_cannot_hold_is_refused(path: str, as_what: str) -> None:
    """Absolute paths, paths that step upwards and names of Git's own folder are unsafe, wherever they are given."""
    edits = {} if as_what == "replacement" else {path: (FILE, BLOB) if as_what == "put" else None}
    replace = (path,) if as_what == "replacement" else ()

    with pytest.raises(UnsafePath) as caught:
        Objects().edit(None, edits, *replace)
    assert caught.value.path == path
