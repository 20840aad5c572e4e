"""Private checkouts: made, lent to one experiment at a time, cleaned, lent again, and removed.

A checkout is a folder of its own with a Git repository of its own, which borrows the objects of the user's and
shares nothing else with it: no ref, no index, no stash, no lock (decision 0028). Beside the folder stand the Git
folder that we go by, whatever the program does to the one it sees, and the site cache of DVC.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from attrs import frozen

from . import _git, _refs
from ._clearing import open_up, wipe
from ._files import lock, make_folders, read, translating, write_all
from ._layout import ROOT, WORKSPACES
from ._machine import at_work
from ._sessions import LOCK, TMP
from .errors import AexpError, CheckoutLost

IDLE: Final = "idle"
"""The file that says that a checkout is clean and nobody's, and of which tree; what nobody holds without it is spoiled."""
KEPT_IDLE: Final = 86400.0
"""Seconds for which a checkout waits to be lent again."""
_KEPT: Final = ("git", "tree", LOCK)
"""What stays in the folder of a checkout that waits."""
VARIABLE: Final = "AEXP_WORKSPACE"
"""The environment variable that tells the programs in a checkout, and us, where they work."""

_PLAIN: Final = (
    "core.hooksPath=/dev/null",
    "core.splitIndex=false",
    "core.sparseCheckout=false",
    "core.untrackedCache=false",
    "core.trustCtime=true",
    "core.checkStat=default",
)
"""How we look at a checkout: every file counts, no hook hears of it, and what `stat` says is believed."""
_NOT_ITS_OWN: Final = (
    "core.bare",
    "core.worktree",
    "core.fsmonitor",
    "core.splitindex",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.untrackedcache",
    "extensions.worktreeconfig",
    "index.sparse",
    "include.",
    "includeif.",
    "branch.",
)
"""Settings of the user's repository that do not hold in a checkout, and beginnings of such."""
_SEEN_REFS: Final = ("refs/heads/", "refs/remotes/", "refs/tags/")


@frozen(eq=False)
class Checkout:
    """A checkout that is lent: `folder` holds all of it, `path` is what the program sees."""

    handle: _git.Handle
    """Git as we look at it: with the Git folder that no program sees."""
    folder: str
    tree: str
    """The Git tree that it was made from."""
    descriptor: int
    """What holds it."""
    top: int
    """The folder at `path`, open, so that no other gets its number."""

    @property
    def path(self) -> str:
        """The top of the files."""
        return os.path.join(self.folder, "tree")

    @property
    def site(self) -> str:
        """Where DVC keeps what it remembers of the files here."""
        return os.path.join(self.folder, "site")

    def variables(self) -> dict[str, str | None]:
        """Return what a program in it needs in its environment; None: what must not be there."""
        inherited = {key: None for key in os.environ if key in _REPOSITORY}
        return {
            **inherited,
            VARIABLE: self.path,
            "PWD": self.path,
            "GIT_CEILING_DIRECTORIES": self.folder,  # above it is the user's own repository
            "DVC_SITE_CACHE_DIR": self.site,
        }

    def check(self) -> None:
        """Raise `CheckoutLost` when its folder is no longer the one that was lent, or what we look at it with is gone."""
        with suppress(OSError):
            here = os.path.samestat(os.lstat(self.path), os.fstat(self.top))
            if here and os.path.isdir(os.path.join(self.folder, "git")):
                return
        raise CheckoutLost(self.path)


_REPOSITORY: Final = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)
"""Variables by which a program would work on another repository than the one it stands in (git(1))."""


def lend(handle: _git.Handle, baseline: str, tree: str) -> Checkout:
    """Return a clean checkout of *tree*, with HEAD at *baseline*: one that waits, or a new one.

    Nothing of the user's work tree, index or refs is touched. Raises `GitError`, `DiskFull`.
    """
    with translating(_place(handle.common)):
        for waiting in _waiting(handle.common, tree):
            folder = waiting
            descriptor = lock(os.path.join(folder, LOCK))
            if descriptor is None:
                continue
            try:
                if _told(folder) is not None:
                    folder = _renamed(folder)
                    return _prepared(handle, folder, baseline, tree, descriptor)
            except (AexpError, OSError):
                with suppress(OSError):
                    _remove(folder)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        folder, descriptor = _made(handle.common)
        try:
            return _prepared(handle, folder, baseline, tree, descriptor)
        except BaseException:
            with suppress(OSError):
                _remove(folder)
            os.close(descriptor)
            raise


