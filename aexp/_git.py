"""The only door to Git: pygit2 handles, the `git` program, packs, refs. Git's errors become ours here."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import pygit2
from attrs import frozen

from ._files import lock, make_folders, read, remove, sync, sync_folder, translating, write_all, write_many, write_new
from ._formats.experiment import Author
from ._formats.gitobjects import Kind
from ._formats.gitpack import PackEncoder
from ._machine import user
from .errors import AexpError, GitError, GitNotFound, NoBaseline, RepositoryNotFound, UnsupportedRepository

OLDEST: Final = (2, 31)
"""The oldest `git` whose `update-ref --stdin` and `status` do what is asked of them here."""

_KINDS: Final = {1: Kind.COMMIT, 2: Kind.TREE, 3: Kind.BLOB}
_KEPT_VARIABLES: Final = frozenset({"GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"})
_PATIENCE: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.16, 0.16, 0.16, 0.16)
"""How long to wait for a ref's lock that another process is passing through, in seconds, try by try."""


@frozen(eq=False)
class Handle:
    """One opened repository; it stays in the thread that opened it (libgit2 objects are not for sharing)."""

    repo: pygit2.Repository
    common: str
    """The common Git directory, which all worktrees share."""
    worktree: str | None
    """The top of the work tree; None for a bare repository."""


