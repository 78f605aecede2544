"""The model card: architecture, input, preprocessing and classes, as JSON beside the weights."""

import dataclasses
import json
import math
import reprlib
from pathlib import Path
from typing import Optional

from gluon_asymmnet.data.constants import IMAGENET_MEAN, IMAGENET_STD
from gluon_asymmnet.data.transforms import Normalization, Preprocessing
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.models.ssd_spec import (
    NMS_IOU,
    NMS_KEPT,
    NMS_TOP,
    SCORE_THRESHOLD,
    DetectorSpec,
    parse_detector,
)
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.utils.json_objects import json_key, make, parse_object

CARD_FILE = "card.json"
CLASSIFIER, DETECTOR = "classifier", "detector"
_CARD = "the card of a model"
_COMMANDS = {CLASSIFIER: "asymmnet predict", DETECTOR: "asymmnet detect"}
# Fields in which the cards of one model may differ.
_MAY_DIFFER = ("class_names", "crop_ratio", "parity", "accuracy", "parameters", "macs")
AGREEMENT = "agreement"  # share of images with float32's best class


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """What a reduced precision makes of a set of images, measured at export."""

    measure: str  # top-1, mAP, or agreement where the images have no labels
    value: float  # 0 to 1
    images: int
    f32: Optional[float] = None  # the same of float32; None for agreement
    processor: Optional[str] = None  # on which it was measured: others may round otherwise

    def __str__(self) -> str:
        of_f32 = "" if self.f32 is None else f"f32 {100 * self.f32:.2f} %, "
        return f"{self.measure} {100 * self.value:.2f} % ({of_f32}{self.images:,} images)"


@dataclasses.dataclass(frozen=True)
class Card:
    """The part of a card that classifiers and detectors share; subclasses have a ``kind``."""

    model: str
    input_size: int  # height and width, pixels
    class_names: Optional[list[str]] = None
    rgb_mean: tuple[float, ...] = IMAGENET_MEAN
    rgb_std: tuple[float, ...] = IMAGENET_STD
    parameters: Optional[int] = None
    parity: Optional[dict] = None  # differences between exported files and the net, by engine
    accuracy: Optional[dict] = None  # fields of Accuracy by engine and precision: "openvino bf16"

    def accuracy_in(self, what: str) -> Optional[Accuracy]:
        """Return what was measured for an engine and precision, e.g. ``openvino bf16``, or None.

        Raises: FormatError for a damaged entry.
        """
        found = (self.accuracy or {}).get(what)
        if found is None:
            return None
        where = f"the accuracy of {what} in {_CARD}"
        if not isinstance(found, dict):
            raise FormatError(f"{where} is {reprlib.repr(found)}, expected an object")
        return make(Accuracy, found, where, "an accuracy")

    @property
    def normalization(self) -> Normalization:
        """The normalisation of the resized image."""
        return Normalization(self.rgb_mean, self.rgb_std)

    def text(self) -> str:
        """Return the card as JSON; ``parse_card`` reads it."""
        values = {json_key(f): getattr(self, f.name) for f in dataclasses.fields(self)}
        return json.dumps(values, indent=1) + "\n"

    def save(self, path) -> None:
        """Write the card, all or nothing."""
        write_text(path, self.text())

    def check(self) -> None:
        """Raise ValueError for a value that would fail later, as an array of the wrong shape."""
        _check_range("input_size", self.input_size, 1, 10**5)
        mean, std = self.rgb_mean, self.rgb_std
        finite = all(map(math.isfinite, (*mean, *std)))
        if len(mean) != 3 or len(std) != 3 or not finite or min(std) <= 0:
            raise ValueError(
                f"rgb_mean {reprlib.repr(mean)} and rgb_std {reprlib.repr(std)}: expected three "
                f"values each, the deviations above 0"
            )


