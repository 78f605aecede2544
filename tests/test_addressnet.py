"""AddressNet: counts by hand, the block against NumPy, training, bad settings."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.addressnet import (
    IMAGENET,
    IMAGENET_STEM,
    AddressBlock,
    AddressPlan,
    build,
    plan_blocks,
)
from gluon_asymmnet.models.complexity import count_graph
from tests.floats import assert_close
from tests.related_nets import (
    check_gradients_of_training_graph,
    images,
    randomize_block,
    values,
)

pytestmark = pytest.mark.thorough


def maps(*shape):
    return mx.nd.array(np.random.default_rng(0).normal(size=shape))


CIFAR32 = {"depth": 32, "classes": 100}


def cost_by_hand(stem, stages, classes, side, enhanced=False):
    """Return parameters and multiply-adds; ``side`` is that of the stem's output."""
    parameters, macs = 27 * stem + 2 * stem, 27 * stem * side**2
    channels = stem
    for out, first_stride, expansions in stages:
        for index, expansion in enumerate(expansions):
            stride = first_stride if index == 0 else 1
            hidden = expansion * channels
            made = out - channels if stride == 2 else out // 2 if enhanced else out
            expand, project = channels * hidden // 4, hidden * made // 4
            parameters += expand + 2 * hidden + project + 2 * made
            macs += expand * side**2
            side //= stride
            macs += project * side**2
            channels = out
    return parameters + classes * channels + classes, macs + classes * channels


@pytest.mark.parametrize("enhanced", [False, True])
def test_counts_for_imagenet(enhanced):
    cost = count_graph(build(enhanced=enhanced, prefix="a_"), 224)
    expected = cost_by_hand(IMAGENET_STEM, IMAGENET, 1000, 112, enhanced)
    assert (cost.parameters, cost.macs) == expected
    if (
        not enhanced
    ):  # no published figure; readings of the poster give 3.70M to 3.71M, 523M to 590M
        assert expected == (3_703_688, 570_968_064)


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("depth", [20, 32, 44])
def test_counts_for_cifar(depth, enhanced):
    net = build(depth=depth, classes=100, enhanced=enhanced, prefix="a_")
    n = (depth - 2) // 6
    stages = [(16, 1, [9] * n), (32, 2, [9] * n), (64, 2, [9] * n)]
    cost = count_graph(net, 32)
    assert (cost.parameters, cost.macs) == cost_by_hand(16, stages, 100, 32, enhanced)
    layers = [layer for layer in cost.layers if layer.weight[1] != 3]
    assert len(layers) + 1 == depth


def test_near_the_published_net_for_cifar():
    """AddressNet-32-shift has 0.14M parameters and 37.3M operations, two per multiply-add."""
    cost = count_graph(build(**CIFAR32, prefix="a_"), 32)
    assert (cost.parameters, 2 * cost.macs) == (120_884, 34_517_504)


def test_the_table_of_the_poster():
    plans = plan_blocks(IMAGENET_STEM, IMAGENET)
    assert [plan.out for plan in plans] == [96] * 4 + [192] * 5 + [384] * 6 + [768] * 4
    assert [i for i, plan in enumerate(plans) if plan.stride == 2] == [0, 4, 9, 15]
    net = randomize_block(build(classes=3))
    x, sides = maps(1, 3, 64, 64), []
    for layer in net.features:
        x = layer(x)
        sides.append(x.shape[2])
    assert sides == [32] + [16] * 4 + [8] * 5 + [4] * 6 + [2] * 4 + [1]


