"""``asymmnet search MODEL --budget-macs N --budget-params N --out SPEC.json``."""

import argparse

_FAMILY = "rpw"


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "search",
        aliases=["optimize"],
        help="propose a smaller or better-shaped net within budgets, and write its spec",
        description="Nothing is trained: a net is judged by the 3D receptive field of its stages, "
        "a measure of this project's own (docs/optimizer.md).  Stages get other widths, fewer "
        "units and an earlier pool; units become depthwise + RPW.  The spec file is a model as "
        "any other: train_imagenet.py --model SPEC.json.",
        epilog="example: asymmnet search cifar_vgg16 --budget-macs 30M --budget-params 1M "
        "--out vgg16_small.json",
    )
    parser.add_argument(
        "model", help=f"a net of the family {_FAMILY}, e.g. cifar_vgg16, or its spec file"
    )
    for flag, what in (("--budget-macs", "multiply-adds"), ("--budget-params", "parameters")):
        parser.add_argument(
            flag, type=_number, metavar="N",
            help=f"{what} at most, e.g. 300000, 300k or 1.5M (default: those of MODEL)",
        )  # fmt: skip
    parser.add_argument("--width", type=float, default=1.0, help="of MODEL (default 1.0)")
    parser.add_argument("--classes", type=int, default=10, help="(default 10)")
    parser.add_argument("--input-size", type=int, default=32, help="pixels (default 32)")
    parser.add_argument("--out", required=True, metavar="SPEC.json", help="the spec to write")
    parser.add_argument("--json", action="store_true", help="print the proposal as JSON")
    parser.set_defaults(run=run)


def _number(text: str) -> int:
    factor = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:].lower())
    try:
        return round(float(text[:-1]) * factor) if factor else round(float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected a number as 300000 or 1.5M: {text}") from None


def run(args) -> int:
    """Write the spec, and print what it changes and why."""
    import json

    from gluon_asymmnet.compress.search import optimize
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.utils.atomic import write_text

    for name in ("classes", "input_size"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(args, name)}")
    if not args.out.endswith(".json"):
        raise InputError(f"--out must end with .json, or it names no model: {args.out}")
    net = _open(args)
    proposal = optimize(
        net.stages, budget_macs=args.budget_macs, budget_params=args.budget_params,
        classes=args.classes, input_size=args.input_size, rule=net.rule,
    )  # fmt: skip
    write_text(args.out, json.dumps(proposal.spec, indent=1) + "\n")
    found = proposal.as_json()
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _print(found, args.out)
    return 0


def _open(args):
    """Build the model, without weights."""
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.models.build import build_classifier
    from gluon_asymmnet.models.registry import FAMILY_MODELS, ModelSpec

    spec = ModelSpec.parse(args.model, width=args.width)
    row = spec.family_model
    if row is None or row.family != _FAMILY:
        fitting = ", ".join(sorted(n for n, r in FAMILY_MODELS.items() if r.family == _FAMILY))
        raise InputError(
            f"{args.model} cannot be optimized: its blocks are not listed stage by stage, as "
            f"those of the family {_FAMILY} are; expected one of {fitting}, or a spec file"
        )
    return build_classifier(spec, classes=args.classes, input_size=args.input_size)


def _print(found: dict, out: str) -> None:
    row = "{:<6} {:<44} {:>10} {:>12} {:>12}".format
    print(row("stage", "units", "volume", "MACs", "parameters"))
    for number, stage in enumerate(found["stages"]):
        for moment in (0, 1):
            numbers = (f"{stage[key][moment]:,.0f}" for key in ("volume", "macs", "parameters"))
            print(row("" if moment else number, ("-> " if moment else "") + stage["units"][moment],
                      *numbers))  # fmt: skip
    for key, what in (("macs", "multiply-adds"), ("parameters", "parameters")):
        before, after = found[key]
        print(f"{what:<14} {before:>13,} -> {after:>13,}  ({after / before:.1%})")
    before, after = found["value"]
    print(f"{'value':<14} {before:>13.2f} -> {after:>13.2f}  bits: log2 of the volumes, summed")
    print(f"written: {out}")
