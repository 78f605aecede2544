"""Images that a net is sampled on."""

from collections.abc import Iterable
from typing import Callable

import numpy as np

from gluon_asymmnet.data.transforms import Preprocessing
from gluon_asymmnet.evaluation.classification import ShardedSource, read_batches


def sampled_batches(
    source, preprocessing: Preprocessing, images: int, batch_size: int = 32
) -> Callable[[], Iterable[np.ndarray]]:
    """Return what gives ``(n, 3, H, W)`` batches of about ``images`` images, as often as called.

    They are spread evenly over the source, and decoded anew each time: memory is that of a batch.
    """
    part = ShardedSource(source, 0, max(1, len(source) // images))

    def batches() -> Iterable[np.ndarray]:
        return (images for images, _ in read_batches(part, preprocessing, batch_size))

    return batches
