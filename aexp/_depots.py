"""Remotes for data, in DVC's layout: which one is configured, and the way to it: a folder, or through fsspec.

`<url>/files/md5/<2 digits>/<30 digits>`, as `dvc push` lays it out (interop reference, section 4.4).
"""

import base64
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from tempfile import TemporaryFile
from typing import Any, Final, Protocol

from attrs import define, field, frozen

from ._beneath import SLICE
from ._children import Limits
from ._datacache import DataCache, configs, made, setting
from ._files import sync, sync_folder, write_all
from .errors import AexpError, MissingExtra, RemoteError

PORTION: Final = 8 * SLICE
"""How many bytes are asked of a server at once."""
OTHERS: Final = "`dvc push` and `dvc pull` know others; pass data=False, and let them move the data"
HOW: Final = "`dvc remote list` shows what is configured; pass data=False to leave the data where it is"


class Depot(Protocol):
    """A place where data is kept by its MD5. Any number of threads may use it."""

    @property
    def name(self) -> str:
        """What it is called in the configuration."""
        ...

    def size(self, md5: str) -> int | None:
        """Return how many bytes the object *md5* has there; None when it is not there."""
        ...

    def send(self, md5: str, source: str) -> None:
        """Put the file *source* there as the object *md5*, whole or not at all."""
        ...

    def parts(self, md5: str) -> Iterator[bytes]:
        """Yield the object *md5* in slices; raise `FileNotFoundError` when it is not there."""
        ...

    def close(self) -> None:
        """Let the connection go."""
        ...


@define(eq=False)
class Folder:
    """A data remote that is a folder, on this machine or mounted."""

    name: str
    cache: DataCache
    _stack: ExitStack = field(factory=ExitStack)
    _bench: str = ""
    """Where objects are made, once there are any."""
    _numbers: Iterator[int] = field(factory=count)
    _guard: threading.Lock = field(factory=threading.Lock)

    def size(self, md5: str) -> int | None:
        """Return how many bytes it has."""
        path = self.cache.path(md5)
        return None if path is None else os.stat(path).st_size

    def send(self, md5: str, source: str) -> None:
        """Copy beside, sync, and give it its name."""
        place = self.cache.place(md5)
        with self._guard:
            self._bench = self._bench or self._stack.enter_context(self.cache.scratch())
            path = os.path.join(self._bench, str(next(self._numbers)))
        target = made(path)
        try:
            with open(source, "rb") as file:
                while part := file.read(SLICE):
                    write_all(target, part)
            sync(target)
            os.fchmod(target, 0o444)
        finally:
            os.close(target)
        self.cache.make(os.path.dirname(place))
        os.rename(path, place)
        sync_folder(os.path.dirname(place))

    def parts(self, md5: str) -> Iterator[bytes]:
        """Read it."""
        path = self.cache.path(md5)
        if path is None:
            raise FileNotFoundError(self.cache.place(md5))
        with open(path, "rb") as file:
            while part := file.read(SLICE):
                yield part

    def close(self) -> None:
        """Remove what was left half."""
        self._stack.close()


@frozen(eq=False)
class Bucket:
    """A data remote behind fsspec; a server that shows an object only when it is whole, as those of S3 do."""

    name: str
    system: Any
    """What fsspec calls a file system."""
    root: str

    def _place(self, md5: str) -> str:
        return f"{self.root}/files/md5/{md5[:2]}/{md5[2:]}"

    def size(self, md5: str) -> int | None:
        """Ask for it."""
        try:
            return int(self.system.info(self._place(md5), refresh=True)["size"])
        except FileNotFoundError:
            return None

    def send(self, md5: str, source: str) -> None:
        """Upload it."""
        self.system.put_file(source, self._place(md5))

    def parts(self, md5: str) -> Iterator[bytes]:
        """Download it, a portion at a time."""
        place, size = self._place(md5), self.size(md5)
        if size is None:
            raise FileNotFoundError(place)
        for begin in range(0, size, PORTION):
            yield self.system.cat_file(place, start=begin, end=min(size, begin + PORTION))

    def close(self) -> None:
        """Close the session, in the thread that owns it."""
        client = getattr(self.system, "_s3", None)
        if client is not None:
            self.system.close_session(self.system.loop, client)


@define(eq=False)
class Site(Bucket):
    """A data remote that a web server shows, to pull from."""

    def size(self, md5: str) -> int | None:
        """Refuse: only who is about to send asks."""
        raise RemoteError(self.name, "refused", "aexp only reads from web servers", remedy=OTHERS)

    def send(self, md5: str, source: str) -> None:
        """Refuse."""
        self.size(md5)

    def parts(self, md5: str) -> Iterator[bytes]:
        """Download it, into a file without a name: fsspec says why one cannot be had only when it is fetched whole."""
        with TemporaryFile() as file:
            self.system.get_file(self._place(md5), file, chunk_size=SLICE)
            file.seek(0)
            while part := file.read(SLICE):
                yield part

    def close(self) -> None:
        """Close the session, in the thread that owns it."""
        session = self.system._session
        if session is not None:
            self.system.close_session(self.system.loop, session)
            self.system._session = None


# ---- which one ----


@frozen
class Wanted:
    """A data remote as DVC's configuration describes it."""

    name: str
    url: str
    options: Mapping[str, str] = field(repr=False)


