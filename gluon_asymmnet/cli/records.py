"""``asymmnet records``: build, verify, repair, count, split record files, write the demo set."""

from __future__ import annotations

import argparse
import functools
import json
from pathlib import Path

from gluon_asymmnet.cli.options import add_command, progress_bar
from gluon_asymmnet.data import digits, fashion
from gluon_asymmnet.data.class_names import load_class_names
from gluon_asymmnet.data.records.build import build
from gluon_asymmnet.data.records.repair import repair
from gluon_asymmnet.data.records.stats import split, stats
from gluon_asymmnet.data.records.verify import verify
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.atomic import write_text

_BUILD = """\
The folder holds one folder per class, and each of those picture files:

    photos/cat/0001.jpg
    photos/dog/0001.jpg

Writes PREFIX.rec, PREFIX.idx, PREFIX.lst and PREFIX.classes.txt: all of them, or none.
Every image is decoded once, so that corrupt images are found before training.

examples:
  asymmnet records build photos/train data/train --resize 256 --shuffle-seed 0
  asymmnet records build photos/val data/val --resize 256 --classes data/train.classes.txt
"""
_VERIFY = """\
Decodes every image and checks every label.  Prints one line per bad record: position in the index,
key, error.  Exit status: 0 if there are no bad records, 1 if there are.

examples:
  asymmnet records verify data/train.rec
  asymmnet records verify train.rec --idx other.idx --classes 1000 --json bad.json
"""
_REPAIR = """\
Copies every usable record to DST, which must end in .rec, and writes .idx, .lst and .classes.txt.
The source is not changed.  Prints one line per damaged place: byte offset, keys, error.
Exit status: 0 if all records were good, 1 if records were dropped.

example:
  asymmnet records repair data/train.rec data/clean.rec
"""
_STATS = """\
example:
  asymmnet records stats data/val.rec
"""
_SPLIT = """\
Splits the records at random, with the same proportions in each class.
Keys and images are copied unchanged; the source is not changed.

example:
  asymmnet records split all.rec data/train=0.9 data/val=0.1 --seed 0
"""
_FASHION = """\
70,000 pictures of clothes in 10 classes, 28 x 28 pixels with two black pixels on each side
(arXiv:1708.07747).  The Debian package dataset-fashion-mnist has the files, too.  Choose settings
on val.rec, which is part of the training set, and use test.rec once, at the end.

examples:
  asymmnet records fashion fashion
  asymmnet records fashion fashion --from /usr/share/datasets/fashion-mnist
"""
_DEMO = """\
1,348 training and 449 validation images of the digits 0 to 9, from scikit-learn; no download.

example:
  asymmnet records demo demo && asymmnet records stats demo/train.rec
"""


