"""Data sets of labelImg, YOLO and COCO, to VOC folders and back, exact to the pixel rules."""

import io
import json
import re
import shutil
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as masks
from pycocotools.coco import COCO

from gluon_asymmnet.cli import main
from gluon_asymmnet.data.boxes.coco import coco_to_voc
from gluon_asymmnet.data.boxes.convert_out import write_coco, write_yolo
from gluon_asymmnet.data.boxes.labelimg import labelimg_to_voc
from gluon_asymmnet.data.boxes.records import DetectionRecords
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.boxes.voc_check import check
from gluon_asymmnet.data.boxes.voc_write import split_by_name, unique_stems
from gluon_asymmnet.data.boxes.voc_xml import ClassNames, VOCObject, annotation_xml
from gluon_asymmnet.data.boxes.yolo import parse_line, yolo_to_voc
from gluon_asymmnet.data.image_headers import ImageInfo
from gluon_asymmnet.data.images import decode
from gluon_asymmnet.errors import FormatError, InputError
from tests.test_boxes_faults import turned_photo, white_box
from tests.test_detection_records import LABEL, write_rec
from tests.test_voc import HEIGHT, WIDTH, make, picture, thing, xml

SHARES = {"val": 0.25}
THING = [8, 4, 19, 24]  # of ``thing()``: (9, 5, 20, 25) counted from 1


@pytest.fixture
def labelled(tmp_path):
    """What labelImg leaves: pictures and XML side by side, one in a subfolder, one unlabelled."""
    folder = tmp_path / "labelled"
    (folder / "more").mkdir(parents=True)
    for name in ("a", "b", "more/c", "d", "unlabelled"):
        (folder / f"{name}.jpg").write_bytes(picture())
    (folder / "a.xml").write_bytes(xml(thing("dog"), thing("Cat", (1, 1, 40, 30), "1")))
    (folder / "b.xml").write_bytes("\ufeff".encode() + xml(thing("cat"), thing("cat")))
    (folder / "more/c.xml").write_bytes(xml())
    (folder / "d.xml").write_bytes(xml(thing("dog", (2, 3, 4, 5))))
    (folder / ".hidden.xml").write_bytes(b"no XML")
    (folder / "notes.txt").write_bytes(b"no picture")
    return folder


def objects(root, name, *splits):
    """Return {id: sorted objects} of lists of a set."""
    source = VOCSource(root, [(name, split) for split in splits])
    found = {}
    for i in range(len(source)):
        one = source.read(i)
        rows = zip(one.labels, one.boxes.tolist(), one.difficult.tolist())
        found[one.image_id.partition("/")[2]] = sorted(
            (source.class_names[label], box, hard) for label, box, hard in rows
        )
    return found


def clean(root):
    report = check(root)
    return report.problems == [] and report.images


# --- labelImg ------------------------------------------------------------------------------------


def test_labelimg_becomes_voc(labelled, tmp_path):
    done = labelimg_to_voc(labelled, tmp_path / "data/mine", shares=SHARES)
    assert (done.images, done.objects, done.classes) == (4, 5, ["cat", "dog"])
    assert done.splits == {"train": 3, "val": 1}
    assert done.skipped == []
    assert any("1 pictures without XML are left out" in line for line in done.derived)
    assert objects(tmp_path / "data", "mine", "train", "val") == {
        "a": [("cat", [0, 0, 39, 29], True), ("dog", THING, False)],
        "b": [("cat", THING, False)] * 2, "c": [], "d": [("dog", [1, 2, 3, 4], False)],
    }  # fmt: skip
    assert clean(tmp_path / "data") == 4
    assert (tmp_path / "data/mine/JPEGImages/a.jpg").read_bytes() == picture()
    done = labelimg_to_voc(
        labelled, tmp_path / "other", shares={}, keep_unlabelled=True, classes=["dog", "cat", "x"]
    )
    assert (done.images, done.classes, done.splits) == (5, ["dog", "cat", "x"], {"train": 5})


