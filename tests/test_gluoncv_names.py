"""Our names in GluonCV's ``get_model``, in processes of their own: it is about importing."""

import importlib.util

import pytest

from tests.conftest import run_python

pytestmark = pytest.mark.thorough

USE = """
from gluoncv.model_zoo import get_model, get_model_list
net = get_model("AsymmNet_small", classes=7)
net.initialize()
assert net(mx.nd.zeros((1, 3, 32, 32))).shape == (1, 7)
ssd = get_model("ssd_300_asymmnet_small_custom", classes=["a", "b"], pretrained_base=False)
assert ssd.classes == ["a", "b"]
assert type(get_model("mobilenetv3_small")).__module__.startswith("gluoncv")  # its own stays
assert "asymmnet_large" in get_model_list()
print("done")
"""


def check(code):
    done = run_python("-c", code)
    assert done.stdout.endswith("done\n"), done.stderr


def test_gluoncv_after_our_package():
    check("import gluon_asymmnet\nimport mxnet as mx" + USE)


def test_gluoncv_before_our_package():
    """It loads only without PyTorch 2, which our package does; here by its own module first."""
    check(
        "import sys\nsys.modules['torch'] = None\nimport gluoncv\ndel sys.modules['torch']\n"
        "import gluon_asymmnet\nimport mxnet as mx" + USE
    )


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")
def test_beside_pytorch():
    check(
        "import torch\nimport gluon_asymmnet\nimport gluoncv\nimport mxnet as mx\n"
        "assert torch.zeros(1).shape == (1,)\nimport torch as again\nassert again is torch" + USE
    )


def test_our_package_loads_neither():
    done = run_python(
        "-c", "import gluon_asymmnet, sys; print({'mxnet', 'gluoncv', 'cv2'} & set(sys.modules))"
    )
    assert done.stdout == "set()\n"
