"""The content store of DVC: files by the MD5 of their content, and folders by their manifests."""

import configparser
import errno
import fcntl
import os
import re
import shutil
import stat
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from attrs import frozen

from ._beneath import SLICE, digest
from ._files import Breath, lock, make_folders, read, write_all
from ._formats.dvcfile import MD5, manifest_fault, parse_manifest
from ._layout import ROOT
from .errors import UnsafePath

_CLONE: Final = 0x40049409
"""FICLONE of ioctl_ficlonerange(2): share the content until one side writes."""


SCRATCH: Final = "aexp-tmp"
"""The folder in a cache where objects are made."""
YOUNG: Final = 60
"""Seconds after which every system has brought a name to the disk by itself."""
HALF_MADE: Final = 60
"""Seconds after which a folder there that nobody has locked was left by a killed process."""


@frozen
class Out:
    """Data that a `.dvc` file or a dvc.lock speaks of: where it belongs, and the MD5 of the file or, with `.dir`, manifest."""

    path: str
    md5: str
    executable: bool = False
    size: int = 0
    files: int | None = None
    remote: str = ""
    """The remote for data that it has to itself; empty for the default one."""


@frozen
class DataCache:
    """A cache of DVC 3, at *folder*: objects at `files/md5/<2 digits>/<30 digits>`, manifests with `.dir` behind.

    What is not there is looked for in *spare*, a store that aexp keeps where there is no DVC.
    """

    folder: str
    spare: str = ""
    shared: bool = False
    """Whether all of its group may write to it (`cache.shared = group`)."""
    links: tuple[str, ...] = ()
    """How files of the work tree may be links to it, as `cache.type` says: `symlink`, `hardlink`."""

    def place(self, md5: str) -> str:
        """Return where the object *md5* belongs."""
        return f"{self.folder}/files/md5/{md5[:2]}/{md5[2:]}"

    def home(self, md5: str) -> str:
        """Return the folder in which the object *md5* belongs."""
        return f"{self.folder}/files/md5/{md5[:2]}"

    def standing(self, md5: str, size: int) -> float | None:
        """Return since when (seconds since 1970) a file of *size* bytes that nobody may write stands where the object belongs.

        None when none does.
        """
        try:
            found = os.lstat(self.place(md5))
        except OSError:
            return None
        fits = stat.S_ISREG(found.st_mode) and found.st_size == size and not found.st_mode & 0o222
        return found.st_ctime if fits else None

    def make(self, folder: str) -> None:
        """Make *folder*, which lies in the cache, and those above it, durably and with the rights of the others."""
        missing = [folder]
        while not os.path.isdir(above := os.path.dirname(missing[-1])):
            missing.append(above)
        make_folders(folder)
        for each in missing if self.shared else ():
            with suppress(OSError):
                os.chmod(each, 0o2775)  # noqa: S103  # as DVC does

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """Lend a new folder in the cache, to make objects in; what killed processes left of theirs is removed."""
        home = os.path.join(self.folder, SCRATCH)
        path = os.path.join(home, uuid.uuid4().hex)
        while True:
            make_folders(home, durable=False)
            with suppress(FileNotFoundError):  # somebody else was just done with his
                os.mkdir(f"{path}.new", 0o700)
                break
        for name in os.listdir(home):
            _sweep(os.path.join(home, name))
        os.close(made(os.path.join(f"{path}.new", "lock")))
        held = lock(os.path.join(f"{path}.new", "lock"))
        try:
            os.rename(f"{path}.new", path)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            if held is not None:
                os.close(held)
            with suppress(OSError):
                os.rmdir(home)

    def path(self, md5: str) -> str | None:
        """Return where the object *md5* is; None when it is not there, or no regular file."""
        if not re.fullmatch(MD5, md5):
            return None
        for folder in (self.folder, self.spare) if self.spare else (self.folder,):
            path = os.path.join(folder, "files", "md5", md5[:2], md5[2:])
            with suppress(OSError):
                if stat.S_ISREG(os.lstat(path).st_mode):
                    return path
        return None

    def trusts(self, md5: str) -> bool:
        """Say whether the object is there, and nobody may write to it; what it holds is looked at when it is used."""
        path = self.path(md5)
        return path is not None and not os.stat(path).st_mode & 0o222

    def holds(self, md5: str) -> bool:
        """Say whether the object is there, and what it should be."""
        path = self.path(md5)
        if path is None:
            return False
        with open(path, "rb") as file:
            return digest(file.fileno(), "md5")[0] == md5.removesuffix(".dir")

    def manifest(self, md5: str) -> dict[str, str] | None:
        """Return the MD5 of each file of a folder by its relative path; None when the manifest is missing or damaged.

        Raises `UnsafePath` for a path that leaves the folder.
        """
        if not md5.endswith(".dir") or not self.holds(md5):
            return None
        return read_manifest(self.path(md5) or "", md5)

    def copy_out(self, md5: str, target: str, *, executable: bool) -> bool:
        """Make the new file *target* hold the object, sharing its blocks where the disk can; False if it is missing or damaged."""
        path = self.path(md5)
        if path is None:
            return False
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(target, flags, 0o777 if executable else 0o666)
            try:
                if not clone(source, descriptor):
                    while part := os.read(source, SLICE):
                        write_all(descriptor, part)
                os.lseek(descriptor, 0, os.SEEK_SET)
                sound = digest(descriptor, "md5")[0] == md5
            finally:
                os.close(descriptor)
        finally:
            os.close(source)
        if not sound:
            os.unlink(target)
        return sound

    def link_out(self, md5: str, target: str) -> bool:
        """Make the new file *target* a link to the object, as DVC here is told to do; False where copies are made instead."""
        path = self.path(md5)
        for kind in self.links if path is not None else ():
            with suppress(OSError):
                if kind == "symlink":
                    os.symlink(path or "", target)
                else:
                    os.link(path or "", target)
                return True
        return False


