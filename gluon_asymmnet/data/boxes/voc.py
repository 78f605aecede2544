"""Read Pascal VOC folders as a source of images with boxes, and check them for errors.

    root/VOC2007/Annotations/000005.xml
    root/VOC2007/ImageSets/Main/test.txt    one image id per line
    root/VOC2007/JPEGImages/000005.jpg
    root/VOC2007/classes.txt                optional extension: class names in label order

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
    ParsedAnnotation,
    is_bare_name,
    parse_annotation,
)
from gluon_asymmnet.data.class_names import load_class_names
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import FormatError, InputError

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

Split = tuple[Union[int, str], str]  # (year or folder, name), e.g. (2007, "test")

_USUAL_SPLITS = ("train", "val", "trainval", "test")
CLASSES_FILE = "classes.txt"
_REPAIRED = (CLIPPED, RENAMED)


class DetectionExample(NamedTuple):
    """One image and its objects."""

    image_id: str  # unique in the source, e.g. "VOC2007/000005"
    rgb: np.ndarray | None  # (height, width, 3) uint8; None from ``annotation``
    boxes: np.ndarray  # (n, 4) float32, corners (xmin, ymin, xmax, ymax), pixels from 0
    labels: np.ndarray  # (n,) int64, 0 ... len(class_names) - 1
    difficult: np.ndarray  # (n,) bool
    size: tuple[int, int]  # (width, height), pixels


class _Image(NamedTuple):
    """One image of a split, as listed."""

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

    All annotations are read on opening (VOC07 and VOC12: 21,503 in about 6 s), so that errors are
    found before the training.  Boxes include their last row and column, as in the devkit: ``xmax``
    is at most ``width - 1``.

    Args:
        root:    the folder that contains ``VOC2007``.
        splits:  ``(year, name)`` or ``(folder, name)`` pairs.
        classes: class names in label order, matched case-insensitively.  Default: those of
            ``classes.txt`` in the folders of the splits, or VOC's 20.
        unknown: "error" or "skip" for objects of other classes.
        bad_boxes: "error" or "skip" for boxes that are empty, inverted or outside the image.

    Attributes:
        path, class_names: the root, and the class names.
        issues: Counter of skipped ("unknown", "bad box") and repaired objects ("clipped",
            "renamed": the name in another case).
        unknown_classes: Counter of the objects of each skipped class name.

    Raises:
        FileNotFoundError: the root or a split does not exist.
        FormatError: an annotation is malformed; the message names the first file and object,
            ``check`` lists all.
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
        skipped = _skipped_kinds(unknown=(unknown, UNKNOWN), bad_boxes=(bad_boxes, BAD_BOX))
        self.path = Path(root).expanduser()
        folders = [(_set_folder(self.path, year), name) for year, name in splits]
        names = _class_names(folders) if classes is None else classes
        matcher = ClassNames(names)
        self.class_names = list(matcher)
        self.issues: Counter = Counter()
        self.unknown_classes: Counter = Counter()
        self._images: list[_Image] = []
        self._annotations: list[ParsedAnnotation] = []
        for image in _list_images(folders):
            parsed = _parse(image, matcher)
            for issue in parsed.issues:
                if issue.kind not in (*_REPAIRED, *skipped):
                    raise FormatError(f"{image.xml}: {issue.message}")
                self.issues[issue.kind] += 1
                if issue.kind == UNKNOWN:
                    self.unknown_classes[issue.name] += 1
            _image_path(image, parsed)
            self._images.append(image)
            self._annotations.append(parsed)

    def __len__(self) -> int:
        return len(self._images)

    def read(self, i: int) -> DetectionExample:
        """Return image ``i``.  Raises: FormatError if it is damaged or of another size."""
        image, parsed = self._images[i], self._annotations[i]
        return self.annotation(i)._replace(rgb=_decode(_image_path(image, parsed), parsed.size))

    def annotation(self, i: int) -> DetectionExample:
        """Return image ``i`` without its pixels; the arrays are copies."""
        parsed = self._annotations[i]
        arrays = (parsed.boxes.copy(), parsed.labels.copy(), parsed.difficult.copy())
        return DetectionExample(self._images[i].id, None, *arrays, parsed.size)

    def objects(self, i: int) -> tuple[str, np.ndarray, np.ndarray]:
        """Return id, boxes and labels of image ``i`` as they are stored."""
        return self._images[i].id, self._annotations[i].boxes, self._annotations[i].labels

    def name(self, i: int) -> str:
        """Return the path of annotation ``i``, for a message."""
        return str(self._images[i].xml)


def _skipped_kinds(**choices: tuple[str, str]) -> list[str]:
    for argument, (choice, _) in choices.items():
        if choice not in ("error", "skip"):
            raise InputError(f"{argument} must be 'error' or 'skip', got {choice!r}")
    return [kind for choice, kind in choices.values() if choice == "skip"]


# ------------------------------------------------------------------------------ files


def _set_folder(root: Path, year: int | str) -> Path:
    return root / (f"VOC{year}" if isinstance(year, int) else year)


def _class_names(folders: Iterable[tuple[Path, str]]) -> Sequence[str]:
    """Return the class names of the folders' ``classes.txt``; VOC's if there is none."""
    found = {}
    for folder, _ in folders:
        path = folder / CLASSES_FILE
        names = tuple(load_class_names(path)) if path.is_file() else VOC_CLASSES
        found.setdefault(names, folder)
    if len(found) > 1:
        first, second, *_ = found.values()
        raise InputError(f"{first} and {second} have different classes; give those to use")
    return next(iter(found), VOC_CLASSES)


def _list_images(folders: Iterable[tuple[Path, str]]) -> list[_Image]:
    """Return all images of the splits; raise for the first error in a list."""
    images: list[_Image] = []
    seen: set[str] = set()
    for folder, split in folders:
        for found in _read_list(folder, split, seen):
            if isinstance(found, Problem):
                raise FormatError(f"{found.file}: {found.message}")
            images.append(found)
    if not images:
        raise InputError("no splits are given; expected at least one, e.g. (2007, 'test')")
    return images


def _read_list(folder: Path, split: str, seen: set[str]) -> Iterator[_Image | Problem]:
    """Yield the images of one split in order, and errors; ids are added to ``seen``."""
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


def _parse(image: _Image, classes: ClassNames) -> ParsedAnnotation:
    """Read the annotation of an image.  Raises: FormatError, naming the file."""
    if not image.xml.is_file():
        raise FormatError(f"{image.xml}: no such file, but the image is listed")
    try:
        return parse_annotation(image.xml.read_bytes(), classes)
    except FormatError as error:
        raise FormatError(f"{image.xml}: {error}") from None


def _image_path(image: _Image, parsed: ParsedAnnotation) -> Path:
    """Return the image file: ``<id>.jpg`` or, for some tools, the annotation's ``<filename>``."""
    usual = image.folder / "JPEGImages" / f"{image.stem}.jpg"
    for path in (usual, usual.with_name(parsed.filename or usual.name)):
        if path.is_file():
            return path
    raise FormatError(f"{usual}: no such file, but the image is listed")


