"""One pipeline of four stages, eight times: experiments in private checkouts on one event loop, and the queue of DVC.

    python bench/pipelines.py [--count 8]

Both run the same stages with the same parameters, two at a time, in repositories of their own; `aexp` once more with
eight at a time. The stages do next to nothing, so what is measured is what stands around them. Needs DVC.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
from scratch import IDENTITY, folder, git

import aexp

STAGES = ("prepare", "featurize", "train", "evaluate")
PARAMS = "number: 0\n"
SCRIPT = """\
import sys

given, out, number = sys.argv[1:]
text = '{"number": %s}' % number if out == "metrics.json" else open(given).read() + number
open(out, "w").write(text)
"""
PATIENCE = 400.0


def pipeline() -> str:
    """The dvc.yaml: each stage makes a file of the one before."""
    text, before = "stages:\n", "data.txt"
    for stage in STAGES:
        last = stage == STAGES[-1]
        out = "metrics.json" if last else f"{stage}.txt"
        kind = "    metrics:\n    - metrics.json:\n        cache: false\n" if last else f"    outs: [{out}]\n"
        text += (
            f"  {stage}:\n    cmd: python step.py {before} {out} ${{number}}\n"
            f"    deps: [step.py, {before}]\n    params: [number]\n{kind}"
        )
        before = out
    return text


def make_project(path: Path) -> Path:
    """A repository with the pipeline, which has run once."""
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    for key, value in IDENTITY.items():
        git(path, "config", key, value)
    dvc(path, "init", "--quiet")
    for name, text in {"dvc.yaml": pipeline(), "params.yaml": PARAMS, "step.py": SCRIPT, "data.txt": "data\n"}.items():
        (path / name).write_text(text)
    dvc(path, "repro", "--quiet")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=start")
    return path


def dvc(path: Path, *arguments: str) -> str:
    """The output of a `dvc` command; not through a pipe, which the worker of the queue would hold open."""
    with (path.parent / "said").open("w+") as said:
        subprocess.run(["dvc", *arguments], cwd=path, check=True, stdout=said, stderr=subprocess.STDOUT)
        said.seek(0)
        return said.read()


def ours(path: Path, count: int, at_once: int) -> float:
    """Seconds that the experiments take in private checkouts."""

    async def work() -> None:
        limiter = anyio.CapacityLimiter(at_once)

        async def one(repository: aexp.Repository, number: int) -> None:
            async with limiter, repository.experiment(f"e{number}", overrides=[f"number={number}"]) as experiment:
                await experiment.run(["dvc", "repro", "--quiet"])

        async with aexp.Repository(path) as repository:
            await asyncio.gather(*(one(repository, number) for number in range(1, count + 1)))
            records = await repository.experiments()
            assert sorted(record.metrics["number"] for record in records) == list(range(1, count + 1))

    start = time.perf_counter()
    asyncio.run(work())
    return time.perf_counter() - start


def theirs(path: Path, count: int) -> float:
    """Seconds that the queue of DVC takes with two workers."""
    start = time.perf_counter()
    for number in range(1, count + 1):
        dvc(path, "exp", "run", "--quiet", "--queue", "--name", f"e{number}", "-S", f"number={number}")
    dvc(path, "queue", "start", "-j", "2")
    while time.perf_counter() - start < PATIENCE and not ended(path, count):
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    said = dvc(path, "queue", "status")
    print(f"the queue of DVC: {said.count('Success')} of {count} succeeded, {said.count('Failed')} failed")
    subprocess.run(["dvc", "queue", "stop", "--kill"], cwd=path, check=False, capture_output=True)
    return seconds


def ended(path: Path, count: int) -> bool:
    """Whether every experiment has its commit; looked up by Git, which does not keep the queue waiting."""
    lines = git(path, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return sum("/e" in name and name.split("/")[2] not in ("exec", "celery", "temp") for name in lines) >= count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=8, help="how many experiments")
    count = parser.parse_args().count
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    with folder() as path:
        os.environ["DVC_SITE_CACHE_DIR"] = str(path / "site")
        two = ours(make_project(path / "two"), count, 2)
        queue = theirs(make_project(path / "queue"), count)
        eight = ours(make_project(path / "eight"), count, count)
    print(f"aexp, two at a time:   {two:6.1f} s, {queue / two:.1f} times as fast as the queue")
    print(f"aexp, all at a time:   {eight:6.1f} s, {queue / eight:.1f} times as fast as the queue")
    print(f"dvc queue start -j 2:  {queue:6.1f} s")


if __name__ == "__main__":
    main()
