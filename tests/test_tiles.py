"""Detection in tiles: their places, and the union of what is found in them."""

import numpy as np
import pytest

from gluon_asymmnet.data.boxes.geometry import Detections
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.predict.tiles import Tiling, merge


def found(*rows):
    """Detections from (label, score, box), in float32."""
    labels, scores, boxes = zip(*rows) if rows else ((), (), ())
    return Detections(
        np.array(labels, np.int64), np.array(scores, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
    )  # fmt: skip


def test_places_by_hand():
    tiles = Tiling(size=100, overlap=0.2, whole=False)
    assert tiles.areas(100, 80) == [(0, 0, 100, 80)]
    # the step is 80; the last tile ends at the border
    assert tiles.areas(250, 100) == [(0, 0, 100, 100), (80, 0, 180, 100), (150, 0, 250, 100)]
    assert Tiling(size=100, overlap=0).areas(200, 200) == [
        (0, 0, 200, 200), (0, 0, 100, 100), (100, 0, 200, 100), (0, 100, 100, 200),
        (100, 100, 200, 200),
    ]  # fmt: skip
    assert Tiling(size=300).areas(200, 100) == [(0, 0, 200, 100)]


@pytest.mark.parametrize("overlap", [0, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [(1000, 700), (333, 1001), (64, 64)])
def test_tiles_cover_the_picture(size, count, overlap):
    width, height = size
    areas = Tiling(count, overlap=overlap, whole=False).areas(width, height)
    seen = np.zeros((height, width), bool)
    for left, top, right, bottom in areas:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        seen[top:bottom, left:right] = True
    assert seen.all()
    along = 0 if width >= height else 1
    assert len({area[along] for area in areas}) == count
    assert len({area[2] - area[0] for area in areas}) == 1  # of one size
    starts = sorted({area[along] for area in areas})
    side = areas[0][2 + along] - areas[0][along]
    least = min((side - (b - a) for a, b in zip(starts, starts[1:])), default=side)
    assert least >= int(overlap * side)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(), "one of them"),
        (dict(count=2, size=100), "one of them"),
        (dict(count=-1), "count of tiles must be a whole number, at least 1, got -1"),
        (dict(size=1.5), "size of tiles must be a whole number"),
        (dict(size=9, overlap=1), "overlap must be at least 0 and below 1, got 1"),
        (dict(size=9, overlap=float("nan")), "overlap must be"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Tiling(**settings).check()


def test_too_many_tiles():
    with pytest.raises(InputError, match=r"1250 x 1250 tiles of 10 pixels in .* choose larger"):
        Tiling(size=10).areas(10_000, 10_000)


def test_boxes_move_to_their_tile_and_classes_stay_apart():
    areas = [(0, 0, 100, 100), (80, 0, 180, 100)]
    merged = merge(
        [
            found((0, 0.5, (82, 10, 95, 30))),
            found((1, 0.9, (4, 12, 14, 29)), (0, 0.8, (50, 50, 70, 80))),
        ],
        areas, (180, 100), 0.45,
    )  # fmt: skip
    assert merged.labels.tolist() == [1, 0, 0]
    assert merged.boxes.tolist() == [[84, 12, 94, 29], [130, 50, 150, 80], [82, 10, 95, 30]]
    np.testing.assert_array_equal(merged.scores, np.float32([0.9, 0.8, 0.5]))


def test_of_two_tiles_one_box_stays():
    areas = [(0, 0, 100, 100), (60, 0, 160, 100)]
    same = [found((0, 0.6, (70, 20, 90, 50))), found((0, 0.7, (11, 21, 31, 50)))]
    merged = merge(same, areas, (160, 100), 0.45)
    assert merged.boxes.tolist() == [[71, 21, 91, 50]]
    other = [same[0], same[1]._replace(labels=np.array([1]))]
    assert len(merge(other, areas, (160, 100), 0.45).labels) == 2


def test_a_part_gives_way_to_the_whole_object():
    """The left tile cuts the object at its border, with the higher score and a low IoU."""
    areas = [(0, 0, 100, 100), (60, 0, 160, 100)]
    parts = [found((0, 0.9, (80, 20, 100, 60))), found((0, 0.6, (20, 20, 80, 60)))]
    merged = merge(parts, areas, (160, 100), 0.45)
    assert merged.boxes.tolist() == [[80, 20, 140, 60]]
    # a box at the picture's own border is not a part
    at_edge = [found((0, 0.9, (0, 20, 20, 60)), (0, 0.5, (0, 20, 60, 60)))]
    assert len(merge(at_edge, areas[:1], (100, 100), 0.45).labels) == 2
    # nothing holds the whole object: the part stays
    assert len(merge([parts[0], found()], areas, (160, 100), 0.45).labels) == 1
    assert len(merge([found(), found()], areas, (160, 100), 0.45).labels) == 0
