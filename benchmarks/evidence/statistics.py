"""Intervals and tests over seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np
from scipy import optimize, stats

LEVEL = 0.05  # of the tests, and 1 - LEVEL of the intervals
POWER = 0.8


class Summary(NamedTuple):
    """A mean with its interval; ``half`` and ``p`` are None from one value."""

    count: int
    mean: float
    deviation: Optional[float] = None  # standard deviation
    half: Optional[float] = None  # of the interval: mean - half to mean + half
    p: Optional[float] = None  # of a mean of zero, two-sided


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, 95 % interval and test against zero by Student's t distribution."""
    values = np.asarray(values, float)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Summary(count, mean)
    deviation = float(values.std(ddof=1))
    error = deviation / math.sqrt(count)
    half = error * stats.t.ppf(1 - LEVEL / 2, count - 1)
    if error == 0:
        return Summary(count, mean, 0.0, 0.0, float(mean == 0))
    p = 2 * stats.t.sf(abs(mean) / error, count - 1)
    return Summary(count, mean, deviation, float(half), float(p))


def holm(ps: Sequence[float]) -> list[float]:
    """Correct p-values for their number.  Source: Holm 1979, jstor.org/stable/4615733."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted


def detectable(deviation: float, count: int, comparisons: int = 1) -> float:
    """Return the mean difference that a paired t test finds with probability ``POWER``.

    Args:
        deviation: standard deviation of the differences.
        count: number of pairs, from 2 on.
        comparisons: divides the level, as the first step of Holm's correction.
    """
    degrees = count - 1
    critical = stats.t.ppf(1 - LEVEL / comparisons / 2, degrees)

    def missing(shift: float) -> float:
        return stats.nct.sf(critical, degrees, shift) - POWER

    # SciPy 1.13 gives nan far beyond the solution, which is below twice the critical value
    shift = optimize.brentq(missing, 0, 2 * critical + 2)
    return float(shift * deviation / math.sqrt(count))
