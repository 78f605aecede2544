"""The training and inference graphs of a network compute the same as the plain one."""

import numpy as np
import pytest

from benchmarks.authors_net import plain_copy
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.asymmnet import fold_for_inference
from gluon_asymmnet.nn.depthwise import note_map_sizes
from gluon_asymmnet.nn.folding import fold, fold_all
from gluon_asymmnet.nn.onednn import PLAIN, TRAINING, set_graph_mode
from gluon_asymmnet.zoo import get_model
from tests.floats import NET, assert_close
from tests.test_models import BUILDABLE, images, initialized

pytestmark = pytest.mark.thorough


def unsettled(*args, **kwargs):
    """A net whose statistics are not 0 and 1, so that a mistake in folding shows."""
    net, rng = initialized(*args, **kwargs), np.random.default_rng(0)
    for name, p in net._collect_params_with_prefix().items():
        if ".norm." in name:
            low, high = (0.5, 1.5) if name.endswith(("gamma", "var")) else (-0.5, 0.5)
            p.set_data(mx.nd.array(rng.uniform(low, high, p.shape)))
    return net


def gradients(net, mode, x, label):
    set_graph_mode(net, mode)
    note_map_sizes(net, x.shape)
    net.hybridize(static_alloc=True, static_shape=True)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    with mx.autograd.record():
        value = loss(net(x), label)
    value.backward()
    found = {n: p.grad().asnumpy().copy() for n, p in net.collect_params().items()
             if p.grad_req != "null"}  # fmt: skip
    return value.asnumpy(), found


@pytest.mark.parametrize(("name", "width", "rate"), BUILDABLE)
def test_gradients_of_the_training_graph(name, width, rate):
    """To 1e-4 of all gradients together: some betas' true gradient is 0, and what is seen noise.

    A ReLU whose input is 0 within rounding is on in one graph and off in the other, which changes
    the gradients before it by more.  That depends on the processor; one of three batches is
    without.
    """
    net = unsettled(name, width=width, rate=rate, classes=5, dropout=0)
    size = 33 if rate else 32  # odd sizes, too
    label, shares = mx.nd.arange(6) % 5, []
    for factor in (1, 1.25, 1.5):
        x = factor * images(6, size)
        plain_loss, plain = gradients(net, PLAIN, x, label)
        tuned_loss, tuned = gradients(net, TRAINING, x, label)
        assert_close(tuned_loss, plain_loss, terms=NET)
        difference = sum(((tuned[n] - plain[n]) ** 2).sum() for n in plain)
        shares.append((difference / sum((g**2).sum() for g in plain.values())) ** 0.5)
        if shares[-1] < 1e-4:
            break
    assert min(shares) < 1e-4


def test_training_graph_keeps_names_and_arrays():
    net = get_model("asymmnet_small", width=0.5)
    before = {n: p.shape for n, p in net._collect_params_with_prefix().items()}
    set_graph_mode(net, TRAINING)
    assert {n: p.shape for n, p in net._collect_params_with_prefix().items()} == before
    set_graph_mode(net, PLAIN)
    plain = get_model("asymmnet_small", width=0.5)(mx.sym.var("data")).tojson()
    assert net(mx.sym.var("data")).tojson() == plain


@pytest.mark.parametrize(("name", "width", "rate"), BUILDABLE)
def test_outputs_of_the_inference_graph(name, width, rate):
    net = unsettled(name, width=width, rate=rate, classes=5)
    folded = fold_for_inference(net)
    for batch, size in ((1, 64), (3, 45)):
        x = images(batch, size)
        assert_close(folded(x), net(x), terms=NET)


@pytest.mark.parametrize("groups", [0, 2])
def test_optimize_for_inference(groups):
    net = unsettled("asymmnet_large", width=0.5, shuffle_groups=groups, classes=5)
    fast = net.optimize_for_inference(images(1, 64))
    for batch, size in ((1, 64), (19, 64), (2, 96)):  # also other shapes than the sample's
        x = images(batch, size)
        assert_close(fast(x), net(x), terms=NET)


def test_group_normalisation_does_not_fold():
    net = initialized("asymmnet_small", width=0.5, norm_layer=mx.gluon.nn.GroupNorm,
                      norm_kwargs={"num_groups": 4}, classes=3)  # fmt: skip
    with pytest.raises(InputError, match="only batch normalisation folds"):
        net.optimize_for_inference()


def test_folding_by_hand():
    """One channel: 2 * x, mean 1, variance 3 with epsilon 1, gamma 4, beta 5 -> 4 * x + 3."""
    one = np.ones(1)
    weight, bias = fold(np.full((1, 1, 1, 1), 2.0), 4 * one, 5 * one, one, 3 * one, epsilon=1)
    assert (weight.item(), bias.item()) == (4.0, 3.0)
    weight, _ = fold(one, one, one, one, 0 * one)  # MXNet's epsilon: 1e-5
    assert weight.item() == pytest.approx(100_000**0.5)


def test_what_has_no_normalisation_stays_as_it_is():
    """As a detector's prediction heads."""
    one = np.ones(1, np.float32)
    norm = {f"a.norm.{name}": one for name in ("gamma", "beta", "running_mean", "running_var")}
    kept = {"head.conv.weight": 2 * one, "head.conv.bias": 3 * one, "scale": 4 * one}
    found = fold_all({"a.conv.weight": one, **norm, **kept}, epsilon=0)
    assert found == {"a.conv.weight": 1, "a.conv.bias": 0, **kept}


@pytest.mark.parametrize("make", [initialized, unsettled])
@pytest.mark.parametrize(
    ("name", "width", "rate"),
    [
        ("asymmnet_large", 1.0, 1), ("asymmnet_large", 0.5, 1), ("asymmnet_small", 1.0, 1),
        ("asymmnet_small", 0.35, 1), ("asymmnet_small", 1.25, 2), ("mobilenetv3_small", 0.75, 0),
    ],
)  # fmt: skip
def test_the_plain_graph_gives_the_authors_logits_to_the_bit(name, width, rate, make):
    net = make(name, width=width, rate=rate, classes=10)
    for batch, size in ((1, 64), (2, 45)):
        x = images(batch, size)
        authors = plain_copy(net, x)
        for active in (False, True):
            net.hybridize(active)
            authors.hybridize(active)
            np.testing.assert_array_equal(net(x).asnumpy(), authors(x).asnumpy())
