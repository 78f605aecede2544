"""Learning rate as a pure function of the update number."""

import math
from typing import NamedTuple


class Schedule(NamedTuple):
    """Linear warm-up, then cosine, poly or step.

    With the published recipe (2.6 peak, 3,125 updates of warm-up, 221,875 after it) this gives
    the learning rate of every line of the authors' log to its last digit (5e-7).
    """

    mode: str  # cosine, poly (power 2) or step
    peak: float
    warmup_updates: int
    decay_updates: int  # after the warm-up; past them the rate stays at its last value
    start: float = 0.0  # rate before the first update
    decay: float = 0.1  # step: factor
    decay_at: tuple[int, ...] = ()  # step: updates after the warm-up

    def __call__(self, update: int) -> float:
        """Return the rate of update ``update``, counted from 1."""
        if update < self.warmup_updates:
            # The last warm-up update is already the first of the decay, as in GluonCV.
            share = update / (self.warmup_updates - 1)
            return self.start + (self.peak - self.start) * share
        passed = min(update - self.warmup_updates, max(self.decay_updates - 1, 0))
        if self.mode == "step":
            return self.peak * self.decay ** sum(at <= passed for at in self.decay_at)
        share = passed / max(self.decay_updates - 1, 1)
        if self.mode == "cosine":
            return self.peak * (1 + math.cos(math.pi * share)) / 2
        return self.peak * (1 - share) ** 2


def make_schedule(config, updates_per_epoch: int, peak: float) -> Schedule:
    """Return the schedule of a run; ``config`` is a ``ClassifierConfig``."""
    warmup = config.warmup_epochs
    if config.lr_decay_period:
        epochs = range(config.lr_decay_period, config.num_epochs, config.lr_decay_period)
    else:
        epochs = config.lr_decay_epoch
    return Schedule(
        mode=config.lr_mode,
        peak=peak,
        warmup_updates=warmup * updates_per_epoch,
        decay_updates=(config.num_epochs - warmup) * updates_per_epoch,
        start=config.warmup_lr,
        decay=config.lr_decay,
        decay_at=tuple((epoch - warmup) * updates_per_epoch for epoch in epochs),
    )
