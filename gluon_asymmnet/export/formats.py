"""Export in several formats into one folder with one card."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.data.bad_records import LeftOut
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.accuracy import to_measure
from gluon_asymmnet.export.folder import export_folder
from gluon_asymmnet.export.onnx.export import OnnxForm, write_onnx
from gluon_asymmnet.export.openvino import write_openvino
from gluon_asymmnet.export.symbol import write_symbol
from gluon_asymmnet.saved import Saved
from gluon_asymmnet.utils.extras import load_extra

# format -> its writer, and the libraries that it needs
_WRITERS = {
    "symbol": (write_symbol, ()),
    "onnx": (write_onnx, ("onnx", "onnxruntime")),
    "openvino": (write_openvino, ("onnx", "openvino")),
}
FORMATS = tuple(_WRITERS)


def export_all(
    model: Saved,
    out,
    *,
    form: Optional[OnnxForm] = None,
    images: Optional[np.ndarray] = None,
    formats: Sequence[str] = FORMATS,
    bf16=None,
    left_out: Optional[LeftOut] = None,
) -> Path:
    """Write symbol, parameters, ONNX, IR and one card with their parities, all or nothing.

    Args:
        model: a classifier or a detector, from ``saved.open_saved``.
        formats: those to write, of ``FORMATS``.

    Other args and errors are those of ``export_symbol``, ``export_onnx`` and ``export_openvino``.
    """
    unknown = [name for name in formats if name not in _WRITERS]
    if unknown or not formats:
        raise InputError(f"formats must be some of {', '.join(FORMATS)}, got {list(formats)}")
    if bf16 is not None and "openvino" not in formats:
        raise InputError(f"bf16 is OpenVINO's, which is not among the formats {list(formats)}")
    chosen = {name: _WRITERS[name] for name in FORMATS if name in formats}
    for _, libraries in chosen.values():
        for library in libraries:
            load_extra(library)  # before any work
    measure, form = to_measure(bf16, left_out), form or OnnxForm()
    settings = {"symbol": {}, "onnx": {"form": form}, "openvino": {"joins": form.joins}}
    writers = [functools.partial(write, **settings[name]) for name, (write, _) in chosen.items()]
    return export_folder(model, out, writers, images, measure)
