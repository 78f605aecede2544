import json
import sys

import numpy as np
import onnx
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import read_card
from gluon_asymmnet.data.constants import IMAGENET_MEAN
from gluon_asymmnet.errors import InputError, RunError
from gluon_asymmnet.export.formats import export_all
from gluon_asymmnet.export.onnx.export import OnnxForm, export_onnx, to_onnx, write_onnx
from gluon_asymmnet.export.openvino import export_openvino, write_openvino
from gluon_asymmnet.export.parity import compare, sample_images
from gluon_asymmnet.export.symbol import export_symbol
from gluon_asymmnet.nn.folding import fold
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT, run_python, thorough_but
from tests.floats import NET, assert_close
from tests.random_nets import random_model

# Every width and every rate of both sizes, though not each with each; both stems; a shuffle; an
# odd input; the baseline.
NETS = [
    dict(model="asymmnet_large", width=0.35),
    dict(model="asymmnet_large", width=0.5, rate=0),
    dict(model="asymmnet_large", width=0.75),
    dict(model="asymmnet_large", width=1.0, rate=2),
    dict(model="asymmnet_large", width=1.25),
    dict(model="asymmnet_small", width=0.35),
    dict(model="asymmnet_small", width=0.5, rate=2, stem="scaled"),
    dict(model="asymmnet_small", width=0.75, shuffle_groups=4, input_size=49),
    dict(model="asymmnet_small", width=1.0),
    dict(model="asymmnet_small", width=1.25, rate=0),
    dict(model="mobilenetv3_small", width=0.75, rate=0),
]


@pytest.mark.parametrize(
    "net", thorough_but(NETS, 0, -1), ids=lambda n: "-".join(map(str, n.values()))
)
def test_every_form_gives_the_networks_logits(tmp_path, net):
    made = random_model(tmp_path, **{"input_size": 64, "classes": 11, **net})
    out = export_all(made, tmp_path / "out", form=OnnxForm(opset=15))
    images = sample_images(3, made.card.input_size, seed=5)
    expected = made.predict(images)
    assert np.ptp(expected, axis=0).min() > 0.01 * np.abs(expected).max()  # not all the same
    for engine in ("mxnet", "onnxruntime", "opencv", "openvino"):
        found = compare(expected, Predictor(out, engine).predict(images))
        assert found.relative < 1e-4, engine
    parity = read_card(out / "card.json").parity
    assert list(parity) == ["SymbolBlock", "Module", "onnxruntime", "opencv", "openvino"]
    assert all(p["relative"] < 1e-4 and p["top1_agreement"] == 1 for p in parity.values())


FORMS = [
    (o, h) for o in range(13, 18) for h in ("op", "hardsigmoid", "clip") if (o, h) != (13, "op")
]


@pytest.mark.parametrize(("opset", "hard_swish"), FORMS)
@pytest.mark.thorough
def test_every_opset_and_hard_swish(tmp_path, opset, hard_swish):
    made = random_model(tmp_path)
    parity = write_onnx(made, tmp_path, sample_images(2, 32), OnnxForm(opset, 8, hard_swish))
    assert max(parity["onnxruntime"].relative, parity["opencv"].relative) < 1e-4
    model = onnx.load(tmp_path / "asymmnet_small_w0.35_r1.onnx")
    assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
    assert model.ir_version == 8
    operators = {node.op_type for node in model.graph.node}
    assert ("HardSwish" in operators) == (hard_swish == "op")
    assert ("Clip" in operators) == (hard_swish == "clip")
    assert ("HardSigmoid" in operators) == (hard_swish != "clip")  # the gates


