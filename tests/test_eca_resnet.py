import pytest

from gluon_asymmnet._mxnet import gluoncv, mx
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models import eca_resnet
from gluon_asymmnet.models.complexity import count_model
from gluon_asymmnet.models.registry import FAMILY_MODELS, ModelSpec
from gluon_asymmnet.nn.attention import eca_kernel
from gluon_asymmnet.zoo import get_model
from tests.floats import NET, assert_close
from tests.related_nets import (
    check_graph_modes,
    images,
    randomize,
    values,
)

pytestmark = pytest.mark.thorough


# Parameters of torchvision's ResNets, and what ECA adds with the kernels of the published models:
# blocks times kernel, over the stages.  "M" as published, which is of 2**20.
@pytest.mark.parametrize(
    ("depth", "resnet", "added", "published"),
    [
        (18, 11_689_512, 2 * 3 + 2 * 5 + 2 * 7 + 2 * 7, 11.15),
        (34, 21_797_672, 3 * 3 + 4 * 3 + 6 * 5 + 3 * 7, 20.79),
        (50, 25_557_032, 3 * 3 + 4 * 5 + 6 * 5 + 3 * 7, 24.37),
        (101, 44_549_160, 3 * 3 + 4 * 3 + 23 * 5 + 3 * 7, 42.49),
        (152, 60_192_808, 3 * 3 + 8 * 3 + 36 * 5 + 3 * 7, 57.41),
    ],
)
def test_counts(depth, resnet, added, published):
    parameters = count_model(ModelSpec.parse(f"eca_resnet{depth}")).parameters
    assert parameters == resnet + added
    assert abs(parameters / 2**20 - published) < 0.01


def test_eca_adds_80_weights_and_86272_multiply_adds_to_resnet50():
    eca = [n for n in count_model(ModelSpec.parse("eca_resnet50")).layers if "attention" in n.name]
    assert len(eca) == 16
    assert sum(n.weight[2] for n in eca) == 80
    assert sum(n.macs for n in eca) == 86_272


def test_kernels_by_default_are_adaptive():
    """5, 5, 5, 7 from the channels the attention sees; the published ones are set by hand."""
    net = eca_resnet.build(depth=50, classes=3)
    sizes = [p.shape[2] for n, p in values(net).items() if "attention" in n]
    assert sizes == [5] * 13 + [7] * 3
    assert [eca_kernel(c) for c in (256, 512, 1024, 2048)] == [5, 5, 5, 7]


@pytest.mark.parametrize("depth", [18, 50])
def test_constant_gate_is_resnet_v1b(depth):
    """Zero weights make every gate 1/2; twice the last gamma and beta makes up for it."""
    theirs = randomize(gluoncv.model_zoo.get_model(f"resnet{depth}_v1b", classes=7))
    net = get_model(f"eca_resnet{depth}", classes=7)
    net.initialize()
    last = "body.2" if depth == 50 else "body.1"
    own = {n: p for n, p in values(net).items() if "attention" not in n}
    assert len(own) == len(values(theirs))
    for (name, param), source in zip(own.items(), values(theirs).values()):
        doubled = name.endswith((f"{last}.norm.gamma", f"{last}.norm.beta"))
        param.set_data(source.data().reshape(param.shape) * (2 if doubled else 1))
    for name, param in values(net).items():
        if "attention" in name:
            param.set_data(mx.nd.zeros(param.shape))
    assert_close(net(images()), theirs(images()), terms=NET)


@pytest.mark.parametrize("settings", [{"depth": 18}, {"depth": 50, "shared": False}])
def test_trains(settings):
    check_graph_modes(eca_resnet.build(classes=3, **settings))


def test_registered_kernels_are_those_of_the_published_models():
    kernels = {
        name: r.settings["kernels"] for name, r in FAMILY_MODELS.items() if r.family == "eca_resnet"
    }
    assert kernels == {
        "eca_resnet18": [3, 5, 7, 7], "eca_resnet34": [3, 3, 5, 7], "eca_resnet50": [3, 5, 5, 7],
        "eca_resnet101": [3, 3, 5, 7], "eca_resnet152": [3, 3, 5, 7],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 20}, "depth must be one of 18, 34, 50, 101, 152, got 20"),
        ({"depth": [50]}, r"depth must be one of .* got \[50\]"),
        ({"width": 0.5}, "width 1.0 only, got 0.5"),
        ({"kernels": [3, 5, 7]}, r"four odd numbers, one per stage, got \[3, 5, 7\]"),
        ({"kernels": "3557"}, "four odd numbers, .* got '3557'"),
        ({"kernels": [3, 4, 5, 7]}, "kernel of ECA must be an odd number .* got 4"),
        ({"shared": 1}, "shared must be true or false, got 1"),
    ],
)
def test_what_cannot_be_built_says_why(settings, message):
    with pytest.raises(InputError, match=message):
        eca_resnet.build(**settings)
