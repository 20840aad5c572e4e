"""Programs that run as a part of an experiment: what they print, what they log, what they leave behind."""

import asyncio
import os
import signal
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Final, Literal

from attrs import evolve

from ._deposit import Deposit
from ._desk import rendered
from ._drawing import Drawing
from ._formats.account import without
from ._formats.files import encoded
from ._formats.journal import Kind
from ._formats.printed import Listener
from ._lifecycle import Action, State, after
from ._store import Store
from ._values import CompletedProcess, Output, StrPath
from ._ways import Join, dvc_variables, variables
from ._workers import attended, finished, settled
from ._workplace import Lent, Workplace, Workspace
from .errors import AexpError, CommandFailed, JournalCorrupt

if TYPE_CHECKING:
    from ._joining import Part
    from ._outs import Before, Taken
    from ._programs import Ended, Order, Program

LOG: Final = "log"
"""The file of the experiment's folder that holds what a program printed: `log.txt`, then `log-2.txt`."""
WORDS: Final = 200
"""How much of its last line an error repeats."""


About = tuple[tuple[str, ...], Output, bool, float, Listener | None]
"""Of a program: what is executed, what becomes of its output, whether it reads our input, its grace, who hears it."""


class Running(Workplace, Deposit, Drawing):
    """What an experiment does for the programs it runs, and for those that join it."""

    __slots__ = ("_joinable",)

    _joinable: bool
    """Whether programs may have joined."""

    async def run(
        self,
        command: str | Sequence[StrPath],
        *,
        isolated: bool = True,
        cwd: StrPath | None = None,
        env: Mapping[str, str | None] | None = None,
        check: bool = True,
        output: Output | Listener = "log",
        stdin: Literal["null", "inherit"] = "null",
        grace: float = 5.0,
    ) -> CompletedProcess:
        """Run a program as a part of the experiment, and wait for its end.

        *command* is a list, which is executed as it is, or a string, which `/bin/sh` reads. It runs in a private
        checkout: the `workspace()` that was opened last, or else one of its own; *cwd* is a folder in it. What it
        changes there is taken into the experiment (see `workspace`), also when it fails. With `isolated=False`, and in
        a program that joined an experiment, it runs in *cwd*, by default the current folder. *env* is added to our
        environment; None takes a variable away.

        What it prints goes into `aexp/log.txt` of the commit: the first and the last 512 KiB. `output="show"` also
        passes it on to our own streams as it comes (the program writes into a pipe, so `PYTHONUNBUFFERED` is set);
        `"inherit"` gives it our streams themselves, so that a terminal stays one, and keeps nothing. A function is called
        with each line on the event loop (`output(stream, line)`: "stdout" or "stderr", and the bytes with their end,
        64 KiB or so of a line that does not end), with all of them before `run` returns, and with none afterwards.
        While it works the program may have to wait, as for any slow reader; what it raises stops the program as a
        cancellation does, and is raised here.

        With `stdin="inherit"` the program reads our standard input; if that is the terminal, it has it to itself until
        it ends, with Ctrl-C and Ctrl-Z, as in a shell.

        A program that calls `aexp.init()` logs into this experiment; what it logged is here when `run` returns. What
        DVCLive wrote is taken into the commit, too.

        Raises `CommandFailed` when it cannot be started, and, with *check*, when its exit code is not 0. Cancelled, or
        when the experiment is ended meanwhile, its whole process group gets SIGTERM and, *grace* seconds later,
        SIGKILL; the cancellation is raised after that.
        """
        after(self._state, Action.RUN)
        arguments = (
            ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(os.fspath(each) for each in command)
        )
        if not arguments or not all(isinstance(each, str) for each in arguments):
            raise TypeError(f"a command is a string, or a list of strings and paths, not {command!r}")
        kind: Output = "log" if callable(output) else output
        listener = output if callable(output) else None
        if kind not in ("log", "show", "inherit") or stdin not in ("null", "inherit"):
            raise ValueError("output is log, show, inherit or a function, and stdin null or inherit")
        if iscoroutinefunction(listener):
            raise TypeError("output is a plain function: it is called, and not awaited; log_metric_nowait() logs in it")
        about: About = (arguments, kind, stdin == "inherit", grace, listener)
        if not isolated or self._join is not None:
            ended = await self._run(_order(about, os.fspath(cwd or "."), self._environment(env, kind)))
        elif self._lent:
            ended = await self._run_inside(self._lent[-1], about, cwd, env)
        else:
            workspace = Workspace(self)
            async with workspace:
                ended = await self._run_inside(workspace.lent, about, cwd, env)
        if check and ended.returncode:
            raise CommandFailed(arguments, ended.returncode, self._censor.redacted(_told(ended), "error"), ended.stderr)
        return CompletedProcess(arguments, ended.returncode, ended.stdout, ended.stderr)

    async def _run_inside(
        self, lent: Lent, about: About, cwd: StrPath | None, env: Mapping[str, str | None] | None
    ) -> "Ended":
        folder = _folder(lent.checkout.path, cwd)
        variables = {**self._environment(None, about[1]), **lent.checkout.variables(), "PWD": folder, **(env or {})}
        known = {key: value for key, value in variables.items() if value is not None}
        return await self._run(_order(about, folder, known), inside=True)

    def variables(self) -> Mapping[str, str]:
        """Return the environment variables with which a program that you start yourself joins this experiment.

        What it logged is taken in when the experiment ends, if the program has ended by then.
        """
        after(self._state, Action.RUN)
        self._joinable = True
        return variables(self._joined())

    def _joined(self) -> Join:
        account, desk = self._here()
        return self._join or Join(account.id, account.name, account.baseline, desk.place, desk.session)

    def _environment(self, env: Mapping[str, str | None] | None, output: Output) -> dict[str, str]:
        inherited = dict(os.environ)
        ours = {**self.variables(), **dvc_variables(self._joined(), inherited)}
        unbuffered = {} if output == "inherit" else {"PYTHONUNBUFFERED": "1"}  # a pipe would be told much later
        wanted: dict[str, str | None] = {**unbuffered, **inherited, **ours, **(env or {})}
        return {key: value for key, value in wanted.items() if value is not None}

    async def _run(self, order: "Order", *, inside: bool = False) -> "Ended":
        """Run a program; what it leaves *inside* a checkout is taken with that."""
        from ._programs import Program

        account, desk = self._here()
        before = None if inside else await desk.worker.run(_before, order.folder)
        after(self._state, Action.RUN)
        path = self._log_path()
        stream, number = self._stream, account.number

        def heard(data: bytes) -> None:
            with suppress(AexpError):  # the journal's failure is told to who logs or saves
                self._journal.record(Kind.LOG, [number, path, "".join(encoded(data))], stream)

        program = Program(order, heard)
        task = asyncio.create_task(self._attend(program, before))
        desk.runs[task] = (number, program)
        task.add_done_callback(lambda _: desk.runs.pop(task, None))
        return await finished(task, program.stop)

    def _log_path(self) -> str:
        account, desk = self._here()
        name = f"{desk.settings.folder}/{LOG}{f'-{account.id[-8:]}' if self._join else ''}"
        path, count = f"{name}.txt", 1
        while path in self._stream.files:
            count += 1
            path = f"{name}-{count}.txt"
        self._stream.files |= {path}
        return path

    async def _attend(self, program: "Program", before: "Before | None") -> "Ended":
        try:
            return await attended(program)
        finally:
            await self._in_turn(self._take_in(before))

    async def _take_in(self, before: "Before | None") -> None:
        """Take what a program has logged and left; nothing once the experiment has ended."""
        if self._state not in (State.ACTIVE, State.COMPLETED):
            return
        await self._gather()
        if before is None:
            return
        paths = await self._here()[1].worker.run(_written, before)
        await self._take(paths)

    async def _gather(self) -> None:
        """Take in what programs logged that joined and have ended."""
        if self._join is not None or not self._joinable:
            return
        from . import _joining

        account, desk = self._here()
        parts, damaged = await desk.worker.run(_gathered, account.id, account.joined)
        for part in parts:
            account = evolve(self._here()[0], step=self._step)
            for kind, payload in _joining.records(account, part):
                self._journal.record(kind, payload, self._stream if kind is Kind.JOINED else None)
            self._account = _joining.added(account, part)
            self._summary.update(part.last)
            with self._journal.counting:
                self._step = max(self._step, part.step)
            self._stream.files |= part.files
            self._stream.joined += len(part.extents)
        if parts:
            self._params_text = await desk.worker.run(rendered, self._here()[0].params)
            await self._journal.flush()
        for error in damaged:
            warnings.warn(f"a program that joined {self._joined().name} is left out: {error}", RuntimeWarning, 2)

    async def _take(self, paths: Sequence[str], *, outs: tuple[str, ...] = ()) -> None:
        """Take *paths* from the work tree; *outs* are still to be taken after that."""
        if not paths:
            return
        account, desk = self._here()
        put, settle = self._file_writer()
        taken = await desk.worker.run(_taken, paths, desk.settings.capture_limit, put, settle)
        self._stream.files |= set(taken.files)
        self._journal.record(Kind.OUTS, [account.number, outs, taken.skipped])
        self._account = without(self._here()[0], taken.skipped, outs=outs)

    async def _take_outs(self) -> None:
        """Take the outs that the experiment names, once."""
        await self._take(self._here()[0].outs)

    async def _stop_programs(self) -> None:
        """Stop the programs that still run for this experiment, and wait until they are gone and what they left is here."""
        if self._desk is None or self._account is None:
            return
        mine = [task for task, (number, _) in self._desk.runs.items() if number == self._account.number]
        await stop(self._desk.runs, mine)
        await self._reap_all()


