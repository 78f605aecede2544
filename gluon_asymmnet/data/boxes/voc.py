"""Pascal VOC folders as a source of pictures with boxes, and a check that lists all that is wrong.

    root/VOC2007/Annotations/000005.xml
    root/VOC2007/ImageSets/Main/test.txt    one image id per line
    root/VOC2007/JPEGImages/000005.jpg
    root/VOC2007/classes.txt                optional, ours: class names in label order

A source of boxes has ``len()``, ``read(i)`` and ``annotation(i) -> DetectionExample``, ``name(i)``
for messages, ``class_names`` and ``path``.  ``records`` has two more such sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np

from gluon_asymmnet.data.boxes.voc_xml import (
    BAD_BOX,
    BROKEN,
    CLIPPED,
    RENAMED,
    UNKNOWN,
    ClassNames,
    Parsed,
    is_bare_name,
    parse_annotation,
)
from gluon_asymmnet.data.class_names import load_class_names
from gluon_asymmnet.data.images import decode, image_info
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import FormatError, InputError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

Split = tuple[Union[int, str], str]  # (2007, "test"); a text instead of the year names the folder

_USUAL_SPLITS = ("train", "val", "trainval", "test")
CLASSES_FILE = "classes.txt"
_REPAIRED = (CLIPPED, RENAMED)


class DetectionExample(NamedTuple):
    """One picture and its objects."""

    image_id: str  # differs from all others of the source, e.g. "VOC2007/000005"
    rgb: np.ndarray | None  # (height, width, 3) uint8; None from ``annotation``
    boxes: np.ndarray  # (n, 4) float32, corners (xmin, ymin, xmax, ymax), pixels from 0
    labels: np.ndarray  # (n,) int64, 0 ... len(class_names) - 1
    difficult: np.ndarray  # (n,) bool
    size: tuple[int, int]  # (width, height), pixels


class _Image(NamedTuple):
    """Where one image of a split lies."""

    folder: Path
    stem: str

    @property
    def id(self) -> str:
        return f"{self.folder.name}/{self.stem}"

    @property
    def xml(self) -> Path:
        return self.folder / "Annotations" / f"{self.stem}.xml"


class VOCSource:
    """The images of one or more splits of a VOC folder.

    All annotations are read on opening (VOC07 and VOC12: 21,503 in about 6 s), so that a bad one
    is found now and not in the middle of a training.  The last row and column of a box
    belong to it, as in the devkit: ``xmax`` is at most ``width - 1``.

    Args:
        root:    the folder of ``VOC2007``.
        splits:  ``(year, name)`` or ``(folder, name)`` pairs.
        classes: class names in label order, compared without regard to case.  Default: those of
            ``classes.txt`` in the folders of the splits, or VOC's 20.
        unknown: what to do with an object of another class: "error", or "skip" it.
        bad_boxes: the same for a box that is empty, inverted or outside its image.

    Attributes:
        path, class_names: the root, and the names.
        issues: how many objects were left out ("unknown", "bad box") or repaired ("clipped",
            "renamed": another case of the name), a Counter.
        unknown_classes: names that were skipped -> objects.

    Raises:
        FileNotFoundError: there is no root or no such split.
        FormatError: naming the first file, and object, that is malformed; ``check`` lists all.
        InputError: an argument is wrong.
    """

    def __init__(
        self,
        root: PathLike,
        splits: Iterable[Split] = ((2007, "test"),),
        classes: Sequence[str] | None = None,
        *,
        unknown: str = "error",
        bad_boxes: str = "error",
    ):
        skipped = _skipped(unknown=(unknown, UNKNOWN), bad_boxes=(bad_boxes, BAD_BOX))
        self.path = Path(root).expanduser()
        folders = [(_set_folder(self.path, year), name) for year, name in splits]
        names = _class_names(folders) if classes is None else classes
        matcher = ClassNames(names)
        self.class_names = list(matcher)
        self.issues: Counter = Counter()
        self.unknown_classes: Counter = Counter()
        self._images: list[_Image] = []
        self._annotations: list[Parsed] = []
        for image in _listed(folders):
            parsed = _parse(image, matcher)
            for issue in parsed.issues:
                if issue.kind not in (*_REPAIRED, *skipped):
                    raise FormatError(f"{image.xml}: {issue.message}")
                self.issues[issue.kind] += 1
                if issue.kind == UNKNOWN:
                    self.unknown_classes[issue.name] += 1
            _picture(image, parsed)
            self._images.append(image)
            self._annotations.append(parsed)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, i: int) -> DetectionExample:
        """Return image ``i``.  Raises: FormatError if it is damaged or of another size."""
        image, parsed = self._images[i], self._annotations[i]
        return self.annotation(i)._replace(rgb=_decoded(_picture(image, parsed), parsed.size))

    def annotation(self, i: int) -> DetectionExample:
        """Return the boxes of image ``i`` alone; the arrays are the caller's own."""
        parsed = self._annotations[i]
        arrays = (parsed.boxes.copy(), parsed.labels.copy(), parsed.difficult.copy())
        return DetectionExample(self._images[i].id, None, *arrays, parsed.size)

    def name(self, i: int) -> str:
        """Say which annotation that is, for a message."""
        return str(self._images[i].xml)


