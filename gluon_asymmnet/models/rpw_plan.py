"""Tables of nets of regular or depthwise and pointwise convolutions, and their cost.

Pointwise convolutions may be rolling-pointwise (RPW), also called sliding-channel: each output
reads a cyclic window of the input channels, and neighbouring windows overlap.

Source: models/cust_conv.py, vgg.py and mobilenet.py of YukeWang96/DSXplore_IPDPS21, the code of
arXiv:2009.05236; the standard VGG and MobileNet for CIFAR are from kuangliu/pytorch-cifar.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple, Union

from gluon_asymmnet.arch import round_up
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.json_objects import make

KINDS = ("conv", "separable")
RULES = ("cuda", "pytorch")
MAX_CHANNELS, MAX_KERNEL = 2**14, 31


@dataclasses.dataclass(frozen=True)
class Unit:
    """A row of a stage: one convolution, or a depthwise and a pointwise one, with activations.

    ``conv``: k x k convolution, batch normalisation, ReLU.  ``separable``: k x k depthwise, then
    RPW, normalisation, ReLU; with 1 group, RPW is an ordinary 1 x 1 convolution.
    """

    kind: str
    channels: int  # output channels
    kernel: int = 3  # pixels, odd
    stride: int = 1  # 1 or 2
    groups: int = 1  # of the RPW: each output reads 1 / groups of the input channels
    overlap: float = 0.5  # of neighbouring windows, in [0, 1)
    bias: bool = False  # of the regular or the depthwise convolution
    between: bool = False  # normalisation and ReLU between depthwise and pointwise
    pool: bool = False  # 2 x 2 max pooling, stride 2, at the end


Stage = tuple[Unit, ...]


class Convolution(NamedTuple):
    """One convolution of a unit; fields without meaning for its kind are 1 or 0."""

    kind: str  # "regular", "depthwise", "rpw"
    in_channels: int
    channels: int
    kernel: int
    stride: int
    groups: int
    overlap: float
    bias: bool
    norm: bool  # followed by normalisation and ReLU

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.channels * (self.in_channels // self.groups) * self.kernel**2

    @property
    def parameters(self) -> int:
        """Number of weights, biases, gammas and betas."""
        return self.weights + self.channels * (self.bias + 2 * self.norm)


class Cost(NamedTuple):
    """Cost of a stage or net; MACs (multiply-adds) of convolutions and classifier only."""

    parameters: int  # trainable
    macs: int

    def __add__(self, other):
        return Cost(self.parameters + other.parameters, self.macs + other.macs)


# --------------------------------------------------------------------------------- windows


def window_starts(
    in_channels: int, channels: int, groups: int, overlap: float, rule: str = "cuda"
) -> tuple[int, ...]:
    """Return the first input channel of each output's window, ``in_channels / groups`` wide.

    With ``w`` the width of the windows, which are cyclic, the rules are

    - ``cuda``: output ``j`` starts at ``floor(j * (1 - overlap) * w)``: each one step further;
    - ``pytorch``: each distinct window ``d * (w - floor(overlap * w))`` belongs to a run of
      consecutive outputs.

    If ``(1 - overlap) * w`` is whole and the number of windows divides the outputs, both rules give
    the same layer up to the order of the outputs: output ``d * q + i`` of ``pytorch`` is
    ``i * D + d`` of ``cuda``, with D windows of q outputs.

    Inferred: with ``pytorch`` the first windows have one more output each if D does not divide the
    outputs; overlaps are read as the decimals that they print as, not in floating point.

    Raises: InputError if the groups do not divide the input, or the overlap is not in [0, 1).
    """
    check_rule(rule)
    check_windows(in_channels, groups, overlap)
    width, share = in_channels // groups, Fraction(str(overlap))
    if rule == "cuda":
        step, parts = ((1 - share) * width).as_integer_ratio()
        return tuple(j * step // parts % in_channels for j in range(channels))
    step = width - math.floor(share * width)
    number = in_channels // math.gcd(in_channels, step)
    return tuple(d * step % in_channels for d in sorted(j % number for j in range(channels)))


def check_rule(rule: str) -> None:
    """Raise InputError for an unknown rule."""
    if rule not in RULES:
        raise InputError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")


def check_windows(in_channels: int, groups: int, overlap: float) -> None:
    """Raise InputError for invalid windows."""
    if type(groups) is not int or groups < 1 or in_channels % groups:
        divisors = [str(g) for g in range(1, min(in_channels, 64) + 1) if not in_channels % g]
        raise InputError(
            f"groups {groups!r} do not divide {in_channels} input channels: expected one of "
            f"{', '.join(divisors)}"
        )
    if type(overlap) not in (int, float) or not 0 <= overlap < 1:
        raise InputError(f"overlap must be at least 0 and below 1, got {overlap!r}")


# --------------------------------------------------------------------------------- tables

# stages of kuangliu's models/vgg.py: convolutions in each; a pool ends each
_VGG = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3),
        "vgg19": (2, 2, 4, 4, 4)}  # fmt: skip
_VGG_CHANNELS = (64, 128, 256, 512, 512)
_MOBILENET = ((64,), (128, 128), (256, 256), (512,) * 6, (1024, 1024))
NETS = (*_VGG, "mobilenet")


def plan(
    net: Union[str, list], *, groups: int = 0, overlap: float = 0.5, width: float = 1.0
) -> tuple[Stage, ...]:
    """Return the stages of a net.

    Args:
        net: ``vgg11``, 13, 16 or 19, or ``mobilenet``, for CIFAR; or its stages, each a list of
            units, which are the fields of ``Unit`` as JSON has them.
        groups: of the RPW that replaces every convolution of VGG but the first, and every 1 x 1
            one of MobileNet; 0: the standard net.
        overlap: of its windows.
        width: multiplies the channel counts, which are rounded up to multiples of 8.

    Raises: InputError for a net that cannot be built.
    """
    if isinstance(net, str):
        stages = _table(net, groups, overlap)
    elif groups:
        raise InputError(f"groups {groups!r}: the listed stages have their own; leave it out")
    else:
        stages = parse_stages(net)
    if width != 1:
        stages = tuple(
            tuple(dataclasses.replace(u, channels=round_up(u.channels, width)) for u in stage)
            for stage in stages
        )
    check(stages)
    return stages


def _table(net: str, groups: int, overlap: float) -> tuple[Stage, ...]:
    if type(groups) is not int or groups < 0:
        raise InputError(
            f"groups must be a whole number, 0 (the standard net) or more, got {groups!r}"
        )
    if net in _VGG:
        return tuple(
            tuple(
                _vgg_unit(channels, groups, overlap, first=not (s or i), pool=i == number - 1)
                for i in range(number)
            )
            for s, (channels, number) in enumerate(zip(_VGG_CHANNELS, _VGG[net]))
        )
    if net != "mobilenet":
        raise InputError(f"unknown net {net!r}: expected one of {', '.join(NETS)}, or stages")
    stages = [
        tuple(
            Unit("separable", channels, stride=2 if s and not i else 1, groups=groups or 1,
                 overlap=overlap, bias=groups > 0, between=True)
            for i, channels in enumerate(row)
        )
        for s, row in enumerate(_MOBILENET)
    ]  # fmt: skip
    return ((Unit("conv", 32), *stages[0]), *stages[1:])


def _vgg_unit(channels, groups, overlap, *, first, pool) -> Unit:
    if first or not groups:
        return Unit("conv", channels, bias=True, pool=pool)
    return Unit("separable", channels, groups=groups, overlap=overlap, bias=True, pool=pool)


def parse_stages(stages) -> tuple[Stage, ...]:
    """Read stages from JSON; ``as_json`` writes them."""
    lists = isinstance(stages, list) and stages and all(isinstance(s, list) and s for s in stages)
    if not lists or not all(isinstance(unit, dict) for stage in stages for unit in stage):
        raise FormatError("stages: expected a list of stages, each a list of units, none empty")
    return tuple(
        tuple(make(Unit, unit, f"unit {i} of stage {s}", "a unit") for i, unit in enumerate(stage))
        for s, stage in enumerate(stages)
    )


def as_json(stages: Sequence[Stage]) -> list[list[dict]]:
    """Return stages as JSON values, without the fields at their defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(Unit)}
    return [
        [{k: v for k, v in dataclasses.asdict(u).items() if v != defaults[k]} for u in stage]
        for stage in stages
    ]


