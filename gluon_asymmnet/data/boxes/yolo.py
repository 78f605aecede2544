"""Convert data sets of YOLO (Ultralytics' layout) to VOC folders, and sources of boxes to YOLO.

A label file has a line per object: ``class x y w h``, the centre and sides of the box as fractions
of the picture's.  The edges of a box lie between pixels there, so a box of VOC that holds the
pixels ``left`` to ``right`` (from 0) has the edges ``left`` and ``right + 1``.
Source: Ultralytics' documentation, datasets/detect.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.voc import header_info_of
from gluon_asymmnet.data.boxes.voc_write import (
    USUAL_SPLITS,
    ConversionReport,
    Faults,
    FoundImage,
    folder_splits,
    split_by_name,
    unique_stems,
    write_voc,
)
from gluon_asymmnet.data.boxes.voc_xml import ClassNames, VOCObject
from gluon_asymmnet.data.class_names import load_class_names
from gluon_asymmnet.data.image_files import is_image_file, list_images_below
from gluon_asymmnet.data.image_headers import ImageInfo
from gluon_asymmnet.data.records.recordio import PathLike, require_file
from gluon_asymmnet.data.text_files import read_lines
from gluon_asymmnet.errors import FormatError, InputError, reason_of
from gluon_asymmnet.utils.extras import load_extra

_CLASS_FILES = ("classes.txt", "labels/classes.txt", "obj.names")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_SLACK = 1e-3  # share of a side by which a box may leave the picture: it is clipped
_DIGITS = 6  # of the fractions that most tools write


class _Set(NamedTuple):
    """What a data set names."""

    root: Path
    classes: list[str]
    images: dict[str, list[Path]]  # of each split; of "" if it has none


def yolo_to_voc(
    path: PathLike,
    out: PathLike,
    *,
    shares: Mapping[str, float],
    seed: int = 0,
    classes: Sequence[str] | None = None,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Write a YOLO data set as the VOC folder ``out``.

    ``path`` is a ``data.yaml``, whose splits are kept, or a folder: with ``data.yaml``, or with
    pictures and their label files beside them or in ``labels`` for ``images``, and names in
    ``classes.txt``.  Without splits images are divided, see ``split_by_name``.  A picture without
    label file has no objects.  Boxes are those of the turned picture; corners within the rounding
    of six digits of a whole pixel are on it.  Polygons become the boxes around them.

    Args: as ``labelimg_to_voc``.

    Raises: FileNotFoundError; FormatError for a faulty file; InputError if the names are unknown,
        there is no picture, or ``out`` exists.
    """
    report = ConversionReport(0, 0, [], [], [], {})
    faults = Faults(report.skipped if skip_bad else None)
    data = _open(Path(path), classes)
    names = ClassNames(data.classes)
    paths = list(dict.fromkeys(path for split in data.images.values() for path in split))
    if not paths:
        raise InputError(f"{data.root} holds no picture")
    stems = dict(zip(paths, unique_stems([_relative(path, data.root) for path in paths])))
    found = {}
    for picture in paths:
        with faults:
            found[picture] = _image(picture, stems[picture], names, faults, report)
    splits = {
        split: [stems[path] for path in images if path in found]
        for split, images in data.images.items()
    }
    if list(splits) == [""]:
        splits = split_by_name(splits[""], shares, "train", seed)
    return write_voc(out, list(found.values()), names, splits, report, faults, progress)


def _relative(path: Path, root: Path) -> PurePosixPath:
    inside = path.is_relative_to(root)
    return PurePosixPath((path.relative_to(root) if inside else Path(path.name)).as_posix())


# ------------------------------------------------------------------------------ the set


def _open(path: Path, classes: Sequence[str] | None) -> _Set:
    if path.is_dir():
        sheets = sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        named = [sheet for sheet in sheets if sheet.stem in ("data", "dataset")]
        if len(named or sheets) > 1:
            raise InputError(f"{path} holds several .yaml files; name one of them")
        if not sheets:
            return _open_folder(path, classes)
        path = (named or sheets)[0]
    elif path.suffix not in (".yaml", ".yml"):
        if path.exists():
            raise InputError(f"{path} is neither a folder nor a .yaml file")
        raise FileNotFoundError(f"{path}: no such file or folder")
    try:
        return _open_yaml(path, classes)
    except FileNotFoundError:
        raise
    except OSError as error:  # e.g. a path in it that is too long
        raise FormatError(f"{path}: {reason_of(error)}") from None


def _open_folder(folder: Path, classes: Sequence[str] | None) -> _Set:
    if classes is None:
        file = next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)
        if file is None:
            raise InputError(
                f"{folder} holds no data.yaml and no classes.txt; name the classes with --classes"
            )
        classes = load_class_names(file)
    images = folder / "images" if (folder / "images").is_dir() else folder
    paths = list_images_below(images)
    splits = defaultdict(list)
    of_folders = folder_splits([_relative(path, images) for path in paths])
    for path in paths:
        splits[of_folders.get(_relative(path, images).parts[0], "")].append(path)
    return _Set(images, list(classes), dict(splits))


