"""RandAugment and random erasing: Pillow's pixels, torchvision's strengths, chances by count."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from gluon_asymmnet.data.loader import RecordIterInput, ThreadedInput
from gluon_asymmnet.data.randaugment import OPERATIONS, randaugment
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.data.transforms import Augmentation, Normalization, erased, training_image
from gluon_asymmnet.errors import InputError
from tests.test_augment import picture


def affine(image, matrix):
    return image.transform(image.size, Image.AFFINE, matrix, Image.NEAREST)


# What torchvision does with Pillow's images at a strength m of its ``_augmentation_space``.
PILLOWS = {
    "Identity": lambda image, m: image,
    "ShearX": lambda image, m: affine(image, (1, m, 0, 0, 1, 0)),
    "ShearY": lambda image, m: affine(image, (1, 0, 0, m, 1, 0)),
    "TranslateX": lambda image, m: affine(image, (1, 0, -int(m * image.width), 0, 1, 0)),
    "TranslateY": lambda image, m: affine(image, (1, 0, 0, 0, 1, -int(m * image.height))),
    "Rotate": lambda image, m: image.rotate(m, Image.NEAREST),
    "Brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
    "Color": lambda image, m: ImageEnhance.Color(image).enhance(1 + m),
    "Contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m),
    "Sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m),
    "Posterize": lambda image, m: ImageOps.posterize(image, 8 - round(m)),
    "Solarize": lambda image, m: ImageOps.solarize(image, 255 - m),
    "AutoContrast": lambda image, m: ImageOps.autocontrast(image),
    "Equalize": lambda image, m: ImageOps.equalize(image),
}


def pictures():
    yield picture(224, 224)
    yield picture(61, 48, seed=1)
    yield np.full((20, 30, 3), 77, np.uint8)  # one value: nothing to stretch or equalize
    yield (picture(40, 50, seed=2) // 5 + 100).astype(np.uint8)  # little contrast
    two = np.zeros((16, 16, 3), np.uint8)
    two[3:, 4:] = 200
    yield two


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_have_pillows_pixels(name):
    operation, greatest, signed = OPERATIONS[name]
    strengths = {greatest * number / 30 for number in (0, 1, 9, 13, 30)}
    for strength in strengths | ({-m for m in strengths} if signed else set()):
        for rgb in pictures():
            theirs = np.asarray(PILLOWS[name](Image.fromarray(rgb), strength))
            ours = operation(rgb, strength)
            assert ours.dtype == np.uint8
            np.testing.assert_array_equal(ours, theirs, f"{name} {strength} {rgb.shape}")


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
            known[operation(rgb, sign * greatest * 9 / 30).tobytes()] = name, sign
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
        expected = operation(expected, sign * greatest * 20 / 30)
    np.testing.assert_array_equal(randaugment(rgb, 3, 20, rng), expected)


def test_erasing_erases_one_rectangle_of_the_asked_size_and_leaves_the_rest():
    rng = np.random.default_rng(0)
    image = np.full((3, 48, 64), 9, np.float32)
    kept, shares, aspects, noise = 0, [], [], []
    for _ in range(3000):
        result = erased(image, 0.25, rng)
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
    assert (image == 9).all()
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


def test_neither_is_on_and_then_nothing_is_drawn_for_them():
    """The published recipe's pictures are what they were: same draws, same bits."""
    how = Augmentation()
    assert (how.operations, how.erasing) == (0, 0)
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
