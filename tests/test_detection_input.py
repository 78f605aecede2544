"""The augmentation of detectors, step by step, and its batches."""

import math

import cv2
import numpy as np
import pytest

from gluon_asymmnet.data.boxes import transforms as detection_augment
from gluon_asymmnet.data.boxes.loader import DetectionInput, batch_sizes, validation_batches
from gluon_asymmnet.data.boxes.transforms import (
    BoxAugmentation,
    inside,
    random_colour,
    random_crop,
    random_view,
    render,
    resize,
    training_sample,
)
from gluon_asymmnet.data.boxes.voc import DetectionExample
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.models.ssd_spec import anchors, parse_detector
from gluon_asymmnet.train.ssd_targets import TargetGenerator
from tests.floats import assert_close, difference
from tests.test_ssd_targets import decoded

NEUTRAL = np.eye(3, 4, dtype=np.float32)
PLAIN = Normalization((0, 0, 0), (1, 1, 1))


class Squares:
    """Pictures with bright squares on black, as a source; every fifth is empty."""

    class_names = ("square",)

    def __init__(self, count=12):
        self.count = count

    def __len__(self):
        return self.count

    def read(self, i):
        rng = np.random.default_rng(i)
        width, height = rng.integers(120, 200, 2)
        rgb = np.zeros((height, width, 3), np.uint8)
        boxes = []
        for _ in range(0 if i % 5 == 4 else 1 + i % 3):
            side = int(rng.integers(20, 50))
            x, y = int(rng.integers(width - side)), int(rng.integers(height - side))
            rgb[y : y + side, x : x + side] = 255
            boxes.append((x, y, x + side, y + side))
        return DetectionExample(
            f"{i}", rgb, np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), int),
            np.zeros(len(boxes), bool), (width, height),
        )  # fmt: skip


# --- Geometry --------------------------------------------------------------------------------


def slow_least_overlap(boxes, crop):
    left, top, width, height = crop
    least = math.inf
    for xmin, ymin, xmax, ymax in boxes:
        common = max(0, min(xmax, left + width) - max(xmin, left))
        common *= max(0, min(ymax, top + height) - max(ymin, top))
        union = (xmax - xmin) * (ymax - ymin) + width * height - common
        least = min(least, common / union)
    return least


def test_least_overlap_against_slow_loops():
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 200, (4, 2, 2)), axis=1).reshape(4, 4)
    crops = detection_augment._crops(200, 150, 30, rng)
    expected = [slow_least_overlap(boxes, crop) for crop in crops]
    assert_close(detection_augment._least_overlap(boxes, crops), expected, precision="float64")


def test_crops_have_the_sides_and_shapes_of_the_paper():
    crops = detection_augment._crops(400, 300, 4000, np.random.default_rng(0))
    left, top, wide, tall = crops.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + wide <= 400).all()
    assert (top + tall <= 300).all()
    scale = np.sqrt(wide / 400 * tall / 300)
    shape = (wide / 400) / (tall / 300)
    assert 0.29 < scale.min() < 0.31
    assert scale.max() > 0.98
    assert 0.48 < shape.min() < 0.52
    assert 1.95 < shape.max() < 2.05


def test_a_crop_holds_the_centre_of_an_object_and_enough_of_all(monkeypatch):
    rng = np.random.default_rng(1)
    boxes = np.array([[10.0, 10, 180, 160], [100, 90, 190, 180]])
    for least in (0.1, 0.3):
        monkeypatch.setattr(detection_augment, "CROP_OVERLAPS", (least,))
        crops = {random_crop(200, 200, boxes, rng) for _ in range(50)}
        assert len(crops) > 10
        for crop in crops - {(0, 0, 200, 200)}:
            assert slow_least_overlap(boxes, crop) >= least
            assert len(inside(boxes, crop))


def test_a_view_without_objects_and_one_around_them():
    rng = np.random.default_rng(2)
    empty = [random_view(100, 80, np.zeros((0, 4)), 4.0, rng) for _ in range(100)]
    assert len(set(empty)) > 50
    boxes = np.array([[20.0, 20, 60, 60]])
    views = [random_view(100, 80, boxes, 4.0, rng) for _ in range(200)]
    assert all(len(inside(boxes, view)) == 1 for view in views)
    assert max(view[2] for view in views) > 250  # expanded
    assert min(view[2] for view in views) < 40  # cropped
    small = [random_view(100, 80, boxes, 1.0, rng) for _ in range(50)]
    assert all(left >= 0 and left + width <= 100 for left, _, width, _ in small)


