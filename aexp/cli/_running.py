"""`aexp run`: any program as an experiment."""

from typing import Annotated, Literal

from cyclopts import Parameter

import aexp

from . import _output
from ._errors import Misuse
from ._options import Place, flag, option
from ._words import length, visible

CANNOT_START = (126, 127)
"""Exit codes of a program that is not there, or may not be executed."""


async def run(
    *command: Annotated[str, Parameter(help="The program and its arguments, behind `--`.", allow_leading_hyphen=False)],
    name: Annotated[str | None, option("What the experiment is called, instead of two words.", "--name", "-n")] = None,
    set_param: Annotated[
        tuple[str, ...],
        option("Change a parameter file in the experiment: train.lr=0.1; again for the next.", "--set-param", "-S"),
    ] = (),
    tag: Annotated[tuple[str, ...], option("A tag of the experiment; again for the next.", "--tag")] = (),
    message: Annotated[str | None, option("What the commit says.", "--message", "-m")] = None,
    out: Annotated[
        tuple[str, ...], option("A file or folder to keep as it is at the end; again for the next.", "--out")
    ] = (),
    code: Annotated[
        Literal["tracked", "all", "none"],
        Parameter(help="Which changes of the work tree are captured: of tracked files, also new files, or none."),
    ] = "tracked",
    force: Annotated[bool, flag("Replace an experiment of the same name.", "--force", "-f")] = False,
    isolated: Annotated[bool, flag("Run in a private checkout, as with -S.", "--isolated", "--temp")] = False,
    terminal: Annotated[bool, flag("Give the program the terminal itself; what it prints is not kept.")] = False,
    place: Place,
) -> int:
    """Run a program as an experiment, and exit with its exit code.

    It runs in the current folder, with -S or --isolated in a private checkout of the experiment.
    What it prints goes to the terminal and into the experiment. If it calls aexp.init() or logs with DVCLive, that
    goes into the same experiment.
    """
    if not command:
        raise Misuse("name the program to run, behind `--`: aexp run -n NAME -- python train.py")
    apart = isolated or bool(set_param)
    async with aexp.Repository(place) as repository:
        experiment = repository.experiment(
            name, overrides=set_param, tags=tag, message=message, outs=out, code=code, force=force
        )
        failed: aexp.CommandFailed | None = None
        try:
            async with experiment:
                await experiment.run(command, isolated=apart, output="inherit" if terminal else "show", stdin="inherit")
        except aexp.CommandFailed as error:
            failed = error
    record = experiment.record
    if record is not None:
        _output.say(
            f"{visible(record.name)} {record.status} after {length(record.duration)}, saved as {record.rev[:7]}"
        )
    if failed is not None and failed.returncode in CANNOT_START:
        _output.say(visible(str(failed)))
    return 0 if failed is None else failed.exit_code
