"""An evaluation: 500 items scored concurrently, 32 in flight, into one experiment that keeps every answer."""

import json
import random
import sys
from pathlib import Path

import anyio
from _playground import repositories

import aexp


async def score(item: int) -> float:
    """Stands for the model that is evaluated; its answers come out of order."""
    await anyio.sleep(random.uniform(0.001, 0.02))
    return item * 37 % 100 / 100


async def evaluate(path: Path, items: int = 500, in_flight: int = 32) -> aexp.Record | None:
    """Score every item, log each score under the item's number, and save the answers beside the scores."""
    limiter, scores = anyio.CapacityLimiter(in_flight), dict[int, float]()
    async with aexp.Repository(path) as repository, repository.experiment(params={"items": items}) as experiment:

        async def evaluate_one(item: int) -> None:
            async with limiter:
                scores[item] = await score(item)
            await experiment.log_metric("score", scores[item], step=item)

        async with anyio.create_task_group() as tasks:
            for item in range(items):
                tasks.start_soon(evaluate_one, item)
        await experiment.log_file("answers.json", json.dumps(scores, sort_keys=True, indent=1))
    return experiment.record


if __name__ == "__main__":
    with repositories(sys.argv[1:]) as paths:
        print(anyio.run(evaluate, paths[0]))
