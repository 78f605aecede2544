"""``asymmnet checkpoints``: list, verify and prune the checkpoints of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from gluon_asymmnet.cli.options import add_command, positive_int
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train.checkpoint_files import (
    folder_bytes,
    list_set_aside,
    read_through,
    remove,
    sort_out,
)
from gluon_asymmnet.train.run_directory import CHECKPOINTS, lock

_LIST = """\
Reads every file, as resuming a run does.  "best" is the checkpoint of the best epoch.

example:
  asymmnet checkpoints list checkpoints/imagenet/asymmnet_large_baseline
"""
_VERIFY = """\
Compares the size and SHA-256 of every file with the manifest of its checkpoint.  Checkpoints that
were found damaged and set aside when a run was resumed are listed, but do not count.
Exit status: 0 if all are complete, 1 if one is damaged.

example:
  asymmnet checkpoints verify checkpoints/imagenet/asymmnet_large_baseline
"""
_PRUNE = """\
The newest complete checkpoint and the one of the best epoch are never removed.  Damaged checkpoints
stay too, and do not count among the N.

example:
  asymmnet checkpoints prune checkpoints/imagenet/asymmnet_large_baseline --keep 1 --dry-run
"""


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``checkpoints`` and its commands."""
    parser = argparse.ArgumentParser(
        prog=prog, description="List, verify and prune the checkpoints of a run."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    list_ = add_command(commands, "list", _list, "show the checkpoints of a run", _LIST)
    verify = add_command(
        commands, "verify", _verify, "check the files of every checkpoint", _VERIFY
    )
    prune = add_command(commands, "prune", _prune, "remove old checkpoints", _PRUNE)
    for command in (list_, verify, prune):
        command.add_argument("folder", metavar="RUN", help="the directory of the run")
    prune.add_argument(
        "--keep", type=positive_int, default=3, metavar="N", help="how many to keep (default: 3)"
    )
    prune.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    return parser


def _folder(args) -> Path:
    folder = Path(args.folder) / CHECKPOINTS
    if not folder.is_dir():
        raise InputError(f"{args.folder} holds no {CHECKPOINTS}/; expected the directory of a run")
    return folder


def _list(args) -> int:
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
