"""What other processes do in tests: stories told to a pipe, line by line, by a process that may be killed at any line.

`python _driver.py` reads orders (JSON, one a line) and tells each story in a fork of itself: what a story needs is
imported once. With `killer.c` preloaded, an order says at which file operation the fork gets a signal.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import importlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import aexp

Say = Callable[..., None]
PATIENT = aexp.Settings(close_timeout=1.0)
CHANGES, OPENS, READS, GROWS = 1, 2, 4, 8
KINDS = {errno.EIO: CHANGES | READS, errno.ENOSPC: GROWS, errno.EMFILE: OPENS, errno.EROFS: CHANGES}
"""The kinds of operations that can fail so, as `killer.c` calls them."""
ELSEWHERE = ("disk", "file system")
"""What `diagnose()` says of the machine, and not of the repository."""


async def log(experiment: aexp.Experiment, first: int, after: int, say: Say, *, flush_every: int = 4) -> None:
    """Log the points `first` to `after` - 1, whose value is their step; say `F name count` when they are flushed."""
    for step in range(first, after):
        await experiment.log_metric("loss", float(step), step)
        if step % flush_every == flush_every - 1:
            await experiment.flush()
            say("F", experiment.name, step + 1)


async def save(path: str, say: Say) -> None:
    """Begin two experiments, make a checkpoint of one, and save both together."""
    async with aexp.Repository(path) as repository:
        one = await repository.experiment("one", params={"lr": 0.1}).init()
        await log(one, 0, 6, say)
        say("C", "one", await one.make_checkpoint())
        two = await repository.experiment("two").init()
        await two.log_file("notes.txt", "as it was\n")
        await log(two, 0, 4, say)
        await one.set_params(depth=4)
        await log(one, 6, 10, say)
        for record in await asyncio.gather(one.save(), two.save()):
            say("S", record.name, record.rev)


async def discard(path: str, say: Say) -> None:
    """Begin an experiment, make a checkpoint, and give it up."""
    async with aexp.Repository(path) as repository:
        one = await repository.experiment("one").init()
        await log(one, 0, 4, say)
        say("C", "one", await one.make_checkpoint())
        await log(one, 4, 8, say)
        say("discarding")
        await one.discard()
        say("D", "one")


async def resume(path: str, say: Say) -> None:
    """Go on with an experiment of a dead process, and save it."""
    async with aexp.Repository(path) as repository:
        one = await repository.resume("one")
        say("R", "one", len(one.summary))
        await log(one, 12, 20, say)
        record = await one.save()
        say("S", record.name, record.rev)


async def recover(path: str, say: Say) -> None:
    """Save what dead processes left."""
    async with aexp.Repository(path) as repository:
        for record in await repository.recover():
            say("S", record.name, record.rev)


async def look(path: str, say: Say) -> None:
    """Recover twice; tell every record with its series, and what the second time saved."""
    async with aexp.Repository(path) as repository:
        first = await repository.recover()
        again = await repository.recover()
        say("again", [record.name for record in again], [record.name for record in await repository.interrupted()])
        for record in await repository.experiments():
            series = await repository.history(record.name)
            values = series["loss"].values if series else ()
            steps = series["loss"].steps if series else ()
            say("record", record.name, record.rev, record.id, record.status, record.params, list(steps), list(values))
            with suppress(FileNotFoundError):
                say("file", record.name, (await repository.read(record.name, "notes.txt")).decode())
        say("recovered", [record.name for record in first])
        for found in await repository.diagnose():
            if found.level in ("warning", "error") and found.subject not in ELSEWHERE:
                say("bad", found.subject, found.level, found.text)


async def two(path: str, say: Say) -> None:
    """Begin, log and save an experiment called `two`; say why when that cannot be."""
    async with aexp.Repository(path) as repository:
        try:
            experiment = await repository.experiment("two").init()
            await log(experiment, 0, 4, say)
            record = await experiment.save()
            say("S", record.name, record.rev)
        except aexp.AexpError as error:
            say("E", type(error).__name__, str(error))


async def crash(path: str, say: Say) -> None:
    """Leave an experiment of 12 points with a checkpoint, then die."""
    async with aexp.Repository(path) as repository:
        one = await repository.experiment("one", params={"lr": 0.1}).init()
        await log(one, 0, 6, say)
        say("C", "one", await one.make_checkpoint())
        await log(one, 6, 12, say)
        os.kill(os.getpid(), signal.SIGKILL)


async def rename(path: str, say: Say) -> None:
    """Give a saved experiment another name."""
    async with aexp.Repository(path) as repository:
        say("changed", (await repository.rename("one", "new")).rev)


async def remove(path: str, say: Say) -> None:
    """Remove two saved experiments together."""
    async with aexp.Repository(path) as repository:
        say("changed", [record.rev for record in await repository.remove("one", "two")])


async def restore(path: str, say: Say) -> None:
    """Bring back a removed experiment."""
    async with aexp.Repository(path) as repository:
        say("changed", (await repository.restore("one")).rev)


async def maintain(path: str, say: Say) -> None:
    """Sweep what dead processes left, and empty the trash."""
    async with aexp.Repository(path) as repository:
        done = await repository.maintain()
        say("swept", done.retired, done.swept, done.trash, done.failures)


async def upkeep(path: str, say: Say) -> None:
    """Look and sweep, whatever state the repository is in."""
    async with aexp.Repository(path) as repository:
        await repository.diagnose()
        say("upkeep", (await repository.maintain()).failures)


async def log_joined(experiment: aexp.Experiment, first: int, after: int, say: Say) -> None:
    """Log as a program does that the experiment has started, and that ends afterwards."""
    os.environ.update(experiment.variables())
    async with aexp.init() as joined:
        await log(joined, first, after, say)


async def join(path: str, say: Say) -> None:
    """Begin an experiment, let a program join it, and save it."""
    async with aexp.Repository(path) as repository:
        one = await repository.experiment("one").init()
        await log(one, 0, 4, say)
        await log_joined(one, 4, 8, say)
        await log(one, 8, 10, say)
        record = await one.save()
        say("S", record.name, record.rev)


async def crash_joined(path: str, say: Say) -> None:
    """Leave an experiment of 12 points, of which a program logged six that joined it; then die before they are taken in."""
    async with aexp.Repository(path) as repository:
        one = await repository.experiment("one", params={"lr": 0.1}).init()
        await log(one, 0, 6, say)
        await log_joined(one, 6, 12, say)
        await one.flush()
        os.kill(os.getpid(), signal.SIGKILL)


async def checkout(path: str, say: Say) -> None:
    """Let programs work in private checkouts: one that is made, the same again, and one that a program runs in alone."""
    async with aexp.Repository(path) as repository:
        one = await repository.experiment("one", overrides=["train.lr=0.5"], outs=["out"]).init()
        await one.log_file("notes.txt", "as it was\n")
        await log(one, 0, 4, say)
        async with one.workspace() as place:
            (place / "made.txt").write_text("made\n")
            (place / "README.md").unlink()
            await one.run("mkdir out; echo 1 > out/a; mkfifo pipe; ln -s / root; git add made.txt")
        await one.flush()
        say("taken", "made.txt", "out/a")
        await one.run("cat made.txt notes.txt params.yaml > both.txt")
        await log(one, 4, 8, say)
        record = await one.save()
        say("taken", "both.txt")
        say("S", record.name, record.rev)
        async with repository.experiment("two") as two:
            await two.run("cat train.py > copy.py")
            await two.log_metric("loss", 0.0, 0)
        assert two.record is not None
        say("S", "two", two.record.rev)


async def visit(path: str, say: Say) -> None:
    """Recover, tell the files of `one`, and what a program finds in a checkout now; then tell which checkouts are there."""
    async with aexp.Repository(path) as repository:
        await repository.recover()
        for name in ("made.txt", "out/a", "both.txt"):
            with suppress(aexp.ExperimentNotFound, FileNotFoundError):
                say("kept", name, (await repository.read("one", name)).decode())
        experiment = await repository.experiment("visit").init()
        done = await experiment.run("git status --porcelain; git rev-parse HEAD; git diff HEAD; ls -A", check=False)
        say("found", done.returncode, done.stdout.decode(), done.stderr.decode())
        await experiment.discard()
        swept = await repository.maintain()
        say("swept", swept.failures)


async def apply(path: str, say: Say) -> None:
    """Bring the experiment `one` into the work tree, whatever is there."""
    async with aexp.Repository(path) as repository:
        say("A", (await repository.apply("one", force=True)).written)


async def undo(path: str, say: Say) -> None:
    """Take back what was applied last; say so when nothing was."""
    async with aexp.Repository(path) as repository:
        try:
            say("U", (await repository.undo_apply()).restored)
        except aexp.NothingApplied:
            say("nothing")


async def again(path: str, say: Say) -> None:
    """Apply once more; say why when that cannot be."""
    async with aexp.Repository(path) as repository:
        try:
            say("A", (await repository.apply("one", force=True)).written)
        except aexp.AexpError as error:
            say("E", type(error).__name__, str(error))


async def table(path: str, say: Say) -> None:
    """Tell how `dvc exp show --json` ends, and what it says of each experiment."""
    os.chdir(path)
    out = io.StringIO()
    main, ui = importlib.import_module("dvc.cli").main, importlib.import_module("dvc.ui").ui
    ui.__dict__.pop("rich_console", None)  # it holds the stream that it was made for
    with contextlib.redirect_stdout(out):
        code = main(["exp", "show", "--json", "--all-commits"])
    rows = [
        (one["revs"][0].get("name"), one["revs"][0]["rev"], (one["revs"][0].get("data") or {}).get("metrics"))
        for state in json.loads(out.getvalue())
        for one in state["experiments"] or ()
    ]
    say("table", code, rows)


# ---- on a disk that refuses ----


async def attempt(say: Say, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Make a call; when it fails, say why, mend the disk, and make it again: that must work."""
    try:
        return await call()
    except aexp.AexpError as error:
        say("E", getattr(call, "__name__", "a call"), type(error).__name__, str(error), getattr(error, "errno", None))
        ctypes.CDLL(None).killer_heal()
        return await call()


