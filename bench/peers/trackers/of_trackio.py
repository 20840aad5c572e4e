"""trackio, local: one SQLite file for each project."""

import contextlib
import os

import trackio
from trackers.tracker import Params, Tracker, Values
from trackio.sqlite_storage import SQLiteStorage

PROJECT = "bench"


class Trackio(Tracker):
    """Runs of one project; `TRACKIO_DIR` says where."""

    async def open(self, name: str, params: Params) -> trackio.Run:
        """Begin a run, and do not print how to look at it."""
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            return trackio.init(PROJECT, name=name, config=dict(params), embed=False)

    async def log(self, run: trackio.Run, step: int, values: Values) -> None:
        """Log a step."""
        run.log(dict(values), step=step)

    async def close(self, run: trackio.Run) -> None:
        """End the run: its thread writes what is left."""
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            run.finish()

    async def count(self) -> int:
        """Every run with its config and its values, as its dashboard reads them."""
        found = [
            (run.config, SQLiteStorage.get_logs(PROJECT, run.name, run_id=run.id))
            for run in trackio.Api().runs(PROJECT)
        ]
        return len(found)

    async def kept(self, name: str) -> int:
        """Rows of the run, none if there is no file yet."""
        return len(SQLiteStorage.get_logs(PROJECT, name))
