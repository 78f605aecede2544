"""One update with the trainer's options: clipping, accumulation, freezing, rates by stage."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import LARGE, SMALL, plan_net
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.train import checkpoint
from gluon_asymmnet.train.classifier import ClassifierTask
from gluon_asymmnet.train.optimization import clip_norm, freeze_norms, stages_of
from gluon_asymmnet.weights.params_file import write_params
from gluon_asymmnet.zoo import get_model
from tests.digits_runs import config, one_batch
from tests.floats import NET, assert_close, bound

PLAIN = {"batch_size": 8, "dropout": 0.0}


def task_of(digits, devices=1, **changes):
    contexts = [mx.cpu(i) for i in range(devices)]
    return ClassifierTask(config(digits, **{**PLAIN, **changes}), contexts)


def stepped(task, batch, times=1):
    """The arrays after so many updates on one batch."""
    for step in range(times):
        task.step(batch, 0, np.random.default_rng(step)).wait_to_read()
    return checkpoint.net_arrays(task.net)


def trained(task):
    params = task.net._collect_params_with_prefix()
    return {name: param for name, param in params.items() if param.grad_req != "null"}


def test_without_options_an_update_is_what_it_was(digits):
    """Bit for bit the plain loop: forward, smoothed entropy, backward, ``Trainer.step``."""
    settings = {"batch_size": 8, "dropout": 0.3}
    task, plain = (ClassifierTask(config(digits, **settings), [mx.cpu()]) for _ in range(2))
    assert task.ema is None
    batch, loss = one_batch(digits), mx.gluon.loss.SoftmaxCrossEntropyLoss(sparse_label=False)
    for step in range(2):
        for one in (task, plain):
            one.trainer.set_learning_rate(0.1)
        mx.random.seed(step)
        sums = task.step(batch, 0, np.random.default_rng(step)).asnumpy()
        mx.random.seed(step)
        with mx.autograd.record():
            logits = plain.net(mx.nd.array(batch.data))
            target = mx.nd.array(batch.label).one_hot(10, on_value=0.91, off_value=0.01)
            error = loss(logits, target)
        error.backward()
        plain.trainer.step(8)
        assert sums[0] == error.sum().asscalar()
    a, b = (checkpoint.net_arrays(one.net) for one in (task, plain))
    assert all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.thorough
@pytest.mark.parametrize("bound", [0.3, 1e6])
def test_clipping_is_torchs(digits, bound):
    import torch

    free, bounded = task_of(digits), task_of(digits, clip_norm=bound)
    batch = one_batch(digits)
    stepped(free, batch)
    stepped(bounded, batch)
    theirs = {n: torch.nn.Parameter(torch.zeros(p.shape)) for n, p in trained(free).items()}
    for name, param in theirs.items():
        param.grad = torch.from_numpy(trained(free)[name].grad().asnumpy() / 8)  # of the mean loss
    norm = torch.nn.utils.clip_grad_norm_(theirs.values(), bound).item()
    assert norm > 0.3  # so that the first bound cuts and the second does not
    for name, param in trained(bounded).items():
        assert_close(param.grad().asnumpy() / 8, theirs[name].grad, terms=NET)


def test_clipping_goes_by_the_sum_over_devices(digits):
    """Two devices have the gradient of the whole batch when it is clipped, and stay equal."""
    one = task_of(digits, clip_norm=0.3)
    two = task_of(digits, 2, clip_norm=0.3, batch_size=4)
    for task in (one, two):
        freeze_norms(task.net)
    for name, param in two.net._collect_params_with_prefix().items():
        param.set_data(one.net._collect_params_with_prefix()[name].data())
    batch = one_batch(digits)
    a, b = stepped(one, batch), stepped(two, batch)
    for name in a:
        assert_close(b[name], a[name], terms=NET)
    for param in trained(two).values():
        first, second = (grad.asnumpy() for grad in param.list_grad())
        np.testing.assert_array_equal(first, second)


def test_clipping_of_a_small_norm_by_hand():
    """PyTorch's factor is bound / (norm + 1e-6), here 1e-6 / (3e-6 + 1e-6)."""
    dense = mx.gluon.nn.Dense(1, in_units=1, use_bias=False)
    dense.initialize()
    trainer = mx.gluon.Trainer(dense.collect_params(), "sgd", {"learning_rate": 1})
    dense.weight.grad()[:] = 3e-6
    clip_norm(trainer, 1e-6)
    assert dense.weight.grad().asscalar() == pytest.approx(3e-6 / 4, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_clipping_hides_nothing_that_is_not_finite(bad):
    dense = mx.gluon.nn.Dense(2, in_units=2)
    dense.initialize()
    trainer = mx.gluon.Trainer(dense.collect_params(), "sgd", {"learning_rate": 1})
    dense.weight.grad()[:] = bad
    clip_norm(trainer, 1.0)
    assert not np.isfinite(dense.weight.grad().asnumpy()).any()


def test_clipping_in_half_precision_does_not_overflow():
    """Squares of 300 are beyond float16, and so is their sum."""
    dense = mx.gluon.nn.Dense(8, in_units=100, use_bias=False)
    dense.initialize()
    dense.cast("float16")
    trainer = mx.gluon.Trainer(dense.collect_params(), "sgd", {"learning_rate": 1})
    dense.weight.grad()[:] = 300
    clip_norm(trainer, 4.0)
    clipped = dense.weight.grad().asnumpy().astype(np.float64)
    assert np.linalg.norm(clipped) == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.thorough
def test_accumulated_updates_are_those_of_the_large_batch(digits, devices):
    """With frozen statistics: batch statistics alone are those of the parts."""
    settings = {"clip_norm": 0.5, "wd": 0.01}
    large = task_of(digits, batch_size=16, **settings)
    parts = task_of(digits, devices, batch_size=16 // 4 // devices, accumulate=4, **settings)
    for task in (large, parts):
        freeze_norms(task.net)
    assert parts.images_per_step == large.images_per_step == 16
    assert parts.steps_per_epoch == large.steps_per_epoch
    for name, param in parts.net._collect_params_with_prefix().items():
        param.set_data(large.net._collect_params_with_prefix()[name].data())
    batch = one_batch(digits, 16)
    for step in range(3):
        sums = [t.step(batch, 0, np.random.default_rng(step)).asnumpy() for t in (large, parts)]
        assert_close(sums[1], sums[0], terms=NET)
    a, b = (checkpoint.net_arrays(t.net) for t in (large, parts))
    for name in a:  # each of three steps starts from the differences of the one before
        assert_close(b[name], a[name], terms=NET, condition=10)


def test_accumulation_scales_the_rate_and_counts_its_images(digits):
    task = task_of(digits, batch_size=64, accumulate=4, lr=0.4, lr_base_batch=1024)
    assert (task.images_per_step, task.steps_per_epoch) == (256, 5)
    assert task.peak_lr == pytest.approx(0.1)
    with pytest.raises(InputError, match=r"a batch of 2048 images .* 32 times"):
        task_of(digits, batch_size=64, accumulate=32)


# --- Fine-tuning -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the small net for seven classes."""
    net = get_model("asymmnet_small", width=0.35, classes=7)
    net.initialize(mx.init.MSRAPrelu())
    path = tmp_path_factory.mktemp("weights") / "seven.params"
    write_params(path, checkpoint.net_arrays(net))
    return path


# Which blocks have which stride: table 2 of arXiv:1905.02244, whose layers these are.
STAGES = [["stem"], ["blocks.0"], ["blocks.1", "blocks.2"],
          [f"blocks.{i}" for i in range(3, 8)], [f"blocks.{i}" for i in range(8, 11)],
          ["squeeze", "hidden"]]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "stages"),
    [
        (LARGE, [["stem", 0], [1, 2], [3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13, 14]]),
        (SMALL, [["stem"], [0], [1, 2], [3, 4, 5, 6, 7], [8, 9, 10]]),
    ],
)
def test_stages_are_cut_at_the_strides_of_the_papers_tables(spec, stages):
    """arXiv:1905.02244, tables 1 and 2: a stage begins at each block of stride 2."""
    plan = plan_net(spec)
    assert stages_of("stem", range(len(plan.blocks)), plan) == stages


