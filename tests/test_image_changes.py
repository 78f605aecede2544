"""RandAugment and random erasing: pixels, torchvision's strengths, frequencies."""

import zlib

import numpy as np
import pytest
from PIL import Image

from gluon_asymmnet.data.loader import RecordIterInput, ThreadedInput
from gluon_asymmnet.data.randaugment import OPERATIONS, randaugment
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.data.transforms import (
    Augmentation,
    Normalization,
    random_erasing,
    training_image,
)
from gluon_asymmnet.errors import InputError
from tests.test_augment import picture

# CRC-32 of the results of a NumPy implementation of Pillow's arithmetic, over ``pictures``.
CHECKSUMS = {
    "Identity": 0x1A130F9A,
    "ShearX": 0xB6BDD402,
    "ShearY": 0x98184D9F,
    "TranslateX": 0x89FAC1DC,
    "TranslateY": 0x18442345,
    "Rotate": 0x24186D98,
    "Brightness": 0xD0D8E5DF,
    "Color": 0x9DD78208,
    "Contrast": 0xDB0CC69C,
    "Sharpness": 0x0AECD66A,
    "Posterize": 0xCC2DCB40,
    "Solarize": 0x5DFB1746,
    "AutoContrast": 0x83B2015B,
    "Equalize": 0x65AA969F,
}


def applied(operation, rgb, strength):
    return np.asarray(operation(Image.fromarray(rgb), strength))


