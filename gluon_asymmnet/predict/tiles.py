"""Tiles of large pictures: their places, and the union of their detections.

A detector resizes a picture to its input, so that small objects vanish.  On tiles they keep their
size.  The idea: Akyon and others, Slicing Aided Hyper Inference (arXiv:2202.06934).
"""

import math
import numbers
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.geometry import Detections, box_iou
from gluon_asymmnet.errors import InputError

_AT_BORDER = 2  # pixels: a box that comes so near to the border of its tile may be cut
_INSIDE = 0.5  # share of a cut box inside another one of its class from which on it is a part of it
_MAX_TILES = 10_000

Area = tuple[
    int, int, int, int
]  # corners (left, top, right, bottom), pixels, right and bottom excl.


class Tiling(NamedTuple):
    """How pictures are divided into square tiles; either ``count`` or ``size`` is above 0.

    Raises: InputError from ``check``.
    """

    count: int = 0  # tiles along the longer side
    size: int = 0  # pixels
    overlap: float = 0.2  # of neighbours, as a share of their side, below 1
    whole: bool = True  # detect in the whole picture, too: for objects larger than a tile

    def check(self) -> None:
        """Raise InputError for settings that contradict each other or are out of range."""
        for name, value in (("count", self.count), ("size", self.size)):
            if not isinstance(value, numbers.Integral) or value < 0:
                raise InputError(
                    f"{name} of tiles must be a whole number, at least 1, got {value!r}"
                )
        if (self.count > 0) == (self.size > 0):
            raise InputError("give the number of tiles or their size in pixels, one of them")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap must be at least 0 and below 1, got {self.overlap}")

    def areas(self, width: int, height: int) -> list[Area]:
        """Return the tiles of a picture, row by row; the whole picture comes first.

        The last tile of a row or column ends at the border, so it may overlap more.

        Raises: InputError if there are more than 10,000.
        """
        side = self.size or math.ceil(
            max(width, height) / (self.count - (self.count - 1) * self.overlap)
        )
        # rounded up, so that there are no more than ``count``
        step = max(1, math.ceil(side * (1 - self.overlap) - 1e-6))
        columns, rows = _starts(width, side, step), _starts(height, side, step)
        if len(columns) * len(rows) > _MAX_TILES:
            raise InputError(
                f"{len(columns)} x {len(rows)} tiles of {side} pixels in a picture of {width} x "
                f"{height}; expected at most {_MAX_TILES}: choose larger ones"
            )
        tiles = [
            (left, top, min(left + side, width), min(top + side, height))
            for top in rows
            for left in columns
        ]
        everything = (0, 0, width, height)
        return [everything, *tiles] if self.whole and tiles != [everything] else tiles


def _starts(length: int, side: int, step: int) -> list[int]:
    """Return where tiles begin along a side: the last one ends at the border."""
    last = max(length - side, 0)
    return [*range(0, last, step), last]


def merge(
    found: list[Detections], areas: list[Area], size: tuple[int, int], overlap_thresh: float
) -> Detections:
    """Unite the detections of tiles, suppressed per class, by falling score.

    A box gives way to a better one of its class in another tile, by IoU; within a tile the detector
    has suppressed them.  A box that ends at an inner border of its tile may be a part of an object
    that another tile holds whole: it gives way to a box that contains half of it, whatever the
    scores.

    Args:
        found: the detections of each area, boxes in its pixels.
        size: of the picture, (width, height).
        overlap_thresh: of the IoU, as in ``box_nms``; outside (0, 1) only parts give way.
    """
    origins = [np.float32([*area[:2], *area[:2]]) for area in areas]
    labels = np.concatenate([one.labels for one in found])
    scores = np.concatenate([one.scores for one in found])
    boxes = np.concatenate([one.boxes + origin for one, origin in zip(found, origins)])
    tiles = np.repeat(np.arange(len(areas)), [len(one.labels) for one in found])
    cut = np.concatenate([_is_cut(one.boxes, area, size) for one, area in zip(found, areas)])
    kept = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        mine = mine[np.lexsort((-scores[mine], cut[mine]))]  # whole ones first, by falling score
        stays = _suppressed(boxes[mine], tiles[mine], cut[mine], overlap_thresh)
        kept[mine[stays]] = True
    order = np.flatnonzero(kept)
    order = order[np.argsort(-scores[order], kind="stable")]
    return Detections(labels[order], scores[order], boxes[order])


def _suppressed(boxes, tiles, cut, overlap_thresh: float) -> np.ndarray:
    """Return which boxes of one class, the best ones first, stay."""
    suppress = 0 < overlap_thresh < 1
    stays = np.zeros(len(boxes), bool)
    for i in range(len(boxes)):
        rivals = boxes[:i][stays[:i] & (tiles[:i] != tiles[i])]
        above = suppress and (box_iou(boxes[i : i + 1], rivals) > overlap_thresh).any()
        part = cut[i] and (_share_inside(boxes[i], rivals) > _INSIDE).any()
        stays[i] = not (above or part)
    return stays


def _is_cut(boxes: np.ndarray, area: Area, size: tuple[int, int]) -> np.ndarray:
    """Return which boxes ``(n, 4)`` of an area end at a border that is not the picture's."""
    left, top, right, bottom = area
    inner = (left > 0, top > 0, right < size[0], bottom < size[1])
    distances = np.abs(boxes - np.float32([0, 0, right - left, bottom - top]))
    return ((distances <= _AT_BORDER) & np.array(inner)).any(axis=1)


def _share_inside(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which share of ``box`` (4,) lies in each of ``others`` (n, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    return common / max(np.prod(box[2:] - box[:2]), np.finfo(np.float32).tiny)
