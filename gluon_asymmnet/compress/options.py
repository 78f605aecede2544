"""How layers are decomposed: the methods, and the settings they share."""

from typing import NamedTuple

from gluon_asymmnet.errors import InputError

MEMORY = 4 * 2**30  # bytes that the second moments of a layer may take


class Method(NamedTuple):
    """A way to decompose a layer."""

    help: str
    data: bool = True  # needs images
    asymmetric: bool = False  # patches of the decomposed net, targets of the original
    channel: bool = False  # the baseline: filters over all channels


METHODS = {
    "weight-svd": Method("least error of the weights", data=False),
    "data-svd": Method("least error of each channel's responses"),
    "sequential": Method("each channel takes over the error of those before it"),
    "asymmetric": Method("the same, and each layer that of those before it", asymmetric=True),
    "channel": Method("the baseline, channel decomposition, at equal cost", channel=True),
    "channel-asymmetric": Method(
        "the same against the error of earlier layers, through the ReLU where one follows",
        asymmetric=True, channel=True,
    ),
}  # fmt: skip


class Options(NamedTuple):
    """How layers are decomposed."""

    method: str = "asymmetric"
    multiplier: int = 1  # depthwise filters per channel; the baseline gets the rank of equal cost
    sweeps: int = 0  # of ``decomposition.sequential``
    joint: bool = False  # likewise
    merge: bool = False  # the 1 x 1 into the one behind the normalisation, where there is one
    positions: int = 10  # sampled in each image
    seed: int = 0
    memory: int = MEMORY


def check(options: Options) -> None:
    """Raise InputError for options that no layer could fit."""
    method = METHODS.get(options.method)
    if method is None:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {options.method!r}")
    for name, least in (("multiplier", 1), ("sweeps", 0), ("positions", 1), ("memory", 1)):
        if getattr(options, name) < least:
            raise InputError(f"{name} must be at least {least}, got {getattr(options, name)}")
    if (options.sweeps or options.joint) and options.method not in ("sequential", "asymmetric"):
        raise InputError(
            f"sweeps and the joint step refine sequential and asymmetric, not {options.method}"
        )
    if options.merge and method.channel:
        raise InputError("merging is for depthwise forms: the baseline's 1 x 1 stays")
