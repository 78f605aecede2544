"""One predictor, three engines: MXNet, ONNX Runtime and OpenVINO.

It knows files, not networks; only the MXNet engine imports MXNet.  Detectors have one of their own,
in ``detector``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gluon_asymmnet.card import CLASSIFIER, parse_card
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.predict.opening import OnEngine, check_pictures, choose
from gluon_asymmnet.predict.pictures import Picture, read_picture

__all__ = ["Guess", "Predictor", "choose"]


class Guess(NamedTuple):
    """A class that a picture may show."""

    index: int
    name: str  # the index as text if the card has no names
    probability: float


class Predictor(OnEngine):
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

    kind, parse = CLASSIFIER, staticmethod(parse_card)

    def _check_ports(self, inputs: list, outputs: list) -> None:
        if (len(inputs), len(outputs)) != (1, 1):
            raise FormatError(
                f"{self.weights} has {len(inputs)} inputs and {len(outputs)} outputs; a classifier "
                f"has one of each"
            )
        super()._check_ports(inputs, outputs)
        if len(outputs[0]) != 2 or not isinstance(outputs[0][1], int):
            raise FormatError(
                f"{self.weights} gives {outputs[0]}; a classifier gives (batch, classes)"
            )

    def _check_card(self, outputs: list) -> None:
        if outputs[0][1] != self.card.classes:
            raise FormatError(
                f"{self.weights} gives {outputs[0][1]} values per image, its card says "
                f"{self.card.classes} classes"
            )

    @property
    def net(self):
        """The network as a Gluon block, which MXNet alone has; None from another engine."""
        return getattr(self._engine, "net", None)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, S, S)`` float32, preprocessed, to ``(n, classes)`` float32 logits.

        S is the card's ``input_size``; n may vary.

        Raises: InputError for another shape, RunError for logits that are not finite.
        """
        return self._run(images)[0]

    def classify(
        self, pictures: Sequence[Picture], top: int = 5, batch_size: int = 32
    ) -> list[list[Guess]]:
        """Return for each picture its ``top`` likeliest classes, best first.

        Args:
            pictures: paths of JPEG or PNG files, or arrays ``(H, W, 3)`` uint8 RGB.
            batch_size: pictures that are held and computed together.

        Raises: FormatError, naming the file, for one that is no picture.
        """
        check_pictures(pictures, top=top, batch_size=batch_size)
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
