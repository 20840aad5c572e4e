"""The file of results: what was measured, when, with which versions."""

import hashlib
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

FILE = Path(__file__).parents[1] / "peers.json"


@frozen
class Result:
    """All rounds of one peer in one case; or the reason why there are none."""

    subject: str
    case: Mapping[str, int]
    peer: str
    rounds: tuple[Mapping[str, float], ...] = ()
    left_out: str = ""

    def median(self, measure: str) -> float | None:
        """The median over the rounds; None if it was not measured."""
        values = [each[measure] for each in self.rounds if measure in each]
        return statistics.median(values) if values else None


@define
class Stored:
    """Everything that was measured so far; a subject that is measured again replaces what was there of it."""

    machine: dict[str, Any] = field(factory=dict)
    versions: dict[str, str] = field(factory=dict)
    dates: dict[str, str] = field(factory=dict)
    results: list[Result] = field(factory=list)

    @classmethod
    def read(cls, path: Path) -> "Stored":
        """What the file holds; nothing if there is none."""
        if not path.exists():
            return cls()
        content = json.loads(path.read_text())
        results = [Result(**{**each, "rounds": tuple(each["rounds"])}) for each in content.pop("results")]
        return cls(**content, results=results)

    def write(self, path: Path) -> None:
        """A line for each result."""
        head = {"machine": self.machine, "versions": dict(sorted(self.versions.items())), "dates": self.dates}
        lines = ",\n  ".join(json.dumps(_plain(each)) for each in self.results)
        path.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "results": [\n  {lines}\n ]\n}}\n')

    def put(self, result: Result) -> None:
        """Put a result in the place of an older one, or at the end."""
        key = (result.subject, dict(result.case), result.peer)
        for place, old in enumerate(self.results):
            if (old.subject, dict(old.case), old.peer) == key:
                self.results[place] = result
                return
        self.results.append(result)

    def find(self, subject: str, case: Mapping[str, int], peer: str) -> Result | None:
        """The one result."""
        for each in self.results:
            if (each.subject, dict(each.case), each.peer) == (subject, dict(case), peer):
                return each
        return None

    def digest(self) -> str:
        """What identifies the results, so that the plot can tell which ones it shows."""
        return hashlib.sha256(json.dumps([_plain(each) for each in self.results]).encode()).hexdigest()

    def cases(self, subject: str) -> list[dict[str, int]]:
        """The cases of a subject, in the order in which they were measured first."""
        found: list[dict[str, int]] = []
        for each in self.results:
            if each.subject == subject and dict(each.case) not in found:
                found.append(dict(each.case))
        return found


def _plain(result: Result) -> dict[str, Any]:
    """A result for JSON, with no more digits than mean something."""
    rounds = [{name: float(f"{value:.5g}") for name, value in each.items()} for each in result.rounds]
    return {
        "subject": result.subject,
        "case": dict(result.case),
        "peer": result.peer,
        "rounds": rounds,
        "left_out": result.left_out,
    }
