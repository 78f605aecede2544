"""Build record files from a folder of images.

A data set ``train`` consists of up to four files:

    train.rec           the records, one labelled JPEG or PNG each
    train.idx           text, one ``key <tab> byte offset`` per record
    train.lst           text, one ``key <tab> label <tab> source file`` per record
    train.classes.txt   class names, one per line; line k names label k
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gluon_asymmnet.data.class_names import name_lines, quote_names
from gluon_asymmnet.data.folders import list_class_folders
from gluon_asymmnet.data.images import fit_image
from gluon_asymmnet.data.records.recordio import MAX_PAYLOAD, PathLike
from gluon_asymmnet.data.records.stats import permutation
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError, reason_of
from gluon_asymmnet.utils.parallel import Progress, map_in_order, silent, threads_or_default


class Skipped(NamedTuple):
    """An image that was not packed."""

    path: str  # relative to the folder
    reason: str


class BuildReport(NamedTuple):
    """The result of ``build``."""

    records: int
    classes: list[str]
    skipped: list[Skipped]
    remarks: list[str]  # ignored files and missing classes, with counts; not what was announced


def build(
    folder: PathLike,
    prefix: PathLike,
    *,
    resize: int = 0,
    quality: int = 95,
    encoding: str = ".jpg",
    classes: Sequence[str] | None = None,
    threads: int | None = None,
    shuffle_seed: int | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], object] | None = None,
) -> BuildReport:
    """Pack a tree of ``<class>/<image>`` into ``<prefix>.rec`` and its companions.

    Labels number the class folders in alphabetical order.  Images have any suffix of
    ``image_files.IMAGE_SUFFIXES``.  Each is decoded once and turned as its EXIF rotation says; one
    that already has the wanted encoding and size, and no rotation, is stored byte for byte.  The
    written bytes do not depend on ``threads``.  All four files appear, or none.

    Args:
        resize:  new length of the shorter side, pixels; 0 keeps each image.
        quality: JPEG quality of images that are encoded, 1 to 100.
        encoding: ".jpg" or ".png"; other images are re-encoded.  The content decides, not the name
            (ImageNet contains a PNG named .JPEG).
        classes: class names in label order; default: the names of the folders.  Give a validation
            set the names of its training set, so that a missing folder shifts no label.
        shuffle_seed: shuffle the records; default: ordered by class.
        skip_bad: leave out and report images that cannot be read, instead of raising FormatError.
        progress: called with (done, total) after each image.
        announce: called with one line about the data before the first image is read.

    Raises:
        FileNotFoundError: the folder does not exist.
        InputError: the folder has another structure, an argument is out of range, or a file exists.
        FormatError: an image is unreadable; the message names it.
    """
    _check_build(resize, quality, encoding)
    root, threads, progress = Path(folder), threads_or_default(threads), progress or silent
    names, images, remarks = list_class_folders(root, classes)
    if announce:
        counts = Counter(label for label, _ in images).values()
        line = f"{root}: {len(images)} images, {len(names)} classes"
        announce("; ".join([f"{line}, {min(counts)} to {max(counts)} images each", *remarks]))
        remarks = []  # the report has what is not said yet
    if shuffle_seed is not None:
        images = [images[i] for i in permutation(len(images), shuffle_seed)]

    def encoded(item: tuple[int, str]) -> bytes | FormatError:
        try:
            return _encode(root / item[1], resize, quality, encoding)
        except (FormatError, OSError) as error:  # OSError: a broken link, no permission
            return FormatError(reason_of(error))

    skipped, packed = [], set()
    with RecordWriter(f"{prefix}.rec", f"{prefix}.idx", overwrite=overwrite) as writer:
        listing = writer.add_file(f"{prefix}.lst")
        writer.add_file(f"{prefix}.classes.txt").write(name_lines(names))
        for (label, path), image in zip(images, map_in_order(encoded, images, threads)):
            if isinstance(image, bytes):
                listing.write(os.fsencode(f"{len(writer)}\t{label:f}\t{path}\n"))
                writer.write(len(writer), label, image)
                packed.add(label)
            elif skip_bad:
                skipped.append(Skipped(path, str(image)))
            else:
                raise FormatError(f"{root / path}: {image}; repair or remove it, or add --skip-bad")
            progress(len(writer) + len(skipped), len(images))
        if len(writer) == 0:
            raise InputError(f"{root}: none of the {len(images)} images is readable")
    lost = [names[label] for label in sorted({label for label, _ in images} - packed)]
    if lost:
        remarks.append(f"no readable image of {len(lost)} classes: {quote_names(lost)}")
    return BuildReport(len(writer), names, skipped, remarks)


def _check_build(resize: int, quality: int, encoding: str) -> None:
    if resize < 0:
        raise InputError(f"resize must be 0 (keep) or a number of pixels, got {resize}")
    if not 1 <= quality <= 100:
        raise InputError(f"quality must be 1 to 100, got {quality}")
    if encoding not in (".jpg", ".png"):
        raise InputError(f"encoding must be '.jpg' or '.png', got {encoding!r}")


def _encode(path: Path, resize: int, quality: int, encoding: str) -> bytes:
    """Return the bytes to store for the image at ``path``."""
    if path.stat().st_size > MAX_PAYLOAD // 2:
        raise FormatError(f"{path.stat().st_size} bytes; expected an image below 268 MB")
    return fit_image(path.read_bytes(), resize, encoding, quality)
