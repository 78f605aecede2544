"""Boxes of objects: VOC, COCO, labelImg, YOLO, lists and records; names of classes."""

import json
import os
from pathlib import Path

import numpy as np

from gluon_asymmnet.data.boxes.coco import coco_to_voc
from gluon_asymmnet.data.boxes.labelimg import labelimg_to_voc
from gluon_asymmnet.data.boxes.records import DetectionList, DetectionRecords
from gluon_asymmnet.data.boxes.voc import VOC_CLASSES, VOCSource
from gluon_asymmnet.data.boxes.voc_xml import (
    ClassNames,
    VOCObject,
    annotation_xml,
    is_bare_name,
    parse_annotation,
)
from gluon_asymmnet.data.boxes.yolo import yolo_to_voc
from gluon_asymmnet.data.class_names import load_class_names, name_lines
from gluon_asymmnet.data.records.recordio import frame, pack
from tests.fuzz import mutations as damage
from tests.fuzz.parsers.base import Target, picture
from tests.fuzz.parsers.records import damaged_records, write_records


def voc_object(name, *box, difficult=False):
    return VOCObject(name, box, difficult)


def xml_seeds():
    cat = [voc_object("cat", 2, 3, 10, 9), voc_object("dog", 0, 0, 15, 11, difficult=True)]
    return [
        annotation_xml("a.jpg", (16, 12), cat).encode(),
        b'<?xml version="1.0" encoding="utf-8"?>' + annotation_xml("b.jpg", (9, 9), []).encode(),
    ]


def read_xml(folder, data):
    found = parse_annotation(data, ClassNames(VOC_CLASSES))
    width, height = found.size
    assert np.isfinite(found.boxes).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [width, height, width, height]).all()
    assert ((found.labels >= 0) & (found.labels < 20)).all()
    assert found.filename is None or is_bare_name(found.filename)
    assert all("\n" not in issue.message for issue in found.issues)


def read_image_set(folder, data):
    """The list of a split; its images are two."""
    root = folder / "VOC2007"
    for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / part).mkdir(parents=True)
    for stem in ("000005", "b"):
        (root / f"Annotations/{stem}.xml").write_bytes(xml_seeds()[0])
        (root / f"JPEGImages/{stem}.jpg").write_bytes(picture())
    (root / "ImageSets/Main/test.txt").write_bytes(data)
    source = VOCSource(folder)
    for i in range(len(source)):
        assert Path(source.name(i)).resolve().parent == (root / "Annotations").resolve()
        source.read(i)


