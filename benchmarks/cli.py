"""Command line of ``benchmark.py``."""


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench", help="measure speed and memory side by side", description=DESCRIPTION
    )
    add_flags(parser)
    parser.set_defaults(run=run)


DESCRIPTION = """\
Measure contenders in turn, round by round, each in a process of its own: the net as the authors
wrote it, ours in each form, engine and precision, GluonCV's MobileNetV3, PyTorch.

  infer    inference: time, speed, peak memory, share of the arithmetic limit
  train    a training step, likewise
  input    the record reader and the whole input pipeline alone, beside training
  startup  whole processes to the first answer; preprocessing's share of the answer to a picture
  memory   peak memory of inference and training alone, quickly
  shift    AddressNet's shifts beside channel shuffle and sum, on its maps; --models have no say
  int8     accuracy and speed of 8 bits on the demo's digits (--run, --digits) and on photographs
  scaling  training by several processes of this machine (--workers, --engine)
  nets     AsymmNet beside the related nets: size, speed per engine, accuracy on the digits after
           --epochs: about half an hour
  all      infer, train, input and startup, memory among the figures of the first two: about half
           an hour on two idle processors

Needs the extras onnx, openvino, torch, int8 and demo; what cannot be built is left out, and the
table says why. The machine should be idle.
"""
_PARTS = {"infer": "infer", "train": "train", "input": "inputs", "startup": "startup",
          "memory": "memory", "shift": "shift"}  # what -> function of bench.suite  # fmt: skip
_ALL = ("infer", "train", "input", "startup")
_BATCHES = {"train": "32", "startup": "1"}  # default where it is not 1,32


def add_flags(parser) -> None:
    """Add the settings; also used by ``benchmark.py``."""
    import argparse

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("what", choices=(*_PARTS, "int8", "scaling", "nets", "all"))
    parser.add_argument(
        "--models", default="asymmnet_large",
        help="comma-separated, e.g. asymmnet_large,asymmnet_small,asymmnet_large_0.35 "
        "(default asymmnet_large)",
    )  # fmt: skip
    parser.add_argument("--widths", default="1.0", help="of models that name none (default 1.0)")
    parser.add_argument("--batches", default="", help="(default 1,32; training 32)")
    parser.add_argument("--sizes", default="224", help="pixels (default 224)")
    parser.add_argument("--threads", default="1,2", help="(default 1,2)")
    parser.add_argument("--rounds", type=int, default=7, help="(default 7)")
    parser.add_argument("--only", default="", help="names of contenders, comma-separated")
    parser.add_argument("--out", default="", help="write OUT.json and OUT.md")
    demo = parser.add_argument_group("int8")
    demo.add_argument(
        "--run", dest="run_directory", default="demo/runs/custom/asymmnet_small_demo",
        help="of the demo (default %(default)s, where make demo puts it)",
    )  # fmt: skip
    demo.add_argument(
        "--digits", default="demo/digits", help="train.rec and val.rec (default %(default)s)"
    )
    nets = parser.add_argument_group("nets")
    nets.add_argument("--epochs", type=int, default=15, help="on the digits (default 15)")
    together = parser.add_argument_group("scaling")
    together.add_argument("--workers", default="1,2", help="numbers of processes")
    together.add_argument("--engine", choices=("kvstore", "horovod"), default="kvstore",
                          help="what adds up the gradients")  # fmt: skip


def run(args) -> int:
    """Measure and print the tables."""
    if args.rounds < 1:
        from gluon_asymmnet.errors import InputError

        raise InputError(f"--rounds must be at least 1, got {args.rounds}")
    others = {"int8": _run_int8, "scaling": _run_scaling, "nets": _run_nets}
    return others.get(args.what, _run_parts)(args)


def _run_parts(args) -> int:
    from benchmarks import report, suite

    rows = []
    for what in _ALL if args.what == "all" else (args.what,):
        batches = args.batches or _BATCHES.get(what, "1,32")
        plan = suite.Plan(
            models=args.models.split(","), widths=_numbers("--widths", args.widths, float),
            batches=_numbers("--batches", batches, int), sizes=_numbers("--sizes", args.sizes, int),
            threads=_numbers("--threads", args.threads, int), rounds=args.rounds,
            only=[name for name in args.only.split(",") if name],
        )  # fmt: skip
        rows += getattr(suite, _PARTS[what])(plan)
        if args.out:
            suite.write(rows, args.out)  # after each part: a long run may be cut
    print(report.table(rows))
    return 0


def _run_int8(args) -> int:
    from benchmarks import int8

    threads = _numbers("--threads", args.threads, int)
    for found in int8.measure(args.run_directory, args.digits, threads=max(threads)):
        if args.out:
            int8.write(found, args.out)
    print(int8.document(found))
    return 0


def _run_scaling(args) -> int:
    from benchmarks import scaling

    case = scaling.Case(
        args.models, _numbers("--widths", args.widths, float)[0],
        _numbers("--batches", args.batches or "32", int)[0],
        _numbers("--sizes", args.sizes, int)[0], args.engine, args.rounds,
    )  # fmt: skip
    rows = scaling.scaling(case, _numbers("--workers", args.workers, int))
    _write(rows, args.out)
    print(scaling.table(rows))
    return 0


def _run_nets(args) -> int:
    from benchmarks import nets

    threads = max(_numbers("--threads", args.threads, int))
    for rows in nets.compare_nets(threads=threads, rounds=args.rounds, epochs=args.epochs):
        _write(rows, args.out)
    print(nets.table(rows))
    return 0


def _write(rows: list, out: str) -> None:
    """Write ``OUT.json``, with the machine, if it is named."""
    import json

    from gluon_asymmnet.utils.atomic import write_text
    from gluon_asymmnet.utils.doctor import environment

    if out:
        measured = {"machine": environment(), "rows": rows}
        write_text(f"{out}.json", json.dumps(measured, indent=1) + "\n")


def _numbers(flag: str, text: str, kind):
    from gluon_asymmnet.errors import InputError

    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) <= 0:
        raise InputError(f"{flag} takes comma-separated numbers above 0, got {text!r}")
    return values
