"""``asymmnet runs``: a table of the training runs below a folder; ``asymmnet sweep`` makes them."""

import argparse
import dataclasses
import itertools
import json
import shlex
import subprocess
import sys

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.report.runs import find_runs, lines, table
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.utils.settings import flag_of

_BETWEEN = ("save_dir", "tag_name")  # the sweep names the runs


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``runs``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print the training runs in and below a folder, the best first: state, epochs, "
        "best score, and the settings in which they differ. Nothing is written.",
        epilog=f"example: {prog} checkpoints",
    )
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)
    return parser


def _run(args) -> int:
    return _print_table(args.folder, args.json)


def _print_table(folder, as_json: bool = False) -> int:
    rows = table(find_runs(folder), folder)
    print(json.dumps(rows, indent=1) if as_json else lines(rows))
    return 0


def sweep_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``sweep``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} [-h] [--print] DIR SETTING=VALUE,VALUE... [...] -- FLAGS OF asymmnet train",
        description="Train with every combination of the values, one run after the other, each in "
        "a process of its own, and print the table of `asymmnet runs DIR`. The runs are named by "
        "their values: repeat the command to go on after an interruption; finished runs stay.",
        epilog=f"example: {prog} sweeps lr=0.05,0.1 wd=0,1e-4 -- --recipe demo --rec-train "
        "digits/train.rec --rec-val digits/val.rec",
    )
    parser.add_argument("--print", action="store_true", help="print the commands, and stop")
    parser.add_argument("folder", metavar="DIR", help="folder of the runs")
    parser.add_argument("grid", nargs="+", metavar="SETTING=VALUES")
    parser.set_defaults(run=_sweep)
    return parser


def _sweep(args) -> int:
    swept = list(itertools.takewhile(lambda item: not item.startswith("-"), args.grid))
    flags = args.grid[len(swept) :]
    if not swept or not all("=" in item for item in swept):
        raise InputError("give settings as lr=0.05,0.1 before --, and the flags of train after it")
    commands = list(_commands(args.folder, dict(map(_values, swept)), flags))
    if args.print:
        print("\n".join(shlex.join(["asymmnet", *command]) for command in commands))
        return 0
    failed = 0
    for number, command in enumerate(commands, start=1):
        print(f"run {number} of {len(commands)}: {shlex.join(command)}", file=sys.stderr)
        status = subprocess.run([sys.executable, "-m", "gluon_asymmnet", *command]).returncode
        if status > 128 or status < 0:
            return status if status > 0 else 128 - status  # stopped by a signal: so is the sweep
        failed += status != 0
    _print_table(args.folder)
    if failed:
        print(f"{failed} of {len(commands)} runs failed, see above", file=sys.stderr)
    return 1 if failed else 0


def _values(item: str) -> tuple[str, list[str]]:
    name, _, values = item.partition("=")
    name = name.lstrip("-").replace("-", "_")
    fields = {f.name: f for f in dataclasses.fields(ClassifierConfig) if f.name not in _BETWEEN}
    if name not in fields or isinstance(fields[name].default, (bool, tuple)):
        raise InputError(f"{item}: no setting of asymmnet train with one value is named {name}")
    found = [value for value in values.split(",") if value]
    if not found or len(set(found)) < len(found):
        raise InputError(f"{item}: expected different values, with commas: lr=0.05,0.1")
    return name, found


def _commands(folder: str, grid: dict[str, list[str]], flags: list[str]):
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values))
        tag = "-".join(f"{name}={value}".replace("/", "_") for name, value in chosen.items())
        settings = [x for n, v in chosen.items() for x in (flag_of(ClassifierConfig, n), v)]
        yield ["train", *flags, *settings, "--tag-name", tag, "--save-dir", folder]