def test_the_graph_is_plain(tmp_path):
    """Convolutions with their normalisation folded, weights inside, MXNet's names."""
    made = random_model(tmp_path, model="asymmnet_large", width=0.35)
    graph = to_onnx(made, OnnxForm(joins="before")).graph
    assert [i.name for i in graph.input] == ["data"]
    assert [o.name for o in graph.output] == ["logits"]
    sizes = [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
    assert sizes == ["batch", 3, 32, 32]
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    wanted = {"stem_conv_fwd", "blocks_3_concat0", "blocks_3_se_reduce_fwd",
              "blocks_14_project_conv_fwd", "hidden_fwd"}  # fmt: skip
    features = "asymmnet_large_w0.35_r1_features_"
    assert {f"{features}{name}" for name in wanted} <= set(names)
    kinds = [node.op_type for node in graph.node]
    assert "BatchNormalization" not in kinds
    # by hand: 15 blocks of depthwise and project, 14 of them with an expansion, 8 with two
    # convolutions of squeeze-and-excite; stem, squeeze, hidden, output
    assert kinds.count("Conv") == 15 * 2 + 14 + 8 * 2 + 4
    concat = next(node for node in graph.node if node.name == f"{features}blocks_3_concat0")
    before, expanded = f"{features}blocks_2__plus0", f"{features}blocks_3_expand_relu_fwd"
    assert list(concat.input) == [before, expanded, before]


@pytest.mark.parametrize(
    ("joins", "convolutions", "concatenations"),
    # by hand, beside the 64 and 14 of the plain graph: of the 14 blocks that join, 6 are without
    # squeeze-and-excite and get 3 depthwise convolutions and projections; of the 8 with it, 2 have
    # stride 2 and get 3 depthwise convolutions, or all 8 also 3 projections and join their means.
    [("behind", 64 + 6 * 4 + 2 * 2, 6 + 2), ("apart", 64 + 14 * 4, 8)],
)
def test_moved_joins_by_hand(tmp_path, joins, convolutions, concatenations):
    made = random_model(tmp_path, model="asymmnet_large", width=0.35)
    graph = to_onnx(made, OnnxForm(joins=joins)).graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("Conv"), kinds.count("Concat")) == (convolutions, concatenations)
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
    graph = to_onnx(random_model(tmp_path, shuffle_groups=4), OnnxForm(joins=joins)).graph
    assert "Transpose" not in {node.op_type for node in graph.node}


JOINED = [
    dict(model="asymmnet_small", width=0.35),
    dict(model="asymmnet_large", width=0.5, rate=2),
    dict(model="asymmnet_small", width=0.75, shuffle_groups=4),
    dict(model="asymmnet_large", width=0.75, rate=0),
]
JOINS = [
    (net, joins, swish) for net in JOINED
    for joins, swish in (("behind", "hardsigmoid"), ("behind", "clip"), ("apart", "op"))
]  # fmt: skip


@pytest.mark.parametrize(("net", "joins", "hard_swish"), thorough_but(JOINS, 1, 5))
def test_moved_joins_give_the_networks_logits(tmp_path, net, joins, hard_swish):
    made, images = random_model(tmp_path, **net), sample_images(3, 32, seed=5)
    expected = made.predict(images)
    parity = write_onnx(made, tmp_path, images, OnnxForm(17, 8, hard_swish, joins))
    parity.update(write_openvino(made, tmp_path, images, joins))
    assert list(parity) == ["onnxruntime", "opencv", "openvino"]
    assert np.ptp(expected, axis=0).min() > 0.01 * np.abs(expected).max()  # not all the same
    assert max(found.relative for found in parity.values()) < 1e-5


def test_a_fold_by_hand(tmp_path):
    """One channel of the stem: weight 3, gamma 2, beta 5, mean 4, variance 0.25 - epsilon."""
    made = random_model(tmp_path)
    stem = made.net.features.stem
    for param, value in (
        (stem.conv.weight, 3),
        (stem.norm.gamma, 2),
        (stem.norm.beta, 5),
        (stem.norm.running_mean, 4),
        (stem.norm.running_var, 0.25 - 1e-5),
    ):
        array = param.data().asnumpy()
        array[0] = value
        param.set_data(mx.nd.array(array))
    found = {t.name: onnx.numpy_helper.to_array(t) for t in to_onnx(made).graph.initializer}
    name = "asymmnet_small_w0.35_r1_features_stem_conv_fwd"
    assert found[f"{name}.weight"][0, 0, 0, 0] == pytest.approx(3 * 2 / 0.5)
    assert found[f"{name}.bias"][0] == pytest.approx(5 - 4 * 2 / 0.5)


def test_the_card_is_inside(tmp_path):
    names = ["Käse", 'a "b" <c> & d\\', "cat", "dog", "emu", "fox", "gnu"]
    made = random_model(tmp_path, class_names=names)
    out = export_all(made, tmp_path / "out")
    beside = read_card(out / "card.json")
    (path,) = out.glob("*.onnx")
    metadata = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(metadata["card"])["parity"] == {
        name: beside.parity[name] for name in ("onnxruntime", "opencv")
    }
    assert metadata["class_names"].split("\n") == names
    assert metadata["input_size"] == "32"
    assert metadata["crop_ratio"] == "0.875"
    assert tuple(map(float, metadata["rgb_mean"].split(","))) == IMAGENET_MEAN
    (out / "card.json").unlink()
    for engine in ("onnxruntime", "opencv", "openvino"):
        inside = Predictor(out, engine).card
        assert inside.class_names == names
        assert (inside.parameters, inside.macs) == (beside.parameters, beside.macs)
    assert Predictor(path, "openvino").card.class_names == names  # an ONNX file in OpenVINO


