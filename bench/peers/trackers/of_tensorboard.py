"""The files of TensorBoard, written by tensorboardX and read by TensorBoard."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter
from trackers.tracker import Params, Tracker, Values


class TensorBoard(Tracker):
    """A folder, two threads and three descriptors for each run; parameters are a text."""

    async def open(self, name: str, params: Params) -> SummaryWriter:
        """Begin a run."""
        writer = SummaryWriter(str(self.folder / "runs" / name))
        writer.add_text("params", str(dict(params)))
        return writer

    async def log(self, run: SummaryWriter, step: int, values: Values) -> None:
        """A call for each value."""
        for name, value in values.items():
            run.add_scalar(name, value, step)

    async def close(self, run: SummaryWriter) -> None:
        """Flush and close."""
        run.close()

    async def count(self) -> int:
        """Every run read whole: the files have no summary."""
        found = []
        for path in (self.folder / "runs").iterdir():
            events = self.read(path.name)
            found.append({tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]})
        return len(found)

    async def kept(self, name: str) -> int:
        """Scalars of the run."""
        events = self.read(name)
        return sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"])

    def read(self, name: str) -> EventAccumulator:
        """The events of a run, all of them."""
        events = EventAccumulator(str(self.folder / "runs" / name), size_guidance={"scalars": 0})
        events.Reload()
        return events
