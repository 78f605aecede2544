"""Export as static symbol and parameters, for all languages of MXNet."""

from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import DETECTOR
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.folder import AnyParity, export_folder
from gluon_asymmnet.export.parity import DETECTOR_LIMIT, require
from gluon_asymmnet.models.asymmnet import AsymmNet, fold_for_inference
from gluon_asymmnet.saved import PARAMS_SUFFIX, SYMBOL_SUFFIX, Saved, import_symbol

LIMIT = 1e-5  # relative; the reloaded graph runs the same operators
# relative; batch normalisation is folded: here, or by oneDNN when mx.mod.Module binds the graph
FOLDED_LIMIT = 1e-4


def export_symbol(
    model: Saved, out, images: Optional[np.ndarray] = None, *, optimized: bool = False
) -> Path:
    """Write ``out/<variant>-symbol.json``, ``-0000.params`` and ``card.json``, all or nothing.

    A detector's has three outputs, ids, scores and boxes, after suppression.

    The files are read back with ``SymbolBlock.imports`` and with ``mx.mod.Module`` and compared
    with the network first.

    Args:
        model: the network; not itself an exported symbol.
        out: a folder that does not exist yet.
        images: ``(n, 3, S, S)`` float32 to compare on; synthetic by default.
        optimized: write the faster graph of ``net.optimize_for_inference()``; it has only MXNet's
            own operators, but cannot be trained.

    Raises: RunError if a reloaded graph differs; InputError if ``out`` exists.
    """
    return export_folder(model, out, [partial(write_symbol, optimized=optimized)], images)


def write_symbol(
    model: Saved, folder: Path, images: np.ndarray, optimized: bool = False
) -> dict[str, AnyParity]:
    """Write the symbol and its parameters into ``folder``; raise RunError if they differ."""
    if isinstance(model.net, mx.gluon.SymbolBlock):
        raise InputError(f"{model.weights.parent} is an exported symbol already: copy the folder")
    if optimized and not isinstance(model.net, AsymmNet):
        raise InputError(
            "--optimized is for AsymmNet and MobileNetV3; others run faster from ONNX or IR"
        )
    prefix = folder / model.card.id
    expected = model.outputs(images)
    net, limit, folded = model.net, LIMIT, FOLDED_LIMIT
    if model.card.kind == DETECTOR:
        limit = folded = DETECTOR_LIMIT
    if optimized:
        net, limit = fold_for_inference(net), folded
        net.hybridize()
        net(mx.nd.array(images))
    net.export(str(prefix))
    symbol, weights = Path(f"{prefix}{SYMBOL_SUFFIX}"), Path(f"{prefix}{PARAMS_SUFFIX}")
    block = import_symbol(symbol, weights)
    return {
        "SymbolBlock": require(
            "the reloaded symbol", expected, lambda x: _block_run(block, x), images, limit
        ),
        "Module": require(
            "the symbol in mx.mod.Module", expected, lambda x: _module_run(prefix, x),
            images, folded,
        ),
    }  # fmt: skip


def _block_run(block, images: np.ndarray) -> list[np.ndarray]:
    outputs = block(mx.nd.array(images))
    return [o.asnumpy() for o in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


def _module_run(prefix: Path, images: np.ndarray) -> list[np.ndarray]:
    symbol, arguments, auxiliary = mx.model.load_checkpoint(str(prefix), 0)
    module = mx.mod.Module(symbol, data_names=["data"], label_names=None, context=mx.cpu())
    module.bind(data_shapes=[("data", images.shape)], for_training=False)
    module.set_params(arguments, auxiliary)
    module.forward(mx.io.DataBatch([mx.nd.array(images)]), is_train=False)
    return [output.asnumpy() for output in module.get_outputs()]