def check(stages: Sequence[Stage]) -> None:
    """Raise InputError for the first unit that cannot be built."""
    in_channels = 3
    for s, stage in enumerate(stages):
        for i, unit in enumerate(stage):
            try:
                _check_unit(unit, in_channels)
            except InputError as error:
                raise InputError(f"unit {i} of stage {s}: {error}") from None
            in_channels = unit.channels


def _check_unit(unit: Unit, in_channels: int) -> None:
    if unit.kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {unit.kind!r}")
    if not 1 <= unit.channels <= MAX_CHANNELS:
        raise InputError(f"channels must be 1 to {MAX_CHANNELS}, got {unit.channels}")
    if not 1 <= unit.kernel <= MAX_KERNEL or unit.kernel % 2 == 0:
        raise InputError(f"kernel must be odd, from 1 to {MAX_KERNEL}, got {unit.kernel}")
    if unit.stride not in (1, 2):
        raise InputError(f"stride must be 1 or 2, got {unit.stride}")
    check_windows(in_channels, unit.groups, unit.overlap)
    if unit.kind == "conv" and (unit.groups != 1 or unit.between):
        raise InputError("groups and between are of a separable unit, not of a conv")


# --------------------------------------------------------------------------------- counting


def convolutions(unit: Unit, in_channels: int) -> tuple[Convolution, ...]:
    """Return the convolutions of a unit."""
    kernel, stride, out = unit.kernel, unit.stride, unit.channels
    if unit.kind == "conv":
        return (Convolution("regular", in_channels, out, kernel, stride, 1, 0, unit.bias, True),)
    return (
        Convolution("depthwise", in_channels, in_channels, kernel, stride, in_channels, 0,
                    unit.bias, unit.between),
        Convolution("rpw", in_channels, out, 1, 1, unit.groups, unit.overlap, False, True),
    )  # fmt: skip


