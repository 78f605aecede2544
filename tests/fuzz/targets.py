"""Every parser of ours, with sound inputs to start from and what must hold of what it accepts.

A parser is an entry of ``TARGETS``; it may refuse with ``REFUSALS`` and nothing else.
"""

import functools
import gzip
import io
import json
import os
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import onnx

from gluon_asymmnet.card import (
    CLASSIFIER,
    DETECTOR,
    ClassifierCard,
    DetectorCard,
    parse_card,
    read_card,
)
from gluon_asymmnet.data.bad_records import SKIPPED_FILE, SkippedRecords
from gluon_asymmnet.data.boxes.coco import coco_to_voc
from gluon_asymmnet.data.boxes.labelimg import labelimg_to_voc
from gluon_asymmnet.data.boxes.records import DetectionList, DetectionRecords
from gluon_asymmnet.data.boxes.voc import VOC_CLASSES, VOCSource
from gluon_asymmnet.data.boxes.voc_download import unpack
from gluon_asymmnet.data.boxes.voc_xml import (
    ClassNames,
    VOCObject,
    annotation_xml,
    is_bare_name,
    parse_annotation,
)
from gluon_asymmnet.data.boxes.yolo import yolo_to_voc
from gluon_asymmnet.data.class_names import load_class_names, name_lines
from gluon_asymmnet.data.fashion import read_idx
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import decode, encode
from gluon_asymmnet.data.records import verify
from gluon_asymmnet.data.records.recordio import MAGIC, RecordFile, frame, pack
from gluon_asymmnet.data.records.repair import repair
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.registry import FAMILIES, ModelSpec
from gluon_asymmnet.models.ssd_spec import parse_detector
from gluon_asymmnet.predict.onnx_header import read_onnx_header
from gluon_asymmnet.report.run_files import read_run
from gluon_asymmnet.train.checkpoint_files import (
    MANIFEST,
    REQUIRED,
    Checkpoint,
    find_damage,
    write_manifest,
)
from gluon_asymmnet.train.checkpoint_files import read_manifest as read_files
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.detector_config import DetectorConfig
from gluon_asymmnet.utils.json_objects import read_json_lines
from gluon_asymmnet.utils.settings import from_json, to_json
from gluon_asymmnet.weights.convert import read_arrays
from gluon_asymmnet.weights.safetensors_file import read_safetensors, write_safetensors
from gluon_asymmnet.weights.state_dict_file import read_state_dict, write_state_dict
from tests import fuzz_params_file
from tests.fuzz import mutations as damage

REFUSALS = (InputError, FileNotFoundError)  # FormatError is an InputError


class Target(NamedTuple):
    """A parser and its inputs."""

    reads: str  # what of ours, for the report
    seeds: Callable[[], list[bytes]]  # each must be accepted
    damaged: Callable[[random.Random, bytes], bytes]
    read: Callable[[Path, bytes], object]  # (an empty folder, input); raises REFUSALS
    bytes_per_byte: int = 60  # memory an input may cost, beyond what is fixed


def picture(level=90, size=(12, 16), encoding=".jpg"):
    return encode(np.full((*size, 3), level, np.uint8), encoding)


# ------------------------------------------------------------------------------ records


def record_seeds():
    labels = (0.0, 2.0, [1.0, 2.5], 1.0)
    plain = b"".join(
        frame(pack(i, label, picture(40 * i, encoding=(".jpg", ".png")[i % 2])))
        for i, label in enumerate(labels)
    )
    split = frame(pack(0, 1, picture() + MAGIC * 2)) + frame(pack(1, 0, picture()))
    return [plain, split]


def damaged_records(rng, seed):
    """At the frames and headers, or anywhere."""
    if rng.random() < 0.4:
        return damage.damaged_bytes(rng, seed)
    starts = [at for at in range(0, len(seed), 4) if seed[at : at + 4] == MAGIC]
    fields = [at + offset for at in starts for offset in (0, 4, 4, 8, 12, 16, 24, 32)]
    return damage.damaged_fields(rng, seed, [at for at in fields if at + 4 <= len(seed)])


def write_records(folder, data, index=b"", name="a"):
    path = folder / f"{name}.rec"
    path.write_bytes(data)
    if index:
        path.with_suffix(".idx").write_bytes(index)
    return path


def read_records(folder, data):
    with RecordFile(write_records(folder, data)) as file:
        for i in range(len(file)):
            file.label(i)
            decode(file.read(i).image)


