"""Whether two runs of a detector found the same: by another engine, or after an export."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

SCORE, PIXELS = 1e-3, 0.5  # most by which two detections of the same differ


class Found(NamedTuple):
    """What was found in one picture."""

    labels: np.ndarray  # (n,)
    scores: np.ndarray  # (n,)
    boxes: np.ndarray  # (n, 4) corners, pixels


class Agreement(NamedTuple):
    """How well two runs agree on some pictures."""

    detections: int  # of both
    share: float  # of them with a counterpart in the other run; 1 where nothing was found
    scores: float  # largest difference of counterparts
    boxes: float  # the same, pixels; of a box beyond ``side``, as a share of its distance


def agreement(
    pairs: Iterable[tuple[Found, Found]], *, least: float = 0.0, side: float = 1e4
) -> Agreement:
    """Look for each detection of one run in the other.

    Not by their order: where suppression decides between two boxes of nearly the same score, the
    last digit decides.

    Args:
        pairs: what the two runs found in each picture.
        least: detections with a lower score need no counterpart, but may be one.
        side: up to here, in pixels, a box's corner has to agree within ``PIXELS``; single precision
            has no more for a box a million pixels wide, which little training can give.
    """
    sides = [
        _differences(one, other, least, side) for a, b in pairs for one, other in ((a, b), (b, a))
    ]
    found = np.concatenate([np.zeros((0, 2)), *sides])
    known = found[np.isfinite(found).all(axis=1)]
    return Agreement(
        len(found),
        len(known) / len(found) if len(found) else 1.0,
        *(float(worst) for worst in known.max(axis=0, initial=0)),
    )


def _differences(one: Found, other: Found, least: float, side: float) -> np.ndarray:
    """``(n, 2)``: by how much score and box of each differ from the counterpart; inf: it has none.

    Only detections from ``least`` on are rows.
    """
    wanted = np.asarray(one.scores) >= least
    labels, scores, boxes = (np.asarray(array)[wanted] for array in one)
    if not len(labels) or not len(other.labels):
        return np.full((len(labels), 2), np.inf)
    reach = np.maximum(side, np.abs(boxes).max(axis=1)) / side
    score = np.abs(scores[:, None] - other.scores[None])
    box = np.abs(boxes[:, None] - other.boxes[None]).max(axis=2) / reach[:, None]
    same = (labels[:, None] == other.labels[None]) & (score <= SCORE) & (box <= PIXELS)
    box = np.where(same, box, np.inf)
    nearest = box.argmin(axis=1)
    rows = np.arange(len(labels))
    return np.stack([np.where(same, score, np.inf)[rows, nearest], box[rows, nearest]], axis=1)
