"""``asymmnet predict``."""

_DESCRIPTION = """\
Name the likeliest classes of JPEG and PNG pictures.

A picture that cannot be read is reported at the end and the others are predicted; the exit status
is then 1.
"""
_EXAMPLES = """\
examples:
  asymmnet predict cat.jpg dog.png --model exported
  asymmnet predict photos --model exported --top 1 --json result.json --annotate marked
"""


def add_parser(subparsers) -> None:
    """Add the subcommand."""
    import argparse

    from gluon_asymmnet.cli.images import add_picture_flags

    parser = subparsers.add_parser(
        "predict",
        help="say what pictures show",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_picture_flags(parser, batch_size=32)
    parser.add_argument("--top", type=int, default=5, help="classes per picture (default 5)")
    parser.set_defaults(run=run)


def run(args) -> int:
    """Predict and print; 1 if a picture could not be read."""
    from gluon_asymmnet.cli.images import Task, require_one, run_on_pictures

    require_one(args, "top")
    task = Task(_open, _classify, _rows, _draw, _content)
    return run_on_pictures(args, task)


def _open(args):
    from gluon_asymmnet.predict import Predictor

    return Predictor(args.model, args.engine, threads=args.threads, precision=args.precision)


def _classify(predictor, pictures, args):
    return predictor.classify(pictures, args.top, args.batch_size)


def _rows(path, best, width: int) -> str:
    """A line for each class of a picture, the path in the first."""
    heads = [str(path), *[""] * (len(best) - 1)]
    return "\n".join(
        f"{head:<{width}} {100 * one.probability:>7.2f} %  {_label(one)}"
        for head, one in zip(heads, best)
    )


def _label(one) -> str:
    return one.name if one.name == str(one.index) else f"{one.index} {one.name}"


def _draw(rgb, best):
    from gluon_asymmnet.evaluation.drawing import draw_caption

    return draw_caption(rgb, f"{best[0].name} {100 * best[0].probability:.1f} %")


def _content(best) -> dict:
    return {"classes": [one._asdict() for one in best]}