def read_and_repair(folder, data):
    """``verify`` and ``repair`` cope with any content, and what is repaired is sound."""
    rec = write_records(folder, data)
    report = verify.verify(rec, threads=1)
    try:
        kept = repair(rec, folder / "b.rec", threads=1)
    except InputError:
        assert report.bad, "a sound file was refused"
        raise
    assert report.bad or not kept.dropped  # where padding alone is cut off, nothing is lost
    assert verify.verify(folder / "b.rec", threads=1)[:2] == (kept.records, [])


INDEX = b"7\t0\n3\t%d\n5\t%d\n9\t%d\n"


@functools.cache
def indexed():
    """A record file and its index."""
    data = record_seeds()[0]
    starts = [at for at in range(4, len(data), 4) if data[at : at + 4] == MAGIC]
    return data, INDEX % tuple(starts)


def read_index(folder, data):
    with RecordFile(write_records(folder, indexed()[0], data)) as file:
        assert len(file) <= len(indexed()[0]) // 8
        for i in range(len(file)):
            file.read(i)


def damaged_index(rng, seed):
    return damage.damaged_lines(rng, seed) or b"\n"


# ------------------------------------------------------------------------------ images


def image_seeds():
    grey = cv2.imencode(".png", np.arange(48, dtype=np.uint8).reshape(6, 8))[1].tobytes()
    deep = cv2.imencode(".png", np.ones((5, 7, 3), np.uint16))[1].tobytes()
    clear = cv2.imencode(".png", np.ones((5, 7, 4), np.uint8))[1].tobytes()
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1]
    stepped = cv2.imencode(".jpg", np.ones((20, 30, 3), np.uint8), options)[1].tobytes()
    return [picture(), picture(encoding=".png"), grey, deep, clear, stepped]


def read_image(folder, data):
    rgb, info = decode(data), image_info(data)
    assert rgb.shape == (info.height, info.width, 3)
    assert rgb.dtype == np.uint8


# ------------------------------------------------------------------------------ boxes


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


# ------------------------------------------------------------------------------ weights


ARRAYS = {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(4, dtype=np.int64)}


