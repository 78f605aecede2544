"""Sources of images with boxes from GluonCV's detection records and lists; see also ``voc``.

The label of a record or list entry is a row of numbers (``im2rec.py --pass-through --pack-label``):

    A B extra...  id xmin ymin xmax ymax extra...  id xmin ...

A is the length of the header, at least 2; B that of one object, at least 5.  The corners are
fractions of width and height.  The first extra number of an object is its difficult flag.
Source: GluonCV 0.10.5, ``data/recordio/detection.py``; mxnet-ssd's lists for the flag.
"""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.findings import Problem, summaries
from gluon_asymmnet.data.boxes.voc import SKIP_BAD, DetectionExample
from gluon_asymmnet.data.boxes.voc_xml import BROKEN
from gluon_asymmnet.data.class_names import match_classes, read_class_names
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import checked_info, decode
from gluon_asymmnet.data.records.recordio import PathLike, RecordFile
from gluon_asymmnet.data.text_files import read_lines
from gluon_asymmnet.errors import FormatError, InputError, reason_of

_MAX_OBJECT_NUMBERS = 10_000  # a larger number per object is considered damage


class _Label(NamedTuple):
    """The objects of one image, boxes as stored."""

    boxes: np.ndarray  # (n, 4) float64, corners
    labels: np.ndarray  # (n,) int64
    difficult: np.ndarray  # (n,) bool


class _DetectionSource(ABC):
    """Base of record file and list.  Boxes are read on opening, images on demand.

    Boxes are clipped to the image; ``xmax`` may be ``width``, because a fraction may be 1.

    Args:
        classes:    class names in label order; default: those of ``train.classes.txt`` beside
            ``train.rec`` or ``train.lst``.  With both, classes are matched by name.
        normalised: the stored corners are fractions; False: pixels from 0.
        skip_bad:   leave out images with a faulty label, or that cannot be read, instead of
            raising FormatError.  Every image is then checked on opening.

    Attributes:
        remarks: lines that say what was left out.

    Raises:
        FileNotFoundError: a file is missing.
        FormatError: a label is malformed; the message names the record.
        InputError: the class names are unknown.
    """

    path: Path
    last_included = False  # fractions of the sides are edges between pixels

    def _load(
        self, count: int, label_of: Callable, classes: Sequence[str] | None, normalised: bool,
        skip_bad: bool,
    ) -> None:  # fmt: skip
        """Parse the labels ``label_of(position)`` of all ``count`` images."""
        own = read_class_names(self.path)
        names = classes if classes is not None else own
        if not names:
            raise InputError(
                f"{self.path}: there are no class names; name the classes, or write them to "
                f"{self.path.with_suffix('.classes.txt')}"
            )
        self.class_names = list(names)
        self._normalised = normalised
        own = own or list(names)
        new_labels = np.array(match_classes(own, names, str(self.path), "the classes in use"))
        self._advice = "" if skip_bad else f"; {SKIP_BAD}"
        self._labels: list[_Label] = []
        self._positions: list[int] = []  # of the images in use, in the file
        bad = []
        for position in range(count):
            try:
                parsed = _parse_label(label_of(position), len(own))
                if skip_bad:
                    info = checked_info(self._image(position))
                    self._in_pixels(parsed.boxes, info.width, info.height)
            except (FormatError, OSError) as error:
                # an error of the record's frame names its place already
                place = self._place(position)
                text = reason_of(error).removeprefix(place).removeprefix(": ").lstrip()
                if not skip_bad:
                    raise FormatError(f"{place}: {text}{self._advice}") from None
                bad.append(Problem(place, BROKEN, text))
            else:
                self._labels.append(parsed._replace(labels=new_labels[parsed.labels]))
                self._positions.append(position)
        self.remarks = summaries(bad, self.class_names)
        if bad and not self._labels:
            raise InputError(f"{self.path}: no image is usable: {self.remarks[0]}")

    def __len__(self) -> int:
        return len(self._labels)

    def objects(self, i: int) -> tuple[str, np.ndarray, np.ndarray]:
        """Return id, boxes and labels of image ``i`` as they are stored; no image is read."""
        return self._id(self._positions[i]), self._labels[i].boxes, self._labels[i].labels

    def encoded(self, i: int) -> bytes:
        """Return the bytes of picture ``i``."""
        return self._image(self._positions[i])

    def name(self, i: int) -> str:
        """Return file and position of image ``i``, for a message."""
        return self._place(self._positions[i])

    def read(self, i: int) -> DetectionExample:
        """Return image ``i`` and its boxes.  Raises: FormatError if the image is damaged."""
        return self._example(i, with_pixels=True)

    def annotation(self, i: int) -> DetectionExample:
        """Return image ``i`` without its pixels; only the image's header is read."""
        return self._example(i, with_pixels=False)

    def _example(self, i: int, with_pixels: bool) -> DetectionExample:
        try:
            image = self._image(self._positions[i])
            info, rgb = image_info(image), decode(image) if with_pixels else None
            boxes = self._in_pixels(self._labels[i].boxes, info.width, info.height)
        except (FormatError, OSError) as error:
            raise FormatError(f"{self.name(i)}: {reason_of(error)}{self._advice}") from None
        found = self._labels[i]
        return DetectionExample(
            self._id(self._positions[i]), rgb, boxes, found.labels.copy(), found.difficult.copy(),
            (info.width, info.height),
        )  # fmt: skip

    def _in_pixels(self, boxes: np.ndarray, width: int, height: int) -> np.ndarray:
        sides = np.array([width, height, width, height], float)
        cut = np.clip(boxes * sides if self._normalised else boxes, 0, sides)
        outside = (cut[:, :2] >= cut[:, 2:]).any(axis=1)
        if outside.any():
            first = int(np.argmax(outside))
            raise FormatError(
                f"object {first + 1}: the box {_format_box(boxes[first])} lies outside the "
                f"{width} x {height} image"
            )
        return cut.astype(np.float32)

    @abstractmethod
    def _image(self, position: int) -> bytes:
        """Return the encoded image at a position of the file."""

    @abstractmethod
    def _id(self, position: int) -> str:
        """Return an id that is unique in the source."""

    @abstractmethod
    def _place(self, position: int) -> str:
        """Return file and position of an image, for a message."""