def remote_of(root: str, home: Mapping[str, str], own: str = "") -> Wanted | None:
    """Return the data remote *own* of the DVC project at *root*, else its default one; None when there is none.

    *home* is the environment.

    Later files win option by option, so that secrets may stand in `.dvc/config.local` alone; a relative url is relative
    to its file.
    """
    name, found = "", dict[str, dict[str, str]]()
    for file, parser in configs(root, home):
        name = setting(parser, "core", "remote") or name
        for section in parser.sections():
            called = re.fullmatch(r"""'?remote "(.*)"'?""", section.strip())
            if called:
                options = {option: setting(parser, section, option) for option in parser.options(section)}
                if options.get("url"):
                    options["url"] = _resolved(os.path.dirname(file), options["url"])
                found.setdefault(called[1], {}).update(options)
    name = own or name
    if not name:
        return None
    options = found.get(name, {})
    url = options.pop("url", "")
    if not url:
        raise RemoteError(name, "unknown", "DVC's configuration gives it no url", remedy=HOW)
    return Wanted(name, url, options)


def _resolved(folder: str, url: str) -> str:
    if "://" in url:
        return url.removeprefix("file://")
    return os.path.normpath(os.path.join(folder, os.path.expanduser(url)))


@contextmanager
def opened(wanted: Wanted, limits: Limits) -> Iterator[Depot]:
    """Lend the way to a data remote; raise `RemoteError` for one that cannot be used, and `MissingExtra`."""
    for option in ("version_aware", "worktree"):
        if wanted.options.get(option, "").lower() == "true":
            detail = f"it keeps data by path ({option}), which aexp does not read"
            raise RemoteError(wanted.name, "unsafe", detail, remedy=HOW)
    depot: Depot
    if os.path.isabs(wanted.url):
        depot = Folder(wanted.name, DataCache(wanted.url))
    elif wanted.url.startswith("s3://"):
        depot = _s3(wanted, limits)
    elif wanted.url.startswith(("http://", "https://")):
        depot = _http(wanted, limits)
    else:
        detail = f"{wanted.url.partition('://')[0]} is no scheme that aexp knows: a folder, s3, or http(s) to pull from"
        raise RemoteError(wanted.name, "unsafe", detail, remedy=OTHERS)
    try:
        yield depot
    finally:
        depot.close()


def _s3(wanted: Wanted, limits: Limits) -> Bucket:
    try:
        import s3fs  # an extra
    except ImportError as error:
        raise MissingExtra("remote", "s3fs") from error
    told = wanted.options
    client = {"endpoint_url": told.get("endpointurl"), "region_name": told.get("region")}
    if told.get("ssl_verify"):
        client["verify"] = {"false": False, "true": True}.get(told["ssl_verify"].lower(), told["ssl_verify"])  # type: ignore[assignment]
    system = s3fs.S3FileSystem(
        anon=told.get("allow_anonymous_login", "").lower() == "true",
        key=told.get("access_key_id"),
        secret=told.get("secret_access_key"),
        token=told.get("session_token"),
        profile=told.get("profile"),
        use_ssl=told.get("use_ssl", "true").lower() != "false",
        client_kwargs={key: value for key, value in client.items() if value is not None},
        config_kwargs={"connect_timeout": limits.first, "read_timeout": limits.silence, "retries": {"max_attempts": 3}},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    return Bucket(wanted.name, system, wanted.url.removeprefix("s3://").rstrip("/"))


def _http(wanted: Wanted, limits: Limits) -> Site:
    try:
        import aiohttp  # an extra
        from fsspec.implementations.http import HTTPFileSystem
    except ImportError as error:
        raise MissingExtra("remote", "s3fs") from error
    told, client = wanted.options, dict[str, Any]()
    if told.get("auth", "").lower() == "basic":
        secret = f"{told.get('user', '')}:{told.get('password', '')}".encode()
        client["headers"] = {"Authorization": f"Basic {base64.b64encode(secret).decode()}"}
    elif told.get("auth", "").lower() == "custom" and told.get("custom_auth_header"):
        client["headers"] = {told["custom_auth_header"]: told.get("password", "")}
    client["timeout"] = aiohttp.ClientTimeout(total=None, sock_connect=limits.first, sock_read=limits.silence)
    checks = told.get("ssl_verify", "").lower() != "false"
    system = HTTPFileSystem(
        client_kwargs=client, skip_instance_cache=True, use_listings_cache=False, **({} if checks else {"ssl": False})
    )
    return Site(wanted.name, system, wanted.url.rstrip("/"))


def asked(depot: Depot, call: Callable[[], Any], *, missing: bool = False) -> Any:
    """Return what *call* does; what a library says of *depot* becomes a `RemoteError`.

    With *missing*, `FileNotFoundError` means that an object is not there; else that the remote is not.
    """
    try:
        return call()
    except (AexpError, FileNotFoundError) as error:
        if missing or isinstance(error, AexpError):
            raise
        raise RemoteError(depot.name, "unknown", f"nothing is there: {error}", remedy=HOW) from error
    except Exception as error:
        kind = type(error).__name__
        denied = getattr(error, "status", 0) in (401, 403)
        if denied or isinstance(error, PermissionError) or "Credentials" in kind:
            fault, remedy = "authentication", "see what `dvc push` says there, and .dvc/config.local"
        elif isinstance(error, ConnectionError | TimeoutError) or re.search("Connect|Timeout|EndPoint|Endpoint", kind):
            fault, remedy = "unreachable", "what has arrived stands; call again when it can be reached"
        else:
            fault, remedy = "failed", HOW
        raise RemoteError(depot.name, fault, f"{kind}: {error}", remedy=remedy) from error  # type: ignore[arg-type]
