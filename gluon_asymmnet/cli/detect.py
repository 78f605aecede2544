"""``asymmnet detect``."""

_DESCRIPTION = """\
Find the objects in JPEG and PNG pictures: label, score and box, by falling score.

Boxes are corners (xmin, ymin, xmax, ymax) in pixels of the picture, turned as the camera noted.
A picture that cannot be read is reported at the end and the others are searched; the exit status
is then 1.
"""
_EXAMPLES = """\
examples:
  asymmnet detect street.jpg --model exported
  asymmnet detect photos --model exported --score-threshold 0.5 --json result.json --annotate marked
"""
_SCORE_THRESHOLD = 0.3  # as evaluation.drawing.SCORE_THRESHOLD


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    import argparse

    from gluon_asymmnet.cli.images import add_picture_flags

    parser = subparsers.add_parser(
        "detect",
        help="find objects in pictures",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_picture_flags(parser, batch_size=8)
    parser.add_argument(
        "--score-threshold", type=float, default=_SCORE_THRESHOLD, metavar="SCORE",
        help=f"the least score of a box, 0 to 1 (default {_SCORE_THRESHOLD})",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(args) -> int:
    """Detect and print; 1 if a picture could not be read."""
    from gluon_asymmnet.cli.images import Task, run_on_pictures
    from gluon_asymmnet.errors import InputError

    if not 0 <= args.score_threshold <= 1:
        raise InputError(f"--score-threshold must be from 0 to 1, got {args.score_threshold}")
    return run_on_pictures(args, Task(_open, _detect, _rows, _draw, _content))


def _open(args):
    from gluon_asymmnet.predict.detector import DetectorPredictor

    return DetectorPredictor(
        args.model, args.engine, threads=args.threads, precision=args.precision
    )


def _detect(predictor, pictures, args):
    return predictor.detect(pictures, args.score_threshold, args.batch_size)


def _rows(path, found, width: int) -> str:
    """A line for each box of a picture, the path in the first."""
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
    from gluon_asymmnet.evaluation.drawing import draw_boxes

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