async def life(path: str, say: Say) -> None:
    """What `save` does, call by call."""
    repository = aexp.Repository(path, settings=PATIENT)
    await attempt(say, repository.open)
    one = repository.experiment("one", params={"lr": 0.1})
    await attempt(say, one.init)
    for step in range(6):
        await one.log_metric("loss", float(step), step)
    await attempt(say, one.flush)
    say("F", "one", 6)
    say("C", "one", await attempt(say, one.make_checkpoint))
    two = repository.experiment("two")
    await attempt(say, two.init)
    await two.log_file("notes.txt", "as it was\n")
    for step in range(4):
        await two.log_metric("loss", float(step), step)
    await attempt(say, two.flush)
    say("F", "two", 4)
    for step in range(6, 10):
        await one.log_metric("loss", float(step), step)
    record = await attempt(say, one.save)
    say("S", record.name, record.rev)
    record = await attempt(say, two.save)
    say("S", record.name, record.rev)
    await attempt(say, repository.experiments)
    await attempt(say, repository.aclose)


async def ends(path: str, say: Say) -> None:
    """What becomes of experiments that are not saved by who began them: one is given up, one recovered and listed."""
    repository = aexp.Repository(path, settings=PATIENT)
    await attempt(say, repository.open)
    (left,) = await attempt(say, repository.interrupted)
    one = await attempt(say, partial(repository.resume, left.id))
    say("discarding")
    await attempt(say, one.discard)
    one = await attempt(say, partial(repository.resume, "one"))
    await one.log_metric("loss", 12.0, 12)
    await attempt(say, one.make_checkpoint)
    await attempt(say, one.discard)
    one = await attempt(say, partial(repository.resume, "one"))
    await attempt(say, one.flush)
    say("F", "one", 13)
    await attempt(say, repository.aclose)
    repository = aexp.Repository(path, settings=PATIENT)
    await attempt(say, repository.open)
    await attempt(say, repository.recover)
    (record,) = await attempt(say, repository.experiments)
    say("S", record.name, record.rev)
    await attempt(say, repository.aclose)


