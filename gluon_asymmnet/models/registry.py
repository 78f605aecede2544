"""All classifiers by name, and ``ModelSpec``, which identifies one of them.

To add a model, add a row to ``SPECS`` or ``FAMILY_MODELS``: tests, golden symbols and tables
iterate over them.  No other module holds a list of models.
"""

import re
import reprlib
from pathlib import Path
from typing import Callable, NamedTuple, Optional

from gluon_asymmnet.arch import LARGE, SMALL, NetPlan, NetSpec, plan_net
from gluon_asymmnet.errors import FormatError, InputError, did_you_mean
from gluon_asymmnet.utils.json_objects import parse_object
from gluon_asymmnet.utils.registry import Registry

SPECS = {
    "asymmnet_large": LARGE,
    "asymmnet_small": SMALL,
    "mobilenetv3_large": LARGE._replace(asymmetric=False),
    "mobilenetv3_small": SMALL._replace(asymmetric=False),
}


class FamilyModel(NamedTuple):
    """A net of another architecture than AsymmNet's: the family that builds it, its settings."""

    family: str  # one of ``FAMILIES``
    settings: dict  # keyword arguments of the family's ``build``; JSON values
    widths: tuple[float, ...] = (1.0,)  # widths whose counts the tests check
    rates: tuple[int, ...] = (0,)  # rates that can be built


# Names of the families; ``models.build`` has the function that builds each.
FAMILIES = (
    "addressnet", "antnet", "decomposed", "dicenet", "eca_mobilenetv2", "eca_resnet", "ghostnet",
    "mobilenetv2", "rpw", "shufflenetv2",
)  # fmt: skip


FAMILY_MODELS: dict[str, FamilyModel] = {
    "mobilenetv2": FamilyModel("mobilenetv2", {}, (0.35, 0.5, 0.75, 1.0, 1.4)),
    "mobilenetv2_asymm": FamilyModel("mobilenetv2", {}, (0.5, 0.75, 1.0), (0, 1, 2)),
    "ghostnet": FamilyModel("ghostnet", {}, (0.5, 0.75, 1.0, 1.3)),
    "ghostnet_asymm": FamilyModel("ghostnet", {}, (0.5, 0.75, 1.0, 1.3), (0, 1, 2)),
    # the kernels of the published models; all 3 in the code's defaults
    "eca_resnet18": FamilyModel("eca_resnet", {"depth": 18, "kernels": [3, 5, 7, 7]}),
    "eca_resnet34": FamilyModel("eca_resnet", {"depth": 34, "kernels": [3, 3, 5, 7]}),
    "eca_resnet50": FamilyModel("eca_resnet", {"depth": 50, "kernels": [3, 5, 5, 7]}),
    "eca_resnet101": FamilyModel("eca_resnet", {"depth": 101, "kernels": [3, 3, 5, 7]}),
    "eca_resnet152": FamilyModel("eca_resnet", {"depth": 152, "kernels": [3, 3, 5, 7]}),
    "eca_mobilenetv2": FamilyModel("eca_mobilenetv2", {}),
    "antnet": FamilyModel("antnet", {}, (1.0, 1.4)),
    "antnet_g2": FamilyModel("antnet", {"groups": 2}),
    "dicenet": FamilyModel("dicenet", {}, (0.2, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.4)),
    "addressnet": FamilyModel("addressnet", {}),
    "addressnet_enhanced": FamilyModel("addressnet", {"enhanced": True}),
    "cifar_addressnet32": FamilyModel("addressnet", {"depth": 32}),
    "cifar_addressnet32_enhanced": FamilyModel("addressnet", {"depth": 32, "enhanced": True}),
    "shufflenetv2": FamilyModel("shufflenetv2", {}, (0.5, 1.0, 1.5, 2.0)),
    "shufflenetv2_regular": FamilyModel("shufflenetv2", {"regular": "both"}, (0.5, 1.0, 1.5, 2.0)),
    "shufflenetv2_decomposed": FamilyModel(
        "decomposed",
        {
            "base": {"family": "shufflenetv2", "settings": {"regular": "both"}},
            "layers": {"*": {"multiplier": 1}},
        },
        (0.5, 1.0, 1.5, 2.0),
    ),
    "cifar_vgg11": FamilyModel("rpw", {"net": "vgg11"}),
    "cifar_vgg13": FamilyModel("rpw", {"net": "vgg13"}),
    "cifar_vgg16": FamilyModel("rpw", {"net": "vgg16"}),
    "cifar_vgg19": FamilyModel("rpw", {"net": "vgg19"}),
    "cifar_mobilenet": FamilyModel("rpw", {"net": "mobilenet"}),
    "rpw_vgg11_g2": FamilyModel("rpw", {"net": "vgg11", "groups": 2, "overlap": 0.5}),
    "rpw_vgg13_g2": FamilyModel("rpw", {"net": "vgg13", "groups": 2, "overlap": 0.5}),
    "rpw_vgg16_g1": FamilyModel("rpw", {"net": "vgg16", "groups": 1, "overlap": 0.5}),
    "rpw_vgg16_g2": FamilyModel("rpw", {"net": "vgg16", "groups": 2, "overlap": 0.5}),
    "rpw_vgg16_g4": FamilyModel("rpw", {"net": "vgg16", "groups": 4, "overlap": 0.5}),
    "rpw_vgg16_g8": FamilyModel("rpw", {"net": "vgg16", "groups": 8, "overlap": 0.5}),
    "rpw_vgg19_g2": FamilyModel("rpw", {"net": "vgg19", "groups": 2, "overlap": 0.5}),
    "rpw_mobilenet_g2": FamilyModel("rpw", {"net": "mobilenet", "groups": 2, "overlap": 0.5}),
    "rpw_mobilenet_g4": FamilyModel("rpw", {"net": "mobilenet", "groups": 4, "overlap": 0.5}),
    "rpw_mobilenet_g8": FamilyModel("rpw", {"net": "mobilenet", "groups": 8, "overlap": 0.5}),
}