def test_centres_decide_what_is_inside():
    boxes = np.array([[0.0, 0, 10, 10], [10, 10, 30, 30], [0, 0, 40, 40]])
    # centres 5, 20, 20; the left and upper border belong to the view, the others do not
    assert inside(boxes, (5, 5, 15, 15)).tolist() == [0]
    assert inside(boxes, (5, 5, 16, 16)).tolist() == [0, 1, 2]
    assert inside(np.zeros((0, 4)), (0, 0, 5, 5)).tolist() == []


@pytest.mark.parametrize("mirror", [False, True])
def test_boxes_follow_the_pixels(monkeypatch, mirror):
    """A box that is left frames the same bright pixels before and after."""
    monkeypatch.setattr(detection_augment, "random_colour", lambda rng: NEUTRAL)
    source, how, checked = Squares(60), BoxAugmentation(mirror), 0
    for i in range(len(source)):
        found = source.read(i)
        if len(found.boxes) != 1:
            continue
        rng = np.random.default_rng(i)
        sample = training_sample(found.rgb, found.boxes, 300, how, PLAIN, rng)
        assert sample.kept.tolist() == [0]
        rows, columns = (np.flatnonzero((sample.image[0] > 127).any(axis=a)) for a in (1, 0))
        frame = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        pixel = 300 / min(found.size)  # nearest interpolation of an enlarged crop is that coarse
        assert np.abs(sample.boxes[0] - frame).max() <= 1 + 2 * pixel
        checked += 1
    assert checked >= 10


def test_mirroring_by_hand():
    rgb = np.zeros((300, 300, 3), np.uint8)
    boxes, seen = np.array([[30.0, 40, 90, 160]]), set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sample = training_sample(rgb, boxes, 300, BoxAugmentation(True, 1.0), PLAIN, rng)
        seen.add(tuple(sample.boxes[0].tolist()))
    assert {(30, 40, 90, 160), (210, 40, 270, 160)} <= seen


# --- Pixels ----------------------------------------------------------------------------------


def test_render_places_the_picture_in_its_canvas():
    rgb = np.full((40, 60, 3), 200, np.uint8)
    canvas = render(rgb, (-60, -40, 120, 80), 100, (10, 20, 30), NEUTRAL, cv2.INTER_LINEAR)
    assert (canvas[50:, 50:] == 200).all()
    assert (canvas[:50] == [10, 20, 30]).all()
    assert (canvas[:, :50] == [10, 20, 30]).all()
    nothing = render(rgb, (100, 100, 50, 50), 20, (1, 2, 3), NEUTRAL, cv2.INTER_LINEAR)
    assert (nothing == [1, 2, 3]).all()


def test_render_of_the_whole_is_a_resize():
    rgb = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    view = (0, 0, 53, 37)
    expected = cv2.resize(rgb, (30, 30), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(
        render(rgb, view, 30, (0, 0, 0), NEUTRAL, cv2.INTER_AREA), expected
    )


def test_colours_stay_in_their_bounds():
    maps = [random_colour(np.random.default_rng(seed)) for seed in range(2000)]
    changed = [m for m in maps if difference(m, NEUTRAL) > 1e-5]
    assert 0.9 < len(changed) / len(maps) < 0.97  # 15 of 16
    greys = np.array([m @ [128, 128, 128, 1] for m in maps])
    # saturation and hue leave grey alone; brightness adds up to 32, contrast takes 0.5 to 1.5 of it
    assert np.abs(greys - greys.mean(axis=1, keepdims=True)).max() < 0.3  # YIQ's three digits
    assert 96 * 0.5 - 0.3 < greys.min() < 60
    assert 220 < greys.max() < 160 * 1.5 + 0.3


def test_hue_turns_by_at_most_36_degrees(monkeypatch):
    rng = np.random.default_rng(0)
    for _ in range(50):
        turned = detection_augment._hue(rng) @ [200, 100, 100]
        chroma = detection_augment._TO_YIQ @ turned
        before = detection_augment._TO_YIQ @ [200, 100, 100]
        assert chroma[0] == pytest.approx(before[0])
        assert np.hypot(*chroma[1:]) == pytest.approx(np.hypot(*before[1:]))
        angle = math.atan2(chroma[2], chroma[1]) - math.atan2(before[2], before[1])
        assert abs(math.degrees(angle)) <= 36 + 1e-6


@pytest.mark.parametrize("shape", [(400, 500), (100, 200), (200, 400)])
def test_validation_is_gluoncvs(shape):
    """Its MXNet has the same OpenCV inside, in another version: one grey level."""
    import importlib

    from gluon_asymmnet._mxnet import gluoncv, mx

    preset = importlib.import_module(f"{gluoncv.__name__}.data.transforms.presets.ssd")
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs, _ = preset.SSDDefaultValTransform(300, 300)(mx.nd.array(rgb, dtype="uint8"),
                                                        np.zeros((1, 4)))  # fmt: skip
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    theirs = (theirs.asnumpy().transpose(1, 2, 0) * std + mean) * 255
    assert np.abs(resize(rgb, 300) - theirs).max() <= 1.01


# --- Batches ---------------------------------------------------------------------------------


def batches(threads=2, seed=0, epoch=0, first=0, sizes=(300,), steps=4):
    spec = parse_detector("ssd_300_asymmnet_small_custom").spec
    targets = {size: TargetGenerator(anchors(spec._replace(size=size))) for size in sizes}
    return list(
        DetectionInput(Squares(), 12 // steps, targets, steps=steps, seed=seed,
                       threads=threads).epoch(epoch, first)
    )  # fmt: skip


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other))


