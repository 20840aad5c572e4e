"""`python -m aexp` is the command `aexp`."""

import sys

import aexp_command

sys.exit(aexp_command.main())
