"""Export as OpenVINO's IR, compared with the network in float32."""

from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.data.bad_records import LeftOut
from gluon_asymmnet.export.accuracy import to_measure
from gluon_asymmnet.export.folder import AnyParity, export_folder
from gluon_asymmnet.export.onnx.export import CARD_KEY, OnnxForm, limit_of, to_onnx
from gluon_asymmnet.export.onnx.joins import BEHIND
from gluon_asymmnet.export.parity import require
from gluon_asymmnet.predict.engines import RT_INFO, OpenVino
from gluon_asymmnet.saved import Saved
from gluon_asymmnet.utils.extras import load_extra

_OPSET = 17  # with the HardSwish operator, the only form that OpenVINO fuses


def export_openvino(
    model: Saved, out, *, joins: str = BEHIND, images: Optional[np.ndarray] = None,
    bf16=None, left_out: Optional[LeftOut] = None,
) -> Path:  # fmt: skip
    """Write ``out/<variant>.xml``, ``.bin`` and ``card.json``, all or nothing.

    Weights stay float32; the arithmetic, float32 or bfloat16, is chosen when the files are opened
    (``Predictor(..., precision="bf16")``).  The comparison runs in float32.

    Args:
        model: a classifier, or the exported symbol of one; or a detector.
        out: a folder that does not exist yet.
        joins: as of ``export_onnx``.
        images: ``(n, 3, S, S)`` float32 to compare on; synthetic by default.
        bf16: the data on which the card's accuracy in bfloat16 is measured, see ``measure_bf16``;
            None: it is not measured.
        left_out: takes damaged images of ``bf16``; without it the first one is an error.

    Raises:
        InputError: if ``out`` exists, onnx or openvino is missing, the network has an operator
            that ONNX lacks, such as group normalisation, or bfloat16 cannot be measured here.
        RunError: if OpenVINO's logits differ by more than 1e-4 of the largest; a detector's scores
            by 1e-3, or boxes by 1e-3 of the input's side.
    """
    return export_folder(
        model, out, [partial(write_openvino, joins=joins)], images, to_measure(bf16, left_out)
    )


def write_openvino(
    model: Saved, folder: Path, images: np.ndarray, joins: str = BEHIND
) -> dict[str, AnyParity]:
    """Write the IR into ``folder``; raise RunError if it differs from the network."""
    path = folder / f"{model.card.id}.xml"
    save_ir(to_ir(model, joins), path)
    run = OpenVino(path, precision="f32").run
    return {
        "openvino": require(
            "the IR", model.outputs_before_nms(images), run, images, limit_of(model)
        )
    }


def to_ir(model: Saved, joins: str = BEHIND):
    """Return the ``openvino.Model`` of a network, with its card, without parity."""
    openvino = load_extra("openvino")
    proto = to_onnx(model, OnnxForm(_OPSET, joins=joins))
    # Not openvino.convert_model: for ONNX it only adds telemetry to read_model.
    converted = openvino.Core().read_model(proto.SerializeToString(), b"")
    set_ir_card(converted, next(e.value for e in proto.metadata_props if e.key == CARD_KEY))
    return converted


def set_ir_card(model, text: str) -> None:
    """Store a card's text in an ``openvino.Model``."""
    model.set_rt_info(text, list(RT_INFO))


def save_ir(model, path: Path) -> None:
    """Write ``path`` and its ``.bin``, without compressing the weights."""
    load_extra("openvino").save_model(model, str(path), compress_to_fp16=False)
