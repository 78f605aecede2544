"""Base of the predictors: open the model's file in its engine, and check its card."""

import numbers
from collections.abc import Sequence
from typing import Union

import numpy as np

from gluon_asymmnet.card import CARD_FILE, Card, differences, parse_card, read_card
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.predict.choice import Choice, choose
from gluon_asymmnet.utils.memory import keep_freed_memory
from gluon_asymmnet.utils.threads import available


class EnginePredictor:
    """A model's file with its card and the engine that runs it.

    Args and Raises: see ``Predictor``.

    Attributes:
        engine: name of the engine.
        precision: f32, bf16, or int8 where ``auto`` took it.
        card: the card beside the file or, without one, the card inside.
        weights: the model's file.
        reason: one line that says why this engine was taken.
    """

    kind: str  # kind of card

    def __init__(
        self,
        path,
        engine: str = "auto",
        *,
        threads: int = 0,
        precision: str = "f32",
        allow: Union[str, Sequence[str]] = (),
    ):
        self._open(choose(path, engine, threads=threads, precision=precision, allow=allow), threads)

    @classmethod
    def of(cls, choice: Choice, threads: int = 0):
        """Return the predictor of what ``choose`` returned."""
        predictor = cls.__new__(cls)
        predictor._open(choice, threads)
        return predictor

    def _open(self, choice: Choice, threads: int) -> None:
        keep_freed_memory()
        self.engine, self.precision, self.weights, self._card_file, self.reason = choice
        self._engine, self._threads = choice.open(threads), threads or available()
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
        differing = differences(cards[-1], cards[0])
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
