"""Nets of other families with factored convolutions: what ``asymmnet decompose`` makes."""

from typing import Optional

from gluon_asymmnet.compress.layers import expand, place
from gluon_asymmnet.errors import InputError

_BASE = {"family", "settings", "width", "rate"}


def build(
    *, width: float, rate: int, classes: int, dropout: Optional[float], input_size: int,
    prefix: str, base: Optional[dict] = None, layers: Optional[dict] = None,
):  # fmt: skip
    """Build the base net and put factored convolutions in the place of some of its own.

    Args:
        base: ``{"family": ..., "settings": {...}, "width": ..., "rate": ...}``; the last two may
            be left to ``width`` and ``rate``.
        layers: for each convolution, by its path in the net, the form that ``layers.place`` takes;
            ``*`` stands for all that ``layers.worthwhile`` gives.

    Raises: InputError for a base that cannot be built, a path that leads to no regular
        convolution, and forms that do not fit.
    """
    from gluon_asymmnet.zoo import get_classifier

    if not isinstance(base, dict) or not {"family", "settings"} <= set(base) <= _BASE:
        raise InputError(
            f'base must be {{"family": ..., "settings": {{...}}}}, with width and rate if wanted, '
            f"got {base!r}"
        )
    if not isinstance(layers, dict) or not all(isinstance(f, dict) for f in layers.values()):
        raise InputError(f"layers must map paths of convolutions to their forms, got {layers!r}")
    if width != 1 and "width" in base:
        raise InputError(f"the base says width {base['width']}, the argument {width}: give one")
    net = get_classifier(
        prefix.rstrip("_"), width=base.get("width", width), rate=base.get("rate", rate),
        classes=classes, dropout=dropout, input_size=input_size,
        spec={"family": base["family"], "settings": base["settings"]},
    )  # fmt: skip
    for path, form in expand(net, layers).items():
        place(net, path, form)
    return net
