"""MXNet's own ONNX exporter, ``mx.onnx.export_model``, takes our networks."""

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.models.registry import list_models
from gluon_asymmnet.predict.engines import OnnxRuntime
from gluon_asymmnet.zoo import get_model
from tests.conftest import thorough_but
from tests.floats import NET, assert_close

# Networks with channel shuffle, overlapping groups or split channels; symbols/README.md says why.
REFUSED = [
    name for name in list_models()
    if name == "dicenet" or "addressnet" in name or name.startswith("shufflenetv2")
    or (name.startswith("rpw") and name != "rpw_vgg16_g1")
]  # fmt: skip
TAKEN = [name for name in list_models() if name not in REFUSED]


def test_most_networks_are_taken():
    assert len(TAKEN) == 22


@pytest.mark.parametrize("name", thorough_but(TAKEN, TAKEN.index("asymmnet_small")))
def test_the_file_gives_the_networks_logits(tmp_path, name):
    size = 32 if "cifar" in name or name.startswith("rpw") else 64
    mx.random.seed(0)
    net = get_model(name, classes=5)
    net.initialize(mx.init.MSRAPrelu())
    net.hybridize()
    images = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    expected = net(mx.nd.array(images)).asnumpy()
    net.export(str(tmp_path / "net"))
    path = tmp_path / "net.onnx"
    mx.onnx.export_model(
        str(tmp_path / "net-symbol.json"), str(tmp_path / "net-0000.params"), [images.shape],
        np.float32, str(path),
    )  # fmt: skip
    assert_close(OnnxRuntime(path).run(images)[0], expected, terms=NET)
