"""Run a detector over exactly the pictures of a set, and score it.

The devkit counts in pixels of the original pictures, GluonCV in those of the resized ones.
The two differ: one pixel, which both add to a box's sides, is another share of it.  Both are given.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.data.boxes.loader import validation_batches
from gluon_asymmnet.data.boxes.voc import Annotated
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.errors import RunError
from gluon_asymmnet.evaluation.voc_ap import Result, VOCEvaluator

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


class Detected(NamedTuple):
    """What was found in one picture."""

    truth: Annotated
    labels: np.ndarray  # (n,) int64
    scores: np.ndarray  # (n,) float32, falling
    boxes: np.ndarray  # (n, 4) float32, corners, pixels of the original picture
    scale: np.ndarray  # (4,) resized over original pixels


class Evaluation(NamedTuple):
    """Average precision, in both kinds of pixels."""

    original: Result
    resized: Result


def detect(
    predict: Predict, source, size: int, batch_size: int, *,
    normalization: Normalization = Normalization(), threads: int = 4,
) -> Iterator[Detected]:  # fmt: skip
    """Yield what is found in each picture of ``source``, in its order.

    Args:
        predict: maps ``(N, 3, size, size)`` to ids ``(N, n, 1)``, -1 for rows that are none,
            scores ``(N, n, 1)`` and corners ``(N, n, 4)``, as ``SSD`` gives them; always called
            with ``batch_size`` pictures, the last batch filled up with zeros.
        source: as ``VOCSource``.

    Raises: RunError if ``predict`` drops pictures.
    """
    for batch in validation_batches(
        source, batch_size, size, normalization=normalization, threads=threads
    ):
        # one shape: a compiled net is not compiled anew for the last batch
        filled = np.zeros((batch_size, *batch.data.shape[1:]), np.float32)
        filled[: len(batch.truth)] = batch.data
        outputs = predict(filled)
        if any(len(output) != batch_size for output in outputs):
            raise RunError(
                f"the detector gives {', '.join(str(len(o)) for o in outputs)} rows for a batch of "
                f"{batch_size} pictures"
            )
        for truth, ids, scores, boxes in zip(batch.truth, *outputs):
            kept = ids.ravel() >= 0
            scale = np.tile(np.float32(size) / np.float32(truth.size), 2)
            yield Detected(
                truth, ids.ravel()[kept].astype(np.int64), scores.ravel()[kept],
                np.clip(boxes[kept], 0, size) / scale, scale,
            )  # fmt: skip


def evaluate(found: Iterable[Detected], classes: list[str], iou: float = 0.5) -> Evaluation:
    """Score what ``detect`` yields."""
    original, resized = VOCEvaluator(classes, iou), VOCEvaluator(classes, iou)
    for one in found:
        for evaluator, scale in ((original, 1), (resized, one.scale)):
            evaluator.add(
                one.truth.image_id, one.boxes * scale, one.labels, one.scores,
                one.truth.boxes * scale, one.truth.labels, one.truth.difficult,
            )  # fmt: skip
    return Evaluation(original.result(), resized.result())
