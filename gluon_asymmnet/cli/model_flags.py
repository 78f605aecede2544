"""Flags that say which network a bare parameter file holds."""

# flag, field of the card, type, help
_FLAGS = (
    (("--model",), "model", str, "for a bare .params file: e.g. asymmnet_large_0.5, or a spec"),
    (("--width-scale", "--width"), "width", float, "its width multiplier"),
    (("--asymmrate", "--rate"), "rate", int, "its rate"),
    (("--shuffle-groups",), "shuffle_groups", int, "its channel shuffle"),
    (("--stem",), "stem", str, "its first block's graph: authors or scaled"),
    (("--classes",), "classes", int, "its number of classes"),
    (("--input-size",), "input_size", int, "input, pixels"),
    (("--crop-ratio",), "crop_ratio", float, "input size over the resized shorter side"),
)


def add_model_flags(parser) -> None:
    """Add the path of a model and the flags of ``_FLAGS``."""
    import argparse

    parser.add_argument(
        "path", help="run directory, exported folder or -symbol.json, or .params file"
    )
    group = parser.add_argument_group("model")
    for flags, field, kind, text in _FLAGS:
        group.add_argument(*flags, dest=field, type=kind, default=argparse.SUPPRESS, help=text)


def open_from(args):
    """Open the model a command line names; flags override its card."""
    import dataclasses

    from gluon_asymmnet.card import Card
    from gluon_asymmnet.models.registry import ModelSpec
    from gluon_asymmnet.saved import open_model

    given = _given(args)
    if "model" not in given:
        _refuse_all_but(given, "input_size", "crop_ratio")
        model = open_model(args.path)
        return model._replace(card=dataclasses.replace(model.card, **given))
    identity = {name: given.pop(name) for name in ModelSpec._fields if name in given}
    spec = ModelSpec.parse(given.pop("model"), **identity)
    return open_model(args.path, Card.of(spec, **given))


def open_any_from(args):
    """Open the model a command line names, a detector as well, whose card says it all."""
    from pathlib import Path

    from gluon_asymmnet.card import DETECTOR
    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.saved import kind_at, open_saved

    if not Path(args.path).exists() or kind_at(args.path) != DETECTOR:
        return open_from(args)
    given = _given(args)
    if given:
        raise InputError(
            f"--{sorted(given)[0].replace('_', '-')} is for classifiers; {args.path} holds a "
            f"detector, and its card says what it is"
        )
    return open_saved(args.path)


def predictor_from(args):
    """Open the exported files a command line names with its engine; None: they are MXNet's.

    An ONNX file or an IR has its input size built in; the crop ratio may be overridden.
    """
    import dataclasses

    from gluon_asymmnet.errors import InputError
    from gluon_asymmnet.predict import Predictor, choose_engine

    engine, _ = choose_engine(args.path, args.engine)
    if engine == "mxnet":
        return None
    given = _given(args)
    _refuse_all_but(given, "input_size", "crop_ratio")
    predictor = Predictor(args.path, engine, threads=args.threads, precision=args.precision)
    built_in = predictor.card.input_size
    if given.get("input_size", built_in) != built_in:
        raise InputError(
            f"{predictor.weights} takes {built_in} pixels, --input-size says "
            f"{given['input_size']}: export the network at that size"
        )
    predictor.card = dataclasses.replace(predictor.card, **given)
    return predictor


def _given(args) -> dict:
    """Return the fields of the card that flags set."""
    from gluon_asymmnet.errors import InputError

    given = {f: getattr(args, f) for _, f, _, _ in _FLAGS if hasattr(args, f)}
    for name in ("input_size", "classes"):
        if given.get(name, 1) < 1:
            raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {given[name]}")
    if not 0 < given.get("crop_ratio", 1) <= 1:
        raise InputError(f"--crop-ratio must be above 0 and at most 1, got {given['crop_ratio']}")
    return given


def _refuse_all_but(given: dict, *allowed: str) -> None:
    from gluon_asymmnet.errors import InputError

    fixed = sorted(set(given) - set(allowed))
    if fixed:
        raise InputError(f"--{fixed[0].replace('_', '-')} goes with --model and a .params file")
