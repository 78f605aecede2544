"""Non-maximum suppression in NumPy, box for box that of MXNet's ``box_nms``."""

from typing import NamedTuple

import numpy as np


class Kept(NamedTuple):
    """The boxes of a picture that are left, by falling score."""

    ids: np.ndarray  # (n,) int64
    scores: np.ndarray  # (n,) float32
    boxes: np.ndarray  # (n, 4) float32


def suppress(
    scores: np.ndarray, boxes: np.ndarray, *,
    nms_thresh: float, nms_topk: int, post_nms: int, least_score: float,
) -> Kept:  # fmt: skip
    """Suppress the boxes of one picture, as ``SSD`` does.

    Args:
        scores: ``(A, classes)`` float32, without the background.
        boxes: ``(A, 4)`` float32, corners.
        nms_thresh, nms_topk, post_nms: as ``SSD.set_nms``; where ``nms_thresh`` is outside
            (0, 1), all boxes stay, in the order of classes.
        least_score: what is not above it takes no part.
    """
    by_class = scores.T.ravel()  # of equal scores, the lower class comes first, then the lower box
    found = np.flatnonzero(by_class > np.float32(least_score))
    ids, anchors = np.divmod(found, len(boxes))
    kept = Kept(ids, by_class[found], boxes[anchors])
    if not 0 < nms_thresh < 1:
        return kept
    left = box_nms(*kept, overlap_thresh=nms_thresh, topk=nms_topk, most=post_nms)
    return Kept(*(array[left] for array in kept))


def box_nms(
    ids: np.ndarray, scores: np.ndarray, boxes: np.ndarray, *,
    overlap_thresh: float, topk: int = -1, most: int = -1,
) -> np.ndarray:  # fmt: skip
    """Return which boxes stay, by falling score, of equal ones the first.

    A box goes if its IoU with one of its class that stays is above ``overlap_thresh``.  Single
    precision in MXNet's order of operations, so that a box on the threshold goes here as well.

    Args:
        ids: ``(n,)``; scores: ``(n,)``; boxes: ``(n, 4)`` float32, corners.
        topk: boxes, all classes together, that take part; -1: all.
        most: boxes that are returned; -1: all.

    Source: MXNet's src/operator/contrib/bounding_box-inl.h.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[:topk] if topk > 0 else order
    areas = _area(boxes[:, :2], boxes[:, 2:])
    kept = []
    while len(order) and len(kept) != most:
        best, order = order[0], order[1:]
        kept.append(best)
        rivals = np.flatnonzero(ids[order] == ids[best])
        others = order[rivals]
        common = _area(
            np.maximum(boxes[others, :2], boxes[best, :2]),
            np.minimum(boxes[others, 2:], boxes[best, 2:]),
        )
        with np.errstate(invalid="ignore"):  # 0 / 0 of two empty boxes, above nothing
            above = common / (areas[best] + areas[others] - common) > np.float32(overlap_thresh)
        order = np.delete(order, rivals[above])
    return np.array(kept, np.int64)


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    sides = np.maximum(high - low, 0)
    return sides[:, 0] * sides[:, 1]
