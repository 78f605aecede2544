"""Each optimizer against its formula in float64, and its state through a checkpoint."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train import checkpoint
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.optimizers import OPTIMIZERS, make_optimizer
from tests.floats import assert_close

LR, WD, STEPS, SCALE = 0.05, 0.01, 5, 4  # SCALE: the batch, which divides the gradient


def nag(c, w, g, s, t):
    """MXNet 1.9.1 adds the decay of the new weight to the momentum, see ``test_train_step.py``."""
    step = LR * (g + WD * w)
    new = w - c.momentum * (c.momentum * s.get("m", 0) + step) - step
    s["m"] = c.momentum * s.get("m", 0) + LR * (g + WD * new)
    return new


def sgd(c, w, g, s, t):
    s["m"] = c.momentum * s.get("m", 0) - LR * (g + WD * w)
    return w + s["m"]


def moments(c, g, s, t):
    s["m"] = c.beta1 * s.get("m", 0) + (1 - c.beta1) * g
    s["v"] = c.beta2 * s.get("v", 0) + (1 - c.beta2) * g * g
    return s["m"] / (1 - c.beta1**t), s["v"] / (1 - c.beta2**t)


def adam(c, w, g, s, t):
    """The order of arXiv:1412.6980, section 2: epsilon on the root of v, not of v'."""
    m, v = moments(c, g + WD * w, s, t)
    return w - LR * m / (np.sqrt(v) + c.epsilon / np.sqrt(1 - c.beta2**t))


def adamw(c, w, g, s, t):
    m, v = moments(c, g, s, t)
    return w - LR * (m / (np.sqrt(v) + c.epsilon) + WD * w)


def lamb(c, w, g, s, t):
    """arXiv:1904.00962, algorithm 2, with phi the identity, and ratio 1 for weights of 0."""
    m, v = moments(c, g, s, t)
    r = m / (np.sqrt(v) + c.epsilon) + WD * w
    ratio = np.linalg.norm(w) / np.linalg.norm(r) if w.any() else 1
    return w - LR * ratio * r


def rmsprop(c, w, g, s, t):
    g = g + WD * w
    s["n"] = c.rho * s.get("n", 1) + (1 - c.rho) * g * g
    s["d"] = c.momentum * s.get("d", 0) + LR * g / np.sqrt(s["n"] + c.epsilon)
    return w - s["d"]


FORMULAS = dict(nag=nag, sgd=sgd, adam=adam, adamw=adamw, lamb=lamb, rmsprop=rmsprop)


def config(name, **more):
    if name != "nag" and name != "sgd":
        more = {"epsilon": 0.01, **more}  # large enough to show where it is added
    if name in ("adam", "adamw", "lamb"):
        more = {"beta1": 0.875, "beta2": 0.96875, **more}  # exact in float32
    return resolve(ClassifierConfig, {"model": "a", "optimizer": name, "wd": WD, **more})


def small_net(settings):
    """A net of six parameters of different shapes: more than one group of MXNet's."""
    net = mx.gluon.nn.HybridSequential()
    with net.name_scope():
        net.add(*(mx.gluon.nn.Dense(n, in_units=5, flatten=False) for n in (5, 5, 5)))
    mx.random.seed(1)
    net.initialize(mx.init.Normal(0.5))
    optimizer = make_optimizer(settings, learning_rate=LR)
    return net, mx.gluon.Trainer(net.collect_params(), optimizer, update_on_kvstore=False)


def one_update(net, trainer, rng):
    grads = {}
    for name, param in net._collect_params_with_prefix().items():
        grads[name] = rng.normal(0, SCALE, param.shape).astype(np.float32)
        param.list_grad()[0][:] = mx.nd.array(grads[name])
        param._data[0]._fresh_grad = True
    trainer.update(SCALE)
    return grads


def test_every_optimizer_has_a_formula():
    assert FORMULAS.keys() == OPTIMIZERS.builtin


@pytest.mark.parametrize("name", FORMULAS)
def test_updates_are_the_formula(name):
    settings = config(name)
    net, trainer = small_net(settings)
    arrays = {n: a.astype(np.float64) for n, a in checkpoint.net_arrays(net).items()}
    states, rng = {n: {} for n in arrays}, np.random.default_rng(0)
    for t in range(1, STEPS + 1):
        for n, grad in one_update(net, trainer, rng).items():
            scaled = grad.astype(np.float64) / SCALE
            arrays[n] = FORMULAS[name](settings, arrays[n], scaled, states[n], t)
    for n, found in checkpoint.net_arrays(net).items():
        assert_close(found, arrays[n], terms=10 * STEPS, name=n)


@pytest.mark.parametrize("name", FORMULAS)
def test_resumed_from_a_checkpoint_it_is_the_same_to_the_bit(name, tmp_path):
    settings = config(name)
    net, trainer = small_net(settings)
    rng = np.random.default_rng(0)
    for _ in range(3):
        one_update(net, trainer, rng)
    saved = checkpoint.save(tmp_path, 3, net, trainer, {})
    arrays = checkpoint.trainer_arrays(net, trainer)
    assert {key.rsplit(":")[1] for key in arrays} == {"0", "1"} - ({"1"} if name in ("nag", "sgd")
                                                                    else set())  # fmt: skip
    resumed, its_trainer = small_net(settings)
    checkpoint.load(saved, resumed, its_trainer)
    for seed in (4, 5):
        one_update(net, trainer, np.random.default_rng(seed))
        one_update(resumed, its_trainer, np.random.default_rng(seed))
    expected = checkpoint.net_arrays(net)
    for n, found in checkpoint.net_arrays(resumed).items():
        np.testing.assert_array_equal(found, expected[n])
    after = checkpoint.trainer_arrays(net, trainer)
    for key, found in checkpoint.trainer_arrays(resumed, its_trainer).items():
        np.testing.assert_array_equal(found, after[key])
    assert its_trainer.optimizer.num_update == 5


@pytest.mark.parametrize(
    ("name", "like"),
    [("adam", "Adam"), ("adamw", "Adam"), ("rmsprop", "RMSProp"), ("lamb", "LAMB")],
)
def test_epsilon_is_mxnets_unless_told(name, like):
    settings = resolve(ClassifierConfig, {"model": "a", "optimizer": name})
    optimizer = make_optimizer(settings, learning_rate=LR)
    assert optimizer.epsilon == getattr(mx.optimizer, like)().epsilon
    assert optimizer.multi_precision is False


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "adamm"}, "unknown optimizer 'adamm': one of nag, .*did you mean 'adam'"),
        ({"beta1": 0.5}, "--beta1 0.5 has no effect on --optimizer nag, which takes --momentum"),
        ({"optimizer": "adam", "momentum": 0.5}, "--momentum 0.5 has no effect on .* adam, which"),
        ({"optimizer": "adam", "beta2": 1.0}, r"--beta2 must be in \[0, 1\), got 1.0"),
    ],
)
def test_what_has_no_effect_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        resolve(ClassifierConfig, {"model": "a", **given})
