"""Sets of boxes as tools write them: what is derived, turned, left out, and said."""

import io
import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from gluon_asymmnet.data.boxes.coco import coco_to_voc
from gluon_asymmnet.data.boxes.records import DetectionList
from gluon_asymmnet.data.boxes.sources import open_boxes, parse_splits
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.boxes.voc_check import check
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError
from tests.test_voc import HEIGHT, WIDTH, make, picture, thing, xml

PICTURES = "VOC2007/JPEGImages"


def turned_photo(orientation, box, width=WIDTH, height=HEIGHT):
    """A JPEG with an EXIF rotation, white in ``box`` (corners from 0, inclusive) as stored."""
    stored = np.zeros((height, width, 3), np.uint8)
    left, top, right, bottom = box
    stored[top : bottom + 1, left : right + 1] = 255
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(out, "JPEG", quality=100, exif=exif)
    return out.getvalue()


def white_box(rgb):
    rows, columns = np.nonzero(rgb[:, :, 1] > 128)
    return [columns.min(), rows.min(), columns.max(), rows.max()]


# ------------------------------------------------------------------- rotation


@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_follow_the_picture(tmp_path, orientation):
    """The box must enclose the white area, in whichever frame it was drawn."""
    box = (8, 5, 19, 11)
    seen = cv2.imdecode(
        np.frombuffer(turned_photo(orientation, box), np.uint8), cv2.IMREAD_COLOR
    )  # the reference: OpenCV turns a JPEG by its tag
    upright = white_box(seen)
    drawn = {
        "stored": xml(thing(box=[value + 1 for value in box])),
        "turned": xml(thing(box=[v + 1 for v in upright]), width=HEIGHT, height=WIDTH),
    }
    make(tmp_path, drawn)
    for stem in drawn:
        (tmp_path / PICTURES / f"{stem}.jpg").write_bytes(turned_photo(orientation, box))
    source = VOCSource(tmp_path)
    for i in range(2):
        example = source.read(i)
        assert example.size == (HEIGHT, WIDTH) == example.rgb.shape[1::-1]
        assert example.boxes.tolist() == [upright] == [white_box(example.rgb)]
        np.testing.assert_array_equal(source.annotation(i).boxes, example.boxes)
    assert source.issues == {"derived": 1}
    assert "stored.xml: the boxes were drawn on the picture without" in source.remarks[0]


@pytest.mark.parametrize(("orientation", "side"), [(3, HEIGHT), (2, HEIGHT), (6, WIDTH)])
def test_a_frame_that_cannot_be_known_is_said(tmp_path, orientation, side):
    make(tmp_path, {"1": xml(thing(), height=side)})
    photo = turned_photo(orientation, (8, 5, 19, 11), height=side)
    (tmp_path / PICTURES / "1.jpg").write_bytes(photo)
    report = check(tmp_path)
    assert report.problems == []
    assert [problem.kind for problem in report.repaired] == ["unsure"]
    assert f"EXIF orientation {orientation} keeps the size" in report.repaired[0].message
    assert "cannot be known" in VOCSource(tmp_path).remarks[0]


def test_coco_boxes_follow_the_picture(tmp_path):
    box = (8, 5, 19, 11)
    (tmp_path / "1.jpg").write_bytes(turned_photo(6, box))
    content = coco_of(
        {"id": 1, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}, bbox=[8, 5, 12, 7]
    )
    done = convert(tmp_path, content)
    example = VOCSource(tmp_path, [("out", "trainval")]).read(0)
    assert example.boxes.tolist() == [white_box(example.rgb)]
    assert "without its EXIF rotation; turned" in done.derived[0]


# ------------------------------------------------------------------- what is derived


def test_names_and_sizes_are_derived(tmp_path):
    no_size = xml(thing()).replace(b"<size>", b"<other>").replace(b"</size>", b"</other>")
    annotations = {
        "bare": no_size,
        "zero": xml(thing(), width=0, height=0),
        "folder": xml(thing(), before="<filename>C:\\photos\\folder.jpg</filename>"),
        "nosuffix": xml(thing(), before="<filename>picture_7</filename>"),
        "suffix": xml(thing()),
    }
    make(tmp_path, annotations)
    folder = tmp_path / PICTURES
    (folder / "nosuffix.jpg").rename(folder / "picture_7.jpg")
    (folder / "suffix.jpg").unlink()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "suffix.WEBP")
    source = VOCSource(tmp_path)
    assert [source.read(i).size for i in range(5)] == [(WIDTH, HEIGHT)] * 5
    assert all(source.annotation(i).boxes.tolist() == [[8, 4, 19, 24]] for i in range(5))
    said = {problem.file.rpartition("/")[2]: problem.message for problem in source.findings}
    assert said == {
        "bare.xml": "there is no <size>; it is the picture's",
        "zero.xml": "there is no <size>; it is the picture's",
        "nosuffix.xml": "the picture is picture_7.jpg",
        "suffix.xml": "the picture is suffix.WEBP",
    }


