"""Synthetic detection set without download: handwritten digits on textured backgrounds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gluon_asymmnet.data import digits
from gluon_asymmnet.data.boxes.voc import CLASSES_FILE
from gluon_asymmnet.data.boxes.voc_xml import VOCObject, annotation_xml
from gluon_asymmnet.data.class_names import name_lines
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.data.records.stats import allocate, check_seed
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.atomic import new_folder

FOLDER = "VOC2007"
SPLITS = ("trainval", "test")
CLASSES = digits.CLASSES

_MAX_DIGITS = 6
_TINY = (12, 18)  # pixels of height: hardly legible, hence difficult
_TINY_CHANCE = 0.1  # per image
_APART = 4  # pixels between two digits, at least
_TRIES = 50  # random positions tried for each digit
_DARK, _BRIGHT = (20, 80), (170, 255)  # grey levels of background and ink


class DigitsVOC(NamedTuple):
    """The written set; read it with ``VOCSource(root, [(2007, "trainval")])`` and ``"test"``."""

    root: Path
    trainval: int  # images
    test: int


Box = tuple[int, int, int, int]  # corners (xmin, ymin, xmax, ymax), from 0, last ones included


def write_digits_voc(
    out: PathLike,
    *,
    images: tuple[int, int] = (600, 150),
    size: tuple[int, int] = (200, 320),
    digit: tuple[int, int] = (24, 110),
    seed: int = 0,
) -> DigitsVOC:
    """Write images of 1 to 6 handwritten digits as JPEG and VOC XML; all or nothing.

    ``out/VOC2007/{Annotations,ImageSets/Main,JPEGImages}`` with the splits trainval and test, and
    ``out/VOC2007/classes.txt``.  Bright digits of several sizes and colours lie on a darker
    texture with noise; their boxes do not overlap and fit the ink tightly.  One image of ten also
    has a tiny digit marked difficult.

    The digits of the test images are those held out by ``digits.write_digits`` with seed 0, so
    neither a detector trained here nor a classifier trained there has seen them.  Each image
    depends only on the seed and its own number.

    Args:
        images: number of images for training and test.
        size:   least and greatest width and height, pixels; drawn independently.
        digit:  least and greatest height of a digit, pixels; logarithmically uniform.
        seed:   0 to 2**32 - 1; equal seeds give equal bytes.

    Raises:
        InputError: scikit-learn is missing, a range is wrong, or ``out`` exists.
        OSError: the disk is full.
    """
    _check(images, size, digit, seed)
    out = Path(out)
    cells, labels = digits.read_digits()
    fractions = [1 - digits.VAL_FRACTION, digits.VAL_FRACTION]
    parts = allocate(labels, fractions, seed=0)
    with new_folder(out) as scratch:
        folder = scratch / FOLDER
        for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (folder / part).mkdir(parents=True)
        (folder / CLASSES_FILE).write_bytes(name_lines(CLASSES))
        for part, (split, count) in enumerate(zip(SPLITS, images)):
            stems = [f"{part}{n:05d}" for n in range(count)]
            text = "".join(f"{stem}\n" for stem in stems)
            (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")
            for n, stem in enumerate(stems):
                random = np.random.RandomState([seed, part, n])  # its numbers never change
                image, objects = _image(random, cells, labels, parts[part], size, digit)
                _write(folder, stem, image, objects)
    return DigitsVOC(out, *images)


def _check(images, size, digit, seed: int) -> None:
    if not all(1 <= count <= 99_999 for count in images):
        raise InputError(f"images must be 1 to 99999 for each split, got {images}")
    if not 64 <= size[0] <= size[1] <= 4096:
        raise InputError(f"size must be 64 to 4096 pixels, the smaller number first, got {size}")
    largest = size[0] * 2 // 3  # no digit is wider than high; leaves room for others
    if not 12 <= digit[0] <= digit[1] <= largest:
        raise InputError(
            f"digit must be 12 to {largest} pixels (two thirds of the smallest size), the smaller "
            f"number first, got {digit}"
        )
    check_seed(seed)


def _write(folder: Path, stem: str, image: np.ndarray, objects: list[VOCObject]) -> None:
    height, width = image.shape[:2]
    xml = annotation_xml(f"{stem}.jpg", (width, height), objects, folder=FOLDER)
    (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(encode(image))
    (folder / "Annotations" / f"{stem}.xml").write_text(xml, encoding="utf-8")


def _image(random, cells, labels, usable, size, digit) -> tuple[np.ndarray, list[VOCObject]]:
    """Return an image ``(height, width, 3)`` uint8 and its digits, at least one."""
    width, height = random.randint(size[0], size[1] + 1, 2)
    canvas = _background(random, width, height)
    logarithms = random.uniform(*np.log(digit), random.randint(1, _MAX_DIGITS + 1))
    heights = [(round(np.exp(value)), False) for value in logarithms]
    if random.rand() < _TINY_CHANCE:
        heights.append((random.randint(*_TINY), True))
    objects: list[VOCObject] = []
    for tall, difficult in heights:
        index = random.choice(usable)
        ink = _ink(cells[index], tall)
        box = _free_box(random, (width, height), ink.shape, [item.box for item in objects])
        if box is not None:
            colour = random.uniform(*_BRIGHT, 3)
            _draw(canvas, ink, box, colour)
            objects.append(VOCObject(CLASSES[labels[index]], box, difficult))
    noisy = canvas + random.normal(0, random.uniform(2, 8), canvas.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8), objects


def _background(random, width: int, height: int) -> np.ndarray:
    """Return ``(height, width, 3)`` float64: a dark colour with random waves of two lengths."""
    canvas = np.tile(random.uniform(*_DARK, 3), (height, width, 1))
    for cells, depth in ((4, 25), (24, 12)):
        waves = random.uniform(-depth, depth, (cells, cells, 3))
        canvas += cv2.resize(waves, (width, height), interpolation=cv2.INTER_CUBIC)
    return canvas


def _free_box(random, size: tuple[int, int], shape, taken: list[Box]) -> Box | None:
    """Return a random box of ``shape`` (height, width) apart from the others, or None."""
    for x, y in random.rand(_TRIES, 2):
        left, top = int(x * (size[0] - shape[1])), int(y * (size[1] - shape[0]))
        box = (left, top, left + shape[1] - 1, top + shape[0] - 1)
        if all(_apart(box, other) for other in taken):
            return box
    return None


def _apart(a: Box, b: Box) -> bool:
    right, below = max(a[0], b[0]) - min(a[2], b[2]), max(a[1], b[1]) - min(a[3], b[3])
    return max(right, below) > _APART


def _draw(canvas: np.ndarray, ink: np.ndarray, box: Box, colour: np.ndarray) -> None:
    spot = canvas[box[1] : box[3] + 1, box[0] : box[2] + 1]
    spot += ink[:, :, None] * (colour - spot)


def _ink(cells: np.ndarray, tall: int) -> np.ndarray:
    """Return a digit's coverage 0 to 1, float32, ``tall`` rows high and cropped to its ink.

    The 8 x 8 cells are enlarged for a smooth outline, rows and columns without a half covered
    pixel are cropped, and the rest is resized to the height.
    """
    padded = np.pad(cells / 16, 1).astype(np.float32)  # the ink may touch the border
    large = cv2.resize(padded, None, fx=16, fy=16, interpolation=cv2.INTER_CUBIC)
    rows = np.flatnonzero((large > 0.5).any(axis=1))
    columns = np.flatnonzero((large > 0.5).any(axis=0))
    tight = large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    wide = max(4, round(tight.shape[1] * tall / tight.shape[0]))
    return np.clip(cv2.resize(tight, (wide, tall), interpolation=cv2.INTER_AREA), 0, 1)
