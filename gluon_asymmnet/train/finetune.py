"""Fine-tuning: the settings that follow from the weights it starts from, and what it takes."""

from pathlib import Path
from typing import Any, Optional

from gluon_asymmnet.card import CLASSIFIER, DETECTOR, Card, card_beside
from gluon_asymmnet.data.class_names import quote_names
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.weights.published import PUBLISHED

SMALLER_RATE = 0.1  # of the usual peak learning rate of a classifier
_IDENTITY = ("model", "width", "rate", "doshuffle", "shuffle_group", "stem")
EXPECTED = "a run directory, an exported folder, a .params file, or 'published'"


def source_card(source: str, kind: str) -> Optional[Card]:
    """Return the card of the weights that ``--finetune`` names, or None.

    Raises: InputError if there is no such file; FormatError for a card that is damaged or of
        another kind.
    """
    if source == PUBLISHED and kind == CLASSIFIER:
        return None
    if not Path(source).exists():
        raise InputError(f"--finetune {source}: no such file or folder; expected {EXPECTED}")
    return card_beside(source, kind)


def classifier_settings(given: dict[str, Any], usual_lr: float) -> dict[str, Any]:
    """Return the settings of a fine-tuned classifier that are not given.

    Network, input and normalisation are those of the weights; the peak learning rate is a tenth of
    ``usual_lr``.

    Raises: InputError if the network is not known.
    """
    source = given["finetune"]
    card = source_card(source, CLASSIFIER)
    found: dict[str, Any] = {"lr": usual_lr * SMALLER_RATE}
    if card is not None:
        found.update(input_size=card.input_size, crop_ratio=card.crop_ratio,
                     rgb_mean=card.rgb_mean, rgb_std=card.rgb_std)  # fmt: skip
    if not any(name in given for name in _IDENTITY):
        found.update(_identity(card, source))
    return found


def _identity(card, source: str) -> dict[str, Any]:
    if source == PUBLISHED:
        return {"model": "asymmnet_large"}
    if card is None or card.spec:
        what = "its network is of a spec file" if card else "no card beside it names its network"
        raise InputError(f"--finetune {source}: {what}; add --model")
    found = {"model": card.model, "width": card.width, "rate": card.rate, "stem": card.stem}
    if card.shuffle_groups:
        found.update(doshuffle=True, shuffle_group=card.shuffle_groups)
    return found


def detector_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a fine-tuned detector that are not given.

    The learning rate stays: GluonCV's tutorial "Finetune a pretrained detection model" uses that of
    its training from a classifier, 0.001.
    """
    card = source_card(given["finetune"], DETECTOR)
    if card is None:
        raise InputError(
            f"--finetune {given['finetune']}: no card.json beside it names its classes; give the "
            f"directory of a detector's run"
        )
    spec = card.detector_spec
    network = card.model[len(f"{spec.head}_{spec.size}_") :].rpartition("_")[0]
    return {"network": network, "data_shape": spec.size, "head": spec.head,
            "rgb_mean": card.rgb_mean, "rgb_std": card.rgb_std}  # fmt: skip


def describe_start(weights, names, old_names, rows: dict[int, int]) -> str:
    """Return the line of the log about what a fine-tuning took from ``weights``.

    Args:
        names, old_names: class names of the data and of the weights; None: not known.
        rows: new class -> old class, those copied.
    """
    start = f"fine-tuning from {weights}: loaded all but the classifier"
    if not names or not old_names:
        who = "the data have" if not names else "the weights have"
        return f"{start}, which is new: {who} no class names"
    copied = [name for label, name in enumerate(names) if label in rows]
    fresh = [name for label, name in enumerate(names) if label not in rows]
    left = [name for label, name in enumerate(old_names) if label not in rows.values()]
    parts = [(copied, "copied by name"), (fresh, "new"), (left, "of the weights left out")]
    told = (f"{len(listed)} {what} ({quote_names(listed)})" for listed, what in parts if listed)
    return f"{start}; its classes: {', '.join(told)}"
