"""Differences between an exported model and its network."""

from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple, Optional, Union

import numpy as np

from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.errors import RunError
from gluon_asymmnet.evaluation.agreement import compare_detections

# For detectors, relative to a score of 1 and to the side of the input.  Larger than for logits: the
# exponential in a box's size multiplies rounding errors.
DETECTOR_LIMIT = 1e-3
# The smallest share of equal detections after suppression.  Below 1: where two boxes have nearly
# the same score, a rounding error decides which of them is suppressed.
AGREEMENT = 0.95

# Logits, alone or in a sequence of one; or the outputs of a detector, the boxes last.
Outputs = Union[np.ndarray, Sequence[np.ndarray]]


class Parity(NamedTuple):
    """The largest difference between the logits on one batch."""

    absolute: float
    relative: float  # to the largest logit
    top1_agreement: float  # share of images with the same best class

    def __str__(self) -> str:
        return f"{self.relative:.2e} of the largest logit"


class BoxParity(NamedTuple):
    """The largest differences of a detector's scores and boxes on one batch."""

    scores: float
    boxes: float  # pixels of the input; less for boxes far outside of it, see _compare_anchors
    relative: float  # the larger of the two, that of the boxes as a share of the input's side
    agreement: Optional[float] = None  # after suppression: share of detections with a counterpart

    def __str__(self) -> str:
        text = f"{self.scores:.2e} in a score and {self.boxes:.2e} pixels in a box"
        return text if self.agreement is None else f"{text} of {self.agreement:.1%}"


def sample_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Return ``(count, 3, size, size)`` float32, smooth like normalised photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1.5, (count, 3, -(-size // 8), -(-size // 8)))
    fine = np.kron(coarse, np.ones((1, 1, 8, 8)))[:, :, :size, :size]
    return (fine + rng.normal(0, 0.2, fine.shape)).astype(np.float32)


def compare(expected: Outputs, actual: Outputs, side: int = 1) -> Union[Parity, BoxParity]:
    """Compare two ``(n, classes)`` arrays of logits, or the outputs of two detectors.

    Outputs of a detector are scores and boxes of all anchors, or ids, scores and boxes after
    suppression; ``side`` is that of its input, pixels.
    """
    if isinstance(expected, np.ndarray):
        return _compare_logits(expected, actual)
    if len(expected) == len(actual) == 1:
        return _compare_logits(expected[0], actual[0])
    shapes = [[array.shape for array in arrays] for arrays in (expected, actual)]
    if shapes[0] != shapes[1]:
        raise RunError(f"the exported model gives {shapes[1]}, the network {shapes[0]}")
    after_suppression = len(expected) == 3
    if after_suppression:
        return _compare_detections(expected, actual, side)
    return _compare_anchors(*expected, *actual, side)


def _compare_anchors(scores, boxes, actual_scores, actual_boxes, side: int) -> BoxParity:
    # A detector with little training may predict boxes a million pixels away, where float32 rounds
    # to a pixel: there the difference is relative to the distance.
    reach = np.maximum(side, np.abs(boxes).max(axis=-1, keepdims=True))
    shift = float((np.abs(boxes - actual_boxes) / reach).max())
    score = float(np.abs(scores - actual_scores).max())
    return BoxParity(score, shift * side, float(np.max([score, shift])))  # nan if one is


def _compare_detections(expected, actual, side: int) -> BoxParity:
    found = compare_detections(zip(_detections(expected), _detections(actual)), side=side)
    relative = max(found.score_difference, found.box_difference / side)
    return BoxParity(found.score_difference, found.box_difference, relative, found.share)


def _detections(outputs: Sequence[np.ndarray]) -> Iterator[Detections]:
    """Yield the detections in each image, without the padding."""
    for ids, scores, boxes in zip(*outputs):
        kept = ids[:, 0] >= 0
        yield Detections(ids[kept, 0], scores[kept, 0], boxes[kept])


def _compare_logits(expected: np.ndarray, actual: np.ndarray) -> Parity:
    if expected.shape != actual.shape:
        raise RunError(f"the exported model gives {actual.shape}, the network {expected.shape}")
    difference = float(np.abs(expected - actual).max())
    return Parity(
        difference,
        difference / max(float(np.abs(expected).max()), 1e-12),
        float((expected.argmax(axis=1) == actual.argmax(axis=1)).mean()),
    )


def require(
    what: str,
    expected: Outputs,
    predict: Callable[[np.ndarray], Outputs],
    images: np.ndarray,
    limit: float,
) -> Union[Parity, BoxParity]:
    """Return the parity of ``predict`` on ``images``; raise RunError above ``limit`` (relative)."""
    parity = compare(expected, predict(images), images.shape[-1])
    found = getattr(parity, "agreement", None)
    if not parity.relative <= limit or (found is not None and found < AGREEMENT):
        raise RunError(
            f"{what} differs from the network by {parity}, the limit is {limit:.0e}; nothing was "
            f"written"
        )
    return parity