def test_folders_of_splits_are_kept(labelled, tmp_path):
    for split in ("train", "valid"):
        shutil.copytree(labelled, tmp_path / "set" / split)
    done = labelimg_to_voc(tmp_path / "set", tmp_path / "data/mine", shares=SHARES)
    assert done.splits == {"train": 4, "val": 4}
    names = set(objects(tmp_path / "data", "mine", "val"))
    assert names == {"valid_a", "valid_b", "valid_more_c", "valid_d"}


@pytest.mark.parametrize("orientation", [3, 6])
def test_labelimg_boxes_follow_the_picture(tmp_path, orientation):
    """Drawn on the stored pixels, as the size in the XML says; for a half turn it cannot."""
    folder, box = tmp_path / "in", (8, 4, 19, 24)
    folder.mkdir()
    (folder / "a.jpg").write_bytes(turned_photo(orientation, box))
    (folder / "a.xml").write_text(annotation_xml("a.jpg", (WIDTH, HEIGHT), [VOCObject("x", box)]))
    done = labelimg_to_voc(folder, tmp_path / "data/mine", shares={})
    source = VOCSource(tmp_path / "data", [("mine", "train")])
    (line,) = done.derived
    if orientation == 6:
        assert source.read(0).boxes[0].tolist() == white_box(source.read(0).rgb)
        assert "without its EXIF rotation; turned" in line
    else:
        assert source.read(0).boxes[0].tolist() == list(box)
        assert "keeps the size" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "e.xml").write_bytes(xml()), r"e\.xml: expected one picture .* found none"),
        (lambda f: (f / "a.png").write_bytes(picture()), r"a\.xml: .* found a\.jpg and a\.png"),
        (lambda f: (f / "a.xml").write_bytes(b"<x"), r"a\.xml: broken XML"),
        (lambda f: (f / "a.jpg").write_bytes(b""), r"a\.jpg: an empty file: 0 bytes"),
        (lambda f: (f / "a.jpg").write_bytes(picture()[:-9]), r"a\.jpg: truncated JPEG"),
        (lambda f: (f / "a.jpg").write_bytes(picture(9, 9)), r"a\.jpg: .* 9 x 9 pixels, its ann"),
        (lambda f: (f / "a.xml").write_bytes(xml(thing(box=(9, 9, 1, 1)))), "empty or inverted"),
        (lambda f: (f / "a.xml").write_bytes(xml(thing(name=None))), "it has no <name>"),
    ],
)  # fmt: skip
def test_faults_of_labelimg(labelled, tmp_path, change, message):
    change(labelled)
    with pytest.raises(FormatError, match=rf"{message}[^\n]*--skip-bad"):
        labelimg_to_voc(labelled, tmp_path / "out", shares=SHARES)
    assert not (tmp_path / "out").exists()
    done = labelimg_to_voc(labelled, tmp_path / "out", shares=SHARES, skip_bad=True)
    (line,) = done.skipped
    assert re.search(message, line)
    assert sum(done.splits.values()) == done.images >= 3


# --- Division ------------------------------------------------------------------------------------


def test_seed_and_names_decide_the_division():
    names = [f"{n:03}" for n in range(100)]
    first = split_by_name(names, {"val": 0.2, "test": 0.1}, "train")
    assert {name: len(part) for name, part in first.items()} == dict(train=70, val=20, test=10)
    assert sorted(name for part in first.values() for name in part) == names
    assert split_by_name(names[::-1], {"val": 0.2, "test": 0.1}, "train") == first
    assert split_by_name(names, {"val": 0.2}, "train")["val"] == first["val"]
    assert split_by_name(names, {"val": 0.2}, "train", seed=1)["val"] != first["val"]
    grown = split_by_name([*names, *(f"new{n}" for n in range(10))], {"val": 0.2}, "train")
    assert len(set(grown["val"]) & set(first["val"])) >= 16
    assert split_by_name(["a", "b"], {"val": 0.01, "test": 0}, "train").keys() == {"train", "val"}
    for shares in ({"val": 1}, {"val": -0.1}, {"val": 0.6, "test": 0.4}, {"val": float("nan")}):
        with pytest.raises(InputError, match=r"shares of splits must be from 0 to 1, below 1 tog"):
            split_by_name(names, shares, "train")
    with pytest.raises(InputError, match="1 images are too few for the splits train, val"):
        split_by_name(["a"], {"val": 0.2}, "train")


