"""Convert the boxes of a COCO JSON file to a VOC folder."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gluon_asymmnet.data.boxes.records import relative_path
from gluon_asymmnet.data.boxes.voc import CLASSES_FILE, require_size
from gluon_asymmnet.data.boxes.voc_xml import (
    ClassNames,
    VOCObject,
    annotation_xml,
    is_bare_name,
)
from gluon_asymmnet.data.class_names import name_lines
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import fit_image
from gluon_asymmnet.data.records.recordio import PathLike, require_file
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.utils.json_objects import parse_object

_SPLIT = "trainval"


class ConversionReport(NamedTuple):
    """The result of ``coco_to_voc``."""

    images: int
    objects: int
    classes: list[str]
    skipped: list[str]  # one line with the reason per skipped object


class _COCOImage(NamedTuple):
    """One entry of "images" in the JSON."""

    path: Path
    stem: str
    size: tuple[int, int]  # (width, height), pixels


def coco_to_voc(
    annotations: PathLike,
    images: PathLike,
    out: PathLike,
    *,
    split: str = _SPLIT,
    bad_boxes: str = "error",
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Write boxes and images of a COCO JSON file as the VOC folder ``out``; all or nothing.

    ``out`` is one set, like VOC2007: ``out/Annotations``, ``out/ImageSets/Main/<split>.txt``,
    ``out/JPEGImages`` and ``out/classes.txt`` with the categories by rising id.  Read it with
    ``VOCSource(out.parent, [(out.name, split)])``.  Images keep their file names; JPEGs are copied,
    PNGs are encoded as JPEG of quality 95.

    A box ``x, y, w, h`` becomes the corners ``x, y, x + w - 1, y + h - 1``, counted from 0 and
    inclusive (like GluonCV's conversion), and is clipped to the image.  ``iscrowd`` becomes
    difficult.  Masks and key points are dropped.

    Args:
        annotations: the JSON file.
        images:      the folder that ``file_name`` is relative to.
        split:       name of the split.
        bad_boxes:   "error", or "skip" boxes of at most one pixel in width or height, and boxes
            outside the image.
        progress:    called with (done, total) after each image.

    Raises:
        FileNotFoundError: the JSON is missing.
        FormatError: the JSON is malformed, an object belongs to no image or category, an image is
            missing, damaged or of another size; the message names the entry.
        InputError: an argument is wrong, or ``out`` exists.
    """
    if bad_boxes not in ("error", "skip"):
        raise InputError(f"bad_boxes must be 'error' or 'skip', got {bad_boxes!r}")
    if not is_bare_name(split):
        raise InputError(f"split must be a bare name such as 'train', got {split!r}")
    source, out = Path(annotations), Path(out)
    content = _load(source)
    with _prefix_errors(source):
        names = _categories(content["categories"])
        coco_images = _images(content["images"], Path(images))
        objects, skipped = _objects(content["annotations"], names, coco_images, bad_boxes)
        classes = ClassNames(names.values())
    with new_folder(out) as scratch:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (scratch / folder).mkdir(parents=True)
        (scratch / CLASSES_FILE).write_bytes(name_lines(classes))
        stems = "".join(f"{image.stem}\n" for image in coco_images.values())
        (scratch / "ImageSets" / "Main" / f"{split}.txt").write_text(stems, encoding="utf-8")
        for done, (key, image) in enumerate(coco_images.items(), 1):
            file = f"{image.stem}.jpg"
            (scratch / "JPEGImages" / file).write_bytes(_jpeg(image))
            xml = annotation_xml(file, image.size, objects[key], folder=out.name)
            (scratch / "Annotations" / f"{image.stem}.xml").write_text(xml, encoding="utf-8")
            if progress is not None:
                progress(done, len(coco_images))
    return ConversionReport(
        len(coco_images), sum(map(len, objects.values())), list(classes), skipped
    )


@contextlib.contextmanager
def _prefix_errors(path: Path) -> Iterator[None]:
    """Turn InputErrors into FormatErrors with the file's name."""
    try:
        yield
    except InputError as error:
        raise FormatError(f"{path}: {error}") from None


def _load(path: Path) -> dict[str, list[dict]]:
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


def _images(entries: list[dict], folder: Path) -> dict[int, _COCOImage]:
    found: dict[int, _COCOImage] = {}
    stems: dict[str, str] = {}
    for n, entry in enumerate(entries):
        where = f"image {n}"
        key = _field(entry, "id", int, where)
        if key in found:
            raise FormatError(f"{where}: id {key} is used twice")
        name = relative_path(_field(entry, "file_name", str, where), where)
        size = tuple(_field(entry, side, int, where) for side in ("width", "height"))
        path = folder / name
        # Some file systems, e.g. of macOS, ignore case.
        other = stems.setdefault(path.stem.casefold(), name)
        if len(stems) == len(found):
            raise FormatError(f"{where}: {name!r} and {other!r} would get the same name")
        if not is_bare_name(path.stem) or path.stem != path.stem.strip():
            raise FormatError(f"{where}: {name!r} gives no usable image id")
        if not path.is_file():
            raise FormatError(f"{where}: {path}: no such file")
        found[key] = _COCOImage(path, path.stem, size)
    return found


def _objects(
    entries: list[dict], names: dict[int, str], images: dict[int, _COCOImage], bad_boxes: str
) -> tuple[dict[int, list[VOCObject]], list[str]]:
    """Return the objects of each image, and the reasons for skipped ones."""
    found: dict[int, list[VOCObject]] = defaultdict(list)
    skipped = []
    for n, entry in enumerate(entries):
        where = f"annotation {n} (id {entry.get('id')!r})"[:80]
        image_id = _field(entry, "image_id", int, where)
        category = _field(entry, "category_id", int, where)
        for key, known, what in ((image_id, images, "image"), (category, names, "category")):
            if key not in known:
                raise FormatError(f"{where}: there is no {what} with id {key}")
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise FormatError(f"{where}: iscrowd is {crowd!r}, expected 0 or 1"[:200])
        box = _corners(_field(entry, "bbox", list, where), images[image_id].size, where)
        if isinstance(box, str):
            if bad_boxes == "error":
                raise FormatError(box)
            skipped.append(box)
        else:
            found[image_id].append(VOCObject(names[category], box, bool(crowd)))
    return found, skipped


def _corners(bbox: list, size: tuple[int, int], where: str):
    """Return inclusive corners from 0, or the reason why the box is unusable.

    Raises: FormatError unless it is four finite numbers.
    """
    if len(bbox) != 4 or not all(map(_is_pixels, bbox)):
        raise FormatError(
            f"{where}: bbox is {str(bbox)[:60]}, expected 4 finite numbers x, y, w, h"
        )
    x, y, w, h = bbox
    right, bottom = size[0] - 1, size[1] - 1
    box = (max(x, 0), max(y, 0), min(x + w - 1, right), min(y + h - 1, bottom))
    if box[0] < box[2] and box[1] < box[3]:
        return box
    return (
        f"{where}: the box {bbox} is empty, one pixel wide or high, or outside the "
        f"{size[0]} x {size[1]} image"
    )


def _is_pixels(value) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and abs(value) < 1e9  # false for nan


def _jpeg(image: _COCOImage) -> bytes:
    """Return the image as JPEG; check that it decodes and has the size in the JSON."""
    try:
        data = image.path.read_bytes()
        jpeg = fit_image(data, 0, ".jpg", 95)
    except FormatError as error:
        raise FormatError(f"{image.path}: {error}") from None
    info = image_info(data)
    require_size(image.path, (info.width, info.height), image.size)
    return jpeg
