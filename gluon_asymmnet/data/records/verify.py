"""Check every record of a file: framing, label and image."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.class_names import read_class_names
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records.recordio import PathLike, RecordFile
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.parallel import Progress, map_in_order, silent, threads_or_default


class BadRecord(NamedTuple):
    """An unusable record; position and key are None for an error of the whole file."""

    position: int | None
    key: int | None
    reason: str


class VerifyReport(NamedTuple):
    """The result of ``verify``; the file is good if ``bad`` is empty."""

    records: int  # number of records checked
    bad: list[BadRecord]
    rotated: int  # usable images with an EXIF rotation


def verify(
    rec: PathLike,
    idx: PathLike | None = None,
    *,
    classes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Read every record, check its label and decode its image.

    MXNet's reader ends the process at the first damaged image; this function lists all of them.
    See ``decode`` for the kinds of damage it detects.  Images with an EXIF rotation are counted:
    everything here turns them, MXNet's ImageRecordIter does not.

    Args:
        classes: number of classes; labels must be below it.  Default: the number of names in
            ``.classes.txt``, or no limit.  Several labels of a record (e.g. boxes) must be finite.
        progress: called with (done, total) after each record.

    Raises: FileNotFoundError; InputError for an argument out of range.  No error for the content.
    """
    if classes is not None and classes < 1:
        raise InputError(f"classes must be at least 1, got {classes}")
    threads, progress = threads_or_default(threads), progress or silent
    bad, rotated = [], 0
    if classes is None:
        try:
            names = read_class_names(rec)
            classes = len(names) if names else None
        except FormatError as error:
            bad.append(BadRecord(None, None, str(error)))
    with RecordFile(rec, idx, check=False) as records:
        if records.fault:
            bad.append(BadRecord(None, None, records.fault))

        def examined(i: int) -> tuple[str | None, bool]:
            """Return what is wrong with a record, and whether its image is rotated."""
            try:
                record = records.read_bare(i)
                decode(record.image)
            except FormatError as error:
                return str(error), False
            turned = image_info(record.image).orientation != 1
            return label_error(record.label, classes), turned

        results = map_in_order(examined, range(len(records)), threads)
        for i, (error, turned) in enumerate(results):
            rotated += turned
            if error:
                bad.append(BadRecord(i, int(records.keys[i]), error))
            progress(i + 1, len(records))
        return VerifyReport(len(records), bad, rotated)


def label_error(label: float | np.ndarray, classes: int | None) -> str | None:
    """Return what is wrong with a label, or None; several labels (boxes) only have to be finite."""
    if type(label) is float and label.is_integer() and 0 <= label < (classes or math.inf):
        return None  # at once: the tests below take longer than reading a small image
    if not np.all(np.isfinite(label)):
        return f"the label is {label}, expected a finite number"
    if np.ndim(label):
        return None
    if label != int(label) or label < 0 or (classes is not None and label >= classes):
        upper = "" if classes is None else f" below {classes}"
        return f"the label is {label:g}, expected a whole number from 0{upper}"
    return None
