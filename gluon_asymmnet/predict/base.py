"""Base of the predictors: find the model's file, choose its engine, and check its card."""

import dataclasses
import numbers
import os
from pathlib import Path

import numpy as np

from gluon_asymmnet.card import CARD_FILE, Card, parse_card, read_card
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.predict.engines import ENGINES, NCNN, NCNN_HALF, PRECISIONS
from gluon_asymmnet.predict.fastest import fastest
from gluon_asymmnet.utils.extras import installed
from gluon_asymmnet.utils.memory import keep_freed_memory

# Engines and the files they run.  "auto" takes the first that is possible; if that is one of
# _MEASURED, the fastest of those.  The others are slower in every measurement of benchmarks/.
_RUNS = (
    ("openvino", ".xml"),
    ("onnxruntime", ".onnx"),
    ("openvino", ".onnx"),
    ("mxnet", "-symbol.json"),
    ("opencv", ".onnx"),
    ("ncnn", NCNN),
    ("ncnn", NCNN_HALF),
)
_MEASURED = ("openvino", "onnxruntime")
# engine -> the format to export
_EXPORT = {"openvino": "openvino", "onnxruntime": "onnx", "opencv": "onnx", "ncnn": "ncnn"}
# Fields in which the card beside a file may differ from the one inside.
_MAY_DIFFER = ("class_names", "crop_ratio", "parity", "parameters", "macs")


class EnginePredictor:
    """A model's file with its card and the engine that runs it.

    Args and Raises: see ``Predictor``.

    Attributes:
        engine: name of the engine.
        card: the card beside the file or, without one, the card inside.
        weights: the model's file.
        reason: one line that says why this engine was taken.
    """

    kind: str  # kind of card

    def __init__(self, path, engine: str = "auto", *, threads: int = 0, precision: str = "f32"):
        if engine not in ("auto", *ENGINES):
            raise InputError(f"engine must be auto, {', '.join(ENGINES)}, got {engine!r}")
        if precision not in PRECISIONS:
            raise InputError(f"precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
            raise InputError(f"threads must be a whole number, 0 (all) or more, got {threads!r}")
        keep_freed_memory()
        self.engine, self.weights = choose_engine(path, engine)
        self.reason = "as asked for" if engine != "auto" else "the first that fits"
        measured = _to_measure(path) if engine == "auto" and precision == "f32" else {}
        if self.engine in measured and len(measured) > 1:
            self.engine, self.weights, self.reason = fastest([*measured.items()], threads)
        self._engine = ENGINES[self.engine](self.weights, threads, precision)
        cards = self._read_cards()
        self._check_ports(self._engine.inputs, self._engine.outputs)
        self.card = self._choose_card(cards)
        self._check_card(self._engine.outputs)
        self._check_parity()
        size = self._engine.inputs[0][2]
        if isinstance(size, int) and size != self.card.input_size:
            raise FormatError(
                f"{self.weights} takes {size} pixels, its card says input_size "
                f"{self.card.input_size}"
            )

    @property
    def _card_file(self) -> Path:
        folder = self.weights if self.weights.is_dir() else self.weights.parent
        return folder / CARD_FILE

    def _read_cards(self) -> list[Card]:
        """Return the cards inside and beside the file, as far as they exist."""
        inside, beside = self._engine.card_text, self._card_file
        cards = [parse_card(inside, self.weights, self.kind)] if inside else []
        return [*cards, read_card(beside, self.kind)] if beside.exists() else cards

    def _choose_card(self, cards: list[Card]) -> Card:
        """Return the card beside the file or, without one, the card inside; both must agree."""
        if not cards:
            raise InputError(
                f"{self.weights} has no card, neither inside nor as {CARD_FILE} beside it, so its "
                f"classes and preprocessing are unknown; export it with `asymmnet export`"
            )
        names = [f.name for f in dataclasses.fields(cards[0]) if f.name not in _MAY_DIFFER]
        values = [[getattr(card, name) for card in (cards[-1], cards[0])] for name in names]
        differing = [f"{name} {a} and {b}" for name, (a, b) in zip(names, values) if a != b]
        beside, inside = cards[-1].class_names, cards[0].class_names
        # Other names may be a translation; the same ones elsewhere are another model's.
        if beside and inside and beside != inside and sorted(beside) == sorted(inside):
            differing.append("class_names in another order")
        if differing:
            raise FormatError(
                f"{self._card_file} belongs to another model than {self.weights.name}: "
                f"{'; '.join(differing)}"
            )
        return cards[-1]

    def _check_ports(self, inputs: list, outputs: list) -> None:
        """Raise FormatError unless the shapes are those of a model of this kind."""
        shape = inputs[0]
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise FormatError(
                f"{self.weights} takes {shape}; a {self.kind} takes (batch, 3, size, size)"
            )

    def _check_card(self, outputs: list) -> None:
        """Raise FormatError unless the outputs have as many classes as the card."""
        raise NotImplementedError

    def _check_parity(self) -> None:
        """Raise InputError for OpenCV if the file was not compared with it at export.

        OpenCV silently computes some ONNX files wrongly, among them those of earlier versions.
        """
        if self.engine == "opencv" and "opencv" not in (self.card.parity or ()):
            raise InputError(
                f"{self.weights} was not compared with opencv at its export: export it again, or "
                f"install onnxruntime: pip install 'gluon_asymmnet[onnx]'"
            )

    def _run(self, images: np.ndarray) -> list[np.ndarray]:
        """Run a batch of images; check that it and the outputs are valid."""
        images = self._check_input(images)
        if not len(images):
            return [np.empty((0, *shape[1:]), np.float32) for shape in self._engine.outputs]
        outputs = self._engine.run(images)
        if not all(np.isfinite(output).all() for output in outputs):
            raise RunError(f"{self.weights}: {self.engine} gives values that are not finite")
        return outputs

    def _check_input(self, images) -> np.ndarray:
        """Return images as float32; InputError for another shape or type, or for nan."""
        side = self.card.input_size
        wanted = f"images must be (n, 3, {side}, {side})"
        try:
            array = images if isinstance(images, np.ndarray) else np.asarray(images, np.float32)
        except (TypeError, ValueError):
            array = None
        if array is None or images is None or array.dtype.kind != "f":  # NumPy takes None for nan
            kind = array.dtype if images is array else type(images).__name__
            raise InputError(f"{wanted} float32, preprocessed, got {kind}")
        if array.shape[1:] != (3, side, side):
            raise InputError(f"{wanted}, got {array.shape}")
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, np.float32)
        if not np.isfinite(array).all():
            finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            raise InputError(f"images must be finite, image {finite.argmin()} holds nan or inf")
        return array


