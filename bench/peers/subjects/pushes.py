"""Pushing all experiments to a bare repository on the same disk."""

import subprocess
import tempfile

from subjects.job import Case, Job, Measures, timed
from subjects.lists import fill

__all__ = ["COPIES", "cases", "fill", "left_out", "measure"]

COPIES = True
SLOW = {"dvc": (1_000, "takes minutes")}


def cases(quick: bool) -> list[Case]:
    """How many there are."""
    return [{"existing": existing} for existing in ([10] if quick else [10, 100, 1_000, 10_000])]


def left_out(peer: str, case: Case) -> str | None:
    """Why this is not measured; the others have no remotes of Git."""
    if peer not in {"aexp", "dvc"}:
        return ""
    most, reason = SLOW.get(peer, (case["existing"], ""))
    return reason if case["existing"] > most else None


async def measure(job: Job) -> Measures:
    """The remote has the baseline only."""
    with tempfile.TemporaryDirectory(dir=job.folder.parent) as remote:
        subprocess.run(["git", "init", "--quiet", "--bare", remote], check=True)
        subprocess.run(["git", "remote", "add", "origin", remote], check=True)
        subprocess.run(["git", "push", "--quiet", "origin", "HEAD"], check=True)
        async with job.tracker() as tracker:
            seconds = await timed(tracker.push("origin"))
        command = ["git", "-C", remote, "for-each-ref", "--format=x", "refs/exps"]
        there = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert len(there.split()) == job.case["existing"], len(there.split())
        return {"push_ms": seconds * 1000}
