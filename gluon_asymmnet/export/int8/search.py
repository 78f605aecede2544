"""Which parts of a network stay in float when the rest is computed in 8 bits.

Every part is measured: the network in 8 bits with only this part in float, against all of it in
8 bits.  Parts that are faster in float are tried first, one after the other; then, while too much
is lost, those that win most accuracy.
"""

from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

_CLEARLY = 1.03  # a part in float has to be that much faster to stay so for speed alone


class Score(NamedTuple):
    """How well a quantised network does."""

    sqnr: float  # dB: float logits over their difference, on the calibration pictures
    agreement: float  # share of the calibration pictures with the same best class
    top1: Optional[float]  # on the validation set; None: there is none
    loss: float  # percentage points of top-1 or, without a validation set, of agreement
    speed: float  # times that of the engine's own float32


class Trial(NamedTuple):
    """A set of parts left in float, and what came of it."""

    kept: tuple[str, ...]
    score: Score


class Choice(NamedTuple):
    """The result of a search."""

    everything: Score  # all parts in 8 bits
    parts: dict[str, Score]  # with only this part in float
    trials: list[Trial]  # sets that were tried, in order
    chosen: Trial


def search(
    parts: Sequence[str],
    measure: Callable[..., Score],
    max_loss: float,
    progress: Callable[[str], None] = lambda line: None,
) -> Choice:
    """Find the fastest set of parts in float that loses less than ``max_loss`` points.

    Where no set does, the one that loses least is chosen.

    Args:
        parts: names of what may stay in float.
        measure: ``measure(kept, validate=...)`` quantises all but ``kept`` and scores it; without
            ``validate`` the loss may be judged on the calibration pictures alone.
    """
    everything = measure((), validate=True)
    progress(f"all in 8 bits: {describe(everything)}")
    alone = {}
    for part in parts:
        alone[part] = measure((part,), validate=False)
        progress(f"{part} in float: {describe(alone[part])}")
    trials = [Trial((), everything)]

    def keep(part: str) -> None:
        kept = (*trials[-1].kept, part)
        trials.append(Trial(kept, measure(kept, validate=True)))
        progress(f"{', '.join(kept)} in float: {describe(trials[-1].score)}")

    faster = [p for p in parts if alone[p].speed > _CLEARLY * everything.speed]
    for part in sorted(faster, key=lambda p: -alone[p].speed):
        keep(part)
    slower = sorted((p for p in parts if p not in faster), key=lambda p: -alone[p].sqnr)
    for part in slower[:-1]:  # with all of them it would be float32
        if min(trial.score.loss for trial in trials) < max_loss:
            break
        keep(part)
    good = [trial for trial in trials if trial.score.loss < max_loss]
    chosen = max(good, key=lambda t: t.score.speed) if good else min(
        trials, key=lambda t: t.score.loss
    )  # fmt: skip
    return Choice(everything, alone, trials, chosen)


def describe(score: Score) -> str:
    """Return a score in one line."""
    return (
        f"{score.sqnr:.1f} dB, loses {score.loss:.2f} points, {score.speed:.2f} times as fast "
        f"as f32"
    )
