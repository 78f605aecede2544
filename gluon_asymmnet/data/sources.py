"""Where labelled images come from: record files and trees of class folders.

A source has ``len()``, ``read(i) -> Record``, ``label(i)``, ``name(i)`` for messages,
``class_names`` (or None) and ``path``.
"""

from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.data.class_names import read_class_names
from gluon_asymmnet.data.recordio import Record, RecordFile
from gluon_asymmnet.data.records import find_images
from gluon_asymmnet.errors import InputError


class RecordSource(RecordFile):
    """A record file as a source."""

    def __init__(self, rec, idx=None):
        super().__init__(rec, idx)
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
        """Return image ``i`` with its class number."""
        return Record(i, self.label(i), Path(self.name(i)).read_bytes())

    def label(self, i: int) -> float:
        """Return the class number of image ``i``; its file is not read."""
        return float(self._images[i][0])

    def name(self, i: int) -> str:
        """Say which file that is, for a message."""
        return str(self.path / self._images[i][1])


def open_source(*, rec: str = "", idx: str = "", folder: str = ""):
    """Open a record file or, if ``folder`` is given, a tree of class folders."""
    return FolderTree(folder) if folder else RecordSource(rec, idx or None)


def check_labels(source, classes: Optional[int] = None) -> int:
    """Return the number of classes; raise InputError if a label is not one of them.

    Without ``classes`` it is taken from the names beside the records, or the largest label.
    """
    labels = [source.label(i) for i in range(len(source))]
    several = [i for i, label in enumerate(labels) if np.ndim(label)]
    if several:
        raise InputError(
            f"{source.name(several[0])}: has {len(labels[several[0]])} labels; "
            f"a classifier takes one"
        )
    labels = np.asarray(labels)
    names = source.class_names
    classes = classes or (len(names) if names else int(labels.max()) + 1)
    bad = (labels < 0) | (labels >= classes) | (labels != np.floor(labels))
    if bad.any():
        first = int(np.argmax(bad))
        raise InputError(
            f"{source.name(first)}: label {labels[first]:g} is not one of the {classes} classes "
            f"(0 to {classes - 1}); {int(bad.sum())} of {len(labels)} records are like that"
        )
    return classes
