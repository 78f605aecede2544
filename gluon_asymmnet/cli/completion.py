"""Completion of commands and flags in a shell, by argcomplete.

``eval "$(register-python-argcomplete asymmnet)"`` turns it on.
"""

import argparse
import importlib
import os

from gluon_asymmnet.utils.extras import load_extra


def complete(commands, aliases) -> None:
    """Print what completes the line in argcomplete's variables, and end the process.

    Only the parser of the command in the line is built: the others take time.

    Args:
        commands, aliases: the tables of ``gluon_asymmnet.cli``.
    """
    argcomplete = load_extra("argcomplete")
    start = int(os.environ["_ARGCOMPLETE"])  # words before the arguments: 1, or 2 after `python`
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = line.split()
    complete_words = len(words) if line.endswith(" ") else len(words) - 1
    name = words[start] if complete_words > start else ""
    name = aliases.get(name, name)
    if name in commands:
        module = importlib.import_module(f"gluon_asymmnet.cli.{commands[name].module}")
        os.environ["_ARGCOMPLETE"] = str(start + 1)  # the command stands for the program
        parser = getattr(module, commands[name].function)(f"asymmnet {name}")
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--version", action="store_true")
        parser.add_argument("command", choices=[*commands])
    argcomplete.autocomplete(parser)
