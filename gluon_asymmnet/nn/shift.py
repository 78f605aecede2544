"""The three shift primitives of AddressNet, which move data without arithmetic.

Source: arXiv:1809.08458 and its poster at WACV 2019.  There a shift moves a pointer; MXNet's
operators copy, so their times are not comparable with the paper's.

All three consist of slices and concatenations, for any batch and image size.  Concatenations use a
negative axis, see ``onednn.concat_channels``.
"""

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError

MODES = ("flat", "zero")
_CHANNELS, _ROWS, _COLUMNS = -3, -2, -1


class ChannelShift(mx.gluon.HybridBlock):
    """Roll the channels to the left by half a group, which mixes neighbouring groups.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``; ``out[j] = in[(j + C/(2*groups)) mod C]``.

    Args:
        channels: C, a multiple of ``2 * groups``.
        inverse: roll to the right instead.
    """

    def __init__(
        self, channels: int, groups: int = 4, *, inverse: bool = False, prefix=None, params=None
    ):
        super().__init__(prefix=prefix, params=params)
        if groups < 1 or channels % (2 * groups):
            raise InputError(
                f"channel shift moves half a group: {groups} groups need a multiple of "
                f"{2 * groups} channels, got {channels}"
            )
        half = channels // (2 * groups)
        self.first = channels - half if inverse else half

    def hybrid_forward(self, F, x):
        head = F.slice_axis(x, axis=_CHANNELS, begin=0, end=self.first)
        tail = F.slice_axis(x, axis=_CHANNELS, begin=self.first, end=None)
        return F.concat(tail, head, dim=_CHANNELS)


class AddressShift(mx.gluon.HybridBlock):
    """Shift each quarter of the channels by one pixel: left, up, right, down.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.  The two modes differ only at the borders.

    Args:
        channels: C, a multiple of 4.
        mode: ``flat``, the paper's: the quarters are windows of a sample's memory, displaced by
            +1, +W, -1 and -W elements.  Each border pixel comes from the adjacent row or channel in
            memory, also across quarters.  With this order of directions no element outside the
            sample is read.  ``zero``: border pixels become zero.
    """

    def __init__(self, channels: int, mode: str = "flat", *, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        if channels % 4:
            raise InputError(f"address shift needs a multiple of 4 channels, got {channels}")
        if mode not in MODES:
            raise InputError(f"address shift is {' or '.join(MODES)}, got {mode!r}")
        self.quarter = channels // 4
        self.mode = mode

    def hybrid_forward(self, F, x):
        move = _move_flat if self.mode == "flat" else _move_zero
        return move(F, x, self.quarter)


class ShortcutShift(mx.gluon.HybridBlock):
    """``relu(x ++ y)`` for a shortcut x and a branch y, in place of ``relu(x + y)``.

    Shapes: ``(N, C, H, W), (N, D, H, W) -> (N, C + D, H, W)``.
    """

    def hybrid_forward(self, F, x, y):
        return F.relu(F.concat(x, y, dim=_CHANNELS))


def _move_flat(F, x, q):
    """Fill the border of each channel with a pixel or row of the next or previous channel."""
    pixels = _flat(F, x)
    left, up, right, down = F.split(x, num_outputs=4, axis=_CHANNELS)
    first_pixels = _channels(F, F.slice_axis(pixels, axis=-1, begin=0, end=1), 1, q + 1)
    first_rows = _channels(F, F.slice_axis(x, axis=-2, begin=0, end=1), q + 1, 2 * q + 1)
    last_pixels = _channels(
        F, F.slice_axis(pixels, axis=-1, begin=-1, end=None), 2 * q - 1, 3 * q - 1
    )
    last_rows = _channels(F, F.slice_axis(x, axis=-2, begin=-1, end=None), 3 * q - 1, 4 * q - 1)
    moved = F.concat(
        _append(F, _flat(F, left), first_pixels, -1),
        _flat(F, _append(F, up, first_rows, -2)),
        _prepend(F, _flat(F, right), last_pixels, -1),
        _flat(F, _prepend(F, down, last_rows, -2)),
        dim=-2,
    )
    return F.reshape_like(moved, x)


def _flat(F, x):
    """Return ``(N, C, H * W)``."""
    return F.reshape(x, shape=(0, 0, -1))


def _channels(F, x, begin, end):
    return F.slice_axis(x, axis=1, begin=begin, end=end)


def _append(F, x, line, axis):
    return F.slice_axis(F.concat(x, line, dim=axis), axis=axis, begin=1, end=None)


def _prepend(F, x, line, axis):
    return F.slice_axis(F.concat(line, x, dim=axis), axis=axis, begin=0, end=-1)


def _move_zero(F, x, _):
    """Crop the shifted quarters out of zero-padded ones."""
    padded = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 1, 1, 1, 1))
    left, up, right, down = F.split(padded, num_outputs=4, axis=_CHANNELS)
    inside, first, last = (1, -1), (0, -2), (2, None)
    return F.concat(
        _window(F, left, rows=inside, columns=last),
        _window(F, up, rows=last, columns=inside),
        _window(F, right, rows=inside, columns=first),
        _window(F, down, rows=first, columns=inside),
        dim=_CHANNELS,
    )


def _window(F, x, rows, columns):
    begin, end = zip((None, None), (None, None), rows, columns)
    return F.slice(x, begin=begin, end=end)
