"""One predictor, three engines: MXNet, ONNX Runtime and OpenVINO.

It knows files, not networks; only the MXNet engine imports MXNet.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.card import CARD_FILE, Card, read_card
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.extras import installed
from gluon_asymmnet.predict.engines import ENGINES, PRECISIONS
from gluon_asymmnet.predict.pictures import Picture, read_picture

# Which engine runs which file, fastest first: what "auto" goes by.
_RUNS = (
    ("openvino", ".xml"),
    ("onnxruntime", ".onnx"),
    ("openvino", ".onnx"),
    ("mxnet", "-symbol.json"),
)
_EXPORT = {"openvino": "openvino", "onnxruntime": "onnx"}  # the form that is missing
# Fields in which a card beside a file may differ from the one inside.
_FREE = dict(class_names=None, crop_ratio=1.0, parity=None, parameters=None, macs=None)


class Guess(NamedTuple):
    """A class that a picture may show."""

    index: int
    name: str  # the index as text if the card has no names
    probability: float


class Predictor:
    """Class logits and names for pictures, the same from every engine.

    Args:
        path: a folder that ``asymmnet export`` wrote or a file in it; for MXNet a run directory or
            a parameter file with its card, too.
        engine: ``mxnet``, ``onnxruntime``, ``openvino``, or ``auto``: the fastest that is installed
            and for which ``path`` holds a file.
        threads: CPU threads; 0: one per processor.
        precision: ``f32``, or ``bf16`` for OpenVINO on processors that have it: faster, and
            about two digits less.

    Attributes:
        engine: the one that runs.
        card: the card beside the file or, without one, the card inside.
        weights: the file.

    Raises:
        FileNotFoundError: if there is no such path.
        FormatError: if the file is damaged, or is not the network its card describes.
        InputError: if the engine is not installed or has no file here, or there is no card.
    """

    def __init__(self, path, engine: str = "auto", *, threads: int = 0, precision: str = "f32"):
        if engine not in ("auto", *ENGINES):
            raise InputError(f"engine must be auto, {', '.join(ENGINES)}, got {engine!r}")
        if precision not in PRECISIONS:
            raise InputError(f"precision must be {' or '.join(PRECISIONS)}, got {precision!r}")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
            raise InputError(f"threads must be a whole number from 0 (all) on, got {threads!r}")
        self.engine, self.weights = choose(path, engine)
        self._engine = ENGINES[self.engine](self.weights, threads, precision)
        self.card = _find_card(self.weights, self._engine.card)
        _check_card(self.card, self._engine, self.weights)

    @property
    def net(self):
        """The network as a Gluon block, which MXNet alone has; None from another engine."""
        return getattr(self._engine, "net", None)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, S, S)`` float32, preprocessed, to ``(n, classes)`` float32 logits.

        S is the card's ``input_size``; n may vary.

        Raises: InputError for another shape, RunError for logits that are not finite.
        """
        images = np.ascontiguousarray(images, np.float32)
        side = self.card.input_size
        if images.shape[1:] != (3, side, side):
            raise InputError(f"images must be (n, 3, {side}, {side}), got {images.shape}")
        if not len(images):
            return np.empty((0, self.card.classes), np.float32)
        logits = self._engine.predict(images)
        if not np.isfinite(logits).all():
            raise RunError(f"{self.weights}: {self.engine} gives logits that are not finite")
        return logits

    def classify(
        self, pictures: Sequence[Picture], top: int = 5, batch_size: int = 32
    ) -> list[list[Guess]]:
        """Return for each picture its ``top`` likeliest classes, best first.

        Args:
            pictures: paths of JPEG or PNG files, or arrays ``(H, W, 3)`` uint8 RGB.
            batch_size: pictures that are held and computed together.

        Raises: FormatError, naming the file, for one that is no picture.
        """
        if isinstance(pictures, (str, Path)):
            raise InputError(f"pictures must be a list, got the single path {str(pictures)!r}")
        for name, value in (("top", top), ("batch_size", batch_size)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        guesses, prepare = [], self.card.preprocessing
        for first in range(0, len(pictures), batch_size):
            batch = [prepare(read_picture(p)) for p in pictures[first : first + batch_size]]
            guesses += [self._guesses(row, top) for row in self.predict(np.stack(batch))]
        return guesses

    def _guesses(self, logits: np.ndarray, top: int) -> list[Guess]:
        spread = np.exp(logits.astype(np.float64) - logits.max())
        best = np.argsort(-logits, kind="stable")[:top]
        names = self.card.class_names or range(len(logits))
        return [Guess(int(i), str(names[i]), float(spread[i] / spread.sum())) for i in best]


def choose(path, engine: str = "auto") -> tuple[str, Path]:
    """Return the engine that is to run ``path``, and its file.

    A path without exported files is MXNet's: a run directory or a parameter file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; expected an exported model")
    held = [
        (name, file)
        for name, suffix in _RUNS
        if engine in ("auto", name) and (file := _file(path, suffix))
    ]
    if held:
        return next((one for one in held if installed(one[0])), held[0])
    if engine in _EXPORT:
        raise InputError(
            f"{path} holds nothing for {engine}: export it with `asymmnet export {_EXPORT[engine]}`"
        )
    return "mxnet", path


def _file(path: Path, suffix: str):
    """Return the file of that kind that ``path`` is or holds, or None."""
    found = [path] if path.is_file() else sorted(path.iterdir())
    found = [file for file in found if file.name.endswith(suffix)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"{path} holds several models: {names}; name one of them")
    return found[0] if found else None


def _find_card(weights: Path, inside) -> Card:
    folder = weights if weights.is_dir() else weights.parent
    if not (folder / CARD_FILE).exists():
        if inside is None:
            raise InputError(
                f"{weights} has no card, neither inside nor as {CARD_FILE} beside it, so its "
                f"classes and preprocessing are unknown; export it with `asymmnet export`"
            )
        return inside
    beside = read_card(folder / CARD_FILE)
    if inside is not None:
        one, other = (dataclasses.replace(card, **_FREE) for card in (beside, inside))
        differing = [
            f"{f.name} {getattr(one, f.name)} and {getattr(other, f.name)}"
            for f in dataclasses.fields(Card)
            if getattr(one, f.name) != getattr(other, f.name)
        ]
        if differing:
            raise FormatError(
                f"{folder / CARD_FILE} belongs to another model than {weights.name}: "
                f"{'; '.join(differing)}"
            )
    return beside


def _check_card(card: Card, engine, weights: Path) -> None:
    if engine.classes != card.classes:
        raise FormatError(
            f"{weights} gives {engine.classes} values per image, its card says {card.classes} "
            f"classes"
        )
    if engine.size not in (None, card.input_size):
        raise FormatError(
            f"{weights} takes {engine.size} pixels, its card says input_size {card.input_size}"
        )