def test_two_pictures_of_one_name(tmp_path):
    make(tmp_path, {"1": xml(thing())})
    folder = tmp_path / PICTURES
    (folder / "1.jpg").rename(folder / "1.png")
    (folder / "1.bmp").touch()
    with pytest.raises(FormatError, match=r"JPEGImages/1: there are 1.bmp and 1.png; expected one"):
        VOCSource(tmp_path)


def test_list_of_one_class(tmp_path):
    make(tmp_path, {"1": xml(thing()), "2": xml(), "3": xml(thing(difficult="1"))})
    lists = tmp_path / "VOC2007" / "ImageSets" / "Main"
    flagged = b"\xef\xbb\xbf# lights\r\n1  1\r\n2 -1\r\n3  0\r\n"
    (lists / "traffic_light_train.txt").write_bytes(flagged)
    source = open_boxes(tmp_path, "2007_traffic_light_train", None)
    ids = [source.annotation(i).image_id for i in range(len(source))]
    assert ids == ["VOC2007/1", "VOC2007/3"]
    assert "1 images without it are left out" in source.remarks[0]


def test_underscores_in_names_of_splits(tmp_path):
    assert parse_splits("2007_traffic_light_train") == [(2007, "traffic_light_train")]
    assert parse_splits("my_set_train") == [("my_set", "train")]
    make(tmp_path, {"1": xml()}, "dog_train", "my_set")
    assert parse_splits("my_set_dog_train", tmp_path) == [("my_set", "dog_train")]
    with pytest.raises(InputError, match="'_train' is not a split"):
        parse_splits("_train")


