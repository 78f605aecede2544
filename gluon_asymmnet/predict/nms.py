"""Non-maximum suppression in NumPy, with exactly the results of MXNet's ``box_nms``."""

import numpy as np

from gluon_asymmnet.data.boxes.geometry import Detections


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
    by_class = scores.T.ravel()  # of equal scores, the lower class comes first, then the lower box
    candidates = np.flatnonzero(by_class > np.float32(score_threshold))
    ids, anchors = np.divmod(candidates, len(boxes))
    found = Detections(ids, by_class[candidates], boxes[anchors])
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
    areas = _area(boxes[:, :2], boxes[:, 2:])
    kept = []
    while len(order) and len(kept) != max_boxes:
        best, order = order[0], order[1:]
        kept.append(best)
        rivals = np.flatnonzero(ids[order] == ids[best])
        others = order[rivals]
        common = _area(
            np.maximum(boxes[others, :2], boxes[best, :2]),
            np.minimum(boxes[others, 2:], boxes[best, 2:]),
        )
        with np.errstate(invalid="ignore"):  # 0 / 0 of two empty boxes is nan, not above
            above = common / (areas[best] + areas[others] - common) > np.float32(overlap_thresh)
        order = np.delete(order, rivals[above])
    return np.array(kept, np.int64)


def _area(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    sides = np.maximum(high - low, 0)
    return sides[:, 0] * sides[:, 1]
