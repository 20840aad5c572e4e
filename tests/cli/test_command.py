"""The command itself: help, exit codes, errors in one line, the two outputs, and what completes it in a shell."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aexp
import aexp_command
from aexp.cli._errors import explain

Run = Callable[..., Any]
Git = Callable[..., str]
ROOT = Path(__file__).parents[2]
VERBS = [name for verbs in aexp_command.VERBS.values() for name in verbs]


async def save(path: Path, *names: str, **options: Any) -> None:
    """Save an experiment of each name."""
    async with aexp.Repository(path) as repository:
        for name in names:
            async with repository.experiment(name, **options) as experiment:
                await experiment.log_metrics({"acc": 0.5, "train/loss": 0.25}, 0)


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",), ("help",), ("-C", "/"), ("-C", "/", "--help")], ids=str)
def test_help_names_every_verb(command: Run, words: tuple[str, ...]) -> None:
    """`aexp` by itself, or with --help, prints every verb with a line about it, on standard output."""
    done = command(*words)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("usage: aexp VERB")
    for name in VERBS:
        assert re.search(rf"^  {name} +\w", done.out, re.MULTILINE), name


def test_help_needs_neither_git_nor_a_loop(repo_path: Path) -> None:
    """Who asks for help waits for no import of aexp, pygit2, asyncio, cyclopts or rich."""
    program = "import sys, aexp_command; aexp_command.main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], cwd=repo_path, capture_output=True, text=True, check=True)

    assert not {"aexp", "pygit2", "asyncio", "cyclopts", "rich"} & set(done.stderr.split())


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(command: Run, verb: str) -> None:
    """`aexp VERB --help` says what the verb does and lists its arguments, and what every verb takes."""
    done = command(verb, "--help")

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: aexp {verb}")
    assert "--repository -C" in done.out


def test_every_verb_is_documented(command: Run) -> None:
    """docs/cli.md has a section about every verb, and names each of its flags there."""
    page = (ROOT / "docs" / "cli.md").read_text()
    sections = {
        match[1]: match[2] for match in re.finditer(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    }

    assert sorted(sections) == sorted(VERBS)
    for verb in VERBS:
        flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", command(verb, "--help").out.partition("─ Everywhere")[0]))
        missing = {flag for flag in flags if flag not in sections[verb]}
        assert not missing, f"say in docs/cli.md what {verb} {missing} does"


def test_the_library_and_the_script_are_the_same_command(repo_path: Path) -> None:
    """`python -m aexp` and the script `aexp` are the same."""
    script = shutil.which("aexp", path=os.path.dirname(sys.executable))
    assert script is not None, "install the project: the script stands beside the interpreter"
    said = [
        subprocess.run([*command, "version"], cwd=repo_path, capture_output=True, text=True, check=True).stdout
        for command in ([script], [sys.executable, "-m", "aexp"])
    ]

    assert said[0] == said[1]
    assert said[0].startswith(f"aexp {aexp.__version__} (python ")


def test_without_the_extra_the_command_says_how_to_get_it(repo_path: Path) -> None:
    """Where cyclopts or rich is not installed, a verb says in one line how to install them; help works."""
    for library in ("cyclopts", "rich"):
        program = f"import sys; sys.modules['{library}'] = None; import aexp_command; sys.exit(aexp_command.main())"
        for words, code in ((["show"], 1), (["--help"], 0)):
            done = subprocess.run(
                [sys.executable, "-c", program, *words], cwd=repo_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == code, done.stderr
            if code:
                assert done.stdout == ""
                assert (
                    done.stderr
                    == "aexp: the command needs libraries of its own; `pip install 'aexp[cli]'` brings them\n"
                )


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("nonsense",), 2, 'Unknown command "nonsense"'),
        (("show", "--nonsense"), 2, "see `aexp show --help`"),
        (("show", "--limit", "many"), 2, "see `aexp show --help`"),
        (("log",), 2, "requires an argument; see `aexp log --help`"),
        (("log", "nobody"), 1, "no experiment 'nobody'; `aexp list --all` lists what is there"),
        (("show", "--keep", "("), 1, "'(' is no regular expression"),
        (("show", "--limit", "-1"), 1, "a limit is at least 0, not -1"),
        (("list", "--rev", "nowhere"), 1, "nowhere names no commit; `git log --all` shows those there are"),
        (("show", "--precision", "0"), 2, "see `aexp show --help`"),
        (("list", "a", "b", "c"), 2, "see `aexp list --help`"),
        (("-C", "/", "list"), 1, "run `git init` there, or name another with -C"),
        (("best", "acc"), 1, "no experiment 'best acc'; none has a number as its metric 'acc'"),
    ],
    ids=str,
)
def test_an_error_is_one_line(command: Run, words: tuple[str, ...], code: int, line: str) -> None:
    """What cannot be done is said in one line on standard error, with what to do; the exit code says which kind it is."""
    done = command(*words)

    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("aexp: ")
    assert done.err.count("\n") == 1
    assert line in done.err


def test_a_query_that_is_wrong_shows_where(command: Run) -> None:
    """A query that cannot be understood is shown, with a caret below the place."""
    done = command("show", "--where", "params.lr <")

    assert (done.code, done.out) == (2, "")
    first, query, caret = done.err.splitlines()
    assert first.startswith("aexp: ")
    assert (query.strip(), caret.strip()) == ("params.lr <", "^")


def test_the_traceback_is_printed_when_asked_for(command: Run) -> None:
    """With --traceback the error is followed to where it was raised; without, no line of it is shown."""
    assert "Traceback" not in command("log", "nobody").err
    done = command("log", "nobody", "--traceback")

    assert done.code == 1
    assert done.err.startswith("Traceback (most recent call last):\n")
    assert "aexp.errors.ExperimentNotFound" in done.err
    assert done.err.endswith("\naexp: no experiment 'nobody'; `aexp list --all` lists what is there\n")


async def test_the_repository_is_named_in_three_ways(command: Run, repo_path: Path, tmp_path: Path) -> None:
    """-C before or behind the verb names the repository, or AEXP_REPOSITORY does; -C counts more."""
    await save(repo_path, "it")
    here = {"cwd": tmp_path}
    names = ("list", "--name-only")

    assert command("-C", str(repo_path), *names, **here).out == "it\n"
    assert command(*names, f"--repository={repo_path}", **here).out == "it\n"
    assert command(*names, **here, AEXP_REPOSITORY=str(repo_path)).out == "it\n"
    assert command("-C", str(repo_path), *names, **here, AEXP_REPOSITORY="/nowhere").out == "it\n"
    assert command(*names, **here).code == 1


def piped(line: str, path: Path) -> "subprocess.CompletedProcess[str]":
    """Run a line of bash; each line that Python prints is written at once, so that one meets a closed pipe."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    return subprocess.run(["bash", "-c", line], cwd=path, env=environment, capture_output=True, text=True, check=False)


