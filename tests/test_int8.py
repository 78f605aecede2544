"""8 bits: the arithmetic by hand, the choice of what stays in float, files that run anywhere."""

import json
import re
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gluon_asymmnet.card import read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import evaluate
from gluon_asymmnet.export.int8.export import export_int8, signal_to_noise, speed_ratio
from gluon_asymmnet.export.int8.qdq import measure_ranges, quantize
from gluon_asymmnet.export.int8.quantizers import (
    SQUEEZE_EXCITE,
    NncfQuantizer,
    OnnxQuantizer,
    find_parts,
)
from gluon_asymmnet.export.int8.search import Score, search
from gluon_asymmnet.export.onnx.export import to_onnx
from gluon_asymmnet.export.openvino import to_ir
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.predict.engines import OnnxRuntime
from gluon_asymmnet.utils.extras import installed
from tests.conftest import with_damaged_record
from tests.floats import assert_close
from tests.random_nets import random_model

# ------------------------------------------------------------------------------ by hand


def one_convolution():
    """``relu(w * x + b)``, 1 x 1, from three channels to two, the mean and a flat result."""
    weight = np.float32([[1, -0.5, 0.25], [0.02, 0, 0]]).reshape(2, 3, 1, 1)
    bias = np.float32([0.1, -0.3])
    nodes = [
        helper.make_node("Conv", ["data", "w", "b"], ["conv"], "conv"),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"], "mean"),
        helper.make_node("Flatten", ["mean"], ["logits"], "logits", axis=1),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 13)])


def constants(model):
    return {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}


def test_ranges_and_levels_by_hand():
    images = np.zeros((2, 3, 4, 4), np.float32)
    images[0, 0], images[1, 1] = 2.0, -1.0
    model = one_convolution()
    ranges = measure_ranges(model, images)
    assert ranges["data"] == (-1, 2)
    # channel 0: 2 * 1 + 0.1 and 0.5 + 0.1 and 0.1; channel 1: 0.04 - 0.3 and -0.3
    assert ranges["conv"] == pytest.approx((-0.3, 2.1))
    assert ranges["relu"] == pytest.approx((0, 2.1))
    found = constants(quantize(model, ranges))
    np.testing.assert_array_equal(found["w.levels"].ravel(), [127, -64, 32, 127, 0, 0])
    assert_close(found["w.scale"], [1 / 127, 0.02 / 127], axes=())
    step = 3 / 255  # of the input: from -1 to 2 in 255 steps, 0 is level 85
    assert_close(found["data.scale"], step, axes=())
    assert (found["data.zero"], found["data.zero"].dtype) == (85, np.uint8)
    bias = [0.1 / (step / 127), -0.3 / (step * 0.02 / 127)]
    np.testing.assert_array_equal(found["b.levels"], np.rint(bias))
    assert found["b.levels"].dtype == np.int32
    # the ReLU is part of the convolution: nothing is rounded between the two
    assert "conv.scale" not in found
    assert found["relu.zero"] == 0


def test_a_kept_convolution_stays_as_it_is():
    images = np.random.default_rng(0).normal(size=(4, 3, 4, 4)).astype(np.float32)
    model = one_convolution()
    ranges = measure_ranges(model, images)
    assert quantize(model, ranges, ["conv", "relu", "mean"]) == model
    half = constants(quantize(model, ranges, ["conv"]))
    assert {"w", "b"} <= half.keys()
    assert "relu.scale" in half


def test_rounding_is_all_that_differs(tmp_path):
    """Each product is within half a step of what the exact one is."""
    images = np.random.default_rng(0).uniform(-1, 1, (8, 3, 4, 4)).astype(np.float32)
    model = one_convolution()
    for name, one in (("a", model), ("b", quantize(model, measure_ranges(model, images)))):
        onnx.save(one, tmp_path / f"{name}.onnx")
    exact, found = (OnnxRuntime(tmp_path / f"{n}.onnx").run(images)[0] for n in "ab")
    # half a step of the input in three products, of the weights, of the result
    most = 1.75 * (2 / 255) / 2 + 3 * (1 / 127) / 2 + 2 * (2 / 255)
    assert 0 < np.abs(exact - found).max() < most