def block_by_hand(x, arrays, plan, enhanced):
    """Groups of 4, running statistics and their scales as given, flat address shift."""

    def conv(name, v, stride=1):
        weight = arrays[f"{name}.conv.weight"][:, :, 0, 0]
        parts = zip(np.split(weight, 4), np.split(v[:, ::stride, ::stride], 4))
        v = np.concatenate([np.einsum("oc,chw->ohw", w, part) for w, part in parts])
        gamma, beta, mean, var = (
            arrays[f"{name}.norm.{n}"][:, None, None]
            for n in ("gamma", "beta", "running_mean", "running_var")
        )
        return (v - mean) / np.sqrt(var + 1e-5) * gamma + beta

    v = np.maximum(conv("expand", x), 0)
    v = np.roll(v, -plan.hidden // 8, axis=0)
    quarter, memory = v.size // 4, v.ravel()
    steps = enumerate((1, v.shape[2], -1, -v.shape[2]))
    v = np.concatenate([memory[k * quarter + d : (k + 1) * quarter + d] for k, d in steps])
    v = conv("project", v.reshape(plan.hidden, *x.shape[1:]), plan.stride)
    if plan.stride == 2:
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        rows, columns = v.shape[1:]
        x = np.array([[[padded[c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].mean()
                        for j in range(columns)] for i in range(rows)]
                      for c in range(len(x))])  # fmt: skip
    elif enhanced:
        x = x[len(x) // 2 :]
    else:
        return np.maximum(x + v, 0)
    return np.maximum(np.concatenate([x, v]), 0)


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("plan", [AddressPlan(8, 16, 8, 1), AddressPlan(8, 24, 16, 2)])
def test_block_against_numpy(plan, enhanced):
    block = randomize_block(AddressBlock(plan, enhanced=enhanced))
    x = maps(2, 8, 5, 6)
    arrays = {n: p.data().asnumpy() for n, p in values(block).items()}
    expected = np.stack([block_by_hand(v, arrays, plan, enhanced) for v in x.asnumpy()])
    assert expected.shape[1] == plan.out
    assert_close(block(x), expected, terms=300)


@pytest.mark.parametrize(
    "settings",
    [{}, {"width": 0.5}, {"enhanced": True}, {"shift": "zero"}, {"depth": 14}],
)
def test_gradients_of_the_training_form(settings):
    """At 64 pixels: zeros enter a map of 1 x 1 from all sides, and nothing is left."""
    check_gradients_of_training_graph(
        lambda: build(classes=5, **settings), images(2, 64), "float64"
    )


@pytest.mark.parametrize("enhanced", [False, True])
@pytest.mark.parametrize("plan", [AddressPlan(32, 128, 96, 2), AddressPlan(16, 144, 16, 1)])
def test_gradients_of_a_block_in_single_precision(plan, enhanced):
    check_gradients_of_training_graph(
        lambda: AddressBlock(plan, enhanced=enhanced), maps(4, plan.in_channels, 8, 8),
        "float32",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 33}, "depth must be 6n .* got 33"),
        ({"depth": 32, "channels": [16, 32]}, r"3 stages, e.g. \[16, 32, 64\]; got \[16, 32\]"),
        ({"depth": 32, "channels": [16, 32, -1]}, "3 stages, .* got"),
        ({"depth": 32, "channels": [32, 32, 64]}, "32 channels must become more, not 32"),
        ({"depth": 32, "expansion": 0}, "expansion must be .* got 0"),
        ({"shift": "wrap"}, "address shift is flat or zero, got 'wrap'"),
        ({"enhanced": "yes"}, "enhanced is true or false, got 'yes'"),
        ({"width": 0.01}, "8 channels must become more, not 8"),
    ],
)
def test_what_cannot_be_built_says_why(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_groups_have_to_divide():
    with pytest.raises(InputError, match="multiples of 8 channels, got 12, 36 and 16"):
        plan_blocks(12, [(16, 2, (3,))])


def test_any_input_size():
    net = randomize_block(build(depth=8, classes=3))
    for shape in ((1, 3, 32, 32), (2, 3, 20, 33), (1, 3, 1, 1)):
        assert net(maps(*shape)).shape == (shape[0], 3)
    assert randomize_block(build(classes=3))(mx.nd.ones((1, 3, 32, 32))).shape == (1, 3)