OWN_MODELS = Registry("model", {})  # the functions of ``register_model``


def register_model(name: str, factory: Optional[Callable] = None) -> Callable:
    """Add a classifier for ``get_model`` and every command; also a decorator.

    Args:
        name: as of a variable, without capitals; a width may follow it: ``name_0.5``.
        factory: called with ``classes`` and with those of the settings ``width``, ``dropout``,
            ``input_size`` and of a spec file that it names; returns a ``HybridBlock`` that maps
            ``(N, 3, S, S)`` to ``(N, classes)`` logits.

    A net may have ``features`` and ``output``, its last layer: then its weights serve for other
    classes, and its features can be frozen.

    Raises: InputError for a name that is taken or cannot be read back.
    """
    if factory is None:
        return lambda found: register_model(name, found)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(name)) or re.search(r"_w?\d", name):
        raise InputError(
            f"{name!r} cannot name a model: take small letters, digits and _, no number behind a _"
        )
    if name in {*SPECS, *FAMILIES, *FAMILY_MODELS} - OWN_MODELS.keys():
        raise InputError(f"model {name!r} is the package's own: choose another name")
    OWN_MODELS.register(name, factory)
    FAMILY_MODELS[name] = FamilyModel(name, {})
    return factory


class ModelSpec(NamedTuple):
    """A classifier without its classes and weights: a name with everything that shapes the net.

    Make one with ``ModelSpec.parse``, which checks the name, or directly where all is known.
    """

    name: str  # a plain name from the tables, or the name of a spec file without folder and suffix
    width: float = 1.0
    rate: int = 1
    shuffle_groups: int = 0
    stem: str = "authors"
    spec: Optional[dict] = None  # content of a spec file, ``{"family": ..., "settings": {...}}``

    @classmethod
    def parse(
        cls,
        name: str,
        *,
        width: Optional[float] = None,
        rate: Optional[int] = None,
        shuffle_groups: int = 0,
        stem: str = "authors",
        spec: Optional[dict] = None,
    ) -> "ModelSpec":
        """Read a name: ``asymmnet_large``, ``asymmnet_large_0.5``, ``..._0.5x``, ``..._w0.5_r2``.

        Args:
            name: one of ``list_models()``, with a width as suffix if wanted; or a spec file
                (.json).
            width, rate: those of the name by default; without one, width 1 and the model's own
                rate: 1 with asymmetrical bottlenecks, else 0.
            shuffle_groups, stem: as in ``zoo.get_classifier``.
            spec: the content of the spec file, if it is known; ``name`` is then any name.

        Raises:
            InputError: for an unknown name or family, a rate that the model does not have, or a
                width or rate that contradicts the name.
            FormatError, FileNotFoundError: for a spec file that cannot be read.
        """
        if spec is None and is_spec_file(name):
            spec, name = _read_spec(name), re.sub(r"[^\w.-]", "_", Path(name).stem)
        if spec is not None:
            width, rate = _not_none(width, 1.0), _not_none(rate, 0)
            return cls(name, _number(width), rate, shuffle_groups, stem, spec)
        lowered = str(name).lower()
        match = re.fullmatch(r"(.+?)_w?(\d+(?:\.\d+)?)x?(?:_r(\d+))?", lowered)
        if match and lowered not in (*SPECS, *FAMILY_MODELS):
            lowered = match[1]
            width = _same("width", float(match[2]), width)
            if match[3]:
                rate = _same("rate", int(match[3]), rate)
        row = FAMILY_MODELS.get(lowered)
        asymmetric = 1 in row.rates if row else _net_spec(lowered).asymmetric
        width, rate = _not_none(width, 1.0), _not_none(rate, int(asymmetric))
        if row and rate not in row.rates:
            fitting = ", ".join(map(str, row.rates))
            raise InputError(f"{lowered} can be built at rate {fitting}, got {rate!r}")
        if rate and not asymmetric:
            raise InputError(f"{lowered} reuses nothing: its rate is 0, got {rate}; use asymmnet_*")
        return cls(lowered, _number(width), rate, shuffle_groups, stem)

    @property
    def is_own(self) -> bool:
        """Whether a user's function builds the net, see ``register_model``."""
        return (self.spec or {}).get("family", self.name) in OWN_MODELS

    @property
    def needs_own(self) -> bool:
        """Whether it is a user's net, or was decomposed from one."""
        spec, family = self.spec, self.name
        while isinstance(spec, dict):
            family, settings = spec.get("family"), spec.get("settings")
            spec = settings.get("base") if isinstance(settings, dict) else None
        return isinstance(family, str) and family in OWN_MODELS

    @property
    def id(self) -> str:
        """The full name, e.g. ``asymmnet_large_w0.75_r1``; also the prefix of the net's names."""
        return f"{self.name}_w{self.width}_r{self.rate}"

    @property
    def family_model(self) -> Optional[FamilyModel]:
        """The family that builds the net, with settings; None for AsymmNet and MobileNetV3.

        Raises: FormatError or InputError if ``spec`` is not the content of a spec file.
        """
        if self.spec is not None:
            return _parse_spec(self.spec, f"the spec of {self.name}")
        return FAMILY_MODELS.get(self.name)

    def plan(self) -> NetPlan:
        """Compute channel counts and decisions of AsymmNet or MobileNetV3, without MXNet.

        Raises: InputError for another net, or settings that cannot be built.
        """
        if self.family_model is not None:
            raise InputError(
                f"{self.name} is not an AsymmNet: expected one of {', '.join(sorted(SPECS))}"
            )
        return plan_net(
            _net_spec(self.name),
            width=self.width,
            rate=self.rate,
            shuffle_groups=self.shuffle_groups,
            stem=self.stem,
        )


