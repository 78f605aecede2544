"""Channel attention: every channel is scaled by a gate made of the channels' means."""

import inspect
import math
from typing import Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import round_up
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.nn.activations import activation
from gluon_asymmnet.nn.onednn import (
    INFERENCE,
    TRAINING,
    GraphModeMixin,
    channel_mean,
    scale_channels,
    to_plain_layout,
)

nn = mx.gluon.nn


class ChannelAttention(GraphModeMixin, mx.gluon.HybridBlock):
    """Base of the kinds of channel attention; each defines ``gates``.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.
    """

    def gates(self, F, means):
        """Return one factor per channel, ``(N, C, 1, 1) -> (N, C, 1, 1)``."""
        raise NotImplementedError

    def hybrid_forward(self, F, x):
        if self.graph_mode == INFERENCE:
            x = to_plain_layout(F, x)  # the mean and the product both read it
        gate = self.gates(F, channel_mean(F, x, self.graph_mode))
        if self.graph_mode == TRAINING:
            return scale_channels(F, x, gate)
        return F.broadcast_mul(x, gate)


class SqueezeExcite(ChannelAttention):
    """Scale every channel by a gate that two 1 x 1 convolutions compute from the channel means.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.

    Args:
        channels: C.
        hidden: channels between the two 1 x 1 convolutions; a quarter of C, rounded up to a
            multiple of 8, in AsymmNet and MobileNetV3.
        gate: ``hard_sigmoid`` or ``sigmoid``.
        use_bias: whether the two convolutions have biases.

    Source: arXiv:1709.01507; the hard sigmoid is from arXiv:1905.02244, section 5.3.
    """

    def __init__(
        self, channels: int, hidden: int, *, gate: str = "hard_sigmoid", use_bias: bool = True,
        prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        with self.name_scope():
            self.reduce = nn.Conv2D(
                hidden, 1, in_channels=channels, use_bias=use_bias, prefix="reduce_"
            )
            self.relu = activation("relu")
            self.restore = nn.Conv2D(
                channels, 1, in_channels=hidden, use_bias=use_bias, prefix="restore_"
            )
            self.gate = activation(gate)

    def gates(self, F, means):
        return self.gate(self.restore(self.relu(self.reduce(means))))


def eca_kernel(channels: int) -> int:
    """Return ECA's adaptive kernel: ``(log2(C) + 1) / 2`` truncated, then rounded up to odd.

    This is how every implementation codes the formula.  Where the truncated number is even, as at
    128 and 2048 channels, the paper's "nearest odd" is ambiguous.  The authors' published models do
    not use the formula: their kernels are set by hand.

    Source: arXiv:1910.03151, section 3.2, with gamma 2 and b 1.
    """
    return int((math.log2(channels) + 1) / 2) | 1


class EfficientAttention(ChannelAttention):
    """ECA: a gate from the means of a channel and its ``kernel - 1`` neighbours, zeros outside.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.

    Args:
        channels: C.
        kernel: odd; by default ``eca_kernel(channels)``.
        shared: True: one kernel for all channels, ``kernel`` weights.  False: one kernel per
            channel, ``kernel * C`` weights, the variant ECA-NS.

    Source: arXiv:1910.03151, section 3.2; BangguWu/ECANet, models/eca_module.py and eca_ns.py.
    """

    def __init__(
        self, channels: int, kernel: Optional[int] = None, *, shared: bool = True,
        prefix=None, params=None,
    ):  # fmt: skip
        super().__init__(prefix=prefix, params=params)
        kernel = eca_kernel(channels) if kernel is None else kernel
        odd = isinstance(kernel, int) and not isinstance(kernel, bool) and kernel % 2 == 1
        if not odd or not 0 < kernel < 2 * channels:
            raise InputError(
                f"the kernel of ECA must be an odd number from 1 to {2 * channels - 1} on "
                f"{channels} channels, or null for the adaptive one; got {kernel!r}"
            )
        if not isinstance(shared, bool):
            raise InputError(f"shared must be true or false, got {shared!r}")
        self.channels, self.kernel, self.shared = channels, kernel, shared
        among = 1 if shared else channels
        with self.name_scope():
            # a convolution over the channels, which are reshaped to the height axis
            self.conv = nn.Conv2D(
                among, (kernel, 1), padding=(kernel // 2 if shared else 0, 0), groups=among,
                in_channels=among, use_bias=False, prefix="conv_",
                weight_initializer=mx.init.Uniform(kernel**-0.5),  # PyTorch's own, as released
            )  # fmt: skip
            self.gate = activation("sigmoid")

    def gates(self, F, means):
        row = F.reshape(means, shape=(0, 1, -1, 1))
        if not self.shared:
            row = self._neighbours(F, row)
        return F.reshape(self.gate(self.conv(row)), shape=(0, -1, 1, 1))

    def _neighbours(self, F, row):
        """``(N, 1, C, 1) -> (N, C, kernel, 1)``: the values under each channel's kernel."""
        half = self.kernel // 2
        padded = F.pad(row, mode="constant", pad_width=(0, 0, 0, 0, half, half, 0, 0))
        shifted = [
            F.slice_axis(padded, axis=2, begin=i, end=i + self.channels) for i in range(self.kernel)
        ]
        windows = F.concat(*shifted, dim=-1)  # not 3, see onednn.concat_channels
        return F.reshape(windows, shape=(0, -1, self.kernel, 1))


def _squeeze_excite(channels, *, reduction=4, divisor=8, prefix):
    hidden = round_up(_reduced(channels, reduction), divisor=_whole("divisor", divisor, channels))
    return SqueezeExcite(channels, hidden, prefix=prefix)


def _efficient(channels, *, kernel=None, shared=True, prefix):
    return EfficientAttention(channels, kernel, shared=shared, prefix=prefix)


def _antnet(channels, *, reduction=8, prefix):
    # ANTNet's: a plain sigmoid; no biases, which is inferred (see models/antnet.py)
    hidden = _reduced(channels, reduction)
    return SqueezeExcite(channels, hidden, gate="sigmoid", use_bias=False, prefix=prefix)


def _reduced(channels, reduction):
    return channels // _whole("reduction", reduction, channels)


def _whole(name, value, largest):
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
        raise InputError(
            f"{name} must be a whole number from 1 to {largest}, the channels, got {value!r}"
        )
    return value


_KINDS = {"se": _squeeze_excite, "eca": _efficient, "ant": _antnet}
_ON_OUTPUT = ("eca",)  # the others scale the expanded channels


def attention(kind: Optional[str], channels: int, *, prefix: str = "attention_", **settings):
    """Create a block of channel attention; None for the kind None.

    Args:
        kind: one of these, with its settings and their defaults:
            ``se``: ``reduction`` 4, ``divisor`` 8 of the hidden channels, as in AsymmNet;
            ``eca``: ``kernel`` (None: adaptive), ``shared`` True;
            ``ant``: ``reduction`` 8, as in ANTNet's first blocks.
        channels: channels of the map that it scales.

    Raises: InputError for another kind or setting, an even kernel, a reduction to zero channels.
    """
    if kind is None and not settings:
        return None
    if not isinstance(kind, str) or kind not in _KINDS:
        with_settings = " with settings" if settings else ""
        raise InputError(
            f"attention must be null, {' or '.join(map(repr, _KINDS))}, got {kind!r}{with_settings}"
        )
    make = _KINDS[kind]
    known = [name for name in inspect.getfullargspec(make).kwonlyargs if name != "prefix"]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise InputError(
            f"attention {kind!r} has no setting {unknown[0]!r}: it takes {', '.join(known)}"
        )
    return make(channels, prefix=prefix, **settings)


def attention_in_bottleneck(
    kind: Optional[str], depthwise_channels: int, out: int, settings: Optional[dict]
):
    """Create the attention on the expanded channels or on the output; the other one is None.

    Each kind goes where its authors put it: ECA on the output of the residual branch, the others
    after the depthwise convolution.
    """
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise InputError(f"the settings of attention must be named values, got {settings!r}")
    if kind in _ON_OUTPUT:
        return None, attention(kind, out, **settings)
    return attention(kind, depthwise_channels, **settings), None
