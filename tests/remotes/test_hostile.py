"""A remote may hold and say anything: what is unsound is refused by name, and nothing of it is seen here."""

import os
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import aexp
from aexp._layout import experiment_ref

Git = Callable[..., str]
Saved = Callable[..., Awaitable[list[aexp.Record]]]
Refs = Callable[..., dict[str, str]]
Leftovers = Callable[[Path], list[str]]

FLUSH = b"0000"

pytestmark = pytest.mark.remotes


def write_object(path: Path, kind: str, content: bytes) -> str:
    """Write an object that no sane Git would make, and return its id."""
    command = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    return subprocess.run(command, cwd=path, input=content, capture_output=True, check=True).stdout.decode().strip()


def write_tree(path: Path, *entries: tuple[str, bytes, str]) -> str:
    """Write a tree of (mode, name, id), in this order, whatever stands in it."""
    content = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(id) for mode, name, id in entries)
    return write_object(path, "tree", content)


def write_commit(path: Path, tree: str, *parents: str) -> str:
    """Write a commit of the tree."""
    who = "Mallory <m@example.org> 1767225600 +0000"
    above = "".join(f"parent {parent}\n" for parent in parents)
    return write_object(path, "commit", f"tree {tree}\n{above}author {who}\ncommitter {who}\n\nevil\n".encode())


def plant(git: Git, path: Path, name: str, rev: str) -> str:
    """Give the experiment *name* of the remote the commit *rev*; return its ref."""
    ref = experiment_ref(git("rev-parse", "main", cwd=path), name)
    (path / ref).parent.mkdir(parents=True, exist_ok=True)
    (path / ref).write_text(f"{rev}\n")
    return ref


def everything(path: Path) -> dict[str, bytes]:
    """Every file of the clone and of its Git directory, but for the empty folders of aexp and the pack that was there."""
    return {str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()}


TREES: dict[str, list[tuple[str, bytes]]] = {
    "dot dot": [("40000", b"..")],
    "dot": [("40000", b".")],
    "slash": [("100644", b"a/b")],
    "absolute": [("100644", b"/etc/passwd")],
    "git": [("40000", b".git")],
    "GIT": [("40000", b".GIT")],
    "git on NTFS": [("40000", b"git~1")],
    "git on HFS+": [("40000", ".g\u200cit".encode())],
    "git with a dot behind it": [("40000", b".git.")],
    "git with a stream": [("40000", b".git::$INDEX_ALLOCATION")],
    "git with a backslash": [("100644", b".git\\config")],
    "modules that are a link": [("120000", b".gitmodules")],
    "twice the same": [("100644", b"a"), ("100644", b"a")],
    "file and folder": [("100644", b"a"), ("40000", b"a")],
    "out of order": [("100644", b"b"), ("100644", b"a")],
    "no name": [("100644", b"")],
}


@pytest.mark.parametrize("case", TREES)
async def test_a_tree_with_a_hostile_name_is_refused(
    other: aexp.Repository,
    other_path: Path,
    remote: Path,
    case: str,
    git: Git,
    refs_of: Refs,
    leftovers: Leftovers,
    fsck: Callable[[Path], None],
) -> None:
    """Names that leave a folder or mean Git's own, however deep, are refused; no ref and no object of them is here."""
    empty = write_object(remote, "blob", b"")
    folder = write_tree(remote, ("100644", b"config", empty))
    evil = write_tree(remote, *((mode, name, folder if mode == "40000" else empty) for mode, name in TREES[case]))
    root = write_tree(remote, ("40000", b"deep", write_tree(remote, ("40000", b"er", evil))))
    rev = write_commit(remote, root, git("rev-parse", "main", cwd=remote))
    plant(git, remote, "evil", rev)
    before = everything(other_path)

    with pytest.raises(aexp.RemoteError) as caught:
        await other.pull("evil")
    assert caught.value.kind in ("hostile", "unreachable")  # some trees not even Git's own server can send
    assert refs_of(other_path) == {}
    assert git("cat-file", "-t", evil, cwd=other_path, check=False) == ""
    after = everything(other_path)
    assert {name: after.get(name) for name in before} == before
    assert set(after) - set(before) <= {".git/aexp/format"}
    assert leftovers(other_path) == []
    fsck(other_path)


