"""How far an exported model is from the network it came from."""

from collections.abc import Sequence
from typing import Callable, NamedTuple, Union

import numpy as np

from gluon_asymmnet.errors import RunError

# Logits, also as the only one of a sequence; or what a detector gives, the boxes last.
Outputs = Union[np.ndarray, Sequence[np.ndarray]]


class Parity(NamedTuple):
    """The largest differences of the logits on one batch."""

    absolute: float
    relative: float  # to the largest logit
    top1_agreement: float  # share of images with the same best class

    def __str__(self) -> str:
        return f"{self.relative:.2e} of the largest logit"


class BoxParity(NamedTuple):
    """The largest differences of a detector's outputs on one batch."""

    scores: float
    boxes: float  # pixels of the input
    relative: float  # the larger of both, the boxes' as a share of the side of the input

    def __str__(self) -> str:
        return f"{self.scores:.2e} in a score and {self.boxes:.2e} pixels in a box"


def sample_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Return ``(count, 3, size, size)`` float32, smooth as normalised pictures are."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1.5, (count, 3, -(-size // 8), -(-size // 8)))
    fine = np.kron(coarse, np.ones((1, 1, 8, 8)))[:, :, :size, :size]
    return (fine + rng.normal(0, 0.2, fine.shape)).astype(np.float32)


def compare(expected: Outputs, actual: Outputs, side: int = 1) -> Union[Parity, BoxParity]:
    """Compare two ``(n, classes)`` arrays of logits, or what a detector of ``side`` pixels gives.

    The latter: scores and boxes, or ids, scores and boxes.  Another id counts as another score.
    """
    if isinstance(expected, np.ndarray):
        return _compare_logits(expected, actual)
    if len(expected) == len(actual) == 1:
        return _compare_logits(expected[0], actual[0])
    shapes = [[array.shape for array in arrays] for arrays in (expected, actual)]
    if shapes[0] != shapes[1]:
        raise RunError(f"the exported model gives {shapes[1]}, the network {shapes[0]}")
    *others, boxes = (float(np.abs(e - a).max(initial=0)) for e, a in zip(expected, actual))
    scores = float(np.max(others))  # nan if one is
    return BoxParity(scores, boxes, float(np.max([scores, boxes / side])))


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
    if not parity.relative <= limit:
        raise RunError(
            f"{what} differs from the network by {parity}, the limit is {limit:.0e}; nothing was "
            f"written"
        )
    return parity
