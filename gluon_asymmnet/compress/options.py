"""Methods of decomposition and their options."""

from typing import NamedTuple

from gluon_asymmnet.errors import InputError

MEMORY = 4 * 2**30  # limit for the second moments of a layer, bytes


class Method(NamedTuple):
    """A method of decomposition."""

    help: str
    data: bool = True  # needs images
    asymmetric: bool = False  # patches of the decomposed net, targets of the original
    channel: bool = False  # the baseline: filters over all channels


METHODS = {
    "weight-svd": Method("least error of the weights", data=False),
    "data-svd": Method("least error of each channel's responses"),
    "sequential": Method("each channel also fits the error of earlier channels"),
    "asymmetric": Method("the same, and each layer that of earlier layers", asymmetric=True),
    "channel": Method("the baseline, channel decomposition, at equal cost", channel=True),
    "channel-asymmetric": Method(
        "the same against the error of earlier layers, through the ReLU where one follows",
        asymmetric=True, channel=True,
    ),
}  # fmt: skip


class Options(NamedTuple):
    """Options of a decomposition."""

    method: str = "asymmetric"
    multiplier: int = 1  # depthwise filters per channel; the baseline has a rank of equal cost
    sweeps: int = 0  # of ``decomposition.sequential``
    joint: bool = False  # of ``decomposition.sequential``
    merge: bool = False  # merge the 1 x 1 with one after the normalisation, if there is one
    positions: int = 10  # sampled in each image
    seed: int = 0
    memory: int = MEMORY


def check(options: Options) -> None:
    """Raise InputError for options that fit no layer."""
    method = METHODS.get(options.method)
    if method is None:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {options.method!r}")
    for name, minimum in (("multiplier", 1), ("sweeps", 0), ("positions", 1), ("memory", 1)):
        if getattr(options, name) < minimum:
            raise InputError(f"{name} must be at least {minimum}, got {getattr(options, name)}")
    if (options.sweeps or options.joint) and options.method not in ("sequential", "asymmetric"):
        raise InputError(
            f"sweeps and joint are for sequential and asymmetric, not {options.method}"
        )
    if options.merge and method.channel:
        raise InputError("merging is for depthwise methods, not for channel decomposition")