def test_batches_repeat_bit_for_bit_with_any_number_of_threads():
    one = batches(threads=1)
    assert len(one) == 4
    assert all(map(equal, one, batches(threads=4)))
    assert all(map(equal, one[2:], batches(first=2)))
    assert not equal(one[0], batches(seed=1)[0])
    assert not equal(one[0], batches(epoch=1)[0])


def test_batches_hold_what_training_takes():
    boxes_at = anchors(parse_detector("ssd_300_asymmnet_small_custom").spec)
    without = 0
    for batch in batches():
        assert [a.shape for a in batch] == [(3, 3, 300, 300), (3, 8766), (3, 8766, 4)]
        assert {a.dtype for a in batch} == {np.dtype(np.float32)}
        for classes, offsets in zip(batch.cls_target, batch.box_target):
            found = classes > 0
            without += not found.any()
            boxes = decoded(offsets[found], boxes_at[found])
            assert (boxes > -1).all()
            assert (boxes < 301).all()
            assert not offsets[~found].any()
    assert without == 2  # two of the twelve pictures are empty


def test_every_batch_has_its_size_and_the_targets_of_that_size():
    sizes = (256, 300, 352)
    found = batches(sizes=sizes, steps=12)
    sides = [batch.data.shape[-1] for batch in found]
    assert set(sides) == set(sizes)
    spec = parse_detector("ssd_300_asymmnet_small_custom").spec
    alone = {size: batches(sizes=(size,), steps=12) for size in sizes}
    for number, (batch, size) in enumerate(zip(found, sides)):
        assert equal(batch, alone[size][number])  # the pictures and their views stay the same
        boxes_at = anchors(spec._replace(size=size))
        assert batch.data.shape == (1, 3, size, size)
        assert batch.cls_target.shape == (1, len(boxes_at))
        for image, classes, offsets in zip(*batch):
            matched = classes > 0
            for left, top, right, bottom in decoded(offsets[matched], boxes_at[matched]):
                middle = image[0, int(top + bottom) // 2, int(left + right) // 2]
                assert middle > image[0].min() + 0.5  # bright, as the squares are


def test_the_size_of_a_batch_follows_from_seed_epoch_and_step():
    sizes = (256, 300, 352)
    every = batch_sizes(sizes, 50, 7, 3)
    assert batch_sizes(sizes, 50, 7, 3) == every
    assert sorted(set(every)) == list(sizes)
    assert batch_sizes(sizes, 50, 7, 4) != every
    assert batch_sizes(sizes, 50, 8, 3) != every
    one = batches(sizes=sizes, steps=6)
    assert all(map(equal, one[4:], batches(sizes=sizes, steps=6, first=4, threads=1)))


def test_validation_gives_every_picture_once_and_in_order():
    source = Squares(11)
    found = list(validation_batches(source, 4, 64, threads=2))
    assert [len(batch.data) for batch in found] == [4, 4, 3]
    assert [one.image_id for batch in found for one in batch.examples] == [
        str(i) for i in range(11)
    ]
    assert list(validation_batches(Squares(0), 4, 64)) == []