def give_back(checkout: Checkout, most: int) -> None:
    """Clean a checkout, so that it can be lent again; remove it when *most* wait already, or when it is spoiled."""
    folder = checkout.folder
    try:
        with suppress(AexpError, OSError):
            checkout.check()
            waiting = sum(_told(each) is not None for each in _folders(os.path.dirname(folder)))
            if waiting < most and at_work(checkout.path, f"{VARIABLE}={checkout.path}") is False:
                for _ in open_up(checkout.path):
                    pass
                wipe(os.path.join(checkout.path, ".git"))
                for name in os.listdir(folder):
                    if name not in _KEPT:
                        wipe(os.path.join(folder, name))
                _clean(checkout.handle, checkout.tree)
                _write(os.path.join(folder, IDLE), checkout.tree.encode())
                return
        with suppress(OSError):  # what cannot be removed now is left to `sweep`
            _remove(folder)
    finally:
        os.close(checkout.top)
        os.close(checkout.descriptor)
        _trim(os.path.dirname(folder), most)


def _trim(place: str, most: int) -> None:
    """Remove checkouts that wait beyond *most*: several may have been given back at once."""
    for folder in [each for each in _folders(place) if _told(each) is not None][most:]:
        with suppress(OSError):
            descriptor = lock(os.path.join(folder, LOCK))
            if descriptor is not None:
                try:
                    _remove(folder)
                finally:
                    os.close(descriptor)


def sweep(common: str, now: float) -> list[str]:
    """Remove the checkouts that dead processes left, unless a program still works there, and those that wait too long.

    Return their paths.
    """
    swept = []
    for folder in _folders(_place(common)):
        with suppress(OSError):
            descriptor = lock(os.path.join(folder, LOCK))
            if descriptor is None and os.path.exists(os.path.join(folder, LOCK)):
                continue
            try:
                path = os.path.join(folder, "tree")
                waits = _told(folder) is not None
                if now - _changed(folder) > KEPT_IDLE if waits else not at_work(path, f"{VARIABLE}={path}"):
                    _remove(folder)
                    swept.append(folder)
            finally:
                if descriptor is not None:
                    os.close(descriptor)
    return swept


# ---- inside ----


def _place(common: str) -> str:
    return os.path.join(common, ROOT, WORKSPACES)


def _folders(place: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(place))
    except FileNotFoundError:
        return
    for name in names:
        yield os.path.join(place, name)


def _waiting(common: str, tree: str) -> list[str]:
    """Return the folders of the checkouts that wait, those of *tree* first."""
    told = {folder: _told(folder) for folder in _folders(_place(common))}
    return sorted((folder for folder, of in told.items() if of is not None), key=lambda folder: told[folder] != tree)


def _told(folder: str) -> str | None:
    """Return of which tree the checkout that waits in *folder* is; None when none does."""
    with suppress(OSError):
        return read(os.path.join(folder, IDLE)).decode("ascii", "replace")
    return None


def _changed(folder: str) -> float:
    return os.stat(os.path.join(folder, IDLE)).st_mtime


def _remove(folder: str) -> None:
    """Remove a checkout; the lock last, so that what is left of it is still known for what it is."""
    for name in (IDLE, *[name for name in os.listdir(folder) if name not in (IDLE, LOCK)], LOCK):
        wipe(os.path.join(folder, name))
    os.rmdir(folder)


def _made(common: str) -> tuple[str, int]:
    """Make the folder of a new checkout, and hold it before anybody can see it."""
    name = secrets.token_hex(8)
    making, folder = os.path.join(common, ROOT, TMP, name), os.path.join(_place(common), name)
    make_folders(os.path.dirname(making), durable=False)
    make_folders(os.path.dirname(folder), durable=False)
    os.mkdir(making)
    _write(os.path.join(making, LOCK), b"")
    descriptor = lock(os.path.join(making, LOCK))
    if descriptor is None:
        raise FileNotFoundError(making)  # we slept so long that it was swept
    try:
        os.rename(making, folder)
    except BaseException:
        os.close(descriptor)
        raise
    return folder, descriptor


def _renamed(folder: str) -> str:
    """Give a checkout another name, so that a program which knows the old one writes into it no more; return the new path."""
    renamed = os.path.join(os.path.dirname(folder), secrets.token_hex(8))
    os.rename(folder, renamed)
    return renamed