async def test_a_reader_that_goes_away_is_no_error(repo_path: Path) -> None:
    """`aexp show | head -1` ends quietly, with the code that a shell knows for it."""
    await save(repo_path, *(f"e{number}" for number in range(20)))
    line = f"{sys.executable} -m aexp_command show --json | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = piped(line, repo_path)

    assert (done.stdout, done.stderr) == ("[", "")
    assert done.returncode in (0, 141)  # 0 when all of it went into the pipe before it was closed


def test_an_error_of_ours_is_told_as_one() -> None:
    """An exception that nobody expected is an error of aexp itself: one line that says so, and a code of its own."""
    code, line = explain(TypeError("an int\nis no str"))

    assert code == aexp_command.BROKEN == 70
    assert line.startswith("TypeError: an int is no str; this is an error of aexp itself")
    assert "\n" not in line


async def test_any_output_will_do(command: Run, repo_path: Path) -> None:
    """A table can be written in ASCII, and an output that is closed or full is no reason for a traceback."""
    await save(repo_path, "größer")
    done = command("show", PYTHONIOENCODING="ascii", COLUMNS="80")

    assert (done.code, done.out.isascii()) == (0, True)
    assert "`-- gr\\xf6\\xdfer" in done.out
    line = f"{sys.executable} -m aexp_command list"
    closed = piped(f"{line} >&-", repo_path)
    assert (closed.returncode, closed.stderr) == (0, "")
    for unbuffered in ("", "1"):
        full = piped(f"PYTHONUNBUFFERED={unbuffered} {line} > /dev/full", repo_path)
        assert (full.returncode, full.stderr) == (1, "aexp: [Errno 28] No space left on device\n")


