"""Data sets as record files: built from folders, verified, counted and split.

A data set ``train`` is up to four files side by side:

    train.rec           the records, one labelled JPEG or PNG each
    train.idx           text, one ``key <tab> byte offset`` per record
    train.lst           text, one ``key <tab> label <tab> source file`` per record
    train.classes.txt   class names, one per line; line k names label k
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.class_names import name_lines
from gluon_asymmnet.data.folders import find_images
from gluon_asymmnet.data.images import refitted
from gluon_asymmnet.data.records.recordio import MAX_PAYLOAD, PathLike
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.parallel import Progress, ordered, silent, threads_or_default


class Skipped(NamedTuple):
    """An image that was left out."""

    path: str  # below the folder
    reason: str


class BuildReport(NamedTuple):
    """What ``build`` wrote."""

    records: int
    classes: list[str]
    skipped: list[Skipped]
    ignored: int  # files of other kinds, by their extension


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
) -> BuildReport:
    """Pack a tree of ``<class>/<image>.jpg`` or ``.png`` into ``<prefix>.rec`` and its companions.

    Labels number the class folders in the order of their names.  Every image is decoded once, and
    one that already has the wanted encoding and size is stored byte for byte.  The bytes
    written do not depend on ``threads``.  All four files appear, or none.

    Args:
        resize:  pixels of the shorter side afterwards, larger or smaller; 0 keeps each image.
        quality: of JPEGs that have to be encoded, 1 to 100.
        encoding: ".jpg" or ".png"; images of the other kind are re-encoded.  What counts is the
            content (ImageNet holds a PNG that is named .JPEG).
        classes: class names in label order, if not those of the folders: give a validation
            set the names of its training set, so that a missing folder shifts no label.
        shuffle_seed: shuffle the records; without it they stand class by class.
        skip_bad: leave out unreadable images and report them, instead of a FormatError.
        progress: called with (done, total) after each image.

    Raises:
        FileNotFoundError: if there is no such folder.
        InputError: if it is no such tree, an argument is out of range, or a file exists.
        FormatError: naming the first unreadable image.
    """
    _check_build(resize, quality, encoding)
    root, threads, progress = Path(folder), threads_or_default(threads), progress or silent
    names, images, ignored = find_images(root, classes)
    if shuffle_seed is not None:
        # RandomState: NumPy promises that its numbers never change; a Generator's may.
        order = np.random.RandomState(shuffle_seed).permutation(len(images))
        images = [images[i] for i in order]

    def stored(item: tuple[int, str]) -> bytes | FormatError:
        try:
            return _stored(root / item[1], resize, quality, encoding)
        except FormatError as error:
            return error

    skipped = []
    with RecordWriter(f"{prefix}.rec", f"{prefix}.idx", overwrite=overwrite) as writer:
        listing = writer.add_file(f"{prefix}.lst")
        writer.add_file(f"{prefix}.classes.txt").write(name_lines(names))
        for (label, path), image in zip(images, ordered(stored, images, threads)):
            if isinstance(image, bytes):
                listing.write(os.fsencode(f"{len(writer)}\t{label:f}\t{path}\n"))
                writer.write(len(writer), label, image)
            elif skip_bad:
                skipped.append(Skipped(path, str(image)))
            else:
                raise FormatError(
                    f"{root / path}: {image}; repair or remove it, or skip bad images"
                )
            progress(len(writer) + len(skipped), len(images))
        if len(writer) == 0:
            raise InputError(f"{root}: none of the {len(images)} images is readable")
    return BuildReport(len(writer), names, skipped, ignored)


def _check_build(resize: int, quality: int, encoding: str) -> None:
    if resize < 0:
        raise InputError(f"resize must be 0 (keep) or a number of pixels, got {resize}")
    if not 1 <= quality <= 100:
        raise InputError(f"quality must be 1 to 100, got {quality}")
    if encoding not in (".jpg", ".png"):
        raise InputError(f"encoding must be '.jpg' or '.png', got {encoding!r}")


def _stored(path: Path, resize: int, quality: int, encoding: str) -> bytes:
    """The bytes to store for the image at ``path``."""
    if path.stat().st_size > MAX_PAYLOAD // 2:
        raise FormatError(f"{path.stat().st_size} bytes; expected an image below 268 MB")
    return refitted(path.read_bytes(), resize, encoding, quality)
