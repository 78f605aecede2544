"""Export as a static web page: the ONNX file, onnxruntime-web, a page and a JavaScript module."""

import functools
import shlex
import shutil
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.export.folder import AnyParity, export_folder
from gluon_asymmnet.export.onnx.export import OnnxForm, write_onnx
from gluon_asymmnet.export.onnx.joins import BEFORE
from gluon_asymmnet.export.web.runtime import copy_runtime
from gluon_asymmnet.saved import Saved

MODEL_FILE = "model.onnx"
RUNTIME_FOLDER = "ort"
SITE = Path(__file__).parent / "site"


def export_web(model: Saved, out, *, ort_from=None, images: Optional[np.ndarray] = None) -> Path:
    """Write a folder that any web server serves, all or nothing.

    It holds ``index.html``, ``asymmnet.js`` (the module, usable alone) with ``picture.js`` and
    ``resize.js``, the model as ``model.onnx``, ``card.json`` and, in ``ort/``, onnxruntime-web. The
    page loads nothing from elsewhere.  The preprocessing is that of ``Predictor`` and
    ``DetectorPredictor``; the same folder can be opened by them.

    Args:
        model: a classifier or a detector.
        out: a folder that does not exist yet.
        ort_from: where onnxruntime-web is, see ``runtime.copy_runtime``.
        images: ``(n, 3, S, S)`` float32 to compare on; synthetic by default.

    Raises: as ``export_onnx`` and ``runtime.copy_runtime``.
    """
    return export_folder(model, out, [functools.partial(_write, ort_from=ort_from)], images)


def how_to_open(folder) -> str:
    """Return the line that tells how to see the page."""
    return (
        f"serve this folder: python -m http.server --directory {shlex.quote(str(folder))}; then "
        f"open http://localhost:8000"
    )


def _write(model: Saved, folder: Path, images: np.ndarray, ort_from) -> dict[str, AnyParity]:
    runtime = folder / RUNTIME_FOLDER
    runtime.mkdir()
    copy_runtime(runtime, ort_from)  # first: it may fail
    parity = write_onnx(model, folder, images, OnnxForm(joins=BEFORE))
    (folder / f"{model.card.id}.onnx").rename(folder / MODEL_FILE)
    for file in SITE.iterdir():
        shutil.copyfile(file, folder / file.name)
    return parity
