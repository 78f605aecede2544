"""Decomposed nets: where factors stand, merging, statistics, the command, and bad input."""

import json
import re

import numpy as np
import pytest

from examples import decomposition as demo_decomposition
from examples import decomposition_report as report
from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.card import ClassifierCard
from gluon_asymmnet.cli import main
from gluon_asymmnet.compress.network import decompose, layer_moments, select_layers
from gluon_asymmnet.compress.normalisation import reestimate, reset, set_statistics
from gluon_asymmnet.compress.options import METHODS, Options, check
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.complexity import count_graph
from gluon_asymmnet.models.factored import block_at, find_layers, place
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.utils.atomic import write_text
from gluon_asymmnet.weights.load import load_weights
from gluon_asymmnet.weights.params_file import write_params
from gluon_asymmnet.zoo import get_model
from tests import random_nets
from tests.floats import NET, assert_close
from tests.related_nets import copy_in_order, images, randomize

pytestmark = pytest.mark.thorough

nn = mx.gluon.nn
SPATIAL = "features.2.0.right.1.conv"  # the first of a branch with a 1 x 1 behind it


def copied(net, other):
    other.initialize()
    copy_in_order(other, net)
    return other


def batches():
    return [images(4, 32, seed).asnumpy() for seed in (1, 2)]


class Plain(mx.gluon.HybridBlock):
    """Convolutions in every situation: biased, bare, rectified inside and outside, grouped."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.first = nn.Conv2D(6, 3, padding=1, in_channels=3, use_bias=False)
            self.norm = nn.BatchNorm(in_channels=6)
            self.body = nn.HybridSequential()
            with self.body.name_scope():
                self.body.add(
                    nn.Conv2D(8, 3, 2, 1, in_channels=6),
                    nn.Activation("relu"),
                    nn.Conv2D(8, 3, 1, 2, 2, in_channels=8, use_bias=False),
                    nn.Conv2D(8, 3, 1, 1, in_channels=8, activation="relu"),
                    nn.Conv2D(8, 3, 1, 1, groups=4, in_channels=8),
                    nn.Conv2D(6, (1, 3), 1, (0, 1), in_channels=8, use_bias=False),
                    nn.BatchNorm(in_channels=6),
                    nn.Conv2D(5, 1, in_channels=6, use_bias=False),
                )
            self.pool = nn.GlobalAvgPool2D()
            self.output = nn.Dense(4, in_units=5)

    def hybrid_forward(self, F, x):
        x = F.relu(self.norm(self.first(x)))
        return self.output(self.pool(self.body(x)))


@pytest.fixture(scope="module")
def shuffle():
    net = get_model("shufflenetv2_regular", width=0.5, classes=5)
    random_nets.settle(net, images(16, 32, seed=7).asnumpy())
    return net


def test_layers_are_found_with_what_stands_behind_them():
    found = {layer.path: layer for layer in find_layers(Plain())}
    assert list(found) == ["first", "body.0", "body.2", "body.3", "body.5"]
    assert [layer.reads_image for layer in found.values()] == [True, *[False] * 4]
    assert found["first"].norm == "norm" and found["body.0"].norm is None
    assert [layer.relu for layer in found.values()] == [False, True, False, True, False]
    assert found["body.5"][2:] == ("body.6", False, "body.7", None)
    assert found["first"].pointwise is None


def test_by_default_layers_are_those_that_get_cheaper():
    """Not the attention's convolutions over channels, of one input and one output."""
    net = get_model("eca_resnet18", classes=2)
    shapes = {block_at(net, layer.path).weight.shape[2:] for layer in find_layers(net)}
    assert len(shapes) == 5  # 7 x 7, 3 x 3, and three lengths of attention
    assert {block_at(net, layer.path).weight.shape[2:] for layer in select_layers(net)} == {(3, 3)}
    assert len(select_layers(net)) == 16


def test_shufflenets_spatial_convolutions_are_linear_up_to_the_next(shuffle):
    layers = find_layers(shuffle)
    assert len(layers) == 1 + 3 + 16  # the stem, left branches, right branches
    assert layers[0].relu and not any(layer.relu for layer in layers[1:])
    assert all(layer.pointwise and layer.pointwise_norm for layer in layers[1:])


