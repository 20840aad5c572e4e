"""Makes the picture of a terminal in README.md: runs the real command in a small repository, and draws what it printed.

python docs/pictures.py        writes docs/terminal.svg anew
"""

import asyncio
import math
import os
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

import aexp

FOLDER = Path(__file__).parent
WIDTH = 100
COMMANDS = ("aexp show --sort -metrics.acc --sparklines", "aexp history flat-0.3 valid/loss")
IDENTITY = {"user.name": "Ada Lovelace", "user.email": "ada@example.org"}


async def fill(path: Path) -> None:
    """Save a sweep of six experiments, one of which fails and one of which is cancelled."""
    async with aexp.Repository(path) as repository:
        for kind, depth in (("flat", 2), ("deep", 8)):
            for lr in (0.3, 0.1, 0.03):
                await train(repository, f"{kind}-{lr}", lr, depth)


async def train(repository: aexp.Repository, name: str, lr: float, depth: int) -> None:
    """Save one experiment: learning that is faster and rougher with a larger rate, and may end early."""
    try:
        async with repository.experiment(name, params={"lr": lr, "model": {"depth": depth}}) as experiment:
            for step in range(60):
                rough = lr * math.sin(step * 2.1) / 4
                loss = math.exp(-step * lr / 2) + rough * rough + 0.4 / depth + max(0.0, lr - 0.2) * step / 40
                await experiment.log_metrics({"acc": 1 - loss / 2, "valid/loss": loss}, step)
                if name == "deep-0.3" and step == 20:
                    raise ArithmeticError("the loss is not a number")
                if name == "flat-0.03" and step == 40:
                    raise asyncio.CancelledError
    except (ArithmeticError, asyncio.CancelledError):
        pass


def make_repository(path: Path) -> None:
    """A repository with one commit, of a fixed time."""
    environment = os.environ | {f"GIT_{who}_DATE": "2026-01-01T09:00:00Z" for who in ("AUTHOR", "COMMITTER")}
    settings = [word for key, value in IDENTITY.items() for word in ("-c", f"{key}={value}")]
    (path / "train.py").write_text("...\n")
    for words in (["init", "-q", "-b", "main"], ["add", "."], [*settings, "commit", "-q", "-m", "start"]):
        subprocess.run(["git", *words], cwd=path, env=environment, check=True)
    for key, value in IDENTITY.items():
        subprocess.run(["git", "config", key, value], cwd=path, check=True)


def recorded(command: str, path: Path) -> str:
    """What the command prints, with its colours, in a terminal of WIDTH characters."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    words = [sys.executable, "-m", "aexp_command", *command.split()[1:]]
    done = subprocess.run(words, cwd=path, env=environment, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def main() -> None:
    """Draw the picture."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, color_system="truecolor")
    with tempfile.TemporaryDirectory() as folder:
        make_repository(Path(folder))
        asyncio.run(fill(Path(folder)))
        for command in COMMANDS:
            console.print(Text(f"$ {command}", "bold"))
            console.print(Text.from_ansi(recorded(command, Path(folder))))
    drawing = console.export_svg(title="aexp", theme=MONOKAI, unique_id="aexp")
    drawing = re.sub(r"@font-face \{.*?\}\s*", "", drawing, flags=re.DOTALL)  # no picture of ours fetches anything
    (FOLDER / "terminal.svg").write_text(drawing.replace("Fira Code", "ui-monospace"))


if __name__ == "__main__":
    main()
