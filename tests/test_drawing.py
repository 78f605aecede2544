"""Boxes and labels drawn on pictures: colours, places, sizes."""

import itertools

import numpy as np
import pytest

from gluon_asymmnet.evaluation import drawing
from gluon_asymmnet.evaluation.drawing import class_colour, draw_boxes, text_colour

CROWD = np.array([[40, 30, 160, 120]] * 8, np.float32) + np.arange(8)[:, None]


def places(boxes, size=(640, 480), text="person 0.90"):
    """The corners of the labels."""
    style, taken = drawing._style(*size), np.zeros((0, 4), int)
    for box in boxes:
        item = drawing._Item(drawing._rounded(box), text, (0, 0, 0))
        taken = np.concatenate([taken, [drawing._place(item, size, style, taken)[0]]])
    return taken.tolist()


def test_a_class_has_one_colour_and_twenty_have_different_ones():
    assert len({class_colour(label) for label in range(20)}) == 20
    assert class_colour(20) == class_colour(0) == (0xE6, 0x19, 0x4B)
    rgb = np.zeros((100, 200, 3), np.uint8)
    box = np.array([[20, 30, 180, 90]])
    for label in (0, 3):
        drawn = draw_boxes(rgb, box, ["a"], [label])
        assert tuple(drawn[90, 150]) == class_colour(label)
        assert not rgb.any()


def test_text_contrasts_with_its_label():
    for label in range(20):
        background, text = class_colour(label), text_colour(class_colour(label))
        values = sorted(_luminance(colour) + 0.05 for colour in (background, text))
        assert values[1] / values[0] > 4.4  # WCAG: 3 for large text, 4.5 for small
    assert text_colour((255, 255, 255)) == (0, 0, 0)
    assert text_colour((0, 0, 0)) == (255, 255, 255)


def _luminance(colour):
    parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
             for c in colour]  # fmt: skip
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_labels_of_a_crowd_do_not_cover_each_other():
    for a, b in itertools.combinations(places(CROWD), 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_the_first_label_is_above_its_box_and_inside_at_the_border():
    (above,) = places([[40, 100, 160, 200]])
    assert (above[0], above[3]) == (40, 100)
    (at_top,) = places([[40, 0, 160, 200]])
    assert at_top[1] == 0
    (at_right,) = places([[620, 100, 639, 200]])
    assert at_right[2] <= 640


@pytest.mark.parametrize("size", [(30, 20), (100, 75), (640, 480), (4000, 3000), (60, 900)])
def test_sizes_follow_the_picture(size):
    width, height = size
    style = drawing._style(width, height)
    capital = style.font * drawing._CAPITAL
    assert max(8, 0.016 * min(size)) <= capital <= max(8, 0.02 * max(size))
    assert 1 <= style.line <= max(1, max(size) / 200)
    for left, top, right, bottom in places([[5, 5, width - 5, height - 5]] * 3, size):
        assert 0 <= left < right <= max(width, 8)
        assert 0 <= top < bottom <= max(height, 16)
    box = np.array([[5, 5, width - 5, height - 5]])
    assert draw_boxes(np.zeros((height, width, 3), np.uint8), box, ["cat 0.9"], [3]).any()