def list_models() -> list[str]:
    """Return the names that ``get_model`` knows, without suffixes."""
    return sorted([*SPECS, *FAMILY_MODELS])


def is_spec_file(name: str) -> bool:
    """Return whether a model's name is the path of a spec file."""
    return str(name).endswith(".json")


def _net_spec(name: str) -> NetSpec:
    """Return the table of AsymmNet or MobileNetV3; InputError for a name that is in no table."""
    if name in SPECS:
        return SPECS[name]
    raise InputError(
        f"unknown model {name!r}: expected one of {', '.join(list_models())}, "
        f"with a width as suffix if wanted (asymmnet_large_0.5), or a spec file (.json)"
        f"{did_you_mean(name, list_models())}"
    )


def _read_spec(path) -> dict:
    """Return the content of a spec file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the spec of a model")
    spec = parse_object(Path(path).read_bytes(), path, _SPEC)
    _parse_spec(spec, path)
    return spec


_SPEC = "the spec of a model"


def _parse_spec(spec: dict, where) -> FamilyModel:
    family, settings = spec.get("family"), spec.get("settings")
    if set(spec) != {"family", "settings"} or not isinstance(settings, dict):
        raise FormatError(f'{where}: not {_SPEC}: expected {{"family": ..., "settings": {{...}}}}')
    if not isinstance(family, str) or family not in {*FAMILIES, *OWN_MODELS}:
        raise InputError(
            f"{where}: unknown family {reprlib.repr(family)}: expected one of {', '.join(FAMILIES)}"
        )
    return FamilyModel(family, settings)


def _same(setting: str, named, given):
    if given not in (None, named):
        raise InputError(f"the model's name says {setting} {named}, the argument {given}: give one")
    return named


def _not_none(value, default):
    return default if value is None else value


def _number(width):
    return float(width) if isinstance(width, int) else width
