"""The card of a detector: what a user of its files has to know, as JSON beside them."""

import dataclasses
import json
from pathlib import Path

from gluon_asymmnet.atomic import write_text
from gluon_asymmnet.card import check_normalization
from gluon_asymmnet.data.augment import Normalization
from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.json_objects import make, parse_object

KIND = "detector"
_WHAT = "the card of a detector"


@dataclasses.dataclass(frozen=True)
class DetectorCard:
    """Which detector, on which input, for which classes."""

    model: str  # with dataset, as ``get_model`` takes it: ssd_300_asymmnet_small_custom
    class_names: tuple[str, ...]
    input_size: int  # height and width, pixels; the aspect ratio is not kept
    nms_thresh: float
    nms_topk: int
    post_nms: int
    least_score: float
    rgb_mean: tuple[float, ...] = IMAGENET_MEAN
    rgb_std: tuple[float, ...] = IMAGENET_STD
    parameters: int = 0
    kind: str = KIND

    @property
    def normalization(self) -> Normalization:
        """What is done to the resized picture."""
        return Normalization(self.rgb_mean, self.rgb_std)

    def save(self, path) -> None:
        """Write the card, all or nothing."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def read_detector_card(path) -> DetectorCard:
    """Read a card that ``DetectorCard.save`` wrote.

    Raises: FileNotFoundError; FormatError if it is damaged or a classifier's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the card of a detector")
    settings = parse_object(path.read_bytes(), path, _WHAT)
    if settings.get("kind") != KIND:
        raise FormatError(f"{path}: not {_WHAT}: it is the card of a classifier")
    card = make(DetectorCard, settings, path, _WHAT)
    try:
        check_normalization(card.rgb_mean, card.rgb_std)
    except ValueError as error:
        raise FormatError(f"{path}: not {_WHAT}: {error}") from None
    if len(card.model) > 100 or not card.class_names or card.input_size < 1:
        raise FormatError(f"{path}: not {_WHAT}: its model, class_names or input_size is none")
    return card