async def stop(
    runs: "Mapping[asyncio.Task[Ended], tuple[int, Program]]", wanted: "Sequence[asyncio.Task[Ended]]"
) -> None:
    """Stop the programs of the tasks *wanted*, and wait until those are done."""
    for task in wanted:
        runs[task][1].stop()
    if wanted:
        await settled(asyncio.ensure_future(asyncio.wait(wanted)))


def _folder(top: str, cwd: StrPath | None) -> str:
    return os.path.normpath(os.path.join(top, os.fspath(cwd or "")))


def _order(about: About, folder: str, variables: Mapping[str, str]) -> "Order":
    from ._programs import Order

    arguments, output, stdin, grace, listener = about
    return Order(arguments, folder, variables, output, stdin, grace, listener)


def _told(ended: "Ended") -> str:
    """Say how a program ended, with its last words."""
    code = ended.returncode
    if code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return f"ended with exit code {code}" + (f": {lines[-1][:WORDS]}" if lines else "")


def _before(store: Store, folder: str) -> "Before":
    from . import _outs

    return _outs.before(store, folder)


def _written(store: Store, before: "Before") -> list[str]:
    from . import _outs

    return _outs.written(store, before)


def _taken(
    store: Store, paths: Sequence[str], room: int, put: Callable[..., None], settle: Callable[[], None]
) -> "Taken":
    from . import _outs

    return _outs.take(store, paths, room, put, settle)


def _gathered(store: Store, experiment: str, known: Collection[str]) -> "tuple[list[Part], list[JournalCorrupt]]":
    from . import _joining

    return _joining.gather(store, experiment, known)
