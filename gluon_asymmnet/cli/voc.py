"""``asymmnet voc``: check, download and make folders of images with boxes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gluon_asymmnet.cli import voc_convert
from gluon_asymmnet.cli.options import add_command, positive_int, progress_bar
from gluon_asymmnet.data.boxes import voc_check
from gluon_asymmnet.data.boxes.digits import FOLDER, SPLITS, write_digits_voc
from gluon_asymmnet.data.boxes.findings import UNSURE
from gluon_asymmnet.data.boxes.sources import parse_splits
from gluon_asymmnet.data.boxes.voc_download import ARCHIVES, download_voc
from gluon_asymmnet.data.class_names import load_class_names
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.atomic import write_text

_CHECK = """\
Reads every annotation and decodes every image.  Prints one line per problem, then the problems that
are repaired when the data is read: boxes clipped to the image, class names in another case, sizes
and file names that are missing.  "unsure" are boxes of pictures whose EXIF rotation keeps the size.
Exit status: 0 if the folder is usable, 1 if there are problems.

examples:
  asymmnet voc check ~/VOC
  asymmnet voc check ~/VOC --splits 2007_trainval,2012_trainval
  asymmnet voc check data --splits mine_train --classes classes.txt --json problems.json
"""
_DOWNLOAD = """\
Writes ROOT/VOC2007 and ROOT/VOC2012 and keeps the archives (2.9 GB) in ROOT/downloads; 8.4 GB in
total.  An interrupted download continues.

examples:
  asymmnet voc download ~/VOC
  asymmnet voc download ~/VOC --only 2007_trainval,2007_test
"""
_DEMO = """\
Images of 1 to 6 handwritten digits from scikit-learn; no download.

example:
  asymmnet voc demo digits && asymmnet voc check digits
"""


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``voc`` and its commands."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Check, download, convert and make Pascal VOC folders."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_check(commands)
    _add_download(commands)
    voc_convert.add_commands(commands)
    _add_demo(commands)
    return parser


def _add_check(commands) -> None:
    parser = add_command(commands, "check", _check, "find all errors in a VOC folder", _CHECK)
    parser.add_argument("root", help="the folder of VOC2007")
    parser.add_argument(
        "--splits", metavar="YEAR_NAME,...",
        help="e.g. 2007_test, or mine_test of the folder mine (default: all that exist)",
    )  # fmt: skip
    parser.add_argument(
        "--classes", metavar="FILE", help="one name per line (default: classes.txt, or VOC's 20)"
    )
    parser.add_argument(
        "--headers-only", action="store_true", help="do not decode the images: faster"
    )
    parser.add_argument("--threads", type=positive_int, metavar="N", help="(default: all)")
    parser.add_argument("--json", metavar="FILE", help="also write the result as JSON; -: print it")


def _add_download(commands) -> None:
    summary = "download, check and unpack VOC2007 and VOC2012"
    parser = add_command(commands, "download", _download, summary, _DOWNLOAD)
    parser.add_argument("root", help="folder to write to")
    parser.add_argument(
        "--only", metavar="NAME,...", help="of 2007_trainval, 2007_test, 2012_trainval"
    )
    parser.add_argument("--mirror", metavar="URL", help="a folder with files of the same names")


def _add_demo(commands) -> None:
    summary = "write images of handwritten digits with boxes"
    parser = add_command(commands, "demo", _demo, summary, _DEMO)
    parser.add_argument("out", help="folder to write; must not exist")
    parser.add_argument(
        "--images", type=_pair, default=(600, 150), metavar="N,M",
        help="for training and test (default: 600,150)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")


def _pair(text: str) -> tuple[int, int]:
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected two numbers, e.g. 600,150") from None
    return first, second


def _check(args: argparse.Namespace) -> int:
    with progress_bar("checking", " images") as progress:
        report = voc_check.check(
            args.root,
            parse_splits(args.splits, args.root) if args.splits else None,
            load_class_names(args.classes) if args.classes else None,
            decode_images=not args.headers_only,
            threads=args.threads,
            progress=progress,
        )
    for problem in report.problems:
        print(f"{problem.file}: {problem.message}")
    for problem in report.repaired:
        kind = UNSURE if problem.kind == UNSURE else "repaired"
        print(f"{kind}: {problem.file}: {problem.message}")
    for name, count in report.classes.items():
        print(f"{count:8} {name}")
    print(
        f"{args.root}: {report.images} images, {report.empty} without objects; {report.objects} "
        f"objects, {report.difficult} difficult; {len(report.problems)} problems, "
        f"{len(report.repaired)} repaired"
    )
    if args.json:
        result = report._asdict()
        for part in ("problems", "repaired"):
            result[part] = [
                {"file": problem.file, "kind": problem.kind, "message": problem.message}
                for problem in result[part]
            ]
        text = json.dumps({"root": args.root, **result}, indent=2, ensure_ascii=False)
        write_text(args.json, text + "\n")
    return 1 if report.problems else 0


def _download(args: argparse.Namespace) -> int:
    names = args.only.split(",") if args.only else list(ARCHIVES)
    unknown = [name for name in names if name not in ARCHIVES]
    if unknown:
        raise InputError(f"unknown archive {unknown[0]!r}: expected some of {', '.join(ARCHIVES)}")
    with progress_bar("downloading", "B") as progress:
        folders = download_voc(
            args.root, [ARCHIVES[name] for name in names], mirror=args.mirror, progress=progress
        )
    for folder in folders:
        print(folder)
    return 0


def _demo(args: argparse.Namespace) -> int:
    write_digits_voc(args.out, images=args.images, seed=args.seed)
    for split, count in zip(SPLITS, args.images):
        print(f"{Path(args.out) / FOLDER}, {split}: {count} images")
    return 0
