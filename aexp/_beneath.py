"""The files beneath one folder, reached part by part from its descriptor, so that no link is followed on the way."""

import errno
import hashlib
import os
import stat
from typing import Final, Literal

from ._files import sync, write_all

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not keep us waiting
_NO_LINK: Final = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES}
SLICE: Final = 1 << 20
"""How many bytes are read at once; the interpreter is free meanwhile."""


class Beneath:
    """One folder, held open until `close`; every path is relative to it, with `/` between its parts.

    A path whose parts above the last are not folders raises `NotADirectoryError`, be they links to folders or files.
    """

    def __init__(self, top: str) -> None:
        self.top = top
        self._chain = [("", os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]

    def __enter__(self) -> "Beneath":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        while self._chain:
            os.close(self._chain.pop()[1])

    def folder(self, path: str) -> int:
        """Return a descriptor of the folder at *path*, good until the next call."""
        chain = self._chain
        if chain[-1][0] == path:  # most often the next file of the same folder
            return chain[-1][1]
        while len(chain) > 1 and not f"{path}/".startswith(f"{chain[-1][0]}/"):
            os.close(chain.pop()[1])
        here, descriptor = chain[-1]
        for part in path[len(here) :].strip("/").split("/") if path != here else ():
            try:
                descriptor = os.open(part, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno == errno.ELOOP:  # a link, as some systems put it
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error
                raise
            here = f"{here}/{part}" if here else part
            chain.append((here, descriptor))
        return descriptor

    def _forget(self, path: str) -> None:
        while len(self._chain) > 1 and f"{self._chain[-1][0]}/".startswith(f"{path}/"):
            os.close(self._chain.pop()[1])

    def _at(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return self.folder(parent), name

    def stat(self, path: str) -> os.stat_result | None:
        """Return what `lstat` says of *path*; None when nothing is there, or what is above it is no folder."""
        try:
            place, name = self._at(path)
            return os.lstat(name, dir_fd=place)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def kind(self, path: str) -> Literal["file", "link", "folder", "other"] | None:
        """Return what kind of thing is at *path*; None when nothing is."""
        found = self.stat(path)
        if found is None:
            return None
        if stat.S_ISREG(found.st_mode):
            return "file"
        if stat.S_ISLNK(found.st_mode):
            return "link"
        return "folder" if stat.S_ISDIR(found.st_mode) else "other"

    def blocker(self, path: str) -> str | None:
        """Return the first of the parts above the last of *path* at which something other than a folder is; None for none."""
        try:
            self._at(path)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            parts = path.split("/")
            above = ("/".join(parts[: place + 1]) for place in range(len(parts) - 1))
            return next((each for each in above if self.kind(each) not in ("folder", None)), None)
        return None

    def names(self, path: str) -> list[str]:
        """Return the names in the folder at *path*, sorted."""
        return sorted(os.listdir(self.folder(path)))

    def target(self, path: str) -> str:
        """Return where the link at *path* leads."""
        place, name = self._at(path)
        return os.readlink(name, dir_fd=place)

    def open(self, path: str) -> int:
        """Return a descriptor, to be closed by the caller, of the file at *path*, open for reading."""
        place, name = self._at(path)
        return os.open(name, _READ, dir_fd=place)

    def read(self, path: str) -> bytes:
        """Return the content of the regular file at *path*."""
        place, name = self._at(path)
        with open(os.open(name, _READ, dir_fd=place), "rb") as file:
            return file.read()

    def digest(self, path: str, algorithm: str) -> tuple[str, int]:
        """Return (hash in hex, size) of the regular file at *path*."""
        place, name = self._at(path)
        descriptor = os.open(name, _READ, dir_fd=place)
        try:
            return digest(descriptor, algorithm)
        finally:
            os.close(descriptor)

    def keep(self, path: str, target: str, *, durable: bool) -> None:
        """Make the file *target*, outside, hold what the file at *path* holds: the same inode, or a copy where that cannot be."""
        place, name = self._at(path)
        try:
            os.link(name, target, src_dir_fd=place, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            copy(os.open(name, _READ, dir_fd=place), target, durable=True)
            return
        if durable:
            descriptor = os.open(target, _READ)
            try:
                sync(descriptor)
            finally:
                os.close(descriptor)

    def put(self, source: str, path: str, scratch: str) -> None:
        """Move the file or link *source*, from outside, to *path*, in one step, over what file may stand there.

        From another file system by way of the name *scratch* beside it.
        """
        place, name = self._at(path)
        try:
            os.rename(source, name, dst_dir_fd=place)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.remove_at(place, scratch)
            if os.path.islink(source):
                os.symlink(os.readlink(source), scratch, dir_fd=place)
            else:
                copy(os.open(source, _READ), scratch, place=place, durable=True)
            os.rename(scratch, name, src_dir_fd=place, dst_dir_fd=place)
            os.fsync(place)  # before the only other copy goes
            os.unlink(source)

    def put_new(self, source: str, path: str, scratch: str) -> None:
        """Make the file or link *source*, from outside, stand at *path*; raise `FileExistsError` if anything stands there."""
        place, name = self._at(path)
        try:
            os.link(source, name, dst_dir_fd=place, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            if self.kind(path) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from error
            self.put(source, path, scratch)

    def take(self, path: str, target: str) -> None:
        """Move the file or link at *path* to *target*, outside, which must not exist."""
        if self.kind(path) == "link":
            os.symlink(self.target(path), target)
        else:
            self.keep(path, target, durable=True)
        self.remove(path)

    @staticmethod
    def remove_at(place: int, name: str) -> None:
        """Remove the file *name* in the folder *place* if it is there."""
        try:
            os.unlink(name, dir_fd=place)
        except FileNotFoundError:
            return

    def remove(self, path: str) -> None:
        """Remove the file or link at *path* if it is there."""
        try:
            place, name = self._at(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        self.remove_at(place, name)

    def make_folder(self, path: str, mode: int | None = None) -> None:
        """Make the folder *path* if it is not there."""
        place, name = self._at(path)
        try:
            os.mkdir(name, dir_fd=place)
        except FileExistsError:
            if self.kind(path) != "folder":
                raise
        if mode is not None:
            os.chmod(self.folder(path), mode)  # by its descriptor

    def make_folders(self, path: str) -> None:
        """Make the folder *path*, and those above it, where they are not there."""
        for place in (place for place, letter in enumerate(f"{path}/") if letter == "/" and place):
            self.make_folder(path[:place])

    def remove_folder(self, path: str) -> bool:
        """Remove the folder *path* if it is there and empty; say whether none is there any more."""
        self._forget(path)
        try:
            place, name = self._at(path)
            os.rmdir(name, dir_fd=place)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True


def digest(descriptor: int, algorithm: str) -> tuple[str, int]:
    """Return (hash in hex, size) of what the open file holds from where it stands."""
    hashed, size = hashlib.new(algorithm, usedforsecurity=False), 0
    while part := os.read(descriptor, SLICE):
        hashed.update(part)
        size += len(part)
    return hashed.hexdigest(), size


def copy(source: int, target: str, *, place: int | None = None, durable: bool = False) -> None:
    """Copy the open file *source*, with its mode and times, to the new file *target* (in the folder *place*); close it."""
    try:
        found = os.fstat(source)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "neither a file nor a link", target)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(target, flags, 0o600, dir_fd=place)
        try:
            while part := os.read(source, SLICE):
                write_all(descriptor, part)
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
            os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
            if durable:
                sync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        os.close(source)