def test_version_is_data(command: Run) -> None:
    """`aexp version --json` names the version of aexp and of what it stands on; `aexp --version` the first alone."""
    found = json.loads(command("version", "--json").out)

    assert found["aexp"] == aexp.__version__
    assert {"python", "pygit2", "cyclopts", "rich"} <= set(found)
    assert command("--version").out == f"{aexp.__version__}\n"


# ---- completion ----

COMPLETE = """
source /dev/stdin
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
%s
printf '%%s\\n' "${COMPREPLY[@]}"
"""


def completed(command: Run, repo_path: Path, *words: str) -> set[str]:
    """What bash offers for the last of *words*."""
    script = command("completion", "bash").out
    function = re.search(r"complete .*-F (\w+)", script)
    assert function is not None
    folder = repo_path.parent / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "aexp"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m aexp_command "$@"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", COMPLETE % function[1], "bash", *words],
        cwd=repo_path,
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {word.strip() for word in done.stdout.splitlines() if word.strip()}


async def test_bash_completes_verbs_flags_and_names(command: Run, repo_path: Path) -> None:
    """In bash, TAB completes verbs, flags, names of experiments and commits, and the metrics of an experiment."""
    await save(repo_path, "alpha", "beta")

    assert {"list", "show", "log"} <= completed(command, repo_path, "aexp", "")
    assert "--where" in completed(command, repo_path, "aexp", "show", "--w")
    assert completed(command, repo_path, "aexp", "log", "a") == {"alpha"}
    assert "main" in completed(command, repo_path, "aexp", "list", "--rev", "")
    assert {"acc", "train/loss"} <= completed(command, repo_path, "aexp", "best", "")
    assert {"acc", "train/loss"} <= completed(command, repo_path, "aexp", "history", "alpha", "")
    for place, where in ((("-C", str(repo_path)), {}), ((), {"AEXP_REPOSITORY": str(repo_path)})):
        assert "alpha" in command("__complete", *place, "log", "", cwd=repo_path.parent, **where).out.split()


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
async def test_fish_completes_names(command: Run, repo_path: Path) -> None:
    """In fish, TAB completes names of experiments, with the commit they stand on."""
    await save(repo_path, "alpha", "beta")
    folder = repo_path.parent / "bin"
    folder.mkdir()
    (folder / "aexp").write_text(f'#!/bin/sh\nexec {sys.executable} -m aexp_command "$@"\n')
    (folder / "aexp").chmod(0o755)
    script = folder / "aexp.fish"
    script.write_text(command("completion", "fish").out)
    done = piped(f"PATH={folder}:$PATH fish -c \"source {script}; complete -C 'aexp log al'\"", repo_path)

    assert done.stdout == "alpha\ton main\n", done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_its_shell(command: Run, shell: str) -> None:
    """The script for each shell is accepted by that shell, where it is installed."""
    script = command("completion", shell).out
    assert "__complete" in script
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_completion_never_speaks_up(command: Run, tmp_path: Path) -> None:
    """Where there is no repository nothing is offered, and nothing is said into the line that somebody types."""
    done = command("__complete", "log", "", cwd=tmp_path)

    assert (done.code, done.out, done.err) == (0, "\n\x1fbegin\n", "")


def test_the_script_is_installed(command: Run, tmp_path: Path) -> None:
    """`aexp completion bash --install` puts the script where bash looks for it, and prints where that is."""
    done = command("completion", "bash", "--install", HOME=str(tmp_path))

    assert done.code == 0, done.err
    assert Path(done.out.strip()).is_relative_to(tmp_path)
    assert Path(done.out.strip()).read_text() == command("completion", "bash").out


def test_signals_have_names() -> None:
    """The exit codes of Ctrl-C and of a closed pipe are those that a shell gives."""
    assert (aexp_command.STOPPED, aexp_command.UNREAD) == (128 + signal.SIGINT, 128 + signal.SIGPIPE) == (130, 141)