@pytest.mark.thorough
def test_onnxruntime_says_nothing_when_it_loads(tmp_path):
    for i, form in enumerate((OnnxForm(), OnnxForm(17), OnnxForm(13, hard_swish="clip"))):
        made = random_model(tmp_path, shuffle_groups=4)
        (tmp_path / f"{i}.onnx").write_bytes(to_onnx(made, form).SerializeToString())
    code = "import onnxruntime as o, sys; [o.InferenceSession(p) for p in sys.argv[1:]]"
    done = run_python("-c", code, *(tmp_path / f"{i}.onnx" for i in range(3)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_exported_symbol_goes_on_to_the_other_forms(tmp_path):
    made = random_model(tmp_path)
    symbol = export_symbol(made, tmp_path / "symbol")
    images = sample_images(2, 32, seed=3)
    for export, form in ((export_onnx, "onnx"), (export_openvino, "openvino")):
        out = export(open_saved(symbol), tmp_path / form)
        assert_close(Predictor(out).predict(images), made.predict(images), terms=NET)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (dict(opset=12), "opset must be 13 to 17, got 12"),
        (dict(opset=18), "opset must be 13 to 17, got 18"),
        (dict(hard_swish="op"), "operator came with opset 14, the opset asked for is 13: raise it"),
        (dict(hard_swish="swish"), "one of op, hardsigmoid, clip, got 'swish'"),
        (dict(joins="here"), "joins must be one of before, behind, apart, got 'here'"),
        (dict(ir_version=3), r"ir_version must be 4 to \d+, got 3"),
        (dict(ir_version=99), "got 99"),
    ],
)
def test_forms_that_cannot_be_written(tmp_path, form, message):
    with pytest.raises(InputError, match=message):
        export_onnx(random_model(tmp_path), tmp_path / "out", **form)
    assert list(tmp_path.iterdir()) == []


def test_networks_and_places_that_cannot_be_exported(tmp_path):
    grouped = random_model(tmp_path)
    net = get_model("asymmnet_small", width=0.35, classes=7, norm_layer=mx.gluon.nn.GroupNorm,
                    norm_kwargs={"num_groups": 8})  # fmt: skip
    net.initialize()
    grouped = grouped._replace(net=net)
    with pytest.raises(
        InputError, match=r"operator GroupNorm of node \w.*_stem_norm_\w+ cannot be"
    ):
        export_onnx(grouped, tmp_path / "out")
    with pytest.raises(InputError, match=r"net\.onnx is to be a folder"):
        export_onnx(random_model(tmp_path), tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r"must be \(n, 3, 32, 32\), got \(2, 3, 64, 64\)"):
        export_onnx(random_model(tmp_path), tmp_path / "out", images=sample_images(2, 64))
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="there exists already"):
        export_openvino(random_model(tmp_path), tmp_path / "there")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_difference_is_refused_and_nothing_written(tmp_path, monkeypatch):
    made = random_model(tmp_path)

    def wrong(weight, gamma, beta, mean, variance, epsilon, *bias):
        return fold(weight, gamma, beta, mean, variance, 1.0, *bias)

    monkeypatch.setattr("gluon_asymmnet.export.onnx.trace.fold", wrong)
    for export, what in ((export_onnx, "the ONNX file"), (export_openvino, "the IR"),
                         (export_all, "the ONNX file")):  # fmt: skip
        with pytest.raises(RunError, match=f"{what} differs from the network by"):
            export(made, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("export", "library", "extra"),
    [
        (export_onnx, "onnx", "onnx"),
        (export_onnx, "onnxruntime", "onnx"),
        (export_openvino, "onnx", "onnx"),
        (export_openvino, "openvino", "openvino"),
        (export_all, "onnxruntime", "onnx"),
        (export_all, "openvino", "openvino"),
    ],
)
@pytest.mark.thorough
def test_a_missing_library_names_its_extra(tmp_path, monkeypatch, export, library, extra):
    made = random_model(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    message = rf"{library} is not installed: pip install 'gluon_asymmnet\[{extra}\]'"
    with pytest.raises(InputError, match=message):
        export(made, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_the_command_compares_on_real_images(tmp_path, digits):
    made = random_model(tmp_path, classes=10)
    made.net.save_parameters(str(made.weights))
    named = ("--model", "asymmnet_small_0.35", "--classes", 10, "--input-size", 32)
    done = run_python(
        ROOT / "export.py", "all", made.weights, tmp_path / "out", *named, "--rec-val", digits.val,
        "--opset", 16, "--hard-swish", "clip",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("same best class on 100 % of 16 images") == 5
    (path,) = (tmp_path / "out").glob("*.onnx")
    assert onnx.load(path).opset_import[0].version == 16
    done = run_python(ROOT / "export.py", "onnx", made.weights, tmp_path / "out", *named)
    assert done.returncode == 2
    assert "out exists already" in done.stderr
