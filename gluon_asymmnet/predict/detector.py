"""Detect objects in images with an exported model, by any engine."""

import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional, Union

import numpy as np

from gluon_asymmnet.card import DETECTOR
from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.data.class_names import match_classes
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.detection import detect
from gluon_asymmnet.evaluation.drawing import SCORE_THRESHOLD
from gluon_asymmnet.models.ssd_spec import anchors
from gluon_asymmnet.predict.base import EnginePredictor, check_counts
from gluon_asymmnet.predict.images import Image, image_batches, read_image
from gluon_asymmnet.predict.nms import suppress
from gluon_asymmnet.predict.tiles import Tiling, merge

_THREADS = 2  # at most, that read and resize images while the engine computes
_BATCHES = 16  # taken at a time from an iterable of images


class DetectorPredictor(EnginePredictor):
    """Detect objects in images; every engine gives the same results.

    MXNet's files contain the suppression of overlapping boxes; for the other engines' files it is
    computed here in NumPy.  Arguments, attributes and errors are those of
    ``gluon_asymmnet.Predictor``.
    """

    kind = DETECTOR

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map ``(N, 3, S, S)`` float32, preprocessed, to the outputs of ``SSD``.

        S is the card's ``input_size``; N may vary.

        Returns: ids ``(N, n, 1)``, scores ``(N, n, 1)`` and corners ``(N, n, 4)`` in pixels of the
            input, float32, by falling score; padded with rows of -1.
        Raises: InputError for another shape, RunError for values that are not finite.
        """
        return self._suppress(self._run(images))

    def _suppress(self, outputs: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map the outputs of an engine to those of ``predict``."""
        if len(outputs) == 3:
            return tuple(outputs)
        card = self.card
        found = [
            suppress(
                scores, boxes, nms_thresh=card.nms_thresh, nms_topk=card.nms_topk,
                post_nms=card.post_nms, score_threshold=card.score_threshold,
            )
            for scores, boxes in zip(*outputs)
        ]  # fmt: skip
        return _padded(found, card.post_nms)

    def detect(
        self,
        images: Union[Image, Iterable[Image]],
        score_threshold: float = SCORE_THRESHOLD,
        batch_size: int = 8,
        *,
        class_thresholds: Optional[Mapping[str, float]] = None,
        tiling: Optional[Tiling] = None,
    ) -> list[Detections]:
        """Return the detections in each image, boxes in its pixels, with class names.

        Args:
            images: as for ``Predictor.classify``.
            score_threshold: detections with a lower score are left out; 0 to 1.
            batch_size: images, or tiles of an image, that are computed together.
            class_thresholds: the threshold of single classes, by name.
            tiling: detect in tiles of each image, and unite their detections.

        Raises: as ``Predictor.classify``; InputError for an unknown class.
        """
        check_counts(batch_size=batch_size)
        thresholds = self.thresholds(score_threshold, class_thresholds or {})
        if tiling is not None:
            tiling.check()
            return [
                self._detect_in_tiles(read_image(image), tiling, thresholds, batch_size)
                for part in image_batches(images, _BATCHES)
                for image in part
            ]
        results = []
        for part in image_batches(images, _BATCHES * batch_size):
            results += self._detect_in(part, thresholds, batch_size)
        return [self._with_names(found) for found in results]

    def thresholds(self, usual: float, of_classes: Mapping[str, float]) -> np.ndarray:
        """Return the least score of each class, ``(classes,)`` float32.

        Raises: InputError for a class that the model does not have, or a score outside 0 to 1.
        """
        labels = match_classes(
            list(of_classes), self.card.class_names, "the thresholds", "the model"
        )
        found = np.full(len(self.card.class_names), _score("score_threshold", usual), np.float32)
        for label, (name, score) in zip(labels, of_classes.items()):
            found[label] = _score(f"the threshold of {name!r}", score)
        return found

    def _detect_in(self, images: Sequence[Image], thresholds, batch_size: int) -> list[Detections]:
        results = detect(
            self.predict, _ImageSource(images), self.card.input_size, min(batch_size, len(images)),
            normalization=self.card.normalization, threads=min(_THREADS, self._threads),
        )  # fmt: skip
        return [_select(found, thresholds) for _, found in results]

    def _detect_in_tiles(self, rgb, tiling: Tiling, thresholds, batch_size: int) -> Detections:
        size = rgb.shape[1::-1]
        areas = tiling.areas(*size)
        tiles = [rgb[top:bottom, left:right] for left, top, right, bottom in areas]
        found = self._detect_in(tiles, thresholds, batch_size)
        return self._with_names(merge(found, areas, size, self.card.nms_thresh))

    def _with_names(self, found: Detections) -> Detections:
        return found._replace(names=[self.card.class_names[label] for label in found.labels])

    def _check_ports(self, inputs: list, outputs: list) -> None:
        if len(inputs) != 1 or len(outputs) not in (2, 3):
            raise FormatError(
                f"{self.weights} has {len(inputs)} inputs and {len(outputs)} outputs; a detector "
                f"has one input, and scores and boxes, or ids, scores and boxes"
            )
        super()._check_ports(inputs, outputs)
        if any(len(shape) != 3 for shape in outputs) or outputs[-1][2] != 4:
            raise FormatError(
                f"{self.weights} gives {outputs}; a detector gives arrays (batch, boxes, values), "
                f"the last of corners"
            )

    def _check_card(self, outputs: list) -> None:
        boxes, classes = len(anchors(self.card.detector_spec)), len(self.card.class_names)
        expected = [(boxes, classes), (boxes, 4)]
        if len(outputs) == 2 and [tuple(shape[1:]) for shape in outputs] != expected:
            raise FormatError(
                f"{self.weights} gives {[list(shape[1:]) for shape in outputs]} per image, its "
                f"card says {boxes} boxes of {classes} classes"
            )


def _select(found: Detections, thresholds: np.ndarray) -> Detections:
    """Drop low scores and boxes without an area in the image."""
    kept = (found.scores >= thresholds[found.labels]) & (
        found.boxes[:, :2] < found.boxes[:, 2:]
    ).all(1)
    return Detections(found.labels[kept], found.scores[kept], found.boxes[kept])


def _score(name: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise InputError(f"{name} must be from 0 to 1, got {value}")
    return float(value)


class _UnlabelledImage(NamedTuple):
    rgb: np.ndarray  # (height, width, 3) uint8
    size: tuple[int, int]  # (width, height), pixels


class _ImageSource:
    """The images as a source for ``evaluation.detection.detect``."""

    def __init__(self, images: Sequence[Image]):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def read(self, i: int) -> _UnlabelledImage:
        rgb = read_image(self._images[i])
        return _UnlabelledImage(rgb, (rgb.shape[1], rgb.shape[0]))


def _padded(found: list[Detections], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stack the detections of each image, padded to ``rows`` rows or to the longest."""
    rows = max([rows, *(len(one.labels) for one in found)])
    ids, scores, boxes = (np.full((len(found), rows, n), -1, np.float32) for n in (1, 1, 4))
    for number, one in enumerate(found):
        count = len(one.labels)
        ids[number, :count, 0] = one.labels
        scores[number, :count, 0] = one.scores
        boxes[number, :count] = one.boxes
    return ids, scores, boxes
