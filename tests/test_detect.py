"""Detectors exported and run: three engines find the same in real pictures."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import onnx
import pytest

from gluon_asymmnet import DetectorPredictor, Predictor
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import DETECTOR, parse_card, read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.errors import FormatError, InputError, RunError
from gluon_asymmnet.evaluation.agreement import compare_detections
from gluon_asymmnet.evaluation.detection import detect
from gluon_asymmnet.export.formats import FORMATS, export_all
from gluon_asymmnet.export.onnx.export import OnnxForm
from gluon_asymmnet.export.onnx.operators import OPERATORS
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.export.symbol import export_symbol
from gluon_asymmnet.saved import open_saved
from tests.conftest import run_python
from tests.random_nets import network_input, random_model
from tests.test_ssd_targets import slow_overlap

ENGINES = ("mxnet", "onnxruntime", "openvino")


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


# --- The engines ---------------------------------------------------------------------------------


def test_three_engines_find_the_same(each_detector, photos):
    run, out = each_detector
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
def test_boxes_of_one_class_give_way_and_of_two_do_not(each_detector, photos, engine):
    """ "dog" fires where "cat" does: suppression over all classes would leave only one of them."""
    predictor, overlapping = DetectorPredictor(each_detector[1], engine), 0
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
def test_the_networks_own_suppression(each_detector, photos):
    """Raw heads and NumPy give the rows that the net gives, filled up as it does."""
    run, out = each_detector
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


def test_what_evaluation_takes(detector, photos):
    """``evaluation.detection.detect`` and ``detect`` see the same image, and give its pixels."""
    source = VOCSource(photos[0].parents[2], [(2007, "trainval")])
    for engine in ENGINES:
        predictor = DetectorPredictor(detector[1], engine)
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
def test_engines_without_mxnet(detector, photos, engine):
    code = (
        "import sys\n"
        "sys.modules['mxnet'] = None  # as if it were not installed\n"
        "from gluon_asymmnet import DetectorPredictor\n"
        "(found,) = DetectorPredictor(sys.argv[1], sys.argv[2]).detect([sys.argv[3]])\n"
        "assert sys.modules['mxnet'] is None\n"
        "others = {'onnxruntime', 'openvino', 'onnx', 'torch', 'gluoncv'} - {sys.argv[2]}\n"
        "print(' '.join(found.names), others & set(sys.modules), sep='|')"
    )
    done = run_python("-c", code, detector[1], engine, photos[0])
    assert (done.returncode, done.stderr) == (0, "")
    names = DetectorPredictor(detector[0]).detect(photos[:1])[0].names
    assert done.stdout.strip().split("|") == [" ".join(names), "set()"]


# --- The files -----------------------------------------------------------------------------------


def test_the_card_is_beside_and_inside(each_detector):
    run, out = each_detector
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


def test_a_file_travels_alone(detector_copy):
    card = read_card(detector_copy / "card.json")
    (detector_copy / "card.json").unlink()
    for name, engine in (("onnx", "onnxruntime"), ("xml", "openvino"), ("onnx", "openvino")):
        inside = DetectorPredictor(only(detector_copy, f"*.{name}"), engine).card
        assert (inside.class_names, inside.id) == (["cat", "dog", "fish"], card.id)
        assert dataclasses.replace(inside, parity=card.parity) == card
    with pytest.raises(FileNotFoundError, match=r"card\.json: no such file; expected the card"):
        DetectorPredictor(detector_copy, "mxnet")


def test_the_graph_is_plain(detector):
    graph = onnx.load(only(detector[1], "*.onnx")).graph
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


def test_onnxruntime_says_nothing_when_it_loads(each_detector):
    code = "import onnxruntime as o, sys; o.InferenceSession(sys.argv[1])"
    done = run_python("-c", code, only(each_detector[1], "*.onnx"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("form", [OnnxForm(14, hard_swish="op"), OnnxForm(13, hard_swish="clip")])
def test_other_forms_of_onnx(detector, tmp_path, form):
    out = export_all(open_saved(detector[0]), tmp_path / "out", form=form, formats=["onnx"])
    assert read_card(out / "card.json").parity["onnxruntime"]["relative"] < 1e-4
    assert sorted(p.suffix for p in out.iterdir()) == [".json", ".onnx"]


@pytest.mark.thorough
def test_what_cannot_be_exported(detector, tmp_path, monkeypatch):
    run, out = detector
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
def test_a_card_that_is_wrong(detector_copy, changes, message):
    path = detector_copy / "card.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    for engine in ENGINES:
        with pytest.raises(FormatError, match=rf"({message})[^\n]*$"):
            DetectorPredictor(detector_copy, engine)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", '"detector"', '{"kind": "detector"}', "[" * 100_000, "\x00",
     '{"kind": ["detector"]}'],
)  # fmt: skip
def test_a_damaged_card(detector_copy, text):
    (detector_copy / "card.json").write_text(text)
    with pytest.raises(FormatError, match=r"card\.json"):
        DetectorPredictor(detector_copy, "onnxruntime")
    with pytest.raises(FormatError, match=r"x is|x: not the card of a model"):
        parse_card(text, "x", DETECTOR)


def test_a_card_may_name_the_classes_otherwise(detector_copy, photos):
    path = detector_copy / "card.json"
    names = ["Käse", "b", "c"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_names": names}))
    for engine in ENGINES:
        (found,) = DetectorPredictor(detector_copy, engine).detect(photos[:1])
        assert found.names == [names[label] for label in found.labels]


@pytest.mark.thorough
def test_a_classifier_is_not_a_detector(detector, tmp_path, capsys):
    run, out = detector
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
def test_files_that_are_not_detectors(detector_copy, engine):
    helper, f32 = onnx.helper, onnx.TensorProto.FLOAT
    path = only(detector_copy, "*.onnx")

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


def test_bad_arguments(detector, photos):
    predictor = DetectorPredictor(detector[1])
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
