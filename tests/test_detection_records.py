"""Detection records and lists, and COCO's JSON as a VOC folder."""

import json

import numpy as np
import pytest

from gluon_asymmnet.cli.voc import build_parser
from gluon_asymmnet.data.boxes.coco import coco_to_voc
from gluon_asymmnet.data.boxes.records import DetectionList, DetectionRecords
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.boxes.voc_check import check
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import FormatError, InputError
from tests.floats import assert_close

WIDTH, HEIGHT = 40, 30
RGB = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
# A, B, width, height, then id, corners as fractions, difficult.
LABEL = [4, 6, 40, 30, 1, 0.25, 0.1, 0.5, 0.9, 0, 0, 0, 0, 1, 1, 1]
BOXES = [[10, 3, 20, 27], [0, 0, 40, 30]]  # 0.25 * 40, 0.1 * 30, ...


def write_rec(folder, *labels):
    with RecordWriter(folder / "train.rec") as writer:
        for key, label in enumerate(labels):
            writer.write(key, label, encode(RGB))
    (folder / "train.classes.txt").write_text("cat\ndog\n")
    return folder / "train.rec"


def records_of(source, rec):
    """The pictures of a VOCSource as GluonCV's records, byte for byte."""
    with RecordWriter(rec) as writer:
        for i in range(len(source)):
            one = source.annotation(i)
            rows = np.column_stack([one.labels, one.boxes / np.tile(one.size, 2), one.difficult])
            picture = source.path / one.image_id.replace("/", "/JPEGImages/")
            writer.write(i, [2, 6, *rows.ravel()], picture.with_suffix(".jpg").read_bytes())
    rec.with_suffix(".classes.txt").write_text("\n".join(source.class_names) + "\n")
    return rec


def write_lst(folder, *labels):
    (folder / "train.classes.txt").write_text("cat\ndog\n")
    (folder / "photos").mkdir(exist_ok=True)
    lines = []
    for key, label in enumerate(labels):
        (folder / "photos" / f"{key}.jpg").write_bytes(encode(RGB))
        lines.append("\t".join(map(str, [key, *label, f"photos/{key}.jpg"])) + "\n")
    (folder / "train.lst").write_text("".join(lines))
    return folder / "train.lst"


def open_any(kind, folder, *labels, **options):
    if kind == "rec":
        return DetectionRecords(write_rec(folder, *labels), **options)
    return DetectionList(write_lst(folder, *labels), folder, **options)


both = pytest.mark.parametrize("kind", ["rec", "lst"])


@both
def test_reads(tmp_path, kind):
    source = open_any(kind, tmp_path, LABEL, [2, 5])
    assert len(source) == 2 and source.class_names == ["cat", "dog"]
    found = source.read(0)
    assert_close(found.boxes, BOXES, axes=())  # the record holds float32
    assert found.boxes.dtype == np.float32
    assert found.labels.tolist() == [1, 0]
    assert found.difficult.tolist() == [False, True]
    assert (found.image_id, found.size) == ("0", (WIDTH, HEIGHT))
    assert np.abs(found.rgb.reshape(-1, 3).mean(0) - (200, 100, 50)).max() < 3
    assert source.annotation(0).rgb is None
    assert source.annotation(1).boxes.shape == (0, 4)


@both
def test_pixels_padding_and_five_numbers(tmp_path, kind):
    label = [2, 5, 0, 10, 3, 20, 27, -1, -1, -1, -1, -1, 1, -5, 0, 99, 30]
    found = open_any(kind, tmp_path, label, normalised=False).annotation(0)
    np.testing.assert_array_equal(found.boxes, [[10, 3, 20, 27], [0, 0, 40, 30]])
    assert found.labels.tolist() == [0, 1]
    assert not found.difficult.any()


def test_gluoncv_reads_the_same(tmp_path):
    from gluon_asymmnet._mxnet import gluoncv

    ours = DetectionRecords(write_rec(tmp_path, LABEL)).read(0)
    theirs = gluoncv.data.RecordFileDetection(str(tmp_path / "train.rec"))
    listed = gluoncv.data.LstDetection(str(write_lst(tmp_path, LABEL)), root=str(tmp_path))
    for image, label in (theirs[0], listed[0]):
        assert_close(ours.boxes, label[:, :4], axes=())
        np.testing.assert_array_equal(ours.labels, label[:, 4])
        np.testing.assert_array_equal(ours.difficult, label[:, 5])
        np.testing.assert_array_equal(ours.rgb, image.asnumpy())


