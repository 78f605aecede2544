"""Scikit-learn's handwritten digits as JPEG files and records: a small set without download."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gluon_asymmnet.data.class_names import read_class_names
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records import build, stats
from gluon_asymmnet.data.records.recordio import PathLike, RecordFile
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.utils.atomic import new_folder
from gluon_asymmnet.utils.json_objects import parse_object

VAL_FRACTION = 0.25
TRAIN_IMAGES, VAL_IMAGES = 1348, 449  # of 1,797; 449.25 would be a quarter
CLASSES = tuple("0123456789")

_MANIFEST = "demo.json"
_SPLITS = {"train": TRAIN_IMAGES, "val": VAL_IMAGES}


class DigitSet(NamedTuple):
    """Paths of the digit set."""

    root: Path
    train: Path  # train.rec, 1,348 records, shuffled
    val: Path  # val.rec, 449 records


def write_digits(
    out: PathLike, *, size: int = 32, seed: int = 0, exist_ok: bool = False
) -> DigitSet:
    """Write scikit-learn's 1,797 handwritten digits as JPEGs, and pack them into records.

    ``out/images/{train,val}/{0..9}/NNNN.jpg`` (NNNN is scikit-learn's index),
    ``out/{train,val}.{rec,idx,lst,classes.txt}`` and ``out/demo.json``, which says how it was
    made.  The 8 x 8 grey images of 17 levels are enlarged (bicubic) and stored as RGB.  ``out``
    appears when it is complete, or not at all.

    1,348 images are for training and 449 are held out, 43 to 46 of each digit.  The split is not by
    writer (scikit-learn does not list the 13 writers), so the held-out accuracy shows that training
    works, not how well it generalises to new handwriting.

    Args:
        size: pixels of a side, at least 8.
        seed: seed of the split and of the order of ``train.rec``; equal seeds give equal bytes.
        exist_ok: return an existing complete set of this size and seed.

    Raises:
        InputError: scikit-learn is missing, ``size`` is out of range, or ``out`` contains something
            else.
        OSError: the disk is full.

    Source: Alpaydin and Kaynak 1998, UCI "Optical Recognition of Handwritten Digits", test part.
    """
    out = Path(out)
    if not 8 <= size <= 4096:
        raise InputError(f"size must be 8 to 4096 pixels, got {size}")
    if os.path.lexists(out) and not _is_empty_folder(out):
        if exist_ok:
            return _existing(out, size, seed)
        raise InputError(f"{out} exists; remove it, name another folder, or allow reusing it")
    digits, labels = read_digits()
    if os.path.lexists(out):
        out.rmdir()  # it is empty
    with new_folder(out) as scratch:
        _write(scratch, digits, labels, size, seed)
    return _paths(out)


def _paths(out: Path) -> DigitSet:
    return DigitSet(out, out / "train.rec", out / "val.rec")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return ``(1797, 8, 8)`` values 0 to 16, and labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "the demo set comes with scikit-learn, which is not installed: "
            "pip install gluon_asymmnet[demo]"
        ) from None
    digits = load_digits()
    return digits.images, digits.target


def _write(out: Path, digits: np.ndarray, labels: np.ndarray, size: int, seed: int) -> None:
    parts = stats.allocate(labels, [1 - VAL_FRACTION, VAL_FRACTION], seed=seed)
    for (name, count), positions in zip(_SPLITS.items(), parts):
        if len(positions) != count:
            raise RunError(
                f"scikit-learn's digits give {len(positions)} images for {name}, expected {count}; "
                f"its data have changed"
            )
        for digit in CLASSES:
            (out / "images" / name / digit).mkdir(parents=True)
        for i in positions:
            path = out / "images" / name / str(labels[i]) / f"{i:04d}.jpg"
            path.write_bytes(encode(_image(digits[i], size)))
        build.build(
            out / "images" / name, out / name, shuffle_seed=seed if name == "train" else None
        )
    manifest = {"source": "scikit-learn load_digits", "size": size, "seed": seed, **_SPLITS}
    (out / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _image(digit: np.ndarray, size: int) -> np.ndarray:
    """Return ``(size, size, 3)`` uint8 from ``(8, 8)`` values 0 to 16."""
    large = cv2.resize(digit.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    grey = np.clip(np.rint(large * (255 / 16)), 0, 255).astype(np.uint8)  # bicubic overshoots
    return np.repeat(grey[:, :, None], 3, axis=2)


def _existing(out: Path, size: int, seed: int) -> DigitSet:
    """Return the set at ``out`` if it is complete and was made with ``size`` and ``seed``."""
    found = _paths(out)
    try:
        path = out / _MANIFEST
        manifest = parse_object(path.read_bytes(), path, "the manifest of a demo set")
        was = manifest["size"], manifest["seed"]
        for name in _SPLITS:
            with RecordFile(out / f"{name}.rec", out / f"{name}.idx") as file:
                if len(file) != _SPLITS[name] or read_class_names(file.path) is None:
                    raise FormatError(f"{file.path}: {len(file)} records")
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{out} exists and is not a complete demo set ({error}); "
            "remove it or name another folder"
        ) from None
    if was != (size, seed):
        raise InputError(
            f"{out} was made with size {was[0]} and seed {was[1]}, not {size} and {seed}; "
            f"remove it or name another folder"
        )
    return found
