"""The page of the results, `docs/benchmarks.md`, and the short table in the README, made from the stored file.

    python bench/peers/page.py [--check]

`--check` writes nothing and exits with 1 when they are not what the stored file makes of them, or the plot beside it, which `plot.py` draws, shows other results.
"""

import argparse
import difflib
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cells import cell_of, ratio_of
from roster import OURS, PEERS
from stored import FILE, Stored
from summary import README, with_summary
from wording import AFTER, BEFORE, COLUMNS, SECTIONS, TABLES, Column, case_in_words, quantity

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def table(stored: Stored, subject: str, cases: Sequence[Mapping[str, int]], columns: Sequence[Column]) -> list[str]:
    """A table with a row for each peer that has been measured, a column for each case and measure."""
    heads = [
        ", ".join(
            filter(None, (case_in_words(case) if len(cases) > 1 else "", column.title if len(columns) > 1 else ""))
        )
        for case in cases
        for column in columns
    ]
    if len(heads) == 1:
        heads = [columns[0].title]
    lines = [f"| | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    for peer in PEERS:
        cells = [cell_of(stored, subject, case, peer, column) for case in cases for column in columns]
        if any(cells):
            label = f"**{PEERS[peer].label}**" if peer == OURS else PEERS[peer].label
            lines.append(f"| {label} | {' | '.join(str(cell) if cell else '-' for cell in cells)} |")
    return lines


def omissions(stored: Stored, subject: str) -> Iterator[str]:
    """A line for each reason why a peer is not in the tables."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for result in stored.results:
        if result.subject == subject and result.left_out:
            grouped.setdefault((result.peer, result.left_out), []).append(case_in_words(result.case))
    everywhere = {case_in_words(case) for case in stored.cases(subject)}
    for (peer, reason), cases in grouped.items():
        where = "" if set(cases) == everywhere else f" at {'; '.join(cases)}"
        yield f"- {PEERS[peer].label} is not measured{where}: {reason}."


def wins(stored: Stored) -> Iterator[str]:
    """A line for each measure in which a peer is clearly better than ours."""
    for subject, columns in COLUMNS.items():
        for column in columns:
            for case in stored.cases(subject):
                cells = [cell_of(stored, subject, case, peer, column) for peer in PEERS if peer != OURS]
                better = [cell for cell in cells if cell and cell.better]
                if better:
                    value = better[0].ours or 0
                    told = ", ".join(
                        f"{PEERS[cell.result.peer].label} {quantity(cell.value, column.unit)}" for cell in better
                    )
                    where = f" ({case_in_words(case)})" if case else ""
                    yield f"- {column.title}{where}: {told}; aexp {quantity(value, column.unit)}."


def against_dvc(stored: Stored) -> Iterator[str]:
    """A line for each size of tree: what DVC takes for one save, by ours alone and in a group."""
    for case in stored.cases("saves"):
        theirs, ours = stored.find("saves", case, "dvc"), stored.find("saves", case, OURS)
        if theirs and ours and case["existing"] == 10:
            alone = ratio_of(theirs, ours, "close_ms")
            pairs = zip(theirs.rounds, ours.rounds, strict=False)
            together = statistics.median(other["close_ms"] / mine["group_ms"] for other, mine in pairs)
            yield (
                f"- With {case['files']:,} files, `dvc.api.exp_save` takes {alone:.0f} times as long as one `save()` of "
                f"aexp, and {together:,.0f} times as long as each of a hundred that are saved at once."
            )


def section(stored: Stored, subject: str) -> list[str]:
    """The tables of a subject, its words, and who is left out."""
    title, words = SECTIONS[subject]
    lines = [f"## {title}", "", *words, ""]
    cases, columns = stored.cases(subject), COLUMNS[subject]
    if TABLES[subject] == "a table for each case":
        for case in cases:
            lines += [f"{case_in_words(case).capitalize()}:", "", *table(stored, subject, [case], columns), ""]
    elif TABLES[subject] == "a table for each measure":
        for column in columns:
            lines += [f"{column.title}:", "", *table(stored, subject, cases, [column]), ""]
    else:
        lines += [*table(stored, subject, cases, columns), ""]
    if subject == "saves":
        lines += [*against_dvc(stored), ""]
    left_out = list(omissions(stored, subject))
    return [*lines, *left_out, *[""][: bool(left_out)]]


def page(stored: Stored) -> str:
    """The whole page."""
    versions = ", ".join(f"{name} {version}" for name, version in stored.versions.items())
    machine = stored.machine
    days = sorted(set(stored.dates.values()))
    lines = [
        *BEFORE,
        (
            f"Measured on {' and '.join(days)} with {versions}; "
            f"Python {machine['python']}, Git {machine['git']}, {machine['system']}, {machine['cores']} cores, "
            f"files on {machine['disk']}."
        ),
        *filter(None, [machine.get("note")]),
        "",
    ]
    for subject in SECTIONS:
        if stored.cases(subject):
            lines += section(stored, subject)
    lines += ["## Where a peer wins", "", "Every figure above in which somebody is more than 5 % better than aexp:", ""]
    return "\n".join([*lines, *wins(stored), "", *AFTER]) + "\n"


def main() -> int:
    """Write the page, or compare it with what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parser.parse_args()
    stored = Stored.read(FILE)
    wanted = {PAGE: page(stored), README: with_summary(README.read_text(), stored)}
    if not options.check:
        for path, text in wanted.items():
            path.write_text(text)
        return 0
    lines: list[str] = []
    for path, text in wanted.items():
        lines += difflib.unified_diff(path.read_text().splitlines(), text.splitlines(), path.name, FILE.name)
    if stored.digest() not in PAGE.with_suffix(".svg").read_text():
        lines.append("benchmarks.svg shows other results than the stored ones")
    print("\n".join(lines))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
