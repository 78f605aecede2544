"""``asymmnet report``: an HTML report about one or more training runs."""

import argparse
from pathlib import Path

from gluon_asymmnet.cli.options import add_threads_flag, progress_bar
from gluon_asymmnet.report.page import page
from gluon_asymmnet.report.predictions import predict_validation
from gluon_asymmnet.report.run_files import CLASSIFIER, read_run
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.threads import set_threads


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``report``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write one HTML file about training runs: curves, confused classes, images, "
        "configuration, environment, events. It needs no network and no other file. The runs may "
        "still be training.",
        epilog="example: asymmnet report checkpoints/custom/asymmnet_small_demo -o report.html",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    parser.add_argument(
        "-o", "--output", default="report.html", metavar="FILE",
        help="file to write or replace (default: report.html)",
    )  # fmt: skip
    parser.add_argument(
        "--no-evaluate",
        action="store_true",
        help="do not run the best weights on the validation set: faster, and without MXNet; the "
        "report then lacks the confused classes and sample predictions of classifiers",
    )
    add_threads_flag(parser)
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Write the report and print its path."""
    runs = [read_run(path) for path in dict.fromkeys(map(Path, args.runs))]
    set_threads(args.threads)
    predictions = {}
    for one in runs:
        if args.no_evaluate or one.task != CLASSIFIER:
            predictions[one.path] = "--no-evaluate was given."
            continue
        with progress_bar(f"evaluating {one.name}") as progress:
            predictions[one.path] = predict_validation(one, progress)
    text = page(runs, predictions)
    write_text(args.output, text)
    print(f"{args.output}: {len(runs)} run(s), {len(text.encode()) / 1e6:.2f} MB")
    return 0
