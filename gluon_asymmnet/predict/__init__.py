"""Predict with exported models, by MXNet, ONNX Runtime, OpenVINO, OpenCV or ncnn.

``Predictor`` is for classifiers; ``detector.DetectorPredictor`` is for detectors.  They know files,
not networks; only the MXNet engine imports MXNet.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple, Union

import numpy as np

from gluon_asymmnet.card import CLASSIFIER
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.predict.base import EnginePredictor, check_counts
from gluon_asymmnet.predict.choice import choose, choose_engine
from gluon_asymmnet.predict.images import Image, prepared_batches, read_image

__all__ = ["ClassScore", "Predictor", "choose", "choose_engine"]


class ClassScore(NamedTuple):
    """A class with its probability for one image."""

    index: int
    name: str  # the index as text if the card has no class names
    probability: float


class Predictor(EnginePredictor):
    """Classify images; every engine gives the same results.

    One predictor may be used by any number of threads at the same time.

    Args:
        path: a folder written by ``asymmnet export`` or a file in it; for MXNet also a run
            directory, or a parameter file with its card.
        engine: ``mxnet``, ``onnxruntime``, ``openvino``, ``opencv`` (an ONNX file; needs nothing
            but this package), ``ncnn``, or ``auto``: the faster of ``onnxruntime`` and
            ``openvino``, measured once on one image and remembered in the user's cache, or the
            first of the others that is installed and for which ``path`` contains a file.
        threads: CPU threads of the engine, and as many that read images; 0: one per processor.
        precision: ``f32``, or ``bf16`` for OpenVINO on processors that support it: faster, with
            about two digits less; or ``auto``: the fastest of f32 and those in ``allow``.
        allow: what ``auto`` may take beside f32: ``bf16`` or ``int8``, a sequence of them or with
            commas.  Their accuracy must have been measured at export, by ``asymmnet export openvino
            --bf16``, and by ``asymmnet export int8`` to the folder ``int8`` in that of the model.

    Attributes:
        engine: name of the engine.
        precision: f32, bf16, or int8 where ``auto`` took it.
        card: the card beside the file or, without one, the card inside.
        weights: the model's file.
        reason: one line that says why this engine was taken.

    Raises:
        FileNotFoundError: the path does not exist.
        FormatError: the file is damaged, or its card describes another network.
        InputError: the engine is not installed or has no file here, there is no card, or the
            accuracy of an allowed precision has not been measured.
    """

    kind = CLASSIFIER

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
        """The network as a Gluon block; None from other engines than MXNet."""
        return getattr(self._engine, "net", None)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Map ``(n, 3, S, S)`` float32, preprocessed, to ``(n, classes)`` float32 logits.

        S is the card's ``input_size``; n may vary.

        Raises: InputError for another shape or type, or for values that are not finite; RunError
            for logits that are not finite.
        """
        return self._run(images)[0]

    def classify(
        self,
        images: Union[Image, Iterable[Image]],
        top: int = 5,
        batch_size: int = 32,
        *,
        scaled_decoding: bool = False,
    ) -> list[list[ClassScore]]:
        """Return the ``top`` most probable classes of each image, best first.

        Args:
            images: any iterable of images, or one image; an image is a path, the bytes of a
                picture file, a binary file object, a ``PIL.Image``, or an array ``(H, W, 3)`` uint8
                RGB.
            batch_size: images that are computed together; while they are, threads read the next.
            scaled_decoding: as in ``prepare``.

        Returns: a list per image, also for one image.

        Raises:
            FormatError: a file is not an image; the message names it.
            InputError: an image has another type, shape or dtype.
        """
        check_counts(top=top, batch_size=batch_size)
        prepare = functools.partial(self.prepare, scaled_decoding=scaled_decoding)
        batches = prepared_batches(images, prepare, batch_size, self._threads)
        return [scores for batch in batches for scores in self.rank(batch, top)]

    def prepare(self, image: Image, *, scaled_decoding: bool = False) -> np.ndarray:
        """Return an image as ``predict`` takes it, ``(3, S, S)`` float32.

        Args:
            scaled_decoding: decode a JPEG file at 1/2, 1/4 or 1/8 of its size if no side gets
                smaller than the resize before the crop wants it: several times faster for large
                photographs.  The pixels are other ones: their averages, not samples of them.

        Raises: as ``classify``.
        """
        preprocess = self.card.preprocessing
        return preprocess(read_image(image, preprocess.resized if scaled_decoding else 0))

    def rank(self, images: np.ndarray, top: int = 5) -> list[list[ClassScore]]:
        """Return the ``top`` most probable classes of each image as ``predict`` takes them."""
        return [self._top_classes(logits, top) for logits in self.predict(images)]

    def _top_classes(self, logits: np.ndarray, top: int) -> list[ClassScore]:
        exponentials = np.exp(logits.astype(np.float64) - logits.max())
        probabilities = exponentials / exponentials.sum()
        best = np.argsort(-logits, kind="stable")[:top]
        names = self.card.class_names or range(len(logits))
        return [ClassScore(int(i), str(names[i]), float(probabilities[i])) for i in best]