@pytest.mark.parametrize("message", ["hasDotgit", "hasDotdot", "hasDot", "hasFullPathname", "duplicateEntries"])
async def test_what_is_hostile_cannot_be_configured_away(
    other: aexp.Repository, other_path: Path, remote: Path, git: Git, refs_of: Refs, message: str
) -> None:
    """A user who told Git to take such trees for old repositories' sake still gets none by a pull."""
    cases = {"hasDotgit": "git", "hasDotdot": "dot dot", "hasDot": "dot", "hasFullPathname": "slash"}
    for section in ("fetch", "receive"):
        git("config", f"{section}.fsck.{message}", "ignore", cwd=other_path)
    git("config", "fetch.fsckObjects", "false", cwd=other_path)
    empty = write_object(remote, "blob", b"")
    folder = write_tree(remote, ("100644", b"config", empty))
    entries = TREES[cases.get(message, "twice the same")]
    evil = write_tree(remote, *((mode, name, folder if mode == "40000" else empty) for mode, name in entries))
    plant(git, remote, "evil", write_commit(remote, evil))
    with pytest.raises(aexp.RemoteError) as caught:
        await other.pull("evil")
    assert caught.value.kind == "hostile"
    assert refs_of(other_path) == {}


async def test_one_hostile_experiment_does_not_keep_the_others(
    repository: aexp.Repository, other: aexp.Repository, remote: Path, git: Git, saved: Saved
) -> None:
    """A pull with a hostile experiment in it takes nothing; the others come when they are pulled by name."""
    await saved(repository, "good")
    await repository.push()
    plant(
        git,
        remote,
        "evil",
        write_commit(remote, write_tree(remote, ("100644", b"..", write_object(remote, "blob", b"")))),
    )
    with pytest.raises(aexp.RemoteError, match="by name"):
        await other.pull()
    assert await other.experiments() == aexp.Records()
    assert [each.outcome for each in await other.pull("good")] == ["new"]


