import inspect

import numpy as np
import pytest

import gluon_asymmnet
from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.arch import BlockSpec, plan_block
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.complexity import count_model, count_plan
from gluon_asymmnet.models.registry import SPECS, ModelSpec
from gluon_asymmnet.nn import (
    AsymmBottleneck,
    ChannelShuffle,
    HardSigmoid,
    HardSwish,
    SqueezeExcite,
)
from gluon_asymmnet.zoo import get_model
from tests.conftest import thorough_but
from tests.floats import NET, assert_close, difference

nd = mx.nd
BUILDABLE = [
    (name, width, rate)
    for name, spec in SPECS.items()
    for width in (0.35, 0.5, 0.75, 1.0, 1.25, 1.5)
    for rate in ((0, 1, 2) if spec.asymmetric else (0,))
    if (width, rate) != (0.35, 2)
]


def initialized(*args, **kwargs):
    net = get_model(*args, **kwargs)
    mx.random.seed(1)
    net.initialize(mx.init.MSRAPrelu())
    return net


def images(count=2, size=64, seed=0):
    return nd.array(np.random.default_rng(seed).normal(size=(count, 3, size, size)))


@pytest.mark.parametrize(("name", "width", "rate"), BUILDABLE)
def test_built_net_has_the_counted_arrays(name, width, rate):
    net = get_model(name, width=width, rate=rate, classes=7)
    arrays = net._collect_params_with_prefix()
    cost = count_plan(net.plan, classes=7)
    trained = sum(np.prod(p.shape) for p in arrays.values() if p.grad_req != "null")
    running = sum(np.prod(p.shape) for p in arrays.values() if p.grad_req == "null")
    assert (trained, running) == (cost.parameters, cost.running)


TRAINED = [(*net, True) for net in BUILDABLE] + [(*BUILDABLE[i], False) for i in (1, -1)]


@pytest.mark.parametrize(("name", "width", "rate", "hybrid"), thorough_but(TRAINED, 1, -1))
def test_training_step_reaches_every_parameter(name, width, rate, hybrid):
    """With oneDNN on: the released concat dies here wherever channels are not a multiple of 16."""
    net = initialized(name, width=width, rate=rate, classes=5)
    if hybrid:
        net.hybridize(static_alloc=True, static_shape=True)
    with mx.autograd.record():
        loss = (net(images(4, 32)) ** 2).sum()
    loss.backward()
    still = [
        name
        for name, p in net.collect_params().items()
        if p.grad_req != "null" and not float(p.grad().abs().sum().asscalar()) > 0
    ]
    assert still == []
    assert np.isfinite(loss.asscalar())


@pytest.mark.parametrize("name", SPECS)
def test_hybridized_equals_imperative_in_training_and_inference(name):
    """Relative 1e-5 in training: the fused graph may add in another order."""
    x = images()
    net = initialized(name, width=0.5, classes=5, dropout=0)
    plain = net(x)
    with mx.autograd.record():
        plain_training = net(x)
    net.hybridize(static_alloc=True, static_shape=True)
    assert_close(net(x), plain, terms=NET)
    with mx.autograd.record():
        assert_close(net(x), plain_training, terms=NET)


@pytest.mark.parametrize("width", thorough_but([0.5, 1.0, 1.25], 0))
@pytest.mark.parametrize("size", ["large", "small"])
def test_mobilenetv3_is_gluoncvs(size, width):
    ours = initialized(f"mobilenetv3_{size}", width=width)
    theirs = gluoncv.model_zoo.mobilenetv3.get_mobilenet_v3(size, multiplier=width)
    theirs.initialize(mx.init.MSRAPrelu())
    x = images(2, 96)
    theirs(x)
    pairs = list(
        zip(ours._collect_params_with_prefix().values(),
            theirs._collect_params_with_prefix().values())
    )  # fmt: skip
    assert len(pairs) == len(theirs.collect_params().keys())
    assert sum(p.data().size for p, _ in pairs) == sum(q.data().size for _, q in pairs)
    rng = np.random.default_rng(0)
    for p, q in pairs:  # statistics other than 0 and 1, so that a swap would show
        value = q.data() * nd.array(rng.uniform(0.5, 1.5, q.shape))
        q.set_data(value)
        p.set_data(value)
    assert_close(ours(x), theirs(x), terms=NET)


