"""Export as ONNX, compared with the network through ONNX Runtime."""

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import NetPlan
from gluon_asymmnet.card import DETECTOR
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.folder import AnyParity, export_folder, with_costs
from gluon_asymmnet.export.onnx.builder import build_symbol_graph
from gluon_asymmnet.export.onnx.detector_graph import build_detector_graph
from gluon_asymmnet.export.onnx.graph import OnnxForm, build_graph, set_card
from gluon_asymmnet.export.parity import DETECTOR_LIMIT, require
from gluon_asymmnet.predict.engines import OnnxRuntime
from gluon_asymmnet.saved import Saved, card_id
from gluon_asymmnet.utils.extras import load_extra
from gluon_asymmnet.weights.layouts import entries, exported_names

LIMIT = 1e-4  # relative: other kernels, and the batch normalisation folded


def export_onnx(
    model: Saved,
    out,
    *,
    opset: int = 13,
    ir_version: int = 8,
    hard_swish: Optional[str] = None,
    images: Optional[np.ndarray] = None,
) -> Path:
    """Write ``out/<variant>.onnx`` and ``card.json``, all or nothing.

    The file takes any batch size and carries the card in its metadata, so it can travel alone.

    Args:
        model: a classifier, or the exported symbol of one; or a detector.
        out: a folder that does not exist yet.
        opset: 13 to 17.
        ir_version: of the file format; 8 is read by every runtime since 2021.
        hard_swish: ``op`` (opset 14 on), ``hardsigmoid`` or ``clip``; the best by default.
        images: ``(n, 3, S, S)`` float32 to compare on; made here by default.

    Raises:
        InputError: if ``out`` exists, onnx or onnxruntime is missing, the form cannot be written,
            or the network has group normalisation or, a related one, an operator ONNX has not.
        RunError: if ONNX Runtime's logits differ by more than 1e-4 of the largest; a detector's
            scores by 1e-3, or boxes by 1e-3 of the input's side.
    """
    form = OnnxForm(opset, ir_version, hard_swish)
    return export_folder(model, out, [functools.partial(write_onnx, form=form)], images)


def write_onnx(
    model: Saved, folder: Path, images: np.ndarray, form: Optional[OnnxForm] = None
) -> dict[str, AnyParity]:
    """Write the ONNX file into ``folder``; raise RunError if it differs from the network."""
    onnx = load_extra("onnx")
    load_extra("onnxruntime")
    proto = to_onnx(model, form)
    path = folder / f"{card_id(model.card)}.onnx"
    onnx.save(proto, path)
    run = OnnxRuntime(path).run
    limit = limit_of(model)
    parity = {
        "onnxruntime": require(
            "the ONNX file", model.outputs_before_nms(images), run, images, limit
        )
    }
    set_card(proto, with_costs(model.card, parity, len(images)))
    onnx.save(proto, path)
    return parity


def limit_of(model: Saved) -> float:
    """Return how far a network's ONNX or OpenVINO form may be from it."""
    return DETECTOR_LIMIT if model.card.kind == DETECTOR else LIMIT


def to_onnx(model: Saved, form: Optional[OnnxForm] = None):
    """Return the ``onnx.ModelProto`` of a network, its card without parity."""
    card = with_costs(model.card)
    if card.kind == DETECTOR:
        return build_detector_graph(_arrays(model), card, form)
    if card.model_spec.family_model is not None:
        return build_symbol_graph(model.net, card, form)
    plan = card.model_spec.plan()
    return build_graph(plan, _arrays(model, plan), card, form)


def _arrays(model: Saved, plan: Optional[NetPlan] = None) -> dict[str, np.ndarray]:
    """Return the network's arrays by their structural names, an exported symbol's as well."""
    if not isinstance(model.net, mx.gluon.SymbolBlock):
        params = model.net._collect_params_with_prefix()
        return {name: param.data().asnumpy() for name, param in params.items()}
    card, params = model.card, model.net.collect_params()
    if plan is None:
        raise InputError(
            f"{model.weights.parent} is an exported symbol, with the suppression inside: export "
            f"the run it came from"
        )
    names = exported_names(f"{card_id(card)}_", plan, card.classes)
    ours = [entry.name for entry in entries(plan, card.classes)]
    return {o: params[n].data().asnumpy() for o, n in zip(ours, names) if n in params}
