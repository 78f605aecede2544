"""The ONNX graph of whole networks, of any family, against MXNet."""

import functools
from collections import Counter

import onnxruntime
import pytest

from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.export.onnx.export import LOGITS, OnnxForm, build_model, to_onnx
from gluon_asymmnet.export.openvino import save_ir
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.export.symbol import export_symbol
from gluon_asymmnet.models.asymmnet import fold_for_inference
from gluon_asymmnet.nn.folding import fold_all
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.utils.extras import load_extra
from tests.floats import NET, assert_close
from tests.random_nets import random_detector, random_model, settle


def run(model, images):
    """The first output of an ``onnx.ModelProto`` in ONNX Runtime."""
    return run_all(model, images)[0]


def run_all(model, images):
    """All outputs of an ``onnx.ModelProto`` in ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"data": images})


def kinds(model):
    return Counter(node.op_type for node in model.graph.node)


@functools.lru_cache
def zoo_net(name, side):
    net = gluoncv.model_zoo.get_model(name, classes=7)
    settle(net, sample_images(8, side, seed=1))
    return net, ClassifierCard(model=name, classes=7, input_size=side)


ZOO = {  # by hand: convolutions; normalisations that no convolution precedes
    "mobilenetv2_0.25": (64, 53, 0),
    "resnet18_v1b": (64, 20, 0),
    "resnet18_v2": (64, 20, 10),
    "shufflenet_v1": (224, 49, 0),
    "shufflenet_v2": (224, 56, 0),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("opset", [13, 17])
def test_nets_of_the_zoo(name, opset):
    side, convolutions, norms = ZOO[name]
    net, card = zoo_net(name, side)
    model = build_model(net, [LOGITS], card, OnnxForm(opset))
    assert model.opset_import[0].version == opset
    found = kinds(model)
    assert (found["Conv"], found["BatchNormalization"]) == (convolutions, norms)
    for batch in (1, 3):
        images = sample_images(batch, side, seed=2)
        expected = net(mx.nd.array(images)).asnumpy()
        assert_close(run(model, images), expected, terms=NET)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["mobilenetv2_0.25", "shufflenet_v2"])
def test_openvino_runs_them(tmp_path, name):
    """Through the same intermediate files as AsymmNet, one batch size after the other."""
    openvino = load_extra("openvino")
    side = ZOO[name][0]
    net, card = zoo_net(name, side)
    model = build_model(net, [LOGITS], card, OnnxForm(17)).SerializeToString()
    save_ir(openvino.Core().read_model(model, b""), tmp_path / "net.xml")
    session = openvino.Core().compile_model(
        str(tmp_path / "net.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for batch in (1, 3):
        images = sample_images(batch, side, seed=2)
        expected = net(mx.nd.array(images)).asnumpy()
        assert_close(session(images)[0], expected, terms=NET)


FORMS = [OnnxForm(13, joins="before"), OnnxForm(17, joins="before"),
         OnnxForm(13, hard_swish="clip", joins="before")]  # fmt: skip


def assert_weights_are_folded(model, net):
    """The convolutions of the file have the weights that ``fold_all`` gives, to the bit.

    On a map of one pixel they have the centre of the kernel alone.
    """
    arrays = {n: p.data().asnumpy() for n, p in net._collect_params_with_prefix().items()}
    expected = {a.tobytes(): a for a in fold_all(arrays).values() if a.ndim == 4}
    weights = [w for w in model.graph.initializer if len(w.dims) == 4]
    taps = [w.raw_data for w in weights if w.name.endswith(".tap")]
    for whole in (w.raw_data for w in weights if not w.name.endswith(".tap")):
        del expected[whole]
    centres = [a[:, :, a.shape[2] // 2, a.shape[3] // 2].tobytes() for a in expected.values()]
    assert sorted(centres) == sorted(taps)


@pytest.mark.parametrize("form", FORMS)
def test_asymmnet(tmp_path, form):
    made = random_model(tmp_path, shuffle_groups=4)
    model = to_onnx(made, form)
    blocks = made.net.plan.blocks
    gates = sum(bool(block.se_hidden) for block in blocks)
    acts = [block.act for block in blocks for _ in range(1 + bool(block.expand_channels))]
    swishes = 3 + acts.count("hard_swish")
    shuffles = sum(bool(block.shuffle_groups) for block in blocks)
    expected = Counter(
        Conv=4 + 2 * len(blocks) + sum(bool(b.expand_channels) for b in blocks) + 2 * gates,
        Concat=sum(bool(b.rate) for b in blocks), Reshape=2 * shuffles, Transpose=shuffles,
        Add=sum(b.shortcut for b in blocks), GlobalAveragePool=1 + gates, Flatten=1,
        Relu=gates + acts.count("relu"), Mul=gates,
    )  # fmt: skip
    if form.chosen_hard_swish == "op":
        expected += Counter(HardSwish=swishes, HardSigmoid=gates)
    elif form.chosen_hard_swish == "hardsigmoid":
        expected += Counter(HardSigmoid=swishes + gates, Mul=swishes)
    else:
        each = dict.fromkeys(("Add", "Clip", "Div"), swishes + gates)
        expected += Counter(**each, Mul=swishes)
    assert kinds(model) == expected
    assert_weights_are_folded(model, made.net)
    images = sample_images(3, 32, seed=5)
    assert_close(run(model, images), made.predict(images), terms=NET)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "name", ["ssd_300_asymmnet_small_0.35_custom", "ssdlite_320_asymmnet_large_0.35_custom"]
)
@pytest.mark.thorough
def test_detectors(tmp_path, name, form):
    side = int(name.split("_")[1])
    images = sample_images(2, side, seed=5)
    made = open_saved(random_detector(tmp_path / "run", name, images))
    model = to_onnx(made, form)
    maps = len(made.net.class_predictors)
    found = kinds(model)
    assert (found["Softmax"], found["Slice"], found["Exp"], found["Min"]) == (1, 3, 1, 1)
    assert (found["Flatten"], found["Reshape"], found["Transpose"]) == (2 * maps, 2, 2 * maps)
    assert_weights_are_folded(model, made.net)
    assert [output.name for output in model.graph.output] == ["scores", "boxes"]
    for found, expected in zip(run_all(model, images), made.outputs_before_nms(images)):
        assert_close(found, expected, terms=NET, axes=(0, 1))


def test_the_optimized_symbol(tmp_path):
    made = random_model(tmp_path)
    images = sample_images(2, 32, seed=5)
    for net in (fold_for_inference(made.net), exported_symbol(made, tmp_path)):
        model = build_model(net, [LOGITS], made.card)
        assert (kinds(model)["Reshape"], kinds(model)["Slice"]) == (0, 0)  # oneDNN's layouts
        assert_close(run(model, images), made.predict(images), terms=NET)


def exported_symbol(made, tmp_path):
    """The net, in its inference form, written as a symbol and read back."""
    return open_saved(export_symbol(made, tmp_path / "symbol", optimized=True)).net


def test_nodes_keep_their_names(tmp_path):
    net, card = zoo_net("mobilenetv2_0.25", 64)
    graph = build_model(net, [LOGITS], card).graph
    assert [i.name for i in graph.input] == ["data"]
    assert [o.name for o in graph.output] == ["logits"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    symbol = net(mx.sym.var("data"))
    theirs = set(symbol.get_internals().list_outputs())
    ours = {f"{node.name}_output" for node in graph.node if node.op_type in ("Conv", "Clip", "Add")}
    assert ours <= theirs
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names)
