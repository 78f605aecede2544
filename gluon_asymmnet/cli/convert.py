"""``asymmnet convert``: weights from any of the known formats to another."""

import argparse

from gluon_asymmnet.weights.convert import convert
from gluon_asymmnet.weights.layouts import FORMATS


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``convert``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Convert weights of AsymmNet and MobileNetV3 without loss; other networks, own "
        "ones too, are exported instead.  The format and the model are recognised from "
        "the content of the input; no code in it is executed.",
        epilog="formats: ours, released and published are .params files with the names of this "
        "package, of the authors' released code and of their checkpoint; torch and torch-ours are "
        ".pt files with the names of the authors' PyTorch port and of gluon_asymmnet.torch; "
        "safetensors and npz have the names of this package.",
    )
    parser.add_argument("source", metavar="IN", help="a .params, .pt, .safetensors or .npz file")
    parser.add_argument("out", metavar="OUT", help="the file to write; its folder must exist")
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="format to write")
    parser.add_argument(
        "--model", help="only for unusual widths, which are not recognised: e.g. asymmnet_large_0.6"
    )
    parser.add_argument("--width", type=float, help="its width multiplier")
    parser.add_argument("--rate", type=int, help="its rate")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Convert, and print the model and both formats."""
    done = convert(
        args.source, args.out, args.to, model=args.model, width=args.width, rate=args.rate,
        overwrite=args.overwrite,
    )  # fmt: skip
    print(
        f"{done.model.id}, {done.classes} classes, {done.arrays} arrays: "
        f"{done.source_layout} layout to {args.to}"
    )
    for note in done.notes:
        print(f"note: {note}")
    print(f"written: {args.out}")
    return 0
