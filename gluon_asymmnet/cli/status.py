"""``asymmnet status``: how a training run goes, from another terminal."""

import argparse

DESCRIPTION = (
    "Say whether a run goes on, how far it is, when it will end, its last figures, its newest "
    "checkpoint and its last events. It only reads."
)


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "status", help="say how a training run goes", description=DESCRIPTION,
        epilog="example: asymmnet status checkpoints/imagenet/asymmnet_large_baseline --watch 10",
    )  # fmt: skip
    parser.add_argument("path", metavar="RUN", help="directory of the run")
    parser.add_argument(
        "--watch", type=_seconds, metavar="SECONDS",
        help="say it again every so many seconds, until the run ends",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, one line each time")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Print the state of a run, once or again and again."""
    import json
    import sys
    import time

    from gluon_asymmnet.report.status import lines, status

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