@both
@pytest.mark.parametrize(
    "label, message",
    [
        ([1, 5], "header has 1 numbers; expected 2 to 2"),
        ([9, 5, 0], "header has 9 numbers; expected 2 to 3"),
        ([2.5, 5, 0], "header has 2.5 numbers"),
        ([2, 4, 0, 0, 0, 1], "object has 4 numbers; expected 5 or more"),
        ([2, 5, 0, 0, 0, 1], "4 numbers follow the header; expected a multiple of 5"),
        ([2, 5, 2, 0, 0, 1, 1], "object 1: id 2 is not one of the 2 classes"),
        ([2, 5, 0.5, 0, 0, 1, 1], "object 1: id 0.5 is not one of the 2 classes"),
        ([2, 5, 0, 0.5, 0, 0.25, 1], r"object 1: the box \(0.5, 0, 0.25, 1\) is empty or inverted"),
        ([2, 5, 0, np.nan, 0, 0.25, 1], "not a row of numbers that starts with A, B"),
    ],
)
def test_malformed_labels(tmp_path, kind, label, message):
    with pytest.raises(FormatError, match=rf"train\.{kind}, (record|image) 1 .*: .*{message}"):
        open_any(kind, tmp_path, LABEL, label)


@both
def test_box_outside_the_image(tmp_path, kind):
    source = open_any(kind, tmp_path, [2, 5, 0, 1.5, 0, 2, 1])
    with pytest.raises(FormatError, match=r"object 1: the box \(1.5, 0, 2, 1\) lies outside"):
        source.annotation(0)


def test_classification_record(tmp_path):
    with pytest.raises(FormatError, match=r"record 0 .* not a row of numbers"):
        DetectionRecords(write_rec(tmp_path, 3.0))


@both
def test_classes_must_be_known(tmp_path, kind):
    open_any(kind, tmp_path, LABEL)
    (tmp_path / "train.classes.txt").unlink()
    opened = {"rec": DetectionRecords, "lst": lambda p, **o: DetectionList(p, tmp_path, **o)}[kind]
    with pytest.raises(InputError, match="there are no class names; name the classes, or write"):
        opened(tmp_path / f"train.{kind}")
    assert opened(tmp_path / f"train.{kind}", classes=["a", "b"]).class_names == ["a", "b"]


@pytest.mark.parametrize("path", ["../x.jpg", "/x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:\\x.jpg"])
def test_lists_that_leave_the_folder(tmp_path, path):
    lst = write_lst(tmp_path, LABEL)
    lst.write_text(lst.read_text() + f"1\t2\t5\t{path}\n")
    with pytest.raises(FormatError, match=r"train.lst: line 2: '.*x.jpg' is not a path below"):
        DetectionList(lst, tmp_path)


def test_lists_that_are_none(tmp_path):
    lst = write_lst(tmp_path, LABEL)
    (tmp_path / "photos" / "0.jpg").unlink()
    with pytest.raises(FormatError, match=r"0.jpg\): no such file, but the image is listed"):
        DetectionList(lst, tmp_path).read(0)
    for content, message in {
        b"": "lists no image",
        b"0 2 5 a.jpg\n": "line 1 has 1 fields; expected number, label, path",
        b"\xff\n": "byte 0 is not UTF-8",
        b"0\t2\tfive\ta.jpg\n": "not a row of numbers",
    }.items():
        lst.write_bytes(content)
        with pytest.raises(FormatError, match=message):
            DetectionList(lst, tmp_path)
    with pytest.raises(FileNotFoundError, match="no such list of images"):
        DetectionList(tmp_path / "absent.lst", tmp_path)


# ------------------------------------------------------------------- COCO


def coco():
    """Two pictures, one below a folder and a PNG; category ids with gaps, not in order."""
    return {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 9, "file_name": "more/b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "categories": [{"id": 90, "name": "tooth & brush"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 10.5], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [-2, 0, 100, 100], "iscrowd": 1},
        ],
    }


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos" / "more").mkdir(parents=True)
    (tmp_path / "photos" / "a.jpg").write_bytes(encode(RGB))
    (tmp_path / "photos" / "more" / "b.png").write_bytes(encode(RGB, ".png"))
    return tmp_path / "photos"


def convert(photos, content, **options):
    path = photos.parent / "coco.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return coco_to_voc(path, photos, photos.parent / "data" / "mine", **options)


def test_coco_becomes_voc(photos):
    seen = []
    done = convert(photos, coco(), split="val", progress=lambda *counts: seen.append(counts))
    assert done == (2, 2, ["car", "tooth & brush"], [], [], {"val": 2})
    assert seen == [(1, 2), (2, 2)]
    root = photos.parent / "data"
    source = VOCSource(root, [("mine", "val")])
    assert source.class_names == ["car", "tooth & brush"]
    first, second = source.read(0), source.read(1)
    # 10 + 20 - 1 and 5 + 10.5 - 1, then the crowd, cut at the border.
    np.testing.assert_array_equal(first.boxes, [[10, 5, 29, 14.5], [0, 0, 39, 29]])
    assert first.labels.tolist() == [1, 0]
    assert first.difficult.tolist() == [False, True]
    assert [first.image_id, second.image_id] == ["mine/a", "mine/b"]
    assert second.boxes.shape == (0, 4)
    folder = root / "mine" / "JPEGImages"
    assert (folder / "a.jpg").read_bytes() == (photos / "a.jpg").read_bytes()
    assert image_info((folder / "b.jpg").read_bytes()).format == "jpeg"
    report = check(root, [("mine", "val")])
    assert report.problems == report.repaired == []


