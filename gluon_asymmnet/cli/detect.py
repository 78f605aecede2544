"""``asymmnet detect``."""

import argparse

from gluon_asymmnet.cli.images import Task, add_image_flags, run_on_images
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.drawing import SCORE_THRESHOLD, draw_boxes
from gluon_asymmnet.predict.detector import DetectorPredictor

_DESCRIPTION = """\
Find objects in images. Prints label, score and box, highest score first.

Boxes are corners (xmin, ymin, xmax, ymax) in pixels of the image after its EXIF rotation. An image
that cannot be read is skipped and reported at the end; the exit status is then 1.
"""
_EXAMPLES = """\
examples:
  asymmnet detect street.jpg --model exported
  asymmnet detect photos --model exported --score-threshold 0.5 --json result.json --annotate marked
"""


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``detect``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image_flags(parser, batch_size=8)
    parser.add_argument(
        "--score-threshold", type=float, default=SCORE_THRESHOLD, metavar="SCORE",
        help=f"omit boxes with a lower score, 0 to 1 (default {SCORE_THRESHOLD})",
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Detect and print; 1 if an image could not be read."""
    if not 0 <= args.score_threshold <= 1:
        raise InputError(f"--score-threshold must be from 0 to 1, got {args.score_threshold}")
    return run_on_images(args, Task(_open, _detect, _rows, _draw, _content))


def _open(args):
    return DetectorPredictor(
        args.model, args.engine, threads=args.threads, precision=args.precision
    )


def _detect(predictor, images, args):
    return predictor.detect(images, args.score_threshold, args.batch_size)


def _rows(path, found, width: int) -> str:
    """Return a line per box of an image, the path in the first."""
    if not len(found.labels):
        return f"{path!s:<{width}} nothing"
    heads = [str(path), *[""] * (len(found.labels) - 1)]
    return "\n".join(
        f"{head:<{width}} {score:>6.3f} {_corners(box)}  {name}"
        for head, score, box, name in zip(heads, found.scores, found.boxes, found.names)
    )


def _corners(box) -> str:
    return " ".join(f"{value:>7.1f}" for value in box)


def _draw(rgb, found):
    texts = [f"{name} {score:.2f}" for name, score in zip(found.names, found.scores)]
    return draw_boxes(rgb, found.boxes, texts)


def _content(found) -> dict:
    rows = zip(found.labels, found.names, found.scores, found.boxes)
    return {
        "objects": [
            {"label": int(label), "name": name, "score": float(score), "box": box.tolist()}
            for label, name, score, box in rows
        ]
    }
