"""What an exception says about how an experiment ended."""

import asyncio
import signal
import traceback
from contextlib import suppress

from ._lifecycle import Status
from ._secrets import Censor
from ._values import Failure
from .errors import CommandFailed


def outcome(error: BaseException, censor: Censor) -> tuple[Status, Failure | None]:
    """Return the status that *error* means, and what of it is recorded: without secrets.

    Cancellation and Ctrl-C are no failures, also where a program heard it, and neither is `sys.exit(0)`.
    """
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return Status.FINISHED, None
    stopped = isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit))
    stopped = stopped or (isinstance(error, CommandFailed) and error.returncode == -signal.SIGINT)
    message = "(its text cannot be had)"
    with suppress(Exception):  # the `__str__` of others may raise anything
        message = str(error)
    if stopped and message.startswith("Cancelled via cancel scope"):
        message = ""  # anyio's note to itself: addresses, and a task that is gone
    texts = (type(error).__qualname__, message, "".join(traceback.format_exception(error)))
    failure = Failure(*(censor.redacted(text.encode("utf-8", "backslashreplace").decode(), "error") for text in texts))
    return (Status.CANCELLED if stopped else Status.FAILED), failure
