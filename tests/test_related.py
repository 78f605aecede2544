"""Every related net of the registry, from its first output to its exported files."""

import json

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.export.formats import FORMATS, export_all
from gluon_asymmnet.export.onnx.export import export_onnx
from gluon_asymmnet.export.parity import sample_images
from gluon_asymmnet.export.symbol import export_symbol
from gluon_asymmnet.models.registry import FAMILY_MODELS
from gluon_asymmnet.predict import Predictor
from gluon_asymmnet.saved import open_saved
from gluon_asymmnet.zoo import get_model
from tests.floats import NET, assert_close
from tests.random_nets import random_model

pytestmark = pytest.mark.thorough

CLASSES = 5
SLOW = ("eca_resnet101", "eca_resnet152")  # more of what eca_resnet50 is
NETS = [
    pytest.param(name, rate, marks=[pytest.mark.slow] * (name in SLOW))
    for name, row in FAMILY_MODELS.items()
    for rate in row.rates
]
FIRST = {row.family: (name, row.rates[-1]) for name, row in reversed(FAMILY_MODELS.items())}


@pytest.mark.parametrize(("name", "rate"), NETS)
def test_a_related_net(tmp_path, name, rate):
    row = FAMILY_MODELS[name]
    side = 32 if name.startswith(("cifar_", "rpw_")) else 64
    made = random_model(
        tmp_path, batch=16 if name in SLOW else 8, model=name, width=min(row.widths), rate=rate,
        classes=CLASSES, input_size=side,
    )  # fmt: skip
    net, images = made.net, sample_images(2, side, seed=2)

    net.hybridize(False)
    expected = made.predict(images)
    assert expected.shape == (2, CLASSES)
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max()
    net.hybridize(static_alloc=True, static_shape=True)
    assert_close(made.predict(images), expected, terms=NET)
    assert_close(made.predict(images[:1]), expected[:1], terms=NET)

    run = tmp_path / "run"
    run.mkdir()
    net.save_parameters(str(run / "best.params"))
    made.card.save(run / "card.json")
    opened = open_saved(run)
    assert opened.card == made.card
    np.testing.assert_array_equal(opened.predict(images), made.predict(images))

    # one net of each family in every form, and its symbol in another once more
    first = (name, rate) == FIRST[row.family]
    formats = FORMATS if first else ("symbol", "onnx")
    out = export_all(opened, tmp_path / "out", images=images, formats=formats)  # compares
    for engine in ("onnxruntime", "openvino") if first else ():
        assert_close(Predictor(out, engine).predict(images[:1]), expected[:1], terms=NET)
    if first:
        again = export_all(open_saved(out), tmp_path / "again", formats=["onnx"])
        assert_close(Predictor(again).predict(images), expected, terms=NET)

    _check_gradients(net, images)  # last: it changes the running statistics


def _check_gradients(net, images):
    """Every parameter that is trained gets a gradient."""
    params = [p for p in net.collect_params().values() if p.grad_req != "null"]
    assert params
    with mx.autograd.record():
        loss = mx.nd.softmax_cross_entropy(net(mx.nd.array(images)), mx.nd.array([0, 1]))
    loss.backward()
    without = [p.name for p in params if not np.abs(p.grad().asnumpy()).max() > 0]
    assert without == []


def test_a_net_from_a_spec_file(tmp_path):
    spec = {"family": "rpw", "settings": {"net": "vgg11", "groups": 4, "overlap": 0.33}}
    made = random_model(
        tmp_path, batch=8, model="mine", width=0.25, rate=0, spec=spec, classes=CLASSES,
        input_size=32,
    )  # fmt: skip
    out = export_all(made, tmp_path / "out", formats=("symbol", "onnx"))
    assert {path.name for path in out.iterdir()} == {
        "mine_w0.25_r0.onnx", "mine_w0.25_r0-symbol.json", "mine_w0.25_r0-0000.params", "card.json",
    }  # fmt: skip
    opened = open_saved(out)
    assert opened.card.spec == spec
    images = sample_images(3, 32, seed=4)
    again = export_onnx(opened, tmp_path / "again", opset=17)
    assert_close(Predictor(again).predict(images), made.predict(images), terms=NET)


def test_the_rate_of_a_spec_file(tmp_path):
    """It is built, or refused by a family that has none; never dropped."""
    files = {}
    for family, settings in (("mobilenetv2", {}), ("rpw", {"net": "vgg11"})):
        files[family] = tmp_path / f"{family}.json"
        files[family].write_text(json.dumps({"family": family, "settings": settings}))
    with_rate, named = (
        shapes(get_model(name, rate=1)) for name in (str(files["mobilenetv2"]), "mobilenetv2_asymm")
    )
    assert with_rate == named != shapes(get_model(str(files["mobilenetv2"])))
    with pytest.raises(InputError, match="the family rpw has no rate, got 1"):
        get_model(str(files["rpw"]), rate=1)


def shapes(net):
    return [param.shape for param in net.collect_params().values()]


def test_what_is_for_asymmnet_only(tmp_path):
    made = random_model(tmp_path, batch=2, model="mobilenetv2", width=0.35, rate=0, input_size=32)
    with pytest.raises(InputError, match="--optimized is for AsymmNet and MobileNetV3; others run"):
        export_symbol(made, tmp_path / "out", optimized=True)
    assert list(tmp_path.iterdir()) == []