def _skipped(**choices: tuple[str, str]) -> list[str]:
    for argument, (choice, _) in choices.items():
        if choice not in ("error", "skip"):
            raise InputError(f"{argument} must be 'error' or 'skip', got {choice!r}")
    return [kind for choice, kind in choices.values() if choice == "skip"]


# ------------------------------------------------------------------------------ files


def _set_folder(root: Path, year: int | str) -> Path:
    return root / (f"VOC{year}" if isinstance(year, int) else year)


def _class_names(folders: Iterable[tuple[Path, str]]) -> Sequence[str]:
    """The names beside the splits; VOC's if there are none."""
    found = {}
    for folder, _ in folders:
        path = folder / CLASSES_FILE
        names = tuple(load_class_names(path)) if path.is_file() else VOC_CLASSES
        found.setdefault(names, folder)
    if len(found) > 1:
        first, second, *_ = found.values()
        raise InputError(f"{first} and {second}: not the same classes; name those to use")
    return next(iter(found), VOC_CLASSES)


def _listed(folders: Iterable[tuple[Path, str]]) -> list[_Image]:
    """All images of the splits; raises at the first thing wrong with a list."""
    images: list[_Image] = []
    seen: set[str] = set()
    for folder, split in folders:
        for found in _read_list(folder, split, seen):
            if isinstance(found, Problem):
                raise FormatError(f"{found.file}: {found.message}")
            images.append(found)
    if not images:
        raise InputError("no splits are named; expected at least one, e.g. (2007, 'test')")
    return images


def _read_list(folder: Path, split: str, seen: set[str]) -> Iterator[_Image | Problem]:
    """The images of one split in order, with what is wrong among them; ``seen`` gathers the ids."""
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list of images")
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    stems = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not stems:
        yield Problem(str(path), BROKEN, "it lists no image")
    for number, stem in stems:
        image = _Image(folder, stem)
        if not is_bare_name(stem) or "\ufffd" in stem:
            reason = "expected an image id, a bare name in UTF-8"
            yield Problem(str(path), BROKEN, f"line {number} is {stem[:40]!r}, {reason}")
        elif image.id in seen:
            yield Problem(str(path), BROKEN, f"line {number}: {stem} is listed for the second time")
        else:
            seen.add(image.id)
            yield image


def _parse(image: _Image, classes: ClassNames) -> Parsed:
    """Read the annotation of an image.  Raises FormatError, naming the file."""
    if not image.xml.is_file():
        raise FormatError(f"{image.xml}: no such file, but the image is listed")
    try:
        return parse_annotation(image.xml.read_bytes(), classes)
    except FormatError as error:
        raise FormatError(f"{image.xml}: {error}") from None


def _picture(image: _Image, parsed: Parsed) -> Path:
    """The picture: ``<id>.jpg`` or, as some tools have it, what the annotation calls it."""
    usual = image.folder / "JPEGImages" / f"{image.stem}.jpg"
    for path in (usual, usual.with_name(parsed.filename or usual.name)):
        if path.is_file():
            return path
    raise FormatError(f"{usual}: no such file, but the image is listed")


