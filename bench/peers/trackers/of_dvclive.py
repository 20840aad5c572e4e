"""DVCLive."""

from pathlib import Path

from dvclive import Live
from trackers.of_dvc import Dvc, count_rows
from trackers.tracker import Params, Values


class DvcLive(Dvc):
    """Saves a DVC experiment when a run ends, as is its default; one run at a time."""

    many = False

    async def open(self, name: str, params: Params) -> Live:
        """Begin a run in the folder `dvclive`."""
        live = Live(str(self.folder / self.place(name)), save_dvc_exp=not self.many, exp_name=name, dvcyaml=self.yaml())
        live.log_params(dict(params))
        return live

    async def log(self, run: Live, step: int, values: Values) -> None:
        """Log a step, as in the loop that its documentation shows."""
        for name, value in values.items():
            run.log_metric(name, value)
        run.next_step()

    async def close(self, run: Live) -> None:
        """End the run."""
        run.end()

    async def kept(self, name: str) -> int:
        """Lines of the series."""
        return count_rows(self.folder / self.place(name))

    def place(self, name: str) -> str:
        """The folder of a run."""
        return name if self.many else "dvclive"

    def yaml(self) -> str | None:
        """The dvc.yaml that it keeps; many runs at once cannot share one."""
        return None if self.many else str(Path("dvc.yaml"))


class DvcLiveApart(DvcLive):
    """Runs side by side, each in a folder of its own; saving DVC experiments is off, as the work tree is shared."""

    many = True