def _prepared(handle: _git.Handle, folder: str, baseline: str, tree: str, descriptor: int) -> Checkout:
    """Make the checkout in *folder*, which we hold, one of *tree*; raise when it cannot be brought to hold that and no more."""
    path, ours = os.path.join(folder, "tree"), os.path.join(folder, "git")
    settings = _settings(handle, path)
    known = _told(folder)
    wipe(os.path.join(folder, IDLE))
    wipe(os.path.join(path, ".git"))
    make_folders(path, durable=False)
    _write_git_folder(ours, handle.common, baseline, settings)
    variables = {"GIT_DIR": ours, "GIT_WORK_TREE": path, "GIT_CONFIG_COUNT": str(len(_PLAIN))}
    for number, (key, _, value) in enumerate(each.partition("=") for each in _PLAIN):
        variables |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    private = _git.Handle(handle.repo, handle.common, path, variables)
    if known is None:
        _git.run(private, "read-tree", "--reset", "-u", tree)
    elif known != tree or not _is_clean(private):
        _clean(private, tree)
        if not _is_clean(private):
            raise CheckoutLost(path)
    _write_git_folder(os.path.join(path, ".git"), handle.common, baseline, settings, _refs_seen(handle))
    _copy_index(os.path.join(ours, "index"), os.path.join(path, ".git", "index"))
    make_folders(os.path.join(folder, "site"), durable=False)
    return Checkout(
        private, folder, tree, descriptor, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    )


def _clean(private: _git.Handle, tree: str) -> None:
    _git.run(private, "read-tree", "--reset", "-u", tree)
    _git.run(private, "clean", "-ffdxq")


def _is_clean(private: _git.Handle) -> bool:
    """Say whether all files are as the index has them, and there are no others."""
    said = _git.run(
        private, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignored=traditional"
    )
    return all(line[1:2] == b" " for line in said.split(b"\0") if line)


def _settings(handle: _git.Handle, path: str) -> bytes:
    """Return the configuration of the checkout at *path*: the user's own, as far as it holds there."""
    parts = os.fsdecode(_git.run(handle, "config", "--list", "-z", "--show-scope")).split("\0")
    found = [("core.bare", "false"), ("core.worktree", path)]
    for scope, setting in zip(parts[::2], parts[1::2], strict=False):
        key, is_set, value = setting.partition("\n")
        own = scope in ("local", "worktree")
        if own and not any(key == each or (each.endswith(".") and key.startswith(each)) for each in _NOT_ITS_OWN):
            found.append((key, value if is_set else "true"))
    large = os.path.join(handle.common, "lfs")
    if os.path.isdir(large):
        found.append(("lfs.storage", large))
    return os.fsencode(
        "".join(f"{_section(key)}\t{key.rpartition('.')[2]} = {_quoted(value)}\n" for key, value in found)
    )


def _section(key: str) -> str:
    section, _, rest = key.partition(".")
    name = rest.rpartition(".")[0]
    return f"[{section} {_quoted(name)}]\n" if name else f"[{section}]\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _refs_seen(handle: _git.Handle) -> dict[str, str]:
    """Return the branches and tags of the user's repository, which `git log` and `git describe` in the checkout know."""
    return {ref: rev for prefix in _SEEN_REFS for ref, rev in _refs.list_refs(handle, prefix).items() if rev}


def _write_git_folder(
    folder: str, common: str, baseline: str, settings: bytes, refs: Mapping[str, str] | None = None
) -> None:
    """Make *folder* a Git folder that borrows the objects of *common*."""
    for name in ("objects/info", "objects/pack", "refs/heads", "info"):
        make_folders(os.path.join(folder, name), durable=False)
    _write(os.path.join(folder, "objects/info/alternates"), os.fsencode(f"{common}/objects\n"))
    _write(os.path.join(folder, "config"), settings)
    if refs:
        lines = sorted((os.fsencode(ref), rev.encode()) for ref, rev in refs.items())
        _write(os.path.join(folder, "packed-refs"), b"".join(b"%b %b\n" % (rev, ref) for ref, rev in lines))
    for name in ("shallow", "info/exclude"):
        with suppress(FileNotFoundError):
            _write(os.path.join(folder, name), read(os.path.join(common, name)))
    _write(os.path.join(folder, "HEAD"), f"{baseline}\n".encode())


def _copy_index(source: str, target: str) -> None:
    """Copy an index with its time, by which Git tells which files may have changed unseen."""
    found = os.stat(source)
    _write(target, read(source))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _write(path: str, content: bytes) -> None:
    """Write a file; not synced: of what a power failure leaves here nothing is used again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, content)
    finally:
        os.close(descriptor)