def test_names_of_pictures():
    def stems(*names):
        return unique_stems([PurePosixPath(name) for name in names])

    assert stems("a/1.jpg", "b/1.png", "b/2.jpg") == ["a_1", "b_1", "2"]
    with pytest.raises(FormatError, match="would get the name"):
        stems("a/1.jpg", "a/1.png")
    with pytest.raises(FormatError, match="no usable image id"):
        stems("#1.jpg")


# --- YOLO ----------------------------------------------------------------------------------------

NAMES = ClassNames(["dog", "cat"])
INFO = ImageInfo("jpeg", 40, 30, 3)


@pytest.mark.parametrize(
    ("line", "box"),
    [
        # 12 columns from 8 to 19: edges 8 and 20; 21 rows from 4 to 24: edges 4 and 25
        ("1 0.35 0.483333 0.3 0.7", THING),
        ("1\t.35 4.83333333e-1 0.300000 0.7", THING),
        ("1 0.5 0.5 1 1", [0, 0, 39, 29]),
        ("1 0.5 0.5 1.0004 1", [0, 0, 39, 29]),
        ("1 0.51 0.5 0.5 0.5", [10.4, 7.5, 29.4, 21.5]),
        ("1 0.2 0.1 0.5 0.4 0.3 0.9", [8, 3, 19, 26]),  # a triangle
    ],
)
def test_a_line_by_hand(line, box):
    found = parse_line(line, NAMES, INFO, "here")
    assert (found.name, found.difficult) == ("cat", False)
    assert found.box == pytest.approx(box, abs=1e-9)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0.5 0.5 0.1", "here has 4 numbers; expected 5"),
        ("1 0.5 0.5 0.1 0.1 0.9", "here has 6 numbers; expected 5"),
        ("2 0.5 0.5 0.1 0.1", "class 2 is not one of the 2 from 0"),
        ("0.5 0.5 0.5 0.1 0.1", r"class 0\.5 is not one of"),
        ("-1 0.5 0.5 0.1 0.1", "class -1 is not one of"),
        ("1 nan 0.5 0.1 0.1", "are not numbers"),
        ("1 1_0 0.5 0.1 0.1", "are not numbers"),
        ("1 20 15 12 21", "leaves the picture; expected fractions"),
        ("1 0.9 0.5 0.5 0.5", "leaves the picture"),
        ("1 0.5 0.5 0 0", "the box is empty"),
        ("1 0.5 0.5 0.02 0.5", "the box is empty, or one pixel wide"),
    ],
)
def test_lines_that_are_none(line, message):
    with pytest.raises(FormatError, match=message):
        parse_line(line, NAMES, INFO, "here")


@pytest.fixture
def yolo(tmp_path):
    """Ultralytics' layout, with a byte order mark, CRLF, an empty file, and one without labels."""
    root = tmp_path / "yolo"
    for split, names in (("train", "ab"), ("val", "cd")):
        for part in ("images", "labels"):
            (root / part / split).mkdir(parents=True)
        for name in names:
            (root / "images" / split / f"{name}.jpg").write_bytes(picture())
    (root / "labels/train/a.txt").write_bytes(
        b"\xef\xbb\xbf1 0.35 0.483333 0.3 0.7\r\n0 0.5 0.5 1 1\r\n"
    )
    (root / "labels/train/b.txt").write_bytes(b"")
    (root / "labels/val/c.txt").write_bytes(b"0 0.35 0.483333 0.3 0.7\n\n")
    (root / "data.yaml").write_text(
        "path: .\ntrain: images/train\nval: images/val\ntest:\nnames:\n  0: dog\n  1: cat\n"
    )
    return root