@pytest.mark.parametrize("size", [0, 1e-12, 1e-9, 1e-7])
def test_a_channel_with_tiny_weights_keeps_its_bias(tmp_path, size):
    """Without a floor of its scale the bias ends at the largest 32-bit level."""
    images = np.random.default_rng(0).uniform(-1, 1, (8, 3, 4, 4)).astype(np.float32)
    model = one_convolution()
    weight, bias = map(numpy_helper.to_array, model.graph.initializer)
    weight, bias = weight.copy(), np.float32([0.1, 2.5])
    weight[1] = size
    for old, new in zip(model.graph.initializer, (weight, bias)):
        old.CopyFrom(numpy_helper.from_array(new, old.name))
    rounded = quantize(model, measure_ranges(model, images))
    for name, one in (("a", model), ("b", rounded)):
        onnx.save(one, tmp_path / f"{name}.onnx")
    exact, found = (OnnxRuntime(tmp_path / f"{n}.onnx").run(images)[0] for n in "ab")
    assert signal_to_noise(exact, found) > 40
    assert_close(constants(rounded)["b.levels"][1] * constants(rounded)["b.scale"][1], 2.5, axes=())


def test_signal_to_noise_by_hand():
    assert signal_to_noise(np.float32([3, 4]), np.float32([3, 4.5])) == pytest.approx(20)
    assert signal_to_noise(np.float32([3, 4]), np.float32([3, 4])) == 200


@pytest.mark.thorough
def test_speed_ratio_of_known_work():
    product = np.ones((200, 200), np.float32)

    def times(count):
        return lambda _: [product @ product for _ in range(count)]

    assert speed_ratio(times(40), times(4), None) > 2
    assert speed_ratio(times(4), times(40), None) < 0.5


# ------------------------------------------------------------------------------ the choice


def scores(noise, speed, allowed):
    """What ``search`` is to measure where parts add their noise, and their time."""
    tried = []

    def measure(kept, *, validate):
        tried.append((kept, validate))
        left = sum(value for part, value in noise.items() if part not in kept)
        seconds = 1 - sum(speed[part] for part in kept)
        return Score(-10 * np.log10(left + 1e-9), 1.0, None, left, 1 / seconds)

    return search(list(noise), measure, allowed), tried


def test_nothing_stays_in_float_where_nothing_is_lost():
    choice, tried = scores(dict(a=0.1, b=0.2, c=0.1), dict(a=-0.1, b=-0.1, c=-0.1), 0.5)
    assert choice.chosen.in_float == ()
    assert tried == [((), True), (("a",), False), (("b",), False), (("c",), False)]


def test_what_wins_most_accuracy_stays_first():
    noise = dict(a=0.1, b=2.0, c=1.0, d=0.1)
    choice, _ = scores(noise, dict(a=-0.1, b=-0.1, c=-0.1, d=-0.1), 0.5)
    assert [trial.in_float for trial in choice.trials] == [(), ("b",), ("b", "c")]
    assert choice.chosen.in_float == ("b", "c")
    assert choice.chosen.score.loss == pytest.approx(0.2)


def test_what_is_faster_in_float_stays_and_the_fastest_is_chosen():
    choice, _ = scores(dict(a=0.1, b=0.1, c=0.1), dict(a=0.2, b=-0.1, c=0.1), 0.5)
    assert [trial.in_float for trial in choice.trials] == [(), ("a",), ("a", "c")]
    assert choice.chosen.in_float == ("a", "c")


def test_the_least_loss_where_all_lose_too_much():
    choice, _ = scores(dict(a=1.0, b=2.0, c=3.0), dict(a=0.0, b=0.0, c=0.0), 0.5)
    assert choice.chosen.in_float == ("c", "b")  # all three would be float32
    assert choice.chosen.score.loss == pytest.approx(1.0)


# ------------------------------------------------------------------------------ whole networks


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("int8"), classes=10, crop_ratio=1.0)


def run_on(model, images, tmp_path, name="x"):
    onnx.save(model, tmp_path / f"{name}.onnx")
    return OnnxRuntime(tmp_path / f"{name}.onnx", threads=1).run(images)[0]


@pytest.mark.parametrize("card", [{}, dict(model="asymmnet_large"), dict(shuffle_groups=2)])
@pytest.mark.thorough
def test_eight_bits_are_close(card, tmp_path):
    one = random_model(tmp_path, **card)
    images = sample_images(32, 32, seed=3)
    model = to_onnx(one)
    whole = quantize(model, measure_ranges(model, images))
    found = signal_to_noise(one.predict(images), run_on(whole, images, tmp_path))
    assert found > 12  # a wrong scale, zero or channel gives less than 0
    kinds = {w.dtype for n, w in constants(whole).items() if n.endswith("weight.levels")}
    assert kinds == {np.dtype(np.int8)}


def test_products_of_the_largest_numbers(tmp_path):
    """Eight times 255 * 127: without VNNI two of these products exceed 16 bits."""
    source = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 8, 4, 4))
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 8, 4, 4))
    weight = onnx.numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "w")
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    graph = onnx.helper.make_graph([node], "graph", [source], [out], [weight])
    model = onnx.helper.make_model(
        graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]
    )
    images = np.ones((1, 8, 4, 4), np.float32)
    found = run_on(quantize(model, measure_ranges(model, images)), images, tmp_path)
    assert signal_to_noise(np.full_like(found, 8), found) > 40  # a step of 8 bits is 48 dB below


