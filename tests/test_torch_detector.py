"""The detector in PyTorch against the one in Gluon."""

import numpy as np
import pytest
import torch

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.export.parity import compare, sample_images
from gluon_asymmnet.torch.detector import load_detector, ssd
from gluon_asymmnet.zoo import get_model

pytestmark = pytest.mark.thorough


def gluon_detector(name, folder, classes=("cat", "dog")):
    """A detector with random weights and norms, and scores that are not all the same; its file."""
    mx.random.seed(5)
    net = get_model(name, classes=None if name.endswith("voc") else classes)
    net.initialize(mx.init.Xavier(magnitude=2))
    with mx.autograd.train_mode():
        net(mx.nd.random.normal(shape=(2, 3, 96, 96)))[0].wait_to_read()
    rng = np.random.default_rng(1)
    for key, parameter in net._collect_params_with_prefix().items():
        if key.endswith(("gamma", "beta")):
            low = 0.5 if key.endswith("gamma") else -0.2
            parameter.set_data(mx.nd.array(rng.uniform(low, low + 1, parameter.shape)))
        elif "predictors" in key and key.endswith("conv.weight"):
            parameter.set_data(parameter.data() * (30 if key.startswith("class") else 5))
    net.save_parameters(str(folder / "net.params"))
    return net, folder / "net.params"


@pytest.mark.parametrize(
    "name", ["ssd_300_asymmnet_small_0.35_custom", "ssdlite_320_asymmnet_large_0.35_custom",
             "ssd_300_mobilenetv3_small_0.35_voc"],
)  # fmt: skip
def test_scores_and_boxes_are_those_of_gluon(name, tmp_path):
    gluon, path = gluon_detector(name, tmp_path)
    net = ssd(name, classes=gluon.classes).eval()
    load_detector(net, path)
    images = sample_images(2, gluon.spec.size)
    expected = [array.asnumpy() for array in gluon.raw()(mx.nd.array(images))]
    with torch.no_grad():
        found = [array.numpy() for array in net(torch.from_numpy(images))]
    assert np.ptp(expected[0]) > 0.01
    parity = compare(expected, found, gluon.spec.size)
    assert parity.relative < 1e-4


def test_another_detectors_weights_are_refused(tmp_path):
    _, path = gluon_detector("ssd_300_asymmnet_small_0.35_custom", tmp_path)
    net = ssd("ssd_300_asymmnet_small_0.35_custom", classes=["a", "b", "c"])
    before = net.state_dict()["class_predictors.0.conv.bias"].clone()
    with pytest.raises(FormatError, match=r"class_predictors.0.conv.weight has \(12, .* and 11"):
        load_detector(net, path)
    assert torch.equal(net.state_dict()["class_predictors.0.conv.bias"], before)
    lite = ssd("ssdlite_300_asymmnet_small_0.35_custom", classes=["a", "b"])
    with pytest.raises(FormatError, match=r"depthwise.conv.weight is missing"):
        load_detector(lite, path)


def test_names(tmp_path):
    with pytest.raises(InputError, match="needs the names of its classes"):
        ssd("ssd_300_asymmnet_small_custom")
    with pytest.raises(InputError, match="unknown detector 'ssd_301_asymmnet_small_voc'"):
        ssd("ssd_301_asymmnet_small_voc")
    assert ssd("ssd_300_asymmnet_small_0.35_voc").classes == 20
