"""Check VOC folders: all problems of their lists, annotations and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.findings import REPAIRED, Problem
from gluon_asymmnet.data.boxes.voc import (
    ExaminedImage,
    ListedImage,
    PictureIndex,
    Split,
    examine,
    folder_classes,
    header_info_of,
    list_file,
    read_list,
    set_folder,
)
from gluon_asymmnet.data.boxes.voc_xml import BROKEN, ClassNames
from gluon_asymmnet.data.image_headers import ImageInfo, image_info
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.parallel import silent

_USUAL_SPLITS = ("train", "val", "trainval", "test")


class VOCReport(NamedTuple):
    """The result of ``check``."""

    images: int  # listed images
    objects: int  # usable objects
    difficult: int  # difficult ones among them
    empty: int  # images without a usable object
    classes: dict[str, int]  # class name -> usable objects, in label order
    problems: list[Problem]  # errors for VOCSource, unless it leaves them out
    repaired: list[Problem]  # repaired, derived or unsure; in VOCSource too


def find_splits(root: PathLike) -> list[Split]:
    """Return the splits train, val, trainval and test of all folders in ``root``.

    Raises: FileNotFoundError if the root does not exist; InputError if it has no split.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    found: list[Split] = [
        (folder.name, split)
        for folder in sorted(root.iterdir())
        for split in _USUAL_SPLITS
        if list_file(folder, split).is_file()
    ]
    if not found:
        raise InputError(
            f"{root} holds no split: expected VOC2007/ImageSets/Main/test.txt or the like in it"
        )
    return found


def check(
    root: PathLike,
    splits: Iterable[Split] | None = None,
    classes: Sequence[str] | None = None,
    *,
    decode_images: bool = True,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VOCReport:
    """List all errors in a VOC folder.

    Args:
        splits: default: those of ``find_splits``.  An image in several splits (trainval contains
            train and val) is checked once; twice in one split is an error.
        classes: as for VOCSource.
        decode_images: decode every image; False: read only its header.
        threads: default: a few more than the number of processors.
        progress: called with (done, total) after each image.

    Raises: FileNotFoundError if the root does not exist; InputError like VOCSource.
    """
    root = Path(root).expanduser()
    splits = find_splits(root) if splits is None else list(splits)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    folders = [(set_folder(root, year), name) for year, name in splits]
    matcher = ClassNames(folder_classes(folders) if classes is None else classes)
    images, found = _list_unique(folders)
    counts, difficult, empty = np.zeros(len(matcher), int), 0, 0
    progress = progress or silent

    pictures, read_info = PictureIndex(), _decoded_info_of if decode_images else header_info_of

    def examined(image: ListedImage) -> ExaminedImage:
        return examine(image, matcher, pictures, read_info)

    pool = ThreadPoolExecutor(threads)
    try:
        for done, (parsed, _, problems) in enumerate(pool.map(examined, images), 1):
            found += problems
            if parsed is not None:
                counts += np.bincount(parsed.labels, minlength=len(matcher))
                difficult += int(parsed.difficult.sum())
                empty += len(parsed.labels) == 0
            progress(done, len(images))
    finally:
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for 10,000 images
    return VOCReport(
        images=len(images),
        objects=int(counts.sum()),
        difficult=difficult,
        empty=empty,
        classes={name: int(count) for name, count in zip(matcher, counts)},
        problems=[problem for problem in found if problem.kind not in REPAIRED],
        repaired=[problem for problem in found if problem.kind in REPAIRED],
    )


def _list_unique(folders: Iterable[tuple[Path, str]]) -> tuple[list[ListedImage], list[Problem]]:
    """Return every image once, and the problems of the lists."""
    images: dict[ListedImage, None] = {}
    problems = []
    for folder, split in folders:
        try:
            for found in read_list(folder, split, set()):
                if isinstance(found, Problem):
                    problems.append(found)
                else:
                    images[found] = None
        except FileNotFoundError:
            path = list_file(folder, split)
            problems.append(Problem(str(path), BROKEN, "no such list of images"))
    return list(images), problems


def _decoded_info_of(path: Path) -> ImageInfo:
    data = path.read_bytes()
    decode(data)
    return image_info(data)
