"""What the experiments of one open repository share, and what each was asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from ._formats.account import Account
from ._formats.params import dump_params, merge
from ._formats.plain import plain
from ._journal import Journal
from ._preview import Preview
from ._saver import Saver
from ._store import Start, Started, Store
from ._values import CodeMode, OnError, Settings, StrPath
from ._way import Within
from ._workers import Gatherer, Worker

if TYPE_CHECKING:
    from ._experiment import Experiment


@define(eq=False)
class Desk:
    """What the experiments of one open repository share."""

    session: str
    settings: Settings
    worker: Worker[Store]
    journal: Journal
    saver: Saver
    start: Gatherer[Start, Started]
    origin: Mapping[str, Any]
    entropy: Callable[[int], bytes]
    preview: Worker[Preview] | None = None
    """Where there is a DVC repository: what writes ahead for its table."""
    within: Within | None = None
    """The run of DVC that the experiments are part of."""
    taken: "dict[str, Experiment]" = field(factory=dict)
    """The open experiments by ref."""
    _numbers: int = 0

    def name_for(self, options: "Options") -> str | None:
        """Return the name of an experiment that *options* ask for; None when it is to be given one."""
        return options.name if self.within is None else self.within.name

    def wish(self, name: str, options: "Options") -> Start:
        """Return the wish to begin an experiment called *name*; a run of DVC has chosen the name and the baseline."""
        baseline = options.baseline if self.within is None else self.within.baseline
        return Start(name, baseline, options.code, options.force, options.params, free=self.within is None)

    def number(self) -> int:
        """Return the next number of an experiment in this session."""
        self._numbers += 1
        return self._numbers


@frozen(eq=False)
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


def options_of(account: Account) -> Options:
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
    )


def rendered(_: Store, params: Mapping[str, Any]) -> str:
    """Return the text of params.yaml; called in a worker's thread, because large parameters take a while."""
    return dump_params(params).decode()


def parameters(
    params: object, more: Mapping[str, Any], file: StrPath | None, overrides: Sequence[str]
) -> dict[str, Any]:
    """Return what `set_params` was given as one plain mapping; raise `InvalidParams`."""
    if file is not None or overrides:
        remedy = "pass a mapping, without file= and overrides="
        raise NotImplementedError(f"parameter files of the tree cannot be edited yet; {remedy}")
    return merge({} if params is None else plain(params), plain(more))
