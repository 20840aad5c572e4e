"""No tracker: a loop that writes lines of JSON, a file for each run."""

import json
import os
from typing import TextIO

from trackers.tracker import Params, Tracker, Values


class Plain(Tracker):
    """What people write who want no tracker; it syncs when a run ends."""

    async def open(self, name: str, params: Params) -> TextIO:
        """A file."""
        file = (self.folder / f"{name}.jsonl").open("w")
        file.write(json.dumps({"params": dict(params)}) + "\n")
        return file

    async def log(self, run: TextIO, step: int, values: Values) -> None:
        """A line for each point, as the journal of aexp has a value for each."""
        run.writelines(
            json.dumps({"name": name, "step": step, "value": value}) + "\n" for name, value in values.items()
        )

    async def close(self, run: TextIO) -> None:
        """Sync and close."""
        run.flush()
        os.fsync(run.fileno())
        run.close()

    async def count(self) -> int:
        """Read every file whole: nobody keeps the last values."""
        found = []
        for path in self.folder.glob("*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found.append((lines[0], {line["name"]: line["value"] for line in lines[1:]}))
        return len(found)

    async def kept(self, name: str) -> int:
        """Whole lines after the first one."""
        text = (self.folder / f"{name}.jsonl").read_text()
        return max(0, text.count("\n") - 1)
