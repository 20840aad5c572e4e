"""DVC, and DVCLive on top of it."""

import json
import shutil
from pathlib import Path

import dvc.api
from dvc.repo import Repo
from trackers.tracker import Params, Tracker, Values


class Dvc(Tracker):
    """`dvc.api`: parameters and metrics are files of the work tree, so one run is open at a time."""

    async def open(self, name: str, params: Params) -> tuple[str, dict[str, float]]:
        """Write the parameters."""
        (self.folder / "params.yaml").write_text("".join(f"{key}: {value}\n" for key, value in params.items()))
        return name, {}

    async def log(self, run: tuple[str, dict[str, float]], step: int, values: Values) -> None:
        """Keep the last values; DVC alone has no series."""
        run[1].update(values)

    async def close(self, run: tuple[str, dict[str, float]]) -> None:
        """Write the metrics and save; by default, DVC syncs nothing."""
        (self.folder / "metrics.json").write_text(json.dumps(run[1]))
        dvc.api.exp_save(name=run[0])

    async def count(self) -> int:
        """Rows with the name of an experiment."""
        return sum(row["Experiment"] is not None for row in dvc.api.exp_show(repo=str(self.folder)))

    def forget(self) -> None:
        """Remove the cache of rows."""
        shutil.rmtree(self.folder / ".dvc" / "tmp" / "exps" / "cache", ignore_errors=True)

    async def push(self, remote: str) -> None:
        """Push in this process, without data."""
        with Repo(str(self.folder)) as repo:
            repo.experiments.push(remote, rev="HEAD", push_cache=False)


def count_rows(folder: Path) -> int:
    """The points in all series of a run of DVCLive: lines below a head."""
    return sum(path.read_text().count("\n") - 1 for path in folder.glob("plots/metrics/**/*.tsv"))