@pytest.mark.parametrize("method", METHODS)
def test_full_rank_is_the_same_net(method):
    """Kernels differ in shape; the largest multiplier of the smallest is 3: of 1 x 3."""
    original, net = randomize(Plain()), Plain()
    copied(original, net)
    x = images(3, 32, seed=5)
    for layer in find_layers(original):
        weight = block_at(original, layer.path).weight
        full = min(weight.shape[0], int(np.prod(weight.shape[2:])))
        options = Options(method, full, positions=30)
        (done,) = decompose(original, net, [layer], batches, options)
        assert done.path == layer.path
        assert done.form.get("rank", 8) in (6, 8)  # of equal cost: all outputs
        assert_close(net(x), original(x), terms=NET)
    assert all(
        type(block_at(net, layer.path)).__name__ == "FactoredConv"
        for layer in find_layers(original)
    )
    net.hybridize()
    assert_close(net(x), original(x), terms=NET)


def test_asymmetric_layers_make_up_for_those_before(shuffle):
    """On the data it was fitted on, at the last layer; both see the same samples."""
    x = mx.nd.array(np.concatenate(list(batches())))
    layers, errors = select_layers(shuffle)[:6], {}
    for method in ("weight-svd", "sequential", "asymmetric"):
        net = copied(shuffle, get_model("shufflenetv2_regular", width=0.5, classes=5))
        list(decompose(shuffle, net, layers, batches, Options(method, 2, positions=60)))
        errors[method] = float((net.features[2](net.features[1](net.features[0](x)))
                                - shuffle.features[2](shuffle.features[1](shuffle.features[0](x)))
                                ).norm().asscalar())  # fmt: skip
    assert errors["asymmetric"] < errors["sequential"] < errors["weight-svd"]


@pytest.mark.parametrize("multiplier", [1, 2])
def test_merging_changes_nothing_but_the_shape(shuffle, multiplier):
    merged, apart = (
        copied(shuffle, get_model("shufflenetv2_regular", width=0.5, classes=5)) for _ in range(2)
    )
    layers = select_layers(shuffle)
    for net, merge in ((merged, True), (apart, False)):
        done = list(
            decompose(shuffle, net, layers, batches, Options("sequential", multiplier, merge=merge))
        )
        assert all(("norm" in layer.form) == merge for layer in done)
    x = images(3, 32, seed=5)
    expected = apart(x).asnumpy()
    assert_close(merged(x), expected, terms=NET)
    # measuring what the new normalisations see leaves the function as it is, in training, too
    norms = [block_at(merged, layer.norm) for layer in layers]
    set_statistics(merged, norms, batches())
    largest = np.abs(expected).max(axis=1, keepdims=True)
    assert_close(merged(x).asnumpy() / largest, expected / largest, terms=NET, condition=10)
    plain = get_model("shufflenetv2", width=0.5, classes=5)
    if multiplier == 1:
        copied(merged, plain)
        assert_close(plain(x), merged(x), terms=NET)
        assert count_graph(merged, 32)[1:] == count_graph(plain, 32)[1:]


def test_merging_into_a_convolution_without_bias_or_normalisation():
    original = randomize(Plain())
    net = copied(original, Plain())
    layer = find_layers(original)[-1]
    (done,) = decompose(original, net, [layer], batches, Options("weight-svd", 3, merge=True))
    assert done.form == {"multiplier": 3, "norm": "body.6", "pointwise": "body.7", "bias": True}
    x = images(3, 32)
    assert_close(net(x), original(x), terms=500)


def test_statistics_are_those_of_all_the_images():
    net = randomize(Plain())
    first = np.concatenate([net.first(mx.nd.array(x)).asnumpy() for x in batches()])
    reestimate(net, batches())
    mean, variance = (p.data().asnumpy() for p in (net.norm.running_mean, net.norm.running_var))
    assert_close(mean, first.mean(axis=(0, 2, 3)), terms=2000)
    assert_close(variance, first.var(axis=(0, 2, 3)), terms=2000)


def test_statistics_are_measured_without_dropout():
    net = nn.HybridSequential()
    net.add(nn.Dropout(0.9), nn.BatchNorm(in_channels=3))
    net.initialize()
    reestimate(net, [np.full((4, 3, 2, 2), 2, np.float32)])
    assert net[1].running_var.data().asnumpy().max() == 0 and net[0]._rate == 0.9


