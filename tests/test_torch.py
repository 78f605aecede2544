"""The networks in PyTorch against those in Gluon."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torch

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.arch import feature_info
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.models.complexity import count_plan
from gluon_asymmnet.models.registry import ModelSpec
from gluon_asymmnet.torch import asymmnet, load_weights
from gluon_asymmnet.weights.convert import convert
from gluon_asymmnet.weights.layouts import entries
from gluon_asymmnet.zoo import get_model
from tests.conftest import run_python
from tests.floats import NET, assert_close, difference

pytestmark = pytest.mark.thorough


def random_arrays(plan, classes, seed=0):
    """Weights that do not blow the signal up, and statistics that are not those of a new net."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, shape in entries(plan, classes):
        if name.endswith("weight"):
            array = rng.normal(0, (1.2 / np.prod(shape[1:])) ** 0.5, shape)
        elif name.endswith(("gamma", "running_var")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(0, 0.2, shape)
        arrays[name] = array.astype(np.float32)
    return arrays


@pytest.fixture
def pair(tmp_path):
    """Make a Gluon net and a PyTorch one with the same random weights."""

    def make(name, *, features_only=False, out_indices=(0, 1, 2, 3, 4), **settings):
        gluon = get_model(name, classes=7, **settings)
        path = str(tmp_path / "net.params")
        gluon.initialize()
        arrays = random_arrays(gluon.plan, 7)
        for key, parameter in gluon._collect_params_with_prefix().items():
            parameter.set_data(mx.nd.array(arrays[key]))
        gluon.save_parameters(path)
        net = asymmnet(
            name, classes=7, features_only=features_only, out_indices=out_indices, **settings
        )
        assert load_weights(net, path) == "ours"
        return gluon, net.eval()

    return make


def outputs(gluon, net, size=64):
    images = np.random.default_rng(1).normal(size=(2, 3, size, size)).astype(np.float32)
    with torch.no_grad():
        return net(torch.from_numpy(images)), gluon(mx.nd.array(images))


SAME = [
    (name, {"width": width, "rate": rate})
    for name in ("asymmnet_large", "asymmnet_small")
    for width in (0.35, 0.5, 0.75, 1.0, 1.25)
    for rate in (0, 1, 2)
    if (width, rate) != (0.35, 2)
] + [
    ("asymmnet_large", {"width": 0.5, "stem": "scaled"}),
    ("asymmnet_large", {"width": 0.5, "shuffle_groups": 2}),
    ("asymmnet_small", {"rate": 2, "shuffle_groups": 2}),
    ("mobilenetv3_small", {"rate": 0}),
]


@pytest.mark.parametrize(("name", "settings"), SAME)
def test_logits_are_those_of_gluon(pair, name, settings):
    ours, gluons = outputs(*pair(name, **settings))
    assert_close(ours, gluons, terms=NET)
    assert np.abs(ours.numpy()).max() > 0.1


def test_shuffle_and_first_shortcut_are_seen_by_the_comparison(pair):
    """Either moves the logits by a hundred times what is forgiven above."""
    plain, _ = outputs(*pair("asymmnet_large", width=0.5))
    for other in ({"shuffle_groups": 2}, {"stem": "scaled"}):
        logits, _ = outputs(*pair("asymmnet_large", width=0.5, **other))
        assert difference(logits, plain) > 1e-3


def test_state_dict_differs_by_the_norms_alone():
    net = asymmnet("asymmnet_small", width=0.5, classes=7)
    plan = ModelSpec("asymmnet_small", 0.5).plan()
    state = {n: t for n, t in net.state_dict().items() if not n.endswith("num_batches_tracked")}
    renamed = [
        (e.name.replace(".gamma", ".weight").replace(".beta", ".bias"), e.shape)
        for e in entries(plan, 7)
    ]
    assert [(name, tuple(t.shape)) for name, t in state.items()] == renamed


@pytest.mark.parametrize(("name", "parameters"), [
    ("asymmnet_large", 6_076_608),  # the authors' count and the weights it missed: test_complexity
    ("mobilenetv3_large", 5_481_752),  # imgclsmob mobilenetv3_large_w1
])  # fmt: skip
def test_parameters(name, parameters):
    net = asymmnet(name)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert parameters == count_plan(net.plan).parameters


def test_starts_as_gluon_starts():
    """Both draw normal numbers of variance 2 / (1 + 1/16) / ((fan_in + fan_out) / 2)."""
    torch.manual_seed(0)
    net = asymmnet("asymmnet_large")
    weight = net.features.hidden.weight  # 960 -> 1280
    assert weight.std().item() == pytest.approx((2 / (1 + 1 / 16) / 1120) ** 0.5, rel=0.01)
    depthwise = net.features.blocks[14].depthwise.conv.weight  # 5 x 5, fan 25 in, 25 * 1120 out
    expected = (2 / (1 + 1 / 16) / (25 * (1 + depthwise.shape[0]) / 2)) ** 0.5
    assert depthwise.std().item() == pytest.approx(expected, rel=0.05)
    assert not net.output.bias.any()


def test_every_parameter_learns():
    net = asymmnet("asymmnet_small", width=0.5, rate=2, shuffle_groups=2, classes=7)
    net(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


# ------------------------------------------------------------------- feature maps


@pytest.mark.parametrize(("name", "first"), [("asymmnet_large", 0), ("asymmnet_small", 1)])
def test_feature_maps_are_those_of_gluon(pair, name, first):
    """Gluon's start with c2 in the small net, none of whose blocks has stride 2."""
    indices = range(first, 6)
    gluon, net = pair(name, width=0.5, features_only=True, out_indices=indices)
    maps = gluon.feature_maps(*("c1", "c2", "c3", "c4", "c5", "squeeze")[first:])
    for ours, gluons in zip(*outputs(maps, net)):
        assert_close(ours, gluons, terms=NET)


def test_feature_info():
    net = asymmnet("asymmnet_large", features_only=True)
    maps = net(torch.zeros(1, 3, 64, 64))
    assert net.feature_info.channels() == [16, 24, 40, 112, 160] == [m.shape[1] for m in maps]
    assert net.feature_info.reduction() == [2, 4, 8, 16, 32] == [64 // m.shape[2] for m in maps]
    assert net.feature_info.module_name() == [f"features.blocks.{i}" for i in (0, 2, 5, 11, 14)]
    full = dict(asymmnet("asymmnet_large").named_modules())
    assert all(name in full for name in net.feature_info.module_name())


def test_only_what_the_maps_need_is_built_in_their_order():
    net = asymmnet("asymmnet_small", width=0.5, features_only=True, out_indices=(2, 1))
    c2, c3, *_ = feature_info(net.plan)  # no c1: the first map of stride 2 is the stem's
    assert net.feature_info.info == [
        {"num_chs": c3.channels, "reduction": 8, "module": f"features.blocks.{c3.block}"},
        {"num_chs": c2.channels, "reduction": 4, "module": f"features.blocks.{c2.block}"},
    ]
    assert len(net.features.blocks) == c3.block + 1
    assert [m.shape[2] for m in net(torch.zeros(1, 3, 64, 64))] == [8, 16]
    stem = asymmnet("asymmnet_small", features_only=True, out_indices=(0,))
    assert stem.feature_info.info == [{"num_chs": 16, "reduction": 2, "module": "features.stem"}]
    assert [m.shape for m in stem(torch.zeros(1, 3, 64, 64))] == [(1, 16, 32, 32)]
    assert len(stem.features.blocks) == 0


# ------------------------------------------------------------------- weights


@pytest.fixture
def files(tmp_path):
    """One network, 7 classes, as a safetensors file and in the names of the port."""
    net = get_model("asymmnet_large", width=0.5, classes=7)
    net.initialize()
    net.save_parameters(str(tmp_path / "net.params"))
    for to in ("safetensors", "torch", "torch-ours", "published"):
        convert(tmp_path / "net.params", tmp_path / to, to)
    return tmp_path


@pytest.mark.parametrize("layout", ["torch", "torch-ours", "published"])
def test_every_layout_loads(files, layout):
    net = asymmnet("asymmnet_large", width=0.5, classes=7, stem="scaled")
    assert load_weights(net, files / layout) == layout
    other = asymmnet("asymmnet_large", width=0.5, classes=7)
    other.load_state_dict(torch.load(files / "torch-ours", weights_only=True), strict=True)
    for a, b in zip(net.state_dict().values(), other.state_dict().values()):
        assert torch.equal(a, b)


def test_own_state_dict_comes_back(tmp_path):
    net, other = (asymmnet("asymmnet_small", width=0.5, classes=7) for _ in range(2))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    assert load_weights(other, tmp_path / "net.pt") == "torch-ours"
    for a, b in zip(net.state_dict().values(), other.state_dict().values()):
        assert torch.equal(a, b)


def test_half_precision_weights_become_single(files, tmp_path):
    net = asymmnet("asymmnet_large", width=0.5, classes=7)
    load_weights(net, files / "safetensors")
    half = {name: tensor.half() for name, tensor in net.state_dict().items()}
    torch.save(half, tmp_path / "half.pt")
    load_weights(net, tmp_path / "half.pt")
    assert net.output.weight.dtype == torch.float32
    assert torch.equal(net.output.weight, half["output.weight"].float())


def test_all_but_the_classifier(files):
    net = asymmnet("asymmnet_large", width=0.5, classes=3)
    before = net.output.weight.clone()
    load_weights(net, files / "safetensors", skip_output=True)
    assert torch.equal(net.output.weight, before)
    source = asymmnet("asymmnet_large", width=0.5, classes=7)
    load_weights(source, files / "safetensors")
    assert torch.equal(net.features.hidden.weight, source.features.hidden.weight)


def test_the_ports_first_shortcut_is_not_lost_in_silence(files):
    with pytest.warns(UserWarning, match=r"has a shortcut here; .* build it with stem='scaled'"):
        load_weights(asymmnet("asymmnet_large", width=0.5, classes=7), files / "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(
            asymmnet("asymmnet_large", width=0.5, classes=7, stem="scaled"), files / "torch"
        )


# ------------------------------------------------------------------- refused


def test_other_classes_or_width(files):
    net = asymmnet("asymmnet_large", width=0.5, classes=10)
    before = net.output.bias.clone()
    with pytest.raises(FormatError, match=r"2 wrongly shaped: .*output\.bias is \(7,\) in the fil"):
        load_weights(net, files / "safetensors")
    assert torch.equal(net.output.bias, before)
    with pytest.raises(FormatError, match=r"wrongly shaped: features\.stem\.conv\.weight is \(8,"):
        load_weights(asymmnet("asymmnet_large", classes=7), files / "safetensors")


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_nothing_in_a_file_is_executed(tmp_path):
    touched = tmp_path / "touched"
    torch.save({"output.bias": Touch(str(touched))}, tmp_path / "net.pt")
    net = asymmnet("asymmnet_small", width=0.5)
    with pytest.raises(FormatError, match=r"net\.pt: .* nothing else is loaded: it names posix\."):
        load_weights(net, tmp_path / "net.pt")
    (tmp_path / "net.params").write_bytes(pickle.dumps(Touch(str(touched)), 2))
    with pytest.raises(FormatError, match=r"net\.params: a Python pickle .*; expected a \.params"):
        load_weights(net, tmp_path / "net.params")
    assert not touched.exists()


@pytest.mark.parametrize(("settings", "message"), [
    ({"name": "asymmnet_larg"}, "did you mean 'asymmnet_large'"),
    ({"rate": 5}, "rates that fit"),
    ({"classes": 0}, "classes must be a whole number, at least 1, got 0"),
    ({"dropout": 1}, "dropout must be at least 0 and below 1, got 1"),
    ({"features_only": True, "out_indices": (4, 6)}, r"of 0 to 5 \(c1, .*squeeze\), got \(4, 6\)"),
    ({"features_only": True, "out_indices": ()}, r"out_indices must be some of .*, got \(\)"),
])  # fmt: skip
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        asymmnet(**{"name": "asymmnet_large", **settings})


def test_without_pytorch():
    """It stands in the way of nothing else, and says what to install."""
    hidden = "import sys; sys.modules['torch'] = None; import gluon_asymmnet.weights.convert; "
    done = run_python("-c", hidden + "import gluon_asymmnet.torch")
    assert done.stderr.splitlines()[-1] == (
        "ImportError: gluon_asymmnet.torch needs PyTorch: pip install 'gluon_asymmnet[torch]'"
    )


def test_needs_no_mxnet():
    hidden = "import sys; sys.modules['mxnet'] = None; from gluon_asymmnet.torch import asymmnet; "
    done = run_python("-c", hidden + "print(asymmnet('asymmnet_small').plan.stem)")
    assert (done.stdout, done.stderr) == ("16\n", "")
