"""The words of the page: sections, columns, units."""

from collections.abc import Mapping

from attrs import frozen

UNITS: Mapping[str, tuple[float, str]] = {
    "s": (1, "s"),
    "ms": (1, "ms"),
    "us": (1, "us"),
    "MB": (1e-6, "MB"),
    "KB": (1e-3, "KB"),
    "": (1, ""),
}


@frozen
class Column:
    """A measure as the page shows it."""

    measure: str
    title: str
    unit: str = ""
    more_is_better: bool = False
    compared: bool = True


COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "points": (Column("loop_s", "the loop that logs", "s"), Column("whole_s", "until the run has ended", "s")),
    "many": (
        Column("open_s", "open all", "s"),
        Column("point_us", "log a point", "us"),
        Column("logging_p999_ms", "stall while logging, 99.9 %", "ms"),
        Column("logging_max_ms", "longest stall while logging", "ms"),
        Column("opening_max_ms", "while opening", "ms"),
        Column("ending_max_ms", "while ending", "ms"),
        Column("threads_each", "threads for each", compared=False),
        Column("descriptors_each", "descriptors for each", compared=False),
        Column("bytes_each", "memory for each", "KB", compared=False),
        Column("close_s", "end all", "s"),
    ),
    "saves": (
        Column("whole_ms", "A run begun, logged to and ended", "ms"),
        Column("close_ms", "Its end alone: `save()`, `dvc.api.exp_save`, `finish()`", "ms"),
        Column("group_ms", "The end of each of a hundred that end at once", "ms"),
    ),
    "lists": (Column("first_ms", "first", "ms"), Column("again_ms", "again", "ms")),
    "pushes": (Column("push_ms", "push", "ms"),),
    "kills": (Column("kept", "points kept of 500", more_is_better=True, compared=False),),
    "installs": (
        Column("packages", "packages"),
        Column("size_bytes", "size", "MB"),
        Column("import_ms", "import", "ms"),
        Column("memory_bytes", "memory after it", "MB"),
    ),
}

TABLES: Mapping[str, str] = {
    "points": "one table",
    "many": "a table for each case",
    "saves": "a table for each measure",
    "lists": "one table",
    "pushes": "one table",
    "kills": "one table",
    "installs": "one table",
}

SECTIONS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "points": (
        "Logging",
        (
            "Ten metrics a step into one run.",
            (
                "When the run has ended, aexp has made a commit that survives a power cut; the plain loop has synced its file; "
                "the others have done what they do by default."
            ),
        ),
    ),
    "many": (
        "Many runs at once",
        (
            (
                "Runs that are open in one process and one event loop, each logged to from a task of its own: 20 steps of 2 metrics, "
                "with `asyncio.sleep(0)` after each."
            ),
            (
                "They are opened one after another; those of aexp are saved at once, the others ended one after another, and other "
                "tasks have their turn in between."
            ),
            "A stall is how late another task of the loop wakes up.",
            "Trackers that know no `await` are called as their users do, straight from the task.",
            "Threads, descriptors and memory are what a run adds that is open and logged to, in the process and its children.",
        ),
    ),
    "saves": (
        "Saving",
        (
            (
                "A short run: parameters, five steps of two metrics, and its end, with so many files in the tree and so many runs "
                "saved before."
            ),
            "aexp and DVC keep the code with it; the others keep none.",
            (
                "aexp and the plain loop sync, so that what is saved survives a power cut; DVC and MLflow leave that to the "
                "operating system, or to SQLite."
            ),
        ),
    ),
    "lists": (
        "Listing",
        (
            "All runs with their parameters and last values.",
            (
                "The first time, no cache is there, and the repository or store is opened within the time; then again in the same "
                "process."
            ),
        ),
    ),
    "pushes": ("Pushing", ("All experiments at once, without data, to an empty bare repository on the same disk.",)),
    "kills": (
        "Killed",
        (
            (
                "500 points are logged, then the process is killed with SIGKILL: at once after a loop that never pauses; at once "
                "after a loop that sleeps for 1 ms a step; or after a second of rest."
            ),
            "A reader in another process counts what it finds.",
        ),
    ),
    "installs": (
        "Installing and importing",
        (
            (
                "Everything that `pip install` brings, without compiled bytecode, and the import in a fresh interpreter, whose own "
                "start is subtracted."
            ),
        ),
    ),
}

BEFORE = (
    "# Benchmarks",
    "",
    "<!-- Made from bench/peers.json by bench/peers/page.py: change those, not this page. -->",
    "",
    "What aexp costs beside its peers, at the same work, on one machine.",
    (
        "Each figure is the median of up to three rounds, in which everybody has a turn, each time in a fresh process and in an "
        "environment of its own, without a network."
    ),
    "A figure in brackets says how many times as much as aexp: the median of the ratios of the rounds.",
    "Only these travel to other machines; the others belong to this one.",
    "Repeat it with `nox -s bench-peers`; [bench/peers](../bench/peers) holds one small file for each tracker and each subject.",
    "",
)

AFTER = (
    (
        "Not measured, and reasons to choose a peer all the same: MLflow, Weights & Biases, trackio and TensorBoard draw live "
        "curves in a browser, aexp does not; MLflow and Weights & Biases have servers, users and permissions, a registry of models "
        "and integrations with nearly every training framework; DVC runs pipelines."
    ),
    "",
    "## How the cost grows",
    "",
    "![Cost against the number of experiments, both axes logarithmic](benchmarks.svg)",
)


def case_in_words(case: Mapping[str, int]) -> str:
    """A case as a head of a table says it."""
    if "pause_ms" in case:
        return {(0, 0): "no pause", (1, 0): "1 ms a step", (0, 1000): "a second of rest"}[
            case["pause_ms"], case["rest_ms"]
        ]
    nouns = {"points": "points", "runs": "runs", "files": "files", "existing": "there"}
    return ", ".join(f"{value:,} {nouns[name]}" for name, value in case.items())


def quantity(value: float, unit: str) -> str:
    """A number with its unit and no more digits than mean something."""
    factor, name = UNITS[unit]
    scaled = value * factor
    if name == "s" and scaled < 1:
        scaled, name = scaled * 1_000, "ms"
    if name == "ms" and scaled >= 1_000:
        scaled, name = scaled / 1_000, "s"
    digits = 0 if scaled >= 100 or scaled == int(scaled) else 1 if scaled >= 10 else 2 if scaled >= 1 else 3
    return f"{scaled:,.{digits}f} {name}".rstrip()
