"""What a quantisation gave, as JSON and as a table."""

import json
from typing import NamedTuple, Optional

from gluon_asymmnet.export.int8.search import Choice, Score

REPORT_FILE = "int8.json"
TARGET_SPEED = 1.4  # times the engine's own float32


class Report(NamedTuple):
    """A search for what stays in float, and its result."""

    engine: str
    model: str  # variant
    images: int  # that calibrated
    max_loss: float  # percentage points
    float_top1: Optional[float]  # on the validation set; None: agreement was judged
    choice: Choice
    speeds: dict[int, float]  # of the result: batch size -> times the engine's own float32

    @property
    def accurate(self) -> bool:
        """Less was lost than allowed."""
        return self.choice.chosen.score.loss < self.max_loss

    @property
    def fast(self) -> dict[int, bool]:
        """At which batch sizes the target is met."""
        return {batch: speed >= TARGET_SPEED for batch, speed in self.speeds.items()}

    def json(self) -> str:
        """Return everything as JSON."""
        choice = self.choice
        content = {
            "engine": self.engine,
            "model": self.model,
            "calibration_images": self.images,
            "loss_of": "agreement with float32" if self.float_top1 is None else "top-1",
            "max_loss": self.max_loss,
            "float_top1": self.float_top1,
            "target_speed": TARGET_SPEED,
            "accurate": self.accurate,
            "fast": {str(batch): met for batch, met in self.fast.items()},
            "kept_in_float": list(choice.chosen.kept),
            "score": _rounded(choice.chosen.score),
            "speeds": {str(batch): round(speed, 3) for batch, speed in self.speeds.items()},
            "all_in_8_bits": _rounded(choice.everything),
            "only_this_part_in_float": {p: _rounded(s) for p, s in choice.parts.items()},
            "trials": [
                {"kept_in_float": list(trial.kept), **_rounded(trial.score)}
                for trial in choice.trials
            ],
        }
        return json.dumps(content, indent=1) + "\n"

    def text(self) -> str:
        """Return the tables: sensitivity by part, the sets tried, what was chosen."""
        choice, kind = self.choice, "agreement" if self.float_top1 is None else "top-1"
        whole = choice.everything
        lines = [
            f"{'left in float':<28} {'SQNR, dB':>9} {'wins, dB':>9} {'agreement':>10} {'x f32':>6}",
            _row("nothing", whole, whole),
            *(_row(part, score, whole) for part, score in choice.parts.items()),
            "",
            f"{'loses':>7} points of {kind}   x f32  left in float",
            *(
                f"{trial.score.loss:>7.2f} {' ' * (12 + len(kind))} {trial.score.speed:>5.2f}  "
                f"{', '.join(trial.kept) or 'nothing'}"
                for trial in choice.trials
            ),
            "",
            self.verdict(),
        ]
        return "\n".join(lines)

    def verdict(self) -> str:
        """Return what was chosen, and whether the targets are met, in one line."""
        chosen = self.choice.chosen
        speeds = ", ".join(
            f"{speed:.2f} at batch {batch} ({'met' if self.fast[batch] else 'not met'})"
            for batch, speed in self.speeds.items()
        )
        what = "agreement with float32" if self.float_top1 is None else "top-1"
        return (
            f"{self.engine}: loses {chosen.score.loss:.2f} points of {what} (below "
            f"{self.max_loss:g}: {'met' if self.accurate else 'not met'}), times the speed of f32 "
            f"(target {TARGET_SPEED}): {speeds}; in float: {', '.join(chosen.kept) or 'nothing'}"
        )


def _row(part: str, score: Score, whole: Score) -> str:
    return (
        f"{part:<28} {score.sqnr:>9.1f} {score.sqnr - whole.sqnr:>9.1f} "
        f"{100 * score.agreement:>8.1f} % {score.speed:>6.2f}"
    )


def _rounded(score: Score) -> dict:
    return {k: v if v is None else round(v, 4) for k, v in score._asdict().items()}
