"""Weights & Biases, offline."""

import struct
from collections.abc import Iterator
from pathlib import Path

import wandb
from trackers.tracker import Params, Tracker, Values
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER, START = 32_768, 7, 7


class Wandb(Tracker):
    """Runs that are synced some other day; its service is a process beside ours."""

    async def open(self, name: str, params: Params) -> wandb.Run:
        """Begin a run that is not the only one."""
        return wandb.init(
            project="bench", name=name, config=dict(params), dir=self.folder, mode="offline", reinit="create_new"
        )

    async def log(self, run: wandb.Run, step: int, values: Values) -> None:
        """Log a step."""
        run.log(dict(values), step=step)

    async def close(self, run: wandb.Run) -> None:
        """End the run."""
        run.finish()

    async def kept(self, name: str) -> int:
        """Rows of history in the one file: all but the newest of a killed run, whose step was never closed."""
        (path,) = self.folder.glob("wandb/offline-run-*/*.wandb")
        return sum(record.WhichOneof("record_type") == "history" for record in records(path))


def records(path: Path) -> Iterator[Record]:
    """The records of an offline run: a log in the format of LevelDB, of which a killed process may leave a part."""
    content, place, joined = path.read_bytes(), START, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        joined += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4) and place <= len(content):  # a whole one, or the last part of one
            yield Record.FromString(joined)
        if kind in (1, 4):
            joined = b""
        if kind == 0:
            return
