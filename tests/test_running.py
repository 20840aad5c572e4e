"""Programs that an experiment runs: their streams, their end, and what they may not do to us."""

import asyncio
import contextvars
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp._formats.printed import LONG, Lines

DEADLINE = 20.0


def ended(pid: int) -> bool:
    """Say whether a process is gone, or is a zombie that nobody has reaped yet."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not done.stdout.strip() or done.stdout.strip().startswith("Z")


async def until(true: Callable[[], bool]) -> None:
    """Wait until something is true; fail when it takes too long."""
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)


async def pid_in(path: Path) -> int:
    """The process id that a program writes to a file, once it has."""
    await until(lambda: text_of(path).endswith("\n"))
    return int(text_of(path))


def text_of(path: Path) -> str:
    """What a file holds; empty when it is not there."""
    return path.read_text() if path.exists() else ""


def start(command: list[str]) -> "subprocess.Popen[bytes]":
    """Start a program whose output we may read."""
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def fed(command: list[str], given: bytes) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end on what it is given to read."""
    return subprocess.run(command, input=given, capture_output=True, check=True)


def resident() -> int:
    """Bytes of memory that this process has."""
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1024


# ---- streams and exit codes ----


async def test_a_list_is_executed_as_it_is(repository: aexp.Repository, tmp_path: Path) -> None:
    """The parts of a list reach the program unchanged: no shell looks at them; paths are parts like others."""
    async with repository.experiment("one") as experiment:
        done = await experiment.run(["echo", "$HOME", "a  b", tmp_path], isolated=False)

    assert done == aexp.CompletedProcess(
        ("echo", "$HOME", "a  b", str(tmp_path)), 0, f"$HOME a  b {tmp_path}\n".encode()
    )


async def test_a_string_is_read_by_the_shell(repository: aexp.Repository, tmp_path: Path) -> None:
    """A string is what one would type; the folder is the one that is asked for, and the environment has what is added."""
    async with repository.experiment("one") as experiment:
        done = await experiment.run(
            'echo "$WHO in $PWD"; echo oops >&2', isolated=False, cwd=tmp_path, env={"WHO": "ada", "TZ": None}
        )

    assert (done.returncode, done.stdout, done.stderr) == (0, f"ada in {tmp_path}\n".encode(), b"oops\n")


async def test_what_it_prints_is_in_the_commit(repository: aexp.Repository) -> None:
    """Each program has a log of its own, with both streams, byte for byte; DVC's file still names what it did before."""
    async with repository.experiment("one") as experiment:
        await experiment.run(r"printf 'a\377\0b\n'; sleep 0.1; echo c >&2", isolated=False)
        await experiment.run("echo second", isolated=False)

    assert await repository.read("one", "aexp/log.txt") == b"a\xff\0b\nc\n"
    assert await repository.read("one", "aexp/log-2.txt") == b"second\n"
    assert b"log" not in await repository.read("one", "aexp/dvc.yaml")


async def test_of_a_long_log_head_and_tail_are_kept(repository: aexp.Repository) -> None:
    """Of a log that is too long the first and the last 512 KiB are kept, and how much is missing between them is said."""
    async with repository.experiment("one") as experiment:
        done = await experiment.run("seq 1000000", isolated=False)

    whole = b"".join(b"%d\n" % number for number in range(1, 1000001))
    log = await repository.read("one", "aexp/log.txt")
    left_out = len(whole) - 2**20
    assert log == whole[: 2**19] + b"\n[aexp: %d bytes are left out here]\n" % left_out + whole[-(2**19) :]
    assert done.stdout == whole[-(2**16) :]


async def test_a_failed_program_fails_the_experiment(repository: aexp.Repository) -> None:
    """A non-zero exit code is an error with code and last words, which the record of the experiment holds."""
    with pytest.raises(aexp.CommandFailed, match=r"ended with exit code 3: no data$") as caught:
        async with repository.experiment("one") as experiment:
            await experiment.run("echo no data >&2; exit 3", isolated=False)

    record = await repository.get("one")
    assert (caught.value.returncode, caught.value.exit_code) == (3, 3)
    assert (record.status, record.error and record.error.type) == (aexp.Status.FAILED, "CommandFailed")
    assert record.error is not None
    assert record.error.message == str(caught.value)


