"""What ``asymmnet predict`` and ``asymmnet detect`` share: pictures in, lines and files out."""

from typing import Callable, NamedTuple


class Task(NamedTuple):
    """What is done with pictures; a result is that of one picture."""

    open: Callable  # args -> predictor
    work: Callable  # predictor, pictures, args -> results
    rows: Callable  # path, result, width of the longest path -> text
    draw: Callable  # picture, result -> the picture with the result on it
    content: Callable  # result -> dict for JSON


def add_picture_flags(parser, *, batch_size: int) -> None:
    """Add pictures, model, engine and output."""
    parser.add_argument("pictures", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model", required=True, help="exported folder or file, or run directory")
    add_engine_flags(parser)
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help=f"(default {batch_size})"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: all)")
    out = parser.add_argument_group("output")
    out.add_argument("--json", default="", metavar="FILE", help="write the result")
    out.add_argument(
        "--annotate", default="", metavar="DIR", help="write the pictures with the result on them"
    )


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


def require_one(args, *names: str) -> None:
    """Raise InputError for a number below 1."""
    from gluon_asymmnet.errors import InputError

    for name in names:
        if getattr(args, name) < 1:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag} must be at least 1, got {getattr(args, name)}")


def run_on_pictures(args, task: Task) -> int:
    """Do the task and print; 1 if a picture could not be read."""
    import sys

    require_one(args, "batch_size")
    from tqdm import tqdm

    from gluon_asymmnet.predict.images import find_image_files

    found = find_image_files(args.pictures)
    targets = _targets(found, args.annotate) if args.annotate else {}
    predictor = task.open(args)
    print(f"engine: {predictor.engine}, {predictor.weights}", file=sys.stderr)
    width = max(len(str(path)) for path, _ in found)
    quiet = len(found) == 1 or not sys.stderr.isatty()
    done, skipped = [], []
    with tqdm(total=len(found), unit="picture", disable=quiet) as bar:
        for first in range(0, len(found), args.batch_size):
            paths = [path for path, _ in found[first : first + args.batch_size]]
            good, bad = _read(paths)
            results = task.work(predictor, [rgb for _, rgb in good], args)
            for (path, rgb), result in zip(good, results):
                tqdm.write(task.rows(path, result, width))  # above the bar
                if targets:
                    _write_picture(targets[path], task.draw(rgb, result))
                done.append({"path": str(path), **task.content(result)})
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
    from gluon_asymmnet.predict.images import read_image

    good, bad = [], []
    for path in paths:
        try:
            good.append((path, read_image(path)))
        except FormatError as error:
            bad.append((path, str(error)))
        except OSError as error:
            bad.append((path, f"{path}: {error.strerror or error}"))
    return good, bad


def _write_picture(target, rgb) -> None:
    from gluon_asymmnet.data.images import encode
    from gluon_asymmnet.utils.atomic import new_file

    data = encode(rgb, ".png" if target.suffix.lower() == ".png" else ".jpg")
    with new_file(target) as scratch:
        scratch.write_bytes(data)


def _write_json(path, predictor, done, skipped) -> None:
    import json

    from gluon_asymmnet.utils.atomic import write_text

    content = {
        "model": str(predictor.weights),
        "engine": predictor.engine,
        "pictures": done,
        "skipped": [{"path": str(picture), "reason": reason} for picture, reason in skipped],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