def coco_of(*images, bbox=(1, 2, 9, 9)):
    return {
        "images": list(images),
        "annotations": [
            {"id": n, "image_id": image["id"], "category_id": 1, "bbox": list(bbox)}
            for n, image in enumerate(images)
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }


def convert(folder, content, **options):
    (folder / "in.json").write_text(json.dumps(content))
    return coco_to_voc(folder / "in.json", folder, folder / "out", **options)


def test_coco_paths(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(picture())
    (tmp_path / "2.jpg").write_bytes(picture())
    size = {"width": WIDTH, "height": HEIGHT}
    content = coco_of(
        {"id": 1, "file_name": "a\\1.jpg", **size},
        {"id": 2, "file_name": "b/1.jpg", **size},
        {"id": 3, "file_name": "train2017/2.jpg"},
    )
    done = convert(tmp_path, content)
    assert sorted(p.name for p in (tmp_path / "out" / "JPEGImages").iterdir()) == [
        "2.jpg", "a_1.jpg", "b_1.jpg",
    ]  # fmt: skip
    assert [line.partition(".jpg: ")[2] for line in done.derived] == [
        "the name occurs twice; it becomes a_1",
        "the name occurs twice; it becomes b_1",
        "found without the folder of 'train2017/2.jpg'",
        "its size is missing; taken from the picture",
    ]
    assert check(tmp_path, [("out", "trainval")]).problems == []


# ------------------------------------------------------------------- what is left out


@pytest.fixture
def faulty(tmp_path):
    annotations = {
        "good": xml(thing()),
        "misspelt": xml(thing("dgo"), thing("dgo"), thing()),
        "word": xml(thing(box=(1, 2, "x", 9)), thing()),
        "xmlless": None,
        "cut": b"<annotation>",
        "damaged": xml(thing()),
        "link": xml(thing()),
        "gone": xml(thing()),
        "gif": xml(thing()),
        "other_size": xml(thing(), width=99),
    }
    make(tmp_path, annotations)
    with open(tmp_path / "VOC2007/ImageSets/Main/test.txt", "a") as file:
        file.write("good\na/b\n")
    folder = tmp_path / PICTURES
    (folder / "damaged.jpg").write_bytes(picture()[:-2])
    for stem in ("link", "gone", "gif"):
        (folder / f"{stem}.jpg").unlink()
    (folder / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "gif.gif").write_bytes(b"GIF89a" + bytes(20))
    return tmp_path


def test_skip_bad_covers_every_fault_and_says_so(faulty):
    source = open_boxes(faulty, "2007_test", None, skip_bad=True)
    kept = [source.read(i).image_id for i in range(len(source))]
    assert kept == ["VOC2007/good", "VOC2007/misspelt", "VOC2007/word"]
    assert all(len(source.annotation(i).labels) == 1 for i in range(3))
    assert source.issues["unknown"] == 2
    assert source.issues["broken"] == 1 + 7 + 2  # an object, seven images, two lines of the list
    unknown, broken, *_ = source.remarks
    assert unknown == (
        "left out 2 objects of 1 classes that are none of the 20: 'dgo' 2 times (meant is 'dog'?)"
    )
    assert broken.startswith("left out 10 faulty images or objects, e.g. ")


def test_without_it_each_fault_names_file_and_flag(faulty):
    lists = faulty / "VOC2007" / "ImageSets" / "Main"
    stems = (lists / "test.txt").read_text().split()
    for number, stem in enumerate(stems[1:], 1):
        (lists / "one.txt").write_text(f"good\n{stem}\n")
        with pytest.raises(FormatError) as caught:
            VOCSource(faulty, [(2007, "one")]).read(1)
        assert "\n" not in str(caught.value)
        name = "one.txt" if number >= 10 else stem
        assert name in str(caught.value).split(": ")[0] or stem == "gif"
        assert str(caught.value).endswith("; correct it, or add --skip-bad to leave it out")


def test_all_left_out_is_an_error(tmp_path):
    make(tmp_path, {"1": None})
    with pytest.raises(InputError, match=r"no image is usable: left out 1 faulty .*1\.xml"):
        VOCSource(tmp_path, skip_bad=True)


def test_skip_bad_of_coco(tmp_path):
    size = {"width": WIDTH, "height": HEIGHT}
    for stem in ("good", "box"):
        (tmp_path / f"{stem}.jpg").write_bytes(picture())
    (tmp_path / "cut.jpg").write_bytes(picture()[:-2])
    names = ("good", "cut", "gone", "box")
    content = coco_of(
        *({"id": n, "file_name": f"{name}.jpg", **size} for n, name in enumerate(names)),
        {"id": "five", "file_name": "good.jpg"},
    )
    content["annotations"][3]["bbox"] = []
    content["annotations"] += [{"id": 9}, {"id": 10, "image_id": 77, "category_id": 1, "bbox": []}]
    done = convert(tmp_path, content, skip_bad=True)
    assert (done.images, done.objects) == (2, 1)
    text = "\n".join(done.skipped)
    parts = (
        "image 2: .*gone.jpg: no such file", "image 4: id is 'five'", "bbox is .., expected",
        "image_id is missing", "no image with id 77", "cut.jpg: truncated JPEG",
    )  # fmt: skip
    for part in parts:
        assert len(re.findall(part, text)) == 1, part
    assert len(done.skipped) == 6
    report = check(tmp_path, [("out", "trainval")])
    assert (report.problems, report.images, report.objects) == ([], 2, 1)


def test_skip_bad_of_lists(tmp_path):
    one = "0\t2\t5\t0\t0.1\t0.2\t0.8\t0.9\t"
    (tmp_path / "classes").mkdir()
    (tmp_path / "train.classes.txt").write_text("dog\n")
    (tmp_path / "good.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8), ".png"))
    (tmp_path / "train.lst").write_bytes(
        f"\ufeff# list\r\n{one}good.png \r\n{one}gone.png\r\n"
        f"2\t2\t5\t7\t0\t0\t1\t1\tgood.png\r\n\r\n".encode()
    )
    source = open_boxes(tmp_path, "train.lst", None, skip_bad=True)
    assert (len(source), source.read(0).labels.tolist()) == (1, [0])
    assert source.remarks[0].startswith("left out 2 faulty images or objects, e.g. ")
    with pytest.raises(FormatError, match=r"image 2 .*: id 7 is not one .*; .* add --skip-bad"):
        DetectionList(tmp_path / "train.lst", tmp_path)