async def test_a_killed_program_says_by_what(repository: aexp.Repository) -> None:
    """A program that a signal ended is told by the name of the signal, and by the exit code that a shell would give."""
    async with repository.experiment("one") as experiment:
        with pytest.raises(aexp.CommandFailed, match="was killed by SIGKILL") as caught:
            await experiment.run("kill -9 $$", isolated=False)

    assert (caught.value.returncode, caught.value.exit_code) == (-9, 137)


async def test_a_failure_may_be_expected(repository: aexp.Repository) -> None:
    """With check=False a non-zero exit code is a result like another."""
    async with repository.experiment("one") as experiment:
        done = await experiment.run("exit 3", isolated=False, check=False)

    assert done.returncode == 3
    assert (await repository.get("one")).status == aexp.Status.FINISHED


@pytest.mark.parametrize(("command", "code"), [("no-such-program", 127), ("./README.md", 126)])
async def test_a_program_that_cannot_be_started(
    repository: aexp.Repository, repo_path: Path, command: str, code: int
) -> None:
    """A program that is not there, or is none, is an error of the same kind, check or not; the experiment goes on."""
    async with repository.experiment("one") as experiment:
        with pytest.raises(aexp.CommandFailed, match="cannot be started") as caught:
            await experiment.run([command], isolated=False, cwd=repo_path, check=False)
        await experiment.log_metric("loss", 0.5)

    assert caught.value.returncode == code


@pytest.mark.parametrize("wrong", [[], [1], ["a", b"b"]])
async def test_a_command_is_made_of_texts(repository: aexp.Repository, wrong: list[str]) -> None:
    """A command that is empty or holds anything but texts and paths is refused."""
    async with repository.experiment("one") as experiment:
        with pytest.raises(TypeError):
            await experiment.run(wrong, isolated=False)


async def test_standard_input_is_empty(repository: aexp.Repository) -> None:
    """A program that reads standard input finds its end, and does not wait for somebody to type."""
    async with repository.experiment("one") as experiment:
        done = await experiment.run("cat; echo end", isolated=False)

    assert done.stdout == b"end\n"


# ---- its end ----


async def test_cancelling_stops_the_whole_group(repository: aexp.Repository, tmp_path: Path) -> None:
    """The cancelled program and what it started are gone when the cancellation is seen; the experiment is cancelled."""
    file = tmp_path / "pid"

    async def work() -> None:
        async with repository.experiment("one") as experiment:
            await experiment.run(f"sleep 100 & echo $! > {file}; echo begun; wait", isolated=False)

    task = asyncio.create_task(work())
    pid = await pid_in(file)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended(pid)
    assert (await repository.get("one")).status == aexp.Status.CANCELLED
    assert await repository.read("one", "aexp/log.txt") == b"begun\n"


@pytest.mark.parametrize("how", ["twice", "timeout", "scope"])
async def test_cancelled_however(repository: aexp.Repository, tmp_path: Path, how: str) -> None:
    """Cancelled twice, by a timeout or by a scope of anyio: the program, deaf to SIGTERM, is killed after the grace."""
    file = tmp_path / "pid"
    experiment = await repository.experiment("one").init()

    async def run() -> None:
        await experiment.run(f"trap '' TERM; echo $$ > {file}; sleep 100; sleep 100", isolated=False, grace=0.2)

    if how == "twice":
        task = asyncio.create_task(run())
        pid = await pid_in(file)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif how == "timeout":
        limit = asyncio.timeout(None)
        ending = asyncio.create_task(_when(file, lambda: limit.reschedule(0)))
        with pytest.raises(TimeoutError):
            await _within(limit, run())
        pid = await ending
    else:
        with anyio.CancelScope() as scope:
            ending = asyncio.create_task(_when(file, scope.cancel))
            await run()
        pid = await ending

    assert ended(pid)
    await experiment.save()


async def _within(limit: asyncio.Timeout, work: Awaitable[object]) -> None:
    async with limit:
        await work


async def _when(file: Path, end: Callable[[], None]) -> int:
    """Call *end* when a program has written its process id to a file; return that."""
    pid = await pid_in(file)
    end()
    return pid


async def test_cancelled_before_it_began(repository: aexp.Repository, tmp_path: Path) -> None:
    """A run that is cancelled at once leaves no program behind."""
    experiment = await repository.experiment("one").init()
    for _ in range(20):
        task = asyncio.create_task(
            _quietly(experiment.run(f"echo $$ >> {tmp_path / 'pids'}; exec sleep 100", isolated=False))
        )
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await experiment.save()

    pids = text_of(tmp_path / "pids").split()
    assert all(ended(int(pid)) for pid in pids)


