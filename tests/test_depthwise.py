"""The depthwise convolution of the training graph, which is split where oneDNN would be slow."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn import depthwise, onednn
from gluon_asymmnet.nn.depthwise import DepthwiseConv2D, note_map_sizes
from gluon_asymmnet.nn.onednn import PLAIN, TRAINING
from gluon_asymmnet.zoo import get_model
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
    block = convolution(kernel, stride)
    compare_graphs(block, (3, CHANNELS, height, width), hybridize)
    assert len(_operators(block, "Convolution")) == -(-kernel // 3)


@pytest.mark.parametrize("hybridize", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "height", "width"),
    [
        (5, 1, 5, 4), (5, 2, 5, 5), (5, 2, 4, 5), (5, 1, 2, 3), (5, 1, 1, 1), (5, 2, 1, 2),
        (7, 1, 3, 5), (7, 2, 5, 5), (3, 1, 2, 2), (3, 2, 3, 4), (3, 1, 1, 5),
    ],
)  # fmt: skip
def test_products_on_small_maps_compute_the_same(kernel, stride, height, width, hybridize):
    block = convolution(kernel, stride)
    block.map_size = (height, width)
    compare_graphs(block, (3, CHANNELS, height, width), hybridize)
    assert _operators(block, "Convolution") == []
    assert len(_operators(block, "batch_dot")) == 1


def convolution(kernel, stride):
    block = DepthwiseConv2D(CHANNELS, kernel, stride, kernel // 2, groups=CHANNELS,
                            in_channels=CHANNELS, use_bias=False)  # fmt: skip
    block.initialize(mx.init.Normal(1))
    return block


def compare_graphs(block, shape, hybridize):
    rng = np.random.default_rng(0)
    x = mx.nd.array(rng.normal(size=shape))
    head = mx.nd.array(rng.normal(size=block(x).shape))
    expected = outputs_and_gradients(block, PLAIN, x, head)
    found = outputs_and_gradients(block, TRAINING, x, head, hybridize)
    terms = block.weight.shape[2] ** 2 * x.size // CHANNELS
    for name, a, b in zip(("output", "of the input", "of the weight"), found, expected):
        assert_close(a, b, terms=terms, name=name)


def _operators(block, name):
    nodes = json.loads(block(mx.sym.var("data")).tojson())["nodes"]
    return [node["name"] for node in nodes if node["op"] == name]


def test_map_sizes_of_a_network():
    """18 x 17 pixels behind the stem; a stride of 2 rounds up."""
    net = get_model("asymmnet_small", width=0.35, classes=2)
    note_map_sizes(net, (1, 3, 35, 33))
    sizes = []
    net.apply(lambda block: sizes.append(getattr(block, "map_size", 0)))
    assert [size for size in sizes if size] == (
        [(18, 17), (9, 9)] + [(5, 5)] * 2 + [(3, 3)] * 5 + [(2, 2)] * 2
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "small"),
    [
        (3, 1, 3, False), (3, 1, 2, True), (3, 2, 4, False), (3, 2, 3, True), (5, 1, 5, True),
        (5, 1, 6, False), (7, 1, 7, False),
    ],
)  # fmt: skip
def test_maps_that_are_small(kernel, stride, size, small):
    """A product only where oneDNN's gradient is slow, and the matrices are small."""
    block = convolution(kernel, stride)
    block.graph_mode, block.map_size = TRAINING, (size, size)
    assert bool(_operators(block, "batch_dot")) is small


def test_another_size_than_noted_is_an_error():
    block = convolution(5, 1)
    block.graph_mode, block.map_size = TRAINING, (3, 3)
    with pytest.raises(mx.MXNetError, match="shape"):
        block(mx.nd.ones((2, CHANNELS, 4, 4))).asnumpy()


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
import sys
from gluon_asymmnet import get_model
from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.nn.depthwise import note_map_sizes
from gluon_asymmnet.nn.onednn import TRAINING, set_graph_mode
net = get_model("asymmnet_small", width=0.35, classes=2)
set_graph_mode(net, TRAINING)
size = int(sys.argv[1])
if len(sys.argv) > 2:
    note_map_sizes(net, (2, 3, size, size))
net.initialize()
net.hybridize(static_alloc=True, static_shape=True)
with mx.autograd.record():
    y = net(mx.nd.ones((2, 3, size, size)))
y.backward()
mx.nd.waitall()
"""


def test_under_avx2_no_wide_kernel_takes_the_slow_gradient():
    """Maps of 6, 3 and 2 pixels under kernels of 5: oneDNN itself names the code that it runs."""
    switches = {"DNNL_MAX_CPU_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_VERBOSE": "1"}
    depthwise_ones = [line for line in _weight_gradients("48", **switches) if "kh5" in line]
    assert len(depthwise_ones) == 2 * 8  # eight blocks of five rows, each of two parts
    assert [line for line in depthwise_ones if "gemm" in line] == []


def test_no_depthwise_gradient_on_a_small_map_is_slow():
    """Maps of 5, 3 and 2 pixels: whatever the processor, no convolution of them is left."""
    taken = _weight_gradients("36", "note", DNNL_VERBOSE="1")
    groups = [line for line in taken if ",g" in line]
    assert len(groups) == 3  # 3 x 3 on maps of 18, 9 and 5 pixels
    assert [line for line in groups if "gemm" in line] == []


def _weight_gradients(*arguments, **switches):
    command = [sys.executable, "-c", _STEP, *arguments]
    done = subprocess.run(command, env={**os.environ, **switches}, cwd=ROOT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    return [line for line in done.stdout.splitlines() if ",backward_weights," in line]
