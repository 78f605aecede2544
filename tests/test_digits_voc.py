"""The detection demo set: digits strewn over pictures."""

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from gluon_asymmnet.cli.voc import build_parser
from gluon_asymmnet.data.boxes.digits import CLASSES, _ink, write_digits_voc
from gluon_asymmnet.data.boxes.geometry import box_iou
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.boxes.voc_check import check
from gluon_asymmnet.errors import InputError

TRAIN, TEST = 120, 40


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits_voc(tmp_path_factory.mktemp("voc") / "digits", images=(TRAIN, TEST))


@pytest.fixture(scope="module")
def annotations(digits):
    sources = [VOCSource(digits.root, [(2007, split)]) for split in ("trainval", "test")]
    return [source.annotation(i) for source in sources for i in range(len(source))]


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_layout(digits):
    folder = digits.root / "VOC2007"
    assert sorted(p.name for p in folder.iterdir()) == [
        "Annotations", "ImageSets", "JPEGImages", "classes.txt",
    ]  # fmt: skip
    assert len(list(folder.glob("Annotations/*.xml"))) == TRAIN + TEST
    assert len(list(folder.glob("JPEGImages/*.jpg"))) == TRAIN + TEST
    assert (folder / "classes.txt").read_text().split() == list("0123456789")
    assert (digits.trainval, digits.test) == (TRAIN, TEST)


def test_nothing_is_wrong_with_it(digits):
    report = check(digits.root)
    assert report.problems == report.repaired == []
    assert report.images == TRAIN + TEST
    assert report.empty == 0
    assert min(report.classes.values()) > 20


def test_sizes(annotations):
    sides = np.array([found.size for found in annotations])
    assert sides.min() >= 200 and sides.max() <= 320 and sides.std() > 20
    counts = [(~found.difficult).sum() for found in annotations]
    assert min(counts) == 1 and max(counts) == 6
    boxes = np.concatenate([found.boxes[~found.difficult] for found in annotations])
    heights = boxes[:, 3] - boxes[:, 1] + 1  # the last row belongs to it
    assert heights.min() >= 24 and heights.max() <= 110
    assert np.percentile(heights, 10) < 35 and np.percentile(heights, 90) > 80


def test_tiny_ones_are_difficult(annotations):
    boxes = np.concatenate([found.boxes[found.difficult] for found in annotations])
    assert 5 <= len(boxes) <= 40  # one picture of ten
    heights = boxes[:, 3] - boxes[:, 1] + 1
    assert heights.min() >= 12 and heights.max() < 18


def test_boxes_do_not_touch(annotations):
    for found in annotations:
        overlaps = box_iou(found.boxes, found.boxes, plus_one=True)
        assert (overlaps[~np.eye(len(overlaps), dtype=bool)] == 0).all()


def test_boxes_hug_bright_ink(digits):
    """Each side of each box has pixels brighter than all but a few of those beyond it."""
    source = VOCSource(digits.root, [(2007, "test")])
    for i in range(len(source)):
        found = source.read(i)
        grey = found.rgb.max(axis=2).astype(int)
        for left, top, right, bottom in found.boxes[~found.difficult].astype(int):
            inside = grey[top : bottom + 1, left : right + 1]
            ground = np.median(grey)
            for line in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]):
                assert line.max() > ground + 40, (i, left, top)


@pytest.mark.thorough
def test_no_test_digit_is_in_training(digits, tmp_path):
    """The test pictures show digits of the other part: those nearest to each crop are held out."""
    from gluon_asymmnet.data.digits import write_digits

    held_out = {int(p.stem) for p in (write_digits(tmp_path / "d").root / "images/val").glob("*/*")}
    cells = load_digits()
    shapes = np.stack([_small(_ink(cell, 48)) for cell in cells.images])
    source = VOCSource(digits.root, [(2007, "test")])
    nearest, right = [], []
    for i in range(len(source)):
        found = source.read(i)
        for box, label in zip(found.boxes.astype(int), found.labels):
            if box[3] - box[1] > 60:
                crop = found.rgb[box[1] : box[3] + 1, box[0] : box[2] + 1].mean(axis=2)
                crop = _small((crop - crop.min()) / (crop.max() - crop.min()))
                best = int(((shapes - crop) ** 2).sum((1, 2)).argmin())
                nearest.append(best in held_out)
                right.append(cells.target[best] == label)
    assert len(nearest) > 20
    assert np.mean(right) > 0.95
    assert np.mean(nearest) > 0.9  # a quarter if they were mixed


def _small(picture):
    return cv2.resize(np.float32(picture), (16, 16), interpolation=cv2.INTER_AREA)


def test_every_digit_has_ink_on_all_sides():
    for cell in load_digits().images:
        ink = _ink(cell, 40)
        assert ink.shape[0] == 40 and 4 <= ink.shape[1] <= 40
        assert ink.min() >= 0 and 0.5 < ink.max() <= 1
        assert all(side.max() > 0.3 for side in (ink[0], ink[-1], ink[:, 0], ink[:, -1]))


def test_same_seed_same_bytes_and_pictures_stand_alone(digits, tmp_path):
    few = files(write_digits_voc(tmp_path / "few", images=(3, 2)).root)
    many = files(digits.root)
    lists = {name for name in few if "ImageSets" in name}
    assert all(many[name] == data for name, data in few.items() if name not in lists)
    other = files(write_digits_voc(tmp_path / "other", images=(3, 2), seed=1).root)
    assert all(other[name] != data for name, data in few.items() if name.endswith(".jpg"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"images": (0, 5)}, r"images must be 1 to 99999 for each split, got \(0, 5\)"),
        ({"size": (320, 200)}, "size must be 64 to 4096 pixels, the smaller number first"),
        ({"digit": (24, 140)}, r"digit must be 12 to 133 pixels"),
        ({"digit": (10, 40)}, "digit must be 12 to"),
        ({"seed": -1}, "seed must be 0 to 4294967295, got -1"),
    ],
)
def test_wrong_arguments(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        write_digits_voc(tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_all_or_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out exists already"):
        write_digits_voc(tmp_path / "out", images=(1, 1))
    assert list((tmp_path / "out").iterdir()) == []


def test_command(tmp_path, capsys):
    parser = build_parser("asymmnet voc")
    args = parser.parse_args(["demo", str(tmp_path / "out"), "--images", "2,1"])
    assert args.run(args) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/out/VOC2007, trainval: 2 images", f"{tmp_path}/out/VOC2007, test: 1 images",
    ]  # fmt: skip
    assert VOCSource(tmp_path / "out").class_names == list(CLASSES)
    with pytest.raises(SystemExit):
        parser.parse_args(["demo", "out", "--images", "2"])
