"""Three graphs for the same network; all compute the same function with the same weights.

- ``PLAIN``: the operators of the authors' released network, whose logits it gives to the bit.  It
  is the exported graph, and the reference for the other two.
- ``TRAINING``: operators whose backward pass is fast on the CPU, and copies that keep oneDNN off
  its slow code paths.  Parameter names and shapes are those of the plain graph.
- ``INFERENCE``: batch normalisation folded into the convolutions, and copies that save changes of
  the memory layout.

The copies are identity operators that write their input in plain memory layout.  oneDNN keeps
activations in blocks of 16 channels, without AVX-512 of 8, and elementwise operators cannot read
blocks: each of them converts each of its inputs back.  One copy before a chain of such operators
converts once.

Measured on two processors, see ``benchmarks/``.
"""

import functools
import os

from gluon_asymmnet.utils.doctor import cpu_features

PLAIN, TRAINING, INFERENCE = "plain", "training", "inference"


class GraphModeMixin:
    """Base of the blocks whose graph depends on the mode; ``set_graph_mode`` changes it."""

    graph_mode = PLAIN

    @property
    def tuned_for_onednn(self) -> bool:
        """Whether the mode is ``TRAINING`` or ``INFERENCE``."""
        return self.graph_mode != PLAIN


def set_graph_mode(net, mode: str) -> None:
    """Set the graph mode of every block of ``net``.  Call it before ``hybridize``."""

    def change(block) -> None:
        if isinstance(block, GraphModeMixin):
            block.graph_mode = mode

    net.apply(change)


@functools.cache
def stops_at_avx2() -> bool:
    """Whether oneDNN uses AVX2 but not AVX-512, which the processor lacks or a switch forbids.

    False where the instruction sets are not known: they are read on Linux, on x86.  oneDNN reads
    its switch once per process, when it first computes.
    """
    names = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
    allowed = next((os.environ[name].upper() for name in names if os.environ.get(name)), "ALL")
    avx512 = "avx512f" in cpu_features() and allowed.startswith(("ALL", "AVX512"))
    return "avx2" in cpu_features() and not avx512


def fills_blocks(*channels: int) -> bool:
    """Whether all these channel counts are multiples of oneDNN's block of channels."""
    block = 8 if stops_at_avx2() else 16
    return all(count % block == 0 for count in channels)


def to_plain_layout(F, x):
    """Return a copy of ``x`` in plain memory layout."""
    return F.reshape(x, shape=(0, 0, 0, 0))


def to_plain_layout_with_grad(F, x):
    """Return a copy of ``x`` in plain memory layout; the gradient is copied likewise."""
    return F.slice_axis(x, axis=1, begin=0, end=None)


def concat_channels(F, maps, mode: str, *, in_blocks: bool = False):
    """Concatenate maps ``(N, C_i, H, W)`` along the channels.

    oneDNN's backward pass of the concatenation fails in MXNet 1.9.1 where channel counts do not
    fill its blocks.  A negative axis takes another code path, which works, in plain layout.

    Args:
        in_blocks: use oneDNN's in training, too.
    """
    onednn = mode == INFERENCE or (mode == TRAINING and in_blocks)
    return F.concat(*maps, dim=1 if onednn else -3)


def channel_mean(F, x, mode: str):
    """Return the mean over H and W, ``(N, C, H, W) -> (N, C, 1, 1)``.

    Pooling is what ``GlobalAvgPool2D`` computes.  MXNet ignores the kernel, but without one it
    takes a path that is four times slower and rounds differently.  In training the mean is a matrix
    product, whose gradient is a matrix product, too.
    """
    if mode != TRAINING:
        return F.Pooling(
            x, global_pool=True, kernel=(1, 1), pool_type="avg", pooling_convention="full"
        )
    pixels = F.reshape(x, shape=(0, 0, -1))
    ones = _ones_row(F, pixels)
    total = F.batch_dot(pixels, ones, transpose_b=True)
    number = F.batch_dot(ones, ones, transpose_b=True)
    return F.reshape(F.broadcast_div(total, number), shape=(0, 0, 0, 1))


def scale_channels(F, x, gate):
    """Return ``x * gate`` for ``gate`` ``(N, C, 1, 1)``, for training.

    The gate is broadcast by a matrix product, because the gradient of ``broadcast_mul`` is summed
    over H and W by a slow general reduction.
    """
    ones = _ones_row(F, F.reshape(x, shape=(0, 0, -1)))
    spread = F.batch_dot(F.reshape(gate, shape=(0, 0, -1)), ones)
    return x * F.reshape_like(spread, x)


def _ones_row(F, pixels):
    """Return ones ``(N, 1, H*W)`` for ``(N, C, H*W)``; no gradient flows through them."""
    return F.ones_like(F.slice_axis(pixels, axis=1, begin=0, end=1))