async def _quietly(work: Awaitable[object]) -> None:
    with suppress(asyncio.CancelledError):
        await work


@pytest.mark.parametrize("end", ["save", "complete", "discard", "close"])
async def test_ending_the_experiment_ends_its_programs(repo_path: Path, tmp_path: Path, end: str) -> None:
    """Whatever ends an experiment, or closes its repository, stops the programs that still run for it, and no others."""
    async with aexp.Repository(repo_path) as repository:
        one, two = await repository.experiment("one").init(), await repository.experiment("two").init()
        command = "echo $$ > {}; exec sleep 100"
        task = asyncio.create_task(one.run(command.format(tmp_path / "1"), isolated=False, check=False))
        other = asyncio.create_task(two.run(command.format(tmp_path / "2"), isolated=False, check=False))
        mine, others = await pid_in(tmp_path / "1"), await pid_in(tmp_path / "2")
        if end == "close":
            await repository.aclose()
        else:
            await getattr(one, end)()
            assert not ended(others)
            await two.discard()

    assert ended(mine)
    assert ended(others)
    assert [(await each).returncode for each in (task, other)] == [-signal.SIGTERM] * 2


async def test_a_daemon_that_holds_the_pipes_does_not_keep_us(repository: aexp.Repository, tmp_path: Path) -> None:
    """A program that leaves one behind which holds its streams is over when it has ended; what is left goes on."""
    file = tmp_path / "pid"
    began = time.monotonic()
    async with repository.experiment("one") as experiment:
        done = await experiment.run(
            f"(trap '' HUP; echo $BASHPID; exec sleep 100) & echo $! > {file}; echo end", isolated=False
        )

    assert b"end\n" in done.stdout
    assert time.monotonic() - began < 5
    pid = await pid_in(file)
    assert not ended(pid)
    os.kill(pid, signal.SIGKILL)


async def test_daemons_that_go_on_printing_do_not_keep_us(repository: aexp.Repository, tmp_path: Path) -> None:
    """Fifty daemons in sessions of their own that print without end are left to themselves after five seconds."""
    loop = f"setsid sh -c 'echo $$ >> {tmp_path / 'pids'}; while :; do echo x; sleep 0.05; done' &"
    began = time.monotonic()
    async with repository.experiment("one") as experiment:
        await experiment.run(f"for i in $(seq 50); do {loop} done", isolated=False)

    assert time.monotonic() - began < 15
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    await until(lambda: all(map(ended, pids)))  # nobody reads what they print


async def test_a_stopped_program_can_be_cancelled(repository: aexp.Repository, tmp_path: Path) -> None:
    """A program that somebody has stopped is woken to hear that it shall end."""
    experiment = await repository.experiment("one").init()
    task = asyncio.create_task(experiment.run(f"echo $$ > {tmp_path / 'pid'}; kill -STOP $$", isolated=False))
    pid = await pid_in(tmp_path / "pid")
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert ended(pid)
    await experiment.save()


async def test_the_program_may_remove_its_own_folder(repository: aexp.Repository, tmp_path: Path) -> None:
    """A program that removes the folder it runs in, and leaves FIFOs elsewhere, is a program like others."""
    folder = tmp_path / "gone"
    folder.mkdir()
    async with repository.experiment("one", outs=["fifo"]) as experiment:
        top = repository._path
        done = await experiment.run(f"mkfifo {top}/fifo; rmdir {folder}; pwd", isolated=False, cwd=folder)

    assert done.returncode == 0
    assert experiment.record is not None
    assert experiment.record.code is not None
    assert experiment.record.code.skipped == (aexp.Skipped("fifo", "not a regular file"),)


# ---- much output ----


async def flood(repository: aexp.Repository, size: int) -> None:
    """A program in a private checkout prints *size* bytes; memory and the loop notice nothing."""
    before = resident()
    pauses = [0.0]

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - began)

    watching = asyncio.create_task(watch())
    async with repository.experiment("one") as experiment:
        await experiment.run(f"yes | head -c {size}")
        grown = resident() - before
    watching.cancel()

    assert grown < 30 * 2**20
    assert len(await repository.read("one", "aexp/log.txt")) < 2**20 + 100
    assert median(pauses) < 0.01  # which load of other programs does not blur


async def test_much_output_takes_no_memory(repository: aexp.Repository) -> None:
    """200 MB of output leave memory as it was."""
    await flood(repository, 200_000_000)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_very_much_output_takes_no_memory(repository: aexp.Repository) -> None:
    """So do 10 GB."""
    await flood(repository, 10_000_000_000)


