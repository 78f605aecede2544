"""``asymmnet voc from-... and to-...``: convert data sets of labelImg, YOLO and COCO."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from gluon_asymmnet.cli.options import add_command, progress_bar
from gluon_asymmnet.data.boxes import convert_out
from gluon_asymmnet.data.boxes.coco import coco_to_voc
from gluon_asymmnet.data.boxes.labelimg import labelimg_to_voc
from gluon_asymmnet.data.boxes.sources import is_record_file, open_boxes
from gluon_asymmnet.data.boxes.voc_check import find_splits
from gluon_asymmnet.data.boxes.voc_write import ConversionReport
from gluon_asymmnet.data.boxes.yolo import yolo_to_voc
from gluon_asymmnet.data.class_names import load_class_names

_MOST_LINES = 20  # of one kind

_OUT = """\
OUT is one folder like VOC2007, with classes.txt and the lists train, val and, on request, test;
--seed and the file names decide which image is in which."""
_FROM_LABELIMG = f"""\
Takes the pictures that have an XML of the same name beside them, in subfolders too.
{_OUT}  Subfolders train, val (or
valid) and test are taken as the lists.

example:
  asymmnet voc from-labelimg labelled data/mine && asymmnet voc check data
"""
_FROM_YOLO = f"""\
Takes data.yaml, or a folder with classes.txt, and with label files beside the pictures or in labels
for images.  Splits that the set has are kept.
{_OUT}

example:
  asymmnet voc from-yolo yolo/data.yaml data/mine && asymmnet voc check data
"""
_FROM_COCO = """\
OUT is one folder like VOC2007.  Write training and validation to two folders side by side, or
divide one set with --val.

examples:
  asymmnet voc from-coco train.json photos data/mine-train --split train
  asymmnet voc check data --splits mine-train_train
  asymmnet voc from-coco all.json photos data/mine --val 0.2
"""
_TO = """\
SPLITS are those of training: mine_train,mine_val, or record files: train.rec,val.rec.  Lists of one
name become one split.  Pictures with an EXIF rotation are turned.  Boxes are edges between pixels
there: xmin to xmax + 1.

example:
  asymmnet voc {command} data out --splits mine_train,mine_val
