"""The card of a model: what a user of its files has to know, as JSON beside them."""

import dataclasses
import json
import math
import reprlib
from pathlib import Path
from typing import ClassVar, Optional

from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.data.transforms import Normalization, Preprocessing
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.json_objects import make, parse_object

CARD_FILE = "card.json"
CLASSIFIER, DETECTOR = "classifier", "detector"
_WHAT = "the card of a model"
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
    spec: Optional[dict] = None  # of a net from a spec file: what that held

    @classmethod
    def of(cls, spec: ModelSpec, **fields) -> "Card":
        """Return the card of a model; ``fields`` are those that are not in ``spec``."""
        identity = spec._asdict()
        return cls(model=identity.pop("name"), **identity, **fields)

    @property
    def model_spec(self) -> ModelSpec:
        """The net without its classes; InputError or FormatError if there is none such."""
        return ModelSpec.parse(
            self.model, width=self.width, rate=self.rate, shuffle_groups=self.shuffle_groups,
            stem=self.stem, spec=self.spec,
        )  # fmt: skip

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
        raise FormatError(f"{path}: not {_WHAT}: {error}") from None


def parse_card(data, where) -> Card:
    """Read the JSON, text or bytes, of a card that came from ``where``, a file that holds it."""
    return parse_fields(Card, CLASSIFIER, data, where, _check)


def kind_of(data) -> str:
    """Return the kind that a card says it is of; a damaged one's is ``classifier``."""
    try:
        return _kind(parse_object(data, "", _WHAT))
    except FormatError:
        return CLASSIFIER


def _kind(settings: dict) -> str:
    return DETECTOR if settings.get("kind") == DETECTOR else CLASSIFIER


def require_kind(found: str, kind: str, where) -> None:
    """Raise FormatError for a card of the other kind."""
    if found != kind:
        raise FormatError(
            f"{where} is the card of a {found}, not of a {kind}: `{_COMMANDS[found]}` runs it"
        )


def parse_fields(card: type, kind: str, data, where, check):
    """Make a card of the fields in ``data``; ``check`` raises ValueError for what cannot be."""
    settings = parse_object(data, where, _WHAT)
    require_kind(_kind(settings), kind, where)
    made = make(card, settings, where, _WHAT, complete=True)
    try:
        # what would only fail much later, as an array of the wrong shape
        _check_input(made)
        check(made)
    except ValueError as error:
        raise FormatError(f"{where}: not {_WHAT}: {error}") from None
    return made


def _check_input(card) -> None:
    check_range(card, "input_size", 1, 10**5)
    mean, std = card.rgb_mean, card.rgb_std
    finite = all(map(math.isfinite, (*mean, *std)))
    if len(mean) != 3 or len(std) != 3 or not finite or min(std) <= 0:
        raise ValueError(
            f"rgb_mean {reprlib.repr(mean)} and rgb_std {reprlib.repr(std)}: expected three values "
            f"each, the deviations above 0"
        )


def check_range(card, name: str, least, most) -> None:
    """Raise ValueError unless the field is a number from ``least`` to ``most``."""
    if not least <= getattr(card, name) <= most:
        raise ValueError(
            f"{name} is {getattr(card, name)}, expected a number from {least} to {most}"
        )


def _check(card: Card) -> None:
    check_range(card, "classes", 1, 10**6)
    for name in ("model", "stem", "norm", "interpolation"):
        if len(getattr(card, name)) > 100:
            raise ValueError(f"{name} has {len(getattr(card, name))} characters, expected a name")
    if not 0 < card.crop_ratio <= 1:
        raise ValueError(f"crop_ratio is {card.crop_ratio:g}, expected above 0 and at most 1")
    if card.class_names is not None and len(card.class_names) != card.classes:
        raise ValueError(f"{len(card.class_names)} class names for {card.classes} classes")
