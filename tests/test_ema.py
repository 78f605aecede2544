"""The moving average of the weights, against torch's and timm's formula."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import FormatError
from gluon_asymmnet.train.checkpoint import net_arrays
from gluon_asymmnet.train.classifier import ClassifierTask
from gluon_asymmnet.train.ema import AveragedWeights, decay_of
from gluon_asymmnet.weights.params_file import write_params
from tests.digits_runs import config, one_batch
from tests.floats import assert_close


@pytest.mark.parametrize(
    ("update", "power", "expected"),
    [
        # "reaches decay factor 0.999 at 10K steps, 0.9999 at 215.4k steps", of power 3/4, and
        # "0.999 at 31.6K steps, 0.9999 at 1M steps", of power 2/3: timm's utils/model_ema.py
        (10_000, 3 / 4, 0.999),
        (215_443, 3 / 4, 0.9999),
        (31_623, 2 / 3, 0.999),
        (1_000_000, 2 / 3, 0.9999),
        (1, 3 / 4, 0.0),
        (16, 3 / 4, 0.875),  # 1 - 1 / 8
        (10**9, 3 / 4, 0.99999),
        (1, 0, 0.0),
        (2, 0, 0.99999),
    ],
)
def test_decay_is_timms(update, power, expected):
    assert decay_of(update, 0.99999, power) == pytest.approx(expected, abs=5e-8)


def small_net():
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(3, in_units=4), mx.gluon.nn.BatchNorm(in_channels=3))
    net.initialize()
    return net


@pytest.mark.thorough
def test_average_is_torchs():
    """``AveragedModel`` with buffers: everything is averaged, running statistics too."""
    import torch
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    net, rng = small_net(), np.random.default_rng(0)
    ours = AveragedWeights(net, 0.9, 0)
    params = net._collect_params_with_prefix()
    assert {"1.running_mean", "1.running_var"} < params.keys()
    theirs = torch.nn.ParameterDict(
        {n.replace(".", "_"): torch.nn.Parameter(torch.zeros(p.shape)) for n, p in params.items()}
    )
    average = AveragedModel(theirs, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for update in range(1, 8):
        for name, param in params.items():
            value = rng.normal(size=param.shape).astype(np.float32)
            param.set_data(mx.nd.array(value))
            theirs[name.replace(".", "_")].data = torch.from_numpy(value)
        ours.update(update)
        average.update_parameters(theirs)
    for name, value in ours.as_numpy().items():
        assert_close(value, average.module[name.replace(".", "_")].detach(), terms=20)


def test_the_average_of_weights_that_stay_is_these_weights():
    """Bit for bit; ``d * a + (1 - d) * w`` rounds and would wander off, or settle beside w."""
    net = small_net()
    average = AveragedWeights(net, 0.9999, 0)
    for update in range(1, 101):
        average.update(update)
    for name, value in average.as_numpy().items():
        assert np.array_equal(value, average._params[name].data().asnumpy())


def test_half_precision_weights_have_a_single_precision_average():
    net = small_net()
    net.cast("float16")
    average = AveragedWeights(net, 0.9, 0)
    average.update(1)
    assert {str(a.dtype) for a in average.arrays.values()} == {"<class 'numpy.float32'>"}
    weight = net[0].weight.data()
    weight[:] = 0
    assert average.as_numpy()["0.weight"].any()  # a copy, not the weight itself


def test_which_average_is_the_best():
    average = AveragedWeights(small_net(), 0.9, 0)
    scores = [0.5, 0.4, 0.5, 0.7]
    better = [
        average.update_best({"top1": 1.0, "ema_top1": score, "ema_loss": 9.0}, epoch)
        for epoch, score in enumerate(scores)
    ]
    assert better == [True, False, False, True]
    assert average.state == {"best": 0.7, "best_epoch": 3}
    assert not average.update_best({}, 4)  # an epoch without validation


def test_state_goes_out_and_in(tmp_path):
    net = small_net()
    one, other = AveragedWeights(net, 0.9, 0.75), AveragedWeights(small_net(), 0.9, 0.75)
    one.update(1)
    one.update_best({"ema_top1": 0.5}, 2)
    write_params(tmp_path / "ema.params", one.as_numpy())
    other.load(tmp_path / "ema.params", one.state)
    assert other.state == one.state
    for name, value in one.as_numpy().items():
        assert np.array_equal(other.as_numpy()[name], value)
    write_params(tmp_path / "ema.params", {"0.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(FormatError, match=r"lacks the average of 0.weight, \(3, 4\)"):
        other.load(tmp_path / "ema.params", one.state)


@pytest.mark.thorough
def test_the_average_of_a_training_net_has_each_steps_arrays(digits):
    """Not waited for: the running statistics, too, must be those after the step."""
    task, waiting = (ClassifierTask(config(digits, batch_size=8, ema=0.7), [mx.cpu()])
                     for _ in range(2))  # fmt: skip
    expected = {}
    for step in range(1, 16):
        share = 1 - min(0.7, 1 - step**-0.75)
        batch = one_batch(digits)
        mx.random.seed(step)
        task.step(batch, 0, np.random.default_rng(step))
        task.ema.update(step)
        mx.random.seed(step)
        waiting.step(batch, 0, np.random.default_rng(step))
        mx.nd.waitall()
        for name, value in net_arrays(waiting.net).items():
            old = expected.get(name, value)
            expected[name] = old + share * (value - old)
    for name, value in task.ema.as_numpy().items():
        assert_close(value, expected[name], terms=20, name=name)
