"""The report of a quantisation, as JSON and as a table."""

import json
from typing import NamedTuple, Optional

from gluon_asymmnet.export.int8.search import Score, SearchResult

REPORT_FILE = "int8.json"
TARGET_SPEED = 1.4  # times the engine's own float32


class Int8Report(NamedTuple):
    """A search for the parts that stay in float, and its result."""

    engine: str
    model: str  # variant
    images: int  # for calibration
    max_loss: float  # percentage points
    float_top1: Optional[float]  # on the validation set; None: the loss is one of agreement
    result: SearchResult
    speeds: dict[int, float]  # batch size -> times the engine's own float32

    @property
    def accurate(self) -> bool:
        """Whether the loss is below the limit."""
        return self.result.chosen.score.loss < self.max_loss

    @property
    def fast(self) -> dict[int, bool]:
        """Batch size -> whether the target speed is met."""
        return {batch: speed >= TARGET_SPEED for batch, speed in self.speeds.items()}

    @property
    def _measure(self) -> str:
        return "agreement with float32" if self.float_top1 is None else "top-1"

    def json(self) -> str:
        """Return everything as JSON."""
        result = self.result
        content = {
            "engine": self.engine,
            "model": self.model,
            "calibration_images": self.images,
            "loss_of": self._measure,
            "max_loss": self.max_loss,
            "float_top1": self.float_top1,
            "target_speed": TARGET_SPEED,
            "accurate": self.accurate,
            "fast": {str(batch): met for batch, met in self.fast.items()},
            "kept_in_float": list(result.chosen.in_float),
            "score": _rounded(result.chosen.score),
            "speeds": {str(batch): round(speed, 3) for batch, speed in self.speeds.items()},
            "all_in_8_bits": _rounded(result.all_int8),
            "only_this_part_in_float": {p: _rounded(s) for p, s in result.parts.items()},
            "trials": [
                {"kept_in_float": list(trial.in_float), **_rounded(trial.score)}
                for trial in result.trials
            ],
        }
        return json.dumps(content, indent=1) + "\n"

    def text(self) -> str:
        """Return the tables: sensitivity of each part, the sets that were tried, the choice."""
        result, measure = self.result, self._measure.split()[0]
        whole = result.all_int8
        lines = [
            f"{'in float':<28} {'SQNR, dB':>9} {'gain, dB':>9} {'agreement':>10} {'x f32':>6}",
            _row("nothing", whole, whole),
            *(_row(part, score, whole) for part, score in result.parts.items()),
            "",
            f"{'loses':>7} points of {measure}   x f32  in float",
            *(
                f"{trial.score.loss:>7.2f} {' ' * (12 + len(measure))} {trial.score.speed:>5.2f}  "
                f"{_names(trial.in_float)}"
                for trial in result.trials
            ),
            "",
            self.verdict(),
        ]
        return "\n".join(lines)

    def verdict(self) -> str:
        """Return the choice, and whether the targets are met, in one line."""
        chosen = self.result.chosen
        speeds = ", ".join(
            f"{speed:.2f} at batch {batch} ({_met(self.fast[batch])})"
            for batch, speed in self.speeds.items()
        )
        return (
            f"{self.engine}: loses {chosen.score.loss:.2f} points of {self._measure} (below "
            f"{self.max_loss:g}: {_met(self.accurate)}), times the speed of f32 "
            f"(target {TARGET_SPEED}): {speeds}; in float: {_names(chosen.in_float)}"
        )


def _met(target: bool) -> str:
    return "met" if target else "not met"


def _names(parts: tuple[str, ...]) -> str:
    return ", ".join(parts) or "nothing"


def _row(part: str, score: Score, whole: Score) -> str:
    return (
        f"{part:<28} {score.sqnr:>9.1f} {score.sqnr - whole.sqnr:>9.1f} "
        f"{100 * score.agreement:>8.1f} % {score.speed:>6.2f}"
    )


def _rounded(score: Score) -> dict:
    return {k: v if v is None else round(v, 4) for k, v in score._asdict().items()}
