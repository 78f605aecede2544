import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.data.records.recordio import RecordFile
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.transforms import (
    _PCA,
    Augmentation,
    Normalization,
    _brightness,
    _contrast,
    _recolour,
    _saturation,
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
    assert validation_resize(288, 0.576) == 500  # the quotient in double precision is above 500


def test_normalization_by_hand():
    rgb = np.full((2, 2, 3), 255, np.uint8)
    expected = (255 - 123.68) / 58.393, (255 - 116.779) / 57.12, (255 - 103.939) / 57.375
    assert_close(Normalization()(rgb)[:, 0, 0], expected, axes=())


def test_random_area_stays_inside_and_has_the_asked_size():
    rng, how = np.random.default_rng(0), Augmentation()
    shares, aspects = [], []
    for _ in range(2000):
        top, left, height, width = random_area(300, 400, 224, how, rng)
        assert 0 <= top <= 300 - height
        assert 0 <= left <= 400 - width
        shares.append(height * width / 120_000)
        aspects.append(width / height)
    assert 0.078 < min(shares) < 0.1
    assert 0.9 < max(shares) <= 1
    assert min(aspects) > 0.73
    assert max(aspects) < 1.36


@pytest.mark.parametrize(("draw", "place"), [(0.0, (0, 0)), (1 - 2**-53, (3, 7))])
def test_a_crop_reaches_the_first_and_the_last_place(draw, place):
    """By hand: a quarter of 8 x 12 pixels is a square of 5, at most 3 down and 7 to the right."""

    class Drawn:
        def random(self, shape):
            return np.broadcast_to([0, 0, 0, draw, draw], shape)

    how = Augmentation(min_area=0.25, aspect=(1, 1))
    assert random_area(8, 12, 4, how, Drawn()) == (*place, 5, 5)


def test_a_crop_has_ten_attempts_of_five_numbers_each():
    """The numbers that come after do not depend on which attempt fits."""
    how = Augmentation()
    for seed in range(20):
        rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
        random_area(300, 40, 224, how, rng)
        other.random(50)
        assert rng.random() == other.random()


def their_images(folder, rgb, count, size, **settings):
    """Return ``count`` draws of MXNet's reader for one picture, ``(count, 3, size, size)``."""
    folder.mkdir()
    with RecordWriter(folder / "a.rec", folder / "a.idx") as writer:
        for i in range(count):
            writer.write(i, 0.0, encode(rgb, ".png"))
    batches = mx.io.ImageRecordIter(
        path_imgrec=str(folder / "a.rec"), path_imgidx=str(folder / "a.idx"), verbose=False,
        preprocess_threads=1, batch_size=100, data_shape=(3, size, size), shuffle=False, **settings,
    )  # fmt: skip
    return np.concatenate([batch.data[0].asnumpy() for batch in batches])[:count]


PIXELS = Normalization((0, 0, 0), (1, 1, 1))


def our_images(rgb, count, size, how):
    rngs = (np.random.default_rng([7, i]) for i in range(count))
    return np.stack([training_image(rgb, size, how, PIXELS, rng) for rng in rngs])


def assert_same_distribution(ours, theirs):
    """Two-sample Kolmogorov-Smirnov test at the level 0.001."""
    values = np.sort(np.concatenate([ours, theirs]))
    shares = [np.searchsorted(np.sort(x), values, "right") / len(x) for x in (ours, theirs)]
    largest = np.abs(shares[0] - shares[1]).max()
    assert largest < 1.95 * np.sqrt(1 / len(ours) + 1 / len(theirs))


def coordinates(height, width):
    """Return a picture whose red is x and whose green is y, times 3."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([3 * x, 3 * y, np.zeros_like(x)], axis=-1)


def read_crops(images):
    """Return left, top, width and height of crops of ``coordinates``, pixels."""
    size = images.shape[2]
    x, y = images[:, 0].mean(axis=1) / 3, images[:, 1].mean(axis=2) / 3
    width, height = ((v[:, -1] - v[:, 0]) * size / (size - 1) for v in (x, y))
    return x.min(axis=1), y.min(axis=1), np.abs(width), height


@pytest.mark.parametrize("aspect", [(0.5, 1.0), (3 / 4, 4 / 3)])
def test_crops_have_imagerecorditers_distribution(tmp_path, aspect):
    rgb, count = coordinates(80, 80), 1500
    theirs = read_crops(
        their_images(
            tmp_path / "a", rgb, count, 32, random_resized_crop=True, rand_mirror=True,
            min_random_area=0.08, max_random_area=1.0, min_aspect_ratio=aspect[0],
            max_aspect_ratio=aspect[1],
        )
    )  # fmt: skip
    how = Augmentation(aspect=aspect, jitter=0, pca_noise=0)
    ours = read_crops(our_images(rgb, count, 32, how))
    for values in zip(ours, theirs):
        assert_same_distribution(*values)
    assert_same_distribution(ours[2] / ours[3], theirs[2] / theirs[3])
    if aspect == (0.5, 1.0):  # half of the crops have their sides exchanged
        for _, _, width, height in (ours, theirs):
            found = np.quantile(width / height, [0.01, 0.5, 0.99])
            assert np.abs(np.subtract(found, [0.51, 1, 1.98])).max() <= 0.06  # of a sample


@pytest.mark.parametrize("shape", [(30, 84), (84, 40), (20, 84)])
def test_a_crop_that_never_fits_is_imagerecorditers_centre(tmp_path, shape):
    """No part of a strip with an aspect in [3/4, 4/3] has 99 % of its area."""
    rgb = coordinates(*shape)
    theirs = their_images(
        tmp_path / "a", rgb, 100, 30, random_resized_crop=True, min_random_area=0.99,
        max_random_area=1.0, min_aspect_ratio=3 / 4, max_aspect_ratio=4 / 3,
    )  # fmt: skip
    how = Augmentation(min_area=0.99, jitter=0, pca_noise=0, mirror=False)
    ours = our_images(rgb, 1, 30, how)
    assert np.abs(ours - theirs).max() <= (shape[0] < 30)  # enlarged before the crop: rounding


@pytest.mark.parametrize("colour", [(200, 0, 0), (0, 200, 0), (0, 0, 200), (230, 120, 60)])
def test_colours_have_imagerecorditers_distribution(tmp_path, colour):
    """Both readers, all four changes; each channel of a picture of one colour and black."""
    rgb, count = np.zeros((16, 16, 3), np.uint8), 1000
    rgb[:, :8] = colour
    changes = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "pca_noise": 0.1}
    theirs = their_images(tmp_path / "a", rgb, count, 16, **changes)
    how = Augmentation(min_area=1, aspect=(1, 1), mirror=False)
    ours = our_images(rgb, count, 16, how)
    for channel in range(3):
        for column in (0, 15):
            assert_same_distribution(ours[:, channel, 0, column], theirs[:, channel, 0, column])


CHANGES = {"brightness": _brightness, "contrast": _contrast, "saturation": _saturation}


@pytest.mark.parametrize("change", CHANGES)
def test_one_colour_change_is_imagerecorditers(tmp_path, change):
    """Of a random picture; the strength of theirs is searched."""
    rgb = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    theirs = their_images(tmp_path / "a", rgb, 100, 16, **{change: 0.4})[:5]

    ours = [CHANGES[change](rgb, 1 + a) for a in np.linspace(-0.4, 0.4, 1601)]
    ours = np.stack(ours).transpose(0, 3, 1, 2).astype(np.float32)
    for image in theirs:  # the grid of strengths is not exact: a value may round the other way
        apart = np.abs(ours - image)
        best = apart.sum(axis=(1, 2, 3)).argmin()
        assert apart[best].max() <= 1
        assert (apart[best] > 0).mean() < 0.06


def test_colour_noise_has_the_directions_of_mxnets_python():
    noise = mx.image.CreateAugmenter((3, 8, 8), pca_noise=0.1)[-1]
    assert isinstance(noise, mx.image.LightingAug)
    assert_close(_PCA, noise.eigvec * noise.eigval, axes=())


def test_colour_noise_rounds_down_as_imagerecorditers(tmp_path):
    rgb = np.full((8, 8, 3), 128, np.uint8)
    theirs = their_images(tmp_path / "a", rgb, 200, 8, pca_noise=0.001)
    how = Augmentation(min_area=1, aspect=(1, 1), jitter=0, pca_noise=0.001)
    assert set(np.unique(theirs)) == set(np.unique(our_images(rgb, 200, 8, how))) == {127, 128}


def test_colour_noise_is_added_and_cut_at_the_ends():
    """The sum in double precision, rounded down, within 0 and 255; all levels, both signs."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb, how = np.dstack([levels] * 3), Augmentation(jitter=0, pca_noise=2.0)
    for seed in range(20):
        noise = _PCA @ np.random.default_rng(seed).normal(0, 2.0, 3)
        expected = np.clip(np.floor(rgb + noise), 0, 255)
        np.testing.assert_array_equal(_recolour(rgb, how, np.random.default_rng(seed)), expected)


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
