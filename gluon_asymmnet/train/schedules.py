"""Learning-rate schedules: linear warm-up, then one of a table."""

import math
from typing import Callable, NamedTuple

from gluon_asymmnet.utils.registry import Registry


class Schedule(NamedTuple):
    """Linear warm-up, then the schedule ``mode``.

    With the published recipe (2.6 peak, 3,125 updates of warm-up, 221,875 after it) this gives
    the learning rate of every line of the authors' log to its last digit (5e-7).
    """

    mode: str  # a name in ``SCHEDULES``
    peak: float
    warmup_updates: int
    decay_updates: int  # after the warm-up; past them the rate stays at its last value
    start: float = 0.0  # rate before the first update
    decay: float = 0.1  # step and exp: factor
    decay_at: tuple[int, ...] = ()  # step: updates after the warm-up
    period: int = 0  # exp: updates in which the rate falls by ``decay``; 0: all of them

    def __call__(self, update: int) -> float:
        """Return the rate of update ``update``, counted from 1."""
        if update < self.warmup_updates:
            # The last warm-up update is already the first of the decay, as in GluonCV.
            share = update / (self.warmup_updates - 1)
            return self.start + (self.peak - self.start) * share
        passed = min(update - self.warmup_updates, max(self.decay_updates - 1, 0))
        return SCHEDULES.find(self.mode)(self, passed)

    def share(self, passed: int) -> float:
        """Return how much of the decay is done: 0 after the warm-up, 1 at the last update."""
        return passed / max(self.decay_updates - 1, 1)


def _step(schedule: Schedule, passed: int) -> float:
    return schedule.peak * schedule.decay ** sum(at <= passed for at in schedule.decay_at)


def _cosine(schedule: Schedule, passed: int) -> float:
    return schedule.peak * (1 + math.cos(math.pi * schedule.share(passed))) / 2


def _poly(schedule: Schedule, passed: int) -> float:
    return schedule.peak * (1 - schedule.share(passed)) ** 2


def _exp(schedule: Schedule, passed: int) -> float:
    share = passed / schedule.period if schedule.period else schedule.share(passed)
    return schedule.peak * schedule.decay**share


SCHEDULES = Registry(
    "schedule", {"step": _step, "poly": _poly, "cosine": _cosine, "exp": _exp}
)  # fmt: skip


def register_schedule(name: str, function=None) -> Callable:
    """Add a schedule for ``--lr-mode``; also a decorator.

    Args:
        function: ``(schedule, passed) -> rate``: a ``Schedule`` and the updates since the warm-up.
    """
    return SCHEDULES.register(name, function)


def make_schedule(config, updates_per_epoch: int, peak: float) -> Schedule:
    """Return the schedule of a run; ``config`` is a ``LoopConfig``."""
    warmup = config.warmup
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
        period=config.lr_decay_period * updates_per_epoch,
    )
