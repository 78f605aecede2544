"""``asymmnet bench``, the same as ``benchmark.py``."""


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench", help="measure speed and memory side by side", description=DESCRIPTION
    )
    add_flags(parser)
    parser.set_defaults(run=run)


DESCRIPTION = (
    "Measure contenders in turn, round by round, each in a process of its own: the net as the "
    "authors wrote it, ours in each form and engine, GluonCV's MobileNetV3, PyTorch. Needs the "
    "extras onnx, openvino and torch; what is missing is left out."
)


def add_flags(parser) -> None:
    """Add the settings; also used by ``benchmark.py``."""
    parser.add_argument("what", choices=("infer", "train", "all", "scaling"))
    parser.add_argument("--models", default="asymmnet_large", help="comma-separated")
    parser.add_argument("--widths", default="1.0", help="comma-separated")
    parser.add_argument("--batches", default="", help="(default 1,32; training 32)")
    parser.add_argument("--sizes", default="224", help="pixels, comma-separated")
    parser.add_argument("--threads", default="1,2", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=7, help="(default 7)")
    parser.add_argument("--only", default="", help="names of contenders, comma-separated")
    parser.add_argument("--out", default="", help="write OUT.json and OUT.md")
    parser.add_argument("--workers", default="1,2", help="scaling: numbers of processes")
    parser.add_argument("--engine", choices=("kvstore", "horovod"), default="kvstore",
                        help="scaling: what adds up the gradients")  # fmt: skip


def run(args) -> int:
    """Measure and print the tables."""
    if args.what == "scaling":
        return _scaling(args)
    from gluon_asymmnet.bench import suite

    rows = []
    for what in ("infer", "train") if args.what == "all" else (args.what,):
        batches = args.batches or ("32" if what == "train" else "1,32")
        plan = suite.Plan(
            models=args.models.split(","), widths=_numbers("--widths", args.widths, float),
            batches=_numbers("--batches", batches, int), sizes=_numbers("--sizes", args.sizes, int),
            threads=_numbers("--threads", args.threads, int), rounds=args.rounds,
            only=[name for name in args.only.split(",") if name],
        )  # fmt: skip
        rows += getattr(suite, what)(plan)
        if args.out:
            suite.write(rows, args.out)  # after each part: a long run may be cut
    print(suite.table(rows))
    return 0


def _scaling(args) -> int:
    import json

    from gluon_asymmnet.atomic import write_text
    from gluon_asymmnet.bench import scaling
    from gluon_asymmnet.doctor import environment

    case = scaling.Case(
        args.models, _numbers("--widths", args.widths, float)[0],
        _numbers("--batches", args.batches or "32", int)[0],
        _numbers("--sizes", args.sizes, int)[0], args.engine, args.rounds,
    )  # fmt: skip
    rows = scaling.scaling(case, _numbers("--workers", args.workers, int))
    if args.out:
        measured = {"machine": environment(), "rows": rows}
        write_text(f"{args.out}.json", json.dumps(measured, indent=1) + "\n")
    print(scaling.table(rows))
    return 0


def _numbers(flag: str, text: str, kind):
    from gluon_asymmnet.errors import InputError

    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) <= 0:
        raise InputError(f"{flag} takes comma-separated numbers above 0, got {text!r}")
    return values
