"""Batches of images with boxes; a resumed training run gets exactly the same batches."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.data.boxes.transforms import (
    BoxAugmentation,
    training_sample,
    validation_image,
)
from gluon_asymmnet.data.loader import Shard, epoch_order, in_order, read_usable, read_validation
from gluon_asymmnet.data.transforms import Normalization

_GLUONCVS = BoxAugmentation()


class DetectionBatch(NamedTuple):
    """The images of one step, of all devices together."""

    data: np.ndarray  # (N, 3, size, size) float32, normalised; all of one size
    cls_target: np.ndarray  # (N, A) float32, from ``targets``
    box_target: np.ndarray  # (N, A, 4) float32


class DetectionInput:
    """Reads and augments training images and computes their targets, on threads.

    Every image has its own generator, seeded with ``(seed, epoch, position)``, so batches are
    bit-equal for any number of threads, and an epoch can start at any step.

    Args:
        source: images with boxes, e.g. ``VOCSource``.
        batch_size: images per step.
        targets: for each height and width of the input, pixels, a function from boxes ``(n, 4)``,
            labels ``(n,)``, difficult ``(n,)`` to classes ``(A,)`` and boxes ``(A, 4)``, e.g.
            ``train.ssd_targets.TargetGenerator``.  Each batch gets a random one of the sizes.
        steps: batches per epoch.
        skipped: counts unusable images; by default the first one is an error.
    """

    def __init__(
        self,
        source,
        batch_size: int,
        targets: Mapping[int, Callable],
        *,
        steps: int,
        augmentation: BoxAugmentation = _GLUONCVS,
        normalization: Normalization = Normalization(),
        seed: int = 0,
        threads: int = 4,
        shard: Shard = Shard(),
        skipped: Optional[SkippedRecords] = None,
    ):
        self.source, self.batch_size = source, batch_size
        self.targets, self.steps = targets, steps
        self.augmentation, self.normalization = augmentation, normalization
        self.seed, self.threads, self.shard = seed, threads, shard
        self.skipped = SkippedRecords() if skipped is None else skipped

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[DetectionBatch]:
        """Yield the batches of an epoch from step ``first_step`` on."""
        order = epoch_order(
            len(self.source), self.steps, self.batch_size, self.seed, epoch, self.shard
        )
        sizes = np.zeros(len(self.source), int)  # per image; each comes at most once
        sizes[order] = np.reshape(
            batch_sizes(tuple(self.targets), self.steps, self.seed, epoch), (-1, 1)
        )
        samples = read_usable(
            functools.partial(self._sample, epoch, sizes), order, first_step, self.threads,
            self.skipped, before=epoch * self.steps,
        )  # fmt: skip
        yield from (_stack(row) for row, _ in samples)

    def _sample(self, epoch: int, sizes: np.ndarray, position: int, drawn_for: int):
        example, size = self.source.read(position), int(sizes[drawn_for])
        rng = np.random.default_rng([self.seed, epoch, int(drawn_for), 2])
        image, boxes, kept = training_sample(
            example.rgb, example.boxes, size, self.augmentation, self.normalization, rng
        )
        return image, *self.targets[size](boxes, example.labels[kept], example.difficult[kept])


def batch_sizes(sizes: Sequence[int], steps: int, seed: int, epoch: int) -> list[int]:
    """Return the input size of each batch of an epoch; equal for all workers."""
    return np.random.default_rng([seed, epoch, 3]).choice(sizes, steps).tolist()


def _stack(samples) -> DetectionBatch:
    return DetectionBatch(*map(np.stack, zip(*samples)))


class ValidationBatch(NamedTuple):
    """Images in the order of their source, only resized."""

    data: np.ndarray  # (N, 3, size, size) float32, normalised; the last batch may be smaller
    examples: list  # N of the source's images with their boxes, e.g. ``DetectionExample``


def validation_batches(
    source, batch_size: int, size: int, *, normalization: Normalization = Normalization(),
    threads: int = 4, left_out: Optional[LeftOut] = None,
) -> Iterator[ValidationBatch]:  # fmt: skip
    """Yield every image of ``source`` once; some batches are read ahead.

    Args:
        left_out: as in ``read_validation``, which names the errors.
    """

    def read(position: int):
        example = source.read(position)
        return validation_image(example.rgb, size, normalization), example

    order = in_order(range(len(source)), batch_size)
    for samples in read_validation(read, order, threads, left_out):
        images, examples = zip(*samples)
        yield ValidationBatch(np.stack(images), list(examples))
