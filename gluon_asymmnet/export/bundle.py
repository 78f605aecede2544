"""Export in every form at once, into one folder with one card."""

import functools
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.export.folder import export_folder
from gluon_asymmnet.export.onnx import write_onnx
from gluon_asymmnet.export.onnx_graph import OnnxForm
from gluon_asymmnet.export.openvino import write_openvino
from gluon_asymmnet.export.symbol import write_symbol
from gluon_asymmnet.extras import load_extra
from gluon_asymmnet.saved import SavedModel


def export_all(
    model: SavedModel, out, *, form: Optional[OnnxForm] = None, images: Optional[np.ndarray] = None
) -> Path:
    """Write symbol, parameters, ONNX, IR and one card with the parity of each, all or nothing.

    Args and errors are those of ``export_symbol``, ``export_onnx`` and ``export_openvino``.
    """
    for library in ("onnx", "onnxruntime", "openvino"):
        load_extra(library)  # before any work
    writers = (
        write_symbol,
        functools.partial(write_onnx, form=form),
        write_openvino,
    )
    return export_folder(model, out, writers, images)
