"""timm's own calls on our names, after the contract tests of timm's ``tests/test_models.py``."""

import importlib.util

import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.zoo import get_model
from tests.conftest import run_python
from tests.floats import assert_close
from tests.timm_import import import_timm

if not importlib.util.find_spec("timm"):
    pytest.skip("needs timm", allow_module_level=True)
torch = pytest.importorskip("torch")
timm = import_timm()
importlib.import_module("gluon_asymmnet.torch")  # registers

pytestmark = pytest.mark.thorough

WIDTHS = ("035", "050", "075", "100")
NAMES = [f"asymmnet_{size}_{width}" for size in ("large", "small") for width in WIDTHS]


def test_names():
    assert timm.list_models("asymmnet*") == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    net = timm.create_model(name, num_classes=42).eval()
    x = torch.rand(2, 3, 64, 64)
    features = net.forward_features(x)
    assert features.shape == (2, net.num_features, 2, 2)
    assert torch.equal(net.forward_head(features), net(x))
    assert net(x).shape == (2, 42)
    before = net.forward_head(features, pre_logits=True)
    assert before.shape == (2, net.head_hidden_size)
    classifier = net.get_classifier()
    assert torch.equal(classifier(before[..., None, None]).flatten(1), net(x))
    net.reset_classifier(0)
    assert net(x).shape == (2, net.head_hidden_size)
    net.reset_classifier(0, "")
    assert net(x).shape == (2, net.head_hidden_size, 2, 2)
    net.reset_classifier(7)
    assert (net(x).shape, net.num_classes) == ((2, 7), 7)
    unpooled = timm.create_model(name, num_classes=0, global_pool="").eval()
    assert unpooled(x).shape == (2, net.head_hidden_size, 2, 2)
    config = net.default_cfg
    assert net.pretrained_cfg == config
    names = dict(net.named_modules())
    assert {config["first_conv"], config["classifier"]} <= names.keys()
    data = timm.data.resolve_model_data_config(net)
    assert (data["input_size"], data["crop_pct"]) == ((3, 224, 224), 0.875)
    assert timm.data.create_transform(**data)


def test_every_parameter_gets_a_gradient_and_other_inputs():
    net = timm.create_model("asymmnet_small_035", num_classes=5, in_chans=1, drop_rate=0.1)
    net(torch.rand(2, 1, 64, 64)).mean().backward()
    assert all(param.grad is not None for param in net.parameters())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript():
    net = timm.create_model("asymmnet_small_035", num_classes=5).eval()
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(torch.jit.script(net)(x), net(x))


@pytest.mark.parametrize("indices", [(0, 1, 2, 3, 4), (2, 4), (1,)])
def test_features_only(indices):
    net = timm.create_model("asymmnet_large_050", features_only=True, out_indices=indices).eval()
    maps = net(torch.rand(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == net.feature_info.channels()
    assert [64 // m.shape[2] for m in maps] == net.feature_info.reduction()
    assert net.feature_info.reduction() == [2 ** (i + 1) for i in indices]
    assert len(net.feature_info.get_dicts()) == len(indices)


@pytest.mark.parametrize("form", ["params", "pt", "safetensors"])
def test_weights_from_a_file(form, tmp_path):
    ours = get_model("asymmnet_small", width=0.35, classes=6)
    mx.random.seed(1)
    ours.initialize(mx.init.MSRAPrelu())
    x = torch.rand(1, 3, 64, 64)
    expected = ours(mx.nd.array(x.numpy()))
    ours.save_parameters(str(tmp_path / "net.params"))
    file = tmp_path / f"net.{form}"
    source = timm.create_model(
        "asymmnet_small_035", num_classes=6, pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "net.params")},
    ).eval()  # fmt: skip
    assert_close(source(x).detach(), expected, terms=2000, condition=10)
    if form == "pt":
        torch.save(source.state_dict(), file)
    elif form == "safetensors":
        from safetensors.torch import save_file

        save_file(source.state_dict(), file)
    overlay = {"file": str(file)}
    net = timm.create_model("asymmnet_small_035", num_classes=6, pretrained=True,
                            pretrained_cfg_overlay=overlay).eval()  # fmt: skip
    assert torch.equal(net(x), source(x))
    if form != "params":
        checked = timm.create_model("asymmnet_small_035", num_classes=6, checkpoint_path=str(file))
        assert torch.equal(checked.eval()(x), source(x))
    other = timm.create_model("asymmnet_small_035", num_classes=3, pretrained=True,
                              pretrained_cfg_overlay=overlay)  # fmt: skip
    assert torch.equal(other.features.stem.conv.weight, net.features.stem.conv.weight)
    maps = timm.create_model("asymmnet_small_035", features_only=True, pretrained=True,
                             pretrained_cfg_overlay=overlay)  # fmt: skip
    assert torch.equal(maps.features.stem.conv.weight, net.features.stem.conv.weight)


@pytest.mark.parametrize("ours_first", [True, False])
def test_either_order(ours_first):
    lines = ["import gluon_asymmnet.torch", "timm = import_timm()"]
    code = ["from tests.timm_import import import_timm", *(lines if ours_first else lines[::-1])]
    code.append("print(timm.is_model('asymmnet_large_100'))")
    assert run_python("-c", "\n".join(code)).stdout == "True\n"


def test_timm_is_not_loaded_for_nothing():
    done = run_python("-c", "import sys, gluon_asymmnet.torch; print('timm' in sys.modules)")
    assert done.stdout == "False\n"
