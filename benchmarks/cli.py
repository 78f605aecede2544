"""Command line of ``benchmark.py``."""

import argparse
import json
from pathlib import Path

from benchmarks import deploy, deploy_worker, int8, joins, nets, report, scaled, scaling, suite
from benchmarks.evidence import harness
from benchmarks.evidence import report as report_evidence
from gluon_asymmnet.cli import guarded
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.doctor import environment

_DESCRIPTION = """\
Time candidates in turn, round by round, each in a process of its own: AsymmNet as the authors wrote
it, ours in each layout, engine and precision, GluonCV's MobileNetV3, PyTorch.

  infer    inference: time, speed, peak memory, share of the arithmetic limit
  train    a training step, likewise
  input    the record reader and the whole input pipeline alone, beside training
  startup  whole processes until the first result; preprocessing's share of classifying an image
  pictures preprocessing of one picture and of 12 megapixels; a folder of 2,000 pictures
  detect   one picture file to boxes: our detector in each engine, its stages, torchvision's SSDLite
           (--environment torchvision=PYTHON: torchvision, onnx, onnxruntime), GluonCV's SSD
  scaled   what scaled decoding changes in the answers of --run for the photographs in --pictures
  memory   peak memory of inference and training alone, quickly
  shift    AddressNet's shifts beside channel shuffle and sum; ignores --models
  int8     accuracy and speed of int8 on the demo's digits (--run, --digits) and on photographs
  deploy   every target on the demo's digits (--run, --digits): size, accuracy; with --speed, time
  scaling  training with several processes on this machine (--workers, --engine)
  nets     AsymmNet beside the related nets: size, speed per engine, accuracy on the digits after
           --epochs: about half an hour
  evidence rate 0, 1 and 2 side by side on Fashion-MNIST: many hours; goes on where it stopped, and
           several may run at once.  --only takes part of a run's name
  joins    each form of the exported joins beside MobileNetV3, in ONNX Runtime, OpenVINO,
           OpenCV and MXNet
  all      infer, train, input and startup; about half an hour on two idle processors

Needs the extras onnx, openvino, torch, int8 and demo; a candidate that cannot be built is left out,
and the table gives the reason.  The machine should be idle.
"""
_PARTS = {"infer": suite.infer, "train": suite.train, "input": suite.inputs,
          "startup": suite.startup, "pictures": suite.pictures, "memory": suite.memory,
          "shift": suite.shift, "detect": suite.detect}  # fmt: skip
_ALL = ("infer", "train", "input", "startup")
# defaults where they are not 1,32
_BATCHES = {"train": "32", "pictures": "32", "startup": "1", "detect": "1"}


def main(argv=None) -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_flags(parser)
    args = parser.parse_args(argv)
    return guarded(lambda: _run(args), parser.prog)


def _add_flags(parser) -> None:
    parser.add_argument(
        "what", choices=(*_PARTS, "scaled", "int8", "deploy", "scaling", "nets", "evidence",
                         "joins", "all"),
    )  # fmt: skip
    parser.add_argument(
        "--models", default="asymmnet_large",
        help="comma-separated, e.g. asymmnet_large,asymmnet_small,asymmnet_large_0.35 "
        "(default asymmnet_large)",
    )  # fmt: skip
    parser.add_argument("--widths", default="", help="(default: the names', or 1)")
    parser.add_argument("--batches", default="", help="(default 1,32; training 32)")
    parser.add_argument("--sizes", default="", help="pixels (default 224; detect 320)")
    parser.add_argument("--threads", default="1,2", help="(default 1,2)")
    parser.add_argument("--rounds", type=int, default=7, help="(default 7)")
    parser.add_argument("--only", default="", help="names of candidates, comma-separated")
    parser.add_argument("--out", default="", help="write OUT.json and OUT.md")
    demo = parser.add_argument_group("int8 and deploy")
    demo.add_argument(
        "--run", dest="run_directory", default="demo/runs/custom/asymmnet_small_demo",
        help="run directory of the demo (default %(default)s, where make demo puts it)",
    )  # fmt: skip
    demo.add_argument(
        "--digits", default="demo/digits",
        help="folder with train.rec and val.rec (default %(default)s)",
    )  # fmt: skip
    demo.add_argument("--speed", action="store_true", help="compare times, too (deploy)")
    demo.add_argument(
        "--environment", action="append", default=[], metavar="NAME=PYTHON", help="Python of an "
        "environment with litert-torch, executorch or nncf: a row in deploy; NAME is litert, "
        "executorch or nncf; torchvision: for detect; repeatable",
    )  # fmt: skip
    parser.add_argument("--pictures", default="", metavar="DIR", help="photographs (scaled)")
    compared = parser.add_argument_group("nets")
    compared.add_argument("--epochs", type=int, default=15, help="on the digits (default 15)")
    evidence = parser.add_argument_group("evidence")
    evidence.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    evidence.add_argument("--max-minutes", type=float, default=0, metavar="N",
                          help="stop after N minutes, to go on later")  # fmt: skip
    evidence.add_argument("--repeat", default="", metavar="RUN",
                          help="do a finished run again and compare bit for bit")  # fmt: skip
    evidence.add_argument("--latency", action="store_true",
                          help="time the nets in ONNX Runtime, on an idle machine")  # fmt: skip
    evidence.add_argument("--report", action="store_true",
                          help="print the tables of the finished runs")  # fmt: skip
    evidence.add_argument("--from", dest="source", metavar="FOLDER",
                          help="with Fashion-MNIST's files (default: download)")  # fmt: skip
    workers = parser.add_argument_group("scaling")
    workers.add_argument("--workers", default="1,2", help="numbers of processes (default 1,2)")
    workers.add_argument("--engine", choices=("kvstore", "horovod"), default="kvstore",
                         help="sums the gradients (default kvstore)")  # fmt: skip