class DetectionRecords(_DetectionSource):
    """A record file with boxes, e.g. ``train.rec``; see the base class."""

    def __init__(
        self,
        rec: PathLike,
        idx: PathLike | None = None,
        classes: Sequence[str] | None = None,
        *,
        normalised: bool = True,
        skip_bad: bool = False,
    ):
        self._file = RecordFile(rec, idx)
        self.path = self._file.path
        self._load(len(self._file), self._file.label, classes, normalised, skip_bad)

    def _place(self, position: int) -> str:
        return f"{self.path}, record {position} (key {self._file.keys[position]})"

    def _image(self, position: int) -> bytes:
        return self._file.read_bare(position).image

    def _id(self, position: int) -> str:
        return str(self._file.keys[position])


class DetectionList(_DetectionSource):
    """A list with boxes, e.g. ``train.lst``, and the folder of its images; see the base class.

    Each line is ``number <tab> label... <tab> path relative to root``.
    """

    def __init__(
        self,
        lst: PathLike,
        root: PathLike,
        classes: Sequence[str] | None = None,
        *,
        normalised: bool = True,
        skip_bad: bool = False,
    ):
        self.path, self.root = Path(lst), Path(root)
        self._ids: list[str] = []
        self._files: list[Path] = []
        labels = []
        for number, line in read_lines(self.path, "list of images"):
            fields = line.split("\t")
            if line and len(fields) < 4:
                raise FormatError(
                    f"{self.path}: line {number} has {len(fields)} fields; expected "
                    f"number, label, path, with tabs between them"
                )
            if line:
                file = relative_path(fields[-1].strip(), f"{self.path}: line {number}")
                self._ids.append(fields[0])
                self._files.append(self.root / file)
                labels.append(_floats(fields[1:-1]))
        if not labels:
            raise FormatError(f"{self.path}: it lists no image")
        self._load(len(labels), labels.__getitem__, classes, normalised, skip_bad)

    def _place(self, position: int) -> str:
        return f"{self.path}, image {position} ({self._files[position]})"

    def _image(self, position: int) -> bytes:
        if not self._files[position].is_file():
            raise FormatError("no such file, but the image is listed")
        return self._files[position].read_bytes()

    def _id(self, position: int) -> str:
        return self._ids[position]


def relative_path(text: str, where: str) -> str:
    """Return ``text`` if it is a relative path without ``..``; raise FormatError otherwise."""
    parts = re.split(r"[/\\]", text)
    outside = text.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]
    try:
        longest = max(len(os.fsencode(part)) for part in parts)
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may hold
        longest = math.inf
    # a name that no file system accepts would raise OSError later
    if not text or outside or re.search(r"[\0\r\n]", text) or longest > 255 or len(text) > 1000:
        raise FormatError(f"{where}: {text[:60]!r} is not a path below the folder of the images")
    return text


def _floats(fields: Sequence[str]) -> np.ndarray:
    """Return the fields as float64; nan, which ``_parse_label`` rejects, if one is not a number."""
    try:
        return np.array(fields, float)
    except ValueError:
        return np.array([np.nan])


def _parse_label(label, classes: int) -> _Label:
    """Split a label into objects; rows with a negative id are padding.  Raises FormatError."""
    label = np.asarray(label, float).ravel()
    if label.size < 2 or not np.isfinite(label).all():
        raise FormatError("the label is not a row of numbers that starts with A, B")
    header, width = label[:2]
    if header != int(header) or not 2 <= header <= label.size:
        raise FormatError(f"the header has {header:g} numbers; expected 2 to {label.size}")
    if width != int(width) or not 5 <= width <= _MAX_OBJECT_NUMBERS:
        raise FormatError(
            f"an object has {width:g} numbers; expected 5 or more, up to {_MAX_OBJECT_NUMBERS}"
        )
    body = label[int(header) :]
    if body.size % int(width):
        raise FormatError(
            f"{body.size} numbers follow the header; expected a multiple of {width:g}"
        )
    rows = body.reshape(-1, int(width))
    rows = rows[rows[:, 0] >= 0]
    for number, row in enumerate(rows, 1):
        _check_object(row, classes, f"object {number}")
    difficult = rows[:, 5] != 0 if width > 5 else np.zeros(len(rows), bool)
    return _Label(rows[:, 1:5].copy(), rows[:, 0].astype(np.int64), difficult)


def _check_object(row: np.ndarray, classes: int, where: str) -> None:
    if row[0] != int(row[0]) or row[0] >= classes:
        raise FormatError(f"{where}: id {row[0]:g} is not one of the {classes} classes from 0")
    if row[1] >= row[3] or row[2] >= row[4]:
        raise FormatError(f"{where}: the box {_format_box(row[1:5])} is empty or inverted")


def _format_box(box: np.ndarray) -> str:
    return "({:g}, {:g}, {:g}, {:g})".format(*box)