def _open_yaml(path: Path, classes: Sequence[str] | None) -> _Set:
    require_file(path, "YOLO data file")
    yaml = load_extra("yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise FormatError(f"{path}: not YAML: {text}") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected keys such as train, val and names")
    root = path.parent
    if isinstance(content.get("path"), str) and (root / content["path"]).is_dir():
        root = root / content["path"]
    images: dict[str, list[Path]] = {}
    for key, split in USUAL_SPLITS.items():
        given = content.get(key) or []
        places = [given] if isinstance(given, str) else given
        if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
            raise FormatError(f"{path}: {key} is {given!r:.60}, expected paths")
        for place in places:
            images.setdefault(split, []).extend(_images_of(place, root, path))
    if not images:
        raise FormatError(f"{path}: it names no train, val or test images")
    return _Set(root, list(classes or _names(content.get("names"), path)), images)


def _names(names, path: Path) -> list[str]:
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise FormatError(
            f"{path}: names is {names!r:.60}, expected a list of class names, or numbers from 0 "
            f"and names"
        )
    return [str(name) for name in names]


def _is_name(name) -> bool:
    return isinstance(name, (str, int)) and not isinstance(name, bool)


def _images_of(place: str, root: Path, sheet: Path) -> list[Path]:
    """Return the pictures of a folder, or of a list of paths; both relative to the set's root."""
    place = place.replace("\\", "/")
    # Roboflow writes ../train/images for a folder beside the sheet
    choices = [root / place, root / re.sub(r"^(\.\./)+", "", place)]
    at = next((choice for choice in choices if choice.exists()), None)
    if at is None:
        raise FileNotFoundError(f"{sheet}: {place!r:.99}: no such file or folder in {root}")
    if at.is_dir():
        return list_images_below(at)
    lines = [line.replace("\\", "/") for _, line in read_lines(at, "list of images") if line]
    paths = [at.parent / line if line.startswith("./") else root / line for line in lines]
    missing = [path for path in paths if not (path.is_file() and is_image_file(path.name))]
    if missing:
        raise FormatError(f"{at}: {missing[0]} is not a picture, but it is listed")
    return paths


def label_file(image: Path) -> Path:
    """Return the label file of a picture: in ``labels`` for the last ``images``, or beside it."""
    parts = list(image.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            file = Path(*parts).with_suffix(".txt")
            return file if file.is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")


# ------------------------------------------------------------------------------ boxes


def _image(path: Path, stem: str, names: ClassNames, faults: Faults, report) -> FoundImage:
    try:
        info = header_info_of(path)
    except (FormatError, OSError) as error:
        raise FormatError(f"{path}: {reason_of(error)}") from None
    file, objects = label_file(path), []
    if not file.is_file():
        report.derived.append(f"{path}: there is no {file.name}; taken as without objects")
    else:
        for number, line in read_lines(file, "label file"):
            with faults:
                if line:
                    objects.append(parse_line(line, names, info, f"{file}: line {number}"))
    if info.orientation != 1 and objects:
        report.derived.append(f"{path}: its boxes are taken as drawn on the turned picture (EXIF)")
    return FoundImage(path, stem, info, objects)


def parse_line(line: str, names: ClassNames, info: ImageInfo, where: str) -> VOCObject:
    """Parse a line of a label file.  Raises: FormatError, which names ``where``."""
    fields = line.split()
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        raise FormatError(f"{where} has {len(fields)} numbers; expected 5: class x y w h")
    if not all(len(field) < 40 and _NUMBER.fullmatch(field) for field in fields):
        raise FormatError(f"{where}: {line[:60]!r} are not numbers; expected class x y w h")
    label, *values = map(float, fields)
    if not (label.is_integer() and 0 <= label < len(names)):
        raise FormatError(f"{where}: class {fields[0]} is not one of the {len(names)} from 0")
    if len(values) == 4:
        (x, y, w, h), points = values, np.empty(0)
        edges = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    else:
        points = np.reshape(values, (-1, 2))
        edges = np.concatenate([points.min(axis=0), points.max(axis=0)])
    if not (edges.min() >= -_SLACK and edges.max() <= 1 + _SLACK):  # nor nan, of inf - inf
        raise FormatError(f"{where}: {line[:60]!r} leaves the picture; expected fractions 0 to 1")
    size = np.array([info.width, info.height] * 2, float)
    edges = np.clip(edges, 0, 1) * size
    whole = np.rint(edges)
    edges = np.where(np.abs(edges - whole) <= 10.0**-_DIGITS * size, whole, edges)
    left, top, right, bottom = edges - [0, 0, 1, 1]
    if left >= right or top >= bottom:
        raise FormatError(f"{where}: the box is empty, or one pixel wide or high")
    return VOCObject(names[int(label)], (left, top, right, bottom))
