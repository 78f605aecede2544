"""The forms a network can take; all compute the same function with the same weights.

- ``PLAIN``: as exported, and what everything is compared with.
- ``TRAINING``: with operators whose backward is fast on the CPU, and identities that keep oneDNN
  off its slow paths.  Names and arrays are the plain net's.
- ``INFERENCE``: batch normalisation folded, and identities that save changes of memory layout.

An identity here is an operator that copies its input into plain memory order.  oneDNN keeps
activations in blocks of 16 channels; elementwise operators do not, so that each of them undoes the
blocks of each of its inputs.  One copy before a chain of them does it once.

Measured on two processors, see ``benchmarks/``.
"""

PLAIN, TRAINING, INFERENCE = "plain", "training", "inference"


class Formed:
    """A block whose graph depends on the form; set by ``set_form``, plain from the start."""

    form = PLAIN

    @property
    def tuned(self) -> bool:
        """Whether the form is one of the two for oneDNN."""
        return self.form != PLAIN


def set_form(net, form: str) -> None:
    """Change the form of every block of ``net``.  Call it before ``hybridize``."""

    def change(block) -> None:
        if isinstance(block, Formed):
            block.form = form

    net.apply(change)


def unblocked(F, x):
    """Return ``x`` in plain memory order."""
    return F.reshape(x, shape=(0, 0, 0, 0))


def resliced(F, x):
    """Return ``x`` in plain memory order, in the backward pass too."""
    return F.slice_axis(x, axis=1, begin=0, end=None)


def joined(F, maps, form: str):
    """Return the maps joined along the channels.

    With a negative axis, as oneDNN's backward of the join fails in MXNet 1.9.1 where channel counts
    are no multiples of 16; a negative axis takes the path that works.
    """
    return F.concat(*maps, dim=1 if form == INFERENCE else -3)


def channel_mean(F, x, form: str):
    """Return the mean over H and W, ``(N, C, H, W) -> (N, C, 1, 1)``.

    Pooling is fastest, four times more so if a kernel is named, which it ignores; but its backward
    fails at some channel counts.  In training a matrix product is several times faster than the
    general reduction of ``F.mean``.
    """
    if form == INFERENCE:
        return F.Pooling(x, global_pool=True, kernel=(1, 1), pool_type="avg")
    if form == PLAIN:
        return F.mean(x, axis=(2, 3), keepdims=True)
    pixels = F.reshape(x, shape=(0, 0, -1))
    ones = _ones_row(F, pixels)
    total = F.batch_dot(pixels, ones, transpose_b=True)
    number = F.batch_dot(ones, ones, transpose_b=True)
    return F.reshape(F.broadcast_div(total, number), shape=(0, 0, 0, 1))


def scale_channels(F, x, gate):
    """Return ``x * gate`` for ``gate`` ``(N, C, 1, 1)``, spread by a matrix product.

    ``broadcast_mul`` sums its gradient over H and W with a general reduction.
    """
    ones = _ones_row(F, F.reshape(x, shape=(0, 0, -1)))
    spread = F.batch_dot(F.reshape(gate, shape=(0, 0, -1)), ones)
    return x * F.reshape_like(spread, x)


def _ones_row(F, pixels):
    """Return ``(N, 1, H*W)`` ones for ``(N, C, H*W)``; their gradient is nothing."""
    return F.ones_like(F.slice_axis(pixels, axis=1, begin=0, end=1))