@pytest.mark.parametrize(
    "part, n, change, message",
    [
        ("images", 0, {"id": "7"}, "image 0: id is '7', expected a whole number"),
        ("images", 0, {"id": True}, "image 0: id is True, expected a whole number"),
        ("images", 1, {"id": 7}, "image 1: id 7 is used twice"),
        ("images", 0, {"file_name": None}, "file_name is None, expected a text"),
        ("images", 0, {"file_name": "../a.jpg"}, "'../a.jpg' is not a path below"),
        ("images", 0, {"file_name": "/a.jpg"}, "'/a.jpg' is not a path below"),
        ("images", 0, {"file_name": "c.jpg"}, "image 0: .*c.jpg: no such file"),
        ("images", 0, {"file_name": "more/b.png"}, "would get the same name"),
        ("images", 0, {"width": 41}, "a.jpg: the image has 40 x 30 pixels, .* 41 x 30"),
        ("categories", 0, {"id": 3}, "category 1: id 3 is used twice"),
        ("categories", 0, {"name": 5}, "category 0: name is 5, expected a text"),
        ("categories", 0, {"name": "CAR"}, "class 1 .* equals class 0"),
        ("categories", 0, {"name": "c\x01"}, "XML does not allow"),
        ("annotations", 0, {"image_id": 8}, r"annotation 0 \(id 1\): there is no image with id 8"),
        ("annotations", 1, {"category_id": 1}, r"\(id 2\): there is no category with id 1"),
        ("annotations", 0, {"iscrowd": 2}, "iscrowd is 2, expected 0 or 1"),
        ("annotations", 0, {"bbox": [1, 2, 3]}, r"bbox is \[1, 2, 3\], expected 4 finite numbers"),
        ("annotations", 0, {"bbox": [1, 2, 3, "4"]}, "expected 4 finite numbers"),
        ("annotations", 0, {"bbox": [1, 2, 3, float("nan")]}, "expected 4 finite numbers"),
        ("annotations", 0, {"bbox": [1, 2, 3, 10**400]}, "expected 4 finite numbers"),
        ("annotations", 0, {"bbox": [1, 2, 0, 9]}, r"the box \[1, 2, 0, 9\] is empty"),
        ("annotations", 0, {"bbox": [50, 2, 9, 9]}, r"outside the 40 x 30 image"),
    ],
)
def test_malformed_coco(photos, part, n, change, message):
    content = coco()
    content[part][n].update(change)
    with pytest.raises(InputError, match=message) as caught:
        convert(photos, content)
    assert "\n" not in str(caught.value)
    assert not (photos.parent / "data" / "mine").exists()
    assert list((photos.parent).glob("data/.*")) == []


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "not COCO annotations: Expecting value"),
        ("[" * 100_000, "not COCO annotations: maximum recursion"),
        ("[]", "not COCO annotations: it holds a list, not an object"),
        ('{"images": [], "annotations": [], "categories": []}', "it lists no image"),
        ('{"images": [1], "annotations": [], "categories": []}', "a list 'images' of objects"),
        ('{"images": [{}], "annotations": 5, "categories": []}', "a list 'annotations' of obj"),
    ],
)
def test_json_that_is_not_coco(photos, content, message):
    with pytest.raises(FormatError, match=f"coco.json: .*{message}"):
        convert(photos, content)


def test_damaged_picture_stops_the_conversion(photos):
    (photos / "a.jpg").write_bytes(encode(RGB)[:-2])
    with pytest.raises(FormatError, match=r"a.jpg: truncated JPEG"):
        convert(photos, coco())
    assert list((photos.parent / "data").iterdir()) == []


def test_bad_boxes_are_skipped_on_request(photos, capsys):
    content = coco()
    content["annotations"][0]["bbox"] = [1, 2, 1, 9]
    done = convert(photos, content, skip_bad=True)
    assert done.objects == 1
    assert done.skipped == [
        "annotation 0 (id 1): the box [1, 2, 1, 9] is empty, one pixel wide or high, or outside "
        "the 40 x 30 image"
    ]
    parser = build_parser("asymmnet voc")
    out = photos.parent / "again"
    words = [photos.parent / "coco.json", photos, out, "--split", "train", "--skip-bad"]
    args = parser.parse_args(["from-coco", *map(str, words)])
    assert args.run(args) == 0
    output = capsys.readouterr().out
    assert "skipped annotation 0" in output
    assert f"{out}: 2 images, 1 objects, 2 classes" in output
    assert output.endswith(f"asymmnet voc check {out.parent} --splits again_train\n")


def test_wrong_arguments(photos):
    with pytest.raises(InputError, match="split must be a bare name"):
        convert(photos, coco(), split="../val")
    with pytest.raises(FileNotFoundError, match="no such COCO file"):
        coco_to_voc(photos / "absent.json", photos, photos.parent / "out")
    convert(photos, coco())
    with pytest.raises(InputError, match="mine exists already"):
        convert(photos, coco())
