import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import BlockSpec, plan_block
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.nn import AsymmBottleneck, EfficientAttention, attention
from gluon_asymmnet.nn.attention import eca_kernel
from gluon_asymmnet.nn.onednn import INFERENCE, PLAIN, TRAINING, set_graph_mode
from tests.floats import assert_close, bound, difference

KINDS = [
    ("se", {}),
    ("eca", {}),
    ("eca", {"kernel": 5}),
    ("eca", {"kernel": 3, "shared": False}),
    ("ant", {"reduction": 4}),
]


def random_input(*shape, seed=0):
    return mx.nd.array(np.random.default_rng(seed).normal(size=shape))


def initialized(block, seed=1):
    mx.random.seed(seed)
    block.initialize(mx.init.Normal(1), force_reinit=True)
    for param in block.collect_params().values():  # over the initializers of their own
        param.set_data(mx.nd.random.normal(shape=param.shape))
    return block


def arrays(block):
    return {n: p.data().asnumpy() for n, p in block._collect_params_with_prefix().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("channels", "kernel"),
    [(8, 3), (16, 3), (24, 3), (32, 3), (40, 3), (64, 3), (96, 3), (128, 5), (160, 5), (256, 5),
     (320, 5), (512, 5), (1024, 5), (2048, 7)],
)  # fmt: skip
def test_adaptive_kernel(channels, kernel):
    assert eca_kernel(channels) == kernel
    assert EfficientAttention(channels).kernel == kernel


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_eca_is_a_correlation_along_the_channels(kernel):
    block = initialized(EfficientAttention(8, kernel))
    x = random_input(2, 8, 3, 5)
    weight = arrays(block)["conv.weight"].ravel()
    assert weight.size == kernel
    means = x.asnumpy().mean(axis=(2, 3))
    gate = sigmoid(np.stack([np.convolve(row, weight[::-1], "same") for row in means]))
    assert_close(block(x), x.asnumpy() * gate[:, :, None, None], terms=30)


def test_each_channel_may_have_its_own_kernel():
    block = initialized(EfficientAttention(6, 3, shared=False))
    x = random_input(2, 6, 4, 4)
    weight = arrays(block)["conv.weight"].reshape(6, 3)
    padded = np.pad(x.asnumpy().mean(axis=(2, 3)), ((0, 0), (1, 1)))
    neighbours = np.stack([padded[:, i : i + 6] for i in range(3)], axis=2)
    gate = sigmoid((neighbours * weight).sum(axis=2))
    assert_close(block(x), x.asnumpy() * gate[:, :, None, None], terms=30)


def test_own_kernels_that_are_equal_are_one_shared_kernel():
    shared, own = (initialized(EfficientAttention(7, 5, shared=s)) for s in (True, False))
    weight = shared.conv.weight.data()
    own.conv.weight.set_data(mx.nd.broadcast_axis(weight, axis=0, size=7))
    x = random_input(1, 7, 3, 3)
    assert_close(own(x), shared(x), terms=30)


def test_zero_weights_halve_every_channel():
    block = initialized(EfficientAttention(16, 3))
    block.conv.weight.set_data(mx.nd.zeros((1, 1, 3, 1)))
    x = random_input(1, 16, 4, 4)
    np.testing.assert_array_equal(block(x).asnumpy(), x.asnumpy() / 2)


@pytest.mark.parametrize(("kernel", "commutes"), [(1, True), (3, False)])
def test_the_order_of_channels_matters_to_neighbours_only(kernel, commutes):
    block = initialized(EfficientAttention(12, kernel))
    x = random_input(1, 12, 3, 3).asnumpy()
    order = np.random.default_rng(1).permutation(12)
    after = block(mx.nd.array(x)).asnumpy()[:, order]
    before = block(mx.nd.array(x[:, order])).asnumpy()
    assert (difference(after, before) < bound(terms=30)) == commutes


def test_ant_against_numpy():
    block = initialized(attention("ant", 8, reduction=3))
    a = arrays(block)
    assert {name: value.shape for name, value in a.items()} == {
        "reduce.weight": (2, 8, 1, 1), "restore.weight": (8, 2, 1, 1),
    }  # fmt: skip
    x = random_input(1, 8, 3, 5)
    hidden = np.maximum(a["reduce.weight"][:, :, 0, 0] @ x.asnumpy()[0].mean(axis=(1, 2)), 0)
    gate = sigmoid(a["restore.weight"][:, :, 0, 0] @ hidden)
    assert_close(block(x).asnumpy()[0], x.asnumpy()[0] * gate[:, None, None], terms=30)


