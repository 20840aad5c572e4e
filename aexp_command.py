"""The `aexp` command: its verbs by name, each imported when it is called; help; exit codes; errors in one line.

It stands beside the package, not in it: `import aexp` brings Git and an event loop, and who asks for help needs neither.
"""

import gc
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple, NoReturn

if TYPE_CHECKING:
    from cyclopts import App

DONE: Final = 0
REFUSED: Final = 1
"""It could not be done; the line on standard error says why, and what to do."""
MISUSED: Final = 2
"""The command line, or a query in it, cannot be understood."""
BROKEN: Final = 70
"""An error of aexp itself (EX_SOFTWARE of sysexits.h)."""
STOPPED: Final = 128 + signal.SIGINT
"""Ctrl-C."""
UNREAD: Final = 128 + signal.SIGPIPE
"""Who read the output went away, as `head` does."""

EXTRA: Final = frozenset({"cyclopts", "plotille", "rich"})
"""The libraries that the extra `cli` brings."""


class Verb(NamedTuple):
    """A verb: the function behind it, whose docstring is its help, and what it does in a line."""

    function: str
    summary: str


VERBS: Final[Mapping[str, Mapping[str, Verb]]] = {
    "Work": {
        "run": Verb("_running:run", "run a program as an experiment"),
    },
    "Look": {
        "list": Verb("_listing:list_", "list experiments by the commit they stand on"),
        "show": Verb("_showing:show", "draw a table of experiments, their metrics and parameters"),
        "best": Verb("_showing:best", "show the experiment with the best value of a metric"),
        "history": Verb("_history:history", "draw the course of metrics"),
        "log": Verb("_history:log", "tell what happened in an experiment, and when"),
        "watch": Verb("_watching:watch", "show experiments while they run, of any process"),
    },
    "Compare and bring back": {
        "diff": Verb("_comparing:diff", "print what two experiments, or other commits, differ in"),
        "apply": Verb("_changing:apply", "make the files of the work tree those of an experiment"),
        "undo": Verb("_changing:undo", "put back what the last `aexp apply` replaced"),
    },
    "Name, remove, restore": {
        "branch": Verb("_changing:branch", "make a branch at an experiment"),
        "rename": Verb("_changing:rename", "give an experiment another name"),
        "remove": Verb("_changing:remove", "remove experiments"),
        "restore": Verb("_changing:restore", "bring back an experiment that was removed or replaced"),
    },
    "Share": {
        "push": Verb("_sharing:push", "push experiments to a Git remote"),
        "pull": Verb("_sharing:pull", "pull experiments from a Git remote"),
    },
    "Keep in shape": {
        "interrupted": Verb("_recovery:interrupted", "list experiments whose program died before it saved them"),
        "recover": Verb("_recovery:recover", "save every interrupted experiment as it stands"),
        "doctor": Verb("_upkeep:doctor", "look for what is wrong here, and say what to do"),
        "maintain": Verb("_upkeep:maintain", "sweep what dead programs left, and what is too old to keep"),
    },
    "The command itself": {
        "completion": Verb("_about:completion", "print a script that completes verbs, flags and names in a shell"),
        "version": Verb("_about:version", "print the version of aexp and of what it stands on"),
    },
}

EVERYWHERE: Final = (
    ("-C, --repository PATH", "the repository, found upward from PATH [. or AEXP_REPOSITORY]"),
    ("    --traceback", "after an error, print where it was raised"),
    ("-h, --help", "print this, or the help of a verb"),
)


def overview() -> str:
    """Return what `aexp --help` prints."""
    groups = {group: [(name, verb.summary) for name, verb in verbs.items()] for group, verbs in VERBS.items()}
    blocks = [_block(group, lines) for group, lines in {**groups, "Everywhere": EVERYWHERE}.items()]
    return "\n\n".join(["usage: aexp VERB [...]\n\nExperiments on Git.", *blocks, "`aexp VERB --help` says more."])


