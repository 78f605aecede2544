"""How far an exported model is from the network it came from."""

from typing import Callable, NamedTuple

import numpy as np

from gluon_asymmnet.errors import RunError


class Parity(NamedTuple):
    """The largest differences of the logits on one batch."""

    absolute: float
    relative: float  # to the largest logit
    top1_agreement: float  # share of images with the same best class


def sample_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Return ``(count, 3, size, size)`` float32, smooth as normalised pictures are."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1.5, (count, 3, -(-size // 8), -(-size // 8)))
    fine = np.kron(coarse, np.ones((1, 1, 8, 8)))[:, :, :size, :size]
    return (fine + rng.normal(0, 0.2, fine.shape)).astype(np.float32)


def compare(expected: np.ndarray, actual: np.ndarray) -> Parity:
    """Compare two ``(n, classes)`` arrays of logits."""
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
    expected: np.ndarray,
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    limit: float,
) -> Parity:
    """Return the parity of ``predict`` on ``images``; raise RunError above ``limit`` (relative)."""
    parity = compare(expected, predict(images))
    if not parity.relative <= limit:
        raise RunError(
            f"{what} differs from the network by {parity.relative:.2e} of the largest logit, the "
            f"limit is {limit:.0e}; nothing was written"
        )
    return parity
