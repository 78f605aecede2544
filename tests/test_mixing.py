"""Mixup and CutMix, by hand."""

import inspect

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.train.mixing import Box, Mixing, Mixup, random_box
from tests.floats import assert_close
from tests.timm_import import import_timm


def images(number=4, size=6):
    return np.arange(number * 3 * size * size, dtype=np.float32).reshape(number, 3, size, size)


def test_mixup_by_hand():
    batch = images()
    mix = Mixup(0.25)
    np.testing.assert_array_equal(mix.images(batch)[0], 0.25 * batch[0] + 0.75 * batch[3])
    np.testing.assert_array_equal(mix.labels(np.eye(4)[[2, 0, 1, 3]])[1], [0.25, 0.75, 0, 0])


@pytest.mark.parametrize("kind", [np.asarray, mx.nd.array])
def test_cutmix_takes_the_box_from_the_other_image_and_labels_by_its_area(kind):
    batch = images()
    box = Box(1, 4, 2, 6)  # 3 x 4 of 36 pixels
    mix = Mixup(1 - 12 / 36, box)
    given = kind(batch)
    mixed = mix.images(given)
    mixed = mixed if isinstance(mixed, np.ndarray) else mixed.asnumpy()
    expected = batch.copy()
    for number in range(4):
        for y in (1, 2, 3):
            for x in (2, 3, 4, 5):
                expected[number, :, y, x] = batch[3 - number, :, y, x]
    np.testing.assert_array_equal(mixed, expected)
    kept = given if isinstance(given, np.ndarray) else given.asnumpy()
    np.testing.assert_array_equal(kept, batch)
    one_hot = np.eye(5)[[4, 0, 0, 1]]
    assert_close(mix.labels(one_hot)[0], [0, 1 / 3, 0, 0, 2 / 3], precision="float64")


def test_nothing_drawn_changes_nothing():
    batch = images()
    assert Mixup().images(batch) is batch
    assert Mixup().labels(batch) is batch
    rng = np.random.default_rng(0)
    assert Mixing().sample(32, rng) == Mixup()
    assert rng.random() == np.random.default_rng(0).random()


def test_mixup_alone_draws_as_it_always_did():
    """One beta and nothing else, so that runs with mixup repeat those of earlier versions."""
    share = Mixing(mixup_alpha=0.2).sample(32, np.random.default_rng(5)).share
    assert share == np.random.default_rng(5).beta(0.2, 0.2)


def test_boxes_are_the_papers():
    """Side ``size * sqrt(1 - share)``, centre uniform, cut off at the border."""
    rng = np.random.default_rng(0)
    areas, whole, centres = [], 0, []
    for _ in range(4000):
        box = random_box(32, 0.75, rng)  # side 16
        assert 0 <= box.top <= box.bottom <= 32
        assert 0 <= box.left <= box.right <= 32
        areas.append(box.area)
        if box.area == 256:
            whole += 1
            assert (box.bottom - box.top, box.right - box.left) == (16, 16)
            centres.append(box.top + 8)
    # A side fits whole for the centres 8 to 24, 17 of 32; of others c + 8 or 40 - c are left.
    side = (17 * 16 + sum(c + 8 for c in range(8)) + sum(40 - c for c in range(25, 32))) / 32
    assert whole / 4000 == pytest.approx((17 / 32) ** 2, abs=0.03)
    assert np.mean(areas) == pytest.approx(side**2, rel=0.02)
    assert set(centres) == set(range(8, 25))


@pytest.mark.parametrize("share", [0.0, 1.0, 1 - 1e-9])
def test_boxes_at_the_ends(share):
    box = random_box(32, share, np.random.default_rng(0))
    assert box.area == 0 or share == 0


def test_the_share_is_what_the_box_leaves():
    mixing, rng = Mixing(cutmix_alpha=1.0), np.random.default_rng(1)
    mixes = [mixing.sample(32, rng) for _ in range(3000)]
    assert all(mix.share == 1 - mix.box.area / 1024 for mix in mixes)
    asked = []  # the beta before the border cut the box: Beta(1, 1) is uniform
    for seed in range(500):
        again = np.random.default_rng(seed)
        mix, beta = mixing.sample(32, np.random.default_rng(seed)), again.beta(1, 1)
        asked.append(beta)
        assert mix.share >= beta - 1e-9
        side = int(32 * np.sqrt(1 - beta))
        assert mix.box.area <= side**2
    assert np.mean(asked) == pytest.approx(0.5, abs=0.05)


def test_probability_and_switch():
    mixing, rng = Mixing(0.8, 1.0, prob=0.6, switch_prob=0.25), np.random.default_rng(0)
    mixes = [mixing.sample(64, rng) for _ in range(4000)]
    cut = sum(mix.box is not None for mix in mixes)
    plain = sum(mix == Mixup() for mix in mixes)
    assert plain / 4000 == pytest.approx(0.4, abs=0.03)
    assert cut / 4000 == pytest.approx(0.6 * 0.25, abs=0.02)
    always = Mixing(0.8, 1.0, switch_prob=1)
    assert all(always.sample(64, rng).box is not None for _ in range(50))


@pytest.mark.thorough
def test_the_probabilities_are_timms_by_default():
    mixup = inspect.signature(import_timm().data.Mixup).parameters
    found = Mixing()
    assert (found.prob, found.switch_prob) == (mixup["prob"].default, mixup["switch_prob"].default)