async def test_a_link_that_leads_outside_is_only_content(
    other: aexp.Repository, other_path: Path, remote: Path, tmp_path: Path, git: Git
) -> None:
    """A symbolic link to a place outside is legal in Git: it is pulled as content, and nothing follows it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    link = write_object(remote, "blob", str(tmp_path / "outside").encode())
    rev = write_commit(remote, write_tree(remote, ("120000", b"data", link)))
    plant(git, remote, "link", rev)
    assert [each.outcome for each in await other.pull("link")] == ["new"]
    assert await other.read("link", "data") == str(tmp_path / "outside").encode()
    with pytest.raises(FileNotFoundError):
        await other.read("link", "data/secret")
    assert [each.name for each in (tmp_path / "outside").iterdir()] == ["secret"]
    assert git("status", "--porcelain", cwd=other_path) == ""


@pytest.mark.parametrize("kind", ["tree", "blob", "tag"])
async def test_a_ref_that_holds_no_commit_is_refused(
    other: aexp.Repository, remote: Path, git: Git, refs_of: Refs, other_path: Path, kind: str
) -> None:
    """An experiment is a commit: a ref to a tree, a file or a tag is refused by its name."""
    main = git("rev-parse", "main", cwd=remote)
    who = "Mallory <m@example.org> 1767225600 +0000"
    objects = {
        "tree": lambda: git("rev-parse", "main^{tree}", cwd=remote),
        "blob": lambda: write_object(remote, "blob", b"no commit"),
        "tag": lambda: write_object(remote, "tag", f"object {main}\ntype commit\ntag x\ntagger {who}\n\nx\n".encode()),
    }
    ref = plant(git, remote, "no-commit", objects[kind]())
    with pytest.raises(aexp.RemoteError, match="holds no commit") as caught:
        await other.pull("no-commit")
    assert caught.value.kind == "hostile"
    assert ref in str(caught.value)
    assert refs_of(other_path) == {}


async def test_a_ref_where_a_folder_of_refs_stands_is_refused(
    repository: aexp.Repository, other: aexp.Repository, other_path: Path, saved: Saved, git: Git, refs_of: Refs
) -> None:
    """A ref that cannot be made, because refs stand below its name, is refused by name, and the others are pulled."""
    records = await saved(repository, "clash", "fine")
    await repository.push()
    git("update-ref", f"{records[0].ref}/below", "HEAD", cwd=other_path)
    with pytest.raises(aexp.RemoteError) as caught:
        await other.pull()
    assert {each.name: each.outcome for each in caught.value.transfers} == {"clash": "refused", "fine": "new"}
    assert set(refs_of(other_path)) == {f"{records[0].ref}/below", records[1].ref}


async def test_hostile_refs_are_not_listed(
    repository: aexp.Repository, other: aexp.Repository, remote: Path, git: Git, saved: Saved
) -> None:
    """Names that drive a terminal or that no disk holds are not listed, not pulled, and stop nobody."""
    await saved(repository, "good")
    await repository.push()
    main = git("rev-parse", "main", cwd=remote)
    for name in ("a\u202eb", "gro\u0308ss", "-rf", "x" * 220, "a\u200bb"):
        plant(git, remote, name, main)
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "main", cwd=remote)
    git("update-ref", "refs/exps/my/foo", "main", cwd=remote)
    assert [each.name for each in await other.remote_experiments()] == ["good"]
    assert [each.name for each in await other.pull()] == ["good"]
    with pytest.raises(aexp.ExperimentNotFound):
        await other.pull(experiment_ref(main, "-rf"))


async def test_more_than_is_wanted_is_cut_off(
    repository: aexp.Repository, other_path: Path, refs_of: Refs, leftovers: Leftovers
) -> None:
    """A remote that sends more than Settings.pull_limit is cut off, and nothing of it is kept."""
    async with repository.experiment("large") as experiment:
        await experiment.log_file("noise.bin", os.urandom(3_000_000))
    await repository.push()
    async with aexp.Repository(other_path, settings=aexp.Settings(pull_limit=100_000)) as other:
        with pytest.raises(aexp.RemoteError, match="pull_limit") as caught:
            await other.pull()
    assert caught.value.kind == "hostile"
    assert refs_of(other_path) == {}
    assert leftovers(other_path) == []


# ---- a server that lies: the git protocol, version 0, without capabilities (gitprotocol-pack(5)) ----


def pkt(line: bytes) -> bytes:
    """One line of the protocol."""
    return b"%04x" % (len(line) + 4) + line


@contextmanager
def liar(refs: dict[str, str], pack: bytes) -> Iterator[str]:
    """A server that lists *refs* and answers every request with the bytes *pack*; yields its URL."""
    advertised = [f"{rev} {ref}" for ref, rev in refs.items()]
    first, *others = advertised
    listing = (
        pkt(f"{first}\0 allow-tip-sha1-in-want".encode()) + b"".join(pkt(line.encode()) for line in others) + FLUSH
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = server.accept()
                    with connection, connection.makefile("rb") as asked:
                        connection.settimeout(10)
                        asked.read(int(asked.read(4), 16) - 4)
                        connection.sendall(listing)
                        while (size := asked.read(4)) and size != FLUSH:
                            asked.read(int(size, 16) - 4)
                        if size == FLUSH and (size := asked.read(4)):
                            while asked.read(int(size, 16) - 4).strip() != b"done":
                                size = asked.read(4)
                                if size == FLUSH:
                                    connection.sendall(pkt(b"NAK\n"))
                                    size = asked.read(4)
                            connection.sendall(pkt(b"NAK\n") + pack)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"git://127.0.0.1:{server.getsockname()[1]}/x"
        finally:
            over.set()
            thread.join()


def pack_of(path: Path, *objects: str) -> bytes:
    """A pack of these objects and no others."""
    command = ["git", "pack-objects", "--stdout", "--quiet"]
    names = "".join(f"{each}\n" for each in objects).encode()
    return subprocess.run(command, cwd=path, input=names, capture_output=True, check=True).stdout


def flipped(content: bytes, place: int) -> bytes:
    """The content with one bit turned."""
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize(
    "lie", ["none", "blob", "tree", "commit", "bit", "sum", "cut", "empty", "other", "noise", "count"]
)
async def test_what_a_lying_server_sends_is_checked(
    repository: aexp.Repository,
    other: aexp.Repository,
    repo_path: Path,
    other_path: Path,
    git: Git,
    saved: Saved,
    refs_of: Refs,
    leftovers: Leftovers,
    fsck: Callable[[Path], None],
    lie: str,
) -> None:
    """A pack that is damaged, cut off, or lacks what it should hold is refused, and leaves nothing; a whole one is taken."""
    (record,) = await saved(repository, "one")
    ids = git("rev-list", "--objects", "--no-object-names", record.rev, "^main", cwd=repo_path).splitlines()
    kinds = {id: git("cat-file", "-t", id, cwd=repo_path) for id in ids}
    whole = pack_of(repo_path, *ids)

    def without(kind: str) -> bytes:
        left_out = next(id for id in reversed(ids) if kinds[id] == kind)
        return pack_of(repo_path, *(id for id in ids if id != left_out))

    lies: dict[str, Callable[[], bytes]] = {
        "none": lambda: whole,
        "blob": lambda: without("blob"),
        "tree": lambda: without("tree"),
        "commit": lambda: without("commit"),
        "bit": lambda: flipped(whole, len(whole) // 2),
        "sum": lambda: flipped(whole, len(whole) - 1),
        "cut": lambda: whole[: len(whole) // 2],
        "empty": lambda: b"",
        "other": lambda: pack_of(repo_path, git("rev-parse", "main:train.py", cwd=repo_path)),
        "noise": lambda: b"PACK" + bytes(range(256)) * 4,
        "count": lambda: whole[:8] + (2**31).to_bytes(4, "big") + whole[12:],
    }
    with liar({record.ref: record.rev}, lies[lie]()) as url:
        if lie == "none":
            assert [each.outcome for each in await other.pull("one", remote=url)] == ["new"]
            assert await other.get("one") == record
        else:
            with pytest.raises(aexp.RemoteError) as caught:
                await other.pull("one", remote=url)
            assert caught.value.kind in ("hostile", "unreachable")
            assert refs_of(other_path) == {}
            assert git("cat-file", "-t", record.rev, cwd=other_path, check=False) == ""
    assert leftovers(other_path) == []
    fsck(other_path)


async def test_refs_of_a_lying_server_lead_nowhere_else(
    repository: aexp.Repository, other: aexp.Repository, repo_path: Path, other_path: Path, git: Git, saved: Saved
) -> None:
    """A server may list refs that climb out of their folder or that are no refs: nothing comes of them."""
    (record,) = await saved(repository, "one")
    ids = git("rev-list", "--objects", "--no-object-names", record.rev, "^main", cwd=repo_path).splitlines()
    climbing = experiment_ref(record.baseline, "../../../../../hooks/post-checkout")
    refs = {
        record.ref: record.rev,
        climbing: record.rev,
        f"{record.ref}\x1b[2J": record.rev,
        "refs/exps/..": record.rev,
    }
    with liar(refs, pack_of(repo_path, *ids)) as url:
        assert [each.name for each in await other.remote_experiments(url)] == ["one"]
        assert [each.name for each in await other.pull(remote=url)] == ["one"]
    assert not (other_path / ".git" / "hooks" / "post-checkout").exists()
