"""The depthwise convolution of the training graph, which is split where oneDNN would be slow."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn import depthwise, onednn
from gluon_asymmnet.nn.depthwise import DepthwiseConv2D
from gluon_asymmnet.nn.onednn import PLAIN, TRAINING
from tests.conftest import ROOT
from tests.floats import assert_close

CHANNELS = 8


def outputs_and_gradients(block, mode, x, head, hybridize=False):
    block.graph_mode = mode
    block.hybridize(hybridize, static_alloc=hybridize, static_shape=hybridize)
    x.attach_grad()
    with mx.autograd.record():
        y = block(x)
    y.backward(head)
    return [a.asnumpy() for a in (y, x.grad, block.weight.grad())]


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width"),
    [
        (5, 1, 9, 8), (5, 2, 9, 8), (5, 2, 8, 9), (5, 1, 2, 2), (5, 2, 3, 3), (5, 1, 1, 1),
        (7, 1, 8, 9), (7, 2, 9, 4),
    ],
)  # fmt: skip
def test_split_kernels_compute_the_same(monkeypatch, kernel, stride, height, width, hybridize):
    monkeypatch.setattr(depthwise, "stops_at_avx2", lambda: True)
    block = DepthwiseConv2D(CHANNELS, kernel, stride, kernel // 2, groups=CHANNELS,
                            in_channels=CHANNELS, use_bias=False)  # fmt: skip
    block.initialize(mx.init.Normal(1))
    rng = np.random.default_rng(0)
    x = mx.nd.array(rng.normal(size=(3, CHANNELS, height, width)))
    head = mx.nd.array(rng.normal(size=block(x).shape))
    expected = outputs_and_gradients(block, PLAIN, x, head)
    found = outputs_and_gradients(block, TRAINING, x, head, hybridize)
    names = [node["name"] for node in _nodes(block) if node["op"] == "Convolution"]
    assert len(names) == -(-kernel // 3)
    for name, a, b in zip(("output", "of the input", "of the weight"), found, expected):
        assert_close(a, b, terms=kernel**2 * x.size // CHANNELS, name=name)


def _nodes(block):
    return json.loads(block(mx.sym.var("data")).tojson())["nodes"]


@pytest.mark.parametrize(
    ("features", "variables", "expected"),
    [
        (["avx2", "avx512f"], {}, False),
        (["avx2"], {}, True),
        ([], {}, False),  # not known
        (["avx2", "avx512f"], {"ONEDNN_MAX_CPU_ISA": "AVX2"}, True),
        (["avx2", "avx512f"], {"DNNL_MAX_CPU_ISA": "avx2"}, True),
        (["avx2", "avx512f"], {"DNNL_MAX_CPU_ISA": "AVX512_CORE"}, False),
        (["avx2", "avx512f"], {"DNNL_MAX_CPU_ISA": "ALL"}, False),
    ],
)
def test_what_onednn_may_use(monkeypatch, features, variables, expected):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(onednn, "cpu_features", lambda: features)
    assert onednn.stops_at_avx2.__wrapped__() is expected


_STEP = """
from gluon_asymmnet import get_model
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn.onednn import TRAINING, set_graph_mode
net = get_model("asymmnet_small", width=0.35, classes=2)
set_graph_mode(net, TRAINING)
net.initialize()
net.hybridize(static_alloc=True, static_shape=True)
with mx.autograd.record():
    y = net(mx.nd.ones((2, 3, 48, 48)))
y.backward()
mx.nd.waitall()
"""


def test_under_avx2_no_wide_kernel_takes_the_slow_gradient():
    """Maps of 6, 3 and 2 pixels under kernels of 5: oneDNN itself names the code that it runs."""
    switches = {"DNNL_MAX_CPU_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", _STEP], env={**os.environ, **switches}, cwd=ROOT,
                          capture_output=True, text=True, check=True)  # fmt: skip
    taken = [line for line in done.stdout.splitlines() if ",backward_weights," in line]
    depthwise_ones = [line for line in taken if "kh5" in line]
    assert len(depthwise_ones) == 2 * 8  # eight blocks of five rows, each of two parts
    assert [line for line in depthwise_ones if "gemm" in line] == []