@dataclasses.dataclass(frozen=True)
class ClassifierCard(Card):
    """The card of a classifier."""

    kind = CLASSIFIER  # not in the JSON: these cards are older than those of detectors

    model: str = "asymmnet_large"
    input_size: int = 224
    width: float = 1.0
    rate: int = 1
    shuffle_groups: int = 0
    stem: str = "authors"
    classes: int = 1000
    norm: str = "batch"  # the only one, as is the interpolation
    crop_ratio: float = 0.875
    interpolation: str = "bilinear"
    macs: Optional[int] = None
    spec: Optional[dict] = None  # content of the spec file, if the net comes from one
    imports: Optional[list[str]] = None  # the modules that register the model, if it is a user's

    @classmethod
    def of(cls, spec: ModelSpec, **fields) -> "ClassifierCard":
        """Return the card of a model; ``fields`` are those that are not in ``spec``."""
        identity = spec._asdict()
        return cls(model=identity.pop("name"), **identity, **fields)

    @property
    def model_spec(self) -> ModelSpec:
        """The net without its classes; InputError or FormatError if it is unknown."""
        if self.imports and not self._identity.needs_own:
            # not imported here: a card must not run code
            raise InputError(
                f"the model {self.model} comes from the module {', '.join(self.imports)}: add "
                f"{' '.join(f'--import {name}' for name in self.imports)}"
            )
        return ModelSpec.parse(
            self.model, width=self.width, rate=self.rate, shuffle_groups=self.shuffle_groups,
            stem=self.stem, spec=self.spec,
        )  # fmt: skip

    @property
    def id(self) -> str:
        """The full name, e.g. ``asymmnet_large_w0.75_r1``."""
        return self._identity.id if self.imports else self.model_spec.id

    @property
    def _identity(self) -> ModelSpec:
        """The net as the card has it, known or not."""
        return ModelSpec(self.model, self.width, self.rate, spec=self.spec)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of an image."""
        return Preprocessing(self.input_size, self.crop_ratio, self.normalization)

    def check(self) -> None:
        """See ``Card.check``."""
        super().check()
        _check_range("classes", self.classes, 1, 10**6)
        for name in ("model", "stem"):
            if len(getattr(self, name)) > 100:
                raise ValueError(f"{name} has {len(getattr(self, name))} characters")
        for name, only in (("norm", "batch"), ("interpolation", "bilinear")):
            if getattr(self, name) != only:
                raise ValueError(f"{name} is {reprlib.repr(getattr(self, name))}, expected {only}")
        if not 0 < self.crop_ratio <= 1:
            raise ValueError(f"crop_ratio is {self.crop_ratio:g}, expected above 0 and at most 1")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"{len(self.class_names)} class names for {self.classes} classes")


@dataclasses.dataclass(frozen=True)
class DetectorCard(Card):
    """The card of a detector; ``model`` is its name with data set, as ``get_model`` takes it."""

    nms_thresh: float = NMS_IOU  # these three as in ``SSD.set_nms``
    nms_topk: int = NMS_TOP
    post_nms: int = NMS_KEPT
    # boxes with a lower score are dropped before suppression
    score_threshold: float = dataclasses.field(
        default=SCORE_THRESHOLD, metadata={"key": "least_score"}
    )
    kind: str = DETECTOR

    @property
    def detector_spec(self) -> DetectorSpec:
        """The detector as data."""
        return parse_detector(self.model).spec

    @property
    def id(self) -> str:
        """The full name, e.g. ``ssd_300_asymmnet_small_w0.5_r1``."""
        return self.detector_spec.id

    def check(self) -> None:
        """See ``Card.check``."""
        super().check()
        names, size = self.class_names, self.detector_spec.size
        if not names or not all(names) or len(set(names)) < len(names):
            raise ValueError(f"class_names are {reprlib.repr(names)}, expected different names")
        if self.input_size != size:
            raise ValueError(f"input_size is {self.input_size}, {self.model} takes {size}")
        for name in ("nms_topk", "post_nms"):
            if getattr(self, name) != -1:
                _check_range(name, getattr(self, name), 1, 10**9)
        _check_range("least_score", self.score_threshold, 0, 1)
        if not math.isfinite(self.nms_thresh):
            raise ValueError(f"nms_thresh is {self.nms_thresh}, expected a number")


def _check_range(name: str, value, low, high) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, expected a number from {low} to {high}")


def differences(card: Card, other: Card) -> list[str]:
    """Return in what the cards of one model must agree and do not, as "input_size 32 and 64"."""
    names = [f.name for f in dataclasses.fields(card) if f.name not in _MAY_DIFFER]
    values = [(name, getattr(card, name), getattr(other, name)) for name in names]
    found = [f"{name} {mine} and {theirs}" for name, mine, theirs in values if mine != theirs]
    mine, theirs = card.class_names, other.class_names
    # Other names may be a translation; the same ones elsewhere are another model's.
    if mine and theirs and mine != theirs and sorted(mine) == sorted(theirs):
        found.append("class_names in another order")
    return found


def read_card(path, kind: Optional[str] = None) -> Card:
    """Read a card that ``Card.save`` wrote.

    Args:
        kind: CLASSIFIER or DETECTOR, if only one of them fits.

    Raises: FileNotFoundError; FormatError if it is damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the card of an exported model")
    return parse_card(path.read_bytes(), path, kind)


def parse_card(data, where, kind: Optional[str] = None) -> Card:
    """Read the JSON of a card, text or bytes; ``where`` is the file that contains it.

    ``kind`` and errors are those of ``read_card``.
    """
    settings = parse_object(data, where, _CARD)
    card_class = DetectorCard if settings.get("kind") == DETECTOR else ClassifierCard
    found = card_class.kind
    if kind not in (None, found):
        raise FormatError(
            f"{where} is the card of a {found}, not of a {kind}: `{_COMMANDS[found]}` runs it"
        )
    card = make(card_class, settings, where, _CARD, complete=True)
    try:
        card.check()
    except ValueError as error:
        raise FormatError(f"{where}: not {_CARD}: {error}") from None
    return card


def card_beside(path, kind: str) -> Optional[Card]:
    """Return the card of the run or exported folder that ``path`` is, or that it is in, or None.

    Raises: FormatError if it is damaged or of another kind.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    # a checkpoint's file is in RUN/checkpoints/step-...
    cards = [place / CARD_FILE for place in (folder, folder.parent.parent)]
    return next((read_card(card, kind) for card in cards if card.is_file()), None)
