"""Open the data sets of ``--train-splits`` and ``--val-splits``."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gluon_asymmnet.data.boxes.records import DetectionList, DetectionRecords
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.class_names import quote_names
from gluon_asymmnet.data.sources import Contents
from gluon_asymmnet.errors import InputError


def open_boxes(root, splits: str, classes: Sequence[str] | None, *, skip_bad: bool = False):
    """Open splits of VOC folders, or a ``.rec`` or ``.lst`` file of GluonCV, below ``root``.

    Args:
        splits: ``2007_trainval,2012_trainval``, or ``train.rec``.
        classes: class names in label order; None: the default of ``VOCSource`` or
            ``DetectionRecords``.
        skip_bad: skip objects of other classes, and boxes that are empty or outside.

    Returns: a source of images with boxes, see ``voc``.
    Raises: FileNotFoundError, FormatError, InputError: like these classes.
    """
    root = Path(root).expanduser()
    if not is_record_file(splits):
        bad = "skip" if skip_bad else "error"
        return VOCSource(root, parse_splits(splits), classes, unknown=bad, bad_boxes=bad)
    if skip_bad:
        raise InputError(f"--skip-bad is for VOC folders: correct the labels of {splits}")
    if splits.endswith(".rec"):
        return DetectionRecords(root / splits, classes=classes)
    return DetectionList(root / splits, root, classes)


def contents_of(source) -> Contents:
    """Return number, remarks and identity of a source's images with boxes."""
    check, counts = 0, np.zeros(len(source.class_names), np.int64)
    for i in range(len(source)):
        name, boxes, labels = source.objects(i)
        for content in (name.encode("utf-8", "replace"), boxes.tobytes(), labels.tobytes()):
            check = zlib.crc32(content, check)
        counts += np.bincount(labels, minlength=len(counts))
    remarks = [f"{counts.sum()} objects", *getattr(source, "remarks", [])]
    missing = [name for name, count in zip(source.class_names, counts) if not count]
    if missing:
        remarks.append(f"no object of {len(missing)} classes: {quote_names(missing)}")
    fingerprint = {
        "images": len(source), "classes": list(source.class_names), "labels": check, "files": 0,
    }  # fmt: skip
    return Contents(len(source), len(counts), remarks, fingerprint)


def is_record_file(splits: str) -> bool:
    """Whether ``splits`` is a record file or list of GluonCV."""
    return splits.endswith((".rec", ".lst"))


def parse_splits(text: str) -> list[tuple]:
    """Parse ``2007_test,mine_train`` as ``[(2007, "test"), ("mine", "train")]``."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        folder, _, name = item.rpartition("_")
        if not folder or not name:
            raise InputError(f"{item!r} is no split: expected YEAR_NAME or FOLDER_NAME: 2007_test")
        found.append((int(folder) if folder.isdecimal() else folder, name))
    return found
