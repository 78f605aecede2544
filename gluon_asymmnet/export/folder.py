"""Write an exported folder: files that agree with the network, and one card."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional, Union

import numpy as np

from gluon_asymmnet.card import CARD_FILE, DETECTOR, Accuracy
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.parity import BoxParity, Parity, sample_images
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.utils.doctor import cpu_model

AnyParity = Union[Parity, BoxParity]
# write(model, folder, images): write the files of one format into the folder, compare their outputs
# on the images with the network's, and return the parity by the name of the engine
Writer = Callable[[object, Path, np.ndarray], dict[str, AnyParity]]

_SAMPLES = 4  # images to compare on if none are given


def export_folder(
    model,
    out,
    writers: Sequence[Writer],
    images: Optional[np.ndarray],
    measure: Optional[Callable[[Path], dict[str, Accuracy]]] = None,
) -> Path:
    """Write the files of every writer and ``card.json`` to the folder ``out``, all or nothing.

    Args:
        model: the ``Saved`` model.
        out: a folder that does not exist yet.
        images: ``(n, 3, S, S)`` float32, S the card's input size, to compare on; None: synthetic.
        measure: from the written folder to the accuracies for its card.

    Raises: RunError if a file differs from the network; InputError if ``out`` exists or the images
        have another shape.
    """
    card, out = model.card, Path(out)
    if out.suffix in (".onnx", ".xml", ".json", ".params"):
        raise InputError(f"{out} is to be a folder; the files in it are named after the model")
    side = card.input_size
    if images is None:
        images = sample_images(_SAMPLES, side)
    if images.ndim != 4 or not len(images) or images.shape[1:] != (3, side, side):
        raise InputError(f"images to compare on must be (n, 3, {side}, {side}), got {images.shape}")
    with new_folder(out) as scratch:
        parity = {}
        for write in writers:
            parity.update(write(model, scratch, images))
        card = with_costs(card, parity, len(images))
        card.save(scratch / CARD_FILE)
        if measure:
            with_accuracy(card, measure(scratch)).save(scratch / CARD_FILE)
    return out


def with_costs(card, parity: Optional[dict[str, AnyParity]] = None, images: int = 0):
    """Return the card with counts and, if it is known, parity on so many images filled in.

    The accuracies of an earlier export, of other files, are left out.
    """
    known = parity and {name: {"images": images, **p._asdict()} for name, p in parity.items()}
    card = dataclasses.replace(card, parity=known, accuracy=None)
    if card.kind == DETECTOR:
        return card
    cost = count_model(card.model_spec, classes=card.classes, input_size=card.input_size)
    return dataclasses.replace(card, parameters=cost.parameters, macs=cost.macs)


def with_accuracy(card, measured: dict[str, Accuracy]):
    """Return the card with what was measured on this processor, by engine and precision."""
    found = {
        name: {**dataclasses.asdict(accuracy), "processor": cpu_model()}
        for name, accuracy in measured.items()
    }
    return dataclasses.replace(card, accuracy=found)