EXPECTED = {
    "a": [("cat", THING, False), ("dog", [0, 0, 39, 29], False)], "b": [],
    "c": [("dog", THING, False)], "d": [],
}  # fmt: skip


def test_yolo_becomes_voc(yolo, tmp_path):
    done = yolo_to_voc(yolo, tmp_path / "data/mine", shares=SHARES)
    assert (done.images, done.objects, done.classes) == (4, 3, ["dog", "cat"])
    assert done.splits == {"train": 2, "val": 2}
    (line,) = done.derived
    assert line.endswith("d.jpg: there is no d.txt; taken as without objects")
    assert objects(tmp_path / "data", "mine", "train", "val") == EXPECTED
    assert clean(tmp_path / "data") == 4


def test_layouts_of_yolo(yolo, tmp_path):
    """Roboflow's paths, lists of images, a folder without a sheet, files side by side."""
    sheet = yolo / "data.yaml"
    (yolo / "train.txt").write_text("./images/train/a.jpg\n./images/train/b.jpg\n")
    for text in (
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['dog', 'cat']\n",
        "train: train.txt\nval: [images/val]\nnames: [dog, cat]\n",
    ):
        sheet.write_text(text)
        done = yolo_to_voc(sheet, tmp_path / "data/mine", shares={})
        assert done.splits == {"train": 2, "val": 2}
        assert objects(tmp_path / "data", "mine", "train", "val") == EXPECTED
        shutil.rmtree(tmp_path / "data")
    sheet.unlink()
    (yolo / "classes.txt").write_bytes(b"\xef\xbb\xbfdog\r\ncat\r\n")
    done = yolo_to_voc(yolo, tmp_path / "data/mine", shares=SHARES)
    assert done.splits == {"train": 2, "val": 2}
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in [*yolo.rglob("*.jpg"), *yolo.rglob("labels/*/*.txt"), yolo / "classes.txt"]:
        shutil.copy(path, flat)
    done = yolo_to_voc(flat, tmp_path / "data/flat", shares=SHARES)
    assert done.splits == {"train": 3, "val": 1}
    assert objects(tmp_path / "data", "flat", "train", "val") == EXPECTED
    (flat / "classes.txt").unlink()
    with pytest.raises(InputError, match=r"no data\.yaml and no classes\.txt"):
        yolo_to_voc(flat, tmp_path / "out", shares=SHARES)
    assert yolo_to_voc(flat, tmp_path / "out", shares={}, classes=["x", "y"]).classes == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys such as train"),
        pytest.param("[" * 1000, "not YAML", id="deep"),
        ("names: [a, b]", "it names no train, val or test images"),
        ("train: images/train\nnames: dog", "names is 'dog', expected a list"),
        ("train: images/train\nnames: {1: a, 2: b}", "expected a list of class names, or numbers"),
        ("train: images/train\nnames: [a, A]", "equals class 0"),
        ("train: [1]\nnames: [a, b]", r"train is \[1\], expected paths"),
        ("train: 1\nnames: [a, b]", "train is 1, expected paths"),
        ("train: none\nnames: [a, b]", "'none': no such file or folder in"),
        ("train: !!python/object/apply:os.system ['false']", "not YAML"),
    ],
)
def test_sheets_that_are_none(yolo, tmp_path, text, message):
    (yolo / "data.yaml").write_text(text)
    with pytest.raises((InputError, FileNotFoundError), match=message) as caught:
        yolo_to_voc(yolo, tmp_path / "out", shares=SHARES)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_yolo_boxes_belong_to_the_turned_picture(tmp_path):
    (tmp_path / "in").mkdir()
    data = turned_photo(6, (8, 4, 19, 24))
    (tmp_path / "in/a.jpg").write_bytes(data)
    left, top, right, bottom = white_box(decode(data))
    w, h = HEIGHT, WIDTH  # turned
    line = [0, (left + right + 1) / 2 / w, (top + bottom + 1) / 2 / h]
    line += [(right + 1 - left) / w, (bottom + 1 - top) / h]
    (tmp_path / "in/a.txt").write_text(" ".join(map(str, line)))
    yolo_to_voc(tmp_path / "in", tmp_path / "data/mine", shares={}, classes=["x"])
    example = VOCSource(tmp_path / "data", [("mine", "train")]).read(0)
    assert example.boxes[0].tolist() == [left, top, right, bottom] == white_box(example.rgb)


