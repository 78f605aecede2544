"""``asymmnet decompose PATH OUT``."""

import argparse
import math
import sys
from pathlib import Path

from gluon_asymmnet.cli.options import (
    add_model_flags,
    add_threads_flag,
    open_model,
    require_positive,
)
from gluon_asymmnet.compress.options import METHODS, Options
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.threads import set_threads


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``decompose``."""
    default = Options()
    methods = "; ".join(f"{name}: {method.help}" for name, method in METHODS.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Replace regular convolutions of a trained network by depthwise and pointwise "
        "ones. OUT gets spec.json and last.params, from which training can continue; a card, so "
        "that eval and export take OUT like a run directory; and decomposition.json, a report by "
        "layer.",
        epilog="example: asymmnet decompose runs/custom/shufflenetv2_regular_baseline small "
        "--rec-train train.rec --merge; then train_imagenet.py --model small/spec.json "
        "--resume-params small/last.params ...",
    )
    add_model_flags(parser)
    parser.add_argument("out", help="folder to write; must not exist")
    group = parser.add_argument_group("decomposition")
    group.add_argument(
        "--method", choices=tuple(METHODS), default=default.method,
        help=f"(default {default.method}) {methods}",
    )  # fmt: skip
    group.add_argument(
        "-m", "--multiplier", type=int, default=default.multiplier,
        help="depthwise filters per channel, 9 is exact for 3 x 3 (default %(default)s); the "
        "baseline gets the rank of equal cost",
    )  # fmt: skip
    group.add_argument(
        "--layers", default=None, metavar="REGEX",
        help="paths of the convolutions (default: all regular ones above 1 x 1 that become "
        "cheaper, except those that read the image)",
    )  # fmt: skip
    group.add_argument(
        "--merge",
        action="store_true",
        help="merge into the 1 x 1 convolution after the normalisation, where there is one",
    )
    group.add_argument(
        "--sweeps",
        type=int,
        default=default.sweeps,
        help="further rounds over the channels, our addition (default %(default)s)",
    )
    group.add_argument(
        "--joint",
        action="store_true",
        help="least squares for all pointwise weights at the end, our addition",
    )
    data = parser.add_argument_group("data")
    data.add_argument("--rec-train", default="", help="training records")
    data.add_argument("--rec-train-idx", default="", help="their index (default: the .idx beside)")
    data.add_argument("--data-dir", default="", help="tree of one folder per class, instead")
    data.add_argument("--images", type=int, default=256, help="to sample from (default 256)")
    data.add_argument(
        "--positions",
        type=int,
        default=default.positions,
        help="sampled in each image, for each layer (default %(default)s)",
    )
    data.add_argument("--batch-size", type=int, default=32, help="(default 32)")
    data.add_argument("--seed", type=int, default=0, help="of the positions (default 0)")
    data.add_argument(
        "--memory", type=float, default=default.memory / 2**30, metavar="GIB",
        help="that the second moments of a layer may take (default %(default)g)",
    )  # fmt: skip
    add_threads_flag(parser)
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Decompose, write, and print the costs before and after."""
    if args.rec_train and args.data_dir:
        raise InputError("give --rec-train or --data-dir, not both")
    if not 0 < args.memory < math.inf:
        raise InputError(f"--memory must be a number of GiB above 0, got {args.memory}")
    require_positive(args, "images", "batch_size")
    if Path(args.out).exists():
        raise InputError(f"{args.out} exists already; remove it or choose another place")
    set_threads(args.threads)  # NumPy's linear algebra reads it when it is loaded, as MXNet does
    from gluon_asymmnet.compress.model import decompose_model, write_decomposed

    model = open_model(args)
    options = Options(
        args.method, args.multiplier, args.sweeps, args.joint, args.merge, args.positions,
        args.seed, int(args.memory * 2**30),
    )  # fmt: skip

    def progress(layer) -> None:
        error = "" if layer.error is None else f", relative error {layer.error:.4f}"
        kept = {k: v for k, v in layer.form.items() if k in ("multiplier", "rank")}
        shown = ", ".join(f"{k} {v}" for k, v in kept.items())
        merged = ", merged" if "norm" in layer.form else ""
        print(f"{layer.path}: {shown}{merged}{error}", file=sys.stderr, flush=True)

    smaller, report = decompose_model(
        model, _batches(args, model.card), options, pattern=args.layers, progress=progress
    )
    out = write_decomposed(smaller, report, args.out)
    for name in ("parameters", "macs"):
        before, after = (report[when][name] for when in ("before", "after"))
        print(f"{name}: {before:,} -> {after:,} ({after / before:.3f})")
    print(f"written: {', '.join(sorted(str(p) for p in out.iterdir()))}")
    return 0


def _batches(args, card):
    """Return a function that iterates over the sampled images; None without ``--rec-train``."""
    if not (args.rec_train or args.data_dir):
        return None
    from gluon_asymmnet.compress.model import sampled_batches
    from gluon_asymmnet.data.sources import open_source

    source = open_source(rec=args.rec_train, idx=args.rec_train_idx, folder=args.data_dir)
    return sampled_batches(source, card.preprocessing, args.images, args.batch_size)
