"""The PyTorch networks through LiteRT, as docs/deploy.md says; in an environment of its own."""

import importlib.util

import numpy as np
import pytest
import torch

from gluon_asymmnet.torch import asymmnet
from gluon_asymmnet.torch.detector import ssd

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(
        not importlib.util.find_spec("litert_torch"),
        reason="litert-torch is not installed: 2 GB, see docs/deploy.md",
    ),
]


def with_statistics(net, side):
    """Set the statistics of the norms, so that activations have the scale of a trained net's."""
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(30):
            net.train()(torch.randn(4, 3, side, side))
    return net.eval()


def outputs(net, side, path):
    """Return what PyTorch and LiteRT compute for one image."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    image = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, side, side))).float()
    litert_torch.convert(net, (image,)).export(str(path))
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    found = interpreter.get_signature_runner()(args_0=image.numpy())
    with torch.no_grad():
        expected = net(image)
    expected = expected if isinstance(expected, tuple) else (expected,)
    return [array.numpy() for array in expected], [found[name] for name in sorted(found)]


def test_a_classifier(tmp_path):
    net = with_statistics(asymmnet("asymmnet_small", width=0.35, classes=10), 64)
    (expected,), (found,) = outputs(net, 64, tmp_path / "net.tflite")
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_detector(tmp_path):
    net = with_statistics(ssd("ssd_300_asymmnet_small_0.35_custom", classes=["cat", "dog"]), 300)
    expected, found = outputs(net, 300, tmp_path / "net.tflite")
    assert [array.shape for array in found] == [(1, 8766, 2), (1, 8766, 4)]
    assert np.abs(found[0] - expected[0]).max() < 1e-4
    assert np.abs(found[1] - expected[1]).max() < 0.1  # pixels
