"""A daemon that runs experiments in several repositories until SIGTERM, and loses none: `daemon.py REPOSITORY...`."""

import contextlib
import gc
import signal
import sys

import anyio
from _playground import repositories

import aexp


async def work(repository: aexp.Repository, begun: list[str]) -> None:
    """Run experiments without end, first saving those that a killed daemon left; when cancelled, save the last."""
    print(f"{len(await repository.recover())} experiments recovered", flush=True)
    while True:
        async with repository.experiment(params={"steps": 20}) as experiment:
            begun.append(experiment.name)
            for step in range(20):
                await experiment.log_metric("progress", step / 20, step)
                await anyio.sleep(0.05)


async def main() -> None:
    """Serve every repository until SIGTERM comes, then say how much of it stands in Git."""
    gc.collect()
    gc.freeze()  # else the longest pauses of the loop are passes of the collector over all that was imported
    with repositories(sys.argv[1:], count=2) as paths, anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with contextlib.AsyncExitStack() as stack:
            begun, served = list[str](), [await stack.enter_async_context(aexp.Repository(path)) for path in paths]
            async with anyio.create_task_group() as services:
                for repository in served:
                    services.start_soon(work, repository, begun)
                await anext(signals)
                services.cancel_scope.cancel()
            saved = [record.name for repository in served for record in await repository.experiments()]
            print(f"{len(set(begun) & set(saved))} of {len(begun)} experiments saved")


if __name__ == "__main__":
    anyio.run(main)
