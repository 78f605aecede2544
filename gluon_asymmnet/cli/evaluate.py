"""``asymmnet eval``, the same as ``eval.py``."""

_MOST = 256  # images at once; more take memory and nothing else, and give the same result


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("eval", help="evaluate a model")
    add_tasks(parser)


def add_tasks(parser) -> None:
    """Add the tasks that can be evaluated; also used by ``eval.py``."""
    from gluon_asymmnet.cli import evaluate_voc
    from gluon_asymmnet.cli.images import add_engine_flags
    from gluon_asymmnet.cli.model_flags import add_model_flags
    from gluon_asymmnet.cli.walk_flags import add_walk_flags

    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    imagenet = tasks.add_parser(
        "imagenet",
        help="classification: top-1, top-5 and loss over exactly the images of a set",
        description="Score every image of a record file or folder once, at any batch size.",
        epilog="example: eval.py imagenet checkpoints/imagenet/asymmnet_large_baseline "
        "--rec-val val.rec --rec-val-idx val.idx --json result.json",
    )
    add_model_flags(imagenet)
    add_engine_flags(imagenet)
    data = imagenet.add_argument_group("data")
    data.add_argument("--rec-val", default="", help="records")
    data.add_argument("--rec-val-idx", default="", help="their index (default: the .idx beside)")
    data.add_argument("--data-dir", default="", help="tree of one folder per class, instead")
    data.add_argument("--batch-size", type=int, default=64, help="(default 64)")
    data.add_argument(
        "-j", "--num-data-workers", "--num-workers", dest="num_workers", type=int, default=2,
        help="decoding threads (default 2)",
    )  # fmt: skip
    imagenet.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    out = imagenet.add_argument_group("output")
    out.add_argument("--json", default="", metavar="FILE", help="write the result")
    out.add_argument("--per-class", action="store_true", help="print a table by class")
    out.add_argument("--predictions", default="", metavar="FILE", help="one CSV line per image")
    out.add_argument("--confusion", default="", metavar="PNG", help="draw the confusion matrix")
    add_walk_flags(imagenet)
    imagenet.set_defaults(run=run)
    evaluate_voc.add_task(tasks)


def run(args) -> int:
    """Evaluate and print."""
    import sys

    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.utils.threads import set_threads

    if bool(args.rec_val) == bool(args.data_dir):
        raise InputError("give --rec-val or --data-dir, one of them")
    for name in ("batch_size", "num_workers"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(args, name)}")
    set_threads(args.threads)
    from tqdm import tqdm

    from gluon_asymmnet.cli.walk_flags import check_walk_flags, report_walk
    from gluon_asymmnet.data.sources import open_source
    from gluon_asymmnet.evaluation import classification_report as report
    from gluon_asymmnet.evaluation.classification import evaluate

    source = open_source(rec=args.rec_val, idx=args.rec_val_idx, folder=args.data_dir)
    check_walk_flags(args, len(source))  # refused before the work, not after
    model = _open(args)
    print(f"engine: {getattr(model, 'engine', 'mxnet')}, {model.weights}", file=sys.stderr)
    with tqdm(total=len(source), unit="image", disable=not sys.stderr.isatty()) as bar:
        result = evaluate(
            model.predict, source, classes=model.card.classes,
            preprocessing=model.card.preprocessing, batch_size=min(args.batch_size, _MOST),
            threads=args.num_workers, progress=lambda done, _: bar.update(done - bar.n),
        )  # fmt: skip
    names = source.class_names or model.card.class_names
    print(report.summary_line(result))
    text, walk = report_walk(result, args) if args.walk else ("", None)
    print(text, end="\n" if text else "")
    if args.per_class:
        print(report.class_table(result, model.card.classes, names))
    if args.predictions:
        report.write_predictions(result, source, args.predictions)
    if args.confusion:
        report.draw_confusion(result, model.card.classes, names, args.confusion)
    if args.json:
        report.write_json(result, model, args, args.json, walk)
    return 0


def _open(args):
    """Return the network by the engine that was chosen: what ``card`` and ``predict`` it has."""
    from pathlib import Path

    from gluon_asymmnet.cli.model_flags import open_from, predictor_from
    from gluon_asymmnet.errors import InputError

    model = predictor_from(args) if Path(args.path).exists() else None
    if model is None and args.precision != "f32":
        raise InputError(f"--precision {args.precision} is for openvino; MXNet computes in f32")
    return model or open_from(args)
