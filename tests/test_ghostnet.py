"""GhostNet and its asymmetrical variant."""

import math
from fractions import Fraction

import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models import ghostnet
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.ghostnet import UNITS, GhostUnit
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.zoo import get_model
from tests.floats import NET, assert_close, difference
from tests.related_nets import (
    check_graph_modes,
    copy_in_order,
    images,
    randomize,
    values,
)

pytestmark = pytest.mark.thorough


# From the authors' models/ghostnet.py, counted by MXNet: millions of multiply-adds, parameters, and
# these with the running statistics.
@pytest.mark.parametrize(
    ("width", "macs", "parameters", "all_arrays"),
    [
        (0.5, 44.63, 3_239_624, 3_251_568),
        (0.75, 88.54, 4_061_312, 4_078_396),
        (1.0, 140.76, 5_179_560, 5_201_528),
        (1.3, 225.9, 7_332_401, 7_360_897),
    ],
)
def test_counts_are_the_authors(width, macs, parameters, all_arrays):
    cost = count_model(ModelSpec.parse("ghostnet", width=width))
    assert round(cost.macs / 1e6, 2) == macs
    assert (cost.parameters, cost.parameters + cost.running) == (parameters, all_arrays)


@pytest.mark.parametrize("rate", [0, 1, 2])
def test_asymmetrical_counts_by_hand(rate):
    """Of the units, by formula; the rest is the plain net's."""
    assert units(0) + rest() == 5_179_560
    assert (
        count_model(ModelSpec.parse("ghostnet_asymm", rate=rate)).parameters == units(rate) + rest()
    )


def ghost(arriving, channels):
    return arriving * channels // 2 + 9 * channels // 2 + 2 * channels


def units(rate):
    total, arriving = 0, 16
    for unit in UNITS:
        wide = math.ceil(arriving * Fraction(unit.expansion))
        copied = rate * arriving if wide > arriving else 0
        total += ghost(arriving, wide - copied)
        wide += copied
        if unit.stride == 2:
            total += wide * (unit.kernel**2 + 2)
        if unit.attention:
            total += 2 * wide * (wide // 4) + wide + wide // 4
        total += ghost(wide, unit.channels)
        if unit.stride == 2 or arriving != unit.channels:
            total += 11 * arriving + arriving * unit.channels + 2 * unit.channels
        arriving = unit.channels
    return total


def rest():
    stem, last = 27 * 16 + 32, 160 * 960 + 1920
    return stem + last + 960 * 1280 + 1280 + 1280 * 1000 + 1000


def test_equals_gluoncv2s():
    """Theirs has normalisation behind the wide convolution and ``clip(x, 0, 1)`` as the gate."""
    from gluoncv2.models import ghostnet as models

    theirs = models.ghostnet(classes=7)
    randomize(theirs)
    assert sum(p.data().size for p in theirs.collect_params().values()
               if p.grad_req != "null") == 5_180_840 - 993 * 1281  # fmt: skip
    norm = {n.rsplit(".", 1)[1]: p for n, p in values(theirs).items() if ".conv1.bn." in n}
    assert len(norm) == 4  # made the identity, but for the shift
    for name, value in {"gamma": math.sqrt(1 + 1e-5), "running_mean": 0, "running_var": 1}.items():
        norm[name].set_data(mx.nd.full(norm[name].shape, value))
    source = {n: p for n, p in values(theirs).items()
              if ".conv1.bn." not in n or n.endswith("beta")}  # fmt: skip
    ours = ghostnet.build(classes=7)
    ours.initialize()
    own = values(ours)
    assert len(own) == len(source)
    for (name, param), theirs_param in zip(own.items(), source.values()):
        value = theirs_param.data()
        if ".restore." in name:  # hard sigmoid of 6 x - 3 is clip(x, 0, 1)
            value = 6 * value - (3 if name.endswith("bias") else 0)
        param.set_data(value)
    x = images(1, 224)
    assert_close(ours(x), theirs(x), terms=NET)


def test_asymmetrical_unit_joins_its_input_on_both_sides():
    unit = GhostUnit(24, 72 + 24, 24, 3, 1, 1, None, {})
    unit.initialize(mx.init.Normal(1))
    x = mx.nd.random.normal(shape=(2, 24, 6, 6))
    computed = unit.expand(x)
    assert computed.shape[1] == 72 - 24
    expected = unit.project(mx.nd.concat(x, computed, x, dim=1)) + x
    assert difference(unit(x), expected) == 0


def test_rate_0_is_ghostnet():
    nets = [
        get_model(name, width=0.5, rate=0, classes=3) for name in ("ghostnet", "ghostnet_asymm")
    ]
    for net in nets:
        net.initialize(mx.init.MSRAPrelu())
    copy_in_order(nets[1], nets[0])
    assert difference(nets[1](images()), nets[0](images())) == 0


@pytest.mark.parametrize("rate", [0, 1, 2])
@pytest.mark.parametrize("width", [0.5, 0.75])
def test_trains(width, rate):
    check_graph_modes(ghostnet.build(width=width, rate=rate, classes=3))


@pytest.mark.parametrize("kind", [None, "eca", "ant"])
def test_attention_can_be_another(kind):
    net = ghostnet.build(width=0.5, classes=3, attention=kind)
    marked = {name.split(".")[1] for name in values(net) if "attention" in name}
    assert marked == ({str(i + 1) for i, u in enumerate(UNITS) if u.attention} if kind else set())
    check_graph_modes(net)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ghostnet.build(rate=3), "unit 1 .* 48 channels, all .* at most 2"),
        (
            lambda: ghostnet.build(width=0.35),
            "at width 0.35 unit 7 .* 65 channels, .* do not halve",
        ),
        (lambda: get_model("ghostnet", rate=2), "can be built at rate 0, got 2"),
        (lambda: ghostnet.build(attention="ca"), "attention must be null, 'se'.* got 'ca'"),
    ],
)
def test_what_cannot_be_built_says_why(build, message):
    with pytest.raises(InputError, match=message):
        build()
