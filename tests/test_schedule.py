import math

import pytest

from gluon_asymmnet._mxnet import gluoncv
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.schedules import Schedule, make_schedule

PUBLISHED = Schedule("cosine", 2.6, 5 * 625, 355 * 625)


def test_published_run_at_every_update():
    """The formula that reproduces every lr line of the authors' log to 5e-7."""
    for t in range(1, 225_207):
        if t < 3125:
            expected = 2.6 * t / 3124
        else:
            passed = min(t - 3125, 221_874)
            expected = 2.6 * (1 + math.cos(math.pi * passed / 221_874)) / 2
        assert abs(PUBLISHED(t) - expected) < 5e-7, t


@pytest.mark.parametrize("mode", ["cosine", "poly", "step"])
def test_gluoncvs_schedulers(mode):
    from gluoncv.utils import LRScheduler, LRSequential

    assert gluoncv
    theirs = LRSequential([
        LRScheduler("linear", base_lr=0.01, target_lr=1, nepochs=2, iters_per_epoch=10),
        LRScheduler(mode, base_lr=1, target_lr=0, nepochs=8, iters_per_epoch=10,
                    step_epoch=[3, 5], step_factor=0.1, power=2),
    ])  # fmt: skip
    ours = Schedule(mode, 1, 20, 80, start=0.01, decay=0.1, decay_at=(30, 50))
    for t in range(1, 110):
        assert ours(t) == pytest.approx(theirs(t), abs=1e-12), t


def test_by_hand():
    schedule = Schedule("step", 0.4, 0, 40, decay=0.5, decay_at=(10, 30))
    assert [schedule(t) for t in (1, 9, 10, 29, 30, 99)] == [0.4, 0.4, 0.2, 0.2, 0.1, 0.1]
    assert Schedule("cosine", 1, 0, 101)(50) == pytest.approx(0.5)
    assert Schedule("poly", 1, 0, 101)(50) == pytest.approx(0.25)


def test_exponential_by_hand():
    """0.5 every 10 updates; without a period the rate ends at the factor."""
    schedule = Schedule("exp", 0.4, 0, 41, decay=0.5, period=10)
    assert [schedule(t) for t in (10, 20, 40, 99)] == pytest.approx([0.2, 0.1, 0.025, 0.025])
    assert schedule(5) == pytest.approx(0.4 / math.sqrt(2))
    assert Schedule("exp", 1, 0, 101, decay=0.01)(100) == pytest.approx(0.01)


def test_made_from_the_published_recipe():
    config = resolve(ClassifierConfig, {"recipe": "published"})
    assert make_schedule(config, 1_281_167 // 2048, config.lr) == PUBLISHED._replace(
        decay_at=(35 * 625, 55 * 625)
    )


def test_decay_period_counts_from_the_start():
    """GluonCV: epochs 10 and 20 of 30, five of them warm-up."""
    given = {"model": "asymmnet_small", "num_epochs": 30, "lr_decay_period": 10}
    schedule = make_schedule(resolve(ClassifierConfig, given), 2, 1.0)
    assert schedule.decay_at == ((10 - 5) * 2, (20 - 5) * 2)


@pytest.mark.parametrize("warmup", [0, 1, 2])
def test_short_schedules_have_a_rate_everywhere(warmup):
    for mode in ("cosine", "poly", "step"):
        rates = [Schedule(mode, 1, warmup, 1)(t) for t in range(1, 5)]
        assert all(0 <= rate <= 1 for rate in rates)