def side_after(units: Sequence[Unit], side: int) -> int:
    """Return the side of the map after the units, pixels."""
    for unit in units:
        side = -(-side // unit.stride) // (1 + unit.pool)
    return side


def stage_cost(stage: Stage, in_channels: int, side: int) -> Cost:
    """Return the cost of a stage whose input is ``side`` x ``side`` pixels."""
    total = Cost(0, 0)
    for unit in stage:
        pixels = (-(-side // unit.stride)) ** 2
        for conv in convolutions(unit, in_channels):
            total += Cost(conv.parameters, conv.weights * pixels)
        in_channels, side = unit.channels, side_after([unit], side)
    return total


def classifier_cost(stages: Sequence[Stage], classes: int) -> Cost:
    """Return the cost of the linear classifier after the stages."""
    weights = stages[-1][-1].channels * classes
    return Cost(weights + classes, weights)


def stage_inputs(stages: Sequence[Stage], input_size: int) -> Iterator[tuple[Stage, int, int]]:
    """Yield each stage with channels and side of its input.

    Raises: InputError if the image is too small for the pooling layers.
    """
    channels, side = 3, input_size
    for stage in stages:
        yield stage, channels, side
        channels, side = stage[-1].channels, side_after(stage, side)
    if side < 1:
        halvings = sum(u.pool + (u.stride == 2) for stage in stages for u in stage)
        raise InputError(
            f"input_size {input_size} is too small for {halvings} halvings: {2**halvings} always "
            f"suffices"
        )


def net_cost(stages: Sequence[Stage], classes: int, input_size: int) -> Cost:
    """Count a net; equal to ``complexity.count_graph`` of what is built."""
    parts = [stage_cost(*given) for given in stage_inputs(stages, input_size)]
    return sum(parts, classifier_cost(stages, classes))
