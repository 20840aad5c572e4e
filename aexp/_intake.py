"""The way in: points and steps, from any thread into the journal's queue."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ._formats.batch import Column, Stream
from ._formats.journal import Kind
from ._formats.series import Number, index, moment, number
from ._journal import Journal
from ._lifecycle import Action, State, after
from ._names import check_metric_name
from ._secrets import is_token
from .errors import InvalidName, QueueFull


class Intake:
    """What an experiment takes in while it is active; this is the hot path, so it is short and in one place."""

    __slots__ = ("_columns", "_journal", "_state", "_step", "_stream", "_summary")

    _journal: Journal
    _stream: Stream

    def _reset(self) -> None:
        self._state = State.UNINITIALIZED
        self._columns: dict[str, Column] = {}
        self._summary: dict[str, Number] = {}
        self._step = 0

    @property
    def state(self) -> State:
        """Where the object stands in its life."""
        return self._state

    @property
    def summary(self) -> Mapping[str, Number]:
        """The last value logged of each metric."""
        return MappingProxyType(self._summary)

    @property
    def step(self) -> int:
        """The step that is used where none is given; `next_step()` counts it up, and it may be set."""
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        after(self._state, Action.LOG)
        step = index(value)
        with self._journal.counting:
            self._step = step
            self._journal.record(Kind.STEP, [self._stream.number, step])

    def log_metric_nowait(
        self, name: str, value: Any, step: int | None = None, *, timestamp: float | None = None
    ) -> None:
        """Log one point, from any thread, without waiting.

        *value* is a float, int or bool, or has `.item()` or `__float__`; *step* is `experiment.step` when not given;
        *timestamp* is in seconds since 1970. Raises `QueueFull` when the disk does not keep up, `TypeError` or
        `ValueError` for what is no number, `InvalidName` for the name, `ForkedError` in a forked child.
        """
        if self._state is not State.ACTIVE:
            after(self._state, Action.LOG)
        column = self._columns.get(name) or self._column(name)
        if type(value) is not float:
            value = number(value)
        if step is None:
            step = self._step
        elif type(step) is not int or not -(2**63) <= step < 2**63:
            step = index(step)
        if timestamp is not None:
            timestamp = moment(timestamp)
        journal = self._journal
        queue = journal.queue
        if len(queue) >= journal.limit:
            journal.pressure()
        queue += (column, step, value, timestamp)
        self._summary[name] = value
        if journal.asleep:
            journal.wake()

    def log_metrics_nowait(
        self, values: Mapping[str, Any], step: int | None = None, *, timestamp: float | None = None
    ) -> None:
        """Log one point of each metric in *values*, all or none of them; else as `log_metric_nowait`."""
        if self._state is not State.ACTIVE:
            after(self._state, Action.LOG)
        if step is None:
            step = self._step
        elif type(step) is not int or not -(2**63) <= step < 2**63:
            step = index(step)
        stamp = None if timestamp is None else moment(timestamp)
        if type(values) is dict and set(map(type, values.values())) == {float}:  # the usual case, in half the time
            checked: Mapping[str, Number] = values
        else:
            checked = {name: number(value) for name, value in values.items()}
        columns = self._columns
        places: list[Any] = []
        for name, value in checked.items():
            places += (columns.get(name) or self._column(name), step, value, stamp)
        journal = self._journal
        if len(journal.queue) + len(places) > journal.limit:
            journal.pressure(len(checked))
        journal.queue += places
        self._summary.update(checked)
        if journal.asleep:
            journal.wake()

    async def log_metric(
        self, name: str, value: Any, step: int | None = None, *, timestamp: float | None = None
    ) -> None:
        """Log one point; wait only while the queue is full, and not suspend otherwise.

        On return the point is accepted; `flush()` makes it durable. Raises as `log_metric_nowait`, but for
        `QueueFull`. Cancelled while it waits, the point was not logged.
        """
        while True:
            try:
                return self.log_metric_nowait(name, value, step, timestamp=timestamp)
            except QueueFull:  # also when another thread took the room that was there
                await self._journal.room()

    async def log_metrics(
        self, values: Mapping[str, Any], step: int | None = None, *, timestamp: float | None = None
    ) -> None:
        """Log one point of each metric in *values*; else as `log_metric`."""
        while True:
            try:
                return self.log_metrics_nowait(values, step, timestamp=timestamp)
            except QueueFull:
                await self._journal.room(len(values))

    def _column(self, name: str) -> Column:
        column = self._columns.get(name)
        if column is None:
            if is_token(check_metric_name(name)):
                raise InvalidName("a metric", name, "it looks like a secret, and names are written down")
            column = self._columns.setdefault(name, Column(self._stream, name))
        return column

    def next_step(self) -> int:
        """Count the step up by one, and return it; from any thread."""
        if self._state is not State.ACTIVE:
            after(self._state, Action.LOG)
        with self._journal.counting:
            self._step += 1
            self._journal.record(Kind.STEP, [self._stream.number, self._step])
            return self._step
