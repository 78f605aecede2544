"""Detectors exported and run: three engines find the same in real pictures."""

import csv
import dataclasses
import functools
import json
import shutil

import cv2
import numpy as np
import onnx
import pytest
from sklearn.datasets import load_sample_image

from gluon_asymmnet import DetectorPredictor, Predictor
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import DETECTOR, ClassifierCard, parse_card, read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.boxes.digits import write_digits_voc
from gluon_asymmnet.data.boxes.transforms import validation_image
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.evaluation.agreement import compare_detections
from gluon_asymmnet.evaluation.detection import detect
from gluon_asymmnet.evaluation.drawing import class_colour
from gluon_asymmnet.export.formats import FORMATS, export_all
from gluon_asymmnet.export.onnx.export import OnnxForm
from gluon_asymmnet.export.onnx.operators import OPERATORS
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.export.symbol import export_symbol
from gluon_asymmnet.predict.images import read_image
from gluon_asymmnet.predict.inputs import Reading, find_inputs, read_frames
from gluon_asymmnet.predict.tiles import Tiling
from gluon_asymmnet.predict.video import Video
from gluon_asymmnet.saved import open_saved
from tests.conftest import run_python
from tests.random_nets import random_detector, random_model
from tests.test_detection_records import LABEL, write_rec
from tests.test_ssd_targets import slow_overlap
from tests.videos import write_video

