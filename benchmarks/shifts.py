"""Candidates: AddressNet's shifts and the operators they replace, forward and hybridized.

The feature maps are those of its second stage.  ``nn.shift`` says why the shifts copy.
"""

import numpy as np

from benchmarks.candidates import Call, Case

CHANNELS, STRIDE = 384, 8  # between the 1 x 1 convolutions of AddressNet's second stage


def map_shape(case: Case) -> tuple[int, int, int, int]:
    """Return the shape of the output, ``(N, C, H, W)``."""
    side = -(-case.size // STRIDE)
    return case.batch, CHANNELS, side, side


def _call(case: Case, make, *channels: int) -> Call:
    """Build ``make(mx)``; return its call on feature maps with these numbers of channels."""
    from gluon_asymmnet._mxnet import mx

    batch, _, *sides = map_shape(case)
    rng = np.random.default_rng(0)
    maps = [mx.nd.array(rng.normal(size=(batch, c, *sides))) for c in channels]
    block = make(mx)
    block.hybridize(static_alloc=True, static_shape=True)
    return lambda: block(*maps).wait_to_read()


def channel_shuffle(case: Case) -> Call:
    """ShuffleNet's channel shuffle of 4 groups."""
    from gluon_asymmnet.nn import ChannelShuffle

    return _call(case, lambda mx: ChannelShuffle(4), CHANNELS)


def channel_shift(case: Case) -> Call:
    """The channel shift of 4 groups."""
    from gluon_asymmnet.nn.shift import ChannelShift

    return _call(case, lambda mx: ChannelShift(CHANNELS), CHANNELS)


def address_shift_flat(case: Case) -> Call:
    """The address shift as in the paper."""
    from gluon_asymmnet.nn.shift import AddressShift

    return _call(case, lambda mx: AddressShift(CHANNELS, "flat"), CHANNELS)


def address_shift_zero(case: Case) -> Call:
    """The address shift with zeros at the border."""
    from gluon_asymmnet.nn.shift import AddressShift

    return _call(case, lambda mx: AddressShift(CHANNELS, "zero"), CHANNELS)


def add(case: Case) -> Call:
    """Sum of shortcut and branch, then ReLU."""
    return _call(
        case, lambda mx: mx.gluon.nn.HybridLambda(lambda F, x, y: F.relu(x + y)),
        CHANNELS, CHANNELS,
    )  # fmt: skip


def shortcut_shift(case: Case) -> Call:
    """Concatenation of shortcut and branch, of half as many channels each, then ReLU."""
    from gluon_asymmnet.nn.shift import ShortcutShift

    return _call(case, lambda mx: ShortcutShift(), CHANNELS // 2, CHANNELS // 2)


SHIFT = (
    channel_shuffle, channel_shift, address_shift_flat, address_shift_zero, add, shortcut_shift,
)  # fmt: skip
CANDIDATES = {function.__name__: function for function in SHIFT}
