"""Average precision as defined by COCO, computed by its own code, pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

from gluon_asymmnet.data.boxes.geometry import Rows, checked_rows
from gluon_asymmnet.errors import InputError

# In the order of COCOeval.stats.
_METRICS = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large",
    "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large",
)  # fmt: skip


class COCOEvaluator:
    """Compares predicted boxes with true ones by COCO's metrics; used like ``VOCEvaluator``.

    A difficult object becomes a crowd (``iscrowd``), the only kind of object that COCOeval neither
    requires nor counts as a miss.

    Args:
        classes:  class names in label order.
        plus_one: boxes include their last row and column, as in VOC: ``xmax - xmin + 1`` pixels.

    Raises: InputError if pycocotools is missing.
    """

    def __init__(self, classes: Sequence[str], *, plus_one: bool = True):
        _require()
        self.classes, self.plus_one = list(classes), bool(plus_one)
        self._images: dict[Hashable, tuple[Rows, Rows]] = {}

    def add(
        self,
        image_id: Hashable,
        pred_boxes,
        pred_labels,
        pred_scores,
        true_boxes,
        true_labels,
        difficult=None,
    ) -> None:
        """Add one image; arguments and errors as ``VOCEvaluator.add``."""
        if image_id in self._images:
            raise InputError(f"image {image_id!r} was added before")
        classes = len(self.classes)
        self._images[image_id] = (
            checked_rows(image_id, "predicted", classes, pred_boxes, pred_labels, pred_scores),
            checked_rows(image_id, "true", classes, true_boxes, true_labels, difficult),
        )

    def result(self) -> dict[str, float]:
        """Return COCO's twelve metrics by name; nan without objects to detect.

        ``AP`` is the mean over IoU 0.5, 0.55 ... 0.95; small is below 32 x 32 pixels, large
        above 96 x 96; ``AR_10`` is the recall with 10 predictions per image.
        """
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it returns
            evaluation = COCOeval(self._side(1), self._side(0), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return {
            name: float(value) if value >= 0 else float("nan")
            for name, value in zip(_METRICS, evaluation.stats)
        }

    def _side(self, which: int):
        """Return the predictions (0) or the true boxes (1) as a COCO object."""
        from pycocotools.coco import COCO

        side = COCO()
        side.dataset = {
            "images": [{"id": n} for n in range(1, len(self._images) + 1)],
            "categories": [{"id": k, "name": name} for k, name in enumerate(self.classes, 1)],
            "annotations": [
                {"id": number, **entry} for number, entry in enumerate(self._entries(which), 1)
            ],
        }
        side.createIndex()
        return side

    def _entries(self, which: int) -> Iterator[dict]:
        for image, sides in enumerate(self._images.values(), 1):
            rows = sides[which]
            sizes = np.maximum(rows.boxes[:, 2:] - rows.boxes[:, :2] + self.plus_one, 0)
            for corner, size, label, value in zip(rows.boxes, sizes, rows.labels, rows.values):
                entry = {
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [*corner[:2].tolist(), *size.tolist()],  # x, y, width, height
                    "area": float(size.prod()),
                    "iscrowd": int(which == 1 and value != 0),
                }
                yield entry if which == 1 else {**entry, "score": float(value)}


def _require() -> None:
    try:
        import pycocotools.cocoeval  # noqa: F401
    except ImportError:
        raise InputError(
            "COCO's metrics need pycocotools, which is not installed: "
            "pip install 'gluon_asymmnet[coco]'"
        ) from None
