"""How far long work is: a bar with a rate on standard error, where that is a terminal."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from ._words import visible


class Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        """Return the rate."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", "cyan")


class Bar:
    """Draws what a call tells of its progress; nothing where standard error is no terminal, and nothing of it stays."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), Rate())
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._progress = Progress(
            *columns,
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # data goes where it goes, also while a bar stands on standard error
            redirect_stderr=False,
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away."""
        self._progress.stop()

    def __call__(self, phase: str, number: int, total: int | None) -> None:
        """Draw that *number* of *total* are done in this phase; None where nobody knows how many there are."""
        done = f"{number:,}" if total is None else f"{number:,} of {total:,}"
        task = self._tasks.get(phase)
        if task is None:
            task = self._tasks[phase] = self._progress.add_task(visible(phase), total=total, done=done)
        self._progress.update(task, completed=number, total=total, done=done)