def _decoded(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Decode a picture that must have ``size``.  Raises FormatError."""
    try:
        rgb = decode(path.read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    require_size(path, (rgb.shape[1], rgb.shape[0]), size)
    return rgb


def require_size(path: Path, found: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Raise FormatError if a picture has not the size its annotation says."""
    if found != annotated:
        raise FormatError(
            f"{path}: the picture has {found[0]} x {found[1]} pixels, its annotation says "
            f"{annotated[0]} x {annotated[1]}; the boxes may be wrong"
        )


# ------------------------------------------------------------------------------ the check


class Problem(NamedTuple):
    """Something wrong in a VOC folder."""

    file: str
    kind: str  # "broken", "unknown", "bad box", or repaired on reading: "clipped", "renamed"
    message: str  # one line


class Report(NamedTuple):
    """What ``check`` found."""

    images: int  # listed
    objects: int  # usable
    difficult: int  # of them
    empty: int  # images without a usable object
    classes: dict[str, int]  # class name -> usable objects, in label order
    problems: list[Problem]  # those that VOCSource refuses, unless told to skip them
    repaired: list[Problem]  # those that it repairs


def find_splits(root: PathLike) -> list[Split]:
    """The splits train, val, trainval and test of all folders in ``root``; sorted by folder.

    Raises: FileNotFoundError if there is no root; InputError if it holds no split.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    found: list[Split] = [
        (folder.name, split)
        for folder in sorted(root.iterdir())
        for split in _USUAL_SPLITS
        if (folder / "ImageSets" / "Main" / f"{split}.txt").is_file()
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
    pictures: bool = True,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """List everything that is wrong with a VOC folder; stop at nothing.

    Args:
        splits: default: all of ``find_splits``.  An image may be in several (trainval holds train
            and val), and is looked at once; twice in one list is a problem.
        classes: as for VOCSource.
        pictures: decode every picture; without it only its header is read.
        threads: default: a few more than there are processors.
        progress: called with (done, total) after each image.

    Raises: FileNotFoundError if there is no root; InputError as VOCSource.
    """
    root = Path(root).expanduser()
    splits = find_splits(root) if splits is None else list(splits)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    folders = [(_set_folder(root, year), name) for year, name in splits]
    matcher = ClassNames(_class_names(folders) if classes is None else classes)
    images, found = _all_listed(folders)
    counts, difficult, empty = np.zeros(len(matcher), int), 0, 0

    def examine(image: _Image) -> tuple[Parsed | None, list[Problem]]:
        return _examine(image, matcher, pictures)

    pool = ThreadPoolExecutor(threads)
    try:
        for done, (parsed, problems) in enumerate(pool.map(examine, images), 1):
            found += problems
            if parsed is not None:
                counts += np.bincount(parsed.labels, minlength=len(matcher))
                difficult += int(parsed.difficult.sum())
                empty += len(parsed.labels) == 0
            if progress is not None:
                progress(done, len(images))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C shall not wait for 10,000 pictures
    return Report(
        images=len(images),
        objects=int(counts.sum()),
        difficult=difficult,
        empty=empty,
        classes={name: int(count) for name, count in zip(matcher, counts)},
        problems=[problem for problem in found if problem.kind not in _REPAIRED],
        repaired=[problem for problem in found if problem.kind in _REPAIRED],
    )


def _all_listed(folders: Iterable[tuple[Path, str]]) -> tuple[list[_Image], list[Problem]]:
    """Every image once, and what is wrong with the lists."""
    images: dict[_Image, None] = {}
    problems = []
    for folder, split in folders:
        try:
            for found in _read_list(folder, split, set()):
                if isinstance(found, Problem):
                    problems.append(found)
                else:
                    images[found] = None
        except FileNotFoundError as error:
            problems.append(_problem(str(error)))
    return list(images), problems


def _examine(
    image: _Image, classes: ClassNames, pictures: bool
) -> tuple[Parsed | None, list[Problem]]:
    try:
        parsed = _parse(image, classes)
    except FormatError as error:
        return None, [_problem(str(error))]
    problems = [Problem(str(image.xml), issue.kind, issue.message) for issue in parsed.issues]
    try:
        path = _picture(image, parsed)
        if pictures:
            _decoded(path, parsed.size)
        else:
            info = image_info(path.read_bytes())
            require_size(path, (info.width, info.height), parsed.size)
    except FormatError as error:
        problems.append(_problem(str(error)))
    return parsed, problems


def _problem(text: str) -> Problem:
    """Of a message that starts with the file."""
    file, _, message = text.partition(": ")
    return Problem(file, BROKEN, message)