# --- Back ----------------------------------------------------------------------------------------


@pytest.fixture
def voc(tmp_path):
    """Boxes at the borders, with fractions, difficult; a PNG; a picture with an EXIF rotation."""
    root = tmp_path / "voc"
    things = thing(), thing("cat", (1, 1, 40, 30), "1"), thing("cat", (3.25, 2, 40, 7.5))
    make(root, {"000001": xml(*things), "000002": xml()}, "train", "mine")
    make(root, {"turned": xml(thing(), width=HEIGHT, height=WIDTH)}, "val", "mine")
    (root / "mine/JPEGImages/turned.jpg").write_bytes(turned_photo(6, THING))
    (root / "mine/JPEGImages/000002.jpg").unlink()
    out = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT)).save(out, "PNG")
    (root / "mine/JPEGImages/000002.png").write_bytes(out.getvalue())
    (root / "mine/classes.txt").write_text("dog\ncat\n")
    return root


def sources(root):
    return {split: VOCSource(root, [("mine", split)]) for split in ("train", "val")}


def test_to_yolo_and_back(voc, tmp_path):
    done = write_yolo(sources(voc), tmp_path / "yolo")
    assert done == ({"train": 2, "val": 1}, 4, 1)
    lines = (tmp_path / "yolo/labels/train/000001.txt").read_text().splitlines()
    assert lines[0] == "0 0.350000000 0.483333333 0.300000000 0.700000000"
    assert lines[1] == "1 0.500000000 0.500000000 1.000000000 1.000000000"
    assert (tmp_path / "yolo/labels/train/000002.txt").read_text() == ""
    assert (tmp_path / "yolo/images/train/000002.png").is_file()
    back = yolo_to_voc(tmp_path / "yolo", tmp_path / "data/mine", shares={})
    assert (back.classes, back.splits, back.derived) == (["dog", "cat"], done.images, [])
    expected = objects(voc, "mine", "train", "val")
    easy = {k: sorted((n, box, False) for n, box, _ in v) for k, v in expected.items()}
    assert objects(tmp_path / "data", "mine", "train", "val") == easy  # exact
    assert clean(tmp_path / "data") == 3
    picture_ = decode((tmp_path / "yolo/images/val/turned.jpg").read_bytes())
    assert picture_.shape == (WIDTH, HEIGHT, 3)


