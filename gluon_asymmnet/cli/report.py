"""``asymmnet report``: a page about one or more training runs."""

DESCRIPTION = (
    "Write one HTML file about training runs: curves, confusions, pictures, configuration, "
    "environment, events. It needs no network and no other file. A run may still be going on."
)


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "report", help="write a page about training runs", description=DESCRIPTION,
        epilog="example: asymmnet report checkpoints/custom/asymmnet_small_demo -o report.html",
    )  # fmt: skip
    parser.add_argument("runs", nargs="+", metavar="RUN", help="directory of a run")
    parser.add_argument(
        "-o", "--output", default="report.html", metavar="FILE",
        help="written anew each time (default: report.html)",
    )  # fmt: skip
    parser.add_argument(
        "--no-evaluate",
        action="store_true",
        help="do not run the best weights on the validation set: faster, and no MXNet needed; the "
        "page then lacks the confusions and sample predictions of classifiers",
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Write the page and say where it is."""
    from pathlib import Path

    from gluon_asymmnet.cli.subcommand import progress_bar
    from gluon_asymmnet.report.judge import judge
    from gluon_asymmnet.report.page import page
    from gluon_asymmnet.report.run_files import CLASSIFIER, read_run
    from gluon_asymmnet.utils.atomic import write_text
    from gluon_asymmnet.utils.threads import set_threads

    runs = [read_run(path) for path in dict.fromkeys(map(Path, args.runs))]
    set_threads(args.threads)
    judged = {}
    for one in runs:
        if args.no_evaluate or one.task != CLASSIFIER:
            judged[one.path] = "--no-evaluate was given."
            continue
        with progress_bar(f"evaluating {one.name}") as progress:
            judged[one.path] = judge(one, progress)
    text = page(runs, judged)
    write_text(args.output, text)
    print(f"{args.output}: {len(runs)} run(s), {len(text.encode()) / 1e6:.2f} MB")
    return 0