# ---- a listener ----

PIECES = st.lists(st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b"\n\n"]), max_size=6).map(b"".join))


@given(PIECES)
def test_a_stream_is_cut_into_lines_wherever_it_was_cut_into_pieces(pieces: list[bytes]) -> None:
    """However a stream comes, its lines are the same, and together they are the stream."""
    lines = Lines()
    heard = [line for piece in pieces for line in lines.add(piece)] + lines.rest()

    assert heard == b"".join(pieces).splitlines(keepends=True)


def test_a_line_that_never_ends_comes_in_parts() -> None:
    """What is not a line after 64 KiB is passed on; nothing grows."""
    lines = Lines()
    heard = [line for _ in range(300) for line in lines.add(b"x" * 1000)]

    assert all(LONG <= len(each) < LONG + 1000 for each in heard)
    assert len(b"".join(heard)) > 300_000 - LONG


@pytest.mark.parametrize("isolated", [False, True])
async def test_each_line_is_heard(repository: aexp.Repository, isolated: bool) -> None:
    """A function given as output is called on the event loop with every line of both streams; the log has them, too."""
    heard: list[tuple[str, bytes]] = []
    word = contextvars.ContextVar[str]("word")
    word.set("ours")

    async with repository.experiment("one") as experiment:

        def listen(stream: str, line: bytes) -> None:
            assert asyncio.get_running_loop() is loop
            assert word.get() == "ours"
            heard.append((stream, line))
            if line.startswith(b"loss"):
                experiment.log_metric_nowait("loss", float(line.split()[1]))

        loop = asyncio.get_running_loop()
        done = await experiment.run(
            r"echo loss 0.5; sleep 0.1; echo oops >&2; sleep 0.1; printf '10%%\r20%%\r\377'; exit 3",
            isolated=isolated,
            output=listen,
            check=False,
        )
        assert heard == [
            *(("stdout", b"loss 0.5\n"), ("stderr", b"oops\n")),
            *(("stdout", b"10%\r"), ("stdout", b"20%\r"), ("stdout", b"\xff")),
        ]

    assert done.returncode == 3
    assert (await repository.get("one")).metrics["loss"] == 0.5
    assert await repository.read("one", "aexp/log.txt") == b"loss 0.5\noops\n10%\r20%\r\xff"


async def test_a_listener_that_raises_stops_the_program(repository: aexp.Repository, tmp_path: Path) -> None:
    """What it raises ends the program and the experiment; it hears no more, and the log is kept."""
    heard = []

    def listen(_: str, line: bytes) -> None:
        heard.append(line)
        raise ValueError(line)

    file = tmp_path / "pid"
    with pytest.raises(ValueError, match="nan"):
        async with repository.experiment("one") as experiment:
            await experiment.run(f"echo $$ > {file}; echo nan; echo more; exec sleep 60", isolated=False, output=listen)

    assert heard == [b"nan\n"]
    assert ended(await pid_in(file))
    record = await repository.get("one")
    assert (record.status, record.error and record.error.type) == (aexp.Status.FAILED, "ValueError")
    assert await repository.read("one", "aexp/log.txt") == b"nan\nmore\n"


async def test_a_slow_listener_hears_everything(repository: aexp.Repository) -> None:
    """A program waits for a listener that takes its time; no line is lost when it ends long before it was heard."""
    heard = []

    def listen(_: str, line: bytes) -> None:
        heard.append(line)
        time.sleep(0.002)

    async with repository.experiment("one") as experiment:
        await experiment.run("seq 400; seq 400 >&2", isolated=False, output=listen)

    assert sorted(heard) == sorted(2 * [b"%d\n" % number for number in range(1, 401)])
    assert len(await repository.read("one", "aexp/log.txt")) == len(b"".join(heard))


async def test_much_that_is_heard_keeps_the_loop_alive(repository: aexp.Repository) -> None:
    """Two million lines are told in slices and take no memory; the loop goes on between them."""
    count, pauses, before = 0, [0.0], resident()

    def listen(_: str, line: bytes) -> None:
        nonlocal count
        count += 1

    async def watch() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - began)

    watching = asyncio.create_task(watch())
    async with repository.experiment("one") as experiment:
        await experiment.run("yes | head -c 4000000", isolated=False, output=listen)
        grown = resident() - before
    watching.cancel()

    assert count == 2_000_000
    assert grown < 30 * 2**20
    assert median(pauses) < 0.02


