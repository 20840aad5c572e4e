"""Figures of durable saves, alone and in groups, in a repository of 5,000 files, beside the bare sequence."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from pathlib import Path
from unittest import mock

import pygit2
from bare import FOLDER, BareRepository
from figures import Figure, compare
from scratch import copy_repository, folder, git, make_repository

import aexp

FILES, GROUP = 5_000, 100
Batch = Mapping[str, Mapping[str, bytes]]
Work = Callable[[], Awaitable[None]]


def files_of(path: Path, rev: str) -> dict[str, bytes]:
    """The files that an experiment of ours put below `aexp/`: what the bare sequence is given."""
    files = dict[str, bytes]()

    def collect(tree: pygit2.Object, prefix: str) -> None:
        assert isinstance(tree, pygit2.Tree)
        for entry in tree:
            if isinstance(entry, pygit2.Blob):
                files[f"{prefix}{entry.name}"] = entry.data
            else:
                collect(entry, f"{prefix}{entry.name}/")

    commit = pygit2.Repository(str(path))[rev]
    assert isinstance(commit, pygit2.Commit)
    collect(commit.tree / FOLDER, "")
    return files


class Contest:
    """Ours and the bare sequence, each in its own copy of one repository, saving experiments of the same shape."""

    def __init__(self, repository: aexp.Repository, bare: BareRepository) -> None:
        self.repository = repository
        self.bare = bare
        self.seeds = count(100_000_000)
        self.template: tuple[str, Mapping[str, bytes]] = "", {}

    async def prepare(self, path: Path) -> None:
        """Save one experiment of ours; what it wrote is the pattern for the bare sequence."""
        experiment = await self.started()
        await experiment.save()
        assert experiment.record is not None
        self.template = str(experiment.params["seed"]), files_of(path, experiment.record.rev)

    async def started(self) -> aexp.Experiment:
        """An experiment that has logged a few points; its seed stands in every file it will save."""
        seed = next(self.seeds)
        experiment = await self.repository.experiment(f"run-{seed}", params={"lr": 0.1, "seed": seed}).init()
        for step in range(5):
            await experiment.log_metrics({"loss": seed + step / 4, "acc": seed - step / 4}, step)
        return experiment

    def contents(self, size: int) -> Batch:
        """The ready contents of `size` experiments, no two alike."""
        pattern, files = self.template
        batch = {}
        for seed in (str(next(self.seeds)) for _ in range(size)):
            batch[f"run-{seed}"] = {
                path: content.replace(pattern.encode(), seed.encode()) for path, content in files.items()
            }
        return batch

    async def ours(self, size: int) -> Work:
        """The saves of `size` experiments that wait for them."""
        group = [await self.started() for _ in range(size)]
        await group[0].flush()

        async def work() -> None:
            await asyncio.gather(*(experiment.save() for experiment in group))

        return work

    async def theirs(self, size: int, *, sync_refs: bool = True) -> Work:
        """The bare sequence for a group of `size`."""
        batch = self.contents(size)

        async def work() -> None:
            self.bare.save(batch, sync_refs=sync_refs)

        return work


async def timed(work: Work) -> float:
    """Seconds that `work` takes, on a disk that has nothing else to write."""
    await asyncio.to_thread(os.sync)
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


async def counted(work: Work) -> int:
    """How often this process calls fsync or fdatasync during `work`."""
    calls: list[int] = []

    def counting(sync: Callable[[int], None]) -> Callable[[int], None]:
        def sync_counted(descriptor: int) -> None:
            calls.append(descriptor)
            sync(descriptor)

        return sync_counted

    with mock.patch.multiple(os, fsync=counting(os.fsync), fdatasync=counting(os.fdatasync)):
        await work()
    return len(calls)


async def contend(path: Path, bare: BareRepository, *, rounds: int, singles: int) -> list[Figure]:
    """Groups and single saves, by turns."""
    async with aexp.Repository(path) as repository:
        contest = Contest(repository, bare)
        await contest.prepare(path)
        await (await contest.ours(GROUP))()
        await (await contest.theirs(GROUP))()
        return [
            *await groups(contest, rounds),
            await alone(contest, singles),
            *[await syncs(contest, size) for size in (1, GROUP)],
        ]


async def groups(contest: Contest, rounds: int) -> list[Figure]:
    """Groups of 100, by turns; the second figure tells what the syncs of the refs cost."""
    seconds: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        ours = await timed(await contest.ours(GROUP))
        theirs = await timed(await contest.theirs(GROUP))
        seconds.append((ours, theirs, await timed(await contest.theirs(GROUP, sync_refs=False))))
    mine, theirs_synced, theirs_relaxed = ([GROUP / each for each in side] for side in zip(*seconds, strict=True))
    return [
        compare(f"durable saves in groups of {GROUP}, {FILES:,} files", mine, theirs_synced, "/s", at_least=0.8),
        compare("the same, beside a bare loop that syncs no ref", mine, theirs_relaxed, "/s"),
    ]


async def alone(contest: Contest, rounds: int) -> Figure:
    """One save, by turns."""
    seconds = [(await timed(await contest.ours(1)), await timed(await contest.theirs(1))) for _ in range(rounds)]
    mine, theirs = ([each * 1000 for each in side] for side in zip(*seconds, strict=True))
    return compare("one durable save", mine, theirs, "ms", at_most=2.5)


async def syncs(contest: Contest, size: int) -> Figure:
    """How often each side syncs for one group: what the ratios do not say."""
    ours, theirs = await counted(await contest.ours(size)), await counted(await contest.theirs(size))
    return Figure(f"calls of fsync and fdatasync for a group of {size}", ours, "", theirs)


def check(path: Path, bare_path: Path) -> None:
    """Raise if one side did not do its work."""
    for place in (path, bare_path):
        git(place, "fsck", "--strict", "--no-dangling")
        assert len(git(place, "for-each-ref", "refs/exps").splitlines()) >= GROUP


def measure(quick: bool) -> list[Figure]:
    """Ten groups of 100 and thirty single saves on each side."""
    with folder() as path:
        source = make_repository(path / "ours", FILES)
        copy = copy_repository(source, path / "bare")
        figures = asyncio.run(
            contend(source, BareRepository(copy), rounds=3 if quick else 10, singles=10 if quick else 30)
        )
        check(source, copy)
        return figures