async def changes(path: str, say: Say) -> None:
    """Change what is saved, and back: both are again where they were."""
    repository = aexp.Repository(path, settings=PATIENT)
    await attempt(say, repository.open)
    await attempt(say, partial(repository.rename, "one", "new"))
    await attempt(say, partial(repository.remove, "new", "two"))
    await attempt(say, partial(repository.restore, "two"))
    await attempt(say, partial(repository.restore, "new"))
    await attempt(say, partial(repository.rename, "new", "one"))
    await attempt(say, repository.maintain)
    for record in await attempt(say, repository.experiments):
        say("S", record.name, record.rev)
        await attempt(say, partial(repository.history, record.name))
    await attempt(say, repository.aclose)


async def data(path: str, say: Say) -> None:
    """Keep data, save it, and push all to another folder."""
    repository = aexp.Repository(path, settings=PATIENT)
    await attempt(say, repository.open)
    one = repository.experiment("one")
    await attempt(say, one.init)
    await attempt(say, partial(one.log_artifact, "model"))
    for step in range(3):
        await one.log_metric("loss", float(step), step)
    record = await attempt(say, one.save)
    say("F", "one", 3)
    say("S", record.name, record.rev)
    await attempt(say, repository.push)
    await attempt(say, repository.aclose)


async def bring(path: str, say: Say) -> None:
    """Apply, and take it back."""
    repository = aexp.Repository(path, settings=PATIENT)
    await attempt(say, repository.open)

    async def apply() -> None:
        try:
            await repository.apply("one", force=True)
        except aexp.ApplyPending:
            await repository.undo_apply()
            await repository.apply("one", force=True)

    await attempt(say, apply)
    await attempt(say, repository.undo_apply)
    await attempt(say, repository.aclose)