def test_bottleneck_against_numpy():
    """[x, relu(bn(W x)), x] -> depthwise -> project, by hand with 1 x 1 kernels, running statistics
    0 and 1 (eps 1e-5)."""
    plan = plan_block(2, BlockSpec(1, 5, 2, False, "relu", 1), rate=1)
    block = AsymmBottleneck(plan)
    block.initialize(mx.init.Normal(1))
    x = nd.array(np.random.default_rng(0).normal(size=(1, 2, 3, 3)))
    arrays = {n: p.data().asnumpy() for n, p in block._collect_params_with_prefix().items()}
    n = 1 / np.sqrt(1 + 1e-5)

    def conv(name, v):
        weight = arrays[f"{name}.conv.weight"][:, :, 0, 0]
        return np.einsum("oc,chw->ohw", weight, v) * n

    v = x.asnumpy()[0]
    joined = np.concatenate([v, np.maximum(conv("expand", v), 0), v])
    assert len(joined) == 5 + 2
    wide = arrays["depthwise.conv.weight"][:, 0, 0, 0][:, None, None] * joined * n
    expected = conv("project", np.maximum(wide, 0)) + v
    assert_close(block(x).asnumpy()[0], expected, terms=50)


def test_channel_shuffle_by_hand():
    x = nd.arange(6).reshape((1, 6, 1, 1))
    assert ChannelShuffle(2)(x).asnumpy().ravel().tolist() == [0, 3, 1, 4, 2, 5]
    assert ChannelShuffle(3)(x).asnumpy().ravel().tolist() == [0, 2, 4, 1, 3, 5]


def test_shuffle_changes_the_net_and_trains():
    x = images()
    plain, shuffled = (
        initialized("asymmnet_small", width=0.5, shuffle_groups=g, classes=5) for g in (0, 2)
    )
    for p, q in zip(plain.collect_params().values(), shuffled.collect_params().values()):
        q.set_data(p.data())
    assert difference(shuffled(x), plain(x)) > 1e-3


