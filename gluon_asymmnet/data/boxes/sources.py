"""What ``--train-splits`` and ``--val-splits`` name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gluon_asymmnet.data.boxes.records import DetectionList, DetectionRecords
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.errors import InputError


def open_boxes(root, splits: str, classes: Sequence[str] | None, *, skip_bad: bool = False):
    """Open splits of VOC folders, or one ``.rec`` or ``.lst`` file of GluonCV's, below ``root``.

    Args:
        splits: ``2007_trainval,2012_trainval``, or ``train.rec``.
        classes: names in label order; None: as ``VOCSource`` and ``DetectionRecords`` have it.
        skip_bad: leave out objects of other classes, and boxes that are empty or outside.

    Returns: a source of boxes, see ``data.voc``.
    Raises: FileNotFoundError, FormatError, InputError: as these two do.
    """
    root = Path(root).expanduser()
    if not is_record_file(splits):
        bad = "skip" if skip_bad else "error"
        return VOCSource(root, splits_of(splits), classes, unknown=bad, bad_boxes=bad)
    if skip_bad:
        raise InputError(f"--skip-bad is for VOC folders: mend the labels of {splits}")
    if splits.endswith(".rec"):
        return DetectionRecords(root / splits, classes=classes)
    return DetectionList(root / splits, root, classes)


def is_record_file(splits: str) -> bool:
    """Whether splits are given as GluonCV's records or list instead."""
    return splits.endswith((".rec", ".lst"))


def splits_of(text: str) -> list[tuple]:
    """Read ``2007_test,mine_train`` as ``[(2007, "test"), ("mine", "train")]``."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        folder, _, name = item.rpartition("_")
        if not folder or not name:
            raise InputError(f"{item!r} is no split: expected YEAR_NAME or FOLDER_NAME: 2007_test")
        found.append((int(folder) if folder.isdecimal() else folder, name))
    return found
