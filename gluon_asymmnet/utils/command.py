"""The command line of this process, as text that a shell takes."""

import os
import shlex
import sys
from pathlib import Path

COMMAND = "ASYMMNET_COMMAND"  # variable with the command of the launcher of this process


def own_command() -> str:
    """Return the command that started this process, or its launcher, to be pasted in a shell."""
    if COMMAND in os.environ:
        return os.environ[COMMAND]
    program, arguments = sys.argv[0], sys.argv[1:]
    if Path(program).name == "__main__.py":
        return shlex.join([sys.executable, "-m", Path(program).parent.name, *arguments])
    if program.endswith(".py"):
        return shlex.join([sys.executable, program, *arguments])
    return shlex.join([program, *arguments])
