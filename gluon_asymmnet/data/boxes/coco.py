"""Convert the boxes of a COCO JSON file to a VOC folder."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.records import relative_path
from gluon_asymmnet.data.boxes.rotation import is_in_stored_frame, turn_boxes
from gluon_asymmnet.data.boxes.voc import header_info_of
from gluon_asymmnet.data.boxes.voc_write import (
    ConversionReport,
    Faults,
    FoundImage,
    split_by_name,
    write_voc,
)
from gluon_asymmnet.data.boxes.voc_xml import (
    ClassNames,
    VOCObject,
    is_bare_name,
)
from gluon_asymmnet.data.image_headers import ImageInfo
from gluon_asymmnet.data.records.recordio import PathLike, require_file
from gluon_asymmnet.errors import FormatError, InputError, reason_of
from gluon_asymmnet.utils.json_objects import parse_object

_SPLIT = "trainval"


class _COCOImage(NamedTuple):
    """One entry of "images" in the JSON."""

    path: Path
    stem: str
    info: ImageInfo  # of the picture
    stored: bool  # its boxes were drawn on the picture without its EXIF rotation


def coco_to_voc(
    annotations: PathLike,
    images: PathLike,
    out: PathLike,
    *,
    split: str = _SPLIT,
    shares: Mapping[str, float] = MappingProxyType({}),
    seed: int = 0,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Write boxes and images of a COCO JSON file as the VOC folder ``out``; all or nothing.

    ``out`` is one set, like VOC2007: ``out/Annotations``, ``out/ImageSets/Main/<split>.txt``,
    ``out/JPEGImages`` and ``out/classes.txt`` with the categories by rising id.  Read it with
    ``VOCSource(out.parent, [(out.name, split)])``.  Images keep their file names; where two folders
    have the same one, the folders' names come before it.  JPEGs are copied; pictures of other
    formats, or with an EXIF rotation, are encoded as JPEG of quality 95, turned.

    A box ``x, y, w, h`` becomes the corners ``x, y, x + w - 1, y + h - 1``, counted from 0 and
    inclusive (like GluonCV's conversion), and is clipped to the image.  ``iscrowd`` becomes
    difficult.  Masks and key points are dropped.

    Args:
        annotations: the JSON file.
        images:      the folder that ``file_name`` is relative to.
        split:       name of the one list, without ``shares``.
        shares:      divide the images, e.g. ``{"val": 0.2}``; the rest is "train".  See
            ``split_by_name``.
        seed:        of this division.
        skip_bad:    leave out faulty images and objects instead of raising FormatError: images that
            are missing or damaged, boxes of at most one pixel or outside, broken entries.
        progress:    called with (done, total) after each image.

    Raises:
        FileNotFoundError: the JSON is missing.
        FormatError: the JSON is malformed, an object belongs to no image or category, an image is
            missing, damaged or of another size; the message names the entry.
        InputError: an argument is wrong, or ``out`` exists.
    """
    if not is_bare_name(split):
        raise InputError(f"split must be a bare name such as 'train', got {split!r}")
    source, out = Path(annotations), Path(out)
    content = load_coco(source)
    report = ConversionReport(0, 0, [], [], [], {})
    with _prefix_errors(source):
        faults = Faults(report.skipped if skip_bad else None)
        names = _categories(content["categories"])
        listed = _images(content["images"], Path(images), faults, report.derived)
        # as text: a broken identifier may be a list or an object
        left_out = {repr(entry.get("id")) for entry in content["images"]} - set(map(repr, listed))
        usable = [a for a in content["annotations"] if repr(a.get("image_id")) not in left_out]
        objects = _objects(usable, names, listed, faults)
        classes = ClassNames(names.values())
    found = [FoundImage(i.path, i.stem, i.info, objects[key]) for key, i in listed.items()]
    stems = [image.stem for image in found]
    splits = {split: stems}
    if any(shares.values()):
        splits = split_by_name(stems, shares, "train", seed)
    return write_voc(out, found, classes, splits, report, faults, progress)


@contextlib.contextmanager
def _prefix_errors(path: Path) -> Iterator[None]:
    """Turn InputErrors into FormatErrors with the file's name."""
    try:
        yield
    except InputError as error:
        raise FormatError(f"{path}: {error}") from None


def load_coco(path: PathLike) -> dict[str, list[dict]]:
    """Return the content of a COCO file: lists of images, annotations and categories, all objects.

    Raises: FileNotFoundError; FormatError if it is not such a file or lists no image.
    """
    path = Path(path)
    require_file(path, "COCO file")
    content = parse_object(path.read_bytes(), path, "COCO annotations")
    for part in ("images", "annotations", "categories"):
        entries = content.get(part)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise FormatError(f"{path}: expected an object with a list {part!r} of objects")
    if not content["images"]:
        raise FormatError(f"{path}: it lists no image")
    return content


def _field(entry: dict, key: str, kind, where: str):
    """Return the value of ``key``, which must be of type ``kind``."""
    value = entry.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        shown = repr(value)[:60] if key in entry else "missing"
        raise FormatError(f"{where}: {key} is {shown}, expected {_KINDS[kind]}")
    return value


