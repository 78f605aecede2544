"""MobileNetV2, its asymmetrical variant, ECA-MobileNetV2 and ANTNet."""

import pytest

from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models import antnet, eca_mobilenetv2, mobilenetv2
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.mobilenetv2 import STEM, MobileNetV2, plan_stages, truncating_scale
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


def gluoncvs(width=1.0, classes=7):
    return randomize(gluoncv.model_zoo.MobileNetV2(width, classes=classes))


# From the authors' models/mobilenetv2.py, counted by MXNet: millions of multiply-adds, parameters,
# and these with the running statistics.
@pytest.mark.parametrize(
    ("name", "width", "rate", "macs", "parameters", "all_arrays"),
    [
        ("mobilenetv2", 0.35, 0, 47.74, 1_666_665, 1_680_127),
        ("mobilenetv2", 0.5, 0, 89.06, 1_964_448, 1_982_784),
        ("mobilenetv2", 0.75, 0, 179.43, 2_626_968, 2_653_192),
        ("mobilenetv2", 1.0, 0, 300.77, 3_503_872, 3_537_984),
        ("mobilenetv2", 1.4, 0, 562.21, 6_081_580, 6_129_136),
        ("mobilenetv2_asymm", 0.5, 1, 89.73, 1_978_560, 1_996_896),
        ("mobilenetv2_asymm", 0.75, 1, 179.87, 2_654_724, 2_680_948),
        ("mobilenetv2_asymm", 1.0, 1, 300.61, 3_549_664, 3_583_776),
        ("mobilenetv2_asymm", 0.5, 2, 90.41, 1_992_672, 2_011_008),
        ("mobilenetv2_asymm", 0.75, 2, 180.31, 2_682_480, 2_708_704),
        ("mobilenetv2_asymm", 1.0, 2, 300.45, 3_595_456, 3_629_568),
    ],
)
def test_counts_are_the_authors(name, width, rate, macs, parameters, all_arrays):
    cost = count_model(ModelSpec.parse(name, width=width, rate=rate))
    assert round(cost.macs / 1e6, 2) == macs
    assert (cost.parameters, cost.parameters + cost.running) == (parameters, all_arrays)


def test_plain_net_is_gluoncvs_with_every_shape_known():
    net = get_model("mobilenetv2", width=0.5, classes=7)
    assert all(0 not in param.shape for param in values(net).values())
    assert isinstance(net.output, mx.gluon.nn.Conv2D)
    net.initialize()
    theirs = gluoncvs(0.5)
    copy_in_order(net, theirs)
    assert difference(net(images()), theirs(images())) == 0


@pytest.mark.parametrize("width", [0.35, 1.0])
def test_asymmetrical_bottlenecks_at_rate_0_are_gluoncvs(width):
    scale = truncating_scale(width)
    blocks = [{"plan": plan} for _, plan in plan_stages(scale)]
    net = MobileNetV2(scale(STEM), blocks, 1280, classes=7, dropout=0, use_bias=False)
    net.initialize()
    theirs = gluoncvs(width)
    copy_in_order(net, theirs)
    assert_close(net(images()), theirs(images()), terms=NET)


def test_first_block_reuses_nothing():
    """It does not expand, so there is nothing to be spared."""
    first, *others = (plan for _, plan in plan_stages(truncating_scale(1.0), rate=1))
    assert (first.expand_channels, first.rate, first.depthwise_channels) == (0, 0, 32)
    for block in others:
        assert block.expand_channels == 5 * block.in_channels
        assert block.depthwise_channels == 7 * block.in_channels
    assert len(others) == 16


@pytest.mark.parametrize("rate", [0, 2])
@pytest.mark.parametrize(("kind", "settings"), [("se", {}), ("eca", {}), ("ant", {"reduction": 2})])
def test_every_block_takes_attention(kind, settings, rate):
    net = mobilenetv2.build(
        width=0.35, rate=rate, classes=3, attention=kind, attention_settings=settings
    )
    blocks = {name.split(".")[1] for name in values(net) if "attention" in name}
    assert len(blocks) == 17
    check_graph_modes(net)


@pytest.mark.parametrize("rate", [1, 2])
def test_asymmetrical_net_trains(rate):
    check_graph_modes(mobilenetv2.build(width=0.35, rate=rate, classes=3))


def test_eca_counts():
    """31 weights more than MobileNetV2 with biases; in the first release, 25."""
    plain = count_model(ModelSpec.parse("mobilenetv2")).parameters + 1000
    assert plain == 3_504_872  # torchvision's
    assert count_model(ModelSpec.parse("eca_mobilenetv2")).parameters == 3_504_903
    first = {"family": "eca_mobilenetv2", "settings": {"wide_from": 97}}
    assert count_model(ModelSpec("eca_mobilenetv2", rate=0, spec=first)).parameters == plain + 25
    assert round(3_504_903 / 2**20, 2) == 3.34  # the "3.34M" published is of binary units


def test_eca_kernels_follow_the_output_channels():
    net = eca_mobilenetv2.build(classes=3)
    sizes = [p.shape[2] for n, p in values(net).items() if n.endswith("out_attention.conv.weight")]
    assert sizes == [1] * 10 + [3] * 7
    assert net.dropout._rate == 0.25