def build_parser(prog: str) -> argparse.ArgumentParser:
    """Return the parser of ``records`` and its commands."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Build, verify, repair, count and split record files; write the demo set.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_build(commands)
    _add_verify(commands)
    _add_repair(commands)
    _add_stats(commands)
    _add_split(commands)
    _add_demo(commands)
    _add_fashion(commands)
    return parser


def _add_build(commands) -> None:
    summary = "pack a folder of images into a record file"
    parser = add_command(commands, "build", _build, summary, _BUILD)
    parser.add_argument("folder", help="folder of class folders")
    parser.add_argument("prefix", help="where to write, without extension")
    parser.add_argument(
        "--resize", type=int, default=0, metavar="PIXELS", help="shorter side (default: keep)"
    )
    parser.add_argument(
        "--quality", type=int, default=95, help="of JPEGs that are re-encoded (default: 95)"
    )
    parser.add_argument(
        "--encoding", choices=(".jpg", ".png"), default=".jpg", help="(default: .jpg)"
    )
    parser.add_argument(
        "--classes", metavar="FILE", help="class names in label order (default: folders, sorted)"
    )
    parser.add_argument(
        "--shuffle-seed", type=int, metavar="N", help="shuffle the records (default: keep order)"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="omit unreadable images and list them"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    _add_threads(parser)


def _add_verify(commands) -> None:
    summary = "find records that cannot be used"
    parser = add_command(commands, "verify", _verify, summary, _VERIFY)
    parser.add_argument("rec", help="record file, or a folder: all that are in it")
    parser.add_argument("--idx", metavar="FILE", help="its index (default: the .idx beside it)")
    parser.add_argument(
        "--classes", type=int, metavar="N", help="labels must be below N (default: .classes.txt)"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the result as JSON; -: print it")
    _add_threads(parser)


def _add_repair(commands) -> None:
    summary = "write a clean copy of a damaged record file"
    parser = add_command(commands, "repair", _repair, summary, _REPAIR)
    parser.add_argument("src", help="record file")
    parser.add_argument("dst", help="record file to write")
    parser.add_argument("--idx", metavar="FILE", help="SRC's index (default: the .idx beside it)")
    parser.add_argument("--json", metavar="FILE", help="also write the result as JSON; -: print it")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files of DST")
    _add_threads(parser)


def _add_stats(commands) -> None:
    summary = "count records, classes and image sizes"
    parser = add_command(commands, "stats", _stats, summary, _STATS)
    _add_rec(parser)
    parser.add_argument("--json", metavar="FILE", help="also write the result as JSON; -: print it")


def _add_split(commands) -> None:
    summary = "split a record file into several new ones"
    parser = add_command(commands, "split", _split, summary, _SPLIT)
    _add_rec(parser)
    parser.add_argument(
        "parts", nargs="+", type=_part, metavar="PREFIX=FRACTION", help="fractions add up to 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument(
        "--no-stratify", action="store_true", help="ignore the classes; needed for several labels"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def _add_demo(commands) -> None:
    summary = "write handwritten digits as JPEGs and records"
    parser = add_command(commands, "demo", _demo, summary, _DEMO)
    parser.add_argument("out", help="folder to write; must not exist")
    parser.add_argument(
        "--size", type=int, default=32, metavar="PIXELS", help="of a side (default: 32)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--exist-ok", action="store_true", help="reuse a complete set")


def _add_fashion(commands) -> None:
    summary = "write Fashion-MNIST as records"
    parser = add_command(commands, "fashion", _fashion, summary, _FASHION)
    parser.add_argument("out", help="folder to write; must not exist")
    parser.add_argument(
        "--from", dest="source", metavar="FOLDER", help="with the IDX files (default: download)"
    )
    parser.add_argument("--mirror", metavar="URL", help="a folder with files of the same names")
    parser.add_argument(
        "--held-out", type=int, default=fashion.HELD_OUT, metavar="N",
        help=f"training images for val.rec (default: {fashion.HELD_OUT})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")


def _add_rec(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rec", help="record file")
    parser.add_argument("--idx", metavar="FILE", help="its index (default: the .idx beside it)")


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads", type=int, metavar="N", help="decoding threads (default: one per processor)"
    )


def _part(text: str) -> tuple[str, float]:
    prefix, _, fraction = text.rpartition("=")
    if not prefix:
        raise argparse.ArgumentTypeError(f"{text!r}: expected PREFIX=FRACTION, e.g. train=0.9")
    try:
        return prefix, float(fraction)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{fraction!r} is not a number: {text!r}") from None


def _write_json(path: str, result: dict) -> None:
    write_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def _build(args: argparse.Namespace) -> int:
    with progress_bar("packing", scaled=False) as progress:
        report = build(
            args.folder,
            args.prefix,
            resize=args.resize,
            quality=args.quality,
            encoding=args.encoding,
            classes=load_class_names(args.classes) if args.classes else None,
            threads=args.threads,
            shuffle_seed=args.shuffle_seed,
            skip_bad=args.skip_bad,
            overwrite=args.overwrite,
            progress=progress,
            announce=functools.partial(print, flush=True),
        )
    print(f"{args.prefix}.rec: {report.records} records, {len(report.classes)} classes")
    for path, reason in report.skipped:
        print(f"skipped {path}: {reason}")
    if report.remarks:
        print("; ".join(report.remarks))
    return 0


def _verify(args: argparse.Namespace) -> int:
    results = [_verify_file(rec, args) for rec in _record_files(args.rec, args.idx)]
    if args.json:
        _write_json(args.json, {"files": results} if Path(args.rec).is_dir() else results[0])
    return 1 if any(result["bad"] for result in results) else 0


def _record_files(path: str, idx: str | None) -> list[str]:
    """Return the record file, or those of a folder and of the folders in it."""
    if not Path(path).is_dir():
        return [path]
    if idx:
        raise InputError(f"--idx is of one record file, and {path} is a folder")
    found = sorted(map(str, Path(path).rglob("*.rec")))
    if not found:
        raise InputError(f"{path}: no record file (.rec) in this folder")
    return found


def _verify_file(rec: str, args: argparse.Namespace) -> dict:
    with progress_bar("verifying", scaled=False) as progress:
        report = verify(
            rec, args.idx, classes=args.classes, threads=args.threads, progress=progress
        )
    for position, key, reason in report.bad:
        print(reason if position is None else f"record {position} (key {key}): {reason}")
    print(f"{rec}: {report.records} records, {len(report.bad)} bad")
    if report.rotated:
        print(
            f"{report.rotated} images have an EXIF rotation: they are turned when they are read, "
            f"but MXNet's ImageRecordIter does not turn them"
        )
    bad = [entry._asdict() for entry in report.bad]
    return {"file": rec, "records": report.records, "rotated": report.rotated, "bad": bad}


def _repair(args: argparse.Namespace) -> int:
    with progress_bar("repairing", " bytes") as progress:
        report = repair(
            args.src, args.dst, idx=args.idx, threads=args.threads, overwrite=args.overwrite,
            progress=progress,
        )  # fmt: skip
    if report.index:
        print(f"index not used: {report.index}")
    for offset, end, keys, reason in report.dropped:
        named = f" (key {', '.join(map(str, keys))})" if keys else ""
        print(f"dropped at bytes {offset} to {end}{named}: {reason}")
    print(f"{args.dst}: {report.records} records, {len(report.dropped)} damaged places dropped")
    if args.json:
        dropped = [entry._asdict() for entry in report.dropped]
        result = {"file": args.dst, "source": args.src, **report._asdict(), "dropped": dropped}
        _write_json(args.json, result)
    return 1 if report.dropped else 0


def _stats(args: argparse.Namespace) -> int:
    with progress_bar("reading", scaled=False) as progress:
        found = stats(args.rec, args.idx, progress=progress)
    print(f"{args.rec}: {found.records} records, {found.bytes:,} bytes")
    for side in ("width", "height"):
        least, median, most = getattr(found, side)
        print(f"{side:8} {least} to {most} pixels, median {median:g}")
    print(f"channels {_counts(found.channels)}")
    print(f"formats  {_counts(found.formats)}")
    if found.several_labels:
        print(f"{found.several_labels} records have several labels")
    for label, name, count in found.classes:
        print(f"{label:6g} {count:8} {name or ''}".rstrip())
    if args.json:
        result = found._asdict()
        result["classes"] = [entry._asdict() for entry in found.classes]
        result["width"], result["height"] = found.width._asdict(), found.height._asdict()
        _write_json(args.json, {"file": args.rec, **result})
    return 0


def _counts(counts: dict) -> str:
    return ", ".join(f"{value}: {count}" for value, count in counts.items())


def _split(args: argparse.Namespace) -> int:
    parts = dict(args.parts)
    if len(parts) < len(args.parts):
        raise InputError(f"each prefix may be given once, got {[p for p, _ in args.parts]}")
    counts = split(
        args.rec,
        parts,
        idx=args.idx,
        seed=args.seed,
        stratified=not args.no_stratify,
        overwrite=args.overwrite,
    )
    for prefix, count in counts.items():
        print(f"{prefix}.rec: {count} records")
    return 0


def _demo(args: argparse.Namespace) -> int:
    found = digits.write_digits(args.out, size=args.size, seed=args.seed, exist_ok=args.exist_ok)
    print(f"{found.train}: {digits.TRAIN_IMAGES} records")
    print(f"{found.val}: {digits.VAL_IMAGES} records")
    return 0


def _fashion(args: argparse.Namespace) -> int:
    if args.source and args.mirror:
        raise InputError("give --from or --mirror, not both")
    with progress_bar("packing", scaled=False) as progress:
        counts = fashion.write_fashion(
            args.out, source=args.source, mirror=args.mirror, held_out=args.held_out,
            seed=args.seed, progress=progress,
        )  # fmt: skip
    for name, count in counts.items():
        print(f"{args.out}/{name}.rec: {count} records")
    return 0