def test_every_node_belongs_to_a_part(made):
    model = to_onnx(made)
    parts = find_parts(model, made.card)
    for node in model.graph.node:
        found = [p for p, pattern in parts.items() if re.fullmatch(pattern, node.name)]
        assert len([p for p in found if p != SQUEEZE_EXCITE]) == 1, node.name
    blocks = sum(part.startswith("block ") for part in parts)
    assert blocks == 11  # rows of the paper's table 2
    gates = {n.name for n in model.graph.node if re.fullmatch(parts[SQUEEZE_EXCITE], n.name)}
    assert gates == {n.name for n in model.graph.node if "_se_" in n.name} != set()


def test_the_quantizer_keeps_the_parts_that_it_is_told_to(made, tmp_path):
    quantizer = OnnxQuantizer(made, sample_images(4, 32), tmp_path)

    def in_float(*kept):
        names = constants(onnx.load(quantizer.write(kept)))
        return {name for name in names if name.endswith("conv_fwd.weight")}

    assert in_float() == set()
    one = in_float("block 3")
    assert one and all("_features_blocks_3_" in name for name in one)
    assert in_float("block 3", "stem") == one | in_float("stem") != one


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mobilenetv2", "dicenet", "shufflenetv2"])
def test_related_nets(name, tmp_path):
    """ReLU6, PReLU, splits and shuffles; parts are runs of nodes."""
    related = random_model(tmp_path, model=name, width=0.5, rate=0, input_size=64)
    images, model = sample_images(16, 64), to_onnx(related)
    parts = find_parts(model, related.card)
    names = [node.name for node in model.graph.node]
    for node in names:
        assert sum(bool(re.fullmatch(p, node)) for p in parts.values()) == 1, node
    assert 8 <= len(parts) <= 12
    for op in to_ir(related).get_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution"):
            node = op.get_friendly_name()
            assert sum(bool(re.fullmatch(p, node)) for p in parts.values()) == 1, node
    ranges = measure_ranges(model, images)
    expected = related.predict(images)
    found = {}
    for kept in ("(?!)", next(iter(parts.values()))):
        in_float = [node for node in names if re.fullmatch(kept, node)]
        folder = tmp_path / str(len(in_float))
        folder.mkdir()
        found[kept] = run_on(quantize(model, ranges, in_float), images, folder)
    ratios = [signal_to_noise(expected, f) for f in found.values()]
    assert ratios[0] > 3  # deep ones blow the first layers' rounding up; a wrong scale gives < 0
    assert ratios[1] != ratios[0]


def test_all_parts_in_float_are_the_network(made, tmp_path):
    images, model = sample_images(16, 32), to_onnx(made)
    names = [node.name for node in model.graph.node]
    kept = quantize(model, measure_ranges(model, images), names)
    np.testing.assert_array_equal(
        run_on(kept, images, tmp_path, "a"), run_on(model, images, tmp_path, "b")
    )


@pytest.fixture(scope="module")
def exported(made, digits, tmp_path_factory):
    """A folder in 8 bits, judged on the digits, and its report."""
    val = open_source(rec=digits.val)
    images = np.stack([_network_input(made, val, i) for i in range(32)])
    out = tmp_path_factory.mktemp("exported") / "int8"
    report = export_int8(made, out, images, validation=val, max_loss=100, threads=1)
    return out, report


def _network_input(made, source, i):
    from gluon_asymmnet.data.images import decode

    return made.card.preprocessing(decode(source.read(i).image))


def test_the_folder(exported, made, digits):
    out, report = exported
    names = sorted(path.name for path in out.iterdir())
    assert names == ["asymmnet_small_w0.35_r1_int8.onnx", "card.json", "int8.json"]
    card = read_card(out / "card.json")
    parity = card.parity["onnxruntime int8"]
    assert parity["images"] == 32
    assert 0 < parity["relative"] < 1
    predictor = Predictor(out)
    assert (predictor.engine, predictor.card) == ("onnxruntime", card)
    settings = dict(classes=10, preprocessing=card.preprocessing)
    found = evaluate(predictor.predict, open_source(rec=digits.val), **settings)
    chosen = report.result.chosen.score
    assert found.top1 == pytest.approx(chosen.top1)
    exact = evaluate(made.predict, open_source(rec=digits.val), **settings)
    assert report.float_top1 == pytest.approx(exact.top1)
    assert chosen.loss == pytest.approx(100 * (exact.top1 - found.top1))


