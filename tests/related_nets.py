"""What the tests of the related nets share."""

import numpy as np

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn.depthwise import note_map_sizes
from gluon_asymmnet.nn.onednn import INFERENCE, TRAINING, set_graph_mode
from tests.floats import NET, assert_close


def images(count=2, size=64, seed=0):
    return mx.nd.array(np.random.default_rng(seed).normal(size=(count, 3, size, size)))


def values(net):
    """The arrays of a net, in the order of its blocks."""
    return net._collect_params_with_prefix()


def randomize(net, seed=0):
    """Weights as He's, and statistics other than 0 and 1, so that a swap would show."""
    net.initialize(mx.init.MSRAPrelu(), force_reinit=True)
    net(images(1, 224 if hasattr(net, "in_size") else 64))  # GluonCV's shapes are deferred
    rng = np.random.default_rng(seed)
    for name, param in values(net).items():
        if name.endswith(("gamma", "beta", "running_mean", "running_var", "bias")):
            low = -0.5 if name.endswith(("beta", "mean", "bias")) else 0.5
            param.set_data(mx.nd.array(rng.uniform(low, 1.5, param.shape)))
    return net


def copy_in_order(ours, theirs, *, leave_out=()):
    """Set our arrays to theirs, one after the other; names that contain ``leave_out`` stay."""
    own = {n: p for n, p in values(ours).items() if not any(part in n for part in leave_out)}
    assert len(own) == len(values(theirs))
    for (name, param), source in zip(own.items(), values(theirs).values()):
        assert param.shape == source.shape, name
        param.set_data(source.data())


def randomize_block(block, seed=1):
    """Give every array of a block without deferred shapes values of its own, slopes among them."""
    rng = np.random.default_rng(seed)
    block.initialize()
    for name, param in values(block).items():
        if len(param.shape) == 4:
            found = rng.normal(0, np.sqrt(2 / np.prod(param.shape[1:])), param.shape)
        elif name.endswith(("gamma", "running_var")):
            found = rng.uniform(0.5, 1.5, param.shape)
        else:
            found = rng.uniform(-0.3, 0.3, param.shape)
        param.set_data(mx.nd.array(found))
    return block


def gradients(net, x, dtype):
    """The gradients of the sum of squares of what the net makes of ``x``, in this precision."""
    net.cast(dtype)
    with mx.autograd.record():
        loss = (net(x.astype(dtype)) ** 2).sum()
    loss.backward()
    return {n: p.grad().asnumpy() for n, p in values(net).items() if p.grad_req != "null"}


def check_gradients_of_training_graph(make, x, dtype):
    """The training graph, hybridized, in ``dtype``, has the plain graph's gradients in double.

    In single precision oneDNN computes; in double, where rounding does not grow with the depth, it
    does not.
    """
    plain, tuned = randomize_block(make()), make()
    tuned.initialize()
    copy_in_order(tuned, plain)
    set_graph_mode(tuned, TRAINING)
    note_map_sizes(tuned, x.shape)
    tuned.hybridize(static_alloc=True, static_shape=True)
    found = gradients(tuned, x, dtype)
    for name, expected in gradients(plain, x, "float64").items():
        assert np.abs(expected).max() > 0, name
        assert_close(found[name], expected, terms=NET, precision=dtype, condition=1000, name=name)


def check_graph_modes(net, size=32):
    """The inference graph computes the same; a step of the training graph reaches all weights."""
    mx.random.seed(1)
    net.initialize(mx.init.MSRAPrelu())
    plain = net(images(2, size))
    set_graph_mode(net, INFERENCE)
    assert_close(net(images(2, size)), plain, terms=NET)
    set_graph_mode(net, TRAINING)
    note_map_sizes(net, (4, 3, size, size))
    net.hybridize(static_alloc=True, static_shape=True)
    with mx.autograd.record():
        loss = (net(images(4, size)) ** 2).sum()
    loss.backward()
    assert np.isfinite(loss.asscalar())
    still = [
        name
        for name, param in net.collect_params().items()
        if param.grad_req != "null" and not float(param.grad().abs().sum().asscalar()) > 0
    ]
    assert still == []
