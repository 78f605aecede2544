"""Where labelled images come from: record files and trees of class folders.

A source has ``len()``, ``read(i) -> Record``, ``label(i)``, ``name(i)`` for messages,
``class_names`` (or None) and ``path``.
"""

from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.data.class_names import read_class_names
from gluon_asymmnet.data.folders import find_images
from gluon_asymmnet.data.records.recordio import Record, RecordFile
from gluon_asymmnet.errors import FormatError, InputError

# A larger label without class names is damage: each class costs 5 kB of weights.
_MOST_CLASSES = 1_000_000


class RecordSource(RecordFile):
    """A record file as a source."""

    def __init__(self, rec, idx=None, *, sample: bool = True):
        super().__init__(rec, idx, sample=sample)
        self.class_names = read_class_names(self.path)

    def name(self, i: int) -> str:
        """Say which record that is, for a message."""
        return f"{self.path}, record {i} (key {self.keys[i]})"


class FolderTree:
    """A tree of ``<class>/<image>.jpg`` as a source."""

    def __init__(self, root):
        self.path = Path(root)
        self.class_names, self._images, _ = find_images(self.path)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, i: int) -> Record:
        """Return image ``i`` with its class number.  Raises: FormatError if its file is gone."""
        path = Path(self.name(i))
        if not path.is_file():
            raise FormatError(f"{path}: no such file, but it was there when the folder was listed")
        return Record(i, self.label(i), path.read_bytes())

    def label(self, i: int) -> float:
        """Return the class number of image ``i``; its file is not read."""
        return float(self._images[i][0])

    def name(self, i: int) -> str:
        """Say which file that is, for a message."""
        return str(self.path / self._images[i][1])


def open_source(*, rec: str = "", idx: str = "", folder: str = "", sample: bool = True):
    """Open a record file or, if ``folder`` is given, a tree of class folders.

    Args:
        sample: look at some records on opening; without it a damaged one is found when it is read.
    """
    return FolderTree(folder) if folder else RecordSource(rec, idx or None, sample=sample)


def check_labels(source, classes: Optional[int] = None, *, allowed: int = 0) -> int:
    """Return the number of classes; raise InputError if a label is not one of them.

    Without ``classes`` it is taken from the names beside the records, or the largest label.

    Args:
        allowed: so many labels may be damaged or none of the classes.
    """
    labels = _labels(source, allowed)
    names = source.class_names
    classes = classes or (len(names) if names else _largest(labels) + 1)
    bad = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))  # nan is bad
    if bad.sum() > allowed:
        first = int(np.argmax(bad))
        raise InputError(
            f"{source.name(first)}: label {labels[first]:g} is not one of the {classes} classes "
            f"(0 to {classes - 1}); {int(bad.sum())} of {len(labels)} records are like that"
        )
    return classes


def _labels(source, allowed: int) -> np.ndarray:
    """``(len(source),)`` float64; nan where a record is damaged, of which some are allowed."""
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
    """The largest label that can be meant; InputError if there is none."""
    usable = labels[(labels >= 0) & (labels < _MOST_CLASSES)]
    if not usable.size:
        raise InputError(
            f"none of the {len(labels)} labels is a number from 0 to {_MOST_CLASSES - 1}"
        )
    return int(usable.max())