def _run(args) -> int:
    if args.rounds < 1:
        raise InputError(f"--rounds must be at least 1, got {args.rounds}")
    others = {"scaled": _run_scaled, "int8": _run_int8, "deploy": _run_deploy,
              "scaling": _run_scaling, "nets": _run_nets, "evidence": _run_evidence,
              "joins": _run_joins}  # fmt: skip
    print(others.get(args.what, _run_parts)(args))
    return 0


def _run_parts(args) -> str:
    rows = []
    for part in _ALL if args.what == "all" else (args.what,):
        batches = args.batches or _BATCHES.get(part, "1,32")
        plan = _plan(args, batches)
        rows += _PARTS[part](plan)
        if args.out:
            suite.write(rows, args.out)  # after each part: a long run may be interrupted
    return report.table(rows)


def _plan(args, batches: str) -> suite.Plan:
    return suite.Plan(
        models=args.models.split(","), widths=_widths(args),
        batches=_numbers("--batches", batches, int), sizes=_sizes(args),
        threads=_numbers("--threads", args.threads, int), rounds=args.rounds,
        only=[name for name in args.only.split(",") if name],
        environments=_environments(args, ["torchvision"]) if args.what == "detect" else (),
    )  # fmt: skip


def _run_scaled(args) -> str:
    threads = max(_numbers("--threads", args.threads, int))
    rows = scaled.measure(args.run_directory, args.pictures, threads)
    _write(rows, args.out)
    return scaled.table(rows)


def _run_int8(args) -> str:
    threads = _numbers("--threads", args.threads, int)
    for found in int8.measure(args.run_directory, args.digits, threads=max(threads)):
        if args.out:
            int8.write(found, args.out)
    return int8.document(found)


def _run_deploy(args) -> str:
    threads = min(_numbers("--threads", args.threads, int))
    rounds = args.rounds if args.speed else 0
    environments = _environments(args, deploy_worker.TARGETS)
    found = deploy.measure(
        args.run_directory,
        args.digits,
        rounds=rounds,
        threads=threads,
        environments=dict(environments),
    )
    if args.out:
        deploy.write(found, args.out)
    return deploy.document(found)


def _environments(args, names) -> list[tuple[str, str]]:
    """Return the name and the Python of each environment."""
    pairs = [item.partition("=")[::2] for item in args.environment]
    if not all(name in names and python for name, python in pairs):
        raise InputError(
            f"--environment takes NAME=PYTHON with a NAME of {', '.join(names)}, "
            f"got {' '.join(args.environment)}"
        )
    return pairs


def _run_scaling(args) -> str:
    spec = ModelSpec.parse(args.models, width=_widths(args)[0])
    case = scaling.Case(
        spec.name, spec.width,
        _numbers("--batches", args.batches or "32", int)[0],
        _sizes(args)[0], args.engine, args.rounds,
    )  # fmt: skip
    rows = scaling.scaling(case, _numbers("--workers", args.workers, int))
    _write(rows, args.out)
    return scaling.table(rows)


def _run_nets(args) -> str:
    threads = max(_numbers("--threads", args.threads, int))
    for rows in nets.compare_nets(threads=threads, rounds=args.rounds, epochs=args.epochs):
        _write(rows, args.out)
    return nets.table(rows)


def _run_evidence(args) -> str:
    results = Path(f"{args.out}.json") if args.out else harness.RESULTS
    runner = harness.Harness(results, Path("build") / results.stem, args.source)
    if args.report:
        return report_evidence.document(harness.load(results))
    if args.latency:
        runner.time_nets(args.rounds)
        return f"latencies written to {results}"
    if args.repeat:
        return runner.repeat(args.repeat)
    added = runner.run(only=args.only, jobs=args.jobs, max_minutes=args.max_minutes)
    return f"{added} runs added to {results}"


def _run_joins(args) -> str:
    for rows in joins.compare_joins(_plan(args, args.batches or "1,32").cases(), args.rounds):
        _write(rows, args.out)
    return joins.table(rows)


def _write(rows: list, out: str) -> None:
    """Write ``OUT.json``, with the machine, if ``--out`` is given."""
    if out:
        measured = {"machine": environment(), "rows": rows}
        write_text(f"{out}.json", json.dumps(measured, indent=1) + "\n")


def _widths(args) -> list:
    return _numbers("--widths", args.widths, float) if args.widths else [None]


def _sizes(args) -> list:
    return _numbers("--sizes", args.sizes or ("320" if args.what == "detect" else "224"), int)


def _numbers(flag: str, text: str, kind) -> list:
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) <= 0:
        raise InputError(f"{flag} takes comma-separated numbers above 0, got {text!r}")
    return values
