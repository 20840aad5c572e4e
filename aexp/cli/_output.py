"""The two ways out: data to standard output, words about it to standard error."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ._words import plain


def write(text: str) -> None:
    """Write *text* and a line feed to standard output."""
    sys.stdout.write(f"{text}\n")


def flush() -> None:
    """Let who reads standard output have what was written."""
    sys.stdout.flush()


def say(text: str) -> None:
    """Write a line about the data to standard error."""
    sys.stderr.write(f"aexp: {text}\n")


def write_json(value: Any) -> None:
    """Write *value* as JSON, in ASCII, so that every terminal, pipe and file can hold it."""
    write(json.dumps(plain(value), indent=2))


def write_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as RFC 4180 has it, with every digit of a number, and nothing where there is no value."""
    out = csv.writer(_Lines(), lineterminator="\n")
    out.writerow(header)
    out.writerows([plain(value) for value in row] for row in rows)


class _Lines:
    """What `csv` writes to."""

    def write(self, text: str) -> None:
        """Write a line that ends in a line feed."""
        write(text[:-1])
