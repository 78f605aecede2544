"""Read Pascal VOC folders as a source of images with boxes.

    root/VOC2007/Annotations/000005.xml
    root/VOC2007/ImageSets/Main/test.txt    one image id per line
    root/VOC2007/JPEGImages/000005.jpg      or another suffix of a picture
    root/VOC2007/classes.txt                optional extension: class names in label order

A source of boxes has ``len()``, ``read(i)`` and ``annotation(i) -> DetectionExample``, ``name(i)``
for messages, ``class_names``, ``path``, and ``remarks``: lines that say what was left out or
repaired; ``encoded(i)`` is its picture as stored, and ``last_included`` whether boxes hold their
last row and column.  ``records`` has two more such sources.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Union

import numpy as np

from gluon_asymmnet.data.boxes.findings import DERIVED, REPAIRED, UNSURE, Problem, summaries
from gluon_asymmnet.data.boxes.rotation import is_in_stored_frame, turn_boxes
from gluon_asymmnet.data.boxes.voc_xml import (
    BROKEN,
    ClassNames,
    ParsedAnnotation,
    is_bare_name,
    parse_file,
    parse_objects,
)
from gluon_asymmnet.data.class_names import load_class_names
from gluon_asymmnet.data.image_files import is_image_file, list_folder
from gluon_asymmnet.data.image_headers import JPEG_START, ImageInfo, image_info
from gluon_asymmnet.data.images import checked_info, decode
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.data.text_files import read_lines
from gluon_asymmnet.errors import FormatError, InputError, reason_of

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

Split = tuple[Union[int, str], str]  # (year or folder, name), e.g. (2007, "test")

CLASSES_FILE = "classes.txt"
SKIP_BAD = "correct it, or add --skip-bad to leave it out"
_HEADER_BYTES = 1 << 16  # of a JPEG; nearly always enough for its EXIF block and its size
_FLAGGED = re.compile(r"(\S.*?)\s+(-1|0|1)")  # a line of a list of one class


class DetectionExample(NamedTuple):
    """One image and its objects."""

    image_id: str  # unique in the source, e.g. "VOC2007/000005"
    rgb: np.ndarray | None  # (height, width, 3) uint8; None from ``annotation``
    boxes: np.ndarray  # (n, 4) float32, corners (xmin, ymin, xmax, ymax), pixels from 0
    labels: np.ndarray  # (n,) int64, 0 ... len(class_names) - 1
    difficult: np.ndarray  # (n,) bool
    size: tuple[int, int]  # (width, height), pixels


class ListedImage(NamedTuple):
    """One image of a split, as listed."""

    folder: Path
    stem: str

    @property
    def id(self) -> str:
        """Return an id that is unique in the source."""
        return f"{self.folder.name}/{self.stem}"

    @property
    def xml(self) -> Path:
        """Return the path of the annotation."""
        return self.folder / "Annotations" / f"{self.stem}.xml"


class ExaminedImage(NamedTuple):
    """The annotation of an image, and the problems found with it."""

    annotation: ParsedAnnotation | None  # None if the file is unusable as a whole
    picture: Path | None  # None if it is missing, unusable or of another size
    problems: list[Problem]


class VOCSource:
    """The images of one or more splits of a VOC folder.

    All annotations and the headers of all pictures are read on opening, so that errors are found
    before the training.  Boxes include their last row and column, as in the devkit: ``xmax`` is at
    most ``width - 1``.

    Args:
        root:    the folder that contains ``VOC2007``.
        splits:  ``(year, name)`` or ``(folder, name)`` pairs.  Of a list of one class, whose lines
            end in 1, 0 or -1, the images without the class (-1) are left out.
        classes: class names in label order, matched case-insensitively.  Default: those of
            ``classes.txt`` in the folders of the splits, or VOC's 20.
        skip_bad: leave out what is faulty, instead of raising FormatError: objects of other
            classes, empty boxes, images that cannot be read or have no annotation.  Every picture
            is then checked on opening.

    Attributes:
        path, class_names: the root, and the class names.
        findings: what was left out (with ``skip_bad``), repaired or derived.
        remarks: one line per kind of finding.
        issues: Counter of the kinds of findings.

    Raises:
        FileNotFoundError: the root or a split does not exist.
        FormatError: an annotation or picture is faulty; the message names the first, ``check``
            lists all.
        InputError: an argument is wrong, or no image is usable.
    """

    last_included = True

    def __init__(
        self,
        root: PathLike,
        splits: Iterable[Split] = ((2007, "test"),),
        classes: Sequence[str] | None = None,
        *,
        skip_bad: bool = False,
    ):
        self.path = Path(root).expanduser()
        folders = [(set_folder(self.path, year), name) for year, name in splits]
        if not folders:
            raise InputError("no splits are given; expected at least one, e.g. (2007, 'test')")
        matcher = ClassNames(folder_classes(folders) if classes is None else classes)
        self.class_names = list(matcher)
        self._advice = "" if skip_bad else f"; {SKIP_BAD}"
        self.findings: list[Problem] = []
        self._images: list[ListedImage] = []
        self._annotations: list[ParsedAnnotation] = []
        self._pictures: list[Path] = []
        index, seen = PictureIndex(), set()
        read_info = checked_info_of if skip_bad else header_info_of
        for image in (found for folder, name in folders for found in read_list(folder, name, seen)):
            if isinstance(image, Problem):
                self._note([image], skip_bad)
                continue
            annotation, picture, problems = examine(image, matcher, index, read_info)
            self._note(problems, skip_bad)
            if annotation is not None and picture is not None:
                self._images.append(image)
                self._annotations.append(annotation)
                self._pictures.append(picture)
        self.remarks = summaries(self.findings, self.class_names)
        self.issues = Counter(problem.kind for problem in self.findings)
        if not self._images:
            first = f": {self.remarks[0]}" if self.remarks else ""
            raise InputError(f"{self.path}: no image is usable{first}")

    def _note(self, problems: list[Problem], skip_bad: bool) -> None:
        for problem in problems:
            if problem.kind not in REPAIRED and not skip_bad:
                raise FormatError(f"{problem.file}: {problem.message}{self._advice}")
        self.findings += problems

    def __len__(self) -> int:
        return len(self._images)

    def read(self, i: int) -> DetectionExample:
        """Return image ``i``.  Raises: FormatError if it is damaged."""
        path, size = self._pictures[i], self._annotations[i].size
        try:
            rgb = decode(path.read_bytes())
            if rgb.shape[1::-1] != size:
                raise FormatError(f"the picture changed: {rgb.shape[1]} x {rgb.shape[0]} pixels")
        except (FormatError, OSError) as error:
            raise FormatError(f"{path}: {reason_of(error)}{self._advice}") from None
        return self.annotation(i)._replace(rgb=rgb)

    def annotation(self, i: int) -> DetectionExample:
        """Return image ``i`` without its pixels; the arrays are copies."""
        parsed = self._annotations[i]
        arrays = (parsed.boxes.copy(), parsed.labels.copy(), parsed.difficult.copy())
        return DetectionExample(self._images[i].id, None, *arrays, parsed.size)

    def encoded(self, i: int) -> bytes:
        """Return the bytes of picture ``i``."""
        return self._pictures[i].read_bytes()

    def objects(self, i: int) -> tuple[str, np.ndarray, np.ndarray]:
        """Return id, boxes and labels of image ``i``; the picture is not read."""
        return self._images[i].id, self._annotations[i].boxes, self._annotations[i].labels

    def name(self, i: int) -> str:
        """Return the path of annotation ``i``, for a message."""
        return str(self._images[i].xml)


# ------------------------------------------------------------------------------ files


def set_folder(root: Path, year: int | str) -> Path:
    """Return the folder of a set: ``root/VOC2007`` of 2007."""
    return root / (f"VOC{year}" if isinstance(year, int) else year)


def list_file(folder: Path, split: str) -> Path:
    """Return the path of a list of images."""
    return folder / "ImageSets" / "Main" / f"{split}.txt"


def folder_classes(folders: Iterable[tuple[Path, str]]) -> Sequence[str]:
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


def read_list(folder: Path, split: str, seen: set[str]) -> Iterator[ListedImage | Problem]:
    """Yield the images of one split in order, and problems; ids are added to ``seen``."""
    path = list_file(folder, split)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such list of images")
    try:
        stems = [(number, line) for number, line in read_lines(path, "list of images") if line]
    except FormatError as error:
        yield _problem_of(str(error))
        return
    if not stems:
        yield Problem(str(path), BROKEN, "it lists no image")
    flagged = [_FLAGGED.fullmatch(line) for _, line in stems]
    if stems and all(flagged) and not ListedImage(folder, stems[0][1]).xml.is_file():
        without = sum(match[2] == "-1" for match in flagged)
        stems = [(n, m[1]) for (n, _), m in zip(stems, flagged) if m[2] != "-1"]
        yield Problem(
            str(path), DERIVED, f"a list of one class: {without} images without it are left out"
        )
    for number, stem in stems:
        image = ListedImage(folder, stem)
        if not is_bare_name(stem):
            message = f"line {number} is {stem[:40]!r}, expected an image id, a bare name"
            yield Problem(str(path), BROKEN, message)
        elif image.id in seen:
            yield Problem(str(path), BROKEN, f"line {number}: {stem} is listed for the second time")
        else:
            seen.add(image.id)
            yield image


class PictureIndex:
    """The picture files of the sets' folders, listed once."""

    def __init__(self):
        self._names: dict[Path, dict[str, list[str]]] = {}

    def find(self, image: ListedImage, filename: str | None) -> tuple[Path, str]:
        """Return the picture of an image, and how it was found if not by its usual name.

        The usual name is ``<id>.jpg``.  Otherwise it is the id with another suffix, or the
        annotation's ``<filename>``, with or without its suffix.

        Raises: FormatError if there is none, or several.
        """
        folder = image.folder / "JPEGImages"
        if folder not in self._names:
            self._names[folder] = _names_by_stem(folder)
        by_stem, usual = self._names[folder], f"{image.stem}.jpg"
        for stem in (image.stem, Path(filename or "").stem, filename or ""):
            names = by_stem.get(stem, [])
            name = next((name for name in (filename, usual) if name in names), None)
            if name is None and len(names) > 1:
                raise FormatError(
                    f"{folder / stem}: there are {' and '.join(names)}; expected one picture"
                )
            name = name or (names[0] if names else None)
            if name is not None:
                differs = filename is not None and Path(filename).stem not in (stem, filename)
                how = f"the picture is {name}"
                if differs and stem == image.stem:
                    how += f", though <filename> is {filename[:60]!r}"
                return folder / name, how if differs or name not in (usual, filename) else ""
        raise FormatError(f"{folder / usual}: no such file, but the image is listed")


