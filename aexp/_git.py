"""The only door to Git: pygit2 handles and the `git` program. Git's errors become ours here."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from typing import Final

import pygit2
from attrs import field, frozen

from ._files import translated, translating
from ._formats.experiment import Author
from ._formats.gitobjects import Kind, object_id
from ._machine import user
from ._refusals import refused, unusable
from .errors import (
    AexpError,
    GitError,
    GitNotFound,
    InvalidName,
    NoBaseline,
    RepositoryNotFound,
)

OLDEST: Final = (2, 31)
"""The oldest `git` whose `update-ref --stdin` and `status` do what is asked of them here."""

_CONFIG: Final = ("core.preloadIndex=false", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=0")
LARGE: Final = 1 << 19
"""From how many bytes on an object is read by a `git` child: libgit2 holds the interpreter while it inflates and hashes."""

_KINDS: Final = {1: Kind.COMMIT, 2: Kind.TREE, 3: Kind.BLOB}
_KEPT_VARIABLES: Final = ("GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM")


@frozen(eq=False, repr=False)
class Handle:
    """One opened repository; it stays in the thread that opened it (libgit2 objects are not for sharing)."""

    repo: pygit2.Repository
    common: str
    """The common Git directory, which all worktrees share."""
    worktree: str | None
    """The top of the work tree; None for a bare repository."""
    variables: Mapping[str, str] = field(factory=dict)
    """What every `git` child for it finds in its environment."""


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
        found = pygit2.discover_repository(os.path.abspath(path))
    except (KeyError, pygit2.GitError):
        found = None
    if found is None:
        raise RepositoryNotFound(os.path.abspath(path))
    try:
        repo = pygit2.Repository(os.path.abspath(path))  # not *found*: a `.git` file alone may know the work tree
    except (pygit2.GitError, KeyError, ValueError, OSError) as error:
        raise unusable(found, error) from error
    common = os.path.realpath(os.path.join(repo.path, _common(repo.path)))
    handle = Handle(repo, common, None if repo.workdir is None else os.path.realpath(repo.workdir))
    weakref.finalize(
        handle, repo.free
    ).atexit = False  # in a circle of pygit2's, it would keep packs open until the next gc
    return handle


def _common(folder: str) -> str:
    try:
        with open(os.path.join(folder, "commondir"), encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        return "."


def make_empty(path: str) -> None:
    """Make a bare repository without a commit at *path*."""
    with translating_git(f"make a repository at {path}"):
        pygit2.init_repository(path, bare=True)


def check_program() -> tuple[int, int]:
    """Return the version of the `git` on the PATH; raise `GitNotFound` unless it is usable."""
    program = shutil.which("git")
    if program is None:
        raise GitNotFound("none")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    version = (0, 0) if found is None else (int(found[1]), int(found[2]))
    if version < OLDEST:
        raise GitNotFound(said.strip() or program)
    return version


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a `git` child: no inherited repository, no prompt, no optional lock, plain English."""
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key in _KEPT_VARIABLES
    }
    fixed = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C"}
    return inherited | fixed | dict(extra or {})


def place(handle: Handle, folder: str | None = None) -> str:
    """Return the folder that a `git` child starts in: *folder*, or the top of the work tree, while that is there."""
    wanted = folder or handle.worktree or handle.common
    return wanted if os.path.isdir(wanted) else handle.common  # a linked worktree can go while its experiments go on


def command(config: Sequence[str] = ()) -> list[str]:
    """Return the beginning of a command of `git`, with the settings *config* (`key=value` each)."""
    return ["git", *(word for setting in (*_CONFIG, *config) for word in ("-c", setting))]


def run(
    handle: Handle,
    *arguments: str,
    input: bytes = b"",
    extra: Mapping[str, str] | None = None,
    folder: str | None = None,
    config: Sequence[str] = (),
) -> bytes:
    """Run `git` for the repository, with *config* (`key=value` each), and return what it prints.

    Raises `GitError` with its words when it fails, `ReadOnlyRepository` or `DiskFull` when these say so.
    """
    try:
        done = subprocess.run(
            [*command(config), *arguments],
            cwd=place(handle, folder),
            input=input,
            capture_output=True,
            env=environment({**handle.variables, **(extra or {})}),
            process_group=0,
            check=False,
        )
    except FileNotFoundError:
        raise GitNotFound("none") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
        raise refused(handle.common, f"run `git {arguments[0]}`", said)
    return done.stdout


def run_bounded(handle: Handle, limit: int, *arguments: str) -> tuple[bytes, bool]:
    """Run `git`, ended after *limit* bytes; return what it prints, and whether that is all; raise as `run` does."""
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            [*command(), *arguments],
            cwd=place(handle),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(),
            process_group=0,
        ) as child,
    ):
        assert child.stdout is not None
        found = child.stdout.read(limit + 1)
        if len(found) > limit:
            child.kill()
            return found[:limit], False
        if child.wait():
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise refused(handle.common, f"run `git {arguments[0]}`", said or f"exit {child.returncode}")
    return found, True


def settings_of(handle: Handle) -> list[tuple[str, str, str]]:
    """Return (file or other origin, key, value) of every setting of Git here, in the order in which the last one wins."""
    parts = os.fsdecode(run(handle, "config", "--list", "-z", "--show-origin")).split("\0")
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return [(origin, *setting.partition("\n")[::2]) for origin, setting in pairs]


def setting(handle: Handle, key: str) -> str | None:
    """Return the setting *key* of Git's configuration; None where it is not set."""
    config = handle.repo.config
    return config[key] if key in config else None


def remotes(handle: Handle) -> list[str]:
    """Return the names of the configured remotes."""
    with translating_git("list the remotes"):
        return [name for name in handle.repo.remotes.names() if name]


