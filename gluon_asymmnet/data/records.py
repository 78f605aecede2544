"""Data sets as record files: built from folders, verified, counted and split.

A data set ``train`` is up to four files side by side:

    train.rec           the records, one labelled JPEG or PNG each
    train.idx           text, one ``key <tab> byte offset`` per record
    train.lst           text, one ``key <tab> label <tab> source file`` per record
    train.classes.txt   class names, one per line; line k names label k
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.atomic import NewFiles
from gluon_asymmnet.data.class_names import name_lines, read_class_names
from gluon_asymmnet.data.images import decode, image_info, refitted
from gluon_asymmnet.data.record_writer import RecordWriter
from gluon_asymmnet.data.recordio import MAX_PAYLOAD, PathLike, RecordFile
from gluon_asymmnet.errors import FormatError, InputError

Progress = Callable[[int, int], None]  # called as progress(done, total)

_EXTENSIONS = (".jpg", ".jpeg", ".png")
_TREE = "expected one folder per class: <folder>/<class>/<image>.jpg"


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


def find_images(
    root: PathLike, classes: Sequence[str] | None = None
) -> tuple[list[str], list[tuple[int, str]], int]:
    """List the images of a tree of class folders; hidden files are passed over.

    Returns: class names, ``(label, path below root)`` of every image, number of other files.

    Args:
        root: a tree of ``<class>/<image>.jpg`` or ``.png``.
        classes: class names in label order, if not those of the folders in alphabetical order.

    Raises: FileNotFoundError; InputError if it is no such tree, or a folder none of ``classes``.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder; {_TREE}")
    if not root.is_dir():
        raise InputError(f"{root}: is a file; {_TREE}")
    folders, loose = _listing(root)
    stray = [name for name in loose if _is_image(name)]
    if stray:
        raise InputError(
            f"{root}: {len(stray)} images in no class folder, e.g. {stray[0]}; {_TREE}"
        )
    if not folders:
        raise InputError(f"{root}: no class folders; {_TREE}")
    names = list(classes) if classes is not None else folders
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise InputError(
            f"{root}: folder {unknown[0]!r} is none of the {len(names)} classes given; "
            f"rename or remove it"
        )
    images, ignored = [], len(loose)
    for name in folders:
        nested, files = _listing(root / name)
        if nested:
            raise InputError(f"{root / name}: holds the folder {nested[0]!r}; {_TREE}")
        found = [file for file in files if _is_image(file)]
        label = names.index(name)
        images += [(label, f"{name}/{file}") for file in found]
        ignored += len(files) - len(found)
    if not images:
        raise InputError(f"{root}: no JPEG or PNG in its {len(folders)} class folders; {_TREE}")
    return names, images, ignored