def _names_by_stem(folder: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in list_folder(folder)[1] if folder.is_dir() else []:
        if is_image_file(name):
            found[Path(name).stem].append(name)
    return dict(found)


def examine(
    image: ListedImage,
    classes: ClassNames,
    pictures: PictureIndex,
    read_info: Callable[[Path], ImageInfo],
) -> ExaminedImage:
    """Read the annotation of an image and the size of its picture; turn boxes where needed.

    Args:
        read_info: reads a picture; FormatError or OSError if it is unusable.
    """
    xml = str(image.xml)
    if not image.xml.is_file():
        return ExaminedImage(
            None, None, [Problem(xml, BROKEN, "no such file, but the image is listed")]
        )
    try:
        file = parse_file(image.xml.read_bytes())
    except (FormatError, OSError) as error:
        return ExaminedImage(None, None, [Problem(xml, BROKEN, reason_of(error))])
    problems = []
    try:
        path, how = pictures.find(image, file.filename)
    except FormatError as error:
        problems, path, info, stored = [_problem_of(str(error))], None, None, False
    else:
        if how:
            problems.append(Problem(xml, DERIVED, how))
        try:
            info = read_info(path)
            stored = is_in_stored_frame(info, file.size)
        except (FormatError, OSError) as error:
            problems.append(Problem(str(path), BROKEN, reason_of(error)))
            path, info, stored = None, None, False
    if info is None and file.size is None:
        return ExaminedImage(None, None, problems)
    size = file.size or (info.width, info.height)
    if file.size is None:
        problems.append(Problem(xml, DERIVED, "there is no <size>; it is the picture's"))
    parsed = parse_objects(file, classes, size)
    if stored:
        boxes = turn_boxes(parsed.boxes, info)
        parsed = parsed._replace(boxes=boxes, size=(info.width, info.height))
        message = "the boxes were drawn on the picture without its EXIF rotation; they are turned"
        problems.append(Problem(xml, DERIVED, message))
    elif stored is None and len(parsed.boxes):
        message = (
            f"EXIF orientation {info.orientation} keeps the size, so the boxes may be drawn on the "
            f"picture with or without it; taken as with it"
        )
        problems.append(Problem(xml, UNSURE, message))
    problems += [Problem(xml, one.kind, one.message, one.name) for one in parsed.issues]
    return ExaminedImage(parsed, path, problems)


def header_info_of(path: Path) -> ImageInfo:
    """Read size and rotation of a picture; of a JPEG only its start."""
    with open(path, "rb") as file:
        head = file.read(_HEADER_BYTES)
        if head.startswith(JPEG_START):
            try:
                return image_info(head)
            except FormatError:  # a large EXIF block or colour profile comes first
                pass
        return image_info(head + file.read())


def checked_info_of(path: Path) -> ImageInfo:
    """Read size and rotation of a picture, and check it as far as possible without decoding."""
    return checked_info(path.read_bytes())


def _problem_of(text: str) -> Problem:
    """Convert an error message that starts with the file."""
    file, _, message = text.partition(": ")
    return Problem(file, BROKEN, message)
