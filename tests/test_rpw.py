import json
import math
from fractions import Fraction

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.complexity import count_graph, count_model
from gluon_asymmnet.models.registry import FAMILY_MODELS, ModelSpec
from gluon_asymmnet.models.rpw import RPW
from gluon_asymmnet.models.rpw_plan import as_json, net_cost, plan, window_starts
from gluon_asymmnet.zoo import get_model
from tests.floats import assert_close

nd = mx.nd
NAMES = [name for name, related in FAMILY_MODELS.items() if related.family == "rpw"]
# in_channels, channels, groups, overlap
LAYERS = [
    (8, 8, 2, 0.5),
    (8, 16, 2, 0.25),
    (16, 32, 4, 0.75),
    (12, 6, 3, 0),
    (12, 9, 3, 0.5),  # 6 windows do not divide 9 outputs
    (12, 4, 2, 0.5),  # a window for each output
    (64, 64, 4, 0.33),  # a step of 10.72
]


def loops(x, weight, in_channels, channels, groups, overlap, rule):
    """The layer by its definition; ``weight`` in the order of the outputs."""
    width, share = in_channels // groups, Fraction(str(overlap))
    y = np.zeros((channels, *x.shape[1:]))
    for j in range(channels):
        if rule == "cuda":
            start = math.floor(j * (1 - share) * width)
        else:
            step = width - math.floor(share * width)
            windows = in_channels // math.gcd(in_channels, step)
            more, each = channels % windows, channels // windows
            # so many windows have an output more than the others
            long = more * (each + 1)
            start = step * (j // (each + 1) if j < long else more + (j - long) // max(each, 1))
        for t in range(width):
            y[j] += weight[j, t] * x[(start + t) % in_channels]
    return y


@pytest.mark.parametrize("rule", ["cuda", "pytorch"])
@pytest.mark.parametrize("given", LAYERS)
def test_layer_is_its_definition(given, rule):
    layer = RPW(*given, rule)
    layer.initialize(mx.init.Normal(1))
    x = np.random.default_rng(0).normal(size=(2, given[0], 3, 4)).astype(np.float32)
    weight = layer.conv.weight.data().asnumpy()[:, :, 0, 0]
    assert weight.shape == (given[1], given[0] // given[2])
    if layer.deal is not None:  # rows stand window by window
        weight = weight.reshape(len(layer.starts), -1, weight.shape[1])
        weight = weight.transpose(1, 0, 2).reshape(given[1], -1)
    for one, y in zip(x, layer(nd.array(x)).asnumpy()):
        assert_close(y, loops(one, weight, *given, rule), terms=50)


@pytest.mark.parametrize("given", [(8, 8, 2, 0.5), (16, 64, 4, 0.25), (64, 128, 2, 0.75)])
def test_the_two_rules_are_one_layer_up_to_the_order_of_outputs(given):
    cuda, pytorch = (RPW(*given, rule) for rule in ("cuda", "pytorch"))
    for layer in (cuda, pytorch):
        layer.initialize()
    pytorch.conv.weight.set_data(cuda.conv.weight.data())
    x = nd.array(np.random.default_rng(0).normal(size=(2, given[0], 5, 5)))
    windows = len(cuda.starts)
    run = given[1] // windows
    order = [d * run + i for i in range(run) for d in range(windows)]
    assert order != list(range(given[1])) or run == 1
    np.testing.assert_array_equal(cuda(x).asnumpy(), pytorch(x).asnumpy()[:, order])


@pytest.mark.parametrize(
    ("given", "windows"), [((64, 2, 0.5), 4), ((64, 2, 0.25), 8), ((64, 4, 0.33), 64)]
)
def test_number_of_windows_that_differ(given, windows):
    in_channels, *rest = given
    assert len(set(window_starts(in_channels, 64, *rest, "pytorch"))) == windows
    assert len(RPW(in_channels, 64, *rest, "pytorch").starts) == windows


def test_window_starts_by_hand():
    assert window_starts(8, 6, 2, 0.5, "cuda") == (0, 2, 4, 6, 0, 2)
    assert window_starts(8, 8, 2, 0.5, "pytorch") == (0, 0, 2, 2, 4, 4, 6, 6)
    assert window_starts(16, 4, 2, 0.33, "cuda") == (0, 5, 10, 0)  # 5.36, 10.72, 16.08
    assert window_starts(16, 4, 2, 0.33, "pytorch") == (0, 6, 12, 2)  # 8 - int(2.64)


def test_extremes_are_known_convolutions():
    x = nd.array(np.random.default_rng(0).normal(size=(1, 8, 3, 3)))
    for groups, overlap, rule in ((1, 0.5, "cuda"), (4, 0, "pytorch")):
        layer = RPW(8, 8, groups, overlap, rule)
        layer.initialize()
        assert layer.channel is None  # nothing to gather
        weight = layer.conv.weight.data()
        plain = nd.Convolution(
            x, weight, kernel=(1, 1), num_filter=8, num_group=groups, no_bias=True
        )
        np.testing.assert_array_equal(layer(x).asnumpy(), plain.asnumpy())


def test_weights_start_as_the_authors_do():
    layer = RPW(64, 512, 4)
    layer.initialize(mx.init.MSRAPrelu())  # as in training
    weight = np.abs(layer.conv.weight.data().asnumpy())
    assert 0.24 < weight.max() <= 0.25  # 1 / sqrt(16)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cifar_vgg11", 9_231_114),  # kuangliu/pytorch-cifar's models
        ("cifar_vgg13", 9_416_010),
        ("cifar_vgg16", 14_728_266),
        ("cifar_vgg19", 20_040_522),
        ("cifar_mobilenet", 3_217_226),
        ("rpw_vgg16_g1", 1_686_794),  # the authors' nets, less the biases that they never add
        ("rpw_vgg16_g2", 869_642),
        ("rpw_vgg16_g4", 461_066),
        ("rpw_vgg16_g8", 256_778),
        ("rpw_mobilenet_g2", 1_652_394),
        ("rpw_mobilenet_g4", 867_498),
        ("rpw_mobilenet_g8", 475_050),
    ],
)
def test_published_counts(name, parameters):
    assert count_model(ModelSpec.parse(name), classes=10, input_size=32).parameters == parameters


