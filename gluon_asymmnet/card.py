"""The card of a model: what a user of its files has to know, as JSON beside them."""

import dataclasses
import json
import math
from pathlib import Path
from typing import ClassVar, Optional

from gluon_asymmnet.atomic import write_text
from gluon_asymmnet.data.augment import Normalization
from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.evaluate import Preprocessing

CARD_FILE = "card.json"
CLASSIFIER, DETECTOR = "classifier", "detector"
_COMMANDS = {CLASSIFIER: "asymmnet predict", DETECTOR: "asymmnet detect"}


@dataclasses.dataclass(frozen=True)
class Card:
    """Which network, on which input, for which classes."""

    kind: ClassVar[str] = CLASSIFIER  # not in the JSON: cards were written before there were two

    model: str = "asymmnet_large"
    width: float = 1.0
    rate: int = 1
    shuffle_groups: int = 0
    stem: str = "authors"
    classes: int = 1000
    norm: str = "batch"  # or "group"
    class_names: Optional[list[str]] = None
    input_size: int = 224  # pixels
    crop_ratio: float = 0.875
    rgb_mean: tuple[float, ...] = IMAGENET_MEAN
    rgb_std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    parameters: Optional[int] = None
    macs: Optional[int] = None
    parity: Optional[dict] = None  # how far exported files are from the net, and on what

    @property
    def preprocessing(self) -> Preprocessing:
        """What has to be done to a picture."""
        return Preprocessing(
            self.input_size, self.crop_ratio, Normalization(self.rgb_mean, self.rgb_std)
        )

    def text(self) -> str:
        """Return the card as JSON; ``parse_card`` reads it."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def save(self, path) -> None:
        """Write the card, all or nothing."""
        write_text(path, self.text())


def read_card(path) -> Card:
    """Read a card that ``Card.save`` wrote."""
    return parse_card(card_text(path), path)


def card_text(path) -> str:
    """Return what a card's file holds; FileNotFoundError or FormatError if it is no text."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the card of an exported model")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not the card of a model: {error}") from None


def parse_card(text: str, where) -> Card:
    """Read the JSON of a card that came from ``where``, a file that holds it."""
    require_kind(text, CLASSIFIER, where)
    return parse_fields(Card, text, where, _check)


def kind_of(text: str) -> str:
    """Return the kind that a card says it is of; a damaged one's is ``classifier``."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return CLASSIFIER
    is_detector = isinstance(settings, dict) and settings.get("kind") == DETECTOR
    return DETECTOR if is_detector else CLASSIFIER


def require_kind(text: str, kind: str, where) -> None:
    """Raise FormatError for a card of the other kind."""
    found = kind_of(text)
    if found != kind:
        raise FormatError(
            f"{where} is the card of a {found}, not of a {kind}: `{_COMMANDS[found]}` runs it"
        )


def parse_fields(card: type, text: str, where, check) -> object:
    """Make a card of the fields in ``text``; ``check`` raises ValueError for what cannot be."""
    try:
        settings = json.loads(text)
        known = {field.name: settings[field.name] for field in dataclasses.fields(card)}
        for name in ("rgb_mean", "rgb_std"):
            known[name] = tuple(float(value) for value in known[name])
        made = card(**known)
        check_input(made)
        check(made)
        return made
    except KeyError as error:
        raise FormatError(f"{where}: not the card of a model: it lacks {error}") from None
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise FormatError(f"{where}: not the card of a model: {error}") from None


# What would only fail much later, as an array of the wrong shape, is a ValueError.


def require_whole(card, *names: str) -> None:
    """Raise ValueError unless the fields are whole numbers from 1 on."""
    for name in names:
        value = getattr(card, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is {value!r}, expected a whole number from 1 on")


def check_input(card) -> None:
    """Raise ValueError for an input that cannot be."""
    require_whole(card, "input_size")
    finite = all(math.isfinite(value) for value in (*card.rgb_mean, *card.rgb_std))
    if (
        len(card.rgb_mean) != 3 or len(card.rgb_std) != 3 or not finite or min(card.rgb_std) <= 0
    ):  # fmt: skip
        raise ValueError(
            f"rgb_mean {card.rgb_mean} and rgb_std {card.rgb_std}: expected three values each, "
            f"the deviations above 0"
        )


def _check(card: Card) -> None:
    require_whole(card, "classes")
    if not 0 < card.crop_ratio <= 1:
        raise ValueError(f"crop_ratio is {card.crop_ratio}, expected above 0 and at most 1")
    if card.class_names is not None and len(card.class_names) != card.classes:
        raise ValueError(f"{len(card.class_names)} class names for {card.classes} classes")