STORIES: dict[str, Callable[[str, Say], Coroutine[Any, Any, None]]] = {
    story.__name__: story
    for story in (
        save,
        discard,
        resume,
        recover,
        look,
        table,
        two,
        crash,
        join,
        crash_joined,
        checkout,
        visit,
        apply,
        undo,
        again,
        rename,
        remove,
        restore,
        maintain,
        upkeep,
        life,
        ends,
        changes,
        data,
        bring,
    )
}


def tell(order: dict[str, Any], pipe: int) -> None:
    """Tell a story of the fork that this is; arm the killer first."""

    def say(*words: object) -> None:
        os.write(pipe, json.dumps(words).encode() + b"\n")

    killer = ctypes.CDLL(None) if "at" in order else None
    if killer is not None:
        arm(killer, order)
    asyncio.run(told(STORIES[order["story"]](order["path"], say), say))
    say("end", 0 if killer is None else killer.killer_count())
    gc.collect()  # errors, also those that a recovery meets and mends, and what they were raised from hold each other
    say("left", *left(order["path"]))


async def told(story: Coroutine[Any, Any, None], say: Say) -> None:
    """Tell a story, and what nobody else hears: what tasks raise that nobody waits for."""
    asyncio.get_running_loop().set_exception_handler(lambda _, about: say("unheard", str(about)))
    await story


def arm(killer: ctypes.CDLL, order: dict[str, Any]) -> None:
    """Have the fault come about that *order* says."""
    only, at = order.get("only", "").encode(), ctypes.c_long(order["at"])
    number = order.get("signal", signal.SIGKILL)
    below = os.path.join(order["path"], order.get("below", ".git")).rstrip("/")
    killer.killer_arm(os.fsencode(below), only, at, order.get("half", 0), number)
    if "fail" in order:
        killer.killer_fail(order["fail"], order["forever"], KINDS[order["fail"]])
    if "cut" in order:
        place, flags = order["cut"]
        killer.killer_cut(os.fsencode(place), flags)


def left(path: str) -> tuple[list[str], list[str], list[str]]:
    """The threads of ours, the descriptors below *path*, and the processes that are still there."""
    end = time.monotonic() + 2
    while True:
        threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("aexp")]
        files = []
        for each in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # that of the listing itself
                files.append(os.readlink(f"/proc/self/fd/{each}"))
        files = [name for name in files if name.startswith(f"{path}/")]
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
            processes = children.read().split()
        if not (threads or files or processes) or time.monotonic() > end:
            return threads, files, processes
        time.sleep(0.01)


def main() -> None:
    """Take orders until there are no more; answer each with what was said, and how the fork ended."""
    os.environ.pop("LD_PRELOAD", None)
    if "dvc" in sys.argv:  # half a second that no fork has to spend
        for name in ("dvc.cli", "dvc.commands.experiments.show", "dvc.repo.experiments.show", "dvc.ui"):
            importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                tell(order, writer)
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        print(json.dumps([code, [json.loads(each) for each in said.splitlines()]]), flush=True)


if __name__ == "__main__":
    time.tzset()
    main()
