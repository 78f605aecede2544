"""DiCENet against its published counts, the Gluon port of gluoncv2, and its own symmetries."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.complexity import count_graph
from gluon_asymmnet.models.dicenet import (
    WIDTHS,
    DiceUnit,
    DimConv,
    DimFuse,
    PReLU,
    ShuffleDice,
    StridedDice,
    build,
)
from tests.floats import NET, assert_close, difference
from tests.related_nets import (
    check_gradients_of_training_graph,
    copy_in_order,
    images,
    randomize_block,
    values,
)

pytestmark = pytest.mark.thorough

nd = mx.nd

# Parameters: gluoncv2's asserts (2.4: its net, built).  Multiply-adds: EdgeNets' README, in
# millions, which agrees; written out from the layers' shapes.
COUNTS = {
    0.2: (1_130_704, 14.90),
    0.5: (1_214_120, 24.71),
    0.75: (1_495_676, 46.83),
    1.0: (1_805_604, 70.71),
    1.25: (2_162_888, 98.11),
    1.5: (2_652_200, 135.48),
    1.75: (3_264_932, 182.24),
    2.0: (3_979_044, 236.29),
    2.4: (5_113_628, 297.94),
}


def maps(*shape):
    return nd.array(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("width", WIDTHS)
def test_published_counts(width):
    cost = count_graph(build(width=width, prefix="dicenet_"), 224)
    parameters, millions = COUNTS[width]
    assert cost.parameters == parameters
    assert round(cost.macs / 1e6, 2) == millions


def test_parameters_depend_on_the_size_built_for():
    """Per unit, 9 weights per row and per column: stages have 4, 8 and 4 units."""
    at = {size: count_graph(build(width=0.5, prefix="d_", filter_size=size), 224).parameters
          for size in (224, 64)}  # fmt: skip
    rows = 4 * (28 - 8) + 8 * (14 - 4) + 4 * (7 - 2)
    assert at[224] - at[64] == 9 * 2 * rows
    cost = count_graph(build(width=0.5, prefix="d_", filter_size=64, input_size=224), 224)
    assert cost.parameters == at[64]


def gluoncv2_net(width, side, **kwargs):
    from gluoncv2.models import dicenet

    net = dicenet.get_dicenet(width, in_size=(side, side), **kwargs)
    return randomize_block(net)


def like(ours, theirs):
    ours.initialize()
    copy_in_order(ours, theirs)
    return ours


@pytest.mark.parametrize(("width", "side"), [(w, 64) for w in WIDTHS] + [(1.0, 224)])
def test_logits_are_gluoncv2s(width, side):
    theirs = gluoncv2_net(width, side, classes=10)
    ours = like(build(width=width, classes=10, input_size=side, dropout=0), theirs)
    x = maps(2, 3, side, side)
    assert_close(ours(x), theirs(x), terms=NET)
    theirs.output[0].dropout._rate = 0
    # Normalising by few values makes rounding grow; their PReLU rounds to single precision.
    with mx.autograd.train_mode():
        theirs.cast("float64")
        ours.cast("float64")
        x = x.astype("float64")
        assert_close(ours(x), theirs(x), terms=NET, condition=10)


@pytest.mark.parametrize("side", [32, 96])
def test_resized_maps_give_gluoncv2s_logits(side):
    """Filters for 64 pixels on maps that grow (32) and shrink (96) to them."""
    theirs = gluoncv2_net(0.5, 64, classes=10, fixed_size=False)
    ours = like(build(width=0.5, classes=10, input_size=side, filter_size=64), theirs)
    x = maps(2, 3, side, side)
    assert_close(ours(x), theirs(x), terms=NET)


def dimconv_by_hand(x, depth, height, width):
    """Correlate each plane's slices with their own 3 x 3 filter, with loops."""

    def along(axis, filters):
        moved = np.swapaxes(x, 0, axis)
        padded = np.pad(moved, ((0, 0), (1, 1), (1, 1)))
        out = np.zeros(moved.shape)
        for s, i, j in np.ndindex(*moved.shape):
            out[s, i, j] = (padded[s, i : i + 3, j : j + 3] * filters[s, 0]).sum()
        return np.swapaxes(out, 0, axis)

    return np.concatenate([along(0, depth), along(1, height), along(2, width)])


def test_dimconv_against_numpy():
    block = randomize_block(DimConv(4, (3, 5)))
    x = maps(2, 4, 3, 5)
    weights = [values(block)[f"{n}.weight"].data().asnumpy() for n in ("depth", "height", "width")]
    assert [w.shape for w in weights] == [(4, 1, 3, 3), (3, 1, 3, 3), (5, 1, 3, 3)]
    expected = np.stack([dimconv_by_hand(sample, *weights) for sample in x.asnumpy()])
    assert_close(block(x), expected, terms=100)


@pytest.mark.parametrize("filters", [(6, 10), (2, 3), (9, 2)])
def test_resizing_leaves_the_shape(filters):
    block = randomize_block(DimConv(4, (4, 6), filters))
    assert values(block)["height.weight"].shape[0] == filters[0]
    assert block(maps(2, 4, 4, 6)).shape == (2, 12, 4, 6)


def test_resizing_leaves_constants_inside():
    """A map of ones stays one when resized: with filters of one tap the views are ones again."""
    block = DimConv(4, (4, 6), (9, 2))
    block.initialize("zeros")
    for p in values(block).values():
        centre = np.zeros(p.shape, np.float32)
        centre[:, :, 1, 1] = 1
        p.set_data(nd.array(centre))
    assert_close(block(nd.ones((1, 4, 4, 6))), np.ones((1, 12, 4, 6)), terms=30)