def written(write, name):
    """The bytes that ``write(path, ARRAYS)`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path, ARRAYS)
        return path.read_bytes()


def idx_seeds():
    """An array of bytes, plain and compressed."""
    plain = bytes.fromhex("00000803 00000002 00000002 00000003") + bytes(range(12))
    return [plain, gzip.compress(plain, mtime=0)]


def read_idx_array(folder, data):
    (folder / "a").write_bytes(data)
    read_idx(folder / "a")


def params_seeds():
    """Without those that only a refusal fits: no shape, sparse, no names."""
    found = fuzz_params_file.seeds()
    return [*found[:4], found[-1]]


def read_params(folder, data):
    """A round trip of what is accepted, too."""
    accepted, _ = fuzz_params_file.check(folder, data)
    if not accepted:
        raise InputError("refused")


def reader(read, name):
    """Return a function that writes its input to a file and reads it."""

    def read_file(folder, data):
        (folder / name).write_bytes(data)
        found = read(folder / name)
        assert isinstance(found, dict)

    return read_file


def npz(compressed):
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **ARRAYS)
    return out.getvalue()


# ------------------------------------------------------------------------------ JSON of ours


def card_seeds():
    named = ClassifierCard(classes=2, class_names=["a", "b"], width=0.5, parity={"onnx": 1e-6})
    return [ClassifierCard().text().encode(), named.text().encode()]


def read_classifier_card(folder, data):
    """Planning its network is part of reading it: the next thing done with a card."""
    (folder / "card.json").write_bytes(data)
    card = read_card(folder / "card.json", CLASSIFIER)
    parse_card(card.text(), "again")
    assert card.preprocessing.input_size == card.input_size
    card.model_spec.plan()


def onnx_seeds():
    """A graph of one node, as PyTorch writes it, and one with a free batch and a card."""
    port = functools.partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    node, models = onnx.helper.make_node("Relu", ["x"], ["y"]), []
    for batch in (1, "batch"):
        ports = ([port(name, shape=[batch, 3, 8, 8])] for name in "xy")
        models.append(onnx.helper.make_model(onnx.helper.make_graph([node], "net", *ports)))
    onnx.helper.set_model_props(models[1], {"card": card_seeds()[0].decode(), "other": ""})
    return [model.SerializeToString() for model in models]


def read_header_of_onnx(folder, data):
    try:
        header = read_onnx_header(data)
    except ValueError as error:  # the engine names the file, too
        raise FormatError(str(error)) from None
    for shape in (*header.inputs, *header.outputs.values()):
        assert all(side is None or isinstance(side, int) for side in shape)


def spec_seeds():
    specs = [
        {"family": "antnet", "settings": {"groups": 2}},
        {"family": "mobilenetv2", "settings": {"rate": 2, "attention": "eca"}},
    ]
    return [json.dumps(spec).encode() for spec in specs]


def read_model_spec(folder, data):
    (folder / "net.json").write_bytes(data)
    assert ModelSpec.parse(str(folder / "net.json")).family_model.family in FAMILIES


def detector_card_seeds():
    return [DetectorCard("ssd_300_asymmnet_small_custom", 300, ["a", "b"]).text().encode()]


def read_card_of_a_detector(folder, data):
    (folder / "card.json").write_bytes(data)
    card = read_card(folder / "card.json", DETECTOR)
    assert card.normalization.mean == card.rgb_mean
    parse_detector(card.model)


def read_config(folder, data, kind):
    (folder / "config.json").write_bytes(data)
    to_json(from_json(kind, folder / "config.json"))


def read_skipped(folder, data):
    (folder / SKIPPED_FILE).write_bytes(data)
    SkippedRecords(1).log_to(folder, lambda *_: None)


def skipped_seeds():
    rows = ({"step": i, "position": 7 * i, "reason": f"record {i} is bad"} for i in range(3))
    return ["\n".join(map(json.dumps, rows)).encode()]


# ------------------------------------------------------------------------------ runs


def write_checkpoint(folder):
    """A checkpoint of step 7, whole as far as its manifest says."""
    found = Checkpoint(folder / "step-000000007", 7)
    found.path.mkdir()
    for name in REQUIRED:
        (found.path / name).write_text(name)
    write_manifest(found.path, found.step)
    return found


def manifest_seeds():
    with tempfile.TemporaryDirectory() as folder:
        return [(write_checkpoint(Path(folder)).path / MANIFEST).read_bytes()]


def read_manifest(folder, data):
    """No file outside the checkpoint may be looked at: one lies there."""
    (folder / "outside").write_text("x")
    found = write_checkpoint(folder)
    (found.path / MANIFEST).write_bytes(data)
    reason = find_damage(found)
    if reason is not None:
        raise InputError(reason)
    assert set(read_files(found.path / MANIFEST)) >= set(REQUIRED)
    assert "outside" not in str(read_files(found.path / MANIFEST))


def read_state(folder, data):
    found = write_checkpoint(folder)
    (found.path / "state.json").write_bytes(data)
    assert isinstance(found.read_state(), dict)


def state_seeds():
    sums = {"loss": 1.5, "metric": 3.0, "steps": 2}
    state = {"step": 7, "best": 0.5, "best_epoch": 1, "best_step": 4, "sums": sums, "seed": 0}
    return [json.dumps(state).encode()]


def run_seeds():
    rows = [
        {"step": 4 * i, "epoch": i, "seconds": 1.5, "images": 32, "lr": 0.1, "val_top1": 0.1 * i}
        for i in range(3)
    ]
    return ["".join(json.dumps(row) + "\n" for row in rows).encode()]


def read_run_files(folder, data):
    """Its lines as metrics and events, and the whole as each of the other files."""
    for name in ("config.json", "card.json", "environment.json", "metrics.jsonl", "events.jsonl"):
        (folder / name).write_bytes(data)
    run = read_run(folder)
    assert all(isinstance(row, dict) for row in read_json_lines(folder / "metrics.jsonl"))
    assert all("\n" not in problem for problem in run.problems)
    assert [row["epoch"] for row in run.metrics] == sorted({row["epoch"] for row in run.metrics})
    assert run.state in ("stopped", "finished")
    assert run.best is None or run.best in run.metrics


# ------------------------------------------------------------------------------ archives


def tar_seeds():
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for part in ("Annotations", "ImageSets", "JPEGImages"):
                folder = tarfile.TarInfo(f"VOCdevkit/VOC2007/{part}")
                folder.type = tarfile.DIRTYPE
                archive.addfile(folder)
            for name in ("a.jpg", "n" * 120 if form != tarfile.USTAR_FORMAT else "b.jpg"):
                file = tarfile.TarInfo(f"VOCdevkit/VOC2007/JPEGImages/{name}")
                file.size = 700
                archive.addfile(file, io.BytesIO(b"x" * 700))
        found.append(out.getvalue())
    return found


def read_tar(folder, data):
    """Nothing but folders and plain files, nowhere but inside; no more bytes than came."""
    (folder / "a.tar").write_bytes(data)
    out = folder / "box/out"
    out.mkdir(parents=True)
    try:
        unpack(folder / "a.tar", "VOC2007", out)
    finally:
        assert {p.name for p in folder.iterdir()} == {"a.tar", "box"}
        assert [p.name for p in (folder / "box").iterdir()] == ["out"]
        inside = list(out.rglob("*"))
        assert not any(p.is_symlink() or not (p.is_dir() or p.is_file()) for p in inside)
        assert sum(p.stat().st_size for p in inside if p.is_file()) <= len(data)


def config_seeds(kind):
    return lambda: [to_json(kind()).encode()]


TARGETS = {
    "recordio": Target("`RecordFile`", record_seeds, damaged_records, read_records, 20_000),
    "repair": Target(
        "`verify.verify`, `repair`", record_seeds, damaged_records, read_and_repair, 20_000
    ),
    "idx": Target("the index of `RecordFile`", lambda: [indexed()[1]], damaged_index, read_index),
    "image": Target(
        "`images.decode`, `image_info`", image_seeds, damage.damaged_image, read_image,
        6 * 1032 * 8,  # two copies of the pixels that a byte of PNG can hold
    ),
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
    "params": Target("`read_params`", params_seeds, damage.damaged_bytes, read_params),
    "idx array": Target("`read_idx`", idx_seeds, damage.damaged_bytes, read_idx_array, 2000),
    "safetensors": Target(
        "`read_safetensors`", lambda: [written(write_safetensors, "a.safetensors")],
        damage.damaged_safetensors, reader(read_safetensors, "a.safetensors"),
    ),
    "npz": Target(
        "`read_arrays`", lambda: [npz(False), npz(True)], damage.damaged_zip,
        reader(read_arrays, "a.npz"), 2000,
    ),
    "state dict": Target(
        "`read_state_dict`", lambda: [written(write_state_dict, "a.pt")], damage.damaged_zip,
        reader(read_state_dict, "a.pt"), 2000,
    ),
    "onnx header": Target(
        "`read_onnx_header`", onnx_seeds, damage.damaged_bytes, read_header_of_onnx, 2000
    ),
    "card": Target("`read_card`", card_seeds, damage.damaged_json, read_classifier_card),
    "spec": Target("`ModelSpec.parse`", spec_seeds, damage.damaged_json, read_model_spec),
    "detector card": Target(
        "`read_card`", detector_card_seeds, damage.damaged_json, read_card_of_a_detector
    ),
    "classifier config": Target(
        "`config.from_json`", config_seeds(ClassifierConfig), damage.damaged_json,
        functools.partial(read_config, kind=ClassifierConfig),
    ),
    "detector config": Target(
        "`config.from_json`", config_seeds(DetectorConfig), damage.damaged_json,
        functools.partial(read_config, kind=DetectorConfig),
    ),
    "skipped records": Target(
        "`SkippedRecords.log_to`", skipped_seeds, damage.damaged_json_lines, read_skipped
    ),
    "manifest": Target(
        "`checkpoint_files.find_damage`", manifest_seeds, damage.damaged_json, read_manifest
    ),
    "state": Target("`Checkpoint.read_state`", state_seeds, damage.damaged_json, read_state),
    "run files": Target(
        "`report.read_run`, `read_json_lines`", run_seeds, damage.damaged_json_lines,
        read_run_files, 400,
    ),
    "tar": Target("`voc_download.unpack`", tar_seeds, damage.damaged_tar, read_tar, 400),
}  # fmt: skip


def input_of(name: str, seeds: list[bytes], seed: int, index: int) -> bytes:
    """Return input ``index`` of a campaign: always the same bytes."""
    rng = random.Random(f"{name} {seed} {index}")
    return TARGETS[name].damaged(rng, rng.choice(seeds))


def empty(folder: Path) -> None:
    """Remove what an input has left in its folder."""
    for item in folder.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()
