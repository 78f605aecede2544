"""What pictures show and where, from every engine."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.card import DETECTOR
from gluon_asymmnet.detector_card import parse_detector_card
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.detection import detect
from gluon_asymmnet.evaluation.drawing import SHOWN_FROM
from gluon_asymmnet.models.ssd_spec import anchors
from gluon_asymmnet.predict.nms import Kept, suppress
from gluon_asymmnet.predict.opening import OnEngine, check_pictures
from gluon_asymmnet.predict.pictures import Picture, read_picture

_SUPPRESSION = ("nms_thresh", "nms_topk", "post_nms", "least_score")  # fields of the card
_THREADS = 2  # that read and resize pictures while the engine works


class Detection(NamedTuple):
    """What was found in one picture, by falling score."""

    labels: np.ndarray  # (n,) int64
    names: list[str]  # n
    scores: np.ndarray  # (n,) float32
    boxes: np.ndarray  # (n, 4) float32, corners (xmin, ymin, xmax, ymax), pixels of the picture


class DetectorPredictor(OnEngine):
    """Labels, scores and boxes for pictures, the same from every engine.

    Suppression is in MXNet's files; for those of the other engines it is done here in NumPy.
    Arguments, attributes and errors as ``gluon_asymmnet.Predictor`` has them.
    """

    kind, parse = DETECTOR, staticmethod(parse_detector_card)

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Map ``(N, 3, S, S)`` float32, preprocessed, to what ``SSD`` gives.

        S is the card's ``input_size``; N may vary.

        Returns: ids ``(N, n, 1)``, scores ``(N, n, 1)`` and corners ``(N, n, 4)`` in pixels of the
            input, float32, by falling score; rows of -1 fill up.
        Raises: InputError for another shape, RunError for values that are not finite.
        """
        outputs = self._run(images)
        if len(outputs) == 3:
            return tuple(outputs)
        settings = {name: getattr(self.card, name) for name in _SUPPRESSION}
        return _padded([suppress(s, b, **settings) for s, b in zip(*outputs)], self.card.post_nms)

    def detect(
        self,
        pictures: Sequence[Picture],
        score_threshold: float = SHOWN_FROM,
        batch_size: int = 8,
    ) -> list[Detection]:
        """Return what each picture shows.

        Args:
            pictures: paths of JPEG or PNG files, or arrays ``(H, W, 3)`` uint8 RGB.
            score_threshold: the least score, 0 to 1.
            batch_size: pictures that are computed together.

        Raises: FormatError, naming the file, for one that is no picture.
        """
        check_pictures(pictures, batch_size=batch_size)
        if not 0 <= score_threshold <= 1:
            raise InputError(f"score_threshold must be from 0 to 1, got {score_threshold}")
        if not len(pictures):
            return []
        found = detect(
            self.predict, _Pictures(pictures), self.card.input_size,
            min(batch_size, len(pictures)), normalization=self.card.normalization,
            threads=_THREADS,
        )  # fmt: skip
        return [self._detection(one, score_threshold) for one in found]

    def _detection(self, found, least: float) -> Detection:
        kept = found.scores >= least
        labels = found.labels[kept]
        names = [self.card.class_names[label] for label in labels]
        return Detection(labels, names, found.scores[kept], found.boxes[kept])

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
        boxes, classes = len(anchors(self.card.spec)), len(self.card.class_names)
        expected = [(boxes, classes), (boxes, 4)]
        if len(outputs) == 2 and [tuple(shape[1:]) for shape in outputs] != expected:
            raise FormatError(
                f"{self.weights} gives {[list(shape[1:]) for shape in outputs]} per image, its "
                f"card says {boxes} boxes of {classes} classes"
            )


class _Pictures:
    """Pictures as a source that ``detection.evaluate.detect`` reads."""

    def __init__(self, pictures: Sequence[Picture]):
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, position: int) -> "_Read":
        rgb = read_picture(self._pictures[position])
        return _Read(rgb, (rgb.shape[1], rgb.shape[0]))


class _Read(NamedTuple):
    rgb: np.ndarray
    size: tuple[int, int]  # (width, height), pixels


def _padded(found: list[Kept], rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stack the pictures; ``rows`` of each, or as many as the fullest has."""
    rows = max([rows, *(len(kept.ids) for kept in found)])
    ids, scores, boxes = (np.full((len(found), rows, n), -1, np.float32) for n in (1, 1, 4))
    for number, kept in enumerate(found):
        count = len(kept.ids)
        ids[number, :count, 0] = kept.ids
        scores[number, :count, 0] = kept.scores
        boxes[number, :count] = kept.boxes
    return ids, scores, boxes
