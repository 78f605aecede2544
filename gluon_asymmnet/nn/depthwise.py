"""The depthwise convolution, in a form whose gradient is fast without AVX-512, too."""

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn.onednn import TRAINING, GraphModeMixin, stops_at_avx2

_WIDEST = 3  # columns of a kernel


class DepthwiseConv2D(GraphModeMixin, mx.gluon.nn.Conv2D):
    """Gluon's convolution with a group per channel; the training graph splits wide kernels.

    Without AVX-512, oneDNN 2.4 computes the gradient of depthwise weights fast only for kernels of
    at most three columns on maps at least as high as the kernel; its other code takes about 100
    times as long.  A convolution with a wider kernel is the sum of convolutions with three columns
    each, of the padded map without the columns to the left.
    """

    def hybrid_forward(self, F, x, weight, bias=None):
        rows, columns = self._kwargs["kernel"]
        split = self.graph_mode == TRAINING and columns > _WIDEST and stops_at_avx2()
        if not split or bias is not None:
            return super().hybrid_forward(F, x, weight, bias)
        high, wide = self._kwargs["pad"]
        x = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, high, high, wide, wide))
        parts = []
        for first in range(0, columns, _WIDEST):
            last = min(first + _WIDEST, columns)
            kwargs = {**self._kwargs, "kernel": (rows, last - first), "pad": (0, 0)}
            under = F.slice_axis(x, axis=3, begin=first, end=(last - columns) or None)
            some = F.slice_axis(weight, axis=3, begin=first, end=last)
            parts.append(F.Convolution(under, some, **kwargs))
        return F.add_n(*parts)
