"""Choose the parts of a network that stay in float when the rest is computed in 8 bits.

Each part is measured alone: the network in 8 bits with only this part in float, against the whole
network in 8 bits.  Then sets of parts are tried.  Parts that are faster in float are added first,
one after the other; after them, while the loss is too large, the parts that gain most accuracy.
"""

from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

_MIN_SPEED_GAIN = 1.03  # from which a part stays in float for its speed alone


class Score(NamedTuple):
    """Accuracy and speed of a quantised network."""

    sqnr: float  # dB: float logits over their difference, on the calibration images
    agreement: float  # share of the calibration images with the same best class
    top1: Optional[float]  # on the validation set; None: there is none
    loss: float  # percentage points of top-1 or, without a validation set, of agreement
    speed: float  # times that of the engine's own float32

    def __str__(self) -> str:
        return (
            f"{self.sqnr:.1f} dB, loses {self.loss:.2f} points, {self.speed:.2f} times as fast "
            f"as f32"
        )


class Trial(NamedTuple):
    """A set of parts left in float, and its score."""

    in_float: tuple[str, ...]
    score: Score


class SearchResult(NamedTuple):
    """All measurements of a search, and the set that it chose."""

    all_int8: Score
    parts: dict[str, Score]  # with only this part in float
    trials: list[Trial]  # in the order of the search
    chosen: Trial


def search(
    parts: Sequence[str],
    measure: Callable[..., Score],
    max_loss: float,
    progress: Callable[[str], None] = lambda line: None,
) -> SearchResult:
    """Find the fastest set of parts in float that loses less than ``max_loss`` points.

    If every set loses more, the one with the smallest loss is chosen.

    Args:
        parts: names of the parts that may stay in float.
        measure: ``measure(in_float, validate=...)`` quantises all other parts and returns the
            score; without ``validate``, the loss may come from the calibration images alone.
    """
    all_int8 = measure((), validate=True)
    progress(f"all in 8 bits: {all_int8}")
    alone = {}
    for part in parts:
        alone[part] = measure((part,), validate=False)
        progress(f"{part} in float: {alone[part]}")
    trials = [Trial((), all_int8)]

    def add(part: str) -> None:
        in_float = (*trials[-1].in_float, part)
        trials.append(Trial(in_float, measure(in_float, validate=True)))
        progress(f"{', '.join(in_float)} in float: {trials[-1].score}")

    faster = [p for p in parts if alone[p].speed > _MIN_SPEED_GAIN * all_int8.speed]
    for part in sorted(faster, key=lambda p: -alone[p].speed):
        add(part)
    slower = sorted((p for p in parts if p not in faster), key=lambda p: -alone[p].sqnr)
    for part in slower[:-1]:  # with the last one it would be float32
        if min(trial.score.loss for trial in trials) < max_loss:
            break
        add(part)
    accurate = [trial for trial in trials if trial.score.loss < max_loss]
    chosen = max(accurate, key=lambda t: t.score.speed) if accurate else min(
        trials, key=lambda t: t.score.loss
    )  # fmt: skip
    return SearchResult(all_int8, alone, trials, chosen)
