"""Flags, checks and progress bars that several commands share."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator

from tqdm import tqdm

from gluon_asymmnet.card import CLASSIFIER, DETECTOR, ClassifierCard
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.registry import ModelSpec

# flag, field of the card, type, help
_MODEL_FLAGS = (
    (("--model",), "model", str, "for a bare .params file: e.g. asymmnet_large_0.5, or a spec"),
    (("--width-scale", "--width"), "width", float, "its width multiplier"),
    (("--asymmrate", "--rate"), "rate", int, "its rate"),
    (("--shuffle-groups",), "shuffle_groups", int, "its channel shuffle"),
    (("--stem",), "stem", str, "its first block's graph: authors or scaled"),
    (("--classes",), "classes", int, "its number of classes"),
    (("--input-size",), "input_size", int, "input, pixels"),
    (("--crop-ratio",), "crop_ratio", float, "input size over the resized shorter side"),
)


def add_command(commands, name: str, run, summary: str, epilog: str) -> argparse.ArgumentParser:
    """Add a command of a command, e.g. ``records build``; its help ends with ``epilog``."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_model_flags(parser) -> None:
    """Add the path of a model, and flags for the network that a bare .params file holds."""
    parser.add_argument(
        "path", help="run directory, exported folder or -symbol.json, or .params file"
    )
    group = parser.add_argument_group("model")
    add_import_flag(group)
    for flags, field, kind, text in _MODEL_FLAGS:
        group.add_argument(*flags, dest=field, type=kind, default=argparse.SUPPRESS, help=text)


def add_import_flag(parser) -> None:
    """Add the modules with own parts, which ``cli.main`` imports."""
    parser.add_argument(
        "--import", dest="imports", action="append", metavar="MODULE", help="module or .py file "
        "that registers own parts, see docs/python.md; repeatable",
    )  # fmt: skip


def add_threads_flag(parser) -> None:
    """Add the number of CPU threads of the engine."""
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")


def add_bad_records_flag(parser) -> None:
    """Add the number of damaged images that an evaluation may leave out."""
    parser.add_argument(
        "--max-bad-records", type=_whole_number, default=0, metavar="N", help="leave out up to N "
        "images that cannot be read; their number is printed (default 0: the first is an error)",
    )  # fmt: skip


def print_left_out(left_out, images: int) -> None:
    """Print how many of the images an evaluation left out, and on stderr why."""
    for reason in left_out.reasons:
        print(f"left out: {reason}", file=sys.stderr)
    if left_out.reasons:
        print(f"{len(left_out.reasons)} of {images} images left out: they cannot be read")


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1, as the ``type`` of a flag."""
    return _whole_number(text, least=1)


def _whole_number(text: str, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least {least}")
    return int(text)


def require_positive(args, *names: str) -> None:
    """Raise InputError for a number below 1."""
    for name in names:
        if getattr(args, name) < 1:
            raise InputError(f"{flag_of(name)} must be at least 1, got {getattr(args, name)}")


def flag_of(name: str) -> str:
    """Return the flag of an attribute: ``--batch-size`` of ``batch_size``."""
    return "--" + name.replace("_", "-")


def model_settings(args) -> dict:
    """Return the fields of the card that flags of ``add_model_flags`` set."""
    given = {f: getattr(args, f) for _, f, _, _ in _MODEL_FLAGS if hasattr(args, f)}
    require_positive(args, *({"input_size", "classes"} & given.keys()))
    if not 0 < given.get("crop_ratio", 1) <= 1:
        raise InputError(f"--crop-ratio must be above 0 and at most 1, got {given['crop_ratio']}")
    return given


def refuse_architecture(given: dict) -> None:
    """Raise InputError for settings other than those of the input: the model's card has them."""
    fixed = sorted(given.keys() - {"input_size", "crop_ratio"})
    if fixed:
        raise InputError(f"{flag_of(fixed[0])} goes with --model and a .params file")


def open_model(args, kind: str | None = CLASSIFIER):
    """Open the model that a command line names; flags override a classifier's card.  Loads MXNet.

    Args:
        kind: of its card; None for both.
    """
    from gluon_asymmnet.saved import open_saved

    given, card = model_settings(args), None
    if "model" in given:
        fields = dict(given)
        identity = {name: fields.pop(name) for name in ModelSpec._fields if name in given}
        card = ClassifierCard.of(ModelSpec.parse(fields.pop("model"), **identity), **fields)
    model = open_saved(args.path, card, kind)
    if given and model.card.kind == DETECTOR:
        raise InputError(
            f"{flag_of(min(given))} is for classifiers; {args.path} holds a detector, and its card "
            "has its settings"
        )
    if card is None:
        refuse_architecture(given)
        model = model._replace(card=dataclasses.replace(model.card, **given))
    return model


@contextlib.contextmanager
def progress_bar(what: str, unit: str = " images", *, scaled: bool = True) -> Iterator:
    """Yield ``advance(done, total)`` of a bar on a terminal, None where stderr is a file."""
    if not sys.stderr.isatty():  # in a file, each step of the bar would be a line
        yield None
        return
    with tqdm(desc=what, unit=unit, unit_scale=scaled, leave=False) as bar:

        def advance(done: int, total) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield advance