_KINDS = {int: "a whole number", str: "a text", list: "a list"}


def _categories(entries: list[dict]) -> dict[int, str]:
    """Return {id: name} by rising id."""
    names: dict[int, str] = {}
    for n, entry in enumerate(entries):
        key = _field(entry, "id", int, f"category {n}")
        if key in names:
            raise FormatError(f"category {n}: id {key} is used twice")
        names[key] = _field(entry, "name", str, f"category {n}").strip()
    return dict(sorted(names.items()))


def _images(
    entries: list[dict], folder: Path, faults: Faults, derived: list[str]
) -> dict[int, _COCOImage]:
    """Return the images by id; add a line to ``derived`` for each that is not as the JSON says."""
    found: dict[int, _COCOImage] = {}
    stems: dict[str, str] = {}
    names = [str(entry.get("file_name")).replace("\\", "/") for entry in entries]
    uses = Counter(Path(name).stem.casefold() for name in names)
    for n, entry in enumerate(entries):
        where = f"image {n}"
        with faults:
            key = _field(entry, "id", int, where)
            if key in found:
                raise FormatError(f"{where}: id {key} is used twice")
            name = relative_path(_field(entry, "file_name", str, where), where)
            image, remarks = _image(entry, folder, name.replace("\\", "/"), where)
            if uses[image.stem.casefold()] > 1:  # equal names in several folders
                joined = "_".join(Path(names[n]).with_suffix("").parts)
                if joined != image.stem:
                    image = image._replace(stem=joined)
                    remarks.append(f"the name occurs twice; it becomes {joined}")
            # Some file systems, e.g. of macOS, ignore case.
            other = stems.setdefault(image.stem.casefold(), name)
            if len(stems) == len(found):
                raise FormatError(f"{where}: {name!r} and {other!r} would get the same name")
            if not is_bare_name(image.stem) or image.stem != image.stem.strip():
                raise FormatError(f"{where}: {name!r} gives no usable image id")
            found[key] = image
            derived += [f"{where}: {image.path}: {remark}" for remark in remarks]
    return found


def _image(entry: dict, folder: Path, name: str, where: str) -> tuple[_COCOImage, list[str]]:
    """Return one image, and what had to be derived about it."""
    path, remarks = folder / name, []
    if not path.is_file() and (folder / path.name).is_file():
        path = folder / path.name
        remarks.append(f"found without the folder of {name!r}")
    size = tuple(
        _field(entry, side, int, where) if entry.get(side) is not None else 0
        for side in ("width", "height")
    )
    try:
        info = header_info_of(path)
        stored = is_in_stored_frame(info, size if min(size) > 0 else None)
    except (FormatError, OSError) as error:
        raise FormatError(f"{where}: {path}: {reason_of(error)}") from None
    if min(size) <= 0:
        remarks.append("its size is missing; taken from the picture")
    if stored:
        remarks.append("the boxes were drawn on the picture without its EXIF rotation; turned")
    elif stored is None:
        remarks.append(
            f"EXIF orientation {info.orientation} keeps the size, so the boxes may be drawn on the "
            f"picture with or without it; taken as with it"
        )
    return _COCOImage(path, path.stem, info, bool(stored)), remarks


def _objects(
    entries: list[dict], names: dict[int, str], images: dict[int, _COCOImage], faults: Faults
) -> dict[int, list[VOCObject]]:
    """Return the objects of each image."""
    found: dict[int, list[VOCObject]] = defaultdict(list)
    for n, entry in enumerate(entries):
        where = f"annotation {n} (id {entry.get('id')!r})"[:80]
        with faults:
            image_id = _field(entry, "image_id", int, where)
            category = _field(entry, "category_id", int, where)
            for key, known, what in ((image_id, images, "image"), (category, names, "category")):
                if key not in known:
                    raise FormatError(f"{where}: there is no {what} with id {key}")
            crowd = entry.get("iscrowd", 0)
            if crowd not in (0, 1):
                raise FormatError(f"{where}: iscrowd is {crowd!r}, expected 0 or 1"[:200])
            box = _corners(_field(entry, "bbox", list, where), images[image_id], where)
            found[image_id].append(VOCObject(names[category], box, bool(crowd)))
    return found


def _corners(bbox: list, image: _COCOImage, where: str) -> tuple[float, ...]:
    """Return inclusive corners from 0 in the turned picture.

    Raises: FormatError unless it is four finite numbers, and two pixels or more lie inside.
    """
    if len(bbox) != 4 or not all(map(_is_pixels, bbox)):
        raise FormatError(
            f"{where}: bbox is {str(bbox)[:60]}, expected 4 finite numbers x, y, w, h"
        )
    x, y, w, h = bbox
    width, height = image.info.stored_size if image.stored else image.info[1:3]
    box = (max(x, 0), max(y, 0), min(x + w - 1, width - 1), min(y + h - 1, height - 1))
    if box[0] >= box[2] or box[1] >= box[3]:
        raise FormatError(
            f"{where}: the box {bbox} is empty, one pixel wide or high, or outside the "
            f"{width} x {height} image"
        )
    return tuple(turn_boxes(np.array([box], float), image.info)[0]) if image.stored else box


def _is_pixels(value) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e9  # false for nan
