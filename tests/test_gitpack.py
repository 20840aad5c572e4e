"""Packs and their indexes: what the git program accepts, reads and writes itself."""

import os
import random
import struct
import subprocess
import tracemalloc
from hashlib import sha1
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aexp._formats import gitpack
from aexp._formats.gitobjects import (
    EXECUTABLE,
    FILE,
    FOLDER,
    Entry,
    Kind,
    Signature,
    encode_commit,
    encode_tree,
    object_id,
)
from aexp._formats.gitpack import PackEncoder

ADA = Signature("Ada Lovelace", "ada@example.org", 1700000000, 60)
NOISE = random.Random(7).randbytes(3 << 20)
# Where the size takes one byte more, where other zlib settings begin, and where slices do.
SIZES = (0, 1, 15, 16, 2047, 2048, 4096, 4097, 262_143, 262_144, 1 << 20, (1 << 20) + 1, 3 << 20)

Packed = list[tuple[Kind, bytes, bytes]]


def git(home: Path, *arguments: str | Path, given: bytes = b"") -> bytes:
    """Run git in the repository *home* with nobody's configuration, and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *arguments], cwd=home, input=given, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """An empty bare repository."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main")
    return tmp_path


def _objects(*made: tuple[Kind, bytes]) -> Packed:
    return [(kind, object_id(kind, content), content) for kind, content in made]


def history() -> Packed:
    """A commit, its parent, and all they hold: blobs of all sizes in a small and in a large tree."""
    blobs = _objects(*((Kind.BLOB, NOISE[:size]) for size in SIZES), (Kind.BLOB, b"lr: 0.1\n" * 100_000))
    files = [Entry(b"file%d" % place, EXECUTABLE, oid) for place, (_, oid, _) in enumerate(blobs)]
    many = [Entry(b"%03d" % place, FILE, blobs[place % len(blobs)][1]) for place in range(300)]
    folders = _objects((Kind.TREE, encode_tree(files)), (Kind.TREE, encode_tree(many)), (Kind.TREE, b""))
    named = zip((b"few", b"many", b"none"), folders, strict=True)
    root = encode_tree([Entry(name, FOLDER, oid) for name, (_, oid, _) in named])
    roots = _objects((Kind.TREE, root))
    first = _objects((Kind.COMMIT, encode_commit(folders[2][1], [], ADA, ADA, "first")))
    second = _objects((Kind.COMMIT, encode_commit(roots[0][1], [first[0][1]], ADA, ADA, "aexp: second")))
    return [*second, *blobs, *roots, *folders, *first]


def _packed(encoder: PackEncoder, contents: Packed) -> bytes:
    return b"".join([encoder.header(), *(encoder.add(*each) for each in contents), encoder.trailer()])


def install(repository: Path, contents: Packed) -> Path:
    """Put a pack of *contents* and its index into *repository* and return the path of the index."""
    encoder = PackEncoder(len(contents))
    pack = _packed(encoder, contents)
    index = repository / "objects" / "pack" / f"pack-{encoder.checksum}.idx"
    index.with_suffix(".pack").write_bytes(pack)
    index.write_bytes(encoder.index())
    return index


def test_git_reads_what_was_packed(repository: Path) -> None:
    """`git fsck` and `git verify-pack` find nothing wrong with a pack, and `git cat-file` reads every object back."""
    contents = history()
    index = install(repository, contents)
    git(repository, "update-ref", "refs/heads/main", contents[0][1].hex())
    git(repository, "fsck", "--strict", "--full")
    listed = git(repository, "verify-pack", "-v", index).decode().splitlines()
    asked = b"".join(b"%b\n" % oid.hex().encode() for _, oid, _ in contents)

    expected = [b"%b %b %d\n%b\n" % (oid.hex().encode(), kind.word, len(body), body) for kind, oid, body in contents]
    assert git(repository, "cat-file", "--batch", given=asked) == b"".join(expected)
    assert f"non delta: {len(contents)} objects" in listed


def test_git_makes_the_same_index(repository: Path) -> None:
    """`git index-pack --strict` accepts a pack and writes, byte for byte, the index that the encoder makes."""
    contents = history()
    encoder = PackEncoder(len(contents))
    pack, index = repository / "a.pack", repository / "a.idx"
    pack.write_bytes(_packed(encoder, contents))
    printed = git(repository, "index-pack", "--strict", "-o", index, pack)

    assert printed.decode().split()[-1] == encoder.checksum
    assert index.read_bytes() == encoder.index()


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(st.binary(max_size=300), unique=True), level=st.integers(0, 9))
def test_any_pack_has_gits_index(repository: Path, contents: list[bytes], level: int) -> None:
    """Whatever the contents, their number (none, too) and the level, pack and index are what Git expects."""
    encoder = PackEncoder(len(contents), level=level)
    pack, index = repository / "a.pack", repository / "a.idx"
    pack.write_bytes(_packed(encoder, _objects(*((Kind.BLOB, content) for content in contents))))
    index.unlink(missing_ok=True)
    git(repository, "index-pack", "--strict", "-o", index, pack)

    assert index.read_bytes() == encoder.index()


