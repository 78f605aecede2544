"""Quantize OpenVINO's IR by NNCF; needs no MXNet, which wants an older NumPy than NNCF's newest."""

import contextlib
import io
import logging
from pathlib import Path

import numpy as np

from gluon_asymmnet.utils.extras import load_extra


def quantize_ir(path: Path, images: np.ndarray, in_float: tuple[str, ...] = ()):
    """Return the model of an IR in 8 bits, with NNCF's fast bias correction.

    Args:
        images: ``(n, 3, S, S)`` float32, preprocessed, for calibration.
        in_float: patterns of the operators that stay in float.
    """
    nncf, openvino = load_extra("nncf"), load_extra("openvino")
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints progress bars
        return nncf.quantize(
            openvino.Core().read_model(str(path)),
            nncf.Dataset([image[None] for image in images]),
            preset=nncf.QuantizationPreset.MIXED,  # the output of hard-swish is not symmetric
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(patterns=list(in_float), validate=False)
            if in_float
            else None,
        )
