"""Counts from graphs: against those from the plan, by hand, and every count from outside."""

import json

import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.models.complexity import count_graph, count_model, count_plan
from gluon_asymmnet.models.registry import FAMILY_MODELS, ModelSpec
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT, thorough_but

COUNTS = json.loads((ROOT / "docs/data/counts.json").read_text())
NOT_PUBLISHED = {"addressnet", "cifar_addressnet32"}  # what would have to be known for an equal one


@pytest.mark.parametrize(("name", "rate"), [("asymmnet_large", 1), ("mobilenetv3_small", 0)])
def test_the_graph_of_a_planned_net_has_the_plans_counts(name, rate):
    net = get_model(name, rate=rate, classes=7)
    planned, traced = count_plan(net.plan, classes=7, input_size=97), count_graph(net, 97)
    assert traced[1:4] == planned[1:4]
    assert [_matrix(row) for row in traced.layers] == [_matrix(row) for row in planned.layers]


def _matrix(layer):
    """A layer without its name; trailing sides of 1, which a matrix product has not, are cut."""
    return [tuple(s for s in shape if s > 1) for shape in (layer.weight, layer.output)], layer.macs


class Twice(mx.gluon.HybridBlock):
    """One convolution on two sizes."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv = mx.gluon.nn.Conv2D(3, 3, padding=1, in_channels=3, use_bias=False)

    def hybrid_forward(self, F, x):
        return self.conv(F.Pooling(self.conv(x), kernel=(2, 2), stride=(2, 2)))


def test_a_block_called_twice_costs_twice():
    cost = count_graph(Twice(), 8)
    assert cost.macs == 3 * 3 * 9 * (8 * 8 + 4 * 4)
    assert cost.parameters == 3 * 3 * 9


def test_a_matrix_product_is_counted_at_every_position():
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.HybridLambda(lambda F, x: F.reshape(x, (0, 0, -1))),
            mx.gluon.nn.Dense(5, flatten=False, in_units=16))  # fmt: skip
    assert count_graph(net, 4).macs == 3 * 16 * 5  # 3 channels of 16 pixels


def test_a_model_is_counted_on_imagenet_unless_told():
    spec = ModelSpec.parse("asymmnet_large")
    assert count_model(spec) == count_model(spec, classes=1000, input_size=224)


@pytest.mark.parametrize(
    "row", thorough_but(COUNTS, 0, -1), ids=lambda row: f"{row['model']}-{row['width']}"
)
def test_counts_from_outside(row):
    spec = ModelSpec.parse(row["model"], width=row["width"], rate=row.get("rate"))
    cost = count_model(spec, classes=row["classes"], input_size=row["size"])
    if row["model"] in NOT_PUBLISHED:
        assert "note" in row
        return
    assert cost.parameters == row["parameters"]
    if row["megamacs"]:
        digits = len(row["megamacs"].partition(".")[2])
        assert f"{cost.macs / 1e6:.{digits}f}" == row["megamacs"]


def test_every_related_net_with_a_known_count_has_its_row():
    """Those without are in no source; each says so on its page."""
    counted = {row["model"] for row in COUNTS}
    assert set(FAMILY_MODELS) - counted == {
        "ghostnet_asymm", "addressnet_enhanced", "cifar_addressnet32_enhanced", "cifar_vgg11",
        "cifar_vgg13", "cifar_vgg19", "rpw_vgg11_g2", "rpw_vgg13_g2", "rpw_vgg19_g2",
    }  # fmt: skip
