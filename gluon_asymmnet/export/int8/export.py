"""Post-training quantisation to 8 bits; measurements decide which parts stay in float."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Optional

import numpy as np

from gluon_asymmnet.card import AGREEMENT, CARD_FILE, Accuracy
from gluon_asymmnet.data.bad_records import LeftOut, SkippedRecords
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.export.accuracy import agreement, predict_all
from gluon_asymmnet.export.folder import with_accuracy, with_costs
from gluon_asymmnet.export.int8.quantizers import quantizer_of
from gluon_asymmnet.export.int8.report import REPORT_FILE, Int8Report
from gluon_asymmnet.export.int8.search import Score, search
from gluon_asymmnet.export.parity import compare
from gluon_asymmnet.predict.engines import INT8
from gluon_asymmnet.saved import Saved
from gluon_asymmnet.utils.atomic import new_folder, write_text

MAX_LOSS = 0.5  # percentage points of top-1
_MIN_IMAGES = 16  # fewer give no useful ranges
_BATCHES = (1, 32)  # at which the speed of the result is reported
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
    max_bad_records: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Int8Report:
    """Write ``out/<variant>_int8.onnx`` or ``.xml`` and ``.bin``, ``card.json``, ``int8.json``.

    All or nothing.  ``Predictor`` runs the folder like any other.

    Args:
        model: the network, or an exported symbol.
        out: a folder that does not exist yet.
        images: ``(n, 3, S, S)`` float32, preprocessed, S the card's input size: real images for
            calibration; at least 16.
        engine: ``onnxruntime``, or ``openvino`` (through NNCF).
        validation: a source of labelled images; the loss is one of top-1 on all of them.  None:
            it is one of agreement, the share of ``images`` with the network's best class.
        max_loss: points that may be lost, exclusive.  If every choice loses more, the one with the
            smallest loss is written, and the report says so.
        batch: batch size for the speeds that decide; 8 bits gain more on larger batches.
        threads: CPU threads while speed is measured; 0: one per processor.
        max_bad_records: damaged images of ``validation`` that may be left out; each is a line of
            ``progress``.

    Returns: the report, which is also in ``int8.json``.
    Raises:
        InputError: for too few or wrong images, an engine without 8 bits, or a missing library.
        FormatError: for more damaged images of ``validation``.
    """
    card, side = model.card, model.card.input_size
    make = quantizer_of(engine)
    if images.ndim != 4 or len(images) < _MIN_IMAGES or images.shape[1:] != (3, side, side):
        raise InputError(
            f"calibration takes (n, 3, {side}, {side}) images, n at least {_MIN_IMAGES}; got "
            f"{images.shape}"
        )
    if not max_loss > 0:
        raise InputError(f"the loss allowed must be above 0 points, got {max_loss}")
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch}")
    with new_folder(out) as folder, tempfile.TemporaryDirectory() as scratch:
        quantizer = make(model, images, Path(scratch))
        skipped = SkippedRecords(max_bad_records)
        scorer = _Scorer(quantizer, card, images, validation, skipped, batch, threads)
        for reason in scorer.left_out:
            progress(f"left out: {reason}")
        result = search(list(quantizer.parts), scorer.measure, max_loss, progress)
        file = quantizer.write(result.chosen.in_float)
        predict = _load(quantizer, file, threads)
        parity = compare(scorer.logits, predict_all(predict, images))
        label = f"{engine} {INT8}"
        accuracy = {label: scorer.accuracy(result.chosen.score)}
        written = with_accuracy(with_costs(card, {label: parity}, len(images)), accuracy)
        quantizer.place(file, folder / f"{card.id}_int8{quantizer.suffix}", written)
        written.save(folder / CARD_FILE)
        report = Int8Report(
            engine, card.id, len(images), max_loss, scorer.top1, result,
            {count: scorer.speed(predict, count) for count in sorted({batch, *_BATCHES})},
        )  # fmt: skip
        write_text(folder / REPORT_FILE, report.json())
    return report


class _Scorer:
    """Compare quantised files with the network in the engine's own float32."""

    def __init__(self, quantizer, card, images, validation, skipped, batch: int, threads: int):
        self._quantizer, self._card, self._images = quantizer, card, images
        self._validation, self._skipped = validation, skipped
        self._batch, self._threads = batch, threads
        self.left_out: list[str] = []  # reasons
        self._validated = 0  # images
        self._float = _load(quantizer, quantizer.float_file, threads)
        self.logits = predict_all(self._float, images)
        self.top1 = self._top1(self._float)

    def measure(self, in_float: Sequence[str], *, validate: bool) -> Score:
        """Quantise all parts but those ``in_float`` and return the score."""
        predict = _load(self._quantizer, self._quantizer.write(in_float), self._threads)
        found = predict_all(predict, self._images)
        same = agreement(self.logits, found).value
        top1 = self._top1(predict) if validate else None
        loss = 1 - same if top1 is None else self.top1 - top1
        speed = self.speed(predict, self._batch)
        return Score(signal_to_noise(self.logits, found), same, top1, 100 * loss, speed)

    def accuracy(self, score: Score) -> Accuracy:
        """Return a score for the card."""
        if score.top1 is None:
            return Accuracy(AGREEMENT, score.agreement, len(self._images))
        return Accuracy("top-1", score.top1, self._validated, self.top1)

    def speed(self, predict, batch: int) -> float:
        """Return the speed of ``predict`` in times that of the engine's float32."""
        images = np.resize(self._images, (batch, *self._images.shape[1:]))
        return speed_ratio(self._float, predict, images)

    def _top1(self, predict) -> Optional[float]:
        if self._validation is None:
            return None
        left_out = LeftOut(self._skipped)
        result = evaluate(
            predict, self._validation, classes=self._card.classes,
            preprocessing=self._card.preprocessing, left_out=left_out,
        )  # fmt: skip
        self.left_out, self._validated = left_out.reasons, result.images
        return result.top1


def _load(quantizer, file: Path, threads: int):
    """Return the function from images to logits of one of the quantiser's files."""
    engine = quantizer.engine(file, threads)
    return lambda images: engine.run(images)[0]


def signal_to_noise(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the power of ``expected`` over that of the difference, dB; at most 200."""
    noise = float(np.square(found - expected, dtype=np.float64).sum())
    signal = float(np.square(expected, dtype=np.float64).sum())
    return min(200.0, 10 * float(np.log10(signal / max(noise, 1e-300))))


def speed_ratio(slow, fast, images: np.ndarray) -> float:
    """Return the time of ``slow`` over that of ``fast``: the median of interleaved rounds.

    Of each round the fastest call counts, as disturbances only make a call slower.
    """

    def best(predict) -> float:
        predict(images)  # caches are cold, and threads of the other function may still spin
        times = []
        for _ in range(_CALLS):
            start = time.perf_counter()
            predict(images)
            times.append(time.perf_counter() - start)
        return min(times)

    return statistics.median(best(slow) / best(fast) for _ in range(_ROUNDS))
