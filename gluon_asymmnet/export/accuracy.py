"""What bfloat16 does to a model's answers, measured at export for its card."""

import math
from functools import partial
from pathlib import Path
from typing import Optional

import numpy as np

from gluon_asymmnet.card import AGREEMENT, CARD_FILE, DETECTOR, Accuracy, read_card
from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation import classification, detection
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.predict.detector import DetectorPredictor
from gluon_asymmnet.predict.engines import BF16, F32, computes_bf16

_BATCH = 32


def require_bf16() -> None:
    """Raise InputError on a processor on which bfloat16 cannot be measured."""
    if not computes_bf16():
        raise InputError(
            "the accuracy of bf16 is measured on a processor that computes in it: one with AMX or "
            "AVX-512, which this one has not; export there, or without bf16"
        )


def to_measure(data, left_out: Optional[LeftOut] = None):
    """Return ``measure_bf16`` on these data, for ``export_folder``; None without data."""
    if data is None:
        return None
    require_bf16()  # before the work
    return partial(measure_bf16, data=data, left_out=left_out)


def measure_bf16(folder: Path, data, left_out: Optional[LeftOut] = None) -> dict[str, Accuracy]:
    """Return the accuracy of OpenVINO's bfloat16 on all of ``data``, by engine and precision.

    Args:
        folder: with an IR and its card.
        data: a source of labelled images, or of images with boxes for a detector; or images
            without labels, ``(n, 3, S, S)`` float32, preprocessed.
        left_out: takes damaged images; without it the first one is an error.

    Raises: FormatError for a damaged image.
    """
    if read_card(folder / CARD_FILE).kind == DETECTOR:
        accuracy = _of_detector(folder, data, left_out)
    else:
        f32, bf16 = (Predictor(folder, "openvino", precision=p) for p in (F32, BF16))
        if isinstance(data, np.ndarray):
            accuracy = agreement(*(predict_all(one.predict, data) for one in (f32, bf16)))
        else:
            accuracy = _of_classifier(f32, bf16, data, left_out)
    return {f"openvino {BF16}": accuracy}


def agreement(expected: np.ndarray, found: np.ndarray) -> Accuracy:
    """Compare logits ``(n, classes)`` with those of float32."""
    share = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return Accuracy(AGREEMENT, share, len(found))


def predict_all(predict, images: np.ndarray) -> np.ndarray:
    """Return the logits of any number of images."""
    chunks = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    return np.concatenate([predict(chunk) for chunk in chunks])


def _of_classifier(f32: Predictor, bf16: Predictor, source, left_out) -> Accuracy:
    best = []

    def predict(images):  # in both, as reading the images may take longer
        best.append(bf16.predict(images).argmax(axis=1))
        return f32.predict(images)

    card = f32.card
    result = classification.evaluate(
        predict, source, classes=card.classes, preprocessing=card.preprocessing, left_out=left_out
    )
    top1 = float((np.concatenate(best) == result.labels).mean())
    return Accuracy("top-1", top1, result.images, result.top1)


def _of_detector(folder: Path, source, left_out: Optional[LeftOut]) -> Accuracy:
    found = []
    for precision in (F32, BF16):
        model = DetectorPredictor(folder, "openvino", precision=precision)
        size = model.card.input_size
        detected = detection.detect(
            model.predict, source, size, min(_BATCH, len(source)),
            normalization=model.card.normalization, left_out=left_out,
        )  # fmt: skip
        found.append(detection.evaluate(detected, model.card.class_names, size).original)
        if left_out:  # the same ones again
            left_out = LeftOut(SkippedRecords(len(left_out.positions)))
    f32, bf16 = found
    if math.isnan(f32.mean_ap_11_point):
        raise InputError("none of the images to measure bf16 on has an object to detect")
    return Accuracy("mAP", bf16.mean_ap_11_point, bf16.images, f32.mean_ap_11_point)