@contextmanager
def translating_git(action: str) -> Iterator[None]:
    """Turn what libgit2 raises in the block into ours; *action* completes "Git could not ..."."""
    try:
        with translating():
            yield
    except AexpError:
        raise
    except (pygit2.GitError, KeyError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise GitError(action, str(error)) from error


def open_handle(path: str) -> Handle:
    """Open the repository at *path* or above it.

    Raises `RepositoryNotFound`, or `UnsupportedRepository` for SHA-256, reftable and foreign owners.
    """
    try:
        found = pygit2.discover_repository(path)
    except (KeyError, pygit2.GitError):
        found = None
    if found is None:
        raise RepositoryNotFound(os.path.abspath(path))
    try:
        repo = pygit2.Repository(found)
    except (pygit2.GitError, KeyError, ValueError, OSError) as error:
        raise _unsupported(found, str(error)) from error
    common = os.path.realpath(os.path.join(repo.path, _common(repo.path)))
    return Handle(repo, common, None if repo.workdir is None else os.path.realpath(repo.workdir))


def _common(folder: str) -> str:
    try:
        with open(os.path.join(folder, "commondir"), encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return "."


def _unsupported(path: str, reason: str) -> AexpError:
    if "owner" in reason or "not owned" in reason:
        folder = os.path.dirname(path.rstrip("/"))
        return UnsupportedRepository(path, "it belongs to another user", f"run `git config --global --add safe.directory {folder}`")
    if "object format" in reason or "objectformat" in reason:
        return UnsupportedRepository(path, "it uses SHA-256 object names", "DVC and libgit2 need a SHA-1 repository")
    if "refstorage" in reason:
        return UnsupportedRepository(path, "it uses the reftable format", "run `git refs migrate --ref-format=files`")
    return UnsupportedRepository(path, reason, "see `git status` there")


def check_program() -> None:
    """Raise `GitNotFound` unless a usable `git` is on the PATH."""
    program = shutil.which("git")
    if program is None:
        raise GitNotFound("none")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        raise GitNotFound(said.strip() or program)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a `git` child: no inherited repository, no prompt, no optional lock, plain English."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key in _KEPT_VARIABLES}
    fixed = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
    return inherited | fixed | dict(extra or {})


def run(
    handle: Handle, *arguments: str, input: bytes = b"", extra: Mapping[str, str] | None = None, folder: str | None = None
) -> bytes:
    """Run `git` for the repository and return what it prints; raise `GitError` with its words when it fails."""
    place = folder or handle.worktree or handle.common
    settings = ("-c", "core.preloadIndex=false", "-c", "core.fsmonitor=false", "-c", "gc.auto=0", "-c", "maintenance.auto=0")
    try:
        done = subprocess.run(
            ["git", *settings, *arguments],
            cwd=place,
            input=input,
            capture_output=True,
            env=environment(extra),
            process_group=0,
            check=False,
        )
    except FileNotFoundError:
        raise GitNotFound("none") from None
    if done.returncode:
        raise GitError(f"run `git {arguments[0]}`", done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}")
    return done.stdout


def identity(handle: Handle, variables: Mapping[str, str]) -> Author:
    """Return who makes commits here, as Git finds it: *variables* (the environment), then the configuration, then user@host."""
    config = handle.repo.config

    def setting(key: str) -> str | None:
        return config[key] if key in config else None

    login, host = user(), socket.gethostname()
    name, email = setting("user.name") or login, setting("user.email") or f"{login}@{host}"
    author = (variables.get("GIT_AUTHOR_NAME") or name, variables.get("GIT_AUTHOR_EMAIL") or email)
    committer = (variables.get("GIT_COMMITTER_NAME") or name, variables.get("GIT_COMMITTER_EMAIL") or email)
    return Author(author, committer, (time.localtime().tm_gmtoff or 0) // 60)


def resolve_commit(handle: Handle, spec: str) -> tuple[str, str]:
    """Return (rev, tree) of the commit that *spec* names; raise `NoBaseline` when there is none."""
    repo = handle.repo
    if spec == "HEAD" and repo.head_is_unborn:
        raise NoBaseline("HEAD", "the branch has no commit yet; make a first commit")
    try:
        commit = repo.revparse_single(spec).peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError):
        raise NoBaseline(spec) from None
    return str(commit.id), str(commit.tree_id)


def branch_or_tag(handle: Handle, name: str) -> str | None:
    """Return the branch or tag that is called *name*, as its full ref; None when there is none."""
    return next((ref for ref in (f"refs/heads/{name}", f"refs/tags/{name}") if read_ref(handle, ref)), None)


def read_ref(handle: Handle, ref: str) -> str | None:
    """Return the rev that *ref* holds, None when it does not exist; raise `GitError` when it is damaged."""
    try:
        target = handle.repo.lookup_reference(ref).target
    except KeyError:
        return None
    except (pygit2.GitError, ValueError) as error:
        raise GitError(f"read {ref}", str(error)) from error
    return str(target)


def list_refs(handle: Handle, prefix: str) -> dict[str, str]:
    """Return every ref below *prefix* (which ends in `/`) with the rev it holds, "" where the file is damaged.

    Read in Python: libgit2 holds the interpreter while it lists (8 ms a thousand), and leaves damaged refs out.
    """
    found: dict[str, str] = {}
    try:
        with open(os.path.join(handle.common, "packed-refs"), encoding="utf-8", errors="surrogateescape") as file:
            start = prefix
            found = {line[41:-1]: line[:40] for line in file if line.startswith(start, 41)}
    except FileNotFoundError:
        pass
    for ref, path in _loose(os.path.join(handle.common, prefix), prefix):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                text = file.read().strip()
        except FileNotFoundError:
            continue
        if not text.startswith("ref:"):
            found[ref] = text if re.fullmatch(r"[0-9a-f]{40}", text) else ""
    return found


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


def read_object(handle: Handle, id: bytes | str) -> tuple[Kind, bytes]:
    """Return the kind and content of an object; raise `GitError` when it is missing or damaged."""
    oid = pygit2.Oid(raw=id) if isinstance(id, bytes) else pygit2.Oid(hex=id)
    try:
        kind, content = handle.repo.odb.read(oid)
        return _KINDS[int(kind)], content
    except (KeyError, pygit2.GitError, OSError, ValueError) as error:
        with translating():
            if isinstance(error, OSError) and error.errno:
                raise
        raise GitError(f"read the object {oid}", "it is missing or damaged") from error


def read_quarantined(folder: str, id: bytes) -> bytes:
    """Return the content of an object that a child wrote into the object directory *folder*."""
    with translating_git("read captured code"):
        return pygit2.Odb(folder).read(pygit2.Oid(raw=id))[1]


@frozen(eq=False)
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
        """Let Git repack or collect it: its objects are reachable now, or not wanted."""
        remove(f"{self.path}.keep")


def write_pack(handle: Handle, objects: Sequence[tuple[Kind, bytes]], fetch: Callable[[bytes], bytes], owner: str) -> Pack:
    """Write *objects* (kind, id), whose contents *fetch* gives, as one pack with a `.keep`; all is synced on return.

    The order is `.keep`, pack, index, folder: a pack that can be seen is whole and kept. Temporary names begin with
    `tmp_`, which `git gc` removes and no Git opens (performance reference, part 1c).
    """
    folder = os.path.join(handle.common, "objects", "pack")
    temporary = [os.path.join(folder, f"tmp_{what}_aexp-{owner}-{os.getpid()}") for what in ("pack", "idx")]
    encoder = PackEncoder(len(objects))
    with translating(folder):
        try:
            _write_stream(temporary[0], _pack_chunks(encoder, objects, fetch))
            index = encoder.index()
            _write_stream(temporary[1], [index])
            path = os.path.join(folder, f"pack-{encoder.checksum}")
            remove(f"{path}.keep")
            write_new(f"{path}.keep", f"aexp {owner}\n".encode())
            os.rename(temporary[0], f"{path}.pack")
            os.rename(temporary[1], f"{path}.idx")
            sync_folder(folder)
            return Pack(path, index)
        except BaseException:
            for name in temporary:
                remove(name)
            raise


def _pack_chunks(encoder: PackEncoder, objects: Sequence[tuple[Kind, bytes]], fetch: Callable[[bytes], bytes]) -> Iterator[bytes]:
    yield encoder.header()
    for kind, id in objects:
        yield encoder.add(kind, id, fetch(id))
    yield encoder.trailer()


def _write_stream(path: str, chunks: Iterable[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o444)
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


@frozen(eq=False)
class Move:
    """A ref that shall hold *new* if it holds *expected* now (None: if it does not exist)."""

    ref: str
    new: str
    expected: str | None


@frozen(eq=False)
class Refused:
    """A move that was not made: the ref holds *found*, or could not be locked because of *error*."""

    found: str | None = None
    error: AexpError | None = None


def move_refs(handle: Handle, moves: Sequence[Move], scratch: str) -> list[Refused | None]:
    """Make every move whose ref holds what it should, each under Git's own lock; all are durable on return.

    Lock, look, set: libgit2 looks before it locks, so two processes can both believe they made a ref
    (reliability reference, finding 2). The lock is a hard link to a file that already holds the new rev, so a
    lock that a killed process leaves says whose it is. *scratch* is a folder of ours on the same disk.
    """
    answers: list[Refused | None] = []
    changed: set[str] = set()
    values = {os.path.join(scratch, f"ref-{place}"): f"{move.new}\n".encode() for place, move in enumerate(moves)}
    with translating(os.path.join(handle.common, "refs")):
        write_many(values)
        for value, move in zip(values, moves, strict=True):
            try:
                answers.append(_move_ref(handle, move, value, changed))
            except GitError as error:
                answers.append(Refused(error=error))
            finally:
                remove(value)
        for folder in changed:
            if os.path.isdir(folder):
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
        if found == move.new:
            return None
        if found != move.expected:
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


def _sweep_dead(handle: Handle, sessions: str) -> None:
    """Remove the ref locks of sessions in the folder *sessions* whose owner is dead."""
    for name in os.listdir(sessions):
        descriptor = lock(os.path.join(sessions, name, "owner.lock"))
        if descriptor is not None:
            try:
                sweep_locks(handle, os.path.join(sessions, name))
            finally:
                os.close(descriptor)


def sweep_locks(handle: Handle, scratch: str) -> None:
    """Remove every ref lock that is one file with a value in *scratch*, the folder of a dead session held by the caller."""
    values = {os.lstat(path).st_ino: path for path in _values(scratch)}
    if values:
        for prefix in ("refs/exps/", "refs/aexp/"):
            for path in _locks(os.path.join(handle.common, prefix)):
                if os.lstat(path).st_ino in values:
                    remove(path)
    for path in values.values():
        remove(path)


def _values(scratch: str) -> list[str]:
    return [os.path.join(scratch, name) for name in os.listdir(scratch) if name.startswith("ref-")]


def _locks(folder: str) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        yield from (os.path.join(where, name) for name in names if name.endswith(".lock"))


def sweep_packs(handle: Handle, owner: str) -> None:
    """Remove what the dead session *owner* left among the packs: half-written ones, and its `.keep` files."""
    folder = os.path.join(handle.common, "objects", "pack")
    with translating(folder):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name.startswith((f"tmp_pack_aexp-{owner}", f"tmp_idx_aexp-{owner}")):
                remove(path)
            elif name.endswith(".keep") and read(path).strip() == f"aexp {owner}".encode():
                remove(path)


def delete_refs(handle: Handle, refs: Mapping[str, str]) -> None:
    """Delete each ref that still holds the rev beside it, all or none.

    By `git update-ref`: libgit2 loses other people's refs when `git pack-refs` runs beside it (reliability
    reference, finding 1).
    """
    if refs:
        lines = "".join(f"delete {ref} {rev}\n" for ref, rev in refs.items())
        run(handle, "update-ref", "--stdin", input=f"start\n{lines}prepare\ncommit\n".encode("utf-8", "surrogateescape"))
