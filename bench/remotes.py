"""Figures of push and pull over a `git daemon` on this machine, beside `dvc exp push` and `dvc exp pull` of as many."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, compare
from scratch import folder, git, make_repository

import aexp

MANY, FEW = 1_000, 100
OURS = """
import asyncio, sys
import aexp

async def main():
    async with aexp.Repository(".") as repository:
        await getattr(repository, sys.argv[1])()

asyncio.run(main())
"""


@contextmanager
def daemon(top: Path) -> Iterator[str]:
    """`git daemon` over the repositories below `top`; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--reuseaddr", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1", f"--port={port}"]
    command = ["git", "daemon", *options, f"--base-path={top}", str(top)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.05)
            yield f"git://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)


def dvc(path: Path, *arguments: str) -> None:
    """Run `dvc` of this environment, without its analytics."""
    program = Path(sys.executable).with_name("dvc")
    environment = os.environ | {"DVC_NO_ANALYTICS": "1"}
    command = [str(program) if program.exists() else "dvc", *arguments]
    subprocess.run(command, cwd=path, env=environment, check=True, capture_output=True)


async def fill(path: Path, count: int) -> None:
    """Save `count` experiments."""
    async with aexp.Repository(path) as repository:

        async def save(number: int) -> None:
            async with repository.experiment(f"run-{number}", params={"seed": number}) as experiment:
                await experiment.log_metrics({"loss": number, "acc": -number}, 0)

        await asyncio.gather(*map(save, range(count)))


def timed(path: Path, command: Sequence[str]) -> float:
    """Seconds that a fresh process takes."""
    os.sync()
    environment = os.environ | {"PYTHONPATH": str(Path(aexp.__file__).parents[1])}
    start = time.perf_counter()
    subprocess.run(command, cwd=path, env=environment, check=True)
    return time.perf_counter() - start


def round_trip(top: Path, url: str, count: int, verbs: dict[str, Sequence[str]], name: str) -> tuple[float, float]:
    """Push from the filled repository to a bare one of its own, pull into a clone; seconds of both."""
    git(top, "clone", "--quiet", "--bare", str(top / "source"), str(top / f"{name}.git"))
    for ref in git(top / f"{name}.git", "for-each-ref", "--format=%(refname)", "refs/exps").splitlines():
        git(top / f"{name}.git", "update-ref", "-d", ref)
    git(top / "source", "remote", "set-url", "origin", f"{url}/{name}.git")
    pushed = timed(top / "source", verbs["push"])
    git(top, "clone", "--quiet", f"{url}/{name}.git", str(top / f"{name}-clone"))
    pulled = timed(top / f"{name}-clone", verbs["pull"])
    for place in (f"{name}.git", f"{name}-clone"):
        assert len(git(top / place, "for-each-ref", "refs/exps").splitlines()) == count, place
    return pushed, pulled


def measure(quick: bool) -> list[Figure]:
    """One round trip each; the start of a Python process is in both."""
    count = FEW if quick else MANY
    with folder() as top, daemon(top) as url:
        source = make_repository(top / "source")
        with_dvc = shutil.which("dvc") is not None or Path(sys.executable).with_name("dvc").exists()
        if with_dvc:
            dvc(source, "init", "--quiet")
            git(source, "commit", "--quiet", "--message=dvc")
        git(source, "remote", "add", "origin", url)
        asyncio.run(fill(source, count))
        ours = round_trip(
            top, url, count, {verb: [sys.executable, "-c", OURS, verb] for verb in ("push", "pull")}, "ours"
        )
        figures = [f"push {count:,} experiments to a git daemon", f"pull {count:,} experiments from a git daemon"]
        if not with_dvc:
            print("dvc is not installed here, so there is nothing to divide by")
            return [Figure(name, seconds, "s") for name, seconds in zip(figures, ours, strict=True)]
        program = str(Path(sys.executable).with_name("dvc"))
        verbs = {verb: [program, "exp", verb, "--quiet", "--no-cache", "origin"] for verb in ("push", "pull")}
        theirs = round_trip(top, url, count, verbs, "dvc")
        return [
            compare(name, [mine], [dvcs], "s", at_most=1.0)
            for name, mine, dvcs in zip(figures, ours, theirs, strict=True)
        ]
