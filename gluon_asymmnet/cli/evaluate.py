"""``asymmnet eval``, also ``eval.py``."""

import argparse
import dataclasses
import sys
from pathlib import Path

from tqdm import tqdm

from gluon_asymmnet.cli import evaluate_voc
from gluon_asymmnet.cli.engine import add_engine_flags, choose_model, print_engine
from gluon_asymmnet.cli.options import (
    add_bad_records_flag,
    add_model_flags,
    add_threads_flag,
    flag_of,
    model_settings,
    open_model,
    print_left_out,
    refuse_architecture,
    require_positive,
)
from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.data.datasets import is_own, open_dataset
from gluon_asymmnet.data.sources import check_labels, match_source, open_source
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation import classification_report as report
from gluon_asymmnet.evaluation import published
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.evaluation.label_maps import (
    map_source,
    read_label_map,
    restricted,
    results_row,
    score,
)
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.utils.threads import set_threads

_MAX_BATCH = 256  # larger batches need more memory, and are not faster


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``eval`` and its tasks."""
    parser = argparse.ArgumentParser(
        prog=prog, description=f"Evaluate a model; {prog} TASK --help describes a task."
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    imagenet = tasks.add_parser(
        "imagenet",
        help="classification: top-1, top-5 and loss over exactly the images of a set",
        description="Evaluate every image of a record file or folder once. The result does not "
        "depend on the batch size.",
        epilog="example: eval.py imagenet checkpoints/imagenet/asymmnet_large_baseline "
        "--rec-val val.rec --rec-val-idx val.idx --json result.json",
    )
    add_model_flags(imagenet)
    add_engine_flags(imagenet)
    data = imagenet.add_argument_group("data")
    data.add_argument("--rec-val", default="", help="records")
    data.add_argument("--rec-val-idx", default="", help="their index (default: the .idx beside)")
    data.add_argument("--data-dir", default="", help="tree of one folder per class, instead")
    data.add_argument(
        "--label-map", default="", metavar="JSON", help="for sets with some of the classes or "
        "several right labels per image (ImageNet-A, -R, -V2, ReaL), see docs/python.md; prints a "
        "row as timm's results have",
    )  # fmt: skip
    data.add_argument("--dataset", default="", metavar="NAME", help="your own, its split val")
    data.add_argument("--batch-size", type=int, default=64, help="(default 64)")
    data.add_argument(
        "-j", "--num-data-workers", "--num-workers", dest="num_workers", type=int, default=2,
        help="decoding threads (default 2)",
    )  # fmt: skip
    add_bad_records_flag(data)
    add_threads_flag(imagenet)
    out = imagenet.add_argument_group("output")
    out.add_argument("--json", default="", metavar="FILE", help="write the result; -: print it")
    out.add_argument("--per-class", action="store_true", help="print a table by class")
    out.add_argument("--predictions", default="", metavar="FILE", help="one CSV line per image")
    out.add_argument("--confusion", default="", metavar="PNG", help="draw the confusion matrix")
    add_published_flags(imagenet)
    imagenet.set_defaults(run=run)
    evaluate_voc.add_task(tasks)
    return parser


def add_published_flags(parser) -> None:
    """Add flags to print also the accuracy that the authors' validation would have measured."""
    group = parser.add_argument_group("the authors' validation")
    group.add_argument(
        "--walk", choices=("published",), default="",
        help="also print what the authors' validation would have measured: their reader wraps "
        "around at the end of the records, so it counts some twice or leaves some out",
    )  # fmt: skip
    group.add_argument(
        "--authors-validation", dest="walk", action="store_const", const="published",
        help="same as --walk published",
    )  # fmt: skip
    group.add_argument(
        "--walk-batch-size", type=int, metavar="N",
        help=f"batch size of their validation (default {published.BATCH_SIZE}); --batch-size "
        f"affects speed and memory only",
    )  # fmt: skip
    group.add_argument(
        "--passes", type=int, metavar="N", help="validations, one per epoch (default 1)"
    )


