"""Export as static symbol and parameters, the form MXNet's other languages read."""

import dataclasses
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet._environment import mx
from gluon_asymmnet.atomic import new_folder
from gluon_asymmnet.card import CARD_FILE, Card
from gluon_asymmnet.complexity import count
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.parity import require, sample_images
from gluon_asymmnet.saved import (
    PARAMS_SUFFIX,
    SYMBOL_SUFFIX,
    SavedModel,
    card_id,
    import_symbol,
)

LIMIT = 1e-5  # relative; the reloaded graph runs the same operators


def export_symbol(model: SavedModel, out, images: Optional[np.ndarray] = None) -> Path:
    """Write ``out/<variant>-symbol.json``, ``-0000.params`` and ``card.json``, all or nothing.

    The files are read back with ``SymbolBlock.imports`` and with ``mx.mod.Module`` and compared
    with the network first.

    Args:
        model: the network; not itself an exported symbol.
        out: a folder that does not exist yet.
        images: ``(n, 3, H, W)`` float32 to compare on; made here by default.

    Raises: RunError if a reloaded graph differs; InputError if ``out`` exists.
    """
    if isinstance(model.net, mx.gluon.SymbolBlock):
        raise InputError(f"{model.weights.parent} is an exported symbol already: copy the folder")
    card, out = model.card, Path(out)
    if images is None:
        images = sample_images(4, card.input_size)
    with new_folder(out) as scratch:
        prefix = scratch / card_id(card)
        expected = model.predict(images)
        model.net.export(str(prefix))
        symbol, weights = Path(f"{prefix}{SYMBOL_SUFFIX}"), Path(f"{prefix}{PARAMS_SUFFIX}")
        block = import_symbol(symbol, weights)
        parity = {
            "SymbolBlock": require(
                "the reloaded symbol", expected, lambda x: block(mx.nd.array(x)).asnumpy(),
                images, LIMIT,
            ),
            "Module": require(
                "the symbol in mx.mod.Module", expected, lambda x: _module_predict(prefix, x),
                images, LIMIT,
            ),
        }  # fmt: skip
        described(card, model.net, parity, len(images)).save(scratch / CARD_FILE)
    return out


def described(card: Card, net, parity: dict, images: int) -> Card:
    """Return the card with counts and parity filled in."""
    cost = count(net.plan, classes=card.classes, input_size=card.input_size)
    return dataclasses.replace(
        card,
        parameters=cost.parameters,
        macs=cost.macs,
        parity={name: {"images": images, **p._asdict()} for name, p in parity.items()},
    )


def _module_predict(prefix: Path, images: np.ndarray) -> np.ndarray:
    symbol, arguments, auxiliary = mx.model.load_checkpoint(str(prefix), 0)
    module = mx.mod.Module(symbol, data_names=["data"], label_names=None, context=mx.cpu())
    module.bind(data_shapes=[("data", images.shape)], for_training=False)
    module.set_params(arguments, auxiliary)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=False)
    return module.get_outputs()[0].asnumpy()
