"""Top-1, top-5 and loss over every image of a set, each scored once.

MXNet's ImageRecordIter cannot do that: it wraps around at the end of a pass, and its ``pad`` is
wrong from the second pass on.
"""

import math
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.loader import in_order, read_ahead
from gluon_asymmnet.data.transforms import Preprocessing
from gluon_asymmnet.errors import FormatError, InputError, RunError


class Evaluation(NamedTuple):
    """The result on a set; arrays are in the order of its images."""

    images: int
    top1: float
    top5: float
    loss: float  # mean cross-entropy, nats
    labels: np.ndarray  # (images,) int64
    ranked: np.ndarray  # (images, up to 5) int64, best class first
    confidence: np.ndarray  # (images,) float32, softmax of the best class

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of top-1."""
        return wilson_interval(round(self.top1 * self.images), self.images)

    def confusion(self, classes: int) -> np.ndarray:
        """Return the confusion matrix ``(classes, classes)``: rows are true, columns predicted."""
        matrix = np.zeros((classes, classes), np.int64)
        np.add.at(matrix, (self.labels, self.ranked[:, 0]), 1)
        return matrix


def wilson_interval(hits: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the 95 % confidence interval of a proportion.

    Source: Wilson 1927, doi 10.1080/01621459.1927.10502953; unlike the normal approximation it
    stays inside [0, 1] and is accurate near the ends.
    """
    p, zz = hits / trials, z * z / trials
    centre, half = p + zz / 2, z * math.sqrt(p * (1 - p) / trials + zz / trials / 4)
    # Rounding may give -1e-18.
    return max((centre - half) / (1 + zz), 0.0), min((centre + half) / (1 + zz), 1.0)


def read_batches(
    source, preprocessing: Preprocessing, batch_size: int, threads: int = 2
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(n, 3, H, W)`` float32 and ``(n,)`` labels, in order; the last n may be smaller."""

    def read(i: int):
        record = source.read(i)
        try:
            return preprocessing(decode(record.image)), record.label
        except FormatError as error:
            raise FormatError(f"{source.name(i)}: {error}") from None

    for pairs in read_ahead(read, in_order(len(source), batch_size), threads):
        images, labels = zip(*pairs)
        yield np.stack(images), np.asarray(labels)


def evaluate(
    predict: Callable[[np.ndarray], np.ndarray],
    source,
    *,
    classes: int,
    preprocessing: Preprocessing,
    batch_size: int = 64,
    threads: int = 2,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Evaluation:
    """Score every image of ``source`` once.

    Args:
        predict: maps ``(n, 3, H, W)`` float32 to ``(n, classes)`` logits; n may vary.
        source: labelled images, see ``data.sources``.
        progress: called with (images done, total).

    Raises:
        InputError: for a label outside the classes, or a batch size below 1.
        RunError: if the number scored is not the number of records, or logits are not finite.
    """
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    ranked, labels, losses, confidences = [], [], [], []
    done = 0
    for images, targets in read_batches(source, preprocessing, batch_size, threads):
        _check_targets(source, done, targets, classes)
        logits = np.asarray(predict(images), np.float32)
        if logits.shape != (len(images), classes):
            raise InputError(
                f"the model gives {logits.shape[1:]} values per image, expected ({classes},)"
            )
        if not np.isfinite(logits).all():
            raise RunError(
                f"the model's output is not finite on images {done} ff. of {source.path}"
            )
        targets = targets.astype(np.int64)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        spread = logits - logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(spread.astype(np.float64)).sum(axis=1))
        losses.append(total - spread[np.arange(len(targets)), targets])
        confidences.append(np.exp(-total))
        ranked.append(best)
        labels.append(targets)
        done += len(targets)
        if progress:
            progress(done, len(source))
    if done != len(source):
        raise RunError(f"{done} images were scored, {source.path} has {len(source)} records")
    ranked, labels = np.concatenate(ranked), np.concatenate(labels)
    hits = ranked == labels[:, None]
    return Evaluation(
        images=done,
        top1=float(hits[:, 0].mean()),
        top5=float(hits.any(axis=1).mean()),
        loss=float(np.concatenate(losses).mean()),
        labels=labels,
        ranked=ranked,
        confidence=np.concatenate(confidences).astype(np.float32),
    )


class ShardedSource:
    """Every ``count``-th image of a source from ``index`` on: the images of one worker."""

    def __init__(self, source, index: int, count: int):
        self.source, self.index, self.count = source, index, count
        self.path = source.path

    def __len__(self) -> int:
        return len(range(self.index, len(self.source), self.count))

    def read(self, i: int):
        """Return image ``i`` of the shard."""
        return self.source.read(self.index + i * self.count)

    def name(self, i: int) -> str:
        """Return the name of image ``i`` in the source."""
        return self.source.name(self.index + i * self.count)


def evaluate_distributed(workers, predict: Callable, source, **settings) -> dict[str, float]:
    """Return top1, top5 and loss of a source; each worker scores a shard of it.

    Args:
        workers: ``distributed.workers.Workers``; with one worker this is ``evaluate``.
        settings: arguments of ``evaluate``.

    Raises: RunError if the workers together score another number of images.
    """
    if workers.world_size == 1:
        result = evaluate(predict, source, **settings)
        return {"top1": result.top1, "top5": result.top5, "loss": result.loss}
    shard = ShardedSource(source, workers.rank, workers.world_size)
    sums = [0, 0, 0, 0]
    if len(shard):
        own = evaluate(predict, shard, **settings)
        shares = (1, own.top1, own.top5, own.loss)
        sums = [own.images * share for share in shares]
    images, *sums = workers.sum_numbers("validation", sums)
    if images != len(source):
        raise RunError(
            f"the workers scored {images:.0f} images, {source.path} has {len(source)} records"
        )
    top1, top5, loss = (value / images for value in sums)
    return {"top1": top1, "top5": top5, "loss": loss}


def _check_targets(source, first: int, targets: np.ndarray, classes: int) -> None:
    bad = (targets < 0) | (targets >= classes) | (targets != np.floor(targets))
    if targets.ndim != 1 or bad.any():
        i = int(np.argmax(bad)) if targets.ndim == 1 else 0
        raise InputError(
            f"{source.name(first + i)}: label {targets[i]} is not one of the {classes} classes "
            f"(0 to {classes - 1})"
        )
