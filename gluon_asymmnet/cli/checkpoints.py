"""``asymmnet checkpoints``: list, verify and prune the checkpoints of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from gluon_asymmnet.cli.subcommand import add_command

_LIST = """\
Reads every file, as a resume does.  "best" is the checkpoint of the best epoch.

example:
  asymmnet checkpoints list checkpoints/imagenet/asymmnet_large_baseline
"""
_VERIFY = """\
Compares every file with the size and the SHA-256 that its checkpoint's manifest holds.  Those that
a resume found damaged and set aside are named, and do not count.
Exit status: 0 all whole, 1 one is damaged.

example:
  asymmnet checkpoints verify checkpoints/imagenet/asymmnet_large_baseline
"""
_PRUNE = """\
The newest that is whole and that of the best epoch always stay, and so do damaged ones; those do
not count among the N.

example:
  asymmnet checkpoints prune checkpoints/imagenet/asymmnet_large_baseline --keep 1 --dry-run
"""


def add_parser(subparsers) -> argparse.ArgumentParser:
    """Add ``checkpoints`` and its commands; each sets ``run``."""
    parser = subparsers.add_parser(
        "checkpoints", help="list, verify and prune the checkpoints of a run", description=__doc__
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_run = _add_run_argument
    add_run(add_command(commands, "list", _list, "show the checkpoints of a run", _LIST))
    add_run(add_command(commands, "verify", _verify, "read every checkpoint through", _VERIFY))
    prune = add_command(commands, "prune", _prune, "remove old checkpoints", _PRUNE)
    add_run(prune)
    prune.add_argument(
        "--keep", type=_positive, default=3, metavar="N", help="how many stay (default: 3)"
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    return parser


def _add_run_argument(parser) -> None:
    parser.add_argument("folder", metavar="RUN", help="the directory of the run")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _folder(args) -> Path:
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.train.run_directory import CHECKPOINTS

    folder = Path(args.folder) / CHECKPOINTS
    if not folder.is_dir():
        raise InputError(f"{args.folder} holds no {CHECKPOINTS}/; expected the directory of a run")
    return folder


def _list(args) -> int:
    from gluon_asymmnet.train.checkpoint_files import (
        folder_bytes,
        list_set_aside,
        read_through,
    )

    folder = _folder(args)
    print(f"{'step':>9} {'epoch':>6} {'MB':>9} {'best':4} state")
    for one in read_through(folder):
        size = folder_bytes(one.checkpoint.path) / 1e6
        state = f"damaged: {one.reason}" if one.reason else "whole"
        epoch = "?" if one.epoch is None else one.epoch
        best = "best" if one.best else ""
        print(f"{one.checkpoint.step:>9} {epoch:>6} {size:>9.1f} {best:4} {state}")
    for path in list_set_aside(folder):
        print(f"{path.name}: damaged, set aside")
    return 0


def _verify(args) -> int:
    from gluon_asymmnet.train.checkpoint_files import list_set_aside, read_through

    folder, damaged, count = _folder(args), 0, 0
    for one in read_through(folder):
        count += 1
        if one.reason:
            damaged += 1
            print(f"{one.checkpoint.path}: {one.reason}")
    for path in list_set_aside(folder):
        print(f"{path}: set aside earlier")
    print(f"{count} checkpoints, {damaged} damaged")
    return 1 if damaged else 0


def _prune(args) -> int:
    from gluon_asymmnet.train.checkpoint_files import folder_bytes, remove, sort_out
    from gluon_asymmnet.train.run_directory import lock

    folder = _folder(args)
    with lock(Path(args.folder)):
        found = sort_out(folder, args.keep)
        for damage in found.damaged:
            print(f"{damage.checkpoint.path.name}: left alone, damaged: {damage.reason}")
        for checkpoint in found.removable:
            size = folder_bytes(checkpoint.path) / 1e6
            print(f"{checkpoint.path.name}: {'would go' if args.dry_run else 'removed'}, "
                  f"{size:.1f} MB")  # fmt: skip
            if not args.dry_run:
                remove(checkpoint)
    print(f"kept: {', '.join(c.path.name for c in found.kept) or 'none is whole'}")
    return 0