def test_eca_with_a_constant_gate_is_mobilenetv2():
    """Zero weights make every gate 1/2; twice the last gamma and beta makes up for it."""
    net, theirs = eca_mobilenetv2.build(width=0.5, classes=7, dropout=0), gluoncvs(0.5)
    net.initialize()
    copy_in_order(net, theirs, leave_out=("attention", "output.bias"))
    for name, param in values(net).items():
        if "attention" in name or name == "output.bias":
            param.set_data(mx.nd.zeros(param.shape))
        elif name.endswith(("project.norm.gamma", "project.norm.beta")):
            param.set_data(2 * param.data())
    assert_close(net(images()), theirs(images()), terms=NET)


@pytest.mark.parametrize(
    ("name", "width", "classes", "parameters"),
    [
        ("antnet", 1.0, 1000, 3_820_584),
        ("antnet", 1.4, 1000, 6_729_704),
        ("antnet_g2", 1.0, 1000, 3_339_240),
        ("antnet_g2", 1.0, 100, 2_186_340),
    ],
)
def test_ant_parameters(name, width, classes, parameters):
    assert count_model(ModelSpec.parse(name, width=width), classes=classes).parameters == parameters


def test_ant_differences_are_the_published_ones():
    """Table: 3.7M and 3.2M parameters, 322M and 267M multiply-adds, of one group and of two; on
    CIFAR-100, 8.3% fewer parameters than MobileNetV2."""
    one, two = count_model(ModelSpec.parse("antnet")), count_model(ModelSpec.parse("antnet_g2"))
    attention = sum(
        2 * plan.depthwise_channels * (plan.depthwise_channels // antnet.REDUCTIONS[stage])
        for stage, plan in plan_stages(truncating_scale(1.0))
    )
    assert attention == 315_712
    assert one.parameters - attention == 3_504_872
    assert one.macs - attention == count_model(ModelSpec.parse("mobilenetv2")).macs
    spared = [node for node in two.layers if node.name.endswith("project_conv_fwd")][1:]
    assert one.macs - two.macs == sum(node.macs for node in spared)  # each was twice that
    assert 55e6 < one.macs - two.macs < 56e6
    assert 0.4e6 < one.parameters - two.parameters < 0.5e6
    cifar = count_model(ModelSpec.parse("antnet_g2"), classes=100).parameters
    assert (round(cifar / 1e6, 1), round(2_351_972 / 1e6, 1)) == (2.2, 2.4)  # 2.2/2.4 = 1 - 8.3%


def test_ant_with_attention_of_one_is_mobilenetv2():
    """Zero weights make every gate 1/2; twice the projection makes up for it, to the bit."""
    net, theirs = antnet.build(classes=7), gluoncvs(1.0)
    net.initialize()
    copy_in_order(net, theirs, leave_out=("attention", "output.bias"))
    for name, param in values(net).items():
        if "restore" in name or name == "output.bias":
            param.set_data(mx.nd.zeros(param.shape))
        elif name.endswith("project.conv.weight"):
            param.set_data(2 * param.data())
    assert_close(net(images()), theirs(images()), terms=NET)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_antnet_trains(groups):
    check_graph_modes(antnet.build(width=0.5, classes=3, groups=groups))


def test_grouped_projection_keeps_groups_apart():
    net = antnet.build(width=0.5, classes=3, groups=2)
    shapes = [p.shape for n, p in values(net).items() if n.endswith("project.conv.weight")]
    wide = [p.shape[0] for n, p in values(net).items() if n.endswith("depthwise.conv.weight")]
    assert [s[1] for s in shapes] == [wide[0], *(w // 2 for w in wide[1:])]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mobilenetv2.build(width=0.05), r"width must be at least 0.0625.*0.05"),
        (lambda: mobilenetv2.build(rate=6), "cannot expand 16 channels to 96 at rate 6"),
        (lambda: mobilenetv2.build(attention="sa"), "attention must be null, 'se'.* got 'sa'"),
        (lambda: mobilenetv2.build(attention_settings={"kernel": 3}), "got None with settings"),
        (lambda: antnet.build(groups=0), "groups must be a whole number, at least 1, got 0"),
        (lambda: antnet.build(groups=2.0), "groups must be .* got 2.0"),
        (lambda: antnet.build(groups=3), "groups must divide 144 and 32, .* block 3 .* got 3"),
        (lambda: antnet.build(groups=5), "groups must divide 96 and 24, .* block 1 .* got 5"),
        (lambda: antnet.build(width=0.01), "reduction must be a whole number from 1 to 48"),
        (lambda: eca_mobilenetv2.build(wide_from="96"), "wide_from must be .* got '96'"),
    ],
)
def test_what_cannot_be_built_says_why(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_dropout_is_the_nets_own_unless_given():
    assert get_model("mobilenetv2", classes=3).dropout is None
    assert get_model("antnet", classes=3).dropout is None
    assert get_model("eca_mobilenetv2", classes=3, dropout=0).dropout is None
    net = get_model("mobilenetv2_asymm", classes=3, dropout=0.5)
    assert net.dropout._rate == pytest.approx(0.5)