def run(args) -> int:
    """Evaluate and print."""
    if sum(map(bool, (args.rec_val, args.data_dir, args.dataset))) != 1:
        raise InputError("give --rec-val, --data-dir or --dataset, one of them")
    require_positive(args, "batch_size", "num_workers")
    set_threads(args.threads)
    allowed = args.max_bad_records
    if allowed and args.walk:
        raise InputError("--walk published counts every image, so it takes no --max-bad-records")
    left_out = LeftOut(SkippedRecords(allowed))
    source = _open_source(args)
    check_published_flags(args, len(source))  # before the work, not after
    model = _open(args)
    source, predict, label_map = _with_label_map(args, source, model)
    contents = check_labels(source, model.card.classes, allowed=allowed)
    print(contents.line("data"), file=sys.stderr)
    if isinstance(model, Predictor):
        print_engine(model, args)
    else:
        print(f"engine: mxnet, {model.weights}", file=sys.stderr)
    with tqdm(total=len(source), unit="image", disable=not sys.stderr.isatty()) as bar:
        result = evaluate(
            predict, source, classes=model.card.classes,
            preprocessing=model.card.preprocessing, batch_size=min(args.batch_size, _MAX_BATCH),
            threads=args.num_workers, left_out=left_out,
            progress=lambda done, _: bar.update(done - bar.n),
        )  # fmt: skip
    print_left_out(left_out, len(source))
    names = source.class_names or model.card.class_names
    print(report.summary_line(result))
    if label_map:
        scored = score(result, label_map) if label_map.labels else result
        if label_map.labels:
            print(
                f"by {label_map.path}: top-1 {100 * scored.top1:.2f} %, top-5 "
                f"{100 * scored.top5:.2f} %, {scored.images} images, {scored.unlabelled} without "
                f"labels"
            )
        print(results_row(model.card, scored))
    text, walk = report_published(result, args) if args.walk else ("", None)
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


def _open_source(args):
    if not args.dataset:
        return open_source(
            rec=args.rec_val, idx=args.rec_val_idx, folder=args.data_dir,
            sample=not args.max_bad_records,
        )  # fmt: skip
    if not is_own(args.dataset):
        raise InputError(f"--dataset {args.dataset} has no images: give --rec-val or --data-dir")
    source = open_dataset(args.dataset, "val")
    if source is None:
        raise InputError(f"--dataset {args.dataset} has no split val")
    return source


def _with_label_map(args, source, model):
    """Return the source with the model's labels, its ``predict``, and the label map or None."""
    card, predict = model.card, model.predict
    label_map = read_label_map(args.label_map) if args.label_map else None
    if label_map and label_map.labels is not None and len(label_map.labels) != len(source):
        raise InputError(
            f"{label_map.path} has labels of {len(label_map.labels)} images, {source.path} has "
            f"{len(source)}"
        )
    if label_map and label_map.classes is not None:
        source, classes = map_source(source, label_map, card)
        return source, restricted(predict, classes), label_map
    return match_source(source, card.class_names, card.classes, "the model"), predict, label_map


def _open(args):
    """Return the model in the chosen engine, with ``card`` and ``predict``."""
    choice = choose_model(args.path, args) if Path(args.path).exists() else None
    if choice and choice.engine != "mxnet":
        return _open_exported(args, choice)
    if args.precision == "bf16":
        raise InputError("--precision bf16 is for openvino; MXNet computes in f32")
    return open_model(args)


def _open_exported(args, choice):
    """Open exported files in their engine.

    The input size of an ONNX file or IR is fixed; flags may override the crop ratio.
    """
    given = model_settings(args)
    refuse_architecture(given)
    predictor = Predictor.of(choice, args.threads)
    input_size = predictor.card.input_size
    if given.get("input_size", input_size) != input_size:
        raise InputError(
            f"{predictor.weights} takes {input_size} pixels, --input-size says "
            f"{given['input_size']}: export the network at that size"
        )
    predictor.card = dataclasses.replace(predictor.card, **given)
    return predictor


def check_published_flags(args, records: int) -> None:
    """Raise InputError for a validation order that ``records`` records do not allow."""
    if args.walk:
        published.validation_passes(records, *_batch_size_and_passes(args))
        return
    for name in ("walk_batch_size", "passes"):
        if getattr(args, name) is not None:
            raise InputError(f"{flag_of(name)} goes with --walk published")


def report_published(result, args) -> tuple[str, dict]:
    """Return the authors' validation as a table and as an object for JSON."""
    batch_size, passes = _batch_size_and_passes(args)
    results = published.pass_results(result, batch_size, passes)
    content = {"batch_size": batch_size, "passes": [one.as_dict() for one in results]}
    return published.pass_table(results), content


def _batch_size_and_passes(args) -> tuple[int, int]:
    given = (args.walk_batch_size, published.BATCH_SIZE), (args.passes, 1)
    batch_size, passes = (default if value is None else value for value, default in given)
    return batch_size, passes
