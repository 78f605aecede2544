"""``asymmnet eval voc``, the same as ``eval.py voc``."""

from __future__ import annotations

import argparse
import json
import math
import os
from pathlib import Path

from gluon_asymmnet.cli.engine import add_engine_flags, choose_model, print_engine
from gluon_asymmnet.cli.options import (
    add_bad_records_flag,
    add_threads_flag,
    print_left_out,
    progress_bar,
    require_positive,
)
from gluon_asymmnet.data.bad_records import BOX_ADVICE, LeftOut, SkippedRecords
from gluon_asymmnet.data.boxes.sources import is_record_file, open_boxes, parse_splits
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation import detection_report as report
from gluon_asymmnet.evaluation.coco_ap import COCOEvaluator
from gluon_asymmnet.evaluation.detection import detect, evaluate
from gluon_asymmnet.predict.detector import DetectorPredictor
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.threads import set_threads

_MAX_BATCH = 64  # larger batches need more memory, and are not faster
_DESCRIPTION = """\
Detect the objects of every image of a VOC split once, and compute mean average precision (mAP). The
result does not depend on the batch size.

Two figures are printed: mAP in original pixels, as in the devkit and most papers, and in resized
pixels, as in GluonCV.  Difficult objects are handled as in the devkit.
"""
_EXAMPLES = """\
examples:
  eval.py voc ssd_300_asymmnet_large_voc --dataset-root ~/VOC --per-class
  eval.py voc mine --dataset-root data --val-splits mine_test --json result.json --curves curves
  eval.py voc mine --dataset-root data --val-splits val.rec --coco
"""


def add_task(tasks) -> None:
    """Add the task ``voc``."""
    parser = tasks.add_parser(
        "voc",
        help="detection: average precision over exactly the images of a set",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "path", help="exported folder or file, run directory, or .params file with its card"
    )
    add_engine_flags(parser)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset-root", default="~/.mxnet/datasets/voc", help="the folder of VOC2007 "
        "(default ~/.mxnet/datasets/voc)",
    )  # fmt: skip
    data.add_argument(
        "--val-splits", default="2007_test", help="FOLDER_SPLIT or YEAR_SPLIT, with commas; or a "
        ".rec or .lst file of GluonCV's (default 2007_test)",
    )  # fmt: skip
    data.add_argument(
        "--skip-bad", action="store_true", help="leave out objects of other classes, empty boxes "
        "and images that cannot be read; without it they are errors",
    )  # fmt: skip
    add_bad_records_flag(data)
    data.add_argument("--batch-size", type=int, default=32, help="(default 32)")
    data.add_argument(
        "-j", "--num-workers", dest="num_workers", type=int, default=4,
        help="decoding threads (default 4)",
    )  # fmt: skip
    add_threads_flag(parser)
    parser.add_argument(
        "--iou", type=float, default=0.5, help="overlap of a correct detection (default 0.5)"
    )
    out = parser.add_argument_group("output")
    out.add_argument("--per-class", action="store_true", help="print a table by class")
    out.add_argument("--coco", action="store_true", help="print COCO's AP, too; needs pycocotools")
    out.add_argument("--json", default="", metavar="FILE", help="write the result; -: print it")
    out.add_argument(
        "--curves", default="", metavar="DIR", help="draw precision over recall, in a new folder"
    )
    out.add_argument(
        "--predictions", default="", metavar="DIR",
        help="write the detections in the devkit's format to a new folder; takes one split",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args) -> int:
    """Evaluate and print."""
    _check(args)
    set_threads(args.threads)
    model = DetectorPredictor.of(choose_model(args.path, args), args.threads)
    print_engine(model, args)
    classes = model.card.class_names
    coco = COCOEvaluator(classes) if args.coco else None
    source = open_boxes(args.dataset_root, args.val_splits, classes, skip_bad=args.skip_bad)
    for remark in source.remarks:
        print(remark)
    left_out = LeftOut(SkippedRecords(args.max_bad_records, BOX_ADVICE))
    found = _detect(model, source, args, left_out)
    print_left_out(left_out, len(source))
    result = evaluate(found, classes, model.card.input_size, args.iou)
    print(report.mean_table(result))
    figures = _coco_figures(coco, found) if coco else None
    if args.per_class:
        print(report.class_table(result.original))
    if args.predictions:
        report.write_predictions(
            found, classes, _split(args.val_splits, args.dataset_root), args.predictions
        )
    if args.curves:
        report.draw_curves(result.original, args.curves)
    if args.json:
        _write_json(args, model, source, result, figures)
    return 0


def _check(args) -> None:
    """Raise InputError for wrong arguments, before the work."""
    require_positive(args, "batch_size", "num_workers")
    if not 0 < args.iou <= 1:
        raise InputError(f"--iou must be above 0 and at most 1, got {args.iou}")
    for flag in ("curves", "predictions"):
        folder = getattr(args, flag)
        if folder and os.path.lexists(folder):
            raise InputError(f"--{flag} {folder} exists already; remove it or name a new folder")
    if args.predictions:
        _split(args.val_splits, args.dataset_root)


def _split(splits: str, root: str) -> str:
    """Return the name of the one split, for the devkit's files."""
    if is_record_file(splits):
        return Path(splits).stem
    found = parse_splits(splits, root)
    if len(found) != 1:
        raise InputError(
            f"--predictions takes one split, as the devkit's files name no folder; got {splits!r}"
        )
    return found[0][1]


def _detect(model, source, args, left_out: LeftOut) -> list:
    """Return each image, without its pixels, with its detections."""
    found = []
    with progress_bar("detecting", " images") as progress:
        for example, detections in detect(
            model.predict, source, model.card.input_size,
            max(min(args.batch_size, _MAX_BATCH, len(source)), 1),
            normalization=model.card.normalization, threads=args.num_workers,
            left_out=left_out,
        ):  # fmt: skip
            found.append((example._replace(rgb=None), detections))
            if progress:
                progress(len(found), len(source))
    return found


def _coco_figures(coco, found) -> dict:
    for example, detections in found:
        coco.add(
            example.image_id, detections.boxes, detections.labels, detections.scores,
            example.boxes, example.labels, example.difficult,
        )  # fmt: skip
    figures = coco.result()
    print("COCO: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items()))
    return figures


def _write_json(args, model, source, result, coco) -> None:
    card = model.card
    content = {
        "weights": str(model.weights),
        "engine": model.engine,
        "precision": model.precision,
        "model": card.model,
        "input_size": card.input_size,
        "nms_thresh": card.nms_thresh,
        "nms_topk": card.nms_topk,
        "post_nms": card.post_nms,
        "least_score": card.score_threshold,
        "dataset_root": str(source.path),
        "splits": args.val_splits,
        "images": result.original.images,
        "left_out": len(source) - result.original.images,
        "annotation_issues": dict(getattr(source, "issues", {})),
        "original_pixels": result.original.to_dict(),
        "resized_pixels": result.resized.to_dict(),
    }
    if coco:
        content["coco"] = {k: None if math.isnan(v) else v for k, v in coco.items()}
    write_text(args.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
