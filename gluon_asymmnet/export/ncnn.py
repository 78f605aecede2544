"""Export for ncnn, from the ONNX file through pnnx, in single and half precision."""

import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.errors import RunError
from gluon_asymmnet.export.folder import AnyParity, export_folder
from gluon_asymmnet.export.onnx.export import OnnxForm, limit_of, to_onnx
from gluon_asymmnet.export.onnx.joins import BEFORE
from gluon_asymmnet.export.parity import require
from gluon_asymmnet.predict.engines import NCNN, NCNN_HALF, Ncnn
from gluon_asymmnet.saved import Saved
from gluon_asymmnet.utils.extras import load_extra
from gluon_asymmnet.utils.extras import require as require_installed

HALF_LIMIT = 2e-2  # relative: weights with 11 bits, some hundred layers
_TIMEOUT = 600  # seconds for pnnx
_REASON = 300  # characters of its output that are shown


def export_ncnn(model: Saved, out, *, images: Optional[np.ndarray] = None) -> Path:
    """Write ncnn's files and ``card.json``, all or nothing.

    ``<variant>.ncnn.param`` and ``.bin`` have single precision, ``<variant>.ncnn-fp16.param`` and
    ``.bin`` weights of half precision.  Input ``in0`` is ``(3, S, S)``, normalised, S the card's
    ``input_size``; outputs are ``out0``, logits ``(classes,)``, or a detector's ``out0``, scores
    ``(A, classes)``, and ``out1``, corners ``(A, 4)``, before suppression.

    Args:
        model: a classifier, or the exported symbol of one; or a detector.
        out: a folder that does not exist yet.
        images: ``(n, 3, S, S)`` float32 to compare on; synthetic by default.

    Raises:
        InputError: if ``out`` exists, onnx, pnnx or ncnn is missing, or the network has an operator
            that ONNX lacks.
        RunError: if pnnx fails, or outputs differ as in ``export_onnx``; in half precision, by more
            than 2e-2.
    """
    return export_folder(model, out, [write_ncnn], images)


def write_ncnn(model: Saved, folder: Path, images: np.ndarray) -> dict[str, AnyParity]:
    """Write the files into ``folder``; raise RunError if their outputs differ."""
    onnx, program = load_extra("onnx"), _pnnx()
    load_extra("ncnn")
    expected, side = model.outputs_before_nms(images), model.card.input_size
    parity = {}
    for suffix, name, limit in (
        (NCNN, "ncnn", limit_of(model)), (NCNN_HALF, "ncnn-fp16", HALF_LIMIT),
    ):  # fmt: skip
        path = folder / f"{model.card.id}{suffix}"
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "model.onnx"
            onnx.save(to_onnx(model, OnnxForm(joins=BEFORE)), source)
            _convert(program, source, side, half=suffix == NCNN_HALF)
            for end in (".param", ".bin"):
                shutil.copyfile(source.with_suffix(f".ncnn{end}"), path.with_suffix(end))
        parity[name] = require(
            f"the {name} file", expected, Ncnn(path, side=side).run, images, limit
        )
    return parity


def _pnnx() -> Path:
    """Return the program, without importing its package, which imports PyTorch."""
    require_installed("pnnx")
    (folder,) = importlib.util.find_spec("pnnx").submodule_search_locations
    return Path(folder) / "pnnx"


def _convert(program: Path, source: Path, side: int, half: bool) -> None:
    """Convert ``model.onnx`` to ``model.ncnn.param`` and ``.bin`` beside it."""
    command = [program, source.name, f"inputshape=[1,3,{side},{side}]", f"fp16={int(half)}"]
    try:
        done = subprocess.run(
            command, cwd=source.parent, capture_output=True, text=True, errors="replace",
            timeout=_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RunError(f"pnnx did not end within {_TIMEOUT} s") from None
    if done.returncode or not source.with_suffix(".ncnn.bin").is_file():
        said = " ".join(f"{done.stdout} {done.stderr}".split())[-_REASON:]
        raise RunError(f"pnnx cannot convert the network (exit status {done.returncode}): {said}")