def test_counts_by_hand():
    """VGG16 without and with RPW: 9 weights and a bias for each input of a depthwise one."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    pairs = list(zip(channels, channels[1:]))
    head = 512 * 10 + 10
    standard = sum(9 * i * o + o + 2 * o for i, o in pairs) + head
    rolled = 27 * 64 + 64 + 2 * 64 + sum(10 * i + i * o // 4 + 2 * o for i, o in pairs[1:]) + head
    assert net_cost(plan("vgg16"), 10, 32).parameters == standard
    assert net_cost(plan("vgg16", groups=4), 10, 32).parameters == rolled


@pytest.mark.parametrize("name", NAMES)
def test_planned_counts_are_those_of_the_graph(name):
    settings = FAMILY_MODELS[name].settings
    for width, size in ((1.0, 32), (0.5, 50)):
        net = get_model(name, width=width, classes=7, input_size=size)
        planned = net_cost(
            plan(settings["net"], groups=settings.get("groups", 0), width=width), 7, size
        )
        found = count_graph(net, size)
        assert (found.parameters, found.macs) == planned


def test_listed_stages_are_the_named_net(tmp_path):
    settings = {"net": "mobilenet", "groups": 4, "overlap": 0.25}
    listed = {"net": as_json(plan(**settings)), "rule": "pytorch"}
    path = tmp_path / "listed.json"
    path.write_text(json.dumps({"family": "rpw", "settings": listed}))
    nets = [
        get_model("x", spec={"family": "rpw", "settings": {**settings, "rule": "pytorch"}}),
        get_model(str(path)),
    ]
    mx.random.seed(1)
    nets[0].initialize()
    weights = nets[0]._collect_params_with_prefix()
    for name, param in nets[1]._collect_params_with_prefix().items():
        param.initialize()
        param.set_data(weights[name].data())
    x = nd.array(np.random.default_rng(0).normal(size=(1, 3, 16, 16)))
    np.testing.assert_array_equal(nets[0](x).asnumpy(), nets[1](x).asnumpy())


@pytest.mark.parametrize("name", ["rpw_vgg11_g2", "rpw_mobilenet_g8"])
def test_gradient_reaches_every_parameter_through_the_windows(name):
    net = get_model(name, width=0.25, classes=3, input_size=32)
    mx.random.seed(1)
    net.initialize(mx.init.MSRAPrelu())
    net.hybridize()
    x = nd.array(np.random.default_rng(0).normal(size=(4, 3, 32, 32)))
    with mx.autograd.record():
        loss = (net(x) ** 2).sum()
    loss.backward()
    trained = {n: p for n, p in net.collect_params().items() if p.grad_req != "null"}
    # a bias in front of a normalisation has a gradient of zero, but for rounding
    still = [n for n, p in trained.items() if not float(p.grad().abs().sum().asscalar()) > 0]
    assert still == []


def listed(**unit):
    return {"net": [[{"kind": "conv", "channels": 16}, {"kind": "separable", "channels": 16,
                                                        **unit}]]}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"net": "vgg12"}, "unknown net 'vgg12': expected one of vgg11, vgg13, .*mobilenet, or st"),
        ({"net": "vgg11", "groups": 3}, "groups 3 do not divide 64 input .*one of 1, 2, 4, 8, 16"),
        ({"net": "vgg11", "groups": -1}, "groups must be a whole number, 0 .* got -1"),
        ({"net": "vgg11", "groups": 2.0}, "groups must be a whole number, 0 .* got 2.0"),
        (
            {"net": "vgg11", "groups": 2, "overlap": 1},
            "overlap must be at least 0 and below 1, g.* 1",
        ),
        ({"net": "vgg11", "groups": 2, "overlap": "half"}, "overlap must be .*, got 'half'"),
        ({"rule": "mxnet"}, "rule must be one of cuda, pytorch, got 'mxnet'"),
        ({"net": []}, "expected a list of stages"),
        ({"net": [[], []]}, "expected a list of stages"),
        ({"net": 16}, "expected a list of stages"),
        ({"net": [["conv"]]}, "expected a list of stages"),
        ({"net": [[{"kind": "conv"}]]}, "unit 0 of stage 0: not a unit: it lacks 'channels'"),
        (listed(width=3), "unit 1 of stage 0: not a unit: it has 'width'"),
        (listed(kernel=4), "unit 1 of stage 0: kernel must be odd, from 1 to 31, got 4"),
        (listed(kernel=3.0), "kernel is 3.0, expected a whole number"),
        (listed(stride=3), "stride must be 1 or 2, got 3"),
        (listed(kind="shift"), "kind must be one of conv, separable, got 'shift'"),
        (listed(kind="conv", groups=2), "groups and between are of a separable unit"),
        (listed(groups=5), "unit 1 of stage 0: groups 5 do not divide 16 input channels"),
        (listed(channels=0), "channels must be 1 to 16384, got 0"),
        ({**listed(), "groups": 2}, "groups 2: the listed stages have their own"),
    ],
)
def test_what_cannot_be_built_says_why(settings, message):
    with pytest.raises(InputError, match=message):
        get_model("x", classes=3, input_size=32, spec={"family": "rpw", "settings": settings})


def test_more_maps_than_fit_into_memory_are_not_gathered():
    message = (
        "2048 channels in 2 groups with an overlap of 0.33 gather 2,097,152 maps, the limit is"
    )
    with pytest.raises(InputError, match=message):
        RPW(2048, 2048, 2, 0.33)


def test_an_image_too_small_for_the_pools_says_what_fits():
    with pytest.raises(InputError, match="input_size 16 is too small for 5 halvings: 32 always"):
        get_model("rpw_vgg16_g2", classes=3, input_size=16)
