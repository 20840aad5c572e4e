"""The terminal that a program may have for itself while it runs, as a shell lends it to the job in the foreground."""

import os
import signal
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from attrs import frozen


@frozen(eq=False, repr=False)
class Terminal:
    """Our standard input, while our process group is the one that the terminal listens to."""

    ours: int
    """Our process group."""
    attributes: Any
    """How the terminal was set."""

    @classmethod
    def of_ours(cls) -> "Terminal | None":
        """Return the terminal; None where standard input is none, or where it is somebody else's at the moment."""
        try:
            if not os.isatty(0) or os.tcgetpgrp(0) != os.getpgrp():
                return None
            return cls(os.getpgrp(), termios.tcgetattr(0))
        except (OSError, termios.error):  # a terminal, but not ours
            return None

    def lend(self, group: int) -> None:
        """Let *group* read from it and hear its Ctrl-C; it may have been stopped for reading too early."""
        self._give(group)
        with suppress(OSError):
            os.killpg(group, signal.SIGCONT)

    def take_back(self, group: int, *, restore: bool = False) -> None:
        """Be in the foreground again, if *group* is there; *restore* undoes how the program had set the terminal."""
        with suppress(OSError):
            if os.tcgetpgrp(0) != group:  # a shell has put us into the background meanwhile
                return
        self._give(self.ours)
        if restore:
            with suppress(termios.error), _deaf_to_sigttou():
                termios.tcsetattr(0, termios.TCSANOW, self.attributes)

    def suspend(self, group: int) -> None:
        """Stop with the program, which Ctrl-Z has stopped, so that the shell has its turn; go on with it afterwards."""
        self.take_back(group)
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # this thread, so that it stops before it goes on
        with suppress(OSError):
            if os.tcgetpgrp(0) == self.ours:
                self._give(group)
            os.killpg(group, signal.SIGCONT)

    @staticmethod
    def _give(group: int) -> None:
        with suppress(OSError), _deaf_to_sigttou():  # the group may be gone, the terminal hung up
            os.tcsetpgrp(0, group)


@contextmanager
def _deaf_to_sigttou() -> Iterator[None]:
    """Let this thread change the terminal while another group has it, which would stop us otherwise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
