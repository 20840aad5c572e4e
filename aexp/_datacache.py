"""The content store of DVC, read: files by the MD5 of their content, and folders by their manifests."""

import configparser
import errno
import fcntl
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import orjson
from attrs import frozen

from ._beneath import SLICE, digest
from ._files import Breath, write_all
from ._names import work_tree_fault
from .errors import UnsafePath

_CLONE: Final = 0x40049409
"""FICLONE of ioctl_ficlonerange(2): share the content until one side writes."""
_MD5: Final = r"[0-9a-f]{32}"


@frozen
class Out:
    """Data that a `.dvc` file or a dvc.lock speaks of: where it belongs, and the MD5 of the file or, with `.dir`, manifest."""

    path: str
    md5: str
    executable: bool = False


@frozen
class DataCache:
    """A cache of DVC 3, at *folder*: objects at `files/md5/<2 digits>/<30 digits>`, manifests with `.dir` behind."""

    folder: str
    links: tuple[str, ...] = ()
    """How files of the work tree may be links to it, as `cache.type` says: `symlink`, `hardlink`."""

    def path(self, md5: str) -> str | None:
        """Return where the object *md5* is; None when it is not there, or no regular file."""
        if not re.fullmatch(rf"{_MD5}(\.dir)?", md5):
            return None
        path = os.path.join(self.folder, "files", "md5", md5[:2], md5[2:])
        with suppress(OSError):
            if stat.S_ISREG(os.lstat(path).st_mode):
                return path
        return None

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
        with open(self.path(md5) or "", "rb") as file:
            content = file.read()
        try:
            entries = orjson.loads(content)
            files = {entry["relpath"]: entry["md5"] for entry in entries}
        except (ValueError, TypeError, KeyError):
            return None
        if len(files) != len(entries):
            raise UnsafePath(md5, "this manifest of DVC names a file twice")
        breath = Breath()
        for path, each in files.items():
            breath()
            fault = work_tree_fault(path) if isinstance(path, str) else "it is no text"
            if fault is not None or not isinstance(each, str):
                raise UnsafePath(str(path), f"{fault or 'it has no MD5'}, in the manifest {md5} of DVC")
        return files

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
                if not _cloned(source, descriptor):
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


def _cloned(source: int, target: int) -> bool:
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        return False
    return True


def cache_of(root: str, home: Mapping[str, str]) -> DataCache:
    """Return the cache that DVC uses for the project at *root*, as its configuration there says; *home* is the environment.

    The last of system, user, `.dvc/config` and `.dvc/config.local` that sets `cache.dir` wins, relative to its file; the
    same holds for `cache.type`.
    """
    config_home = home.get("XDG_CONFIG_HOME") or os.path.join(home.get("HOME", ""), ".config")
    files = ("/etc/xdg/dvc/config", f"{config_home}/dvc/config", f"{root}/.dvc/config", f"{root}/.dvc/config.local")
    found, types = os.path.join(root, ".dvc", "cache"), ""
    for file in files:
        config = _config(file)
        given, types = _text(config, "cache", "dir"), _text(config, "cache", "type") or types
        if given:
            found = os.path.join(os.path.dirname(file), os.path.expanduser(given))
    wanted = [kind.strip() for kind in types.split(",")]
    links = wanted[: wanted.index("copy")] if "copy" in wanted else wanted
    return DataCache(os.path.normpath(found), tuple(kind for kind in links if kind in ("symlink", "hardlink")))


def local_config(root: str, home: Mapping[str, str], site: str) -> str:
    """Return the `.dvc/config.local` with which DVC uses cache and remotes of the project at *root* from another folder.

    It is that of the project, with paths that do not depend on where it stands; *site* is where DVC remembers files.
    """
    local = _config(f"{root}/.dvc/config.local")
    found = {section: dict(local.items(section)) for section in local.sections()}
    for file in (f"{root}/.dvc/config", f"{root}/.dvc/config.local"):
        config = _config(file)
        for section in config.sections():
            url = _text(config, section, "url")
            if "remote" in section and url and "://" not in url and not os.path.isabs(url):
                found.setdefault(section, {})["url"] = os.path.normpath(os.path.join(os.path.dirname(file), url))
    found.setdefault("cache", {})["dir"] = cache_of(root, home).folder
    found.setdefault("core", {})["site_cache_dir"] = site
    lines = [
        "\n".join([f"[{name}]", *(f"    {key} = {value}" for key, value in found[name].items())]) for name in found
    ]
    return "\n".join([*lines, ""])


def _config(file: str) -> configparser.RawConfigParser:
    """Return what a configuration file of DVC says; nothing when it cannot be read."""
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    with suppress(configparser.Error, UnicodeDecodeError, OSError):
        parser.read(file, encoding="utf-8")
    return parser


def _text(config: configparser.RawConfigParser, section: str, option: str) -> str:
    return config.get(section, option, fallback="").strip().strip("\"'")


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
        if isinstance(md5, str) and isinstance(path, str) and re.fullmatch(rf"{_MD5}(\.dir)?", md5):
            if "://" in path or path.startswith("/"):
                yield Out(path, md5)
            else:
                yield Out(os.path.normpath(os.path.join(base, path)), md5, out.get("isexec") is True)
