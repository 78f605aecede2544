"""Statistics of record files, and random splits into new files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.class_names import name_lines, read_class_names
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.records.recordio import PathLike, RecordFile
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.utils.atomic import NewFiles
from gluon_asymmnet.utils.parallel import Progress, silent


class Spread(NamedTuple):
    """Minimum, median and maximum."""

    least: int
    median: float
    most: int


class ClassCount(NamedTuple):
    """Records of one class."""

    label: float
    name: str | None  # None without a class-name file
    records: int


class Stats(NamedTuple):
    """Statistics of a record file."""

    records: int
    bytes: int
    classes: list[ClassCount]  # by label; named classes without records have 0
    several_labels: int  # records with several labels; not counted in ``classes``
    width: Spread  # pixels
    height: Spread
    channels: dict[int, int]  # number of channels -> records
    formats: dict[str, int]  # "jpeg", "png" -> records


def stats(rec: PathLike, idx: PathLike | None = None, *, progress: Progress | None = None) -> Stats:
    """Count records, classes and image sizes from the headers; no image is decoded.

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


def check_seed(seed: int) -> None:
    """Raise InputError for a seed that NumPy does not take."""
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be 0 to {2**32 - 1}, got {seed}")


def permutation(count: int, seed: int) -> np.ndarray:
    """Return ``0 ... count - 1`` in an order that only the seed decides.

    Raises: InputError for a seed that NumPy does not take.
    """
    check_seed(seed)
    # RandomState, not Generator: NumPy guarantees that its numbers never change.
    return np.random.RandomState(seed).permutation(count)


def allocate(
    labels: Sequence[float], fractions: Sequence[float], *, seed: int = 0, stratified: bool = True
) -> list[np.ndarray]:
    """Split the positions ``0 ... len(labels) - 1`` at random into parts of the given fractions.

    Each position goes to the part that is furthest below its fraction, so every part is within one
    record of it.  Stratified, the classes are allocated one after the other, so the fractions hold
    within each class too, even for a class of few records.

    Returns: for each fraction a sorted int array.
    Raises: InputError if the fractions are not positive or do not add up to 1, a part is empty, or
        NumPy does not take the seed.
    """
    wanted = np.asarray(fractions, float)
    if wanted.size == 0 or not np.all(wanted > 0) or abs(wanted.sum() - 1) > 1e-6:
        raise InputError(f"fractions must be positive and add up to 1, got {list(fractions)}")
    order = permutation(len(labels), seed)
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
    """Split the records into new files, e.g. ``{"train": 0.9, "val": 0.1}``; all or nothing.

    Keys, payloads and order of the records are unchanged.  Class names are copied.

    Args:
        parts: {prefix of the new files: fraction}; ``.rec`` and ``.idx`` are added.
        stratified: keep the fractions inside each class; needs one label per record.

    Returns: {prefix: number of records}.
    Raises: FileNotFoundError, FormatError; InputError like ``allocate``, or if a file exists.
    """
    names = read_class_names(rec)
    with RecordFile(rec, idx) as records:
        labels = (
            [records.label(i) for i in range(len(records))] if stratified else [0] * len(records)
        )
        for i, label in enumerate(labels):
            if np.ndim(label):
                raise InputError(
                    f"{records.path}: {records.where(i)} has several labels, so it has "
                    f"no class; split without stratifying"
                )
        allocated = allocate(labels, list(parts.values()), seed=seed, stratified=stratified)
        with NewFiles(overwrite=overwrite) as files:
            writers = [RecordWriter.among(files, Path(f"{prefix}.rec")) for prefix in parts]
            if names:
                for prefix in parts:
                    files.open(Path(f"{prefix}.classes.txt")).write(name_lines(names))
            for writer, positions in zip(writers, allocated):
                for i in positions:
                    writer.write_payload(int(records.keys[i]), records.payload(i))
    return {prefix: len(positions) for prefix, positions in zip(parts, allocated)}
