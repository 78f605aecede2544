"""The ``asymmnet`` command.

Each command is a module with ``build_parser(prog)``, and only the chosen one is loaded.  MXNet
takes seconds to load and reads the number of CPU threads when it is loaded.  So no module here
loads it at the top: ``run`` calls ``set_threads`` and then imports the modules that need MXNet.
"""

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from gluon_asymmnet import __version__
from gluon_asymmnet.errors import InputError, RunError, did_you_mean
from gluon_asymmnet.utils.registry import import_modules
from gluon_asymmnet.utils.threads import set_threads

USER_MISTAKE, FAILURE, INTERRUPTED = 2, 1, 130


class Command(NamedTuple):
    """Where the parser of a command is built."""

    module: str  # of this package
    help: str  # for the list of commands
    function: str = "build_parser"


COMMANDS = {
    "doctor": Command("doctor", "check this machine: versions, CPU, engines, optional packages"),
    "summary": Command("summary", "print parameters and multiply-adds of a model, layer by layer"),
    "records": Command("records", "build, verify, repair, count and split record files"),
    "voc": Command("voc", "check, download, convert and make Pascal VOC folders"),
    "fetch": Command("fetch", "download the authors' published checkpoint and check it"),
    "train": Command("train", "train an image classifier", "classifier_parser"),
    "train-ssd": Command("train", "train a detector", "detector_parser"),
    "launch": Command("launch", "train with several processes or machines"),
    "status": Command("status", "print the progress of a training run"),
    "runs": Command("runs", "print a table of training runs"),
    "sweep": Command("runs", "train with every combination of some settings", "sweep_parser"),
    "checkpoints": Command("checkpoints", "list, verify and prune the checkpoints of a run"),
    "report": Command("report", "write an HTML report about training runs"),
    "eval": Command("evaluate", "evaluate a classifier or a detector"),
    "reproduce": Command("reproduce", "compare the published weights with the published accuracy"),
    "predict": Command("predict", "classify images"),
    "detect": Command("detect", "find objects in images"),
    "export": Command(
        "export", "export a model: symbol, ONNX, OpenVINO, ncnn, web page, all, int8"
    ),
    "convert": Command("convert", "convert weights: Gluon, PyTorch, safetensors, NumPy"),
    "decompose": Command("decompose", "make regular convolutions depthwise and pointwise"),
    "search": Command("search", "search for a better network within budgets"),
}
PRINT_JSON = ("doctor", "summary", "status", "search")  # whose --json takes no file
ALIASES = {"optimize": "search"}  # earlier names


def main(argv: Optional[Sequence[str]] = None, prog: str = "") -> int:
    """Run the command line and return its exit status.

    Args:
        argv: the command and its arguments; by default those of this process.
        prog: program name for help and messages; by default ``asymmnet COMMAND``.
    """
    if "_ARGCOMPLETE" in os.environ:
        from gluon_asymmnet.cli.completion import complete

        complete(COMMANDS, ALIASES)
    argv = list(sys.argv[1:] if argv is None else argv)
    name = _parser().parse_args(argv[:1]).command
    prog = prog or f"asymmnet {name}"

    def run() -> int:
        module = importlib.import_module(f"{__name__}.{COMMANDS[name].module}")
        parser = getattr(module, COMMANDS[name].function)(prog)
        args = parser.parse_args(_flag_alone(name, argv[1:]))
        if getattr(args, "imports", None):
            set_threads(getattr(args, "threads", 0))  # before own parts load MXNet
            import_modules(args.imports)
        return _run(args)

    return guarded(run, prog)


def _flag_alone(name: str, arguments: list[str]) -> list[str]:
    """Drop the dash of ``--json -`` where the flag alone prints."""
    pairs = zip(["", *arguments], arguments)
    dash = name in PRINT_JSON and ("--json", "-")
    return [argument for before, argument in pairs if (before, argument) != dash]


def _run(args) -> int:
    """Run a command; with ``--json -``, standard output has the JSON alone."""
    if getattr(args, "json", None) != "-":
        return args.run(args)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"
        args.json = str(file)
        with contextlib.redirect_stdout(sys.stderr):
            status = args.run(args)
        if file.exists():
            print(file.read_text(encoding="utf-8"), end="")
    return status


def _parser() -> argparse.ArgumentParser:
    """Return the parser of what precedes the arguments of a command."""
    parser = argparse.ArgumentParser(
        prog="asymmnet",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description="AsymmNet (arXiv:2104.07770): train, evaluate, export.\n\ncommands:\n"
        + "\n".join(f"  {name:<12} {command.help}" for name, command in COMMANDS.items()),
        epilog="asymmnet COMMAND --help describes a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gluon_asymmnet {__version__}")
    parser.add_argument("command", metavar="COMMAND", type=_command, help=argparse.SUPPRESS)
    return parser


def _command(name: str) -> str:
    name = ALIASES.get(name, name)
    if name in COMMANDS:
        return name
    hint = did_you_mean(name, COMMANDS, "; asymmnet --help lists all")
    raise argparse.ArgumentTypeError(f"unknown command {name!r}{hint}")


def guarded(function: Callable[[], int], prog: str) -> int:
    """Call ``function``; print errors raised on purpose as one line and return an exit status.

    2: the user's mistake; 1: a failure; 130: Ctrl-C.  Anything else is a bug, with its traceback.
    """
    try:
        return function() or 0
    except (InputError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        return _print_error(prog, error, USER_MISTAKE)
    except BrokenPipeError:
        # The reader of our output is gone, e.g. `| head`: print nothing more, not even an error.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except (RunError, OSError, MemoryError) as error:
        return _print_error(prog, error, FAILURE)
    except KeyboardInterrupt:
        return _print_error(prog, "interrupted", INTERRUPTED)


def _print_error(prog: str, error, status: int) -> int:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    print(f"{prog}: {' '.join(text.split()) or type(error).__name__}", file=sys.stderr)
    return status