def test_se_has_a_quarter_rounded_up_as_asymmnet():
    assert arrays(initialized(attention("se", 72)))["reduce.weight"].shape == (24, 72, 1, 1)
    block = initialized(attention("se", 72, divisor=1))
    assert arrays(block)["reduce.weight"].shape == (18, 72, 1, 1)


@pytest.mark.parametrize("mode", [TRAINING, INFERENCE])
@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_graph_modes_agree_in_output_and_gradient(kind, settings, mode):
    block = initialized(attention(kind, 24, **settings))
    block.collect_params().setattr("grad_req", "write")
    results = []
    for each in (PLAIN, mode):
        set_graph_mode(block, each)
        x = random_input(2, 24, 5, 5)
        x.attach_grad()
        with mx.autograd.record():
            y = block(x)
            loss = (y * random_input(2, 24, 5, 5, seed=2)).sum()
        loss.backward()
        grads = [p.grad().asnumpy() for p in block.collect_params().values()]
        assert all(np.abs(g).sum() > 0 for g in grads)
        results.append([y.asnumpy(), x.grad.asnumpy(), *grads])
    for plain, other in zip(*results):
        assert_close(other, plain, terms=3_000)


@pytest.mark.parametrize(("rate", "wide"), [(0, 64), (1, 80)])
@pytest.mark.parametrize(
    ("kind", "settings", "where", "weights"),
    [
        (None, {}, set(), lambda wide: 0),
        (
            "se",
            {"divisor": 1},
            {"wide_attention"},
            lambda wide: 2 * wide * wide // 4 + 5 * wide // 4,
        ),
        ("eca", {}, {"out_attention"}, lambda wide: 3),
        ("eca", {"kernel": 5}, {"out_attention"}, lambda wide: 5),
        ("eca", {"shared": False}, {"out_attention"}, lambda wide: 3 * 16),
        ("ant", {"reduction": 4}, {"wide_attention"}, lambda wide: 2 * wide * wide // 4),
    ],
)
def test_a_bottleneck_takes_any_kind(kind, settings, where, weights, rate, wide):
    """The output has 16 channels, the expanded space ``wide``."""
    plan = plan_block(16, BlockSpec(3, 64, 16, False, "relu6", 1), rate)
    block = initialized(
        AsymmBottleneck(plan, attention=kind, attention_settings=settings, groups=2)
    )
    own = {n: p for n, p in block._collect_params_with_prefix().items() if "attention" in n}
    assert {name.split(".")[0] for name in own} == where
    assert sum(param.data().size for param in own.values()) == weights(wide)
    assert block.project.conv.weight.shape == (16, wide // 2, 1, 1)
    x = random_input(2, 16, 6, 6)
    plain = block(x).asnumpy()
    assert plain.shape == (2, 16, 6, 6)
    block.hybridize()
    assert_close(block(x), plain, terms=500)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("sa", {}, "attention must be null, 'se' or 'eca' or 'ant', got 'sa'"),
        (["eca"], {}, r"got \['eca'\]"),
        (None, {"kernel": 3}, "got None with settings"),
        ("eca", {"size": 3}, "attention 'eca' has no setting 'size': it takes kernel, shared"),
        ("eca", {"kernel": 4}, "an odd number from 1 to 31 on 16 channels, .* got 4"),
        ("eca", {"kernel": -1}, "odd number .* got -1"),
        ("eca", {"kernel": 33}, "odd number .* got 33"),
        ("eca", {"kernel": "3"}, "odd number .* got '3'"),
        ("eca", {"kernel": True}, "odd number .* got True"),
        ("eca", {"shared": "no"}, "shared must be true or false, got 'no'"),
        ("ant", {"reduction": 0}, "reduction must be a whole number from 1 to 16.* got 0"),
        ("ant", {"reduction": 17}, "reduction must be .* got 17"),
        ("se", {"reduction": 2.5}, "reduction must be .* got 2.5"),
        ("se", {"divisor": 0}, "divisor must be .* got 0"),
    ],
)
def test_what_cannot_be_built_says_why(kind, settings, message):
    with pytest.raises(InputError, match=message):
        attention(kind, 16, **settings)


def test_settings_of_a_bottleneck_are_named():
    plan = plan_block(16, BlockSpec(3, 64, 16, False, "relu6", 1), 0)
    with pytest.raises(InputError, match=r"must be named values, got \[3\]"):
        AsymmBottleneck(plan, attention="eca", attention_settings=[3])
