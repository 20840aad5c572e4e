"""The README tells the truth: its programs run, its commands work, its links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"

RUN = """
import ast, asyncio, inspect, sys

code = compile(sys.stdin.read(), sys.argv[1], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
running = eval(code, {"__name__": "__main__"})
if inspect.iscoroutine(running):
    asyncio.run(running)
"""
"""Runs the program on its standard input, which may use `await` at the top as a notebook does."""


@frozen
class Block:
    """A fenced block of the README, and the line where its text begins."""

    language: str
    line: int
    text: str

    def __str__(self) -> str:
        """Name the block in the id of a test."""
        return f"line-{self.line}"


def fenced() -> Iterator[Block]:
    """Every fenced block of the README."""
    text = README.read_text()
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(match[1], text.count("\n", 0, match.start(2)) + 1, match[2])


BLOCKS = tuple(fenced())
PROGRAMS = [block for block in BLOCKS if block.language == "python"]
SESSIONS = [block for block in BLOCKS if block.language == "console"]
SET_UP = [line for block in BLOCKS if block.language == "sh" for line in block.text.splitlines()]


def run_program(block: Block, path: Path) -> None:
    """Run a program of the README in the repository at *path*; line numbers in a traceback are those of the README."""
    program = "\n" * (block.line - 1) + block.text
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(README)],
        cwd=path,
        input=program,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    if done.returncode:
        pytest.fail(f"the program at line {block.line} of README.md does not run:\n{done.stdout}{done.stderr}")


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_a_program_runs(block: Block, repo_path: Path) -> None:
    """Every Python program of the README runs by itself, in a repository with one commit."""
    run_program(block, repo_path)


@pytest.mark.parametrize("block", SESSIONS, ids=str)
def test_a_session_works(block: Block, repo_path: Path) -> None:
    """Every command after a `$` in the README is Git's, DVC's or ours, and works after the first program of the README."""
    run_program(PROGRAMS[0], repo_path)
    commands = [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]

    assert commands
    for command in commands:
        assert command.startswith(("git ", "aexp ", "dvc ")), f"line {block.line}: {command}"
        scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        if command.startswith("dvc ") and shutil.which("dvc", path=scripts) is None:
            pytest.skip("DVC is not installed")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=repo_path,
            env=os.environ | {"PATH": scripts},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout, f"{command}: shows nothing"


def test_the_tests_run_as_the_readme_says() -> None:
    """Continuous integration runs the very command that the README gives."""
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]

    assert command in SET_UP, "make the last line of .ci/run and the test command of README.md equal"


def test_links_lead_somewhere() -> None:
    """Every file that README.md and CONTRIBUTING.md link is there."""
    for page in (README, ROOT / "CONTRIBUTING.md"):
        links = re.findall(r"\]\(((?!https?:|#)[^)#]+)", page.read_text())
        missing = [link for link in links if not (ROOT / link).exists()]

        assert not missing, f"{page.name} links what is not there: {missing}"