def test_a_settled_normalisation_is_the_identity_in_training():
    norm = nn.BatchNorm(in_channels=3)
    norm.initialize()
    x = images(16, 8).asnumpy() * 3 + 5
    reset(norm)
    assert_close(norm(mx.nd.array(x)), x, axes=())
    set_statistics(norm, [norm], [x])
    with mx.autograd.train_mode():
        assert_close(norm(mx.nd.array(x)), x, terms=1000)
    assert_close(norm(mx.nd.array(x)), x, terms=1000)


def test_moments_of_a_layer_are_those_of_its_patches(shuffle):
    layer = next(layer for layer in find_layers(shuffle) if layer.path == SPATIAL)
    moments = layer_moments(shuffle, layer, batches, Options(positions=400))
    conv = block_at(shuffle, SPATIAL)
    seen = []
    handle = conv.register_forward_hook(lambda block, inputs, output: seen.append(output.asnumpy()))
    for x in batches():
        shuffle(mx.nd.array(x))
    handle.detach()
    responses = np.concatenate(seen)
    spread = responses.std(axis=(0, 2, 3))
    difference = (moments.mean_y - responses.mean(axis=(0, 2, 3))) / spread
    assert np.abs(difference).max() < 0.15
    assert moments.power == pytest.approx(np.sum(spread**2), rel=0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory, shuffle):
    """What a run leaves of the regular net."""
    folder = tmp_path_factory.mktemp("run")
    arrays = {n: p.data().asnumpy() for n, p in shuffle._collect_params_with_prefix().items()}
    write_params(folder / "last.params", arrays)
    ClassifierCard(
        model="shufflenetv2_regular", width=0.5, rate=0, classes=5, input_size=32, crop_ratio=1.0
    ).save(folder / "card.json")
    return folder


def test_the_command_writes_what_opens_and_trains(run, digits, tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["decompose", str(run), str(out), "--rec-train", str(digits.train), "--images",
                 "32", "--positions", "4", "--method", "sequential", "--merge"]) == 0  # fmt: skip
    said = capsys.readouterr()
    assert "macs: " in said.out and f"{SPATIAL}: multiplier 1, merged, relative" in said.err
    model = open_saved(out)
    report = json.loads((out / "decomposition.json").read_text())
    cost = count_graph(get_model("shufflenetv2", width=0.5, classes=5), 32)
    assert (model.card.parameters, model.card.macs) == (cost.parameters, cost.macs)
    assert report["after"] == {"parameters": cost.parameters, "macs": cost.macs}
    assert len(report["layers"]) == 19
    by_spec = get_model(str(out / "spec.json"), classes=5, input_size=32)
    load_weights(by_spec, out / "last.params")  # as --resume-params does
    x = images(2, 32)
    assert_close(by_spec(x), model.predict(x.asnumpy()), terms=NET)  # fmt: skip


