"""The values that the public API hands out and takes: frozen, comparable, without behaviour of their own."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, overload

from attrs import field, frozen

from . import _tables
from ._data import Artifact
from ._exchanged import Push
from ._lifecycle import Status

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

StrPath = str | PathLike[str]
CodeMode = Literal["tracked", "all", "none"]
OnError = Literal["save", "keep", "discard"]
Output = Literal["log", "show", "inherit"]
Pause = Callable[[], None]
"""Called again and again while something takes long, so that others get their turn."""

SECRET_FILES: Final = (
    ".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "id_rsa*", "id_dsa*", "id_ecdsa*",
    "id_ed25519*", ".netrc", "_netrc", ".git-credentials", ".npmrc", ".pypirc",
    "credentials", "credentials.json", "secrets.*", "*.keystore",
)  # fmt: skip
"""Names of untracked files that `code="all"` never captures (patterns of `fnmatch`, any case)."""


def nothing() -> None:
    """Do not pause."""


@frozen(kw_only=True)
class Settings:
    """What can be chosen for a repository; every default is safe. Times are in seconds, sizes in bytes."""

    folder: str = "aexp"
    """The folder of an experiment's commit that holds aexp's own files."""
    close_timeout: float = 30.0
    """How long the end of an `async with` block waits for the disk, before `recover()` is needed or `PointsLost` raised."""
    queue_capacity: int = 2**18
    """How many points may wait to be written before `log_metric` waits and `log_metric_nowait` raises `QueueFull`."""
    write_interval: float = 0.05
    """How long points may gather before they are written: what `kill -9` may cost."""
    sync_interval: float = 1.0
    """How long written points may wait for a sync: what a power cut may cost without `flush()`."""
    segment_size: int = 64 * 2**20
    """The size at which the journal goes on in a new file."""
    file_limit: int = 10 * 2**20
    """The largest file that `log_file` takes, and that `code="all"` captures when it is untracked."""
    capture_limit: int = 100 * 2**20
    """The most that `code="all"` captures of untracked files in all."""
    secret_files: tuple[str, ...] = SECRET_FILES
    """Names of untracked files that are never captured (patterns of `fnmatch`)."""
    allow_secrets: tuple[str, ...] = ()
    """What is kept although it looks like a secret: `params.model.api_key`, `tags`, `message`, `artifacts`, `error` (an
    exception's text), or patterns of them with `*`; all else is `***` instead, with the warning `SecretRedacted`."""
    connect_timeout: float = 60.0
    """How long a Git remote may take to its first word before `push` or `pull` gives up."""
    stall_timeout: float = 120.0
    """How long a Git remote may say nothing in the middle of a transfer before `push` or `pull` gives up."""
    pull_limit: int = 2**32
    """The most that one `pull` takes from a Git remote, compressed as it comes."""
    auto_push: str | None = None
    """The Git remote that every saved experiment is pushed to, with its data, in the background; None for none."""
    push_timeout: float = 10.0
    """How long closing waits for what `auto_push` has not pushed yet, before it leaves that to the next session."""
    idle_workspaces: int = 8
    """How many private checkouts are kept clean on the disk for the next experiments, for a day at most."""
    upkeep: bool = True
    """Whether packs are joined, refs packed and old journals removed in the background when there are many: what
    `maintain()` does of its work without being asked."""
    dvc_running: bool | None = None
    """Whether `dvc exp show` displays experiments as running: all of them (True), none (False), or the first 64 that
    are open. It takes a `.dvc` folder; an experiment appears after a second, and so do its metrics."""


@frozen
class CompletedProcess:
    """A program that has ended: what was executed, its exit code, and the last 64 KiB of each of its streams.

    `returncode` is minus the signal that killed it, as in `subprocess`. What it printed is bytes, and empty where the
    program had our own streams.
    """

    args: tuple[str, ...]
    returncode: int
    stdout: bytes = field(default=b"", repr=False)
    stderr: bytes = field(default=b"", repr=False)


@frozen
class Failure:
    """The exception that ended an experiment: its type, its message, and the formatted traceback."""

    type: str
    message: str
    traceback: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Return the last line of a traceback: `ValueError: boom`."""
        return f"{self.type}: {self.message}" if self.message else self.type


@frozen
class Skipped:
    """A path that was left out of the captured code, and why."""

    path: str
    reason: str


@frozen
class Code:
    """The code an experiment started with: the captured tree (a Git tree id), and what was left out of it."""

    mode: CodeMode
    tree: str
    changed: bool
    skipped: tuple[Skipped, ...] = ()


@frozen
class Series:
    """All points of one metric, ordered by step: `steps` are int64, `values` and `timestamps` float64.

    The three have one length and give their memory through the buffer protocol, so that
    `numpy.asarray(series.values)` copies nothing. A timestamp is in seconds since 1970, NaN where none was given.
    """

    steps: "array[int]" = field(eq=bytes)
    values: "array[float]" = field(eq=bytes)
    timestamps: "array[float]" = field(eq=bytes)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.steps)


class Source(Protocol):
    """Makes what a record left packed."""

    def unpack(self, name: str, packed: bytes) -> Mapping[str, Any]:
        """Return the field *name* of a record (`metrics_by_file`), always the same for the same *packed*."""
        ...


class _Unpacked:
    """What a record that was read leaves packed until somebody asks for it.

    The garbage collector stops the program to look at every container there is: for 10,000 records with all their
    mappings for 24 ms, for as many without for 3. So a mapping is made when it is first asked for, and then kept;
    nobody sees a difference.
    """

    __slots__ = ("_metrics", "_params", "_source")
    _source: Source
    _params: bytes
    _metrics: bytes

    if not TYPE_CHECKING:  # to a type checker a record has the fields that it declares, and no others

        def __getattr__(self, name: str) -> Any:
            """Make a mapping that was left packed; Python asks here only for what is not set."""
            packed = _PACKED.get(name)
            if packed is None:
                raise AttributeError(f"a {type(self).__name__} has no {name!r}", name=name, obj=self)
            value = self._source.unpack(name, getattr(self, packed))
            object.__setattr__(self, name, value)
            return value


_PACKED: Final = {
    "params": "_params",
    "params_by_file": "_params",
    "metrics": "_metrics",
    "metrics_by_file": "_metrics",
}


@frozen(kw_only=True)
class Record(_Unpacked):
    """The saved account of an experiment.

    `metrics` is flat (`record.metrics["train/loss"]`) and holds the last value of each metric, and the `step`;
    `params` is one nested mapping over all parameter files. `damaged` says why a commit cannot be read; it is
    None for a sound record.
    """

    name: str
    id: str
    rev: str
    ref: str
    baseline: str
    status: Status
    error: Failure | None = None
    tags: tuple[str, ...] = ()
    message: str = ""
    created: datetime
    ended: datetime | None = None
    duration: float | None = None
    checkpoints: tuple[str, ...] = ()
    code: Code | None = None
    artifacts: tuple[Artifact, ...] = ()
    damaged: str | None = None
    push: Push | None = field(default=None, eq=False)
    """What is known here of its automatic push (`Settings.auto_push`), when it was read; it is no part of the commit."""
    params: Mapping[str, Any] = field(factory=dict)
    params_by_file: Mapping[str, Mapping[str, Any]] = field(factory=dict, repr=False)
    metrics: Mapping[str, Any] = field(factory=dict)
    metrics_by_file: Mapping[str, Mapping[str, Any]] = field(factory=dict, repr=False)


class Records(Sequence[Record]):
    """Records in the order they were asked for; as a table, each is a row.

    The columns of a table are `name`, `id`, `rev`, `ref`, `baseline`, `status`, `error`, `tags`, `message`, `created`,
    `ended`, `duration`, `checkpoints`, `artifacts`, `damaged`, then one for each parameter (`params.model.depth`) and
    one for each metric (`metrics.train/loss`). A column has one type: values of several become text. Making a table takes
    some 10 µs a record: in a program that must not pause, call it in a thread.
    """

    __slots__ = ("_records",)

    def __init__(self, records: Sequence[Record] = ()) -> None:
        self._records = tuple(records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> "Records": ...
    def __getitem__(self, index: int | slice) -> "Record | Records":
        """Return the record at *index*, or the records of a slice."""
        return Records(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order."""
        return iter(self._records)

    def __eq__(self, other: object) -> bool:
        """Compare record by record."""
        return self._records == other._records if isinstance(other, Records) else NotImplemented

    def __hash__(self) -> int:
        """Hash by identity of the commits."""
        return hash(tuple(record.rev for record in self._records))

    def __repr__(self) -> str:
        """Name the records and their status."""
        return f"Records([{', '.join(f'{record.name} ({record.status})' for record in self._records)}])"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return a flat dict for each record; parameters and metrics that it does not have are not in it."""
        return [_row(record) for record in self._records]

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a pandas data frame, where a column of several types keeps its objects; raise `MissingExtra`."""
        return _tables.to_pandas(self.to_dicts())

    def to_polars(self) -> "polars.DataFrame":
        """Return a polars data frame; raise `MissingExtra` when polars is not installed."""
        return _tables.to_polars(self.to_dicts())

    def to_arrow(self) -> "pyarrow.Table":
        """Return an Arrow table; raise `MissingExtra` when pyarrow is not installed."""
        return _tables.to_arrow(self.to_dicts())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the table as a stream of Arrow's C interface, through pyarrow or nanoarrow."""
        return _tables.arrow_stream(self.to_dicts(), requested_schema)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: a table of the first of them."""
        return _tables.to_html([_row(record) for record in self._records[: _tables.MOST_ROWS]], len(self))


def _row(record: Record) -> dict[str, Any]:
    return {
        "name": record.name,
        "id": record.id,
        "rev": record.rev,
        "ref": record.ref,
        "baseline": record.baseline,
        "status": record.status.value,
        "error": None if record.error is None else str(record.error),
        "tags": list(record.tags),
        "message": record.message,
        "created": record.created,
        "ended": record.ended,
        "duration": record.duration,
        "checkpoints": list(record.checkpoints),
        "artifacts": [each.name for each in record.artifacts],
        "damaged": record.damaged,
        **_tables.leaves(record.params, "params."),
        **{f"metrics.{name}": value for name, value in record.metrics.items()},
    }


@frozen(kw_only=True)
class Interrupted:
    """An experiment that was begun and neither saved nor discarded by its session, which is over.

    `status` is `running` when the process died in the middle, and how it had ended otherwise.
    """

    name: str
    id: str
    ref: str
    baseline: str
    status: Status
    created: datetime
    session: str