async def test_after_a_cancellation_nothing_is_heard(repository: aexp.Repository) -> None:
    """A listener is called while a cancelled program ends, and never afterwards."""
    heard = []
    experiment = await repository.experiment("one").init()
    command = "trap 'echo ending; exit' TERM; while :; do echo x; sleep 0.01; done"
    task = asyncio.create_task(experiment.run(command, isolated=False, output=lambda _, line: heard.append(line)))
    await until(lambda: len(heard) > 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    count = len(heard)
    await asyncio.sleep(0.2)
    await experiment.save()

    assert heard[-1] == b"ending\n"
    assert len(heard) == count
    assert b"".join(heard) == await repository.read("one", "aexp/log.txt")


async def test_a_listener_is_a_plain_function(repository: aexp.Repository, tmp_path: Path) -> None:
    """A coroutine function would never be awaited; it is refused, and nothing is run."""

    async def listen(_: str, line: bytes) -> None:
        pass

    async with repository.experiment("one") as experiment:
        with pytest.raises(TypeError, match="log_metric_nowait"):
            await experiment.run(["touch", tmp_path / "x"], isolated=False, output=listen)

    assert not (tmp_path / "x").exists()


async def test_daemons_do_not_keep_who_listens(repository: aexp.Repository, tmp_path: Path) -> None:
    """Daemons that hold the streams, or print without end, do not keep a run whose lines are heard, however slowly."""
    heard = []

    def listen(_: str, line: bytes) -> None:
        heard.append(line)
        time.sleep(0.01)

    pids = tmp_path / "pids"
    began = time.monotonic()
    async with repository.experiment("one") as experiment:
        loop = f"setsid sh -c 'echo $$ >> {pids}; while :; do echo x; sleep 0.02; done' &"
        await experiment.run(
            f"{loop} setsid sh -c 'echo $$ >> {pids}; exec sleep 60' & echo end", isolated=False, output=listen
        )

    assert b"end\n" in heard
    assert time.monotonic() - began < 45
    for pid in pids.read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


# ---- our own streams ----

SHOWING = """
    import asyncio, sys, aexp

    async def main():
        async with aexp.Repository(sys.argv[1]) as repository:
            async with repository.experiment("one") as experiment:
                await experiment.run(sys.argv[2], isolated=False, output=sys.argv[3], stdin="inherit", check=False)

    asyncio.run(main())
"""


def shower(tmp_path: Path) -> list[str]:
    """A program that runs another one with our own streams."""
    file = tmp_path / "shower.py"
    file.write_text(textwrap.dedent(SHOWING))
    return [sys.executable, str(file)]


@pytest.mark.parametrize("output", ["show", "inherit"])
async def test_what_it_prints_passes_through(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path, output: str
) -> None:
    """With `show` and `inherit` both streams come out of ours unchanged, standard input goes in; `show` keeps them, too."""
    command = [*shower(tmp_path), str(repo_path), "cat; echo oops >&2", output]
    given = os.urandom(300_000)
    done = fed(command, given)

    assert (done.stdout, done.stderr) == (given, b"oops\n")
    if output == "show":
        assert sorted(await repository.read("one", "aexp/log.txt")) == sorted(given + b"oops\n")
    else:
        with pytest.raises(FileNotFoundError):
            await repository.read("one", "aexp/log.txt")


async def test_what_it_prints_is_shown_at_once(repo_path: Path, tmp_path: Path) -> None:
    """What a Python program prints is seen while it works, though it writes into a pipe."""
    inner = f"{sys.executable} -c 'import time; print(\"now\"); time.sleep(100)'"
    command = [*shower(tmp_path), str(repo_path), inner, "show"]
    with start(command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGINT)

    assert process.returncode in (1, 130, -signal.SIGINT)


async def test_a_reader_that_goes_away_does_no_harm(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path
) -> None:
    """When nobody reads our output any more, the program goes on and its log is kept."""
    command = [*shower(tmp_path), str(repo_path), "seq 100000", "show"]
    with start(command) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()

    assert process.returncode == 0
    assert (await repository.read("one", "aexp/log.txt")).endswith(b"99999\n100000\n")


async def test_a_reader_that_never_reads_stops_the_program_but_not_us(repo_path: Path, tmp_path: Path) -> None:
    """While nobody takes what we show, the program waits; it can be cancelled nevertheless."""
    command = [*shower(tmp_path), str(repo_path), f"echo $$ > {tmp_path / 'pid'}; exec yes", "show"]
    with start(command) as process:
        pid = await pid_in(tmp_path / "pid")
        await asyncio.sleep(1)
        process.send_signal(signal.SIGINT)
        await until(lambda: ended(pid))
        assert process.stdout is not None
        process.stdout.close()

    assert process.returncode in (1, 130, -signal.SIGINT)


# ---- the terminal: what is typed before a program has it is for us, so programs wait a second ----


class Console:
    """A program in a terminal of its own, as from a shell; what it shows is collected."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            try:
                os.execvp(command[0], command)
            finally:
                os._exit(127)
        self.shown = b""

    async def sees(self, text: bytes) -> None:
        """Wait until *text* is shown."""
        loop = asyncio.get_running_loop()
        end = time.monotonic() + DEADLINE
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            with suppress(OSError):
                self.shown += await loop.run_in_executor(None, os.read, self.master, 1000)

    def types(self, text: bytes) -> None:
        """Type *text*."""
        os.write(self.master, text)

    async def end(self) -> int:
        """Wait for its end, and return the exit code."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while data := await loop.run_in_executor(None, os.read, self.master, 1000):
                self.shown += data
        _, status = await loop.run_in_executor(None, os.waitpid, self.pid, 0)
        os.close(self.master)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_a_program_has_the_terminal(repository: aexp.Repository, repo_path: Path, tmp_path: Path) -> None:
    """In a terminal the program reads what is typed, and knows that it is one; afterwards the terminal is ours again."""
    command = "test -t 0 && test -t 1 && echo terminal; read line; echo got $line"
    console = Console([*shower(tmp_path), str(repo_path), command, "inherit"])
    await console.sees(b"terminal")
    console.types(b"hello\n")
    await console.sees(b"got hello")

    assert await console.end() == 0
    assert (await repository.get("one")).status == aexp.Status.FINISHED


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_ctrl_c_is_for_the_program(repository: aexp.Repository, repo_path: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches the program and what it started, and not us: we see it end, and save."""
    console = Console([*shower(tmp_path), str(repo_path), "sleep 1; echo ready; sleep 100; echo never", "inherit"])
    await console.sees(b"ready")
    console.types(b"\x03")

    assert await console.end() == 0
    assert b"never" not in console.shown
    assert (await repository.get("one")).status == aexp.Status.FINISHED


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_ctrl_c_cancels_the_experiment(repository: aexp.Repository, repo_path: Path, tmp_path: Path) -> None:
    """A program that Ctrl-C ended was cancelled, and has not failed."""
    file = tmp_path / "checked.py"
    file.write_text(textwrap.dedent(SHOWING).replace("check=False", "check=True"))
    console = Console([sys.executable, str(file), str(repo_path), "sleep 1; echo ready; exec sleep 100", "inherit"])
    await console.sees(b"ready")
    console.types(b"\x03")

    assert await console.end() == 1
    record = await repository.get("one")
    assert record.status == aexp.Status.CANCELLED
    assert record.error is not None
    assert "SIGINT" in record.error.message


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_in_the_background_it_waits_for_the_terminal(
    repository: aexp.Repository, repo_path: Path, tmp_path: Path
) -> None:
    """A program that was started in the background and reads the terminal goes on when `fg` gives it to us."""
    inner = " ".join(shower(tmp_path)) + f" {repo_path} 'echo ready; read line; echo got $line' inherit"
    console = Console(["bash", "--norc", "-i", "-c", f"set -m; {inner} & sleep 3; echo shell; fg; echo done"])
    await console.sees(b"ready")
    await console.sees(b"shell")
    console.types(b"hello\n")
    await console.sees(b"got hello")
    await console.sees(b"done")

    await console.end()
    assert (await repository.get("one")).status == aexp.Status.FINISHED


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
async def test_ctrl_z_stops_both(repository: aexp.Repository, repo_path: Path, tmp_path: Path) -> None:
    """Ctrl-Z stops the program and us, so that the shell has its turn; `fg` lets both go on."""
    inner = (
        " ".join(shower(tmp_path)) + f" {repo_path} 'sleep 1; echo ready; sleep 1; read line; echo got $line' inherit"
    )
    console = Console(["bash", "--norc", "-i", "-c", f"set -m; {inner}; echo shell; fg; echo done"])
    await console.sees(b"ready")
    console.types(b"\x1a")
    await console.sees(b"shell")
    console.types(b"hello\n")
    await console.sees(b"got hello")
    await console.sees(b"done")

    await console.end()
    assert (await repository.get("one")).status == aexp.Status.FINISHED