ENGINES = ("mxnet", "onnxruntime", "openvino")
NETS = (
    "ssd_300_asymmnet_small_0.35_custom",
    "ssdlite_320_asymmnet_large_0.35_custom",
    "ssdlite_300_mobilenetv3_small_0.5_custom",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of odd sizes: digits, larger and smaller than the input, and two photographs."""
    folder = tmp_path_factory.mktemp("photos")
    digits = write_digits_voc(folder / "voc", images=(3, 1), size=(211, 397))
    paths = sorted((digits.root / "VOC2007/JPEGImages").glob("*.jpg"))
    for name, part in (("china", np.s_[:, :]), ("flower", np.s_[5:222, 7:618])):
        rgb = load_sample_image(f"{name}.jpg")[part]
        paths.append(folder / f"{name}.jpg")
        paths[-1].write_bytes(encode(np.ascontiguousarray(rgb)))
    return paths


def network_input(photos, size):
    card = ClassifierCard()
    return np.stack(
        [validation_image(read_image(p), size, card.preprocessing.normalization) for p in photos]
    )


@pytest.fixture(scope="module")
def nets(photos, tmp_path_factory):
    """Make a run and what is exported of it, once for each name."""

    @functools.cache
    def make(name):
        folder, size = tmp_path_factory.mktemp("nets"), int(name.split("_")[1])
        run = random_detector(folder / "run", name, network_input(photos, size))
        return run, export_all(open_saved(run), folder / "out")

    return make


@pytest.fixture(scope="module", params=NETS)
def exported(request, nets):
    """Each of the nets."""
    return nets(request.param)


@pytest.fixture(scope="module")
def first(nets):
    """The first of them, where one is enough."""
    return nets(NETS[0])


@pytest.fixture
def copied(first, tmp_path):
    """A copy of the exported folder, to spoil."""
    return shutil.copytree(first[1], tmp_path / "copied")


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


# --- The engines ---------------------------------------------------------------------------------


def test_three_engines_find_the_same(exported, photos):
    run, out = exported
    expected = DetectorPredictor(run).detect(photos, 0.01)
    assert sum((found.scores > 0.3).sum() for found in expected) > 3 * len(photos)
    assert {"cat", "dog"} <= {name for found in expected for name in found.names}
    for engine in ENGINES:
        predictor = DetectorPredictor(out, engine)
        assert predictor.engine == engine
        found = predictor.detect(photos, 0.01, batch_size=2)
        same = compare_detections(zip(expected, found), score_threshold=0.02)
        assert same.detections > 20 * len(photos)
        assert same.share == 1, (engine, same)
        assert same.score_difference < 1e-3
        assert same.box_difference < 0.5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.thorough
def test_boxes_of_one_class_give_way_and_of_two_do_not(exported, photos, engine):
    """ "dog" fires where "cat" does: suppression over all classes would leave only one of them."""
    predictor, overlapping = DetectorPredictor(exported[1], engine), 0
    for found in predictor.detect(photos, 0.1):
        cats, dogs = found.boxes[found.labels == 0], found.boxes[found.labels == 1]
        for dog in dogs:
            assert max(slow_overlap(dog, cat) for cat in cats) > 0.99
        overlapping += len(dogs)
    assert overlapping > 10
    ids, _, boxes = predictor.predict(network_input(photos, predictor.card.input_size))
    for labels, corners in zip(ids[..., 0], boxes):
        for i in range(len(labels)):
            rivals = [k for k in range(i) if labels[k] == labels[i] >= 0]
            assert all(slow_overlap(corners[i], corners[k]) < 0.4501 for k in rivals)


@pytest.mark.thorough
def test_the_networks_own_suppression(exported, photos):
    """Raw heads and NumPy give the rows that the net gives, filled up as it does."""
    run, out = exported
    card, net, _ = open_saved(run)
    images = network_input(photos, card.input_size)
    expected = [array.asnumpy() for array in net(mx.nd.array(images))]
    for engine in ENGINES:
        found = DetectorPredictor(out, engine).predict(images)
        assert [array.dtype for array in found] == [np.float32] * 3
        assert [array.shape for array in found] == [array.shape for array in expected]
        np.testing.assert_array_equal(found[0] < 0, expected[0] < 0)
        empty = found[0][..., 0] < 0
        assert (found[1][empty] == -1).all()
        assert (found[2][empty] == -1).all()
    assert [len(array) for array in DetectorPredictor(out).predict(images[:0])] == [0, 0, 0]


def test_what_evaluation_takes(first, photos):
    """``evaluation.detection.detect`` and ``detect`` see the same image, and give its pixels."""
    source = VOCSource(photos[0].parents[2], [(2007, "trainval")])
    for engine in ENGINES:
        predictor = DetectorPredictor(first[1], engine)
        card = predictor.card
        found = list(detect(predictor.predict, source, 300, 2, normalization=card.normalization))
        mine = predictor.detect([example.rgb for example, _ in found], 0.0, batch_size=3)
        for (example, one), other in zip(found, mine):
            np.testing.assert_array_equal(one.labels, other.labels)
            assert np.abs(one.boxes - other.boxes).max() < 0.01  # pixels
            width, height = example.size
            assert (other.boxes >= 0).all()
            assert (other.boxes <= [width, height, width, height]).all()
            assert other.boxes[:, 2].max() > 0.9 * min(width, 300)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_engines_without_mxnet(first, photos, engine):
    code = (
        "import sys\n"
        "sys.modules['mxnet'] = None  # as if it were not installed\n"
        "from gluon_asymmnet import DetectorPredictor\n"
        "(found,) = DetectorPredictor(sys.argv[1], sys.argv[2]).detect([sys.argv[3]])\n"
        "assert sys.modules['mxnet'] is None\n"
        "others = {'onnxruntime', 'openvino', 'onnx', 'torch', 'gluoncv'} - {sys.argv[2]}\n"
        "print(' '.join(found.names), others & set(sys.modules), sep='|')"
    )
    done = run_python("-c", code, first[1], engine, photos[0])
    assert (done.returncode, done.stderr) == (0, "")
    names = DetectorPredictor(first[0]).detect(photos[:1])[0].names
    assert done.stdout.strip().split("|") == [" ".join(names), "set()"]


# --- The files -----------------------------------------------------------------------------------


def test_the_card_is_beside_and_inside(exported):
    run, out = exported
    card = read_card(out / "card.json")
    assert list(card.parity) == ["SymbolBlock", "Module", "onnxruntime", "opencv", "openvino"]
    for parity in card.parity.values():
        assert parity["relative"] < 1e-4
        assert parity["images"] == 4
        assert parity["boxes"] < 0.03
    assert card.parity["Module"]["agreement"] == 1
    assert dataclasses.replace(card, parity=None) == read_card(run / "card.json")
    graph = onnx.load(only(out, "*.onnx"))
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata["class_names"].split() == ["cat", "dog", "fish"]
    assert (metadata["input_size"], metadata["nms_thresh"]) == (str(card.input_size), "0.45")
    assert card.input_size == int(card.model.split("_")[1])
    assert "crop_ratio" not in metadata


def test_a_file_travels_alone(copied):
    card = read_card(copied / "card.json")
    (copied / "card.json").unlink()
    for name, engine in (("onnx", "onnxruntime"), ("xml", "openvino"), ("onnx", "openvino")):
        inside = DetectorPredictor(only(copied, f"*.{name}"), engine).card
        assert (inside.class_names, inside.id) == (["cat", "dog", "fish"], card.id)
        assert dataclasses.replace(inside, parity=card.parity) == card
    with pytest.raises(FileNotFoundError, match=r"card\.json: no such file; expected the card"):
        DetectorPredictor(copied, "mxnet")


def test_the_graph_is_plain(first):
    graph = onnx.load(only(first[1], "*.onnx")).graph
    shapes = {
        port.name: [d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim]
        for port in (*graph.input, *graph.output)
    }
    assert shapes == {
        "data": ["batch", 3, 300, 300], "scores": ["batch", 8766, 3], "boxes": ["batch", 8766, 4],
    }  # fmt: skip
    kinds = [node.op_type for node in graph.node]
    assert not {"BatchNormalization", "NonMaxSuppression"} & set(kinds)
    # by hand: stem, 11 blocks of depthwise and project, 10 with an expansion, 9 with two of
    # squeeze-and-excite, squeeze; 4 extras of two; 7 maps with two predictors; three depthwise
    # convolutions and projections in place of one in 2 blocks, three depthwise ones in 2 others
    plain = 1 + 11 * 2 + 10 + 9 * 2 + 1 + 4 * 2 + 7 * 2
    assert kinds.count("Conv") == plain + 2 * 4 + 2 * 2
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)


def test_onnxruntime_says_nothing_when_it_loads(exported):
    code = "import onnxruntime as o, sys; o.InferenceSession(sys.argv[1])"
    done = run_python("-c", code, only(exported[1], "*.onnx"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("form", [OnnxForm(14, hard_swish="op"), OnnxForm(13, hard_swish="clip")])
def test_other_forms_of_onnx(first, tmp_path, form):
    out = export_all(open_saved(first[0]), tmp_path / "out", form=form, formats=["onnx"])
    assert read_card(out / "card.json").parity["onnxruntime"]["relative"] < 1e-4
    assert sorted(p.suffix for p in out.iterdir()) == [".json", ".onnx"]


@pytest.mark.thorough
def test_what_cannot_be_exported(first, tmp_path, monkeypatch):
    run, out = first
    with pytest.raises(InputError, match="is an exported symbol, with the suppression inside: exp"):
        export_all(open_saved(out), tmp_path / "out", formats=["onnx"])
    with pytest.raises(InputError, match="is an exported symbol already: copy the folder"):
        export_symbol(open_saved(out), tmp_path / "out")
    with pytest.raises(InputError, match="--optimized is for AsymmNet and MobileNetV3"):
        export_symbol(open_saved(run), tmp_path / "out", optimized=True)
    with pytest.raises(InputError, match=r"formats must be some of .*openvino, got \['tflite'\]"):
        export_all(open_saved(run), tmp_path / "out", formats=["tflite"])
    monkeypatch.setitem(OPERATORS, "exp", OPERATORS["relu"])
    for form, what in (("onnx", "the ONNX file"), ("openvino", "the IR")):
        with pytest.raises(RunError, match=rf"{what} differs from the network by .* pixels in a"):
            export_all(open_saved(run), tmp_path / "out", formats=[form])
    assert FORMATS == ("symbol", "onnx", "openvino")
    assert list(tmp_path.iterdir()) == []


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(class_names=["a", "b"]), r"3 classes|8766 boxes of 2 classes|with 2 classes"),
        (dict(class_names=["a", "b", "b"]), "expected different names"),
        (dict(class_names="abc"), "class_names is 'abc', expected a list"),
        (dict(class_names=[1, 2, 3]), r"class_names is \[1, 2, 3\], expected a text"),
        (dict(class_names=[]), "expected different names"),
        (dict(input_size=320), "input_size is 320, ssd_300_.* takes 300"),
        (dict(input_size="300"), "input_size is '300', expected a whole number"),
        (dict(model="ssd_300_resnet_custom"), "unknown detector 'ssd_300_resnet_custom'"),
        (dict(model=None), "model is None, expected a text"),
        (dict(model="ssdlite_300_asymmnet_small_0.35_custom"), "another model|class_0_conv_bias"),
        (dict(nms_thresh=float("nan")), "nms_thresh is nan, expected a number"),
        (dict(nms_thresh="0.5"), "nms_thresh is '0.5', expected a number"),
        (dict(nms_topk=0), "nms_topk is 0, expected a number from 1"),
        (dict(post_nms=2.5), "post_nms is 2.5, expected a whole number"),
        (dict(least_score=1.5), "least_score is 1.5, expected a number from 0 to 1"),
        (dict(rgb_std=[1, 0, 1]), "the deviations above 0"),
        (dict(rgb_mean=[1, float("inf"), 1]), "expected three values each"),
        (dict(rgb_mean=7), "not the card of a model"),
    ],
)
def test_a_card_that_is_wrong(copied, changes, message):
    path = copied / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    for engine in ENGINES:
        with pytest.raises(FormatError, match=rf"({message})[^\n]*$"):
            DetectorPredictor(copied, engine)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", '"detector"', '{"kind": "detector"}', "[" * 100_000, "\x00",
     '{"kind": ["detector"]}'],
)  # fmt: skip
def test_a_damaged_card(copied, text):
    (copied / "card.json").write_text(text)
    with pytest.raises(FormatError, match=r"card\.json"):
        DetectorPredictor(copied, "onnxruntime")
    with pytest.raises(FormatError, match=r"x is|x: not the card of a model"):
        parse_card(text, "x", DETECTOR)


def test_a_card_may_name_the_classes_otherwise(copied, photos):
    path = copied / "card.json"
    names = ["Käse", "b", "c"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_names": names}))
    for engine in ENGINES:
        (found,) = DetectorPredictor(copied, engine).detect(photos[:1])
        assert found.names == [names[label] for label in found.labels]


@pytest.mark.thorough
def test_a_classifier_is_not_a_detector(first, tmp_path, capsys):
    run, out = first
    classifier = random_model(tmp_path)
    classifier.net.save_parameters(str(classifier.weights))
    classifier.card.save(tmp_path / "card.json")
    exported = export_all(classifier, tmp_path / "out")
    not_a_detector = "the card of a classifier, not of a detector: `asymmnet predict` runs it"
    not_a_classifier = "the card of a detector, not of a classifier: `asymmnet detect` runs it"
    for engine in ENGINES:
        with pytest.raises(FormatError, match=not_a_detector):
            DetectorPredictor(exported, engine)
        with pytest.raises(FormatError, match=not_a_classifier):
            Predictor(out, engine)
    for kind, pattern in ((DetectorPredictor, exported), (Predictor, out)):
        alone = shutil.copy(only(pattern, "*.onnx"), tmp_path / "alone.onnx")
        (tmp_path / "card.json").unlink(missing_ok=True)
        with pytest.raises(FormatError, match=r"onnx is the card of a .*, not of a"):
            kind(alone)
    picture = str(tmp_path / "a.png")
    cv2.imwrite(picture, np.zeros((9, 9, 3), np.uint8))
    for command, model, message in (
        ("detect", exported, not_a_detector), ("predict", out, not_a_classifier),
        ("predict", run, not_a_classifier),
    ):  # fmt: skip
        assert main([command, picture, "--model", str(model)]) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert (printed.out, len(printed.err.splitlines())) == ("", 1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_files_that_are_not_detectors(copied, engine):
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    path = only(copied, "*.onnx")

    def written(*shapes):
        outs = [helper.make_tensor_value_info(f"y{i}", f32, s) for i, s in enumerate(shapes)]
        nodes = [helper.make_node("Identity", ["x"], [out.name]) for out in outs]
        inputs = [helper.make_tensor_value_info("x", f32, shapes[0])]
        graph = helper.make_graph(nodes, "g", inputs, outs)
        opset = [helper.make_opsetid("", 13)]
        onnx.save(helper.make_model(graph, ir_version=8, opset_imports=opset), path)
        return path

    pixels = ["n", 3, 300, 300]
    with pytest.raises(FormatError, match=r"1 inputs and 1 outputs; a detector has one input, and"):
        DetectorPredictor(written(pixels), engine)
    with pytest.raises(FormatError, match=r"a detector gives arrays .*, the last of corners"):
        DetectorPredictor(written(pixels, pixels), engine)
    with pytest.raises(FormatError, match=r"takes .*; a detector takes \(batch, 3, size, size\)"):
        DetectorPredictor(written(["n", 8, 4], ["n", 8, 4]), engine)


def test_bad_arguments(first, photos):
    predictor = DetectorPredictor(first[1])
    assert len(predictor.detect(str(photos[0]))) == 1  # one image in place of a list
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        predictor.detect(photos, batch_size=0)
    with pytest.raises(InputError, match=r"score_threshold must be from 0 to 1, got nan"):
        predictor.detect(photos, float("nan"))
    with pytest.raises(InputError, match=r"images must be \(n, 3, 300, 300\), got \(1, 3, 320"):
        predictor.predict(sample_images(1, 320))
    with pytest.raises(FileNotFoundError, match=r"none.jpg: no such file"):
        predictor.detect([photos[0], "none.jpg"])
    assert predictor.detect([]) == []


# --- The commands --------------------------------------------------------------------------------


def test_the_command(first, photos, tmp_path, capsys):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.png").write_bytes(encode(read_image(photos[-2]), ".png"))
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(photos[0], folder / "more/c.jpg")
    status = main([
        "detect", str(folder), "--model", str(first[1]), "--engine", "onnxruntime",
        "--score-threshold", "0.1", "--json", str(tmp_path / "r.json"),
        "--annotate", str(tmp_path / "marked"), "--batch-size", "2",
    ])  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 1
    assert err.splitlines() == [
        f"engine: onnxruntime, {next(first[1].glob('*.onnx'))}",
        f"skipped {folder}/bad.jpg: truncated JPEG: its end marker is missing",
    ]
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["engine"] == "onnxruntime"
    assert [one["path"] for one in result["skipped"]] == [str(folder / "bad.jpg")]
    paths = [folder / "a.png", folder / "more/c.jpg"]
    expected = DetectorPredictor(first[1], "openvino").detect(paths, 0.1)
    rows = iter(out.splitlines())
    for path, shown, found in zip(paths, result["pictures"], expected):
        assert shown["path"] == str(path)
        assert [o["label"] for o in shown["objects"]] == found.labels.tolist()
        for place, (one, box) in enumerate(zip(shown["objects"], found.boxes)):
            assert one["box"] == pytest.approx(box, abs=0.5)
            assert one["name"] == ("cat", "dog", "fish")[one["label"]]
            line = next(rows).split()
            assert line[-6:] == [
                f"{one['score']:.3f}", *(f"{v:.1f}" for v in one["box"]), one["name"]
            ]  # fmt: skip
            assert line[:-6] == ([str(path)] if place == 0 else [])
    assert next(rows, None) is None
    assert (tmp_path / "marked/photos/more/c.jpg").is_file()
    marked = read_image(tmp_path / "marked/photos/a.png")
    for label, (left, top, right, bottom) in zip(expected[0].labels, expected[0].boxes):
        edges = marked[round(top) : round(bottom), [round(left), round(right) - 1]]
        assert (edges == class_colour(label)).all(axis=-1).any()


def test_the_command_finds_nothing_and_refuses(first, photos, tmp_path, capsys):
    model = ["--model", str(first[1])]
    assert main(["detect", str(photos[0]), "--score-threshold", "1", *model]) == 0
    assert capsys.readouterr().out.split() == [str(photos[0]), "nothing"]
    for arguments, message in (
        (["--score-threshold", "2"], "--score-threshold must be from 0 to 1, got 2.0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--overlap", "0.1"], "--overlap and --tiles-only go with --tiles or --tile-size"),
        (["--coco-ids", "x"], "--coco-ids goes with --coco"),
        (["--annotate", str(photos[0].parent)], "would write over"),
        (["--engine", "mxnet", "--precision", "bf16"], "bf16 is for openvino"),
    ):
        assert main(["detect", str(photos[0]), *arguments, *model]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, len(err.splitlines())) == ("", 1)


@pytest.mark.thorough
def test_export_of_a_run_by_the_command(first, photos, tmp_path, capsys):
    run, out = first[0], tmp_path / "out"
    assert main(["export", "all", str(run / "best.params"), str(out)]) == 0
    printed, err = capsys.readouterr()
    assert printed.count("pixels in a box, on 4 images") == 5
    assert err == ""
    found = [DetectorPredictor(path, "mxnet").detect(photos[:1])[0] for path in (run, out)]
    np.testing.assert_array_equal(found[0].labels, found[1].labels)
    rec = write_rec(tmp_path, LABEL, LABEL)
    assert main(["export", "onnx", str(run), str(tmp_path / "real"), "--rec-val", str(rec)]) == 0
    assert "pixels in a box, on 2 images" in capsys.readouterr().out
    for flags, message in (
        (["--input-size", "320"], f"--input-size is for classifiers; {run} holds a detector"),
        (["--optimized"], "--optimized is for AsymmNet and MobileNetV3"),
        (["--rec-val", "none.rec"], "none.rec"),
    ):
        assert main(["export", "symbol", str(run), str(tmp_path / "other"), *flags]) == 2
        printed, err = capsys.readouterr()
        assert message in err
        assert (printed, len(err.splitlines())) == ("", 1)
    assert not (tmp_path / "other").exists()


# --- Videos, thresholds, tiles, COCO -------------------------------------------------------------


def test_tiles_find_what_crops_find(first, photos):
    """Four photographs side by side: with tiles at their places, each finds what it finds alone."""
    side = 200
    crops = [np.ascontiguousarray(read_image(path)[:side, :side]) for path in photos[:4]]
    whole = np.concatenate([np.hstack(crops[:2]), np.hstack(crops[2:])])
    predictor = DetectorPredictor(first[1], "onnxruntime")
    tiling = Tiling(size=side, overlap=0, whole=False)
    (merged,) = predictor.detect([whole], 0.1, tiling=tiling)
    expected = []
    for number, found in enumerate(predictor.detect(crops, 0.1)):
        shift = np.float32([side * (number % 2), side * (number // 2)] * 2)
        inner = [(2, 3), (0, 3), (2, 1), (0, 1)][number]  # corners at the borders of other tiles
        limits = np.float32([0, 0, side, side])[list(inner)]
        cut = (np.abs(found.boxes[:, list(inner)] - limits) <= 2).any(axis=1)
        rows = zip(found.scores, found.labels, found.boxes + shift, cut)
        expected += [(score, label, tuple(box)) for score, label, box, part in rows if not part]
    shown = list(zip(merged.scores, merged.labels, map(tuple, merged.boxes)))
    assert len(expected) > 20
    assert set(expected) <= set(shown)  # exact: scores and boxes in the picture's pixels
    assert merged.scores.tolist() == sorted(merged.scores.tolist(), reverse=True)
    (united,) = predictor.detect([whole], 0.1, tiling=tiling._replace(whole=True))
    (alone,) = predictor.detect([whole], 0.1)
    assert set(map(tuple, alone.boxes)) & set(map(tuple, united.boxes))
    with pytest.raises(InputError, match="one of them"):
        predictor.detect([whole], tiling=Tiling())


def test_thresholds_of_classes(first, photos):
    predictor = DetectorPredictor(first[1], "onnxruntime")
    (everything,) = predictor.detect(photos[:1], 0.1)
    (some,) = predictor.detect(photos[:1], 0.1, class_thresholds={"cat": 0.4, " dog": 1.0})
    expected = [
        (name, score) for name, score in zip(everything.names, everything.scores)
        if score >= {"cat": np.float32(0.4), "dog": 1}.get(name, 0.1)
    ]  # fmt: skip
    assert list(zip(some.names, some.scores)) == expected
    assert 0 < len(expected) < len(everything.names)
    with pytest.raises(
        InputError, match=r"only in the thresholds: 'cta'; only in the model: 'cat'"
    ):
        predictor.detect(photos[:1], class_thresholds={"cta": 0.5})
    with pytest.raises(InputError, match=r"the threshold of 'cat' must be from 0 to 1, got 5"):
        predictor.detect(photos[:1], class_thresholds={"cat": 5})


def test_the_command_on_a_video(first, tmp_path, capsys):
    clip = write_video(tmp_path / "clip.avi", 7, size=(63, 47))
    status = main([
        "detect", str(clip), "--model", str(first[1]), "--engine", "opencv",
        "--every", "2", "--batch-size", "3",
        "--score-threshold", "0.2", "--json", str(tmp_path / "r.json"),
        "--csv", str(tmp_path / "r.csv"), "--annotate", str(tmp_path / "marked"),
        "--score", "fish=0.9", "--coco", str(tmp_path / "coco.json"),
    ])  # fmt: skip
    out, err = capsys.readouterr()
    assert (status, len(err.splitlines())) == (0, 1)
    rows = json.loads((tmp_path / "r.json").read_text())["pictures"]
    assert [(row["path"], row["frame"], row["seconds"]) for row in rows] == [
        (str(clip), 0, 0.0), (str(clip), 2, 0.4), (str(clip), 4, 0.8), (str(clip), 6, 1.2),
    ]  # fmt: skip
    frames = [frame.rgb for frame in read_frames(find_inputs([str(clip)]), Reading(every=2))]
    predictor = DetectorPredictor(first[1], "opencv")
    expected = predictor.detect(frames, 0.2, class_thresholds={"fish": 0.9})
    for row, found in zip(rows, expected):
        assert [one["name"] for one in row["objects"]] == found.names
    assert sum(len(found.names) for found in expected) > 4
    table = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert {int(row["frame"]) for row in table} == {0, 2, 4, 6}
    assert len(table) == sum(max(1, len(found.names)) for found in expected)
    assert float(table[0]["xmin"]) == rows[0]["objects"][0]["box"][0]
    marked = Video(str(tmp_path / "marked/clip.avi.mp4"), "marked")
    assert (marked.frames, marked.rate) == (4, 2.5)
    drawn = marked.read().rgb[:48, :64]
    assert np.abs(drawn.astype(int) - frames[0]).max() > 50
    assert out.count(f"{clip}#") == 4
    assert len(json.loads((tmp_path / "coco.json").read_text())) == sum(
        len(found.names) for found in expected
    )


@pytest.mark.thorough
def test_the_command_writes_coco(first, photos, tmp_path, capsys):
    """pycocotools loads the results; boxes are those of the annotations' convention."""
    from pycocotools.coco import COCO

    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(photos[:2]):
        shutil.copy(path, folder / f"{number}.jpg")
    ids = {
        "images": [{"id": 70, "file_name": "1.jpg"}, {"id": 30, "file_name": "photos/0.jpg"}],
        "categories": [{"id": k, "name": name} for k, name in zip((9, 4), ("fish", "dog"))],
        "annotations": [], "info": {},
    }  # fmt: skip
    ids["categories"].append({"id": 2, "name": "cat"})
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    options = ["--model", str(first[1]), "--coco", str(tmp_path / "out.json")]
    taken = ["--coco-ids", str(tmp_path / "ids.json")]
    assert main(["detect", str(folder), *options, *taken]) == 0
    truth = COCO(str(tmp_path / "ids.json"))
    results = truth.loadRes(str(tmp_path / "out.json"))
    expected = DetectorPredictor(first[1]).detect(sorted(folder.iterdir()))
    for image_id, found, path in zip((30, 70), expected, sorted(folder.iterdir())):
        height, width = read_image(path).shape[:2]
        entries = results.loadAnns(results.getAnnIds([image_id]))
        assert [truth.cats[one["category_id"]]["name"] for one in entries] == found.names
        for one, (left, top, right, bottom) in zip(entries, found.boxes):
            expected_box = [left, top, min(right + 1, width) - left, min(bottom + 1, height) - top]
            assert one["bbox"] == pytest.approx(expected_box, abs=1e-3)
    assert main(["detect", str(folder), *options]) == 0
    entries = json.loads((tmp_path / "out.json").read_text())
    assert {one["image_id"] for one in entries} == {1, 2}
    assert {one["category_id"] for one in entries} <= {1, 2, 3}
    capsys.readouterr()
    for change, flags, message in (
        ({"images": ids["images"][:1]}, taken, r"has no image '0.jpg', or several"),
        (
            {"categories": ids["categories"][:2]},
            taken,
            "only in the model: 'cat'",
        ),
        ({"categories": [{"id": 1}]}, taken, "has no id or no name"),
        ({}, ["--score", "cta=0.5"], "only in the thresholds: 'cta'"),
        ({}, ["--tiles", "2", "--tile-size", "9"], "one of them"),
    ):
        (tmp_path / "ids.json").write_text(json.dumps({**ids, **change}))
        (tmp_path / "out.json").unlink(missing_ok=True)
        assert main(["detect", str(folder), *options, *flags]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out.json").exists()
    with pytest.raises(SystemExit):
        main(["detect", str(folder), *options, "--score", "cat"])
    assert "'cat': expected CLASS=SCORE" in capsys.readouterr().err
