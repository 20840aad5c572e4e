"""The short table in the README, between two marks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cells import cell_of
from roster import OURS
from stored import Stored
from wording import COLUMNS, quantity

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- made by bench/peers/page.py -->\n", "<!-- end -->\n"
WHO: Mapping[str, Sequence[str]] = {
    "a plain loop": ("plain",),
    "DVC, DVCLive": ("dvc", "dvclive_apart"),
    "MLflow": ("mlflow_batches", "mlflow"),
    "trackio": ("trackio",),
    "W&B offline": ("wandb",),
    "tensorboardX": ("tensorboard",),
}
"""The columns; of two ways to use a peer, the first one that was measured."""
ROWS: Sequence[tuple[str, str, Mapping[str, int], str]] = (
    ("log 100,000 points, the loop", "points", {"points": 100_000}, "loop_s"),
    ("log 100,000 points, until they are saved", "points", {"points": 100_000}, "whole_s"),
    ("longest stall of the event loop, logging to 100 runs", "many", {"runs": 100}, "logging_max_ms"),
    ("the same, 1,000 runs", "many", {"runs": 1_000}, "logging_max_ms"),
    ("a short run, 10 files in the tree", "saves", {"files": 10, "existing": 10}, "whole_ms"),
    ("a short run, 5,000 files in the tree", "saves", {"files": 5_000, "existing": 10}, "whole_ms"),
    ("list 1,000 runs, the first time", "lists", {"existing": 1_000}, "first_ms"),
    ("list 1,000 runs, again", "lists", {"existing": 1_000}, "again_ms"),
    ("push 1,000 experiments", "pushes", {"existing": 1_000}, "push_ms"),
    ("points kept of 500, `kill -9` at a point each ms", "kills", {"pause_ms": 1, "rest_ms": 0}, "kept"),
    ("import", "installs", {}, "import_ms"),
)


def with_summary(text: str, stored: Stored) -> str:
    """The README with the table that the stored results make."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{summary(stored)}\n{END}{after}"


def summary(stored: Stored) -> str:
    """A row for each measure; a peer by how many times ours, or its count."""
    lines = [f"| | aexp | {' | '.join(WHO)} |", f"| --- |{' ---: |' * (len(WHO) + 1)}"]
    for title, subject, case, measure in ROWS:
        column = next(column for column in COLUMNS[subject] if column.measure == measure)
        ours = cell_of(stored, subject, case, OURS, column)
        if ours is None:
            continue
        cells = [quantity(ours.value, column.unit)]
        for peers in WHO.values():
            found = filter(None, (cell_of(stored, subject, case, peer, column) for peer in peers))
            cell = next(found, None)
            if cell is None:
                cells.append("-")
            elif not column.compared or cell.ratio is None:
                cells.append(quantity(cell.value, column.unit))
            else:
                cells.append(cell.times)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
