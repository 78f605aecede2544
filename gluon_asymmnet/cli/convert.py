"""``asymmnet convert``: weights from any of the known formats to another."""


def add_parser(subparsers) -> None:
    """Add ``convert`` to the subcommands of ``asymmnet``."""
    from gluon_asymmnet.weights.layouts import FORMATS

    parser = subparsers.add_parser(
        "convert",
        help="weights from one format to another: Gluon, PyTorch, safetensors, NumPy",
        description="Convert weights without loss.  What the input holds is found out by reading "
        "it; nothing in it is executed.",
        epilog="ours, released, published: .params with this package's names, those of the "
        "authors' released code and those of their checkpoint.  torch, torch-ours: .pt with the "
        "names of the authors' PyTorch port and of gluon_asymmnet.torch.  safetensors, npz: "
        "this package's names.",
    )
    parser.add_argument("source", metavar="IN", help="a .params, .pt, .safetensors or .npz file")
    parser.add_argument("out", metavar="OUT", help="the file to write; its folder must exist")
    parser.add_argument("--to", required=True, choices=list(FORMATS), help="what to write")
    parser.add_argument(
        "--model", help="only for unusual widths, which are not found: e.g. asymmnet_large_0.6"
    )
    parser.add_argument("--width", type=float, help="its width multiplier")
    parser.add_argument("--rate", type=int, help="its rate")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Convert, and print what it was."""
    from gluon_asymmnet.weights.convert import convert

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
