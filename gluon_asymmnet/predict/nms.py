"""Non-maximum suppression in NumPy, with exactly the results of MXNet's ``box_nms``."""

import numpy as np

from gluon_asymmnet.data.boxes.geometry import Detections

# Boxes compared with each other at a time: of more, most comparisons are with suppressed ones; of
# fewer, NumPy's calls take longer than their arithmetic.
_BLOCK = 128


def suppress(
    scores: np.ndarray, boxes: np.ndarray, *,
    nms_thresh: float, nms_topk: int, post_nms: int, score_threshold: float,
) -> Detections:  # fmt: skip
    """Suppress overlapping boxes of one image, as ``SSD`` does.

    Args:
        scores: ``(A, classes)`` float32, without the background.
        boxes: ``(A, 4)`` float32, corners.
        nms_thresh, nms_topk, post_nms: as in ``SSD.set_nms``; with ``nms_thresh`` outside
            (0, 1) all boxes stay, in the order of classes.
        score_threshold: boxes with this score or a lower one are dropped first.
    """
    candidates = np.flatnonzero(scores > np.float32(score_threshold))
    anchors, ids = np.divmod(candidates, scores.shape[1])
    # of equal scores, the lower class comes first, then the lower box
    by_class = np.argsort(ids, kind="stable")
    ids, anchors = ids[by_class], anchors[by_class]
    found = Detections(ids, scores[anchors, ids], boxes[anchors])
    if not 0 < nms_thresh < 1:
        return found
    kept = box_nms(*found[:3], overlap_thresh=nms_thresh, topk=nms_topk, max_boxes=post_nms)
    return Detections(*(array[kept] for array in found[:3]))


def box_nms(
    ids: np.ndarray, scores: np.ndarray, boxes: np.ndarray, *,
    overlap_thresh: float, topk: int = -1, max_boxes: int = -1,
) -> np.ndarray:  # fmt: skip
    """Return the positions of the boxes that stay, by falling score; ties keep their order.

    A box is suppressed if its IoU with a kept box of its class is above ``overlap_thresh``.  The
    order of operations in single precision is MXNet's, so that boxes at the threshold agree too.

    Args:
        ids: ``(n,)``; scores: ``(n,)``; boxes: ``(n, 4)`` float32, corners.
        topk: how many of the best boxes take part, all classes together; -1: all.
        max_boxes: how many boxes are returned; -1: all.

    Source: MXNet's src/operator/contrib/bounding_box-inl.h.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[:topk] if topk > 0 else order
    kept = order[:0]
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        block = block[~_suppressed(kept, block, ids, boxes, overlap_thresh).any(axis=0)]
        kept = np.append(kept, block[_best(_suppressed(block, block, ids, boxes, overlap_thresh))])
        if 0 <= max_boxes <= len(kept):
            return kept[:max_boxes]
    return kept


def _suppressed(by, others, ids, boxes, overlap_thresh: float) -> np.ndarray:
    """Return whether each box of ``by`` suppresses each of ``others``, both positions, if kept."""
    (left, top, right, bottom), (left2, top2, right2, bottom2) = boxes[by].T, boxes[others].T
    width = np.minimum.outer(right, right2) - np.maximum.outer(left, left2)
    height = np.minimum.outer(bottom, bottom2) - np.maximum.outer(top, top2)
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = np.add.outer(_area(boxes[by]), _area(boxes[others])) - common
    with np.errstate(invalid="ignore"):  # 0 / 0 of two empty boxes is nan, not above
        above = common / union > np.float32(overlap_thresh)
    return above & np.equal.outer(ids[by], ids[others])


def _best(suppressed: np.ndarray) -> list[int]:
    """Return the positions that stay of boxes by falling score, given the matrix of all pairs."""
    stays, kept = np.ones(len(suppressed), bool), []
    for box, row in enumerate(~suppressed):
        if stays[box]:
            kept.append(box)
            stays &= row
    return kept


def _area(boxes: np.ndarray) -> np.ndarray:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]
