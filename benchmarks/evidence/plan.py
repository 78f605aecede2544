"""The nets, their widths at equal cost, and the runs of the comparison."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from gluon_asymmnet.models.complexity import Cost, count_model
from gluon_asymmnet.models.registry import ModelSpec

CLASSES, PIXELS = 10, 36
# The settings of every run.  36 pixels, not 32: a net of total stride 32 would end in maps of one
# pixel, of which a kernel of 25 weights sees one.
RECIPE = {
    "dataset": "custom", "input_size": PIXELS, "crop_ratio": 1.0, "min_random_area": 0.7,
    "jitter": 0.0, "pca_noise": 0.0, "dropout": 0.0, "batch_size": 64,
    "num_training_samples": 6_016, "num_epochs": 8, "warmup_epochs": 1, "lr_mode": "cosine",
    "wd": 1e-4, "no_wd": True, "threads": 1, "num_workers": 1, "log_interval": 0,
    "save_frequency": 0, "keep_last": 1,
}  # fmt: skip
RATES_OF_LEARNING = (0.05, 0.12, 0.3)  # tried for each family with rate 0, and with rate 1
TUNED_WIDTH = 0.5  # of the nets that they are tried with
WIDTHS = (0.35, 0.5, 1.0)
SEEDS = {"main": 5, "width": 3, "rate 2": 3, "ablation": 3}  # by study
_STEP, _MOST = 0.002, 0.1  # of the search for a width at equal cost


class Net(NamedTuple):
    """A net of the comparison."""

    name: str
    study: str  # "main", "width", "rate 2" or "ablation"
    family: str  # with ``like``: the runs that chose its learning rate
    like: int  # 0 or 1: the rate of the net in these runs
    model: str
    width: float
    rate: int
    settings: dict  # further ones of the training: stem, shuffle, last gamma
    spec: dict  # the content of a spec file, or empty

    @property
    def model_spec(self) -> ModelSpec:
        """The net with everything that shapes it."""
        named = {"width": self.width, "rate": self.rate}
        return ModelSpec.parse(
            self.model, **named, spec=self.spec or None, stem=self.settings.get("stem", "authors"),
            shuffle_groups=2 if self.settings.get("doshuffle") else 0,
        )  # fmt: skip

    @property
    def cost(self) -> Cost:
        """Its parameters and multiply-adds."""
        return count_model(self.model_spec, classes=CLASSES, input_size=PIXELS)


class Run(NamedTuple):
    """One training with one score."""

    name: str
    net: Net
    seed: int
    lr: float  # 0: the one that the runs on the held-out images chose

    @property
    def tunes(self) -> bool:
        """Whether it is scored on the held-out images, to choose a learning rate."""
        return self.lr > 0

    @property
    def group(self) -> tuple:
        """What it shares with the runs that it is compared with: family, width and seed."""
        return (*self.net.name.split("-")[:2], self.seed)


def make_nets() -> list[Net]:
    """Return all nets; searches the widths at equal multiply-adds, which takes half a minute."""
    nets = []
    for family in ("small", "large"):
        for width in WIDTHS:
            nets += _rates(family, f"asymmnet_{family}", width)
            if width > min(WIDTHS):  # there rate 2 leaves some blocks nothing to compute
                two = _net(family, f"asymmnet_{family}", width, 2, _SCALED)
                nets.append(two._replace(study="rate 2", like=1))
    # Rate 0 and rate 1 cost the same here, to 1.1 %.
    nets += [
        _net("v2", model, 0.5, rate, {})
        for rate, model in enumerate(("mobilenetv2_blocks", "mobilenetv2_asymm"))
    ]
    return [*nets, *_ablations(nets)]


# The first block is planned for the stem's real channels; see ``arch.plan_net``.
_SCALED = {"stem": "scaled"}


def _net(family: str, model: str, width: float, rate: int, settings: dict) -> Net:
    name = f"{family}-{width:g}-r{rate}"
    return Net(name, "main", family, rate, model, width, rate, settings, {})


def _rates(family: str, model: str, width: float) -> list[Net]:
    """Return rate 0, rate 1, and rate 0 at the cost of rate 1."""
    zero, one = (_net(family, model, width, rate, _SCALED) for rate in (0, 1))
    return [zero._replace(study="width"), one, matched(zero, one)]


def matched(net: Net, other: Net) -> Net:
    """Return ``net`` a little wider, with multiply-adds as near as possible to ``other``'s.

    AsymmNet's channels are multiples of 8, so its width alone comes no nearer than some percent:
    ``nets.widened`` has finer steps.
    """
    macs = other.cost.macs

    def candidate(factor: float) -> Net:
        family = net.model if net.model == "asymmnet_one_side" else "inverted_residuals"
        own = {} if family == net.model else {"table": net.family}
        spec = {"family": family, "settings": {**own, "width": net.width, "factor": factor}}
        return net._replace(model=f"{net.name}-matched", width=1.0, rate=0, spec=spec, settings={})

    factors = (round(1 + k * _STEP, 4) for k in range(round(_MOST / _STEP)))
    best = min(factors, key=lambda factor: abs(candidate(factor).cost.macs - macs))
    return candidate(best)._replace(name=f"{net.name}-matched")


def _ablations(nets: Sequence[Net]) -> Iterator[Net]:
    """Yield rate 1 of Large and of MobileNetV2 at width 0.5 with one thing changed."""
    by_name = {net.name: net for net in nets}
    base = by_name["large-0.5-r1"]._replace(study="ablation")
    for name, settings in (
        ("shuffle", {**_SCALED, "doshuffle": True}),
        ("authors-stem", {}),
        ("last-gamma", {**_SCALED, "last_gamma": True}),
    ):
        yield base._replace(name=f"{base.name}-{name}", settings=settings)
    one_side = base._replace(
        name=f"{base.name}-one-side", model="asymmnet_one_side", rate=0, settings={}
    )
    yield one_side
    yield matched(one_side, base)
    base = by_name["v2-0.5-r1"]._replace(study="ablation")
    for kind in ("se", "eca", "ant"):
        settings = {"width": base.width, "rate": base.rate, "attention": kind}
        spec = {"family": "mobilenetv2", "settings": settings}
        name = f"{base.name}-{kind}"
        yield base._replace(name=name, model=name, width=1.0, rate=0, spec=spec)


def is_tuned(net: Net) -> bool:
    """Return whether learning rates are tried with this net, for itself and others."""
    return net.width == TUNED_WIDTH and net.study in ("main", "width")


def make_runs(nets: Sequence[Net]) -> list[Run]:
    """Return all runs in order: learning rates, then seed by seed, each group together."""
    tuned = [net for net in nets if is_tuned(net)]
    runs = [Run(f"tune/{net.name}/lr{lr}", net, 0, lr) for net in tuned for lr in RATES_OF_LEARNING]
    scored = [
        Run(f"{net.name}/seed{seed}", net, seed, 0)
        for net in nets for seed in range(SEEDS[net.study])
    ]  # fmt: skip
    groups = list(dict.fromkeys(run.group for run in scored))
    return runs + sorted(scored, key=lambda run: (run.seed, groups.index(run.group)))
