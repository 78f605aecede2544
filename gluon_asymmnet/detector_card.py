"""The card of a detector: what a user of its files has to know, as JSON beside them."""

import dataclasses
import json
import math
import reprlib
from typing import Optional

from gluon_asymmnet.card import DETECTOR, card_text, check_range, parse_fields
from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.models.ssd_spec import DetectorSpec, parse_detector
from gluon_asymmnet.utils.atomic import write_text


@dataclasses.dataclass(frozen=True)
class DetectorCard:
    """Which detector, on which input, for which classes."""

    model: str  # with dataset, as ``get_model`` takes it: ssd_300_asymmnet_small_custom
    class_names: tuple[str, ...]
    input_size: int  # height and width, pixels; the aspect ratio is not kept
    nms_thresh: float  # IoU from which the lower score of a class goes; outside (0, 1): all stay
    nms_topk: int  # boxes of a picture, all classes together, that take part; -1: all
    post_nms: int  # boxes of a picture that are returned; -1: all
    least_score: float  # lower ones are dropped before suppression
    rgb_mean: tuple[float, ...] = IMAGENET_MEAN
    rgb_std: tuple[float, ...] = IMAGENET_STD
    parameters: int = 0
    parity: Optional[dict] = None  # how far exported files are from the net, and on what
    kind: str = DETECTOR

    @property
    def normalization(self) -> Normalization:
        """What is done to the resized picture."""
        return Normalization(self.rgb_mean, self.rgb_std)

    @property
    def spec(self) -> DetectorSpec:
        """The detector as data."""
        return parse_detector(self.model).spec

    def text(self) -> str:
        """Return the card as JSON; ``parse_detector_card`` reads it."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def save(self, path) -> None:
        """Write the card, all or nothing."""
        write_text(path, self.text())


def read_detector_card(path) -> DetectorCard:
    """Read a card that ``DetectorCard.save`` wrote.

    Raises: FileNotFoundError; FormatError if it is damaged or a classifier's.
    """
    return parse_detector_card(card_text(path), path)


def parse_detector_card(data, where) -> DetectorCard:
    """Read the JSON, text or bytes, of a card that came from ``where``, a file that holds it."""
    return parse_fields(DetectorCard, DETECTOR, data, where, _check)


def _check(card: DetectorCard) -> None:
    names = card.class_names
    if not names or not all(names) or len(set(names)) < len(names):
        raise ValueError(f"class_names are {reprlib.repr(names)}, expected different names")
    if card.input_size != card.spec.size:
        raise ValueError(f"input_size is {card.input_size}, {card.model} takes {card.spec.size}")
    for name in ("nms_topk", "post_nms"):
        if getattr(card, name) != -1:
            check_range(card, name, 1, 10**9)
    check_range(card, "least_score", 0, 1)
    if not math.isfinite(card.nms_thresh):
        raise ValueError(f"nms_thresh is {card.nms_thresh}, expected a number")
