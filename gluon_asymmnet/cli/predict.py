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

    parser = subparsers.add_parser(
        "predict",
        help="say what pictures show",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pictures", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model", required=True, help="exported folder or file, or run directory")
    add_engine_flags(parser)
    parser.add_argument("--top", type=int, default=5, help="classes per picture (default 5)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default 32)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    out = parser.add_argument_group("output")
    out.add_argument("--json", default="", metavar="FILE", help="write the result")
    out.add_argument(
        "--annotate", default="", metavar="DIR", help="write the pictures with their class on them"
    )
    parser.set_defaults(run=run)


def add_engine_flags(parser) -> None:
    """Add what chooses how an exported model is run; also used by ``asymmnet eval``."""
    parser.add_argument(
        "--engine", default="auto", choices=("auto", "mxnet", "onnxruntime", "openvino"),
        help="what runs the model (default: the fastest that is installed and that it has a file "
        "for; MXNet for runs and .params files)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", default="f32", choices=("f32", "bf16"), help="of openvino (default f32)"
    )


def run(args) -> int:
    """Predict and print; 1 if a picture could not be read."""
    import sys

    from gluon_asymmnet.errors import InputError

    for name in ("top", "batch_size"):
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(args, name)}")
    from tqdm import tqdm

    from gluon_asymmnet.predict import Predictor
    from gluon_asymmnet.predict.pictures import find_pictures

    found = find_pictures(args.pictures)
    targets = _targets(found, args.annotate) if args.annotate else {}
    predictor = Predictor(args.model, args.engine, threads=args.threads, precision=args.precision)
    print(f"engine: {predictor.engine}, {predictor.weights}", file=sys.stderr)
    width = max(len(str(path)) for path, _ in found)
    quiet = len(found) == 1 or not sys.stderr.isatty()
    done, skipped = [], []
    with tqdm(total=len(found), unit="picture", disable=quiet) as bar:
        for first in range(0, len(found), args.batch_size):
            paths = [path for path, _ in found[first : first + args.batch_size]]
            good, bad = _read(paths)
            guesses = predictor.classify([rgb for _, rgb in good], args.top, args.batch_size)
            for (path, rgb), best in zip(good, guesses):
                tqdm.write(_rows(path, best, width))  # above the bar
                if targets:
                    _annotate(targets[path], rgb, best[0])
                done.append((path, best))
            skipped += bad
            bar.update(len(paths))
    if args.json:
        _write_json(args.json, predictor, done, skipped)
    for _, reason in skipped:
        print(f"skipped {reason}", file=sys.stderr)
    return 1 if skipped else 0


def _targets(found, folder) -> dict:
    """Where each annotated picture goes; refuses to write over a picture or twice."""
    from pathlib import Path

    from gluon_asymmnet.errors import InputError

    targets = {path: Path(folder) / name for path, name in found}
    sources = {path.resolve() for path in targets}
    for path, target in targets.items():
        if target.resolve() in sources:
            raise InputError(f"--annotate {folder} would write over {path}: name another folder")
    if len(set(targets.values())) < len(targets):
        twice = next(t for t in targets.values() if list(targets.values()).count(t) > 1)
        raise InputError(f"two pictures would be written to {twice}: name their folders instead")
    return targets


def _read(paths):
    """Return ``(path, picture)`` of those that can be read, ``(path, reason)`` of the others."""
    from gluon_asymmnet.errors import FormatError
    from gluon_asymmnet.predict.pictures import read_picture

    good, bad = [], []
    for path in paths:
        try:
            good.append((path, read_picture(path)))
        except FormatError as error:
            bad.append((path, str(error)))
        except OSError as error:
            bad.append((path, f"{path}: {error.strerror or error}"))
    return good, bad


def _rows(path, best, width: int) -> str:
    """A line for each class of a picture, the path in the first."""
    heads = [str(path), *[""] * (len(best) - 1)]
    return "\n".join(
        f"{head:<{width}} {100 * guess.probability:>7.2f} %  {_label(guess)}"
        for head, guess in zip(heads, best)
    )


def _label(guess) -> str:
    return guess.name if guess.name == str(guess.index) else f"{guess.index} {guess.name}"


def _annotate(target, rgb, guess) -> None:
    from gluon_asymmnet.atomic import new_file
    from gluon_asymmnet.data.images import encode
    from gluon_asymmnet.predict.pictures import annotated

    text = f"{guess.name} {100 * guess.probability:.1f} %"
    data = encode(annotated(rgb, text), ".png" if target.suffix.lower() == ".png" else ".jpg")
    with new_file(target) as scratch:
        scratch.write_bytes(data)


def _write_json(path, predictor, done, skipped) -> None:
    import json

    from gluon_asymmnet.atomic import write_text

    content = {
        "model": str(predictor.weights),
        "engine": predictor.engine,
        "pictures": [
            {"path": str(picture), "classes": [guess._asdict() for guess in best]}
            for picture, best in done
        ],
        "skipped": [{"path": str(picture), "reason": reason} for picture, reason in skipped],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
