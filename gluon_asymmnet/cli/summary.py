"""``asymmnet summary MODEL``."""

import argparse
import json

from gluon_asymmnet.arch import feature_info
from gluon_asymmnet.cli.options import add_import_flag, require_positive
from gluon_asymmnet.models.complexity import count_model, layer_parameters
from gluon_asymmnet.models.registry import ModelSpec


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``summary``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Print parameters and multiply-adds (MACs) of a model, layer by layer. "
        "AsymmNet and MobileNetV3 are counted from their architecture, without building the "
        "network, others from their graph. Only convolutions have multiply-adds, as in the paper.",
        epilog="example: asymmnet summary asymmnet_large_0.5 --classes 10",
    )
    parser.add_argument("model", help="e.g. asymmnet_large, asymmnet_small_0.5, or a spec file")
    parser.add_argument("--width", type=float, help="width multiplier (default: the name's, or 1)")
    parser.add_argument("--rate", type=int, help="the paper's r (default: the model's)")
    parser.add_argument("--shuffle-groups", type=int, default=0, help="channel shuffle (default 0)")
    parser.add_argument("--stem", default="authors", choices=("authors", "scaled"))
    parser.add_argument("--classes", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--input-size", type=int, default=224, help="pixels (default 224)")
    add_import_flag(parser)
    parser.add_argument("--json", action="store_true", help="print the totals as JSON")
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Print the table."""
    require_positive(args, "classes", "input_size")
    spec = ModelSpec.parse(
        args.model, width=args.width, rate=args.rate, shuffle_groups=args.shuffle_groups,
        stem=args.stem,
    )  # fmt: skip
    cost = count_model(spec, classes=args.classes, input_size=args.input_size)
    if args.json:
        return _print_json(spec.id, cost)
    planned = spec.family_model is None
    (_print_planned_layers if planned else _print_operators)(cost)
    print(
        f"\n{spec.id}, {args.classes} classes, {args.input_size} x {args.input_size}:\n"
        f"  multiply-adds          {cost.macs:>13,}\n"
        f"  parameters             {cost.parameters:>13,}\n"
        f"  running statistics     {cost.running:>13,}  (not trained)"
    )
    if planned:
        _print_more(spec, cost)
    return 0


def _print_json(variant: str, cost) -> int:
    totals = {
        "variant": variant,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "running_statistics": cost.running,
    }
    if cost.authors_parameters is not None:
        totals["authors_miscount"] = cost.authors_parameters
    print(json.dumps(totals, indent=1))
    return 0


def _print_operators(cost) -> None:
    """Print the operators with weights of a network counted from its graph."""
    row = "{:<50} {:>18} {:>18} {:>13}".format
    print(row("operator", "weight", "output", "MACs"))
    for layer in cost.layers:
        shapes = ("x".join(map(str, shape)) for shape in (layer.weight, layer.output[1:]))
        print(row(layer.name, *shapes, f"{layer.macs:,}"))


def _print_planned_layers(cost) -> None:
    """Print the convolutions of a network counted from its plan."""
    row = "{:<34} {:>14} {:>3} {:>2} {:>6} {:>9} {:>10} {:>13}".format
    print(row("layer", "channels", "k", "s", "groups", "output", "parameters", "MACs"))
    for _, _, output, macs, layer in cost.layers:
        channels = f"{layer.in_channels} -> {layer.channels}"
        side = "x".join(map(str, output[2:]))
        print(row(layer.path, channels, layer.kernel, layer.stride, layer.groups, side,
                  f"{layer_parameters(layer):,}", f"{macs:,}"))  # fmt: skip


def _print_more(spec, cost) -> None:
    """Print the authors' count and the feature maps of an AsymmNet or MobileNetV3."""
    print(
        f"  authors' own count     {cost.authors_parameters:>13,}  (wrong: k weights of each k x k "
        f"kernel)"
    )
    maps = ", ".join(
        f"{i.name} (stride {i.stride}, {i.channels})" for i in feature_info(spec.plan())
    )
    print(f"  feature maps           {maps}")