def _decode(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Decode an image that must have ``size``.  Raises: FormatError."""
    try:
        rgb = decode(path.read_bytes())
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    require_size(path, (rgb.shape[1], rgb.shape[0]), size)
    return rgb


def require_size(path: Path, found: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Raise FormatError if an image has another size than its annotation says."""
    if found != annotated:
        raise FormatError(
            f"{path}: the image has {found[0]} x {found[1]} pixels, its annotation says "
            f"{annotated[0]} x {annotated[1]}; the boxes may be wrong"
        )


# ------------------------------------------------------------------------------ the check


class Problem(NamedTuple):
    """An error in a VOC folder."""

    file: str
    kind: str  # "broken", "unknown", "bad box"; or repaired on reading: "clipped", "renamed"
    message: str  # one line


class VOCReport(NamedTuple):
    """The result of ``check``."""

    images: int  # listed images
    objects: int  # usable objects
    difficult: int  # difficult ones among them
    empty: int  # images without a usable object
    classes: dict[str, int]  # class name -> usable objects, in label order
    problems: list[Problem]  # errors for VOCSource, unless it skips them
    repaired: list[Problem]  # repaired by VOCSource


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
    folders = [(_set_folder(root, year), name) for year, name in splits]
    matcher = ClassNames(_class_names(folders) if classes is None else classes)
    images, found = _list_unique(folders)
    counts, difficult, empty = np.zeros(len(matcher), int), 0, 0

    def examine(image: _Image) -> tuple[ParsedAnnotation | None, list[Problem]]:
        return _examine(image, matcher, decode_images)

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
        pool.shutdown(cancel_futures=True)  # so that Ctrl-C does not wait for 10,000 images
    return VOCReport(
        images=len(images),
        objects=int(counts.sum()),
        difficult=difficult,
        empty=empty,
        classes={name: int(count) for name, count in zip(matcher, counts)},
        problems=[problem for problem in found if problem.kind not in _REPAIRED],
        repaired=[problem for problem in found if problem.kind in _REPAIRED],
    )


def _list_unique(folders: Iterable[tuple[Path, str]]) -> tuple[list[_Image], list[Problem]]:
    """Return every image once, and the errors in the lists."""
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
    image: _Image, classes: ClassNames, decode_image: bool
) -> tuple[ParsedAnnotation | None, list[Problem]]:
    try:
        parsed = _parse(image, classes)
    except FormatError as error:
        return None, [_problem(str(error))]
    problems = [Problem(str(image.xml), issue.kind, issue.message) for issue in parsed.issues]
    try:
        path = _image_path(image, parsed)
        if decode_image:
            _decode(path, parsed.size)
        else:
            info = image_info(path.read_bytes())
            require_size(path, (info.width, info.height), parsed.size)
    except FormatError as error:
        problems.append(_problem(str(error)))
    return parsed, problems


def _problem(text: str) -> Problem:
    """Convert an error message that starts with the file."""
    file, _, message = text.partition(": ")
    return Problem(file, BROKEN, message)