def test_without_images_only_weight_svd(run, tmp_path, capsys):
    out = tmp_path / "small"
    assert main(["decompose", str(run), str(out), "--method", "weight-svd", "-m", "2"]) == 0
    assert json.loads((out / "decomposition.json").read_text())["layers"][0]["error"] is None
    other = str(tmp_path / "b")
    for flags, what in ((["--method", "data-svd"], "data-svd"),
                        (["--method", "weight-svd", "--merge"], "merging")):  # fmt: skip
        assert main(["decompose", str(run), other, *flags]) == 2
        assert f"{what} needs images: give --rec-train" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-m", "0"], "multiplier must be at least 1, got 0"),
        (["-m", "10"], "multiplier 10 is above 9, at which the decomposition is exact"),
        (["--sweeps", "-1"], "sweeps must be at least 0, got -1"),
        (["--positions", "0"], "positions must be at least 1, got 0"),
        (["--images", "0"], "--images must be at least 1, got 0"),
        (["--memory", "nan"], "--memory must be a number of GiB above 0, got nan"),
        (["--memory", "0.0001"], "second moments of 216 values take 0.8 MiB, more than the 0.1"),
        (["--layers", "squeeze"], "no regular convolution to decompose matches 'squeeze'; .*stem"),
        (["--layers", "("], "'.' is not a regular expression"),
        (["--method", "channel", "--merge"], "merging is for depthwise methods"),
        (["--method", "data-svd", "--joint"], "are for sequential and asymmetric, not data-svd"),
        (["--data-dir", "x"], "give --rec-train or --data-dir, not both"),
    ],
)
def test_bad_flags(run, digits, tmp_path, capsys, flags, message):
    message = message.replace("stem", "features.0.conv")
    out = tmp_path / "small"
    assert main(["decompose", str(run), str(out), "--rec-train", str(digits.train), *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, error), error
    assert not out.exists()


def test_nets_without_regular_convolutions(teacher_run, run, tmp_path, capsys):
    assert main(["decompose", str(teacher_run), str(tmp_path / "a"), "--method", "weight-svd"]) == 2
    assert "asymmnet_small, whose spatial convolutions are depthwise" in capsys.readouterr().err
    assert main(["decompose", str(run), str(run), "--method", "weight-svd"]) == 2
    assert "exists already" in capsys.readouterr().err


BASE = {"family": "shufflenetv2", "settings": {"regular": "both"}, "width": 0.5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": BASE}, "layers must map paths"),
        ({"layers": {}}, "base must be .* got None"),
        ({"base": {"family": "shufflenetv2"}, "layers": {}}, "base must be .*family.*settings"),
        ({"base": {**BASE, "family": "x"}, "layers": {}}, "unknown family 'x'"),
        ({"base": BASE, "layers": {"features.9": {"multiplier": 1}}}, "features.9 is not"),
        ({"base": BASE, "layers": {SPATIAL: {}}}, "needs a multiplier or a rank, one of them"),
        ({"base": BASE, "layers": {SPATIAL: {"multiplier": 1, "rank": 1}}}, "one of them"),
        ({"base": BASE, "layers": {SPATIAL: {"multiplier": 10}}}, "from 1 to 9, got 10"),
        ({"base": BASE, "layers": {SPATIAL: {"multiplier": 1.5}}}, "from 1 to 9, got 1.5"),
        ({"base": BASE, "layers": {SPATIAL: {"rank": 25}}}, "rank must be .* from 1 to 24, got 25"),
        ({"base": BASE, "layers": {SPATIAL: {"depth": 1}}}, "has 'depth'; a form takes bias"),
        ({"base": BASE, "layers": {SPATIAL: {"rank": 1, "bias": 1}}}, "bias must be true or false"),
        ({"base": BASE, "layers": {SPATIAL: {"multiplier": 1, "norm": "a"}}}, "go together"),
        (
            {"base": BASE, "layers": {
                SPATIAL: {"multiplier": 1, "norm": "output", "pointwise": "output"}}},
            "output is not a BatchNorm of 24 channels",
        ),
        ({"base": BASE, "layers": {SPATIAL: 1}}, "layers must map paths"),
    ],
)  # fmt: skip
def test_specs_that_cannot_be(tmp_path, settings, message):
    write_text(tmp_path / "s.json", json.dumps({"family": "decomposed", "settings": settings}))
    with pytest.raises(InputError, match=message):
        get_model(str(tmp_path / "s.json"), classes=3)


def test_a_width_is_given_once(tmp_path):
    spec = {"family": "decomposed", "settings": {"base": BASE, "layers": {"*": {"rank": 4}}}}
    write_text(tmp_path / "s.json", json.dumps(spec))
    with pytest.raises(InputError, match=r"base says width 0.5, the argument 2.0: give one"):
        get_model(str(tmp_path / "s.json"), width=2.0)
    net = get_model(str(tmp_path / "s.json"), classes=3)
    assert block_at(net, f"{SPATIAL}.spatial").weight.shape == (4, 24, 3, 3)


def test_place_refuses_a_path_into_nothing(shuffle):
    with pytest.raises(InputError, match=r"features\.0\.norm is not a regular k x k convolution"):
        place(shuffle, "features.0.norm", {"multiplier": 1})


def test_methods_have_names():
    with pytest.raises(InputError, match=r"method must be one of weight-svd, .*, got 'svd'"):
        check(Options("svd"))


# Parameters and MACs at 224 x 224, 1000 classes.  Plain: also gluoncv2's and EdgeNets' figures.
# Regular: c * c * 8 more for each of the 3 x 3.  Decomposed: c * c in place of those.
SHUFFLENETS = [
    (0.5, (1_366_792, 40.48), (1_984_768, 115.9), (1_436_488, 49.1)),
    (1.0, (2_278_604, 144.9), (5_894_768, 572.1), (2_682_860, 192.8)),
    (1.5, (3_503_624, 295.8), (11_838_848, 1277.2), (4_433_480, 405.5)),
    (2.0, (7_393_996, 583.3), (23_427_568, 2469.1), (9_180_652, 793.7)),
]


