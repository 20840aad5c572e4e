"""`python -m aexp` is the command `aexp`."""

import aexp_command

aexp_command.run()
