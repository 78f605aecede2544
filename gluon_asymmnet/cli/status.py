"""``asymmnet status``: the progress of a training run, from another terminal."""

import argparse
import json
import sys
import time

from gluon_asymmnet.report.status import lines, status


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``status``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print whether a run is still training, its progress and expected end, its "
        "last loss and accuracy, its newest checkpoint and last events. Nothing is written.",
        epilog="example: asymmnet status checkpoints/imagenet/asymmnet_large_baseline --watch 10",
    )
    parser.add_argument("path", metavar="RUN", help="directory of the run")
    parser.add_argument(
        "--watch", type=_seconds, metavar="SECONDS",
        help="print it again every SECONDS, until the run ends",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, one line each time")
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Print the state of a run, once or every ``--watch`` seconds."""
    clear = "\033[H\033[2J" if args.watch and sys.stdout.isatty() and not args.json else ""
    while True:
        found = status(args.path)
        print(clear + (json.dumps(found) if args.json else lines(found)), flush=True)
        if not args.watch or found["state"] != "running":
            return 0
        time.sleep(args.watch)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, 0.1 to 86400")
    return seconds
