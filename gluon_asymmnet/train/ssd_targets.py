"""What a detector is to predict for a picture, computed in NumPy where pictures are read.

GluonCV's ``SSDTargetGenerator`` gives the same (a test compares them) but works on MXNet arrays,
which threads that read pictures should not wait for, knows no difficult objects, and fails
on a picture without any object.
"""

from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.geometry import box_iou
from gluon_asymmnet.models.ssd_box_coder import encode, to_corners

IGNORED = -1


MATCHING_IOU = 0.5  # arXiv:1512.02325, section 2.2


class Targets(NamedTuple):
    """One picture's targets."""

    classes: np.ndarray  # (A,) float32: label + 1, 0 for the background, or IGNORED
    boxes: np.ndarray  # (A, 4) float32: coded offsets; 0 where nothing is matched


class TargetGenerator:
    """Match objects to anchors and code the offsets.

    Args:
        anchors: ``(A, 4)`` float, centres ``(cx, cy, w, h)``, pixels.
        iou: overlap from which an anchor belongs to the object it overlaps most.
        use_difficult: train on difficult objects, too.  Otherwise the anchors on them are ignored:
            they are neither to be found nor background.
    """

    def __init__(
        self, anchors: np.ndarray, *, iou: float = MATCHING_IOU, use_difficult: bool = False
    ):
        self.anchors, self.iou, self.use_difficult = anchors, iou, use_difficult
        self._corners = to_corners(anchors)

    def __call__(self, boxes: np.ndarray, labels: np.ndarray, difficult: np.ndarray) -> Targets:
        """Return the targets of a picture.

        Args:
            boxes: ``(n, 4)`` float, corners ``(xmin, ymin, xmax, ymax)``, pixels, none empty.
            labels: ``(n,)`` from 0.
            difficult: ``(n,)`` bool.
        """
        count = len(self.anchors)
        targets = Targets(np.zeros(count, np.float32), np.zeros((count, 4), np.float32))
        overlaps = box_iou(self._corners, boxes)
        wanted = np.ones(len(boxes), bool) if self.use_difficult else ~difficult
        if not wanted.all():
            targets.classes[overlaps[:, ~wanted].max(axis=1) >= self.iou] = IGNORED
        if wanted.any():
            matches = match(overlaps[:, wanted], self.iou)
            found = matches >= 0
            chosen = matches[found]
            targets.classes[found] = labels[wanted][chosen] + 1
            targets.boxes[found] = encode(boxes[wanted][chosen], self.anchors[found])
        return targets


def match(overlaps: np.ndarray, iou: float = MATCHING_IOU) -> np.ndarray:
    """Give every object its best anchor, and every other anchor the object it overlaps enough.

    The best are given out from the largest overlap down, each anchor once, so that two
    objects do not share one.

    Args:
        overlaps: ``(A, n)``, n > 0.

    Returns: ``(A,)`` int, the object of each anchor, or -1.
    Source: arXiv:1512.02325, section 2.2, "matching strategy".
    """
    best = overlaps.argmax(axis=1)
    matches = np.where(overlaps.max(axis=1) >= iou, best, -1)
    left = overlaps.copy()
    for _ in range(overlaps.shape[1]):
        anchor, thing = np.unravel_index(left.argmax(), left.shape)
        if left[anchor, thing] <= 0:
            break  # no anchor is left that this object touches
        matches[anchor] = thing
        left[anchor], left[:, thing] = 0, 0
    return matches
