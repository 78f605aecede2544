"""The three shift primitives of AddressNet: data moves, nothing is computed.

Source: arXiv:1809.08458 and its poster at WACV 2019.  There a shift moves a pointer; MXNet's
operators copy, so their times are not the paper's.

All of them are slices and joins, of any batch and image size.  Joins name a negative axis: see
``forms.joined``.
"""

from gluon_asymmnet._environment import mx
from gluon_asymmnet.errors import InputError

MODES = ("flat", "zero")
_CHANNELS, _ROWS, _COLUMNS = -3, -2, -1


class ChannelShift(mx.gluon.HybridBlock):
    """Roll the channels to the left by half a group, so that half of each group is another's.

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
    """Move the quarters of the channels by a pixel each: left, up, right, down.

    Shapes: ``(N, C, H, W) -> (N, C, H, W)``.  Inside the border both modes are the same.

    Args:
        channels: C, a multiple of 4.
        mode: ``flat``, as the paper does it: the quarters are windows of a sample's memory,
            displaced by +1, +W, -1 and -W elements.  What enters a row is the end of the row next
            to it in memory, what enters a channel is of the channel next to it, at the ends of a
            quarter the next quarter's; in this order of directions nothing outside the sample is
            read.  ``zero``: zeros enter.
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
        if self.mode == "zero":
            padded = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 1, 1, 1, 1))
            quarters = F.split(padded, num_outputs=4, axis=_CHANNELS)
            moved = [_window(F, q, *corner) for q, corner in zip(quarters, _CORNERS)]
        else:
            q = self.quarter
            moved = [
                _left(F, _channels(F, x, 0, q + 1)),
                _up(F, _channels(F, x, q, 2 * q + 1)),
                _right(F, _channels(F, x, 2 * q - 1, 3 * q)),
                _down(F, _channels(F, x, 3 * q - 1, 4 * q)),
            ]
        return F.concat(*moved, dim=_CHANNELS)


class ShortcutShift(mx.gluon.HybridBlock):
    """``relu(x ++ y)`` for a shortcut x and a branch y, in place of ``relu(x + y)``.

    Shapes: ``(N, C, H, W), (N, D, H, W) -> (N, C + D, H, W)``.
    """

    def hybrid_forward(self, F, x, y):
        return F.relu(F.concat(x, y, dim=_CHANNELS))


# Row and column of a padded quarter where the window begins that is moved left, up, right, down.
_CORNERS = ((1, 2), (2, 1), (1, 0), (0, 1))


def _window(F, x, row, column):
    """Cut ``(N, C, H, W)`` out of ``(N, C, H + 2, W + 2)``."""
    begin, end = (row, column), (row - 2 or None, column - 2 or None)
    return F.slice(x, begin=(None, None, *begin), end=(None, None, *end))


# In memory order, of ``(N, C + 1, H, W)``: the extra channel is the one after, or the one before.
# Each returns ``(N, C, H, W)``.


def _up(F, x):
    following = _first(F, _drop_first(F, x, _CHANNELS), _ROWS)
    return _drop_first(F, F.concat(_drop_last(F, x, _CHANNELS), following, dim=_ROWS), _ROWS)


def _left(F, x):
    following = _up(F, _first(F, x, _COLUMNS))
    return _drop_first(F, F.concat(_drop_last(F, x, _CHANNELS), following, dim=_COLUMNS), _COLUMNS)


def _down(F, x):
    preceding = _last(F, _drop_last(F, x, _CHANNELS), _ROWS)
    return _drop_last(F, F.concat(preceding, _drop_first(F, x, _CHANNELS), dim=_ROWS), _ROWS)


def _right(F, x):
    preceding = _down(F, _last(F, x, _COLUMNS))
    return _drop_last(F, F.concat(preceding, _drop_first(F, x, _CHANNELS), dim=_COLUMNS), _COLUMNS)


def _channels(F, x, begin, end):
    return F.slice_axis(x, axis=_CHANNELS, begin=begin, end=end)


def _first(F, x, axis):
    return F.slice_axis(x, axis=axis, begin=0, end=1)


def _last(F, x, axis):
    return F.slice_axis(x, axis=axis, begin=-1, end=None)


def _drop_first(F, x, axis):
    return F.slice_axis(x, axis=axis, begin=1, end=None)


def _drop_last(F, x, axis):
    return F.slice_axis(x, axis=axis, begin=0, end=-1)
