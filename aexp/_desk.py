"""What the experiments of one open repository share, and what each was asked for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio
from attrs import define, evolve, field, frozen

from ._caretaker import Caretaker
from ._formats.account import Account, begin
from ._formats.batch import Stream
from ._formats.files import Files
from ._formats.journal import Extents, Kind
from ._formats.params import decoded, dump_params, merge
from ._formats.plain import plain
from ._gatherer import Gatherer
from ._journal import Journal
from ._names import check_file_path
from ._saver import Saver
from ._secrets import MARK, Censor
from ._sessions import read_extents
from ._store import Start, Started, Store
from ._values import CodeMode, OnError, Settings
from ._ways import Within
from ._workers import Worker
from .errors import AexpError

if TYPE_CHECKING:
    from ._experiment import Experiment
    from ._formats.overrides import Override
    from ._keeping import Keeper
    from ._preview import Preview
    from ._programs import Ended, Program


MAKING: Final = 4
"""How many threads work at checkouts at a time."""


@define(eq=False, repr=False)
class Desk:
    """What the experiments of one open repository share."""

    session: str
    settings: Settings
    worker: Worker[Store]
    journal: Journal
    saver: Saver
    start: Gatherer[Start, Started]
    hands: Executor
    """The threads that bring data into its store."""
    keeper: "Keeper | None"
    """What it is that they use, once there is data."""
    origin: Mapping[str, Any]
    entropy: Callable[[int], bytes]
    caretaker: Caretaker
    preview: "Worker[Preview] | None" = None
    """Where there is a DVC repository: what writes ahead for its table."""
    within: Within | None = None
    """The run of DVC that the experiments are part of."""
    taken: "dict[str, Experiment]" = field(factory=dict)
    """The open experiments by ref."""
    place: str = ""
    """The top of the work tree; of a bare repository, the repository."""
    runs: "dict[asyncio.Task[Ended], tuple[int, Program]]" = field(factory=dict)
    """The programs at work, each with the number of its experiment."""
    making: "anyio.Semaphore" = field(factory=lambda: anyio.Semaphore(MAKING))
    """How many checkouts may be made or taken from at a time."""
    _numbers: int = 0

    def name_for(self, options: "Options") -> str | None:
        """Return the name of an experiment that *options* ask for; None when it is to be given one."""
        return options.name if self.within is None else self.within.name

    def wish(self, name: str, options: "Options") -> Start:
        """Return the wish to begin an experiment called *name*; a run of DVC has chosen the name and the baseline."""
        baseline = options.baseline if self.within is None else self.within.baseline
        free = self.within is None
        return Start(name, baseline, options.code, options.force, options.params, options.overrides, free)

    def number(self) -> int:
        """Return the next number of an experiment in this session."""
        self._numbers += 1
        return self._numbers


@frozen(eq=False, repr=False)
class Options:
    """What `Repository.experiment` was asked for."""

    name: str | None
    params: Mapping[str, Any]
    baseline: str
    code: CodeMode
    tags: tuple[str, ...]
    message: str
    on_error: OnError
    force: bool
    outs: tuple[str, ...] = ()
    overrides: "tuple[Override, ...]" = ()
    censor: Censor = field(factory=Censor)
    """What takes secrets out of what is told later."""


def options_of(account: Account, censor: Censor) -> Options:
    """Return what the experiment of a journal's *account* was asked for."""
    return Options(
        account.name,
        account.params,
        account.baseline,
        account.code.mode,
        account.tags,
        account.message,
        "save",
        account.force,
        censor=censor,
    )


async def copy_in(desk: Desk, account: Account, stream: Stream, logged: Sequence[tuple[str, Any]]) -> None:
    """Write an experiment into our own journal, so that nothing of it depends on the old one."""
    desk.journal.record(Kind.BEGIN, begin(account))
    for kind, payload in logged:
        await desk.journal.room()
        desk.journal.record(Kind(kind), [account.number, *payload[1:]], stream)
    if not account.complete:
        desk.journal.record(Kind.RESUMED, [account.number])
    await desk.journal.flush()


@asynccontextmanager
async def moving(desk: Desk, number: int, back: Kind, *more: str) -> AsyncIterator[None]:
    """Let an experiment move in as *number*; when that fails, say in our journal where it went *back* to."""
    try:
        yield
    except BaseException:
        with suppress(AexpError):  # nothing is written any more
            desk.journal.record(back, [number, *more])
        raise


def rendered(_: Store, params: Mapping[str, Any]) -> str:
    """Return the text of params.yaml; called in a worker's thread, because large parameters take a while."""
    return dump_params(params).decode()


def parameters(params: object, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `set_params` was given as one plain mapping; raise `InvalidParams`."""
    return merge({} if params is None else plain(params), plain(more))


def parsed(overrides: Sequence[str], folder: str, censor: Censor) -> "tuple[Override, ...]":
    """Return *overrides*, each of a file that an experiment may hold, without secrets; raise `InvalidParams`, `UnsafePath`."""
    if isinstance(overrides, str):
        raise TypeError("overrides are a sequence of texts, not one text")
    if not overrides:
        return ()
    from ._formats.overrides import parse_override

    found = []
    for each in map(parse_override, overrides):
        value, text = censor.clean(each.value, ".".join(("params", *each.path))), each.text
        if value != each.value:
            text = f"{text.partition('=')[0]}='{MARK}'"
        found.append(evolve(each, file=check_file_path(each.file, folder=folder), value=value, text=text))
    return tuple(found)


def logged_text(store: Store, number: int, extents: Extents, path: str) -> str:
    """Return the text that experiment *number* of this session has logged as the file *path*."""
    assert store.session is not None
    files = Files()
    for kind, payload in read_extents(store.session.path, store.session.id, extents, number, None):
        if kind == Kind.FILE and payload[1] == path:
            files.add(kind, payload)
    content = next((content for _, _, content in files if content is not None), b"")
    return decoded(content, path)


def changed_files(
    store: Store,
    tree: str,
    overrides: "Sequence[Override]",
    file: str,
    values: Mapping[str, Any],
    known: Mapping[str, str],
) -> dict[str, str]:
    """Return the texts of parameter files after *values* were merged into *file*, and then *overrides* applied."""
    from ._parameters import with_overrides, with_values

    texts = dict(known)
    if file:
        texts[file] = with_values(store.handle, tree, file, values, texts)
    texts.update(with_overrides(store.handle, tree, overrides, texts))
    return {path: text for path, text in texts.items() if known.get(path) != text}
