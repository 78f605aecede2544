"""Open the data sets of ``--train-splits`` and ``--val-splits``."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gluon_asymmnet.data.boxes.records import DetectionList, DetectionRecords
from gluon_asymmnet.data.boxes.voc import Split, VOCSource, list_file, set_folder
from gluon_asymmnet.data.class_names import quote_names
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.data.sources import Contents
from gluon_asymmnet.errors import InputError


def open_boxes(root, splits: str, classes: Sequence[str] | None, *, skip_bad: bool = False):
    """Open splits of VOC folders, or a ``.rec`` or ``.lst`` file of GluonCV, below ``root``.

    Args:
        splits: ``2007_trainval,2012_trainval``, or ``train.rec``.
        classes: class names in label order; None: the default of ``VOCSource`` or
            ``DetectionRecords``.
        skip_bad: leave out what is faulty instead of raising an error: objects of other classes,
            empty boxes, images that cannot be read.  ``remarks`` of the source say what.

    Returns: a source of images with boxes, see ``voc``.
    Raises: FileNotFoundError, FormatError, InputError: like these classes.
    """
    root = Path(root).expanduser()
    if not is_record_file(splits):
        return VOCSource(root, parse_splits(splits, root), classes, skip_bad=skip_bad)
    if splits.endswith(".rec"):
        return DetectionRecords(root / splits, classes=classes, skip_bad=skip_bad)
    return DetectionList(root / splits, root, classes, skip_bad=skip_bad)


def contents_of(source) -> Contents:
    """Return number, remarks and identity of a source's images with boxes."""
    check, counts = 0, np.zeros(len(source.class_names), np.int64)
    for i in range(len(source)):
        name, boxes, labels = source.objects(i)
        for content in (name.encode("utf-8", "replace"), boxes.tobytes(), labels.tobytes()):
            check = zlib.crc32(content, check)
        counts += np.bincount(labels, minlength=len(counts))
    remarks = [f"{counts.sum()} objects", *source.remarks]
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


def parse_splits(text: str, root: PathLike | None = None) -> list[Split]:
    """Parse ``2007_test,mine_train`` as ``[(2007, "test"), ("mine", "train")]``.

    Folders and lists may have underscores in their names: ``my_set_train``, ``2007_dog_train``.

    Args:
        root: the folder of the sets.  A split is divided where the list exists in it; otherwise at
            the last underscore, and after a year at the first.
    """
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        parts = item.split("_")
        choices = [("_".join(parts[:n]), "_".join(parts[n:])) for n in range(len(parts) - 1, 0, -1)]
        choices = [(folder, name) for folder, name in choices if folder and name]
        if not choices:
            raise InputError(
                f"{item!r} is not a split: expected YEAR_NAME or FOLDER_NAME: 2007_test"
            )
        splits = [(int(f) if f.isascii() and f.isdigit() else f, name) for f, name in choices]
        usual = splits[-1] if isinstance(splits[-1][0], int) else splits[0]
        existing = [
            split
            for split in (usual, *splits)
            if root is not None and list_file(set_folder(Path(root), split[0]), split[1]).is_file()
        ]
        found.append(existing[0] if existing else usual)
    return found