def test_activations_by_hand():
    x = nd.array([-4.0, -3.0, -1.5, 0.0, 1.5, 3.0, 4.0])
    gate = [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert_close(HardSigmoid()(x), gate)
    assert_close(HardSwish()(x), x.asnumpy() * gate, terms=2)


def test_squeeze_excite_against_numpy():
    block = SqueezeExcite(4, 2)
    block.initialize(mx.init.Normal(1))
    x = np.random.default_rng(0).normal(size=(1, 4, 3, 5)).astype(np.float32)
    a = {n: p.data().asnumpy() for n, p in block._collect_params_with_prefix().items()}
    hidden = np.maximum(a["reduce.weight"][:, :, 0, 0] @ x[0].mean(axis=(1, 2)), 0)
    gate = np.clip((a["restore.weight"][:, :, 0, 0] @ hidden) / 6 + 0.5, 0, 1)
    assert_close(block(nd.array(x)).asnumpy()[0], x[0] * gate[:, None, None], terms=50)


def test_norm_layer_and_its_settings_reach_every_place():
    net = get_model("asymmnet_large", norm_kwargs={"epsilon": 1e-3, "use_global_stats": True})
    norms = [b for b in _blocks(net) if isinstance(b, mx.gluon.nn.BatchNorm)]
    assert len(norms) == 46
    assert all(b._kwargs["eps"] == 1e-3 and b._kwargs["use_global_stats"] for b in norms)
    net = initialized("asymmnet_small", width=0.5, norm_layer=mx.gluon.nn.GroupNorm,
                      norm_kwargs={"num_groups": 4}, classes=3)  # fmt: skip
    assert not any(isinstance(b, mx.gluon.nn.BatchNorm) for b in _blocks(net))
    assert net(images()).shape == (2, 3)


def test_last_gamma_is_zero_where_there_is_a_shortcut_and_nowhere_else():
    net = initialized("asymmnet_large", last_gamma=True)
    zero = {n for n, p in net._collect_params_with_prefix().items()
            if n.endswith("gamma") and not p.data().asnumpy().any()}  # fmt: skip
    expected = {f"features.blocks.{i}.project.norm.gamma"
                for i, block in enumerate(net.plan.blocks) if block.shortcut}  # fmt: skip
    assert zero == expected
    assert len(expected) == 10  # the rows of the table with stride 1 and as many channels out as in


def _blocks(block):
    for child in block._children.values():
        yield child
        yield from _blocks(child)


def test_feature_maps_share_parameters_and_have_their_strides():
    net = initialized("asymmnet_large", classes=3)
    maps = net.feature_maps("c2", "c4", "squeeze")
    x = images(1, 96)
    for info, found in zip(maps.info, maps(x)):
        assert found.shape == (1, info.channels, 96 // info.stride, 96 // info.stride)
    before = maps(x)[0].asnumpy()
    net.features.stem.conv.weight.set_data(net.features.stem.conv.weight.data() * 2)
    assert difference(maps(x)[0], before) > 1e-3
    assert set(maps.collect_params()) <= set(net.collect_params())
    maps.hybridize()
    assert len(maps(x)) == 3
    assert len(maps(mx.sym.var("data"))) == 3
    with pytest.raises(InputError, match=r"feature maps \['c9'\] do not exist: choose from c1, c2"):
        net.feature_maps("c3", "c9")


@pytest.mark.parametrize("size", [33, 64, 97, 224])
def test_any_input_size(size):
    assert initialized("asymmnet_small", width=0.5, classes=3)(images(1, size)).shape == (1, 3)


def test_dropout_acts_in_training_only():
    net = initialized("asymmnet_small", width=0.5, classes=3, dropout=0.5)
    x = images()
    assert difference(net(x), net(x)) == 0
    with mx.autograd.record(train_mode=True):
        assert difference(net(x), net(x)) > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("asymmnet_large", ("asymmnet_large", 1.0, 1)),
        ("AsymmNet_Large_0.5", ("asymmnet_large", 0.5, 1)),
        ("asymmnet_small_0.75x", ("asymmnet_small", 0.75, 1)),
        ("asymmnet_small_w1.25_r2", ("asymmnet_small", 1.25, 2)),
        ("mobilenetv3_large_0.5", ("mobilenetv3_large", 0.5, 0)),
        ("mobilenetv2", ("mobilenetv2", 1.0, 0)),
        ("ghostnet_asymm", ("ghostnet_asymm", 1.0, 1)),
    ],
)
def test_names_with_suffixes(name, expected):
    assert ModelSpec.parse(name) == ModelSpec(*expected)
    assert ModelSpec.parse(ModelSpec(*expected).id) == ModelSpec(*expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_model("asymmnet_larg"), "did you mean 'asymmnet_large'"),
        (lambda: get_model("resnet50"), "expected one of .*asymmnet_large, asymmnet_small"),
        (
            lambda: get_model("asymmnet_large_0.5", width=0.75),
            "name says width 0.5, the arg.* 0.75",
        ),
        (lambda: get_model("asymmnet_large_0.5", width=1), "name says width 0.5, the arg.* 1"),
        (lambda: get_model("asymmnet_large_w1_r2", rate=1), "name says rate 2, the argument 1"),
        (lambda: get_model("mobilenetv3_small", rate=2), "its rate is 0, got 2"),
        (lambda: get_model("mobilenetv3_small", rate=1), "its rate is 0, got 1"),
        (lambda: get_model("mobilenetv2", rate=1), "can be built at rate 0, got 1"),
        (lambda: get_model("asymmnet_large", classes=0), "classes must be .* got 0"),
        (lambda: get_model("asymmnet_large", dropout=1.0), "dropout must be .* got 1.0"),
        (
            lambda: get_model("asymmnet_small", pretrained=True),
            "no published weights for asymmnet_s",
        ),
        (lambda: get_model("asymmnet_large", pretrained=True, classes=10), "have 1000 classes"),
    ],
)
def test_what_cannot_be_built_says_why(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_related_nets_are_counted_by_every_form_of_their_names():
    by_suffix, by_width = (
        count_model(ModelSpec.parse("dicenet_0.2")),
        count_model(ModelSpec.parse("dicenet", width=0.2)),
    )
    assert by_suffix.parameters == by_width.parameters == 1_130_704


def test_get_model_shows_its_settings():
    shown = list(inspect.signature(get_model).parameters)
    assert shown == [
        "name", "width", "rate", "shuffle_groups", "classes", "dropout", "pretrained", "ctx",
        "root", "norm_layer", "norm_kwargs", "use_global_stats", "last_gamma", "stem", "input_size",
        "spec",
    ]  # fmt: skip


def test_public_names():
    assert gluon_asymmnet.get_model is get_model
    assert set(gluon_asymmnet.__all__) <= set(dir(gluon_asymmnet))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        gluon_asymmnet.nonsense  # noqa: B018
