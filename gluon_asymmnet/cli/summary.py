"""``asymmnet summary MODEL``."""


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "summary",
        help="parameters and multiply-adds of a model, layer by layer",
        description="Counted from the architecture, without building the net. "
        "1 multiply-add = 1 MAC; as in the paper only convolutions count.",
        epilog="example: asymmnet summary asymmnet_large_0.5 --classes 10",
    )
    parser.add_argument("model", help="e.g. asymmnet_large, asymmnet_small_0.5, mobilenetv3_large")
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
    import json

    from gluon_asymmnet.arch import feature_info
    from gluon_asymmnet.complexity import count
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.registry import plan_model, variant_id

    for name in ("classes", "input_size"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(args, name)}")
    variant, plan = plan_model(
        args.model, width=args.width, rate=args.rate, shuffle_groups=args.shuffle_groups,
        stem=args.stem,
    )  # fmt: skip
    cost = count(plan, classes=args.classes, input_size=args.input_size)
    totals = {
        "variant": variant_id(variant),
        "macs": cost.macs,
        "parameters": cost.parameters,
        "running_statistics": cost.running,
        "authors_miscount": cost.authors_parameters,
    }
    if args.json:
        print(json.dumps(totals, indent=1))
        return 0
    row = "{:<34} {:>14} {:>3} {:>2} {:>6} {:>9} {:>10} {:>13}".format
    print(row("layer", "channels", "k", "s", "groups", "output", "parameters", "MACs"))
    for layer, size, parameters, _, macs, _ in cost.layers:
        channels = f"{layer.in_channels} -> {layer.channels}"
        print(row(layer.path, channels, layer.kernel, layer.stride, layer.groups,
                  f"{size}x{size}", f"{parameters:,}", f"{macs:,}"))  # fmt: skip
    print(
        f"\n{totals['variant']}, {args.classes} classes, {args.input_size} x {args.input_size}:\n"
        f"  multiply-adds          {cost.macs:>13,}\n"
        f"  parameters             {cost.parameters:>13,}\n"
        f"  running statistics     {cost.running:>13,}  (not trained)\n"
        f"  authors' own count     {cost.authors_parameters:>13,}  (wrong: k weights of each k x k "
        f"kernel)"
    )
    maps = ", ".join(f"{i.name} (stride {i.stride}, {i.channels})" for i in feature_info(plan))
    print(f"  feature maps           {maps}")
    return 0