def test_to_coco_and_back(voc, tmp_path):
    done = write_coco(sources(voc), tmp_path / "coco")
    assert done == ({"train": 2, "val": 1}, 4, 1)
    for split in ("train", "val"):
        file = tmp_path / f"coco/annotations/instances_{split}.json"
        coco = COCO(str(file))
        source = sources(voc)[split]
        for number in range(len(source)):
            example, entry = source.read(number), coco.imgs[number + 1]
            assert (entry["width"], entry["height"]) == example.size
            annotations = coco.loadAnns(coco.getAnnIds([number + 1]))
            assert [one["iscrowd"] for one in annotations] == example.difficult.tolist()
            assert [coco.cats[one["category_id"]]["name"] for one in annotations] == [
                source.class_names[label] for label in example.labels
            ]
            for one, box in zip(annotations, example.boxes):
                assert one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3])
                if (box == box.round()).all():  # pycocotools' box of the pixels
                    left, top, right, bottom = box.astype(int)
                    mask = np.zeros(example.size[::-1], np.uint8, order="F")
                    mask[top : bottom + 1, left : right + 1] = 1
                    assert one["bbox"] == masks.toBbox(masks.encode(mask)).tolist()
        coco_to_voc(file, tmp_path / "coco" / split, tmp_path / f"data/{split}", split="train")
        assert objects(tmp_path / "data", split, "train") == objects(voc, "mine", split)
    assert clean(tmp_path / "data") == 3


def test_records_to_both(tmp_path):
    """Fractions of the sides are YOLO's numbers; no pixel is added."""
    (tmp_path / "in").mkdir()
    rec = write_rec(tmp_path / "in", LABEL, LABEL)
    source = DetectionRecords(rec, classes=["cat", "dog"])
    example = source.read(0)
    width, height = example.size
    write_yolo({"train": source}, tmp_path / "yolo")
    (label,) = sorted((tmp_path / "yolo/labels/train").iterdir())[:1]
    rows = [list(map(float, line.split())) for line in label.read_text().splitlines()]
    for row, box in zip(rows, example.boxes):
        left, top, right, bottom = box
        expected = [(left + right) / 2 / width, (top + bottom) / 2 / height]
        assert row[1:3] == pytest.approx(expected, abs=1e-5)
        assert row[3] == pytest.approx((right - left) / width, abs=1e-5)
    write_coco({"train": source}, tmp_path / "coco")
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    left, top, right, bottom = example.boxes[0]
    assert content["annotations"][0]["bbox"] == pytest.approx(
        [left, top, right - left, bottom - top], abs=1e-3
    )


def test_the_commands(labelled, yolo, tmp_path, capsys):
    data = tmp_path / "data"
    assert main(["voc", "from-labelimg", str(labelled), str(data / "mine"), "--val", "0.5"]) == 0
    out = capsys.readouterr().out
    assert f"{data}/mine: 4 images, 5 objects, 2 classes\ntrain: 2 images, val: 2 images\n" in out
    assert out.endswith(f"asymmnet voc check {data} --splits mine_train,mine_val\n")
    assert main(["voc", "check", str(data), "--splits", "mine_train,mine_val"]) == 0
    assert main(["voc", "to-yolo", str(data), str(tmp_path / "out")]) == 0
    assert (
        "train: 2 images, val: 2 images; 5 objects, 1 of them difficult" in capsys.readouterr().out
    )
    assert main(["voc", "from-yolo", str(tmp_path / "out"), str(data / "again")]) == 0
    assert main(["voc", "to-coco", str(data), str(tmp_path / "coco"), "--splits", "mine_val"]) == 0
    file = tmp_path / "coco/annotations/instances_val.json"
    arguments = [str(file), str(tmp_path / "coco/val"), str(data / "third"), "--val", "0.5"]
    assert main(["voc", "from-coco", *arguments]) == 0
    assert "train: 1 images, val: 1 images" in capsys.readouterr().out
    assert main(["voc", "check", str(data)]) == 0
    rec = write_rec(tmp_path, LABEL)
    arguments = [str(tmp_path), str(tmp_path / "rec"), "--splits", rec.name]
    assert main(["voc", "to-yolo", *arguments]) == 0
    assert main(["voc", "from-yolo", str(tmp_path / "none"), str(tmp_path / "x")]) == 2
    assert "none: no such file or folder" in capsys.readouterr().err
    assert main(["voc", "from-labelimg", str(labelled), str(data / "mine")]) == 2
    assert "exists already" in capsys.readouterr().err