def stage_of(name):
    """0 to 5 for an array of the features, 6 for one of the classifier."""
    for number, blocks in enumerate(STAGES):
        if any(name.startswith(f"features.{block}.") for block in blocks):
            return number
    assert name.startswith("output.")
    return 6


@pytest.mark.parametrize("stages", [1, 3, 5, 6])
@pytest.mark.thorough
def test_frozen_stages_stay_and_all_else_learns(digits, weights, stages):
    task = task_of(digits, resume_params=str(weights), reset_output=True, freeze_stages=stages)
    before = checkpoint.net_arrays(task.net)
    after = stepped(task, one_batch(digits), times=2)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if stage_of(name) >= stages}


def test_frozen_normalisation_stays_and_uses_its_statistics(digits, weights):
    task = task_of(digits, resume_params=str(weights), reset_output=True, freeze_bn=True)
    before = checkpoint.net_arrays(task.net)
    batch = one_batch(digits)
    with mx.autograd.train_mode():
        training = task.net(mx.nd.array(batch.data)).asnumpy()
    inference = task.net(mx.nd.array(batch.data)).asnumpy()
    assert_close(training, inference, terms=NET)
    after = stepped(task, batch)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if ".norm." not in name}


@pytest.mark.thorough
def test_rates_fall_by_stage(digits, weights):
    """One plain update (no momentum, no decay) moves each array by its stage's share."""
    settings = {"resume_params": str(weights), "reset_output": True, "momentum": 0.0, "wd": 0.0}
    full = task_of(digits, **settings)
    slow = task_of(digits, layer_decay=0.5, **settings)
    for name, param in slow.net._collect_params_with_prefix().items():
        param.set_data(full.net._collect_params_with_prefix()[name].data())
    before = checkpoint.net_arrays(full.net)
    for task in (full, slow):
        task.trainer.set_learning_rate(10)  # far above rounding, also for the first stages' shares
    batch = one_batch(digits)
    a, b = stepped(full, batch), stepped(slow, batch)
    for name in trained(full):
        share = 0.5 ** (6 - stage_of(name))
        moved = a[name] - before[name]
        scale = np.abs(a[name]).max()  # adding to a weight rounds as coarsely as the weight
        assert np.abs(moved).max() > 100 * bound() * scale
        assert_close(b[name] - before[name], share * moved, scale=scale)


def test_other_classes_take_all_but_the_classifier(digits, weights):
    with pytest.raises(Exception, match="output"):
        task_of(digits, resume_params=str(weights))
    task = task_of(digits, resume_params=str(weights), reset_output=True)
    given, found = mx.nd.load(str(weights)), checkpoint.net_arrays(task.net)
    assert found["output.weight"].shape[0] == 10
    assert all(
        np.array_equal(found[name], given[name].asnumpy())
        for name in found if not name.startswith("output.")
    )  # fmt: skip
