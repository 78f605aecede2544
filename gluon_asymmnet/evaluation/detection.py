"""Run a detector over every image of a set once, and compute its average precision.

VOC's devkit computes overlaps in pixels of the original images, GluonCV in pixels of the resized
ones.  The results differ, because both add one pixel to each side of a box.  Both are reported.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.bad_records import LeftOut
from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.data.boxes.loader import validation_batches
from gluon_asymmnet.data.boxes.voc import DetectionExample
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.errors import RunError
from gluon_asymmnet.evaluation.voc_ap import VOCEvaluator, VOCResult

Predict = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
Detected = tuple[DetectionExample, Detections]


class DetectionEvaluation(NamedTuple):
    """Average precision, in both kinds of pixels."""

    original: VOCResult
    resized: VOCResult


def detect(
    predict: Predict, source, size: int, batch_size: int, *,
    normalization: Normalization = Normalization(), threads: int = 4,
    left_out: Optional[LeftOut] = None,
) -> Iterator[Detected]:  # fmt: skip
    """Yield each image of ``source`` in order, with its detections in original pixels.

    Args:
        predict: maps ``(N, 3, size, size)`` to ids ``(N, n, 1)``, -1 in rows of padding, scores
            ``(N, n, 1)`` and corners ``(N, n, 4)``, as ``SSD`` does; always called with
            ``batch_size`` images, the last batch padded with zeros.
        source: images with boxes, e.g. ``VOCSource``.
        left_out: takes the images that cannot be read; without it the first one is an error.

    Raises:
        FormatError: for a damaged image, see ``left_out``.
        RunError: if ``predict`` returns another number of rows than images.
    """
    for batch in validation_batches(
        source, batch_size, size, normalization=normalization, threads=threads, left_out=left_out
    ):
        # one shape, so that a compiled net is not compiled again for the last batch
        missing = batch_size - len(batch.examples)
        outputs = predict(
            np.pad(batch.data, [(0, missing), *[(0, 0)] * 3]) if missing else batch.data
        )
        if any(len(output) != batch_size for output in outputs):
            raise RunError(
                f"the detector gives {', '.join(str(len(o)) for o in outputs)} rows for a batch of "
                f"{batch_size} images"
            )
        for example, ids, scores, boxes in zip(batch.examples, *outputs):
            kept = ids.ravel() >= 0
            yield example, Detections(
                ids.ravel()[kept].astype(np.int64), scores.ravel()[kept],
                np.clip(boxes[kept], 0, size) / _resize_factors(example, size),
            )  # fmt: skip


def _resize_factors(example: DetectionExample, size: int) -> np.ndarray:
    """Return resized over original pixels, ``(4,)`` for the corners of a box."""
    return np.tile(np.float32(size) / np.float32(example.size), 2)


def evaluate(
    results: Iterable[Detected], classes: list[str], size: int, iou: float = 0.5
) -> DetectionEvaluation:
    """Compute the average precision of the results of ``detect`` at the input size ``size``."""
    original, resized = VOCEvaluator(classes, iou), VOCEvaluator(classes, iou)
    for example, found in results:
        for evaluator, scale in ((original, 1), (resized, _resize_factors(example, size))):
            evaluator.add(
                example.image_id, found.boxes * scale, found.labels, found.scores,
                example.boxes * scale, example.labels, example.difficult,
            )  # fmt: skip
    return DetectionEvaluation(original.result(), resized.result())