def read_manifest(path: str, md5: str) -> dict[str, str] | None:
    """Return the MD5 of each file of a folder from the manifest *md5*, which lies at *path*; None when it is none.

    Raises `UnsafePath` for a path that leaves the folder.
    """
    files = parse_manifest(read(path), md5)
    breath = Breath()
    for each, id in files.items() if files is not None else ():
        breath()
        fault = manifest_fault(each, id)
        if fault is not None:
            raise UnsafePath(str(each), f"{fault}, in the manifest {md5} of DVC")
    return files


def _sweep(path: str) -> None:
    if path.endswith(".new"):  # it is a moment old, or was left by a process that was killed in that moment
        with suppress(OSError):
            if time.time() - os.stat(path).st_mtime > HALF_MADE:
                shutil.rmtree(path, ignore_errors=True)
        return
    held = lock(os.path.join(path, "lock"))
    if held is not None or not os.path.exists(os.path.join(path, "lock")):
        shutil.rmtree(path, ignore_errors=True)
    if held is not None:
        os.close(held)


def made(path: str) -> int:
    """Make the file *path*, which must not exist, for us alone, and return it open for reading and writing."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def clone(source: int, target: int) -> bool:
    """Make the open, empty file *target* share the content of *source* until one changes; False where no disk can."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    return True


def cache_of(root: str, home: Mapping[str, str], spare: str = "") -> DataCache:
    """Return the cache that DVC uses for the project at *root*, as its configuration there says; *home* is the environment.

    The last of system, user, `.dvc/config` and `.dvc/config.local` that sets `cache.dir` wins, relative to its file; the
    same holds for `cache.type`.
    """
    found, shared, types = os.path.join(root, ".dvc", "cache"), False, ""
    for file, parser in configs(root, home):
        given = setting(parser, "cache", "dir")
        if given:
            found = os.path.join(os.path.dirname(file), os.path.expanduser(given))
        types = setting(parser, "cache", "type") or types
        shared = (setting(parser, "cache", "shared") or ("group" if shared else "")) == "group"
    wanted = [kind.strip() for kind in types.split(",")]
    links = wanted[: wanted.index("copy")] if "copy" in wanted else wanted
    linked = tuple(kind for kind in links if kind in ("symlink", "hardlink"))
    return DataCache(os.path.normpath(found), spare, shared, linked)


