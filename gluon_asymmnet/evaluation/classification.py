"""Top-1, top-5 and loss over every image of a set, each scored once.

MXNet's ImageRecordIter cannot do that: it wraps around at the end of a pass, and its ``pad`` is
wrong from the second pass on.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Callable, NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.bad_records import LeftOut
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.data.loader import in_order, read_validation
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
    left_out: Sequence[int] = ()  # positions of damaged images, which are not among ``images``

    @property
    def positions(self) -> np.ndarray:
        """The positions of the images in their source, ``(images,)``."""
        return np.delete(np.arange(self.images + len(self.left_out)), self.left_out)

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
    source, preprocessing: Preprocessing, batch_size: int, threads: int = 2, *,
    positions: Optional[Sequence[int]] = None, classes: Optional[int] = None,
    left_out: Optional[LeftOut] = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:  # fmt: skip
    """Yield ``(n, 3, H, W)`` float32 and ``(n,)`` labels, in order; the last n may be smaller.

    Args:
        positions: of the images to read; default: all.
        classes: number of classes; a label outside them is a damaged image.  None: not checked.
        left_out: as in ``read_validation``, which names the errors.
    """

    def read(i: int):
        record = source.read(i)
        try:
            if classes is not None:
                _check_label(record.label, classes)
            return preprocessing(decode(record.image)), record.label
        except FormatError as error:
            raise FormatError(f"{source.name(i)}: {error}") from None

    order = in_order(range(len(source)) if positions is None else positions, batch_size)
    for pairs in read_validation(read, order, threads, left_out):
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
    positions: Optional[range] = None,
    left_out: Optional[LeftOut] = None,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Evaluation:
    """Score every image of ``source`` once.

    Args:
        predict: maps ``(n, 3, H, W)`` float32 to ``(n, classes)`` logits; n may vary.
        source: labelled images, see ``data.sources``.
        positions: of the images to score; default: all.
        left_out: takes images that cannot be read or have a label outside the classes; they are
            not scored.  Without it the first one is an error.
        progress: called with (images done, total).

    Raises:
        FormatError: for a damaged image or a label outside the classes, see ``left_out``.
        InputError: for a batch size below 1.
        RunError: if the number scored is not the number of records, or logits are not finite.
    """
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    ranked, labels, losses, confidences = [], [], [], []
    done, total_images = 0, len(source if positions is None else positions)
    batches = read_batches(
        source, preprocessing, batch_size, threads, positions=positions, classes=classes,
        left_out=left_out,
    )  # fmt: skip
    for images, targets in batches:
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
            progress(done, total_images)
    damaged = left_out.positions if left_out else ()
    if done + len(damaged) != total_images:
        raise RunError(f"{done} images were scored, {source.path} has {total_images} to score")
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
        left_out=damaged,
    )


def evaluate_distributed(
    workers, predict: Callable, source, **settings
) -> tuple[dict[str, float], int]:
    """Return top1, top5 and loss of a source, and the number of images left out.

    Each worker scores every ``world_size``-th image.

    Args:
        workers: ``distributed.workers.Workers``; with one worker this is ``evaluate``.
        settings: arguments of ``evaluate``.

    Raises: RunError if the workers together score another number of images.
    """
    if workers.world_size == 1:
        result = evaluate(predict, source, **settings)
        metrics = {"top1": result.top1, "top5": result.top5, "loss": result.loss}
        return metrics, len(result.left_out)
    positions = range(workers.rank, len(source), workers.world_size)
    sums = [0, 0, 0, 0, 0]
    if len(positions):
        own = evaluate(predict, source, positions=positions, **settings)
        shares = (1, own.top1, own.top5, own.loss)
        sums = [len(own.left_out), *(own.images * share for share in shares)]
    left_out, images, *sums = workers.sum_numbers("validation", sums)
    if images + left_out != len(source):
        raise RunError(
            f"the workers scored {images:.0f} images, {source.path} has {len(source)} records"
        )
    top1, top5, loss = (value / images for value in sums)
    return {"top1": top1, "top5": top5, "loss": loss}, int(left_out)


def _check_label(label, classes: int) -> None:
    if np.ndim(label) or not (0 <= label < classes and label == np.floor(label)):
        raise FormatError(f"label {label} is not one of the {classes} classes (0 to {classes - 1})")
