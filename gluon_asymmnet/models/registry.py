"""Every model by name.

Adding one is adding a row to ``SPECS``; the tests, the golden symbols and the tables all
iterate over it.  No other module holds a list of models.
"""

import difflib
import re
import reprlib
from pathlib import Path
from typing import NamedTuple, Optional

from gluon_asymmnet.arch import LARGE, SMALL, NetPlan, NetSpec, plan_net
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.utils.json_objects import parse_object

SPECS = {
    "asymmnet_large": LARGE,
    "asymmnet_small": SMALL,
    "mobilenetv3_large": LARGE._replace(asymmetric=False),
    "mobilenetv3_small": SMALL._replace(asymmetric=False),
}


class Related(NamedTuple):
    """A net of a related system: the family that builds it, and its settings there."""

    family: str
    settings: dict  # of the family's ``build``; JSON values
    widths: tuple[float, ...] = (1.0,)  # those whose counts are checked
    rates: tuple[int, ...] = (0,)  # those that can be built


# Each a module of ``related`` with ``build(*, width, rate, classes, dropout, input_size, prefix,
# **settings)``.
FAMILIES = (
    "addressnet", "antnet", "decomposed", "dicenet", "eca_mobilenetv2", "eca_resnet", "ghostnet",
    "mobilenetv2", "rpw", "shufflenetv2",
)  # fmt: skip


RELATED: dict[str, Related] = {
    "mobilenetv2": Related("mobilenetv2", {}, (0.35, 0.5, 0.75, 1.0, 1.4)),
    "mobilenetv2_asymm": Related("mobilenetv2", {}, (0.5, 0.75, 1.0), (0, 1, 2)),
    "ghostnet": Related("ghostnet", {}, (0.5, 0.75, 1.0, 1.3)),
    "ghostnet_asymm": Related("ghostnet", {}, (0.5, 0.75, 1.0, 1.3), (0, 1, 2)),
    # the kernels of the published models; all 3 in the code's defaults
    "eca_resnet18": Related("eca_resnet", {"depth": 18, "kernels": [3, 5, 7, 7]}),
    "eca_resnet34": Related("eca_resnet", {"depth": 34, "kernels": [3, 3, 5, 7]}),
    "eca_resnet50": Related("eca_resnet", {"depth": 50, "kernels": [3, 5, 5, 7]}),
    "eca_resnet101": Related("eca_resnet", {"depth": 101, "kernels": [3, 3, 5, 7]}),
    "eca_resnet152": Related("eca_resnet", {"depth": 152, "kernels": [3, 3, 5, 7]}),
    "eca_mobilenetv2": Related("eca_mobilenetv2", {}),
    "antnet": Related("antnet", {}, (1.0, 1.4)),
    "antnet_g2": Related("antnet", {"groups": 2}),
    "dicenet": Related("dicenet", {}, (0.2, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.4)),
    "addressnet": Related("addressnet", {}),
    "addressnet_enhanced": Related("addressnet", {"enhanced": True}),
    "cifar_addressnet32": Related("addressnet", {"depth": 32}),
    "cifar_addressnet32_enhanced": Related("addressnet", {"depth": 32, "enhanced": True}),
    "shufflenetv2": Related("shufflenetv2", {}, (0.5, 1.0, 1.5, 2.0)),
    "shufflenetv2_regular": Related("shufflenetv2", {"regular": "both"}, (0.5, 1.0, 1.5, 2.0)),
    "shufflenetv2_decomposed": Related(
        "decomposed",
        {
            "base": {"family": "shufflenetv2", "settings": {"regular": "both"}},
            "layers": {"*": {"multiplier": 1}},
        },
        (0.5, 1.0, 1.5, 2.0),
    ),
    "cifar_vgg11": Related("rpw", {"net": "vgg11"}),
    "cifar_vgg13": Related("rpw", {"net": "vgg13"}),
    "cifar_vgg16": Related("rpw", {"net": "vgg16"}),
    "cifar_vgg19": Related("rpw", {"net": "vgg19"}),
    "cifar_mobilenet": Related("rpw", {"net": "mobilenet"}),
    "rpw_vgg11_g2": Related("rpw", {"net": "vgg11", "groups": 2, "overlap": 0.5}),
    "rpw_vgg13_g2": Related("rpw", {"net": "vgg13", "groups": 2, "overlap": 0.5}),
    "rpw_vgg16_g1": Related("rpw", {"net": "vgg16", "groups": 1, "overlap": 0.5}),
    "rpw_vgg16_g2": Related("rpw", {"net": "vgg16", "groups": 2, "overlap": 0.5}),
    "rpw_vgg16_g4": Related("rpw", {"net": "vgg16", "groups": 4, "overlap": 0.5}),
    "rpw_vgg16_g8": Related("rpw", {"net": "vgg16", "groups": 8, "overlap": 0.5}),
    "rpw_vgg19_g2": Related("rpw", {"net": "vgg19", "groups": 2, "overlap": 0.5}),
    "rpw_mobilenet_g2": Related("rpw", {"net": "mobilenet", "groups": 2, "overlap": 0.5}),
    "rpw_mobilenet_g4": Related("rpw", {"net": "mobilenet", "groups": 4, "overlap": 0.5}),
    "rpw_mobilenet_g8": Related("rpw", {"net": "mobilenet", "groups": 8, "overlap": 0.5}),
}


