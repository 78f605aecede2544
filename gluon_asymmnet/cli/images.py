"""Shared image loop of ``predict`` and ``detect``."""

import json
import sys
from pathlib import Path
from typing import Callable, NamedTuple

from tqdm import tqdm

from gluon_asymmnet.cli.options import add_engine_flags, add_threads_flag, require_positive
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.predict.images import find_image_files, read_image
from gluon_asymmnet.utils.atomic import new_file, write_text


class Task(NamedTuple):
    """The steps that differ between the commands; there is one result per image."""

    open: Callable  # args -> predictor
    predict: Callable  # predictor, images, args -> results
    rows: Callable  # path, result, width of the longest path -> text
    draw: Callable  # image, result -> the image with the result drawn on it
    content: Callable  # result -> dict for JSON


def add_image_flags(parser, *, batch_size: int) -> None:
    """Add images, model, engine and output."""
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    parser.add_argument("--model", required=True, help="exported folder or file, or run directory")
    add_engine_flags(parser)
    parser.add_argument(
        "--batch-size", type=int, default=batch_size, help=f"(default {batch_size})"
    )
    add_threads_flag(parser)
    out = parser.add_argument_group("output")
    out.add_argument("--json", default="", metavar="FILE", help="write the result")
    out.add_argument(
        "--annotate", default="", metavar="DIR", help="write the images with the result on them"
    )


def run_on_images(args, task: Task) -> int:
    """Predict and print; 1 if an image could not be read."""
    require_positive(args, "batch_size")
    found = find_image_files(args.images)
    targets = _targets(found, args.annotate) if args.annotate else {}
    predictor = task.open(args)
    print(f"engine: {predictor.engine}, {predictor.weights}", file=sys.stderr)
    width = max(len(str(path)) for path, _ in found)
    quiet = len(found) == 1 or not sys.stderr.isatty()
    done, skipped = [], []
    with tqdm(total=len(found), unit="image", disable=quiet) as bar:
        for first in range(0, len(found), args.batch_size):
            paths = [path for path, _ in found[first : first + args.batch_size]]
            good, bad = _read(paths)
            results = task.predict(predictor, [rgb for _, rgb in good], args)
            for (path, rgb), result in zip(good, results):
                tqdm.write(task.rows(path, result, width))  # above the bar
                if targets:
                    _write_image(targets[path], task.draw(rgb, result))
                done.append({"path": str(path), **task.content(result)})
            skipped += bad
            bar.update(len(paths))
    if args.json:
        _write_json(args.json, predictor, done, skipped)
    for _, reason in skipped:
        print(f"skipped {reason}", file=sys.stderr)
    return 1 if skipped else 0


def _targets(found, folder) -> dict:
    """Return the path of each annotated image.

    Raises: InputError if it is the path of an input image, or that of two.
    """
    targets = {path: Path(folder) / _target_name(name) for path, name in found}
    sources = {path.resolve() for path in targets}
    for path, target in targets.items():
        if target.resolve() in sources:
            raise InputError(f"--annotate {folder} would write over {path}: name another folder")
    if len(set(targets.values())) < len(targets):
        twice = next(t for t in targets.values() if list(targets.values()).count(t) > 1)
        raise InputError(f"two images would be written to {twice}: name their folders instead")
    return targets


def _target_name(name: Path) -> Path:
    """Return the name of the annotated image; pictures of other formats become a JPEG."""
    written = name.suffix.lower() in (".jpg", ".jpeg", ".png")
    return name if written else name.with_name(f"{name.name}.jpg")


def _read(paths):
    """Return ``(path, image)`` of those that can be read, ``(path, reason)`` of the others."""
    good, bad = [], []
    for path in paths:
        try:
            good.append((path, read_image(path)))
        except FormatError as error:
            bad.append((path, str(error)))
        except OSError as error:
            bad.append((path, f"{path}: {error.strerror or error}"))
    return good, bad


def _write_image(target, rgb) -> None:
    data = encode(rgb, ".png" if target.suffix.lower() == ".png" else ".jpg")
    with new_file(target) as scratch:
        scratch.write_bytes(data)


def _write_json(file, predictor, done, skipped) -> None:
    content = {
        "model": str(predictor.weights),
        "engine": predictor.engine,
        "pictures": done,
        "skipped": [{"path": str(path), "reason": reason} for path, reason in skipped],
    }
    write_text(file, json.dumps(content, indent=1) + "\n")
