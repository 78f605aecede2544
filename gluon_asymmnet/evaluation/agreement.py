"""Compare the detections of two runs: of two engines, or before and after an export."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.geometry import Detections

# Largest differences of two detections that count as the same one.
MAX_SCORE_DIFFERENCE, MAX_PIXEL_DIFFERENCE = 1e-3, 0.5


class Agreement(NamedTuple):
    """How well two runs agree on some images."""

    detections: int  # of both runs together
    share: float  # of them with a counterpart in the other run; 1 without any detection
    score_difference: float  # the largest between counterparts
    box_difference: float  # likewise, pixels; relative to its distance for a box beyond ``side``


def compare_detections(
    pairs: Iterable[tuple[Detections, Detections]],
    *,
    score_threshold: float = 0.0,
    side: float = 1e4,
) -> Agreement:
    """Look for each detection of one run in the other.

    The order does not matter: where suppression decides between two boxes of nearly the same score,
    rounding decides.

    Args:
        pairs: the detections of both runs in each image.
        score_threshold: detections with a lower score need no counterpart, but may be one.
        side: pixels.  Corners up to here must agree within ``MAX_PIXEL_DIFFERENCE``, those beyond
            relative to their distance: single precision cannot resolve half a pixel in the
            coordinate of a million pixels that a barely trained net can give.
    """
    differences = np.concatenate(
        [np.zeros((0, 2))]
        + [
            _differences(one, other, score_threshold, side)
            for a, b in pairs
            for one, other in ((a, b), (b, a))
        ]
    )
    matched = differences[np.isfinite(differences).all(axis=1)]
    return Agreement(
        len(differences),
        len(matched) / len(differences) if len(differences) else 1.0,
        *(float(largest) for largest in matched.max(axis=0, initial=0)),
    )


def _differences(
    one: Detections, other: Detections, score_threshold: float, side: float
) -> np.ndarray:
    """Return ``(n, 2)``: score and box difference of each detection from its counterpart.

    inf if there is no counterpart.  Only detections from ``score_threshold`` on have a row.
    """
    wanted = np.asarray(one.scores) >= score_threshold
    labels, scores, boxes = (np.asarray(a)[wanted] for a in (one.labels, one.scores, one.boxes))
    if not len(labels) or not len(other.labels):
        return np.full((len(labels), 2), np.inf)
    distance = np.maximum(side, np.abs(boxes).max(axis=1)) / side
    score = np.abs(scores[:, None] - other.scores[None])
    box = np.abs(boxes[:, None] - other.boxes[None]).max(axis=2) / distance[:, None]
    same = labels[:, None] == other.labels[None]
    same &= (score <= MAX_SCORE_DIFFERENCE) & (box <= MAX_PIXEL_DIFFERENCE)
    box = np.where(same, box, np.inf)
    nearest = box.argmin(axis=1)
    rows = np.arange(len(labels))
    return np.stack([np.where(same, score, np.inf)[rows, nearest], box[rows, nearest]], axis=1)