def _block(title: str, lines: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join([f"{title}:", *(f"  {name:<{max(width, 14)}}{summary}" for name, summary in lines)])


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that *words* (without them, the command line) call, and return its exit code."""
    words = sys.argv[1:] if words is None else list(words)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    _open_outputs()
    gc.disable()  # nothing of the imports is garbage, and looking for it takes a tenth of a short command
    try:
        code = _answered(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = STOPPED
    except BrokenPipeError:
        code = UNREAD
    except Exception as error:
        code = _told(error, "--traceback" in words[: words.index("--") if "--" in words else None])
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains of it when it ends
    return code


def _open_outputs() -> None:
    """Let every text be written, whatever the encoding, and see to it that there is something to write to."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # who started us closed it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _answered(words: Sequence[str]) -> int:
    names = {name for verbs in VERBS.values() for name in verbs}
    if not words or (words[-1] in ("-h", "--help") and names.isdisjoint(words)):
        print(overview())
        return DONE
    answer = build()(words)
    return answer if isinstance(answer, int) else DONE


def _told(error: Exception, trace: bool) -> int:
    """Print *error* in a line, after where it was raised if *trace* says so, and return the exit code it has.

    Neither shows what looks like a secret.
    """
    hidden = importlib.import_module("aexp._secrets").redacted
    if trace:
        print(
            hidden("".join(importlib.import_module("traceback").format_exception(error)), os.environ), file=sys.stderr
        )
    if _lacks_extra(error):
        print("aexp: the command needs libraries of its own; `pip install 'aexp[cli]'` brings them", file=sys.stderr)
        return REFUSED
    code, line = importlib.import_module("aexp.cli._errors").explain(error)
    print(f"aexp: {hidden(line, os.environ)}", file=sys.stderr)
    return int(code)


def _lacks_extra(error: BaseException | None) -> bool:
    """Say whether *error* came of a library that only the command needs, and that is not installed."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRA:
            return True
        error = error.__cause__
    return False


def build() -> Callable[[Sequence[str]], Any]:
    """Return what reads a command line and runs the verb it calls."""
    from cyclopts import Group, Parameter

    app = grammar()
    app.meta.suppress_keyboard_interrupt = False
    everywhere = Group("Everywhere", sort_key=9)

    @app.meta.default
    def call(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        repository: Annotated[
            str,
            Parameter(
                name=("--repository", "-C"),
                group=everywhere,
                env_var="AEXP_REPOSITORY",
                help="The repository, found upward from this path.",
            ),
        ] = ".",
        traceback: Annotated[
            bool,
            Parameter(
                negative="", group=everywhere, show_default=False, help="After an error, print where it was raised."
            ),
        ] = False,
    ) -> Any:
        if not words:
            print(overview())
            return DONE
        function, bound, left = app.parse_args(words, print_error=False, exit_on_error=False)
        if "place" in left:
            bound.arguments["place"] = repository
        if "app" in left:
            bound.arguments["app"] = app
        gc.freeze()
        gc.enable()
        answer = function(*bound.args, **bound.kwargs)
        if hasattr(answer, "__await__"):
            answer = importlib.import_module("asyncio").run(answer)
        return answer

    return app.meta


def grammar() -> "App":
    """Return the verbs as cyclopts knows them: none is imported yet."""
    from cyclopts import App

    app = App(
        name="aexp",
        help="Experiments on Git.",
        help_format="plaintext",
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        version=lambda: str(importlib.import_module("aexp").__version__),
    )
    for place, (group, verbs) in enumerate(VERBS.items()):
        for name, verb in verbs.items():
            app.command(f"aexp.cli.{verb.function}", name=name, group=group, sort_key=place)
    return app


def run() -> NoReturn:
    """Be the script `aexp`: end the process as soon as all is written and no thread is at work.

    What Python does at its end otherwise, taking apart every module, takes a seventh of a short command.
    """
    code = main()
    if threading.active_count() == 1:
        sys.stderr.flush()
        os._exit(code)  # `main` has flushed standard output
    sys.exit(code)


if __name__ == "__main__":
    run()
