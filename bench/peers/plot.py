"""The plot of the page, `docs/benchmarks.svg`: what save, list and push cost against the number of experiments."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot  # after the backend is chosen
from roster import PEERS
from stored import FILE, Stored

PLOT = Path(__file__).parents[2] / "docs" / "benchmarks.svg"
PANELS = {
    "save one": ("saves", "whole_ms", {"aexp": "-", "dvc": "-", "dvclive": "-", "mlflow": "-"}),
    "list all, the first time": (
        "lists",
        "first_ms",
        dict.fromkeys(("aexp", "dvc", "mlflow", "tensorboard", "trackio"), "-"),
    ),
    "list all, again": ("lists", "again_ms", dict.fromkeys(("aexp", "dvc", "mlflow", "tensorboard", "trackio"), "-")),
    "push all": ("pushes", "push_ms", {"aexp": "-", "dvc": "-"}),
}
COLOURS = {"aexp": "#c1272d", "dvc": "#0072b2", "dvclive": "#56b4e9", "mlflow": "#009e73", "trackio": "#e69f00"}


def series(stored: Stored, subject: str, measure: str, peer: str) -> list[tuple[int, float]]:
    """The number of experiments and the cost in ms, in small trees."""
    found = []
    for case in stored.cases(subject):
        result = stored.find(subject, case, peer)
        value = result.median(measure) if result else None
        if value is not None and case.get("files", 10) == 10:
            found.append((case["existing"], value))
    return sorted(found)


def main() -> None:
    """Draw it, the same from the same figures."""
    matplotlib.rcParams |= {"svg.hashsalt": "aexp", "svg.fonttype": "none", "font.size": 9}
    stored = Stored.read(FILE)
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(14, 4), constrained_layout=True)
    for panel, (title, (subject, measure, peers)) in zip(panels, PANELS.items(), strict=True):
        for peer, style in peers.items():
            points = series(stored, subject, measure, peer)
            if points:
                counts, costs = zip(*points, strict=True)
                colour = COLOURS.get(peer, "#777777")
                panel.plot(counts, costs, style, marker="o", color=colour, label=PEERS[peer].label)
        panel.set(title=title, xlabel="experiments", xscale="log", yscale="log")
        panel.grid(visible=True, alpha=0.3)
        panel.legend(fontsize=7)
    panels[0].set_ylabel("ms")
    figure.savefig(PLOT, metadata={"Date": None, "Creator": None, "Identifier": stored.digest()})


if __name__ == "__main__":
    main()
