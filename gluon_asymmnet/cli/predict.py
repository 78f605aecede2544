"""``asymmnet predict``."""

import argparse

import numpy as np

from gluon_asymmnet.cli.engine import choose_model
from gluon_asymmnet.cli.images import INPUTS, Task, add_image_flags, run_on_images
from gluon_asymmnet.cli.options import require_positive
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.drawing import draw_caption
from gluon_asymmnet.predict import ClassScore, Predictor
from gluon_asymmnet.predict.inputs import AHEAD, Reading

_DESCRIPTION = f"""\
Classify pictures and frames of videos. Prints the most probable classes of each.

{INPUTS}
"""
_EXAMPLES = """\
examples:
  asymmnet predict cat.jpg dog.png --model exported
  asymmnet predict photos --model exported --top 1 --json result.json --annotate marked
  asymmnet predict clip.mp4 --model exported --top 1 --every 25 --csv seconds.csv
"""


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``predict``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_image_flags(parser, batch_size=32)
    parser.add_argument("--top", type=int, default=5, help="classes per image (default 5)")
    parser.add_argument(
        "--scaled-decoding", action="store_true", help="decode large JPEGs at 1/2, 1/4 or 1/8 of "
        "their size: faster, with slightly other results",
    )  # fmt: skip
    parser.set_defaults(run=run)
    return parser


def run(args) -> int:
    """Classify and print; 1 if something could not be read."""
    require_positive(args, "top")
    if args.scaled_decoding and args.annotate:
        raise InputError("--scaled-decoding goes without --annotate, which draws on whole pictures")
    return run_on_images(
        args, Task(_open, _classify, _rows, _draw, _content, ClassScore._fields, reading=_reading)
    )


def _open(args):
    return Predictor.of(choose_model(args.model, args), args.threads)


def _reading(args, predictor) -> Reading:
    """Prepare pictures where they are decoded, a batch ahead; keep them only to draw on them."""
    if args.annotate:
        return Reading(args.every)
    preprocess = predictor.card.preprocessing
    shorter = preprocess.resized if args.scaled_decoding else 0
    return Reading(args.every, preprocess, shorter, ahead=max(args.batch_size, AHEAD))


def _classify(predictor, frames, args):
    if args.annotate:
        return predictor.classify([frame.rgb for frame in frames], args.top, args.batch_size)
    return predictor.rank(np.stack([frame.ready for frame in frames]), args.top) if frames else []


def _rows(name, best, width: int) -> str:
    """Return a line per class of an image, the name in the first."""
    heads = [name, *[""] * (len(best) - 1)]
    return "\n".join(
        f"{head:<{width}} {100 * one.probability:>7.2f} %  {_label(one)}"
        for head, one in zip(heads, best)
    )


def _label(one) -> str:
    return one.name if one.name == str(one.index) else f"{one.index} {one.name}"


def _draw(rgb, best):
    return draw_caption(rgb, f"{best[0].name} {100 * best[0].probability:.1f} %")


def _content(best) -> dict:
    return {"classes": [one._asdict() for one in best]}
