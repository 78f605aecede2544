"""Sets with some of a model's classes, or with several right labels per image.

A label map is a JSON file.  An object maps each class of the set, by its name, to a class of the
model, a number or a name: ``{"n01498041": 6, ...}`` for ImageNet-A and -R, ``{"0": 0, ...}``
for the folders of ImageNet-V2.  Only these classes are then predicted, as the authors of -A and -R
do.  A list has the right labels of each image, as ``real.json`` of ImageNet-ReaL; images with none
are not scored.
"""

import json
from pathlib import Path
from typing import Callable, NamedTuple, Optional

import numpy as np

from gluon_asymmnet.data.class_names import match_classes, quote_names
from gluon_asymmnet.data.sources import RelabelledSource
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.classification import Evaluation, wilson_interval

_WHAT = "a label map: an object of classes, or a list with a list of labels per image"
_NEVER = -1e30  # logit of a class that is not predicted


class LabelMap(NamedTuple):
    """The content of a file; one of the two is None."""

    path: str
    classes: Optional[dict]  # class of the set -> class of the model, a number or a name
    labels: Optional[list[list[int]]]  # of each image


def read_label_map(path) -> LabelMap:
    """Read a label map.  Raises: FormatError; FileNotFoundError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {_WHAT}")
    try:
        found = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not {_WHAT}: {error}") from None
    if isinstance(found, dict) and found:
        if not all(type(value) in (int, str) for value in found.values()):
            raise FormatError(f"{path}: a class of the model is a whole number or a name")
        return LabelMap(str(path), found, None)
    if not isinstance(found, list) or not all(
        isinstance(item, list) and all(type(label) is int for label in item) for item in found
    ):
        raise FormatError(f"{path}: not {_WHAT}")
    return LabelMap(str(path), None, found)


def map_source(source, label_map: LabelMap, card) -> tuple[RelabelledSource, list[int]]:
    """Return the source with the labels of the model, and the classes that can be predicted.

    Raises: InputError for a class of the source that is not in the map, or one of the map that the
        model does not have.
    """
    if source.class_names is None:
        raise InputError(f"{source.path} has no class names, by which {label_map.path} maps them")
    missing = [name for name in source.class_names if name not in label_map.classes]
    if missing:
        raise InputError(f"{label_map.path} lacks classes of {source.path}: {quote_names(missing)}")
    model_names = card.class_names or [str(label) for label in range(card.classes)]
    wanted = [label_map.classes[name] for name in source.class_names]
    for label in wanted:
        if type(label) is int and not 0 <= label < card.classes:
            raise InputError(
                f"{label_map.path}: {label} is not one of the model's {card.classes} classes"
            )
    wanted = [model_names[label] if type(label) is int else label for label in wanted]
    if card.class_names and len(set(model_names)) < len(model_names):  # e.g. ImageNet's "crane"
        raise InputError("the model has several classes of one name: they cannot be mapped")
    labels = [match_classes([name], model_names, label_map.path, "the model")[0] for name in wanted]
    return RelabelledSource(source, labels, model_names), sorted(set(labels))


def restricted(predict: Callable, classes: list[int]) -> Callable:
    """Return ``predict`` with the logits of all other classes far below every other."""

    def predict_some(images: np.ndarray) -> np.ndarray:
        logits = np.array(predict(images), np.float32)
        others = np.setdiff1d(np.arange(logits.shape[1]), classes)
        logits[:, others] = _NEVER
        return logits

    return predict_some


class Score(NamedTuple):
    """Accuracy where any of an image's labels is right."""

    images: int
    top1: float
    top5: float
    interval: tuple[float, float]  # 95 % of top1
    unlabelled: int  # images without a label, not scored


def score(result: Evaluation, label_map: LabelMap) -> Score:
    """Score predictions by the labels of each image.

    Raises: InputError if all images lack labels.
    """
    sets = [label_map.labels[position] for position in result.positions]
    hits = [
        (ranked[0] in labels, bool(set(ranked.tolist()) & set(labels)))
        for ranked, labels in zip(result.ranked, sets)
        if labels
    ]
    if not hits:
        raise InputError(f"{label_map.path}: no image has a label")
    top1, top5 = (sum(column) / len(hits) for column in zip(*hits))
    interval = wilson_interval(round(top1 * len(hits)), len(hits))
    return Score(len(hits), top1, top5, interval, len(sets) - len(hits))


def results_row(card, found) -> str:
    """Return a head and a row with the columns of timm's results; ``found`` has top1 and top5."""
    shares = (found.top1, 1 - found.top1, found.top5, 1 - found.top5)
    numbers = ",".join(f"{100 * share:.3f}" for share in shares)
    millions = f"{card.parameters / 1e6:.2f}" if card.parameters else ""
    return (
        "model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation\n"
        f"{card.id},{numbers},{millions},{card.input_size},{card.crop_ratio:g},{card.interpolation}"
    )
