"""Sources of labelled images: record files and class folders.

A source has ``len()``, ``read(i) -> Record``, ``label(i)``, ``name(i)`` for messages,
``class_names`` (or None) and ``path``.
"""

from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.data.class_names import read_class_names
from gluon_asymmnet.data.folders import list_class_folders
from gluon_asymmnet.data.records.recordio import Record, RecordFile
from gluon_asymmnet.errors import FormatError, InputError

# Without class names, a larger label is considered damage: each class costs 5 kB of weights.
_MAX_CLASSES = 1_000_000


class RecordSource(RecordFile):
    """A record file with the class names beside it."""

    def __init__(self, rec, idx=None, *, sample: bool = True):
        super().__init__(rec, idx, sample=sample)
        self.class_names = read_class_names(self.path)

    def name(self, i: int) -> str:
        """Return file, position and key of record ``i``, for a message."""
        return f"{self.path}, record {i} (key {self.keys[i]})"


class FolderTree:
    """A folder of ``<class>/<image>.jpg``."""

    def __init__(self, root):
        self.path = Path(root)
        self.class_names, self._images, _ = list_class_folders(self.path)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, i: int) -> Record:
        """Return image ``i`` with its label.  Raises: FormatError if its file is gone."""
        path = Path(self.name(i))
        if not path.is_file():
            raise FormatError(f"{path}: no such file, but it was there when the folder was listed")
        return Record(i, self.label(i), path.read_bytes())

    def label(self, i: int) -> float:
        """Return the label of image ``i`` without reading its file."""
        return float(self._images[i][0])

    def name(self, i: int) -> str:
        """Return the path of image ``i``, for a message."""
        return str(self.path / self._images[i][1])


def open_source(*, rec: str = "", idx: str = "", folder: str = "", sample: bool = True):
    """Open a record file or, if ``folder`` is given, a folder of class folders.

    Args:
        sample: check some records on opening; False: damage is found when a record is read.
    """
    return FolderTree(folder) if folder else RecordSource(rec, idx or None, sample=sample)


def check_labels(source, classes: Optional[int] = None, *, allowed: int = 0) -> int:
    """Return the number of classes; raise InputError if a label is out of range.

    Args:
        classes: default: the number of class names of the source, or the largest label plus 1.
        allowed: number of records that may be damaged or have a label out of range.
    """
    labels = _labels(source, allowed)
    names = source.class_names
    classes = classes or (len(names) if names else _largest(labels) + 1)
    bad = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))  # nan is bad
    if bad.sum() > allowed:
        first = int(np.argmax(bad))
        raise InputError(
            f"{source.name(first)}: label {labels[first]:g} is not one of the {classes} classes "
            f"(0 to {classes - 1}); {int(bad.sum())} of {len(labels)} records have such labels"
        )
    return classes


def _labels(source, allowed: int) -> np.ndarray:
    """Return ``(len(source),)`` float64 labels, nan for up to ``allowed`` damaged records."""
    labels, damaged = np.full(len(source), np.nan), 0
    for i in range(len(source)):
        try:
            label = source.label(i)
        except FormatError:
            damaged += 1
            if damaged > allowed:
                raise
            continue
        if np.ndim(label):
            raise InputError(f"{source.name(i)}: has {len(label)} labels; a classifier takes one")
        labels[i] = label
    return labels


def _largest(labels: np.ndarray) -> int:
    """Return the largest valid label; InputError if there is none."""
    usable = labels[(labels >= 0) & (labels < _MAX_CLASSES)]
    if not usable.size:
        raise InputError(
            f"none of the {len(labels)} labels is a number from 0 to {_MAX_CLASSES - 1}"
        )
    return int(usable.max())