def identity(handle: Handle, variables: Mapping[str, str]) -> Author:
    """Return who makes commits here, as Git finds it: *variables* (the environment), then the configuration, then user@host."""
    login, host = user(), socket.gethostname()
    name = setting(handle, "user.name") or login
    email = setting(handle, "user.email") or f"{login}@{host}"
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
    except OSError as error:
        raise refused(handle.common, f"read {spec}", str(error)) from error
    return str(commit.id), str(commit.tree_id)


def branch_or_tag(handle: Handle, name: str) -> str | None:
    """Return the branch or tag that is called *name*, as its full ref; None when there is none."""
    return next((ref for ref in (f"refs/heads/{name}", f"refs/tags/{name}") if read_ref(handle, ref)), None)


def check_no_branch(handle: Handle, name: str) -> None:
    """Raise `InvalidName` when a branch or tag has the *name* of an experiment to be."""
    taken = branch_or_tag(handle, name)
    if taken is not None:
        raise InvalidName("an experiment", name, f"{taken} has it, and every Git command would find that first")


def check_branch_name(handle: Handle, name: str) -> str:
    """Return *name* if a branch can be called so; raise `InvalidName` with what Git says otherwise."""
    try:
        if run(handle, "check-ref-format", "--branch", name) == f"{name}\n".encode():
            return name
    except (ValueError, GitError):  # a NUL, which no argument can hold
        pass
    raise InvalidName("a branch", name, "Git allows no such branch; letters, digits, `-`, `_`, `.` and `/` are safe")


def head(handle: Handle) -> str:
    """Return what HEAD holds: the full ref of a branch, or a rev."""
    return str(handle.repo.lookup_reference("HEAD").target)


def folder(handle: Handle) -> str:
    """Return the Git directory of this work tree: the common one, unless it is linked."""
    return os.path.realpath(handle.repo.path)


def is_sparse(handle: Handle) -> bool:
    """Say whether only a part of the work tree is checked out."""
    config = handle.repo.config
    return "core.sparsecheckout" in config and config.get_bool("core.sparsecheckout")


def is_partial(handle: Handle) -> bool:
    """Say whether objects may be missing here because a remote promised to give them."""
    config = handle.repo.config
    return "extensions.partialclone" in config or any(
        entry.name.startswith("remote.") and entry.name.endswith(".promisor") for entry in config
    )


def has_object(handle: Handle, rev: str) -> bool:
    """Say whether the object *rev* is there and can be read."""
    try:
        read_object(handle, rev)
    except (GitError, ValueError):  # "" where a ref is damaged
        return False
    return True


def read_ref(handle: Handle, ref: str) -> str | None:
    """Return the rev that *ref* holds, None when it does not exist; raise `GitError` when it is damaged."""
    try:
        target = handle.repo.lookup_reference(ref).target
    except KeyError:
        return None
    except (pygit2.GitError, OSError, ValueError) as error:
        raise refused(handle.common, f"read {ref}", str(error)) from error
    return str(target)


def read_object(handle: Handle, id: bytes | str, most: int | None = None) -> tuple[Kind, bytes]:
    """Return the kind and content of an object, however large it is without keeping other threads waiting.

    Raises `GitError` when it is missing, damaged, or larger than *most* bytes.
    """
    oid = pygit2.Oid(raw=id) if isinstance(id, bytes) else pygit2.Oid(hex=id)
    try:
        objects = handle.repo.odb
        number, size = objects.read_header(oid)
        kind = _KINDS[int(number)]
        if most is not None and size > most:
            raise GitError(f"read the object {oid}", f"its {size:,} bytes are more than the limit of {most:,}")
        return kind, objects.read(oid)[1] if size < LARGE else _read_large(handle, str(oid), kind)
    except (KeyError, pygit2.GitError, OSError, ValueError) as error:
        raise _unreadable(oid, error) from error


def _read_large(handle: Handle, id: str, kind: Kind) -> bytes:
    """Return the content of an object as a child prints it, into memory that grows in its place."""
    with subprocess.Popen(
        [*command(), "cat-file", kind.word.decode(), id],
        cwd=place(handle),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment({**handle.variables, "GIT_NO_REPLACE_OBJECTS": "1"}),
        process_group=0,
        bufsize=0,
    ) as child:
        assert isinstance(child.stdout, FileIO)
        content = child.stdout.readall()
    if object_id(kind, content).hex() != id:  # as libgit2 does, and as no `git cat-file`
        raise ValueError(f"`git cat-file` printed something else, and ended with {child.returncode}")
    return content


def object_size(handle: Handle, id: bytes) -> int:
    """Return how many bytes an object has, without reading them; raise `GitError` when it is missing or damaged."""
    oid = pygit2.Oid(raw=id)
    try:
        return handle.repo.odb.read_header(oid)[1]
    except (KeyError, pygit2.GitError, OSError, ValueError) as error:
        raise _unreadable(oid, error) from error


def _unreadable(oid: pygit2.Oid, error: Exception) -> Exception:
    if isinstance(error, OSError) and (ours := translated(error)) is not error:
        return ours
    return GitError(f"read the object {oid}", "it is missing or damaged")


def find_in(folder: str) -> Callable[[bytes], bool]:
    """Return what says whether the object directory *folder* has an object; it knows for long what it has once seen."""
    exists = pygit2.Odb(folder).exists
    return lambda id: exists(pygit2.Oid(raw=id))


def read_quarantined(folder: str, id: bytes) -> bytes:
    """Return the content of an object that a child wrote into the object directory *folder*."""
    with translating_git("read captured code"):
        return pygit2.Odb(folder).read(pygit2.Oid(raw=id))[1]
