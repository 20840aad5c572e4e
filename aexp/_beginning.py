"""The short form for scripts and notebooks: a repository and its experiment in one step."""

import os
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any

from attrs import evolve

from ._desk import Desk
from ._experiment import Experiment
from ._repository import Repository
from ._store import Store
from ._values import Settings, StrPath
from ._ways import Join, way
from .errors import InvalidParams, RepositoryNotFound


def init(
    name: str | None = None, *, path: StrPath = ".", settings: Settings | None = None, **options: Any
) -> "Beginning":
    """Begin an experiment in the repository at *path*, in one step, for scripts and notebooks.

    `async with aexp.init("try-1") as experiment:` saves at the end of the block;
    `experiment = await aexp.init("try-1")` leaves `save()` or `discard()` to you. The repository is opened and closed
    along with the experiment. The other options are those of `Repository.experiment`.

    In a program that another experiment has started (`Experiment.run`, `aexp run`), it joins that one: what is logged,
    parameters, tags and files become a part of it, and its name, baseline, code and `force` count. When that one is
    over, or *path* leads to another repository, the program begins its own. Its *overrides* raise `InvalidParams`.
    """
    found = way(os.environ)
    join = found if isinstance(found, Join) and _is_within(path, found.repository) else None
    return Beginning(Repository(path, settings=settings), name, options, join)


def _is_within(path: StrPath, repository: str) -> bool:
    """Say whether *path* does not name another repository on purpose: it is the current folder, wherever that is."""
    if os.fspath(path) == ".":
        return True
    place, top = os.path.realpath(path), os.path.realpath(repository)
    return place == top or place.startswith(f"{top}{os.sep}")


class Beginning:
    """What `init` returns: an experiment to be awaited, or to be entered with `async with`."""

    def __init__(
        self, repository: Repository, name: str | None, options: Mapping[str, Any], join: Join | None = None
    ) -> None:
        self._repository = repository
        self._join = join
        self._experiment = repository.experiment(name, **options)
        self._experiment._open = self._ready  # a discarded one may be initialised again: the repository is opened anew

    async def _ready(self, baseline: str) -> Desk:
        await self._repository.open()
        return await self._repository._ready(baseline)

    def __await__(self) -> Generator[Any, Any, Experiment]:
        """Begin, and return the experiment; `save()` and `discard()` close the repository."""
        self._experiment._ended = self._close
        return self._begin().__await__()

    async def _begin(self) -> Experiment:
        try:
            if self._join is not None:
                await self._follow(self._join)
            return await self._experiment.init()
        except BaseException:
            await self._repository.aclose()
            raise

    async def _follow(self, join: Join) -> None:
        """Join the experiment if it is still there: its repository takes the place of ours."""
        self._join = None
        repository = Repository(join.repository, settings=self._repository._settings)
        try:
            await repository.open()
            there = await repository._write(_is_open, join)
        except RepositoryNotFound:
            return
        except BaseException:
            await repository.aclose()
            raise
        if not there:
            await repository.aclose()
            return
        self._repository, experiment = repository, self._experiment
        if experiment._options.overrides:
            raise InvalidParams(
                "overrides= change the tree of the experiment that this program joined; give them there, or pass params="
            )
        repository._join = experiment._join = join
        experiment._options = evolve(
            experiment._options, name=join.name, baseline=join.baseline, code="none", force=True
        )

    async def _close(self) -> None:
        await self._repository._end(None)  # `save()` does not wait for a push

    async def __aenter__(self) -> Experiment:
        """Begin, and return the experiment."""
        return await self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the experiment as its own block would, and close the repository."""
        try:
            await self._experiment.__aexit__(kind, error, trace)
        finally:
            await self._repository.aclose()


def _is_open(store: Store, join: Join) -> bool:
    from . import _joining

    return _joining.is_open(store, join)
