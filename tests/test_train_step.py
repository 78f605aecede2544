"""The mathematics of one training step: targets, loss, update."""

import re

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.train import checkpoint
from gluon_asymmnet.train.classifier import ClassifierTask
from gluon_asymmnet.train.mixing import Mixup
from gluon_asymmnet.train.optimization import freeze_norms
from tests.digits_runs import config, one_batch
from tests.floats import NET, assert_close


def test_smoothed_and_mixed_targets_by_hand(digits):
    task = ClassifierTask(config(digits, batch_size=2), [mx.cpu()])
    label = mx.nd.array([3, 7])
    expected = np.full((2, 10), 0.01)
    expected[0, 3] = expected[1, 7] = 0.91  # 1 - 0.1 + 0.1 / 10
    target = task._target(label)
    assert_close(target, expected, axes=())
    mixed = 0.7 * expected + 0.3 * expected[::-1]
    assert_close(Mixup(0.7).labels(target), mixed, axes=())


def test_mixup_is_off_in_the_last_epochs(digits):
    task = ClassifierTask(config(digits, mixup=True, mixup_off_epoch=1), [mx.cpu()])
    rng = np.random.default_rng(0)
    assert task._sample_mixup(2, rng) == Mixup()
    shares = [task._sample_mixup(1, rng).share for _ in range(2000)]
    # Beta(0.2, 0.2): mean 1/2, variance 1 / (4 * 1.4)
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / 5.6, abs=0.01)


@pytest.mark.parametrize("no_wd", [False, True])
def test_one_update_is_nesterov_with_weight_decay(digits, no_wd):
    """v = m v + lr (g + wd w); w -= m v + lr (g + wd w), from the gradients MXNet left.

    Source: Sutskever et al. 2013, section 2, in the form of ``mx.optimizer.NAG``: the rate is
    inside the velocity, which matters once it changes.  MXNet 1.9.1's kernel reads the weight
    again after writing it, so the decay inside the velocity is that of the new weight.
    """
    task = ClassifierTask(
        config(digits, batch_size=8, wd=0.01, momentum=0.9, dropout=0.0, no_wd=no_wd), [mx.cpu()]
    )
    names = [n for n, p in task.net._collect_params_with_prefix().items() if p.grad_req != "null"]
    arrays = task.net._collect_params_with_prefix()
    weight = {n: arrays[n].data().asnumpy() for n in names}
    velocity = dict.fromkeys(names, 0)
    for step, lr in ((1, 0.05), (2, 0.02)):
        task.trainer.set_learning_rate(lr)
        task.step(one_batch(digits), 0, np.random.default_rng(step)).wait_to_read()
        for n in names:
            decay = 0 if no_wd and re.search("beta|gamma|bias", n) else 0.01
            gradient = arrays[n].grad().asnumpy() / 8
            change = lr * (gradient + decay * weight[n])
            weight[n] = weight[n] - (0.9 * (0.9 * velocity[n] + change) + change)
            velocity[n] = 0.9 * velocity[n] + lr * (gradient + decay * weight[n])
            assert_close(arrays[n].data(), weight[n], terms=NET)


def test_sums_are_loss_and_hits(digits):
    task = ClassifierTask(config(digits, batch_size=8, dropout=0.0), [mx.cpu()])
    batch = one_batch(digits)
    with mx.autograd.train_mode():
        logits = task.net(mx.nd.array(batch.data)).asnumpy().astype(np.float64)
    log_share = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.full((8, 10), 0.01)
    target[np.arange(8), batch.label.astype(int)] = 0.91
    loss, hits = task.step(batch, 0, np.random.default_rng(0)).asnumpy()
    assert loss == pytest.approx(-(target * log_share).sum(), rel=1e-4)
    assert hits == (logits.argmax(axis=1) == batch.label).sum()


def test_loss_scale_leaves_the_update_as_it_is(digits):
    """What half precision needs; checked in single precision, where it must change nothing."""
    results = []
    for scale in (1, 128):
        task = ClassifierTask(config(digits, batch_size=8, dropout=0.0), [mx.cpu()])
        task.loss_scale = scale
        task.step(one_batch(digits), 0, np.random.default_rng(0)).wait_to_read()
        results.append(checkpoint.net_arrays(task.net))
    for name, value in results[0].items():
        assert_close(results[1][name], value, terms=NET)


def test_two_devices_do_what_one_does(digits):
    """Two CPU contexts stand for two GPUs: same update where batch statistics are fixed."""
    one = ClassifierTask(config(digits, batch_size=8, dropout=0.0), [mx.cpu()])
    two = ClassifierTask(config(digits, batch_size=4, dropout=0.0), [mx.cpu(0), mx.cpu(1)])
    assert two.images_per_step == 8
    for task in (one, two):
        freeze_norms(task.net)
    for (_, p), (_, q) in zip(*(sorted(t.net._collect_params_with_prefix().items())
                                for t in (one, two))):  # fmt: skip
        q.set_data(p.data())
    sums = [t.step(one_batch(digits), 0, np.random.default_rng(0)).asnumpy() for t in (one, two)]
    assert_close(sums[0], sums[1], terms=NET)
    a, b = (checkpoint.net_arrays(t.net) for t in (one, two))
    for name in a:
        assert_close(b[name], a[name], terms=NET)


def test_learning_rate_scales_with_the_global_batch_on_request(digits):
    task = ClassifierTask(config(digits, lr=2.6, lr_base_batch=2048), [mx.cpu()])
    assert task.peak_lr == pytest.approx(2.6 * 64 / 2048)
    assert "scaled by the global batch" in task.describe()
    assert ClassifierTask(config(digits, lr=2.6), [mx.cpu()]).peak_lr == 2.6