def check_counts(**counts) -> None:
    """Raise InputError for a setting that is not a whole number of at least 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise InputError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")


def choose_engine(path, engine: str = "auto") -> tuple[str, Path]:
    """Return the engine for ``path`` and the file it runs.

    MXNet runs a path without exported files: a run directory or a parameter file.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"the model must be a path, got {path!r}")
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected an exported model")
    possible = _possible(path, engine)
    if possible:
        return next((one for one in possible if _is_installed(one[0])), possible[0])
    if engine in _EXPORT:
        raise InputError(
            f"{path} holds nothing for {engine}: export it with `asymmnet export {_EXPORT[engine]}`"
        )
    return "mxnet", path


def _possible(path: Path, engine: str = "auto") -> list[tuple[str, Path]]:
    return [
        (name, file)
        for name, suffix in _RUNS
        if engine in ("auto", name) and (file := _file(path, suffix))
    ]


def _is_installed(engine: str) -> bool:
    return engine == "opencv" or installed(engine)


def _to_measure(path) -> dict[str, Path]:
    """Return the installed ones of ``_MEASURED`` with their files."""
    found: dict[str, Path] = {}
    for name, file in _possible(Path(path)):
        if name in _MEASURED and _is_installed(name):
            found.setdefault(name, file)
    return found


def _file(path: Path, suffix: str):
    """Return the file with this suffix that ``path`` is or contains, or None."""
    found = [path] if path.is_file() else sorted(path.iterdir())
    found = [file for file in found if file.name.endswith(suffix)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{path} holds several models: {names}; name one of them")
    return found[0] if found else None
