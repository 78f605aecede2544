"""Training batches of a detector, in an order and with changes that a resumed run repeats."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from gluon_asymmnet.data.augment import Normalization
from gluon_asymmnet.data.detection_augment import (
    BoxAugmentation,
    training_sample,
    validation_image,
)
from gluon_asymmnet.data.imagenet import Shard, epoch_order

_PREFETCH = 3  # batches made ahead of the one in use
_GLUONCVS = BoxAugmentation()


class DetectionBatch(NamedTuple):
    """One step's pictures, all devices together."""

    data: np.ndarray  # (N, 3, size, size) float32, normalised
    cls_target: np.ndarray  # (N, A) float32, as ``targets`` made them
    box_target: np.ndarray  # (N, A, 4) float32


class DetectionInput:
    """Read and augment pictures, and make their targets, on threads.

    Every picture has its own generator, seeded with ``(seed, epoch, position)``, so batches are
    bit-equal for any number of threads, and an epoch can start at any step.

    Args:
        source: has ``len()`` and ``read(i)``, which returns ``rgb, boxes, labels, difficult``, as
            ``data.voc.VOCSource`` does.
        batch_size: pictures per step.
        size: height and width of the input, pixels.
        targets: maps boxes ``(n, 4)``, labels ``(n,)``, difficult ``(n,)`` to classes ``(A,)`` and
            boxes ``(A, 4)``: a ``detection.targets.TargetGenerator``.
        steps: batches per epoch.
    """

    def __init__(
        self,
        source,
        batch_size: int,
        size: int,
        targets: Callable,
        *,
        steps: int,
        augmentation: BoxAugmentation = _GLUONCVS,
        normalization: Normalization = Normalization(),
        seed: int = 0,
        threads: int = 4,
        shard: Shard = Shard(),
    ):
        self.source, self.batch_size, self.size = source, batch_size, size
        self.targets, self.steps = targets, steps
        self.augmentation, self.normalization = augmentation, normalization
        self.seed, self.threads, self.shard = seed, threads, shard

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[DetectionBatch]:
        """Yield the batches of an epoch from step ``first_step`` on."""
        cv2.setNumThreads(0)  # the pool already fills the processors
        order = epoch_order(
            len(self.source), self.steps, self.batch_size, self.seed, epoch, self.shard
        )
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: deque = deque()
            try:
                for positions in order[first_step:]:
                    waiting.append([pool.submit(self._sample, epoch, p) for p in positions])
                    if len(waiting) > _PREFETCH:
                        yield _stack(waiting.popleft())
                while waiting:
                    yield _stack(waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _sample(self, epoch: int, position: int):
        found = self.source.read(position)
        rng = np.random.default_rng([self.seed, epoch, int(position), 2])
        image, boxes, kept = training_sample(
            found.rgb, found.boxes, self.size, self.augmentation, self.normalization, rng
        )
        return image, *self.targets(boxes, found.labels[kept], found.difficult[kept])


def _stack(futures) -> DetectionBatch:
    return DetectionBatch(*map(np.stack, zip(*(future.result() for future in futures))))


class ValidationBatch(NamedTuple):
    """Pictures in the order of their source, only resized."""

    data: np.ndarray  # (N, 3, size, size) float32, normalised; the last batch may be smaller
    truth: list  # what the source read: N times image_id, rgb, boxes, labels, difficult, size


def validation_batches(
    source, batch_size: int, size: int, *, normalization: Normalization = Normalization(),
    threads: int = 4,
) -> Iterator[ValidationBatch]:  # fmt: skip
    """Yield every picture of ``source`` once, some batches ahead of the one in use."""
    cv2.setNumThreads(0)

    def read(position: int):
        found = source.read(position)
        return validation_image(found.rgb, size, normalization), found

    with ThreadPoolExecutor(threads) as pool:
        starts = deque(range(0, len(source), batch_size))
        waiting: deque = deque()
        try:
            while starts or waiting:
                while starts and len(waiting) < _PREFETCH:
                    begin = starts.popleft()
                    end = min(begin + batch_size, len(source))
                    waiting.append([pool.submit(read, i) for i in range(begin, end)])
                images, truth = zip(*(future.result() for future in waiting.popleft()))
                yield ValidationBatch(np.stack(images), list(truth))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
