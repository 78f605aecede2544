"""``asymmnet summary MODEL``."""


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "summary",
        help="parameters and multiply-adds of a model, layer by layer",
        description="AsymmNet and MobileNetV3 are counted from the architecture, without building "
        "the net, others from their graph. 1 multiply-add = 1 MAC; as in the paper only "
        "convolutions count.",
        epilog="example: asymmnet summary asymmnet_large_0.5 --classes 10",
    )
    parser.add_argument("model", help="e.g. asymmnet_large, asymmnet_small_0.5, or a spec file")
    parser.add_argument("--width", type=float, default=1.0, help="width multiplier (default 1.0)")
    parser.add_argument("--rate", type=int, default=1, help="the paper's r (default 1)")
    parser.add_argument("--shuffle-groups", type=int, default=0, help="channel shuffle (default 0)")
    parser.add_argument("--stem", default="authors", choices=("authors", "scaled"))
    parser.add_argument("--classes", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--input-size", type=int, default=224, help="pixels (default 224)")
    parser.add_argument("--json", action="store_true", help="print the totals as JSON")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Print the table."""
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.models.registry import find_related, parse_name, variant_id
    from gluon_asymmnet.zoo import cost_of

    for name in ("classes", "input_size"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(args, name)}")
    variant = parse_name(args.model, args.width, args.rate)
    graph = find_related(args.model if args.model.endswith(".json") else variant.name)
    cost = cost_of(
        args.model, width=args.width, rate=args.rate, shuffle_groups=args.shuffle_groups,
        stem=args.stem, classes=args.classes, input_size=args.input_size,
    )  # fmt: skip
    if args.json:
        return _print_json(variant_id(variant), cost)
    (_print_graph if graph else _print_plan)(cost)
    print(
        f"\n{variant_id(variant)}, {args.classes} classes, {args.input_size} x {args.input_size}:\n"
        f"  multiply-adds          {cost.macs:>13,}\n"
        f"  parameters             {cost.parameters:>13,}\n"
        f"  running statistics     {cost.running:>13,}  (not trained)"
    )
    if not graph:
        _print_more(args, cost)
    return 0


def _print_json(variant: str, cost) -> int:
    import json

    totals = {
        "variant": variant,
        "macs": cost.macs,
        "parameters": cost.parameters,
        "running_statistics": cost.running,
    }
    if hasattr(cost, "authors_parameters"):
        totals["authors_miscount"] = cost.authors_parameters
    print(json.dumps(totals, indent=1))
    return 0


def _print_graph(cost) -> None:
    """Print the operators with weights of a net that was counted from its graph."""
    row = "{:<50} {:>18} {:>18} {:>13}".format
    print(row("operator", "weight", "output", "MACs"))
    for name, weight, output, macs in cost.layers:
        shapes = ("x".join(map(str, shape)) for shape in (weight, output[1:]))
        print(row(name, *shapes, f"{macs:,}"))


def _print_plan(cost) -> None:
    """Print the convolutions of a net that was counted from its plan."""
    row = "{:<34} {:>14} {:>3} {:>2} {:>6} {:>9} {:>10} {:>13}".format
    print(row("layer", "channels", "k", "s", "groups", "output", "parameters", "MACs"))
    for layer, size, parameters, _, macs, _ in cost.layers:
        channels = f"{layer.in_channels} -> {layer.channels}"
        print(row(layer.path, channels, layer.kernel, layer.stride, layer.groups,
                  f"{size}x{size}", f"{parameters:,}", f"{macs:,}"))  # fmt: skip


def _print_more(args, cost) -> None:
    """Print what is known of AsymmNet and MobileNetV3 only."""
    from gluon_asymmnet.arch import feature_info
    from gluon_asymmnet.models.registry import plan_model

    _, plan = plan_model(
        args.model, width=args.width, rate=args.rate, shuffle_groups=args.shuffle_groups,
        stem=args.stem,
    )  # fmt: skip
    print(
        f"  authors' own count     {cost.authors_parameters:>13,}  (wrong: k weights of each k x k "
        f"kernel)"
    )
    maps = ", ".join(f"{i.name} (stride {i.stride}, {i.channels})" for i in feature_info(plan))
    print(f"  feature maps           {maps}")
