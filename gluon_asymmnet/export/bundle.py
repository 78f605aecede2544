"""Export in several forms at once, into one folder with one card."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.folder import export_folder
from gluon_asymmnet.export.onnx.export import write_onnx
from gluon_asymmnet.export.onnx.graph import OnnxForm
from gluon_asymmnet.export.openvino import write_openvino
from gluon_asymmnet.export.symbol import write_symbol
from gluon_asymmnet.saved import Saved
from gluon_asymmnet.utils.extras import load_extra

# form -> what writes it, and the libraries that it needs
_FORMS = {
    "symbol": (write_symbol, ()),
    "onnx": (write_onnx, ("onnx", "onnxruntime")),
    "openvino": (write_openvino, ("onnx", "openvino")),
}
FORMATS = tuple(_FORMS)


def export_all(
    model: Saved,
    out,
    *,
    form: Optional[OnnxForm] = None,
    images: Optional[np.ndarray] = None,
    formats: Sequence[str] = FORMATS,
) -> Path:
    """Write symbol, parameters, ONNX, IR and one card with the parity of each, all or nothing.

    Args:
        model: a classifier or a detector, from ``saved.open_saved``.
        formats: some of ``FORMATS``, to leave the others out.

    Other args and errors are those of ``export_symbol``, ``export_onnx`` and ``export_openvino``.
    """
    unknown = [name for name in formats if name not in _FORMS]
    if unknown or not formats:
        raise InputError(f"formats must be some of {', '.join(FORMATS)}, got {list(formats)}")
    chosen = {name: _FORMS[name] for name in FORMATS if name in formats}
    for _, libraries in chosen.values():
        for library in libraries:
            load_extra(library)  # before any work
    writers = [
        functools.partial(write, form=form) if name == "onnx" else write
        for name, (write, _) in chosen.items()
    ]
    return export_folder(model, out, writers, images)
