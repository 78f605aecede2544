"""The ``asymmnet`` command.

Each subcommand is a module with ``add_parser(subparsers)``; these import nothing heavy, so that
``--help`` answers at once.
"""

import argparse
import contextlib
import os
import sys
from typing import Callable

from gluon_asymmnet import __version__
from gluon_asymmnet.errors import InputError, RunError

USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


def main(argv=None) -> int:
    """Run the command line and return its exit status."""
    from gluon_asymmnet.cli import (
        checkpoints,
        convert,
        decompose,
        detect,
        doctor,
        evaluate,
        export,
        fetch,
        launch,
        optimize,
        predict,
        records,
        report,
        reproduce,
        status,
        summary,
        train,
        train_ssd,
        voc,
    )

    parser = argparse.ArgumentParser(
        prog="asymmnet", description="AsymmNet (arXiv:2104.07770): train, evaluate, export."
    )
    parser.add_argument("--version", action="version", version=f"gluon_asymmnet {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modules = (
        doctor, summary, records, voc, fetch, train, train_ssd, checkpoints, evaluate, predict,
        status, report, detect, reproduce, convert, decompose, optimize, export, launch,
    )  # fmt: skip
    for module in modules:
        module.add_parser(subparsers)
    args = parser.parse_args(argv)
    return guarded(lambda: args.run(args), f"asymmnet {args.command}")


def guarded(function: Callable[[], int], prog: str) -> int:
    """Turn the errors raised on purpose into one line and an exit status.

    2: the user's mistake; 1: a failure; 130: Ctrl-C.  Anything else is a bug, with its traceback.
    """
    try:
        return function() or 0
    except (InputError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        return _say(prog, error, USER_MISTAKE)
    except BrokenPipeError:
        # The reader of our output is gone, e.g. `| head`: nothing to say, nobody to say it to.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except (RunError, OSError, MemoryError) as error:
        return _say(prog, error, FAILURE)
    except KeyboardInterrupt:
        return _say(prog, "interrupted", INTERRUPTED)


def _say(prog: str, error, status: int) -> int:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    print(f"{prog}: {' '.join(text.split()) or type(error).__name__}", file=sys.stderr)
    return status
