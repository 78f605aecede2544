"""Training batches of a detector, in an order and with changes that a resumed run repeats."""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.augment import Normalization
from gluon_asymmnet.data.bad_records import SkippedRecords
from gluon_asymmnet.data.detection_augment import (
    BoxAugmentation,
    training_sample,
    validation_image,
)
from gluon_asymmnet.data.imagenet import Shard, epoch_order, read_ahead, read_usable

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
        skipped: counts the pictures that cannot be used; by default the first one is an error.
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
        skipped: Optional[SkippedRecords] = None,
    ):
        self.source, self.batch_size, self.size = source, batch_size, size
        self.targets, self.steps = targets, steps
        self.augmentation, self.normalization = augmentation, normalization
        self.seed, self.threads, self.shard = seed, threads, shard
        self.skipped = SkippedRecords() if skipped is None else skipped

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[DetectionBatch]:
        """Yield the batches of an epoch from step ``first_step`` on."""
        order = epoch_order(
            len(self.source), self.steps, self.batch_size, self.seed, epoch, self.shard
        )
        read = functools.partial(self._sample, epoch)
        samples = read_usable(
            read, order, first_step, self.threads, self.skipped, before=epoch * self.steps
        )
        yield from map(_stack, samples)

    def _sample(self, epoch: int, position: int, drawn_for: int):
        found = self.source.read(position)
        rng = np.random.default_rng([self.seed, epoch, int(drawn_for), 2])
        image, boxes, kept = training_sample(
            found.rgb, found.boxes, self.size, self.augmentation, self.normalization, rng
        )
        return image, *self.targets(boxes, found.labels[kept], found.difficult[kept])


def _stack(samples) -> DetectionBatch:
    return DetectionBatch(*map(np.stack, zip(*samples)))


class ValidationBatch(NamedTuple):
    """Pictures in the order of their source, only resized."""

    data: np.ndarray  # (N, 3, size, size) float32, normalised; the last batch may be smaller
    truth: list  # what the source read: N times image_id, rgb, boxes, labels, difficult, size


def validation_batches(
    source, batch_size: int, size: int, *, normalization: Normalization = Normalization(),
    threads: int = 4,
) -> Iterator[ValidationBatch]:  # fmt: skip
    """Yield every picture of ``source`` once, some batches ahead of the one in use."""

    def read(position: int):
        found = source.read(position)
        return validation_image(found.rgb, size, normalization), found

    positions = range(len(source))
    batches = [positions[i : i + batch_size] for i in range(0, len(source), batch_size)]
    for samples in read_ahead(read, batches, threads):
        images, truth = zip(*samples)
        yield ValidationBatch(np.stack(images), list(truth))
