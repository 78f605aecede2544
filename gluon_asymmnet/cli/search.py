"""``asymmnet search MODEL --budget-macs N --budget-params N --out SPEC.json``."""

import argparse
import json

from gluon_asymmnet.cli.options import add_import_flag, require_positive
from gluon_asymmnet.compress.search import optimize
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import FAMILY_MODELS, ModelSpec
from gluon_asymmnet.utils.atomic import write_text

_FAMILY = "rpw"


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``search``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Search for a better network within budgets, without training. Networks are "
        "compared by the 3D receptive field of their stages, a measure of this project "
        "(docs/search.md). The search changes widths, removes units, pools earlier and replaces "
        "units by depthwise + RPW ones. The spec can be used as any model: train_imagenet.py "
        "--model SPEC.json.",
        epilog="example: asymmnet search cifar_vgg16 --budget-macs 30M --budget-params 1M "
        "--out vgg16_small.json",
    )
    parser.add_argument(
        "model", help=f"a network of the family {_FAMILY}, e.g. cifar_vgg16, or its spec file"
    )
    for flag, what in (("--budget-macs", "multiply-adds"), ("--budget-params", "parameters")):
        parser.add_argument(
            flag, type=_number, metavar="N",
            help=f"largest number of {what}, e.g. 300000, 300k or 1.5M (default: those of MODEL)",
        )  # fmt: skip
    parser.add_argument("--width", type=float, help="of MODEL (default: the name's, or 1)")
    parser.add_argument("--classes", type=int, default=10, help="(default 10)")
    parser.add_argument("--input-size", type=int, default=32, help="pixels (default 32)")
    parser.add_argument("--out", required=True, metavar="SPEC.json", help="the spec to write")
    parser.add_argument("--json", action="store_true", help="print the proposal as JSON")
    add_import_flag(parser)
    parser.set_defaults(run=run)
    return parser


def _number(text: str) -> int:
    factor = {"k": 1e3, "m": 1e6, "g": 1e9}.get(text[-1:].lower())
    try:
        return round(float(text[:-1]) * factor) if factor else round(float(text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"expected a number as 300000 or 1.5M: {text}") from None


def run(args) -> int:
    """Write the spec, and print the changes stage by stage."""
    require_positive(args, "classes", "input_size")
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
    from gluon_asymmnet.models.build import build_classifier

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
