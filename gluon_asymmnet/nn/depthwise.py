"""The depthwise convolution, in forms whose gradient is fast in oneDNN."""

from typing import NamedTuple, Optional

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn.onednn import (
    TRAINING,
    GraphModeMixin,
    stops_at_avx2,
    to_plain_layout_with_grad,
)

_WIDEST = 3  # columns of a kernel whose gradient oneDNN computes fast
_SMALL = 5  # pixels: on larger maps the product takes longer than the slow gradient


class _Crops(NamedTuple):
    """Where a map lies on the kernel, along one axis."""

    pad: tuple[int, int]  # zeros before and after the kernel, so that each crop lies on it
    crops: list[tuple[int, int]]  # one for each output


class DepthwiseConv2D(GraphModeMixin, mx.gluon.nn.Conv2D):
    """Gluon's convolution with a group per channel; the training graph has other operators.

    oneDNN 2.4 computes the gradient of depthwise weights fast only for kernels of at most three
    columns on maps at least as high as the kernel.  Its other code takes about 30 times as long
    with AVX-512, 100 times without.  So, in the training graph:

    - On a map of few pixels the convolution is a product with one matrix per channel.
    - Without AVX-512, a convolution with a wider kernel is the sum of convolutions with three
      columns each, of the padded map without the columns to the left.
    """

    map_size: Optional[tuple[int, int]] = None  # (H, W); see ``note_map_sizes``

    def hybrid_forward(self, F, x, weight, bias=None):
        if self.graph_mode == TRAINING and bias is None:
            if self._is_slow_on_small_map():
                return self._multiply(F, x, weight)
            if self._kwargs["kernel"][1] > _WIDEST and stops_at_avx2():
                return self._split(F, x, weight)
        return super().hybrid_forward(F, x, weight, bias)

    def _is_slow_on_small_map(self) -> bool:
        if self.map_size is None or max(self.map_size) > _SMALL:
            return False
        rows, columns = self._kwargs["kernel"]
        lowest = rows + -self._kwargs["pad"][0] % self._kwargs["stride"][0]
        return columns > _WIDEST or self.map_size[0] < lowest

    def _multiply(self, F, x, weight):
        """Multiply the pixels of each channel by a matrix of kernel weights and zeros."""
        rows, columns = (self._crops(axis) for axis in (0, 1))
        weight = F.pad(weight, mode="constant", pad_width=(0, 0, 0, 0, *rows.pad, *columns.pad))
        weight = F.reshape(weight, shape=(-3, 0, 0))  # (C, kernel rows, kernel columns)
        # (C, output rows, map rows, kernel columns)
        matrix = F.stack(*(F.slice_axis(weight, 1, *crop) for crop in rows.crops), axis=1)
        # (C, output rows, output columns, map rows, map columns)
        matrix = F.stack(*(F.slice_axis(matrix, 3, *crop) for crop in columns.crops), axis=2)
        matrix = F.reshape(matrix, shape=(0, -3, -3))
        pixels = F.transpose(F.reshape(x, shape=(0, 0, -1)), axes=(1, 0, 2))
        out = F.transpose(F.batch_dot(pixels, matrix, transpose_b=True), axes=(1, 0, 2))
        out = F.reshape(out, shape=(0, 0, len(rows.crops), len(columns.crops)))
        return to_plain_layout_with_grad(F, out)  # the gradient of reshape fails in blocks

    def _crops(self, axis: int) -> _Crops:
        """Return where the map lies on the kernel, for each output row (axis 0) or column (1)."""
        kernel, stride, pad = (self._kwargs[key][axis] for key in ("kernel", "stride", "pad"))
        size = self.map_size[axis]
        number = (size + 2 * pad - kernel) // stride + 1
        before = max(0, (number - 1) * stride - pad)
        begins = [before + pad - index * stride for index in range(number)]
        return _Crops((before, max(0, pad + size - kernel)), [(b, b + size) for b in begins])

    def _split(self, F, x, weight):
        """Add the convolutions of at most three columns of the kernel each."""
        rows, columns = self._kwargs["kernel"]
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


def note_map_sizes(net, shape: tuple[int, int, int, int]) -> None:
    """Let each depthwise convolution of ``net`` know the size of its map.

    The training graph then takes images of this size only; another size is an error of MXNet.
    Call it before the first forward pass.

    Args:
        shape: ``(N, C, H, W)`` of the images; any N.
    """

    def note(block, inputs):
        _, (found,), _ = inputs[0].infer_shape_partial()
        block.map_size = found[2:] if all(size > 0 for size in found) else None

    hooks = []

    def watch(block):
        if isinstance(block, DepthwiseConv2D):
            hooks.append(block.register_forward_pre_hook(note))

    net.apply(watch)
    if not hooks:
        return
    net(mx.sym.var("data", shape=shape))
    for hook in hooks:
        hook.detach()
