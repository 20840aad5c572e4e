"""MLflow, with its default store: one SQLite file."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self

import mlflow
from mlflow.entities import Metric, Param
from trackers.tracker import Params, Rows, Tracker, Values

BATCH = 1_000


class Mlflow(Tracker):
    """The client, which can hold many runs open; a call for each step."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        self.client = mlflow.MlflowClient()
        self.experiment = ""

    async def __aenter__(self) -> Self:
        """Make the experiment that holds the runs."""
        found = self.client.get_experiment_by_name("bench")
        self.experiment = found.experiment_id if found else self.client.create_experiment("bench")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held."""

    async def open(self, name: str, params: Params) -> str:
        """Create a run."""
        run = self.client.create_run(self.experiment, run_name=name).info.run_id
        self.client.log_batch(run, params=[Param(key, str(value)) for key, value in params.items()])
        return run

    async def log(self, run: str, step: int, values: Values) -> None:
        """What `mlflow.log_metrics` does."""
        now = int(time.time() * 1000)
        self.client.log_batch(run, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    async def close(self, run: str) -> None:
        """End the run."""
        self.client.set_terminated(run)

    async def count(self) -> int:
        """All pages of `search_runs`."""
        found, token = 0, None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1_000, page_token=token)
            found, token = found + len(page), page.token
            if not token:
                return found

    async def kept(self, name: str) -> int:
        """The history of the one run."""
        (run,) = self.client.search_runs([self.experiment])
        return sum(len(self.client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics)


class MlflowBatches(Mlflow):
    """The same, with the caller gathering 1,000 points for each call: the fastest way there is."""

    async def log_all(self, run: str, rows: Rows) -> None:
        """A call for every 1,000 points."""
        now = int(time.time() * 1000)
        points = [Metric(name, value, now, step) for step, values in rows for name, value in values.items()]
        for first in range(0, len(points), BATCH):
            self.client.log_batch(run, metrics=points[first : first + BATCH])
