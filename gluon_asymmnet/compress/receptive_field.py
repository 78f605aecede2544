"""The 3D receptive field: height, width and channels.

The idea is from arXiv:2009.05236; the parts of that paper that were available do not give its
formula.  The measure here is this project's own:

- An output value of a stage depends on ``r x r`` pixels of ``|S|`` channels of the stage's input.
  Its *volume* is ``r**2 * |S|``, with r at most the side of that input.
- The volume of a stage is the mean over the channels of its last layer.
- The *value* of a net, in bits, is the sum of the logarithms of its stages' volumes and of the
  number of channels before the classifier.  Volumes multiply because each stage takes the output
  of the one before.

Borders are ignored.  The measure does not include the number of weights or nonlinearities, or the
resolution of the feature maps.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

from gluon_asymmnet.models.rpw_plan import (
    Convolution,
    Stage,
    convolutions,
    window_starts,
)


class Field(NamedTuple):
    """The receptive field of a layer in the input of its stage."""

    side: int  # r, pixels
    step: int  # stride, pixels
    reach: tuple[int, ...]  # for each channel, the input channels that it depends on, as bits

    @property
    def mean_reach(self) -> float:
        """The mean of ``|S|``."""
        return sum(bin(seen).count("1") for seen in self.reach) / len(self.reach)

    def volume(self, side: int) -> float:
        """Return the mean volume for an input of ``side`` x ``side`` pixels."""
        return min(self.side, side) ** 2 * self.mean_reach


def field(stage: Stage, in_channels: int, rule: str = "cuda") -> Field:
    """Return the receptive field of the last layer of a stage in the stage's input."""
    found = Field(1, 1, tuple(1 << channel for channel in range(in_channels)))
    for unit in stage:
        for conv in convolutions(unit, len(found.reach)):
            reach = _reach(found.reach, conv, rule)
            found = _enlarge(found, conv.kernel, conv.stride, reach)
        if unit.pool:
            found = _enlarge(found, 2, 2, found.reach)
    return found


def _enlarge(before: Field, kernel: int, stride: int, reach: tuple[int, ...]) -> Field:
    return Field(before.side + (kernel - 1) * before.step, before.step * stride, reach)


def _reach(reach: tuple[int, ...], conv: Convolution, rule: str) -> tuple[int, ...]:
    if conv.kind == "depthwise":
        return reach
    if conv.kind == "rpw" and len(set(reach)) > 1:
        windows = _unions(reach, conv.in_channels // conv.groups)
        starts = window_starts(conv.in_channels, conv.channels, conv.groups, conv.overlap, rule)
        return tuple(windows[start] for start in starts)
    return (functools.reduce(operator.or_, reach),) * conv.channels


def _unions(reach: Sequence[int], width: int) -> list[int]:
    """Return the union of ``reach`` over each cyclic window of ``width`` channels, by its start."""
    number, doubled, size = len(reach), list(reach), 1
    unions, covered = [0] * number, 0
    while width:  # binary digits: a window is made of windows of 1, 2, 4, ... channels
        if width & 1:
            unions = [u | doubled[(i + covered) % number] for i, u in enumerate(unions)]
            covered += size
        doubled = [d | doubled[(i + size) % number] for i, d in enumerate(doubled)]
        width, size = width >> 1, size * 2
    return unions


def stage_volume(stage: Stage, in_channels: int, side: int, rule: str = "cuda") -> float:
    """Return the volume of a stage with an input of ``side`` x ``side`` pixels."""
    return field(stage, in_channels, rule).volume(side)


def value(volumes: Sequence[float], channels: int) -> float:
    """Return the value of a net, bits, from its stages' volumes and its last channels."""
    return sum(map(math.log2, volumes)) + math.log2(channels)
