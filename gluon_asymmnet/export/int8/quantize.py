"""Post-training quantisation to 8 bits, with a measured choice of what stays in float."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from gluon_asymmnet.card import CARD_FILE
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.export.folder import with_costs
from gluon_asymmnet.export.int8.quantizers import parts_of, quantizer_of
from gluon_asymmnet.export.int8.report import REPORT_FILE, Report
from gluon_asymmnet.export.int8.search import Score, search
from gluon_asymmnet.export.parity import compare
from gluon_asymmnet.saved import Saved, card_id
from gluon_asymmnet.utils.atomic import new_folder, write_text

MAX_LOSS = 0.5  # percentage points of top-1
_FEWEST = 16  # pictures, below which the ranges say nothing
_BATCHES = (1, 32)  # for which the speed of the result is reported
_ROUNDS, _CALLS = 9, 4  # of timing


def export_int8(
    model: Saved,
    out,
    images: np.ndarray,
    *,
    engine: str = "onnxruntime",
    validation=None,
    max_loss: float = MAX_LOSS,
    batch: int = 1,
    threads: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """Write ``out/<variant>_int8.onnx`` or ``.xml`` and ``.bin``, ``card.json``, ``int8.json``.

    All or nothing.  ``Predictor`` runs the folder like any other; the report is returned as well.

    Args:
        model: the network, or an exported symbol.
        out: a folder that does not exist yet.
        images: ``(n, 3, S, S)`` float32, preprocessed, S the card's input size: real pictures, on
            which ranges are measured; at least 16.
        engine: ``onnxruntime``, or ``openvino`` (through NNCF).
        validation: a source of labelled pictures; top-1 on all of them is what may be lost.
            None: the share of ``images`` on which the best class stays that of the network.
        max_loss: points that may be lost, exclusive.  Where no choice loses less, the one that
            loses least is written, and the report says so.
        batch: images at once while the choice is made; 8 bits win more on larger batches.
        threads: CPU threads while speed is measured; 0: one per processor.

    Raises:
        InputError: for too few or wrong images, an engine that cannot, or one that is missing.
    """
    card, side = model.card, model.card.input_size
    make = quantizer_of(engine)
    if images.ndim != 4 or len(images) < _FEWEST or images.shape[1:] != (3, side, side):
        raise InputError(
            f"calibration takes (n, 3, {side}, {side}) images, n at least {_FEWEST}; got "
            f"{images.shape}"
        )
    if not max_loss > 0:
        raise InputError(f"the loss allowed must be above 0 points, got {max_loss}")
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    with new_folder(out) as folder, tempfile.TemporaryDirectory() as scratch:
        quantizer = make(model, images, Path(scratch))
        judge = _Judge(quantizer, card, images, validation, batch, threads)
        choice = search(list(parts_of(model)), judge.measure, max_loss, progress)
        file = quantizer.write(choice.chosen.kept)
        predict = _predict_of(quantizer, file, threads)
        parity = compare(judge.logits, _in_batches(predict, images))
        written = with_costs(card, {f"{engine} int8": parity}, len(images))
        quantizer.place(file, folder / f"{card_id(card)}_int8{quantizer.suffix}", written)
        written.save(folder / CARD_FILE)
        report = Report(
            engine, card_id(card), len(images), max_loss, judge.top1, choice,
            {count: judge.speed(predict, count) for count in sorted({batch, *_BATCHES})},
        )  # fmt: skip
        write_text(folder / REPORT_FILE, report.json())
    return report


class _Judge:
    """Scores quantised files against the network in the engine's own float32."""

    def __init__(self, quantizer, card, images, validation, batch: int, threads: int):
        self._quantizer, self._card, self._images = quantizer, card, images
        self._validation, self._batch, self._threads = validation, batch, threads
        self._float = _predict_of(quantizer, quantizer.float_file, threads)
        self.logits = _in_batches(self._float, images)
        self.top1 = self._top1(self._float)

    def measure(self, kept: Sequence[str], *, validate: bool) -> Score:
        """Quantise all but ``kept`` and score it."""
        predict = _predict_of(self._quantizer, self._quantizer.write(kept), self._threads)
        found = _in_batches(predict, self._images)
        agreement = float((found.argmax(axis=1) == self.logits.argmax(axis=1)).mean())
        top1 = self._top1(predict) if validate else None
        loss = 1 - agreement if top1 is None else self.top1 - top1
        speed = self.speed(predict, self._batch)
        return Score(signal_to_noise(self.logits, found), agreement, top1, 100 * loss, speed)

    def speed(self, predict, batch: int) -> float:
        """Return how many times as fast as the engine's float32 ``predict`` is."""
        images = np.resize(self._images, (batch, *self._images.shape[1:]))
        return speed_ratio(self._float, predict, images)

    def _top1(self, predict) -> Optional[float]:
        if self._validation is None:
            return None
        return evaluate(
            predict, self._validation, classes=self._card.classes,
            preprocessing=self._card.preprocessing,
        ).top1  # fmt: skip


def _predict_of(quantizer, file: Path, threads: int):
    """Return what maps images to logits by one of the quantiser's files."""
    engine = quantizer.engine(file, threads)
    return lambda images: engine.run(images)[0]


def signal_to_noise(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the power of ``expected`` over that of the difference, dB; at most 200."""
    noise = float(np.square(found - expected, dtype=np.float64).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    return min(200.0, 10 * float(np.log10(signal / max(noise, 1e-300))))


def speed_ratio(slow, fast, images: np.ndarray) -> float:
    """Return how many times as fast as ``slow`` ``fast`` is: in turn, the median of some rounds.

    Of each turn the fastest call counts: what disturbs a call only makes it slower.
    """

    def best(predict) -> float:
        predict(images)  # caches are cold, and threads of the other may still spin
        times = []
        for _ in range(_CALLS):
            begun = time.perf_counter()
            predict(images)
            times.append(time.perf_counter() - begun)
        return min(times)

    return statistics.median(best(slow) / best(fast) for _ in range(_ROUNDS))


def _in_batches(predict, images: np.ndarray, batch: int = 32) -> np.ndarray:
    chunks = [images[i : i + batch] for i in range(0, len(images), batch)]
    return np.concatenate([predict(chunk) for chunk in chunks])
