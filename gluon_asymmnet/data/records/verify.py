"""Check every record of a file: framing, label, image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.class_names import read_class_names
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records.recordio import PathLike, RecordFile
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.parallel import Progress, ordered, silent, threads_or_default


class BadRecord(NamedTuple):
    """A record that cannot be used; position and key are None if it is the file as a whole."""

    position: int | None
    key: int | None
    reason: str


class Report(NamedTuple):
    """What ``verify`` found; all is well if ``bad`` is empty."""

    records: int  # looked at
    bad: list[BadRecord]


def verify(
    rec: PathLike,
    idx: PathLike | None = None,
    *,
    classes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read every record, look at its label and decode its image.

    Unlike MXNet's reader, which ends the process at the first damaged image, this one returns
    a list.  ``decode`` says what damage is found.

    Args:
        classes: number of classes; labels must be below.  Default: as many as
            ``.classes.txt`` names, or no bound.  A record with several labels (boxes, say) only
            has to have finite ones.
        progress: called with (done, total) after each record.

    Raises: FileNotFoundError; InputError for an argument out of range.  Never for the content.
    """
    if classes is not None and classes < 1:
        raise InputError(f"classes must be at least 1, got {classes}")
    threads, progress = threads_or_default(threads), progress or silent
    bad = []
    if classes is None:
        try:
            names = read_class_names(rec)
            classes = len(names) if names else None
        except FormatError as error:
            bad.append(BadRecord(None, None, str(error)))
    with RecordFile(rec, idx, check=False) as records:
        if records.fault:
            bad.append(BadRecord(None, None, records.fault))

        def reason(i: int) -> str | None:
            try:
                record = records.read_bare(i)
                decode(record.image)
            except FormatError as error:
                return str(error)
            return label_fault(record.label, classes)

        for i, fault in enumerate(ordered(reason, range(len(records)), threads)):
            if fault:
                bad.append(BadRecord(i, int(records.keys[i]), fault))
            progress(i + 1, len(records))
        return Report(len(records), bad)


def label_fault(label: float | np.ndarray, classes: int | None) -> str | None:
    """What is wrong with a label, or None; several (boxes, say) only have to be finite."""
    if not np.all(np.isfinite(label)):
        return f"the label is {label}, expected a finite number"
    if np.ndim(label):
        return None
    if label != int(label) or label < 0 or (classes is not None and label >= classes):
        upper = "" if classes is None else f" below {classes}"
        return f"the label is {label:g}, expected a whole number from 0{upper}"
    return None