class Variant(NamedTuple):
    """A model with its width and rate."""

    name: str
    width: float
    rate: int


def list_models() -> list[str]:
    """Return the names that ``get_model`` knows, without suffixes."""
    return sorted([*SPECS, *RELATED])


def get_spec(name: str) -> NetSpec:
    """Return the table of AsymmNet or MobileNetV3 by its plain name."""
    if name in SPECS:
        return SPECS[name]
    if name in RELATED or _is_file(name):
        raise InputError(f"{name} is no AsymmNet: expected one of {', '.join(sorted(SPECS))}")
    close = difflib.get_close_matches(name, list_models(), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(
        f"unknown model {name!r}: expected one of {', '.join(list_models())}, "
        f"with a width as suffix if wanted (asymmnet_large_0.5), or a spec file (.json){hint}"
    )


def find_related(name: str, spec: Optional[dict] = None) -> Optional[Related]:
    """Return how a related net is built; None for AsymmNet and MobileNetV3.

    Args:
        name: a plain name, or a spec file: ``{"family": ..., "settings": {...}}``.
        spec: what such a file held, as the card of a model keeps it; wins over the name.
    """
    if spec is not None:
        return _parse_spec(spec, "the card's spec")
    if _is_file(name):
        return _parse_spec(read_spec(name), name)
    return RELATED.get(name)


def read_spec(name: str) -> Optional[dict]:
    """Return what the spec file of this name holds; None if the name is not a file's."""
    if not _is_file(name):
        return None
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name}: no such file; expected the spec of a model")
    return parse_object(Path(name).read_bytes(), name, _SPEC)


_SPEC = "the spec of a model"


def _is_file(name: str) -> bool:
    return str(name).endswith(".json")


def _parse_spec(spec: dict, where) -> Related:
    family, settings = spec.get("family"), spec.get("settings")
    if set(spec) != {"family", "settings"} or not isinstance(settings, dict):
        raise FormatError(f'{where}: not {_SPEC}: expected {{"family": ..., "settings": {{...}}}}')
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(
            f"{where}: unknown family {reprlib.repr(family)}: expected one of {', '.join(FAMILIES)}"
        )
    return Related(family, settings)


def variant_id(variant: Variant) -> str:
    """Return the full name of a variant, e.g. ``asymmnet_large_w0.75_r1``."""
    return f"{variant.name}_w{variant.width}_r{variant.rate}"


def parse_name(name: str, width: float = 1.0, rate: int = 1) -> Variant:
    """Read ``asymmnet_large``, ``asymmnet_large_0.5``, ``..._0.5x`` or ``..._w0.5_r2``.

    What the name says wins over ``width`` and ``rate``, unless these say something else than
    their defaults and contradict it.
    """
    if _is_file(name):
        return Variant(re.sub(r"[^\w.-]", "_", Path(name).stem), float(width), 0)
    lowered = str(name).lower()
    match = re.fullmatch(r"(.+?)_w?(\d+(?:\.\d+)?)x?(?:_r(\d+))?", lowered)
    if match and lowered not in (*SPECS, *RELATED):
        lowered = match[1]
        width = _agree("width", float(match[2]), width, 1.0)
        if match[3]:
            rate = _agree("rate", int(match[3]), rate, 1)
    related = find_related(lowered)
    asymmetric = 1 in related.rates if related else get_spec(lowered).asymmetric
    if not asymmetric and rate == 1:
        rate = 0  # 1 is the default of asymmnet; the others know only 0
    if related and rate not in related.rates:
        fitting = ", ".join(map(str, related.rates))
        raise InputError(f"{lowered} can be built at rate {fitting}, got {rate!r}")
    return Variant(lowered, float(width) if isinstance(width, int) else width, rate)


def _agree(what, named, given, default):
    if given not in (default, named):
        raise InputError(f"the model's name says {what} {named}, the argument {given}: give one")
    return named


def plan_model(
    name: str,
    *,
    width: float = 1.0,
    rate: int = 1,
    shuffle_groups: int = 0,
    stem: str = "authors",
) -> tuple[Variant, NetPlan]:
    """Return channel counts and decisions of AsymmNet or MobileNetV3.  Needs no MXNet."""
    variant = parse_name(name, width, rate)
    plan = plan_net(
        get_spec(variant.name),
        width=variant.width,
        rate=variant.rate,
        shuffle_groups=shuffle_groups,
        stem=stem,
    )
    return variant, plan