def test_the_report(exported):
    out, report = exported
    read = json.loads((out / "int8.json").read_text())
    assert read["loss_of"] == "top-1"
    assert list(read["only_this_part_in_float"]) == list(report.result.parts)
    assert set(read["speeds"]) == {"1", "32"}
    assert read["accurate"] is True
    assert read["fast"] == {b: read["speeds"][b] >= 1.4 for b in ("1", "32")}
    lines = report.text().splitlines()
    assert len([line for line in lines if line.startswith("block ")]) == 11
    assert lines[-1].startswith("onnxruntime: loses ")


@pytest.mark.thorough
def test_openvino_runs_the_onnx_file(exported):
    images = sample_images(4, 32)
    onnxruntime, openvino = (
        Predictor(exported[0], engine).predict(images) for engine in ("onnxruntime", "openvino")
    )
    assert signal_to_noise(onnxruntime, openvino) > 12


def test_openvino(made, tmp_path):
    """NNCF needs a NumPy that not every supported Python is tested with: missing, it is named."""
    images = sample_images(16, 32)
    if not installed("nncf"):
        with pytest.raises(InputError, match=r"nncf is not installed: pip install .*\[int8\]"):
            export_int8(made, tmp_path / "out", images, engine="openvino")
        assert not (tmp_path / "out").exists()
        return
    quantizer = NncfQuantizer(made, images, tmp_path)
    found = {}
    for kept in ((), tuple(quantizer.parts)):
        quantizer.place(quantizer.write(kept), tmp_path / "x.xml", made.card)
        predictor = Predictor(tmp_path / "x.xml")
        assert (predictor.engine, predictor.card) == ("openvino", made.card)
        found[kept] = signal_to_noise(made.predict(images), predictor.predict(images))
    everything, nothing = found.values()
    assert 8 < everything < 60
    assert nothing > 80


def test_what_is_refused(made, tmp_path):
    images = sample_images(16, 32)
    refused = [
        (dict(engine="mxnet"), r"MXNet's own 8 bits are slower .* \(measured: 25 ms against 17\)"),
        (dict(engine="tensorrt"), "engine must be onnxruntime or openvino, got 'tensorrt'"),
        (dict(max_loss=0), "the loss allowed must be above 0 points, got 0"),
        (dict(batch=0), "batch must be at least 1, got 0"),
    ]
    for settings, message in refused:
        with pytest.raises(InputError, match=message):
            export_int8(made, tmp_path / "out", images, **settings)
    for wrong in (images[:15], images[:, :, :16], images[0]):
        with pytest.raises(InputError, match=r"takes \(n, 3, 32, 32\) images, n at least 16; got"):
            export_int8(made, tmp_path / "out", wrong)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------ the command


@pytest.mark.thorough
def test_the_command(made, digits, tmp_path, capsys):
    weights = tmp_path / "run" / "best.params"
    weights.parent.mkdir()
    made.net.save_parameters(str(weights))
    made.card.save(weights.with_name("card.json"))
    photos = shutil.copytree(digits.root / "images/val/3", tmp_path / "photos")
    settings = ["--calib-dir", photos, "--images", "16", "--max-loss", "100", "--threads", "0"]
    command = ["export", "int8", weights.parent, tmp_path / "out", *settings]
    assert main([str(word) for word in command]) == 0
    out, err = capsys.readouterr()
    assert "points of agreement" in out
    assert err.startswith("all in 8 bits: ")
    assert main(["predict", str(photos), "--model", str(tmp_path / "out"), "--top", "1"]) == 0
    capsys.readouterr()
    damaged = next(photos.iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-9])
    rec = with_damaged_record(digits.val, tmp_path / "val.rec", 4)
    flags = ["--rec-val", rec, "--images", "99"]  # all of the pictures
    command[3] = tmp_path / "second"
    assert main([str(word) for word in [*command, *flags]]) == 2
    err = capsys.readouterr().err
    assert f"{damaged}: truncated JPEG" in err
    assert "--max-bad-records N allows N such" in err
    assert main([str(word) for word in [*command, *flags, "--max-bad-records", 1]]) == 0
    out, err = capsys.readouterr()
    assert "1 of 46 images left out: they cannot be read" in out
    assert f"left out: {damaged}: truncated JPEG" in err
    assert f"left out: {rec}, record 4 (key 4): " in err
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "1.png").write_bytes(b"no picture")
    refused = [
        ([*command[:4], "--calib-dir", bad], f"{bad}/1.png: not a picture: it starts with"),
        ([*command[:4]], "give --rec-calib or --calib-dir, one of them"),
        ([*command, "--engine", "mxnet"], "MXNet's own 8 bits are slower"),
        ([*command[:4], "--calib-dir", photos, "--images", "0"], "--images must be at least 1"),
        (command, "second exists already"),
    ]
    for words, message in refused:
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert (out, len(err.splitlines())) == ("", 1)
