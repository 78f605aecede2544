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
    Formed,
    channel_mean,
    scale_channels,
    unblocked,
)

nn = mx.gluon.nn


class ChannelAttention(Formed, mx.gluon.HybridBlock):
    """What the kinds of channel attention share; each defines ``gates``.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.
    """

    def gates(self, F, means):
        """Return the factors of the channels, ``(N, C, 1, 1) -> (N, C, 1, 1)``."""
        raise NotImplementedError

    def hybrid_forward(self, F, x):
        if self.form == INFERENCE:
            x = unblocked(F, x)  # for the mean and for the product
        gate = self.gates(F, channel_mean(F, x, self.form))
        return scale_channels(F, x, gate) if self.form == TRAINING else F.broadcast_mul(x, gate)


class SqueezeExcite(ChannelAttention):
    """Scale every channel by what a small network makes of all channels' means.

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
    """Return ECA's adaptive kernel: ``(log2(C) + 1) / 2`` cut to a whole number, then up to odd.

    As the formula is coded everywhere.  Where the cut number is even, as at 128 and 2048 channels,
    "nearest odd" is ambiguous; this goes up.  The authors' published models do not use it: their
    kernels are set by hand.

    Source: arXiv:1910.03151, section 3.2, with gamma 2 and b 1.
    """
    return int((math.log2(channels) + 1) / 2) | 1


class EfficientAttention(ChannelAttention):
    """ECA: a gate from the means of a channel and its ``kernel - 1`` neighbours, zeros outside.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.

    Args:
        channels: C.
        kernel: odd; by default ``eca_kernel(channels)``.
        shared: one kernel slides over the channels, ``kernel`` weights; else every channel has
            its own, ``kernel * C`` weights: the variant ECA-NS.

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
            # a convolution over the channel axis, which is laid along the height
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
        """``(N, 1, C, 1) -> (N, C, kernel, 1)``: of each channel the values under its kernel."""
        half = self.kernel // 2
        padded = F.pad(row, mode="constant", pad_width=(0, 0, 0, 0, half, half, 0, 0))
        shifted = [
            F.slice_axis(padded, axis=2, begin=i, end=i + self.channels) for i in range(self.kernel)
        ]
        joined = F.concat(*shifted, dim=-1)  # not 3, for oneDNN: see forms.joined
        return F.reshape(joined, shape=(0, -1, self.kernel, 1))


def _squeeze_excite(channels, *, reduction=4, divisor=8, prefix):
    hidden = round_up(_reduced(channels, reduction), divisor=_whole("divisor", divisor, channels))
    return SqueezeExcite(channels, hidden, prefix=prefix)


def _efficient(channels, *, kernel=None, shared=True, prefix):
    return EfficientAttention(channels, kernel, shared=shared, prefix=prefix)


def _nested(channels, *, reduction=8, prefix):
    # of ANTNet: a plain sigmoid; without biases, which is inferred (see related/antnet.py)
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


_KINDS = {"se": _squeeze_excite, "eca": _efficient, "ant": _nested}
_ON_OUTPUT = ("eca",)  # the others stand in the expanded space


def attention(kind: Optional[str], channels: int, *, prefix: str = "attention_", **settings):
    """Return a new block of channel attention, or None for the kind None.

    Args:
        kind: with its settings,
            ``se``: ``reduction`` 4, ``divisor`` 8 of the hidden channels, as in AsymmNet;
            ``eca``: ``kernel`` (None: adaptive), ``shared`` True;
            ``ant``: ``reduction`` 8, that of ANTNet's first blocks.
        channels: of the map it scales.

    Raises: InputError for another kind or setting, an even kernel, a reduction that leaves nothing.
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


def attention_in_bottleneck(kind: Optional[str], wide: int, out: int, settings: Optional[dict]):
    """Return the attention on the expanded channels and that on the output; one of them is None.

    Each kind stands where its authors have it: ECA on the output of the residual branch, the
    others behind the depthwise convolution.
    """
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise InputError(f"the settings of attention must be named values, got {settings!r}")
    if kind in _ON_OUTPUT:
        return None, attention(kind, out, **settings)
    return attention(kind, wide, **settings), None
