"""A fresh process of a benchmark, in the environment of one tracker: `worker.py fill|measure|die SUBJECT JOB ANSWER`."""

import asyncio
import importlib
import json
import sys
from pathlib import Path

from subjects.job import Job


def main() -> None:
    """Do the job in the current folder and write what was measured into the file ANSWER."""
    verb, subject, job, answer = sys.argv[1:]
    module = importlib.import_module(f"subjects.{subject}")
    measures = asyncio.run(getattr(module, verb)(Job(**json.loads(job), folder=Path.cwd())))
    Path(answer).write_text(json.dumps(measures))


if __name__ == "__main__":
    main()