"""


def add_commands(commands) -> None:
    """Add the commands to those of ``voc``."""
    parser = _importer(
        commands, "from-labelimg", labelimg_to_voc, "convert pictures with XML files beside them",
        _FROM_LABELIMG,
    )  # fmt: skip
    parser.add_argument(
        "--keep-unlabelled", action="store_true",
        help="take pictures without XML as pictures without objects",
    )  # fmt: skip
    _importer(commands, "from-yolo", yolo_to_voc, "convert a data set of YOLO", _FROM_YOLO)
    _add_from_coco(commands)
    for name, write, what in (
        ("to-yolo", convert_out.write_yolo, "YOLO: images, labels and data.yaml"),
        ("to-coco", convert_out.write_coco, "COCO: images and annotations"),
    ):
        _add_exporter(commands, name, write, what)


def _importer(commands, name: str, convert: Callable, summary: str, epilog: str):
    parser = add_command(commands, name, _from_folder, summary, epilog)
    parser.set_defaults(convert=convert)
    parser.add_argument("source", help="folder" if name == "from-labelimg" else "data.yaml, folder")
    parser.add_argument("out", help="folder to write; must not exist")
    _add_shares(parser, val=0.2)
    parser.add_argument("--classes", metavar="FILE", help="class names in label order, one a line")
    _add_skip_bad(parser)
    return parser


def _add_from_coco(commands) -> None:
    summary = "convert a COCO JSON file and its images"
    parser = add_command(commands, "from-coco", _from_coco, summary, _FROM_COCO)
    parser.add_argument("json", help="file with images, annotations and categories")
    parser.add_argument("images", help="folder that each file_name is relative to")
    parser.add_argument("out", help="folder to write; must not exist")
    parser.add_argument("--split", default="trainval", help="name of the list (default: trainval)")
    _add_shares(parser, val=0.0)
    _add_skip_bad(parser)


def _add_shares(parser, val: float) -> None:
    parser.add_argument(
        "--val", type=float, default=val, metavar="SHARE", help=f"of the images (default {val:g})"
    )
    parser.add_argument(
        "--test", type=float, default=0.0, metavar="SHARE", help="of the images (default 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the division (default 0)")


def _add_skip_bad(parser) -> None:
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out what is faulty and list it"
    )


def _add_exporter(commands, name: str, write: Callable, what: str) -> None:
    parser = add_command(
        commands, name, _export, f"write VOC folders or records as {what}", _TO.format(command=name)
    )
    parser.set_defaults(write=write)
    parser.add_argument("root", help="the folder of VOC2007, or of the records")
    parser.add_argument("out", help="folder to write; must not exist")
    parser.add_argument("--splits", metavar="SPLITS", help="(default: all lists of the folders)")
    parser.add_argument("--classes", metavar="FILE", help="class names in label order, one a line")
    _add_skip_bad(parser)


def _from_folder(args: argparse.Namespace) -> int:
    more = {"keep_unlabelled": args.keep_unlabelled} if "keep_unlabelled" in args else {}
    with progress_bar("converting") as progress:
        done = args.convert(
            args.source,
            args.out,
            shares={"val": args.val, "test": args.test},
            seed=args.seed,
            classes=load_class_names(args.classes) if args.classes else None,
            skip_bad=args.skip_bad,
            progress=progress,
            **more,
        )
    _print_report(done, Path(args.out))
    return 0


def _from_coco(args: argparse.Namespace) -> int:
    with progress_bar("converting") as progress:
        done = coco_to_voc(
            args.json,
            args.images,
            args.out,
            split=args.split,
            shares={"val": args.val, "test": args.test},
            seed=args.seed,
            skip_bad=args.skip_bad,
            progress=progress,
        )
    _print_report(done, Path(args.out))
    return 0


def _print_report(done: ConversionReport, out: Path) -> None:
    for word, lines in (("derived", done.derived), ("skipped", done.skipped)):
        for line in lines[:_MOST_LINES]:
            print(f"{word} {line}")
        if len(lines) > _MOST_LINES:
            print(f"{word} {len(lines) - _MOST_LINES} more")
    print(f"{out}: {done.images} images, {done.objects} objects, {len(done.classes)} classes")
    if list(done.splits) != ["trainval"]:
        print(", ".join(f"{name}: {count} images" for name, count in done.splits.items()))
    splits = ",".join(f"{out.name}_{name}" for name in done.splits)
    print(f"to check it: asymmnet voc check {out.parent} --splits {splits}")


def _export(args: argparse.Namespace) -> int:
    classes = load_class_names(args.classes) if args.classes else None
    parts: dict[str, list[str]] = {}
    for split in _splits(args.root, args.splits):
        parts.setdefault(_split_name(split), []).append(split)
    sources = {
        name: open_boxes(args.root, ",".join(items), classes, skip_bad=args.skip_bad)
        for name, items in parts.items()
    }
    with progress_bar("converting") as progress:
        done = args.write(sources, args.out, progress=progress)
    for split, source in sources.items():
        for line in source.remarks:
            print(f"{split}: {line}")
    counts = ", ".join(f"{name}: {count} images" for name, count in done.images.items())
    difficult = f", {done.difficult} of them difficult" if done.difficult else ""
    print(f"{args.out}: {counts}; {done.objects} objects{difficult}")
    return 0


def _splits(root: str, given: str | None) -> list[str]:
    """Return the splits as given; by default all, trainval only where there is no train."""
    if given:
        return [item.strip() for item in given.split(",") if item.strip()]
    found = find_splits(root)
    return [
        f"{folder}_{name}"
        for folder, name in found
        if name != "trainval" or (folder, "train") not in found
    ]


def _split_name(split: str) -> str:
    """Return the name of a split in the new set: ``train`` of ``mine_train`` and ``train.rec``."""
    return Path(split).stem if is_record_file(split) else split.rpartition("_")[2]