def _listing(folder: Path) -> tuple[list[str], list[str]]:
    """Names of folders and files, sorted; hidden ones are left out."""
    folders, files = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if re.search(r"[\t\r\n]", entry.name):
                raise InputError(f"{folder}: {entry.name!r} holds a tab or a line break; rename it")
            if not entry.name.startswith("."):
                (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


def _is_image(name: str) -> bool:
    return name.lower().endswith(_EXTENSIONS)


def _stored(path: Path, resize: int, quality: int, encoding: str) -> bytes:
    """The bytes to store for the image at ``path``."""
    if path.stat().st_size > MAX_PAYLOAD // 2:
        raise FormatError(f"{path.stat().st_size} bytes; expected an image below 268 MB")
    return refitted(path.read_bytes(), resize, encoding, quality)


class BadRecord(NamedTuple):
    """A record that cannot be used; position and key are None if it is the file as a whole."""

    position: int | None
    key: int | None
    reason: str


class Report(NamedTuple):
    """What ``verify`` found; all is well if ``bad`` is empty."""

    records: int  # looked at
    bad: list[BadRecord]


def verify(
    rec: PathLike,
    idx: PathLike | None = None,
    *,
    classes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Read every record, look at its label and decode its image.

    Unlike MXNet's reader, which ends the process at the first damaged image, this one returns
    a list.  ``decode`` says what damage is found.

    Args:
        classes: number of classes; labels must be below.  Default: as many as
            ``.classes.txt`` names, or no bound.  A record with several labels (boxes, say) only
            has to have finite ones.
        progress: called with (done, total) after each record.

    Raises: FileNotFoundError; InputError for an argument out of range.  Never for the content.
    """
    if classes is not None and classes < 1:
        raise InputError(f"classes must be at least 1, got {classes}")
    threads, progress = threads_or_default(threads), progress or silent
    bad = []
    if classes is None:
        try:
            names = read_class_names(rec)
            classes = len(names) if names else None
        except FormatError as error:
            bad.append(BadRecord(None, None, str(error)))
    with RecordFile(rec, idx, check=False) as records:
        if records.fault:
            bad.append(BadRecord(None, None, records.fault))

        def reason(i: int) -> str | None:
            try:
                record = records.read_bare(i)
                decode(record.image)
            except FormatError as error:
                return str(error)
            return label_fault(record.label, classes)

        for i, fault in enumerate(ordered(reason, range(len(records)), threads)):
            if fault:
                bad.append(BadRecord(i, int(records.keys[i]), fault))
            progress(i + 1, len(records))
        return Report(len(records), bad)


def label_fault(label: float | np.ndarray, classes: int | None) -> str | None:
    """What is wrong with a label, or None; several (boxes, say) only have to be finite."""
    if not np.all(np.isfinite(label)):
        return f"the label is {label}, expected a finite number"
    if np.ndim(label):
        return None
    if label != int(label) or label < 0 or (classes is not None and label >= classes):
        upper = "" if classes is None else f" below {classes}"
        return f"the label is {label:g}, expected a whole number from 0{upper}"
    return None


class Spread(NamedTuple):
    """Smallest, middle and largest of many numbers."""

    least: int
    median: float
    most: int


class ClassCount(NamedTuple):
    """Records of one class."""

    label: float
    name: str | None  # None if no class names lie beside the file
    records: int


class Stats(NamedTuple):
    """What a record file holds."""

    records: int
    bytes: int
    classes: list[ClassCount]  # by label; classes named but absent have 0 records
    several_labels: int  # records with a vector of labels; not in ``classes``
    width: Spread  # pixels
    height: Spread
    channels: dict[int, int]  # number of channels -> records
    formats: dict[str, int]  # "jpeg", "png" -> records


def stats(rec: PathLike, idx: PathLike | None = None, *, progress: Progress | None = None) -> Stats:
    """Count what a record file holds, from the headers of records and images; nothing is decoded.

    Raises: FileNotFoundError; FormatError naming the first damaged record (``verify`` lists all).
    """
    progress = progress or silent
    labels: Counter = Counter()
    several, infos = 0, []
    with RecordFile(rec, idx) as records:
        for i in range(len(records)):
            record = records.read(i)
            with records.locating(i):
                infos.append(image_info(record.image))
            if np.ndim(record.label):
                several += 1
            else:
                labels[record.label] += 1
            progress(i + 1, len(records))
        size = records.size
    names = read_class_names(rec) or []
    return Stats(
        records=len(infos),
        bytes=size,
        classes=[
            ClassCount(label, _name(names, label), labels[label])
            for label in sorted({*labels, *map(float, range(len(names)))})
        ],
        several_labels=several,
        width=_spread([info.width for info in infos]),
        height=_spread([info.height for info in infos]),
        channels=dict(sorted(Counter(info.channels for info in infos).items())),
        formats=dict(sorted(Counter(info.format for info in infos).items())),
    )


def _name(names: list[str], label: float) -> str | None:
    return names[int(label)] if label in range(len(names)) else None


def _spread(values: list[int]) -> Spread:
    return Spread(min(values), float(np.median(values)), max(values))


def allocate(
    labels: Sequence[float], fractions: Sequence[float], *, seed: int = 0, stratified: bool = True
) -> list[np.ndarray]:
    """Deal positions ``0 ... len(labels) - 1`` out at random in the given fractions.

    Each position goes to the part that is furthest behind its fraction, so every part comes
    out within one record of it; stratified, the classes are dealt one after the other,
    which keeps the fractions inside each class, too, even where a class has few records.

    Returns: for each fraction a sorted int array.
    Raises: InputError if the fractions are not positive or do not add up to 1, or a part is empty.
    """
    wanted = np.asarray(fractions, float)
    if wanted.size == 0 or not np.all(wanted > 0) or abs(wanted.sum() - 1) > 1e-6:
        raise InputError(f"fractions must be positive and add up to 1, got {list(fractions)}")
    order = np.random.RandomState(seed).permutation(len(labels))  # numbers that never change
    if stratified:
        order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    part = np.empty(len(order), int)
    dealt = np.zeros(len(wanted))
    for n, position in enumerate(order, 1):
        part[position] = np.argmax(wanted * n - dealt)
        dealt[part[position]] += 1
    parts = [np.flatnonzero(part == k) for k in range(len(wanted))]
    if any(len(positions) == 0 for positions in parts):
        raise InputError(f"{len(labels)} records are too few for the fractions {list(fractions)}")
    return parts


def split(
    rec: PathLike,
    parts: Mapping[PathLike, float],
    *,
    idx: PathLike | None = None,
    seed: int = 0,
    stratified: bool = True,
    overwrite: bool = False,
) -> dict[PathLike, int]:
    """Deal the records out to new files, e.g. ``{"train": 0.9, "val": 0.1}``; all or nothing.

    Keys and payloads stay as they are, byte for byte, and the records keep their order.  Class
    names are copied.

    Args:
        parts: prefix of each new file (``.rec`` and ``.idx`` are added) -> fraction.
        stratified: keep the fractions inside each class; needs one label per record.

    Returns: prefix -> number of records.
    Raises: FileNotFoundError, FormatError; InputError as ``allocate``, or if a file exists.
    """
    names = read_class_names(rec)
    with RecordFile(rec, idx) as records:
        labels = (
            [records.label(i) for i in range(len(records))] if stratified else [0] * len(records)
        )
        for i, label in enumerate(labels):
            if np.ndim(label):
                raise InputError(
                    f"{records.path}: {records.where(i)} has several labels, so there are no "
                    f"classes to keep in proportion; split without stratifying"
                )
        dealt = allocate(labels, list(parts.values()), seed=seed, stratified=stratified)
        with NewFiles(overwrite=overwrite) as files:
            writers = [RecordWriter.among(files, Path(f"{prefix}.rec")) for prefix in parts]
            if names:
                for prefix in parts:
                    files.open(Path(f"{prefix}.classes.txt")).write(name_lines(names))
            for writer, positions in zip(writers, dealt):
                for i in positions:
                    writer.write_payload(int(records.keys[i]), records.payload(i))
    return {prefix: len(positions) for prefix, positions in zip(parts, dealt)}


def threads_or_default(threads: int | None) -> int:
    """Return ``threads``, or one per processor up to 16.  Raises InputError below 1."""
    if threads is None:
        return min(16, os.cpu_count() or 1)
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    return threads


def ordered(function, items: Iterable, threads: int) -> Iterator:
    """``map`` on threads, in order, with few results waiting: a data set does not fit in memory."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def silent(_done: int, _total: int) -> None:
    """Tell nobody about the progress."""
