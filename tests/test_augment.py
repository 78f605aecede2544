import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.data.records.recordio import RecordFile
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.transforms import (
    Augmentation,
    Normalization,
    _recolour,
    random_area,
    training_image,
    validation_crop,
    validation_resize,
)
from tests.floats import assert_close

SIZES = [
    (375, 500),
    (500, 375),
    (300, 300),
    (256, 256),
    (257, 400),
    (999, 333),
    (240, 320),
    (90, 70),
]


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(("size", "ratio"), [(224, 0.875), (160, 1.0), (97, 0.9)])
def test_validation_crop_has_imagerecorditers_pixels(tmp_path, size, ratio):
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        for i, shape in enumerate(SIZES):
            writer.write(i, 0.0, encode(picture(*shape, seed=i)))
    theirs = mx.io.ImageRecordIter(
        path_imgrec=str(tmp_path / "a.rec"), path_imgidx=str(tmp_path / "a.idx"), shuffle=False,
        preprocess_threads=1, batch_size=len(SIZES), data_shape=(3, size, size),
        resize=validation_resize(size, ratio), verbose=False,
        mean_r=123.68, mean_g=116.779, mean_b=103.939, std_r=58.393, std_g=57.12, std_b=57.375,
    ).next().data[0].asnumpy()  # fmt: skip
    with RecordFile(tmp_path / "a.rec") as file:
        for i in range(len(SIZES)):
            crop = validation_crop(decode(file.read(i).image), size, ratio)
            assert_close(Normalization()(crop), theirs[i], terms=1)


def test_validation_resize_by_hand():
    assert validation_resize(224, 0.875) == 256
    assert validation_resize(224, 0.9) == 249  # ceil(248.9), as the authors' get_data_rec


def test_normalization_by_hand():
    rgb = np.full((2, 2, 3), 255, np.uint8)
    expected = (255 - 123.68) / 58.393, (255 - 116.779) / 57.12, (255 - 103.939) / 57.375
    assert_close(Normalization()(rgb)[:, 0, 0], expected, axes=())


def test_random_area_stays_inside_and_has_the_asked_size():
    rng, how = np.random.default_rng(0), Augmentation()
    shares, aspects = [], []
    for _ in range(2000):
        top, left, height, width = random_area(300, 400, how, rng)
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width
        shares.append(height * width / 120_000)
        aspects.append(width / height)
    assert 0.078 < min(shares) < 0.1
    assert 0.9 < max(shares) <= 1
    assert min(aspects) > 0.73
    assert max(aspects) < 1.36


def test_random_area_of_a_strip_is_its_centre():
    """No part of a 10 x 1000 strip with an aspect in [3/4, 4/3] has 99 % of its area."""
    how = Augmentation(min_area=0.99)
    assert random_area(10, 1000, how, np.random.default_rng(0)) == (0, 493, 10, 13)


def slow_recolour(rgb, how, rng):
    """The same draws, each step done on the picture itself in float64."""
    x = rgb.astype(np.float64)
    luma = np.array([0.299, 0.587, 0.114])
    for step in rng.permutation(3):
        alpha = np.float32(1 + rng.uniform(-how.jitter, how.jitter))
        if step == 0:
            x = x * alpha
        elif step == 1:
            x = alpha * x + (1 - alpha) * (x @ luma).mean()
        else:
            x = alpha * x + (1 - alpha) * (x @ luma)[..., None]
    noise = rng.normal(0, how.pca_noise, 3)
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140],
                        [-0.5836, -0.6948, 0.4203]])  # fmt: skip
    return np.clip(x + vectors @ (np.array([55.46, 4.794, 1.148]) * noise), 0, 255)


@pytest.mark.parametrize("seed", range(12))
def test_colour_changes_against_slow_steps(seed):
    rgb, how = picture(40, 50, seed), Augmentation()
    ours = _recolour(rgb, how, np.random.default_rng(seed))
    assert_close(ours, slow_recolour(rgb, how, np.random.default_rng(seed)), terms=10)


def test_training_image_mirrors_half_of_the_time():
    rgb = np.zeros((32, 32, 3), np.uint8)
    rgb[:, 16:] = 255
    how = Augmentation(min_area=1, aspect=(1, 1), jitter=0, pca_noise=0)
    rng = np.random.default_rng(0)
    sides = [training_image(rgb, 32, how, Normalization(), rng)[0, 0, 0] > 0 for _ in range(400)]
    assert 160 < sum(sides) < 240
    never = how._replace(mirror=False)
    assert not any(
        training_image(rgb, 32, never, Normalization(), rng)[0, 0, 0] > 0 for _ in range(50)
    )


def test_normalisation_is_bit_for_bit_the_formula():
    """Of bytes and floats, of views into pictures and mirrored ones, odd sizes."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 51, 3), dtype=np.uint8)
    how = Normalization()
    for rgb in (picture, picture[3:20, 5:38], picture[:, ::-1], picture[:1, :1],
                rng.uniform(0, 255, (7, 9, 3)).astype(np.float32)):  # fmt: skip
        expected = (rgb - np.float32(how.mean)) * (1 / np.float32(how.std))
        found = how(rgb)
        assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))