def spare_of(common: str) -> str:
    """Return where data is kept in a repository without DVC."""
    return os.path.join(common, ROOT, "cache")


def configs(root: str, home: Mapping[str, str]) -> Iterator[tuple[str, configparser.RawConfigParser]]:
    """Yield (path, content) of each file that DVC takes settings from, for the project at *root*; the last counts most."""
    config_home = home.get("XDG_CONFIG_HOME") or os.path.join(home.get("HOME", ""), ".config")
    for file in (
        "/etc/xdg/dvc/config",
        f"{config_home}/dvc/config",
        f"{root}/.dvc/config",
        f"{root}/.dvc/config.local",
    ):
        parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
        try:
            if parser.read(file, encoding="utf-8"):
                yield file, parser
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue


def setting(parser: configparser.RawConfigParser, section: str, name: str) -> str:
    """Return the setting *name*, without the quotes it may have; empty where there is none."""
    return parser.get(section, name, fallback="").strip().strip("\"'")


def local_config(root: str, home: Mapping[str, str], site: str) -> str:
    """Return the `.dvc/config.local` with which DVC uses cache and remotes of the project at *root* from another folder.

    It is that of the project, with paths that do not depend on where it stands; *site* is where DVC remembers files.
    """
    found: dict[str, dict[str, str]] = {}
    for file, config in configs(root, home):
        for section in config.sections() if file.startswith(f"{root}/.dvc/") else ():
            if file.endswith(".local"):
                found.setdefault(section, {}).update(config.items(section))
            url = setting(config, section, "url")
            if "remote" in section and url and "://" not in url and not os.path.isabs(url):
                found.setdefault(section, {})["url"] = os.path.normpath(os.path.join(os.path.dirname(file), url))
    found.setdefault("cache", {})["dir"] = cache_of(root, home).folder
    found.setdefault("core", {})["site_cache_dir"] = site
    lines = [
        "\n".join([f"[{name}]", *(f"    {key} = {value}" for key, value in found[name].items())]) for name in found
    ]
    return "\n".join([*lines, ""])


def outs_of(path: str, content: Mapping[str, Any], pipeline: Mapping[str, Any]) -> Iterator[Out]:
    """Yield the data that the file at *path*, a `.dvc` file or a dvc.lock with this *content*, speaks of.

    *pipeline* is the content of the dvc.yaml beside a dvc.lock, which says where its stages work.
    """
    folder = path.rpartition("/")[0]
    if not path.endswith("dvc.lock"):
        yield from _outs(content, folder, content.get("wdir"))
        return
    stages, described = content.get("stages"), pipeline.get("stages")
    for name, stage in stages.items() if isinstance(stages, Mapping) else ():
        about = described.get(str(name).partition("@")[0]) if isinstance(described, Mapping) else None
        about = about.get("do", about) if isinstance(about, Mapping) else {}
        if isinstance(stage, Mapping):
            yield from _outs(stage, folder, about.get("wdir") if isinstance(about, Mapping) else None)


def _outs(stage: Mapping[str, Any], folder: str, inside: Any) -> Iterator[Out]:
    base = os.path.join(folder, inside) if isinstance(inside, str) else folder
    outs = stage.get("outs")
    for out in outs if isinstance(outs, list) else ():
        if not isinstance(out, Mapping) or out.get("hash") != "md5" or out.get("cache") is False:
            continue  # DVC 2 names no hash, and keeps its objects elsewhere
        md5, path = out.get("md5"), out.get("path")
        if isinstance(md5, str) and isinstance(path, str) and re.fullmatch(MD5, md5):
            if "://" in path or path.startswith("/"):
                yield Out(path, md5)
                continue
            size, count = (each if type(each) is int else 0 for each in (out.get("size"), out.get("nfiles")))
            files, remote = count if md5.endswith(".dir") else None, out.get("remote")
            own = remote if isinstance(remote, str) else ""
            place = os.path.normpath(os.path.join(base, path))
            yield Out(place, md5, out.get("isexec") is True, size, files, own)
