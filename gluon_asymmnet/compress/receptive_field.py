"""A receptive field in three dimensions: the image's two, and the channels.

The idea is arXiv:2009.05236's, "3D receptive field"; its formula is in nothing of that paper that
could be found.  What is defined here is a measure of this project's own:

- A unit (one output channel at one place) sees ``r x r`` pixels of ``|S|`` channels of its stage's
  input.  Its *volume* is ``r**2 * |S|``, r at most the side of that input.
- A stage's volume is the mean over the channels of its last layer.  A layer that does not enlarge
  the volume has no *gain*.
- A net's *value*, in bits, is the sum over its stages of the volume's logarithm, and of that of the
  channels the classifier sees.  Stages multiply: each sees the world through the one before it.

Borders are ignored, as usual.  The measure knows nothing of the number of weights, of the number
of nonlinearities or of the resolution of what is computed.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gluon_asymmnet.models.rpw_plan import (
    Convolution,
    Stage,
    convolutions,
    stage_inputs,
    window_starts,
)


class Field(NamedTuple):
    """What the units of a layer see of some input."""

    side: int  # r, pixels of that input
    step: int  # pixels of it from a unit to the next
    reach: tuple[int, ...]  # of each channel, the channels it sees of that input, as bits

    @property
    def mean_reach(self) -> float:
        """The mean of ``|S|``."""
        return sum(bin(seen).count("1") for seen in self.reach) / len(self.reach)

    def volume(self, side: int) -> float:
        """Return the mean volume of a unit where the input is ``side`` x ``side`` pixels."""
        return min(self.side, side) ** 2 * self.mean_reach


def field(stage: Stage, in_channels: int, rule: str = "cuda") -> Field:
    """Return what the last layer of a stage, or of any row of units, sees of its input."""
    seen = Field(1, 1, tuple(1 << channel for channel in range(in_channels)))
    for unit in stage:
        for conv in convolutions(unit, len(seen.reach)):
            seen = _widened(seen, conv.kernel, conv.stride, _reach(seen.reach, conv, rule))
        if unit.pool:
            seen = _widened(seen, 2, 2, seen.reach)
    return seen


def _widened(seen: Field, kernel: int, stride: int, reach: tuple[int, ...]) -> Field:
    return Field(seen.side + (kernel - 1) * seen.step, seen.step * stride, reach)


def _reach(reach: tuple[int, ...], conv: Convolution, rule: str) -> tuple[int, ...]:
    if conv.kind == "depthwise":
        return reach
    if conv.kind == "rpw" and len(set(reach)) > 1:
        windows = _unions(reach, conv.in_channels // conv.groups)
        starts = window_starts(conv.in_channels, conv.channels, conv.groups, conv.overlap, rule)
        return tuple(windows[start] for start in starts)
    union = 0
    for seen in reach:
        union |= seen
    return (union,) * conv.channels


def _unions(reach: Sequence[int], width: int) -> list[int]:
    """Return what each cyclic window of ``width`` channels sees, by the channel it starts at."""
    number, doubled, size = len(reach), list(reach), 1
    unions, covered = [0] * number, 0
    while width:  # its binary digits: windows of 1, 2, 4, ... channels put together
        if width & 1:
            unions = [u | doubled[(i + covered) % number] for i, u in enumerate(unions)]
            covered += size
        doubled = [d | doubled[(i + size) % number] for i, d in enumerate(doubled)]
        width, size = width >> 1, size * 2
    return unions


def stage_volume(stage: Stage, in_channels: int, side: int, rule: str = "cuda") -> float:
    """Return the volume of a stage whose input is ``side`` x ``side`` pixels."""
    return field(stage, in_channels, rule).volume(side)


def value(stages: Sequence[Stage], input_size: int, rule: str = "cuda") -> float:
    """Return the value of a net, bits."""
    volumes = [stage_volume(*given, rule) for given in stage_inputs(stages, input_size)]
    return sum(map(math.log2, volumes)) + math.log2(stages[-1][-1].channels)
