"""Sources of labelled images: record files and class folders.

A source has ``len()``, ``read(i) -> Record``, ``label(i)``, ``name(i)`` for messages,
``class_names`` (or None), ``path``, ``remarks`` for the user, ``identity()`` of the images, and
``new_labels``: for each label of the file another one, or None.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.class_names import match_classes, quote_names, read_class_names
from gluon_asymmnet.data.folders import list_class_folders
from gluon_asymmnet.data.image_files import REFUSED_SUFFIXES
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.records.recordio import Record, RecordFile
from gluon_asymmnet.data.records.verify import label_error
from gluon_asymmnet.errors import FormatError, InputError

# Without class names, a larger label is considered damage: each class costs 5 kB of weights.
_MAX_CLASSES = 1_000_000
_LOOKED_AT = 1000  # images that are searched for EXIF rotations
_SAMPLE = 256  # files of a folder whose size is part of its identity


class RecordSource(RecordFile):
    """A record file with the class names beside it."""

    new_labels = None

    def __init__(self, rec, idx=None, *, sample: bool = True):
        super().__init__(rec, idx, sample=sample)
        self.class_names = read_class_names(self.path)
        self.remarks = [] if self.class_names else ["no .classes.txt: classes are numbers"]

    def read(self, i: int) -> Record:
        """Return record ``i``, with the number in a label that is a list of one."""
        record = super().read(i)
        if type(record.label) is float:
            return record
        return record._replace(label=_number(record.label))

    def label(self, i: int) -> float:
        """Return the label of record ``i`` as ``read`` does."""
        return _number(super().label(i))

    def name(self, i: int) -> str:
        """Return file, position and key of record ``i``, for a message."""
        return f"{self.path}, record {i} (key {self.keys[i]})"

    def identity(self) -> int:
        """Return a checksum of the keys and of the places of the records in the file."""
        return zlib.crc32(self._ends.tobytes(), zlib.crc32(self.keys.tobytes()))


def _number(label):
    return float(label[0]) if np.size(label) == 1 and np.ndim(label) else label


class FolderTree:
    """A folder of ``<class>/<image>.jpg``, or of other pictures, see ``is_image_file``.

    Raises: like ``list_class_folders``; InputError for a GIF, or another format that is not read.
    """

    new_labels = None

    def __init__(self, root):
        self.path = Path(root)
        self.class_names, self._images, self.remarks = list_class_folders(self.path)
        refused = [path for _, path in self._images if path.lower().endswith(REFUSED_SUFFIXES)]
        if refused:
            raise InputError(
                f"{self.path}: pictures of formats that are not read: {quote_names(refused)}; "
                f"convert them to PNG or JPEG, or remove them"
            )

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

    def identity(self) -> int:
        """Return a checksum of the paths below the folder, and of the sizes of some files."""
        check = zlib.crc32("\n".join(path for _, path in self._images).encode("utf-8", "replace"))
        for i in np.unique(np.linspace(0, len(self) - 1, _SAMPLE).astype(int)):
            path = Path(self.name(i))
            check = zlib.crc32(b"%d," % (path.stat().st_size if path.is_file() else -1), check)
        return check


class RelabelledSource:
    """A source whose labels are those of another list of classes.

    Args:
        labels: for each label of ``source`` the new one.
        class_names: the names of the new labels.
    """

    def __init__(self, source, labels: Sequence[int], class_names: Sequence[str]):
        self._source, self.new_labels = source, list(labels)
        self.class_names, self.path = list(class_names), source.path
        self.remarks = [*source.remarks, "classes matched by name"]

    def __len__(self) -> int:
        return len(self._source)

    def read(self, i: int) -> Record:
        """Return record ``i``.  Raises: FormatError, also for a label without a class."""
        record = self._source.read(i)
        return record._replace(label=self._new_label(i, record.label))

    def label(self, i: int) -> float:
        """Return the new label of record ``i``.  Raises: like ``read``."""
        return self._new_label(i, self._source.label(i))

    def _new_label(self, i: int, label) -> float:
        error = label_error(label, len(self.new_labels))
        if error or np.ndim(label):
            error = error or f"{len(label)} labels; a classifier takes one"
            raise FormatError(f"{self.name(i)}: {error}")
        return float(self.new_labels[int(label)])

    def name(self, i: int) -> str:
        """Return the name of record ``i`` in the source."""
        return self._source.name(i)

    def identity(self) -> int:
        """Return that of the source."""
        return self._source.identity()


def open_source(*, rec: str = "", idx: str = "", folder: str = "", sample: bool = True):
    """Open a record file or, if ``folder`` is given, a folder of class folders.

    Args:
        sample: check some records on opening; False: damage is found when a record is read.
    """
    return FolderTree(folder) if folder else RecordSource(rec, idx or None, sample=sample)


def match_source(
    source, class_names: Optional[Sequence[str]], classes: int, model: str, way_out: str = "",
    *, same: bool = False,
):  # fmt: skip
    """Return a source with the labels of a model's classes, matched by name.

    Without the names of one side labels stay as they are, and the source's remarks say so.

    Args:
        class_names: those of the model, or None.
        classes: their number.
        model, way_out, same: as in ``match_classes``.

    Raises: InputError for a class that the model does not have, and for another number of classes
        where only the source has names.
    """
    if source.class_names is None:
        return source
    if class_names is None:
        if len(source.class_names) != classes:
            raise InputError(
                f"{source.path} has {len(source.class_names)} classes "
                f"({quote_names(source.class_names)}), {model} has {classes} without names: "
                f"they cannot be matched{'; ' if way_out else ''}{way_out}"
            )
        source.remarks.append(f"{model} has no class names: classes are matched by number")
        return source
    labels = match_classes(source.class_names, class_names, str(source.path), model, way_out,
                           same=same)  # fmt: skip
    if labels == list(range(len(class_names))):
        return source
    return RelabelledSource(source, labels, class_names)


class Contents(NamedTuple):
    """The labels of a source, read once."""

    images: int
    classes: int
    remarks: list[str]  # of the source, and about its labels
    fingerprint: dict  # JSON values that identify the data

    def line(self, name: str) -> str:
        """Return one line for the user; ``name``: what the source is."""
        return "; ".join([f"{name}: {self.images} images, {self.classes} classes", *self.remarks])


_LEAVE_OUT = "--max-bad-records N leaves out up to N such records"


def check_labels(source, classes: Optional[int] = None, *, allowed: int = 0) -> Contents:
    """Read all labels; raise InputError if one is out of range.

    Args:
        classes: default: the number of class names of the source, or the largest label plus 1.
        allowed: number of records that may be damaged or have a label out of range.

    Raises: InputError, also where there are neither ``classes`` nor names and most of the numbers
        up to the largest label do not occur.
    """
    labels = _labels(source, allowed)
    names = source.class_names
    number = classes or (len(names) if names else _largest(labels) + 1)
    bad = ~((labels >= 0) & (labels < number) & (labels == np.floor(labels)))  # nan is bad
    if bad.sum() > allowed:
        first = int(np.argmax(bad))
        label = labels[first]
        named = f" ({names[int(label)]!r})" if names and 0 <= label < len(names) else ""
        raise InputError(
            f"{source.name(first)}: label {label:g}{named} is not one of the {number} classes "
            f"(0 to {number - 1}); {int(bad.sum())} of {len(labels)} records "
            f"have such labels; {_LEAVE_OUT}"
        )
    counts = np.bincount(labels[~bad].astype(int), minlength=number)
    missing = np.flatnonzero(counts == 0)
    used = np.flatnonzero(counts)
    if not (classes or names) and number > 2 * len(used) + 2:
        raise InputError(
            f"{source.path}: its labels are only {len(used)} of the numbers 0 to {number - 1} "
            f"({_some(used)}): number the classes from 0 without gaps, or write one class name "
            f"per line to {Path(source.path).with_suffix('.classes.txt')}"
        )
    remarks = list(source.remarks)
    if len(missing):
        shown = quote_names(names[i] for i in missing) if names else _some(missing)
        remarks.append(f"no image of {len(missing)} classes: {shown}")
    if len(missing) < number:
        present = counts[counts > 0]
        remarks.append(f"{present.min()} to {present.max()} images per class")
    if bad.any():
        remarks.append(f"{int(bad.sum())} damaged records or labels")
    fingerprint = {
        "images": len(labels), "classes": list(names) if names else number,
        "labels": zlib.crc32(labels.tobytes()), "files": source.identity(),
    }  # fmt: skip
    return Contents(len(labels), number, remarks, fingerprint)


def count_rotated(source, most: int = _LOOKED_AT) -> int:
    """Count the images with an EXIF rotation among up to ``most``, evenly spread over the source.

    ImageRecordIter does not turn images; ``records verify`` looks at all of them.
    """
    found = 0
    for i in np.unique(np.linspace(0, len(source) - 1, min(most, len(source))).astype(int)):
        try:
            found += image_info(source.read(int(i)).image).orientation != 1
        except FormatError:  # the reader reports it
            continue
    return found


def _some(numbers: np.ndarray) -> str:
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return ", ".join(map(str, numbers[:5])) + more


def _labels(source, allowed: int) -> np.ndarray:
    """Return ``(len(source),)`` float64 labels, nan for up to ``allowed`` damaged records."""
    labels, damaged = np.full(len(source), np.nan), 0
    for i in range(len(source)):
        try:
            label = source.label(i)
        except FormatError as error:
            damaged += 1
            if damaged > allowed:
                raise FormatError(f"{error}; {_LEAVE_OUT}") from None
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