def tiles(height, width, seed=0):
    """Tiles of 6 pixels, each brighter to its right; without OpenCV, whose pixels vary."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 220, (height // 6 + 1, width // 6 + 1, 3), dtype=np.uint8)
    fine = coarse.repeat(6, axis=0).repeat(6, axis=1)[:height, :width]
    return fine + (np.arange(width) % 6 * 7).astype(np.uint8)[:, None]


def pictures():
    yield tiles(224, 224)
    yield tiles(61, 48, seed=1)
    yield np.full((20, 30, 3), 77, np.uint8)  # one value: nothing to stretch or equalize
    yield (tiles(40, 50, seed=2) // 5 + 100).astype(np.uint8)  # little contrast
    two = np.zeros((16, 16, 3), np.uint8)
    two[3:, 4:] = 200
    yield two


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_have_known_pixels(name):
    operation, greatest, signed = OPERATIONS[name]
    checksum = 0
    for number in (0, 1, 9, 13, 30):
        for sign in (1, -1) if signed else (1,):
            for rgb in pictures():
                result = applied(operation, rgb, sign * greatest * number / 30)
                assert (result.shape, result.dtype) == (rgb.shape, np.uint8)
                checksum = zlib.crc32(result.tobytes(), checksum)
    assert checksum == CHECKSUMS[name]


def test_operations_and_strengths_are_torchvisions():
    """The table of ``RandAugment._augmentation_space``: greatest of 31 strengths, and sign."""
    theirs = {
        "Identity": (0, False), "ShearX": (0.3, True), "ShearY": (0.3, True),
        "TranslateX": (150 / 331, True), "TranslateY": (150 / 331, True), "Rotate": (30, True),
        "Brightness": (0.9, True), "Color": (0.9, True), "Contrast": (0.9, True),
        "Sharpness": (0.9, True), "Posterize": (4, False), "Solarize": (255, False),
        "AutoContrast": (0, False), "Equalize": (0, False),
    }  # fmt: skip
    assert {name: rest for name, (_, *rest) in OPERATIONS.items()} == {
        name: list(rest) for name, rest in theirs.items()
    }


def test_randaugment_draws_each_operation_equally_often_and_either_sign():
    """All results of one operation on one picture are known: count which came."""
    rgb = picture(24, 24, seed=3) // 2 + 60  # AutoContrast and Solarize change it
    known = {}
    for name, (operation, greatest, signed) in OPERATIONS.items():
        for sign in (1, -1) if signed else (1,):
            known[applied(operation, rgb, sign * greatest * 9 / 30).tobytes()] = name, sign
    assert len(known) == 14 + 9  # nine have two signs, and each result tells which it was
    rng, draws = np.random.default_rng(0), 4000
    seen = [known[randaugment(rgb, 1, 9, rng).tobytes()] for _ in range(draws)]
    names = [name for name, _ in seen]
    for name in OPERATIONS:
        assert abs(names.count(name) - draws / 14) < 5 * (draws / 14) ** 0.5, name
    signs = [sign for name, sign in seen if OPERATIONS[name][2]]
    assert abs(np.mean(signs)) < 0.08


def test_randaugment_applies_as_many_as_asked():
    rgb = picture(24, 24)
    rng, again = np.random.default_rng(4), np.random.default_rng(4)
    numbers = again.integers(14, size=3)
    expected = rgb
    for number in numbers:
        operation, greatest, signed = list(OPERATIONS.values())[number]
        sign = -1 if signed and again.random() < 0.5 else 1
        expected = applied(operation, expected, sign * greatest * 20 / 30)
    np.testing.assert_array_equal(randaugment(rgb, 3, 20, rng), expected)


def test_erasing_erases_one_rectangle_of_the_asked_size_and_leaves_the_rest():
    rng = np.random.default_rng(0)
    image = np.full((3, 48, 64), 9, np.float32)
    kept, shares, aspects, noise = 0, [], [], []
    for _ in range(3000):
        result = random_erasing(image.copy(), 0.25, rng)
        changed = (result != 9).any(axis=0)
        if not changed.any():
            kept += 1
            continue
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        h, w = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        inside = result[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (inside != 9).all()
        assert changed.sum() == h * w
        shares.append(h * w / (48 * 64))
        aspects.append(h / w)
        noise.append(inside.ravel())
    assert abs(kept / 3000 - 0.75) < 0.04
    assert 0.015 < min(shares) < 0.03
    assert 0.28 < max(shares) < 0.35
    assert np.mean(shares) == pytest.approx((0.02 + 1 / 3) / 2, abs=0.02)
    assert min(aspects) > 0.25
    assert max(aspects) < 4
    assert abs(np.mean(np.log(aspects))) < 0.1  # as often wide as tall
    noise = np.concatenate(noise)
    assert noise.mean() == pytest.approx(0, abs=0.01)
    assert noise.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("size", [(16, 64), (64, 16)])
def test_erasing_tries_again_where_a_rectangle_does_not_fit(size):
    """On a strip every third one does not; ten in a row do not once in 50,000 images."""
    rng = np.random.default_rng(0)
    image = np.full((3, *size), 9, np.float32)
    assert all((random_erasing(image.copy(), 1.0, rng) != 9).any() for _ in range(300))


def test_neither_is_on_and_then_nothing_is_drawn_for_them():
    """The published recipe's pictures are what they were: same draws, same bits."""
    how = Augmentation()
    assert (how.operations, how.erasing) == (0, 0)
    assert how.magnitude == 9  # torchvision's
    rgb = picture(60, 70)
    plain = training_image(rgb, 32, how, Normalization(), np.random.default_rng(1))
    other = training_image(
        rgb, 32, how._replace(magnitude=20), Normalization(), np.random.default_rng(1)
    )
    assert np.array_equal(plain, other)


def test_a_batch_is_a_function_of_seed_epoch_and_image(digits):
    how = Augmentation(operations=2, magnitude=9, erasing=0.5)

    def batch(seed=0, epoch=1, first=2, threads=2, how=how):
        source = open_source(rec=str(digits.train), idx=str(digits.train.with_suffix(".idx")))
        data = ThreadedInput(source, 8, 32, steps=4, augmentation=how, seed=seed, threads=threads)
        return next(data.epoch(epoch, first)).data

    known = batch()
    assert np.array_equal(batch(threads=1), known)
    assert not np.array_equal(batch(how=how._replace(erasing=0.0)), known)
    assert not np.array_equal(batch(how=how._replace(operations=0)), known)
    assert not np.array_equal(batch(seed=1), known)


@pytest.mark.parametrize("how", [Augmentation(operations=1), Augmentation(erasing=0.1)])
def test_imagerecorditer_refuses_what_it_has_not(digits, how):
    with pytest.raises(InputError, match="has neither RandAugment nor random erasing"):
        RecordIterInput(digits.train, digits.train.with_suffix(".idx"), 8, 32, steps=1,
                        augmentation=how)  # fmt: skip