def coco_seeds():
    images = [
        {"id": 5, "file_name": "a.jpg", "width": 16, "height": 12},
        {"id": 9, "file_name": "sub/b.jpg", "width": 16, "height": 12},
    ]
    annotations = [
        {"id": 1, "image_id": 5, "category_id": 3, "bbox": [1, 2, 9.5, 6], "iscrowd": 0},
        {"id": 2, "image_id": 9, "category_id": 1, "bbox": [0, 0, 16, 12]},
    ]
    categories = [{"id": 1, "name": "dog"}, {"id": 3, "name": "cat"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return [json.dumps(content).encode()]


def read_coco(folder, data):
    (folder / "images/sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (folder / "images" / name).write_bytes(picture())
    (folder / "in.json").write_bytes(data)
    import_boxes(coco_to_voc, folder, folder / "in.json", folder / "images", split="train")


def import_boxes(convert, folder, *sources, **settings):
    """What is converted can be read; nothing is written anywhere else."""
    before = set(folder.rglob("*"))
    try:
        convert(*sources, folder / "out", **settings)
    finally:
        outside = {p for p in folder.rglob("*") if (folder / "out") not in (p, *p.parents)}
        assert outside == before, outside ^ before
    read_boxes(VOCSource(folder, [("out", "train")]))


def read_labelimg(folder, data):
    """One picture with the input beside it, and one that is sound."""
    for name, xml in (("a", data), ("b", xml_seeds()[0])):
        (folder / f"in/{name}.jpg").parent.mkdir(exist_ok=True)
        (folder / f"in/{name}.jpg").write_bytes(picture())
        (folder / f"in/{name}.xml").write_bytes(xml)
    import_boxes(labelimg_to_voc, folder, folder / "in", shares={})


def write_yolo(folder):
    """Write two pictures of classes "x" and "y", one with a label file, and ``data.yaml``."""
    for name in ("images/a.jpg", "images/b.jpg", "labels/b.txt"):
        (folder / f"in/{name}").parent.mkdir(parents=True, exist_ok=True)
    for name in "ab":
        (folder / f"in/images/{name}.jpg").write_bytes(picture())
    (folder / "in/labels/b.txt").write_bytes(b"1 0.5 0.5 0.5 0.5\n")
    (folder / "in/data.yaml").write_bytes(YOLO_SHEETS[0])


def read_yolo_labels(folder, data):
    write_yolo(folder)
    (folder / "in/labels/a.txt").write_bytes(data)
    import_boxes(yolo_to_voc, folder, folder / "in", shares={})


YOLO_LABELS = [
    b"0 0.5 0.5 0.25 0.5\n1 0.125 0.25 0.25 0.5\n",
    b"1 0.1 0.1 0.9 0.2 0.5 0.9\n\n0 5e-1 .5 1.0 1\r\n",  # a polygon
]
YOLO_SHEETS = [
    b"path: .\ntrain: images\nnames: [x, y]\nnc: 2\n",
    b"train: [images]\nval:\nnames:\n  0: x\n  1: y\n",
]


def read_yolo_sheet(folder, data):
    write_yolo(folder)
    (folder / "in/data.yaml").write_bytes(data)
    import_boxes(yolo_to_voc, folder, folder / "in", shares={})


def list_seeds():
    one = "0\t2\t5\t1\t0.1\t0.2\t0.8\t0.9\ta.jpg\n"
    return [f"{one}1\t4\t6\t16\t12\t0\t0\t0\t0.5\t0.5\t1\tsub/b.jpg\n".encode(), one.encode()]


def read_list(folder, data):
    root = folder / "images"
    (root / "sub").mkdir(parents=True)
    for name in ("a.jpg", "sub/b.jpg"):
        (root / name).write_bytes(picture())
    (folder / "a.lst").write_bytes(data)
    read_boxes(DetectionList(folder / "a.lst", root, ["x", "y"]), root)


def read_boxes(source, root=None):
    for i in range(len(source)):
        if root is not None:
            assert Path(os.path.normpath(source._files[i])).is_relative_to(root)
        found = source.read(i)
        width, height = found.size
        assert np.isfinite(found.boxes).all()
        assert (found.boxes <= [width, height, width, height]).all()


def box_record_seeds():
    label = [2, 6, 1, 0.1, 0.2, 0.8, 0.9, 0, 0, 0.5, 0.5, 1.0, 1.0, 1]
    return [frame(pack(0, label, picture())) + frame(pack(1, [4, 5, 16, 12], picture()))]


def damaged_box_records(rng, seed):
    labels = [8 + 24 + 4 * i for i in range(14)]
    if rng.random() < 0.5:
        data = bytearray(seed)
        at = rng.choice(labels)
        value = float(rng.choice((-1, 0, 1, 2, 3, 5, 6, 2**31, 1e30, np.nan, np.inf, 0.5)))
        data[at : at + 4] = np.float32(value).tobytes()
        return bytes(data)
    return damaged_records(rng, seed)


def read_box_records(folder, data):
    read_boxes(DetectionRecords(write_records(folder, data), classes=["x", "y"]))


def read_class_names(folder, data):
    (folder / "a.txt").write_bytes(data)
    names = load_class_names(folder / "a.txt")
    (folder / "b.txt").write_bytes(name_lines(names))
    assert load_class_names(folder / "b.txt") == names


TARGETS = {
    "lst": Target("`DetectionList`", list_seeds, damage.damaged_lines, read_list, 400),
    "box records": Target(
        "`DetectionRecords`", box_record_seeds, damaged_box_records, read_box_records, 20_000
    ),
    "voc xml": Target("`parse_annotation`", xml_seeds, damage.damaged_xml, read_xml, 150),
    "image set": Target(
        "the lists of `VOCSource`", lambda: [b"000005\nb\n", b"b\r\n"], damage.damaged_lines,
        read_image_set, 400,
    ),
    "coco json": Target("`coco_to_voc`", coco_seeds, damage.damaged_json, read_coco, 400),
    "labelimg xml": Target(
        "`labelimg_to_voc`", lambda: xml_seeds()[:1], damage.damaged_xml, read_labelimg, 400
    ),
    "yolo labels": Target(
        "`yolo_to_voc`", lambda: YOLO_LABELS, damage.damaged_lines, read_yolo_labels, 400
    ),
    "yolo data": Target(
        "`yolo_to_voc`", lambda: YOLO_SHEETS, damage.damaged_lines, read_yolo_sheet, 400
    ),
    "class names": Target(
        "`load_class_names`", lambda: [b"cat\ndog\n", "cat\r\nÄ ß\n".encode()],
        damage.damaged_lines, read_class_names,
    ),
}  # fmt: skip