def test_git_makes_the_same_table_of_large_offsets(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to treat offsets past 1,000 as large, Git writes the same 64-bit table that the encoder then writes."""
    contents = history()
    encoder = PackEncoder(len(contents))
    pack, index = repository / "a.pack", repository / "a.idx"
    pack.write_bytes(_packed(encoder, contents))
    git(repository, "index-pack", "--index-version=2,1000", "-o", index, pack)
    plain = encoder.index()
    monkeypatch.setattr(gitpack, "_LARGE_OFFSET", 1001)

    assert index.read_bytes() == encoder.index()
    assert len(encoder.index()) > len(plain)


def test_offsets_beyond_31_bits_stand_in_their_own_table(repository: Path) -> None:
    """Of objects before and after the 2 GB mark, the later ones are found by the 64-bit table, as gitformat-pack says."""
    contents = _objects(*((Kind.BLOB, b"%d" % number) for number in range(6)))
    encoder = PackEncoder(len(contents))
    encoder.header()
    offsets = {}
    for start, each in zip((12, 100, 2**31 - 1, 2**31, 2**31 + 100, 2**40), contents, strict=True):
        encoder._offset = start
        encoder.add(*each)
        offsets[each[1]] = start
    index = encoder.index()
    shown = [line.split() for line in git(repository, "show-index", given=index).decode().splitlines()]

    assert {bytes.fromhex(oid): int(offset) for offset, oid, _ in shown} == offsets
    large = [offsets[oid] for oid in sorted(offsets) if offsets[oid] >= 2**31]
    assert index[-40 - 8 * len(large) : -40] == struct.pack(f">{len(large)}Q", *large)
    small = struct.unpack(">6I", index[-40 - 8 * len(large) - 24 : -40 - 8 * len(large)])
    assert sorted(number - 2**31 for number in small if number >= 2**31) == list(range(len(large)))
    assert index[-40:] == encoder.trailer() + sha1(index[:-20]).digest()


def test_the_name_of_a_pack_is_its_checksum() -> None:
    """The checksum is the last 20 bytes of the pack, the SHA-1 of all before, and asking twice changes nothing."""
    encoder = PackEncoder(1)
    pack = _packed(encoder, _objects((Kind.BLOB, b"one")))

    assert encoder.checksum == pack[-20:].hex() == sha1(pack[:-20]).hexdigest()
    assert (encoder.header(), encoder.trailer(), encoder.index()) == (pack[:12], pack[-20:], encoder.index())


def test_an_object_too_many_is_refused() -> None:
    """A pack takes as many objects as it announced, not one more."""
    encoder = PackEncoder(1)
    encoder.add(*_objects((Kind.BLOB, b"one"))[0])

    with pytest.raises(ValueError, match="announced with 1 objects; this is one more"):
        encoder.add(*_objects((Kind.BLOB, b"two"))[0])


def test_a_missing_object_is_noticed() -> None:
    """Neither trailer nor index nor name of a pack can be had while announced objects are missing."""
    encoder = PackEncoder(2)
    encoder.add(*_objects((Kind.BLOB, b"one"))[0])

    for ask in (encoder.trailer, encoder.index, lambda: encoder.checksum):
        with pytest.raises(ValueError, match="announced with 2 objects and holds 1"):
            ask()


def test_an_object_is_packed_once() -> None:
    """The same id twice is an error, which leaves the pack as it was."""
    one, two = _objects((Kind.BLOB, b"one"), (Kind.BLOB, b"two"))
    encoder = PackEncoder(2)
    head = [encoder.header(), encoder.add(*one)]
    with pytest.raises(ValueError, match="in this pack already"):
        encoder.add(*one)

    assert b"".join([*head, encoder.add(*two), encoder.trailer()]) == _packed(PackEncoder(2), [one, two])


@pytest.mark.parametrize(("kind", "oid"), [(3, b"short"), (0, b"0" * 20), (4, b"0" * 20), (6, b"0" * 20)])
def test_only_whole_objects_are_packed(kind: int, oid: bytes) -> None:
    """An id that is not 20 bytes, or a kind that is not a commit, tree or blob, is refused."""
    with pytest.raises(ValueError, match="not an object of a pack"):
        PackEncoder(1).add(kind, oid, b"content")


@pytest.mark.parametrize("count", [-1, 2**32])
def test_the_number_of_objects_has_32_bits(count: int) -> None:
    """A number of objects that the header cannot hold is refused at construction."""
    with pytest.raises(ValueError, match="0 to 4294967295"):
        PackEncoder(count)


def test_contents_are_not_kept() -> None:
    """An encoder keeps less than 300 bytes for each object, whatever the object's size."""
    contents = _objects(*((Kind.BLOB, b"%d" % number + NOISE[:20_000]) for number in range(200)))
    encoder = PackEncoder(len(contents))
    tracemalloc.start()
    try:
        for each in contents:
            encoder.add(*each)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 300 * len(contents)
