"""Data sets by name, for ``--dataset``."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.constants import IMAGENET200_CLASSES, IMAGENET_CLASSES
from gluon_asymmnet.data.records.recordio import Record
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.registry import Registry

_SAMPLE = 256  # images that are part of the identity


class DatasetRow(NamedTuple):
    """A data set of the package, whose images the settings name."""

    classes: Optional[int]  # None: those of the records or folders


DATASETS = Registry("data set", {
    "imagenet": DatasetRow(IMAGENET_CLASSES),
    "imagenet200": DatasetRow(IMAGENET200_CLASSES),
    "custom": DatasetRow(None),
})  # fmt: skip


def register_dataset(name: str, function=None) -> Callable:
    """Add a data set for ``--dataset``; also a decorator.

    Args:
        function: ``(split) -> (images, labels)`` or ``(images, labels, class_names)``, where
            ``split`` is "train" or "val".  ``images`` is a sequence: of arrays ``(H, W, 3)`` uint8
            RGB, of paths, or of the bytes of picture files.  It may read an image when it is
            indexed, from several threads.  Labels are whole numbers from 0.  It may return None
            for "val": then there is no validation.
    """
    return DATASETS.register(name, function)


def is_own(name: str) -> bool:
    """Return whether a user registered this data set.  Raises: InputError if it is unknown."""
    return not isinstance(DATASETS.find(name), DatasetRow)


def open_dataset(name: str, split: str) -> Optional["ArraySource"]:
    """Return a user's data set as a source, see ``data.sources``.

    Raises: InputError if its function returns something else than images and labels.
    """
    found = DATASETS.find(name)(split)
    if found is None and split != "train":
        return None
    if not isinstance(found, tuple) or len(found) not in (2, 3):
        raise InputError(
            f"--dataset {name}: its function returned a {type(found).__name__} for {split!r}, "
            f"expected (images, labels) or (images, labels, class_names)"
        )
    return ArraySource(f"{name}/{split}", *found)


class ArraySource:
    """A source of images in memory, or of any sequence of them.

    Args:
        path: a name for messages.
        images, labels, class_names: as ``register_dataset`` has them.

    Raises: InputError for labels that are not one number per image.
    """

    new_labels = None

    def __init__(self, path: str, images: Sequence, labels, class_names=None):
        self.path, self._images = path, images
        self._labels = np.asarray(labels)
        if self._labels.shape != (len(images),) or self._labels.dtype.kind not in "iuf":
            raise InputError(
                f"{path}: labels {self._labels.shape} {self._labels.dtype} for {len(images)} "
                f"images: expected one number per image"
            )
        if not len(images):
            raise InputError(f"{path}: no images")
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.remarks = [] if self.class_names else ["no class names: classes are numbers"]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, i: int) -> Record:
        """Return image ``i`` with its label; its ``image`` is an array or a file's bytes."""
        return Record(i, self.label(i), self._image(i))

    def label(self, i: int) -> float:
        """Return the label of image ``i``."""
        return float(self._labels[i])

    def name(self, i: int) -> str:
        """Return the place of image ``i``, for a message."""
        return f"{self.path}, image {i}"

    def identity(self) -> int:
        """Return a checksum of the number of images, and of some of them."""
        check = zlib.crc32(b"%d" % len(self))
        for i in np.unique(np.linspace(0, len(self) - 1, _SAMPLE).astype(int)):
            check = zlib.crc32(bytes(np.ascontiguousarray(self._image(int(i)))), check)
        return check

    def _image(self, i: int):
        image = self._images[i]
        if not isinstance(image, (str, Path)):
            return image
        if not Path(image).is_file():
            raise FormatError(f"{self.name(i)}: {image}: no such file")
        return Path(image).read_bytes()
