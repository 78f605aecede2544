"""``asymmnet detect``."""

import argparse

from gluon_asymmnet.cli.coco_results import CocoResults
from gluon_asymmnet.cli.engine import choose_model
from gluon_asymmnet.cli.images import INPUTS, Task, add_image_flags, run_on_images
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.drawing import SCORE_THRESHOLD, draw_boxes
from gluon_asymmnet.predict.detector import DetectorPredictor
from gluon_asymmnet.predict.tiles import Tiling

_DESCRIPTION = f"""\
Find objects in pictures and videos. Prints label, score and box, highest score first.

Boxes are corners (xmin, ymin, xmax, ymax) in pixels of the picture after its EXIF rotation.
{INPUTS}
"""
_EXAMPLES = """\
examples:
  asymmnet detect street.jpg --model exported
  asymmnet detect photos clip.mp4 --model exported --score 'traffic light=0.5' --annotate marked
  asymmnet detect 0 --model exported --csv seen.csv
  asymmnet detect aerial.tif --model exported --tile-size 600 --coco found.json
"""


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``detect``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = add_image_flags(parser, batch_size=8)
    out.add_argument(
        "--coco", default="", metavar="FILE", help="write the results in COCO's format, boxes with "
        "their last row and column, as VOC's",
    )  # fmt: skip
    out.add_argument(
        "--coco-ids", default="", metavar="FILE", help="annotations of the set, whose ids --coco "
        "takes by file and class name (default: pictures and labels, counted from 1)",
    )  # fmt: skip
    parser.add_argument(
        "--score-threshold", type=float, default=SCORE_THRESHOLD, metavar="SCORE",
        help=f"omit boxes with a lower score, 0 to 1 (default {SCORE_THRESHOLD})",
    )  # fmt: skip
    parser.add_argument(
        "--score", type=_class_score, action="append", default=[], metavar="CLASS=SCORE",
        help="the threshold of one class; may be repeated",
    )  # fmt: skip
    tiles = parser.add_argument_group("tiles", "for small objects in large pictures")
    tiles.add_argument("--tiles", type=int, default=0, metavar="N", help="N along the longer side")
    tiles.add_argument("--tile-size", type=int, default=0, metavar="PIXELS", help="of this size")
    tiles.add_argument(
        "--overlap", type=float, metavar="SHARE",
        help=f"of neighbours (default {Tiling().overlap}); objects should fit in it",
    )  # fmt: skip
    tiles.add_argument(
        "--tiles-only", action="store_true", help="leave out the pass over the whole picture, "
        "which finds what is larger than a tile",
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def _class_score(text: str) -> tuple[str, float]:
    name, _, score = text.rpartition("=")
    try:
        return name.strip(), float(score)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected CLASS=SCORE, e.g. cat=0.5") from None


def run(args) -> int:
    """Detect and print; 1 if something could not be read."""
    if not 0 <= args.score_threshold <= 1:
        raise InputError(f"--score-threshold must be from 0 to 1, got {args.score_threshold}")
    if args.coco_ids and not args.coco:
        raise InputError("--coco-ids goes with --coco")
    args.tiling = None
    if args.tiles or args.tile_size:
        overlap = Tiling().overlap if args.overlap is None else args.overlap
        args.tiling = Tiling(args.tiles, args.tile_size, overlap, not args.tiles_only)
        args.tiling.check()
    elif args.overlap is not None or args.tiles_only:
        raise InputError("--overlap and --tiles-only go with --tiles or --tile-size")
    return run_on_images(args, Task(_open, _detect, _rows, _draw, _content, _COLUMNS, _extra))


def _open(args):
    predictor = DetectorPredictor.of(choose_model(args.model, args), args.threads)
    predictor.thresholds(args.score_threshold, dict(args.score))  # names are checked at once
    return predictor


def _detect(predictor, frames, args):
    return predictor.detect(
        [frame.rgb for frame in frames], args.score_threshold, args.batch_size,
        class_thresholds=dict(args.score), tiling=args.tiling,
    )  # fmt: skip


def _rows(name, found, width: int) -> str:
    """Return a line per box of an image, the name in the first."""
    if not len(found.labels):
        return f"{name:<{width}} nothing"
    heads = [name, *[""] * (len(found.labels) - 1)]
    return "\n".join(
        f"{head:<{width}} {score:>6.3f} {_corners(box)}  {label}"
        for head, score, box, label in zip(heads, found.scores, found.boxes, found.names)
    )


def _corners(box) -> str:
    return " ".join(f"{value:>7.1f}" for value in box)


def _draw(rgb, found):
    texts = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores)]
    return draw_boxes(rgb, found.boxes, texts, found.labels)


_COLUMNS = ("label", "name", "score", "xmin", "ymin", "xmax", "ymax")


def _content(found) -> dict:
    rows = zip(found.labels, found.names, found.scores, found.boxes)
    return {
        "objects": [
            {"label": int(label), "name": name, "score": float(score), "box": box.tolist()}
            for label, name, score, box in rows
        ]
    }


def _extra(args, predictor) -> list:
    if not args.coco:
        return []
    return [CocoResults(args.coco, predictor.card.class_names, args.coco_ids)]
