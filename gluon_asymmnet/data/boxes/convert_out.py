"""Write sources of images with boxes as data sets of YOLO and COCO.

Boxes become edges between pixels: of a box of VOC that holds its last row and column these are
``xmin, ymin, xmax + 1, ymax + 1``; the corners of records are edges already.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.voc_write import QUALITY
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.data.records.recordio import PathLike
from gluon_asymmnet.errors import FormatError, InputError, reason_of
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.utils.parallel import silent

Progress = Callable[[int, int], None]


class Written(NamedTuple):
    """The result of a conversion."""

    images: dict[str, int]  # of each split
    objects: int
    difficult: int  # among them


class _Item(NamedTuple):
    """One image to write."""

    name: str  # of the file
    data: bytes  # encoded, upright
    size: tuple[int, int]  # (width, height), pixels
    edges: np.ndarray  # (n, 4) float64, pixels
    labels: np.ndarray
    difficult: np.ndarray


def write_yolo(
    sources: Mapping[str, object], out: PathLike, *, progress: Progress | None = None
) -> Written:
    """Write sources as ``out/images/<split>``, ``out/labels/<split>`` and ``out/data.yaml``.

    The format has no flag for difficult objects: they are written as all others.

    Args:
        sources: of each split; see ``voc``.  All with the same classes.
        progress: called with (done, total) after each image.

    Raises: InputError if ``out`` exists or the classes differ; FormatError for a damaged picture.
    """
    out, classes = Path(out), _classes(sources)
    counts = _Counts(sources, progress)
    with new_folder(out) as scratch:
        for split, source in sources.items():
            for folder in ("images", "labels"):
                (scratch / folder / split).mkdir(parents=True)
            for item in _items(source):
                (scratch / "images" / split / item.name).write_bytes(item.data)
                lines = "".join(
                    _yolo_line(label, edges, item.size)
                    for label, edges in zip(item.labels, item.edges)
                )
                file = Path(item.name).with_suffix(".txt").name
                (scratch / "labels" / split / file).write_text(lines, encoding="utf-8")
                counts.add(split, item)
        # JSON is YAML, too
        lines = [f"{split}: {json.dumps(f'images/{split}')}\n" for split in sources]
        lines += ["names:\n", *(f"  {k}: {json.dumps(name)}\n" for k, name in enumerate(classes))]
        (scratch / "data.yaml").write_text("".join(lines), encoding="utf-8")
    return counts.result()


def _yolo_line(label: int, edges: np.ndarray, size: tuple[int, int]) -> str:
    left, top, right, bottom = edges / [*size, *size]
    # nine digits: exact to a ten thousandth of a pixel, up to any size
    values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return f"{label} {' '.join(f'{value:.9f}' for value in values)}\n"


def write_coco(
    sources: Mapping[str, object], out: PathLike, *, progress: Progress | None = None
) -> Written:
    """Write sources as ``out/<split>`` and ``out/annotations/instances_<split>.json``.

    Images, objects and categories are numbered from 1, categories in label order.  A difficult
    object becomes a crowd, which ``coco_to_voc`` reads as difficult.

    Args, Raises: as ``write_yolo``.
    """
    out, classes = Path(out), _classes(sources)
    counts = _Counts(sources, progress)
    with new_folder(out) as scratch:
        (scratch / "annotations").mkdir()
        for split, source in sources.items():
            (scratch / split).mkdir()
            content = {
                "info": {}, "images": [], "annotations": [],
                "categories": [{"id": k, "name": name} for k, name in enumerate(classes, 1)],
            }  # fmt: skip
            for number, item in enumerate(_items(source), 1):
                (scratch / split / item.name).write_bytes(item.data)
                width, height = item.size
                content["images"].append(
                    {"id": number, "file_name": item.name, "width": width, "height": height}
                )
                content["annotations"] += _coco_entries(
                    item, number, len(content["annotations"]) + 1
                )
                counts.add(split, item)
            file = scratch / "annotations" / f"instances_{split}.json"
            file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return counts.result()


def _coco_entries(item: _Item, image_id: int, first: int) -> list[dict]:
    entries = []
    rows = zip(item.labels.tolist(), item.edges.tolist(), item.difficult.tolist())
    for number, (label, (left, top, right, bottom), difficult) in enumerate(rows, first):
        width, height = right - left, bottom - top
        entries.append({
            "id": number, "image_id": image_id, "category_id": label + 1,
            "bbox": [left, top, width, height], "area": width * height, "iscrowd": int(difficult),
        })  # fmt: skip
    return entries


def _classes(sources: Mapping[str, object]) -> list[str]:
    lists = [list(source.class_names) for source in sources.values()]
    if not lists or any(names != lists[0] for names in lists):
        raise InputError(
            f"the splits {', '.join(sources)} have different classes; name the classes"
        )
    return lists[0]


def _items(source) -> Iterator[_Item]:
    names = _file_stems(source)
    for i, stem in enumerate(names):
        try:
            data = source.encoded(i)
            info = image_info(data)
            rgb = decode(data)  # also to find damage
            if info.orientation != 1 or info.format not in ("jpeg", "png"):
                data = encode(rgb, ".jpg", QUALITY)
        except (FormatError, OSError) as error:
            raise FormatError(f"{source.name(i)}: its picture: {reason_of(error)}") from None
        example = source.annotation(i)
        edges = example.boxes.astype(float)
        edges[:, 2:] += source.last_included
        suffix = ".png" if image_info(data).format == "png" else ".jpg"
        yield _Item(
            stem + suffix, data, example.size, np.round(edges, 4), example.labels, example.difficult
        )


def _file_stems(source) -> list[str]:
    """Return a file name without suffix for each image: its id, with its folder if needed."""
    ids = [source.objects(i)[0] for i in range(len(source))]
    stems = [name.rpartition("/")[2] for name in ids]
    uses = Counter(stem.casefold() for stem in stems)
    return [
        name.replace("/", "_") if uses[stem.casefold()] > 1 else stem
        for name, stem in zip(ids, stems)
    ]


class _Counts:
    """Count what is written, and report the progress."""

    def __init__(self, sources: Mapping[str, object], progress: Progress | None):
        self._total = sum(len(source) for source in sources.values())
        self._progress = progress or silent
        self._images = dict.fromkeys(sources, 0)
        self._objects = self._difficult = 0

    def add(self, split: str, item: _Item) -> None:
        self._images[split] += 1
        self._objects += len(item.labels)
        self._difficult += int(item.difficult.sum())
        self._progress(sum(self._images.values()), self._total)

    def result(self) -> Written:
        return Written(self._images, self._objects, self._difficult)