@pytest.mark.parametrize(("width", "plain", "regular", "decomposed"), SHUFFLENETS)
def test_counts_of_shufflenets(width, plain, regular, decomposed):
    for name, (parameters, millions) in (("shufflenetv2", plain), ("shufflenetv2_regular", regular),
                                         ("shufflenetv2_decomposed", decomposed)):  # fmt: skip
        cost = count_graph(get_model(name, width=width), 224)
        assert cost.parameters == parameters
        assert cost.macs / 1e6 == pytest.approx(millions, abs=0.051)


@pytest.mark.parametrize(("width", "parameters"), [(0.5, 1_877_416), (1.0, 5_287_412)])
def test_counts_with_only_the_right_branch_regular(width, parameters):
    spec = {"family": "shufflenetv2", "settings": {"regular": "right"}}
    assert count_graph(get_model("s", width=width, spec=spec), 224).parameters == parameters


def test_shufflenet_is_gluoncvs():
    ours = get_model("shufflenetv2")
    ours.initialize()
    theirs = randomize(gluoncv.model_zoo.get_model("shufflenet_v2"))
    copy_in_order(ours, theirs)
    assert_close(ours(images()), theirs(images()), terms=NET)


@pytest.mark.parametrize(
    ("settings", "width", "message"),
    [
        ({}, 0.75, "width of ShuffleNet V2 must be one of 0.5, 1.0, 1.5, 2.0, got 0.75"),
        ({"regular": "left"}, 1.0, "regular must be one of none, right, both, got 'left'"),
        ({"kernel": 5}, 1.0, "has no setting 'kernel'"),
    ],
)
def test_shufflenets_that_cannot_be(settings, width, message):
    with pytest.raises(InputError, match=message):
        get_model("s", width=width, spec={"family": "shufflenetv2", "settings": settings})


def test_tables_and_picture_of_the_experiment(tmp_path):
    net = {"parameters": 2000, "macs": 4_000_000, "top1": 0.98, "tuned": 0.99, "tuning_epochs": 2}
    half = {"parameters": 1000, "macs": 1_000_000}
    found = {
        "net": net,
        "plain": {**half, "epochs": 12, "top1": 0.97},
        "layers": {"multipliers": [1, 2], "methods": {"channel": {"held_out": [0.5, 0.25]}}},
        "nets": [
            {"name": "sequential", "multiplier": 1, **half, "top1": 0.5, "tuned": 0.96},
            {"name": "sequential", "multiplier": 2, **half, "top1": 0.75},
            {"name": "asymmetric, merged", "multiplier": 1, **half, "top1": 0.6, "tuned": 0.9},
        ],
    }
    assert report.layers_table(found).splitlines()[2] == "| channel | 0.500 | 0.250 |"
    assert report.accuracy_table(found).splitlines()[2:] == ["| sequential | 50.0 % | 75.0 % |"]
    assert report.nets_table(found).splitlines()[2:4] == [
        "| regular, before | 2,000 | 4.00 | 0 % | 98.00 % | 99.00 % |",
        "| sequential | 1,000 | 1.00 | 75 % | 50.00 % | 96.00 % |",
    ]
    report.draw(found, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<svg" in text and "sequential" in text


@pytest.mark.slow
def test_the_experiment_runs_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_decomposition, "EPOCHS", 3)
    monkeypatch.setattr(demo_decomposition, "TUNING", 1)
    monkeypatch.setattr(demo_decomposition, "MULTIPLIERS", (1,))
    monkeypatch.setattr(demo_decomposition, "METHODS", {"sequential": ("sequential", {})})
    for _ in range(2):
        assert demo_decomposition.main([str(tmp_path), "--out", str(tmp_path / "docs")]) == 0
    found = json.loads((tmp_path / "docs/data/decomposition.json").read_text())
    assert [row["name"] for row in found["nets"]] == ["sequential", "asymmetric, merged"]
    assert found["nets"][1]["macs"] == found["plain"]["macs"] < found["net"]["macs"]
    assert set(found["layers"]["methods"]) == set(demo_decomposition.LAYERS)
    assert (tmp_path / "docs/decomposition.svg").exists()