def test_without_the_other_views_local_fusion_scales_the_channels():
    conv, fuse = DimConv(4, (5, 5)), randomize_block(DimFuse(4, 4))
    conv.initialize("zeros")
    identity = np.zeros((4, 1, 3, 3), np.float32)
    identity[:, :, 1, 1] = 1
    conv.depth.weight.set_data(nd.array(identity))
    x = maps(2, 4, 5, 5)
    local = fuse.local.conv.conv
    scale = local.weight.data().asnumpy()[:, 0, 0, 0]  # (C, 3, 1, 1): the channels' view is first
    found = local(fuse.shuffle(conv(x))).asnumpy()
    assert_close(found, x.asnumpy() * scale[:, None, None], terms=30)


def transposed_arrays(block):
    """Return the arrays of the block that sees transposed maps: rows and columns change places."""
    found = {n: p.data().asnumpy() for n, p in values(block).items()}
    turned = {n: a.swapaxes(2, 3) if a.ndim == 4 else a for n, a in found.items()}
    last = "fuse.reduce.weight"
    for unit in (name[: -len(last)] for name in found if name.endswith(last)):
        rows, columns = f"{unit}conv.height.weight", f"{unit}conv.width.weight"
        turned[rows], turned[columns] = turned[columns], turned[rows]
        local = f"{unit}fuse.local.conv.conv.weight"
        turned[local] = found[local][:, [0, 2, 1]]
        for name in found:
            if name.startswith((f"{unit}norm.", f"{unit}act.")):
                by_channels, by_rows, by_columns = np.split(found[name], 3)
                turned[name] = np.concatenate([by_channels, by_columns, by_rows])
    return turned


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda size: DiceUnit(8, 12, size), (2, 8, 4, 6)),
        (lambda size: StridedDice(8, size), (2, 8, 8, 12)),
        (lambda size: ShuffleDice(8, 12, size), (2, 8, 4, 6)),
    ],
)
def test_transposed_units_transpose_their_output(make, shape):
    block, other = randomize_block(make((4, 6))), make((6, 4))
    other.initialize()
    for name, array in transposed_arrays(block).items():
        values(other)[name].set_data(nd.array(array))
    x = maps(*shape)
    expected = block(x).asnumpy()
    assert_close(other(x.swapaxes(2, 3)).asnumpy().swapaxes(2, 3), expected, terms=500)


def test_transposed_net_has_the_same_logits():
    net, other = (randomize_block(build(width=0.2, classes=5, input_size=64)) for _ in range(2))
    x = maps(2, 3, 64, 64)
    assert difference(net(x.swapaxes(2, 3)), net(x)) > 1e-3
    for name, array in transposed_arrays(net).items():
        values(other)[name].set_data(nd.array(array))
    assert_close(other(x.swapaxes(2, 3)), net(x), terms=NET)


@pytest.mark.parametrize("hybrid", [False, True])
def test_gradient_of_a_slope_by_hand(hybrid):
    """MXNet's own operator fails this when hybridized: it gives a quarter, slope times as much."""
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Conv2D(2, 1, in_channels=2, use_bias=False), PReLU(2))
    net.add(mx.gluon.nn.HybridLambda(lambda F, x: 2 * x))
    net.initialize()
    net[0].weight.set_data(nd.eye(2).reshape((2, 2, 1, 1)))
    if hybrid:
        net.hybridize()
    with mx.autograd.record():
        y = net(nd.array([1, -2, -3, -4]).reshape((1, 2, 1, 2)))
    y.backward()
    assert y.asnumpy().ravel().tolist() == [2, -1, -1.5, -2]
    assert net[1].alpha.grad().asnumpy().tolist() == [-4, -14]


@pytest.mark.parametrize("width", [0.2, 0.75])
def test_gradients_of_the_training_form(width):
    """0.75 has odd numbers of channels."""
    check_gradients_of_training_graph(
        lambda: build(width=width, classes=5, input_size=64, dropout=0), images(2, 64),
        "float64",
    )  # fmt: skip


@pytest.mark.parametrize("channels", [32, 43])
def test_gradients_of_a_unit_in_single_precision(channels):
    check_gradients_of_training_graph(
        lambda: DiceUnit(channels, channels, (8, 8)), maps(4, channels, 8, 8), "float32"
    )


def test_default_dropout():
    assert {w: build(width=w).dropout._rate for w in (0.2, 1.0, 1.25, 2.4)} == {
        0.2: 0.1, 1.0: 0.1, 1.25: 0.2, 2.4: 0.2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0.3}, "has the widths 0.2, 0.5, .*2.4, got 0.3"),
        ({"input_size": 100}, "input_size must be a multiple of 32 pixels.* got 100"),
        ({"input_size": 0}, "input_size must be .* got 0"),
        ({"filter_size": 48}, "filter_size must be a multiple of 32 pixels.* got 48"),
        ({"filter_size": "224"}, "filter_size must be .* got '224'"),
    ],
)
def test_what_cannot_be_built_says_why(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


@pytest.mark.parametrize("hybrid", [False, True])
def test_images_of_another_size_are_refused(hybrid):
    net = randomize_block(build(width=0.2, classes=3, input_size=64))
    if hybrid:
        net.hybridize()
    assert net.input_size == 64
    assert net(maps(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(InputError, match="takes images of 64 x 64 pixels, got 64 x 96: build it"):
        net(maps(1, 3, 64, 96))
