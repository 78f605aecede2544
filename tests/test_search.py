"""Architecture search by receptive fields, and its command."""

import json
import math
import re

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.cli import main
from gluon_asymmnet.compress.receptive_field import field, stage_volume, value
from gluon_asymmnet.compress.search import describe, optimize
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.complexity import count_graph
from gluon_asymmnet.models.rpw import StagedNet
from gluon_asymmnet.models.rpw_plan import Unit, parse_stages, plan, stage_inputs
from gluon_asymmnet.zoo import get_model
from tests.conftest import ROOT

pytestmark = pytest.mark.thorough

nd = mx.nd


def conv(channels, **more):
    return Unit("conv", channels, **more)


def separable(channels, groups=1, **more):
    return Unit("separable", channels, groups=groups, **more)


# after a stem that makes the 16 channels which are counted; r and the mean |S| by hand
STAGES = {
    "depthwise alone would see one channel": ((separable(16, 16, overlap=0),), 3, 1),
    "regular": ((conv(8), conv(8)), 5, 16),
    "strides": ((conv(8, stride=2), conv(8), conv(8, kernel=5)), 15, 16),  # 3, 3 + 4, 7 + 8
    "pool": ((conv(8, pool=True), conv(8)), 8, 16),  # 3, 4, 4 + 4
    "kernels of 1 and 5": ((conv(8, kernel=1), separable(8, kernel=5)), 5, 16),
    "windows of 4": ((separable(16, 4),), 3, 4),
    "windows of 2 in windows of 2": ((separable(16, 8, overlap=0), separable(16, 8, overlap=0)),
                                     5, 4),
    "outputs that see different windows": ((separable(6, 4, overlap=0.25), separable(6, 3)), 5,
                                           None),
    "a step that is not whole": ((separable(16, 4, overlap=0.33), separable(16, 4)), 5, None),
    "everything": ((separable(16, 8, overlap=0.5, stride=2), separable(32, 8, pool=True),
                    separable(16, 16)), None, None),
}  # fmt: skip


@pytest.mark.parametrize("rule", ["cuda", "pytorch"])
@pytest.mark.parametrize("name", STAGES)
def test_volume_is_the_support_of_the_gradient(name, rule):
    """All weights positive, so that nothing cancels; the mean in place of the maximum, so that a
    pool's gradient reaches all it sees."""
    stage, side, reach = STAGES[name]
    seen = field(stage, 16, rule)
    if rule == "cuda":
        assert (side or seen.side, reach or seen.mean_reach) == (seen.side, seen.mean_reach)
    block = StagedNet([(conv(16),), stage], rule).features[1]
    block.initialize(mx.init.One())
    for param in block.collect_params(".*rpw.*weight").values():
        param.set_data(nd.ones(param.shape))  # it has an initializer of its own
    for unit, made in zip(stage, block):
        if unit.pool:
            made[-1]._kwargs["pool_type"] = "avg"
    x = nd.ones((1, 16, 64, 64))
    x.attach_grad()
    supports = []
    for channel in range(stage[-1].channels):
        with mx.autograd.record(train_mode=False):
            y = block(x)
            middle = y[0, channel, y.shape[2] // 2, y.shape[3] // 2]
        middle.backward(train_mode=False)
        supports.append(np.argwhere(x.grad[0].asnumpy()))
    for support, mask in zip(supports, seen.reach):
        assert len(support) == seen.side**2 * bin(mask).count("1")
        assert {int(c) for c in support[:, 0]} == {c for c in range(16) if mask >> c & 1}
    assert np.mean([len(s) for s in supports]) == pytest.approx(stage_volume(stage, 16, 64, rule))


def test_value_by_hand():
    """VGG11 at 32 pixels: r of each stage, at most its side, squared, times its channels."""
    expected = [4**2 * 3, 4**2 * 64, 6**2 * 128, 4**2 * 256, 2**2 * 512, 512]
    stages = plan("vgg11")
    volumes = [stage_volume(*inputs) for inputs in stage_inputs(stages, 32)]
    assert value(volumes, 512) == pytest.approx(math.log2(math.prod(expected)))


BUDGETS = [
    ("vgg16", dict(budget_macs=30_000_000, budget_params=1_000_000)),
    ("vgg16", dict(budget_params=9_000_000)),
    ("vgg11", dict(budget_macs=1_000_000)),
    ("mobilenet", dict(budget_macs=15_000_000)),
    ("mobilenet", dict(budget_params=150_000)),
    ("mobilenet", dict()),
    ("vgg13", dict(budget_macs=10_000_000, rule="pytorch")),
]


@pytest.mark.parametrize(("net", "budgets"), BUDGETS)
def test_proposal_keeps_budgets_and_builds(net, budgets):
    stages = plan(net)
    proposal = optimize(stages, **budgets)
    cost = proposal.after.cost
    original = proposal.before.cost
    assert cost.macs <= budgets.get("budget_macs", original.macs)
    assert cost.parameters <= budgets.get("budget_params", original.parameters)
    built = get_model("proposal", classes=10, input_size=32, spec=proposal.spec)
    found = count_graph(built, 32)
    assert (found.parameters, found.macs) == cost
    assert built.stages == tuple(r.stage for r in proposal.after.stages)
    volumes = [stage_volume(*inputs, built.rule) for inputs in stage_inputs(built.stages, 32)]
    channels = built.stages[-1][-1].channels
    assert proposal.after.value == pytest.approx(value(volumes, channels))
    assert optimize(stages, **budgets) == proposal


@pytest.mark.parametrize(("net", "budgets"), BUDGETS)
def test_what_a_proposal_leaves_alone(net, budgets):
    proposal = optimize(plan(net), **budgets)
    assert proposal.after.stages[0].stage[0].kind == "conv"
    for before, after in zip(proposal.before.stages, proposal.after.stages):
        old, new = before.stage, after.stage
        assert 1 <= len(new) <= len(old)
        assert [u.stride for u in new] == [u.stride for u in old[: len(new)]]
        assert sum(u.pool for u in new) == sum(u.pool for u in old)
        assert old[-1].channels / 4 <= new[-1].channels <= 2 * old[-1].channels


def test_what_fits_is_not_made_worse():
    """Nothing is asked for: all there is to gain is what costs nothing."""
    proposal = optimize(plan("vgg13"))
    assert proposal.after.value > proposal.before.value
    for before, after in zip(proposal.before.stages, proposal.after.stages):
        assert after.volume >= before.volume
        assert [u.channels for u in after.stage] == [u.channels for u in before.stage]


def test_a_layer_that_widens_nothing_goes_first():
    """At 2 x 2 pixels one 3 x 3 convolution sees all, so that the others of the stage go."""
    proposal = optimize(plan("vgg16"), budget_params=1_000_000)
    assert describe(proposal.before.stages[4].stage) == "3 x conv3 512, pool"
    assert len(proposal.after.stages[4].stage) == 1


def test_the_rule_decides_what_a_proposal_sees():
    """By ``pytorch``, without overlap, groups never mix; a proposal must not think they do."""
    stages = plan("vgg16", groups=8, overlap=0)
    separate, dealt = (field(stages[3], 256, rule) for rule in ("pytorch", "cuda"))
    assert (separate.mean_reach, dealt.mean_reach) == (32, 256)


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        (dict(budget_macs=1000), "cannot be reached: the minimum is [0-9,]+ and"),
        (
            dict(budget_params=1000),
            r"1,000 parameters cannot be reached: the minimum .* and [0-9,]+$",
        ),
        (dict(budget_macs=0), "the budget of macs must be at least 1, got 0"),
    ],
)
def test_budgets_that_cannot_be_kept(budgets, message):
    with pytest.raises(InputError, match=message) as caught:
        optimize(plan("vgg11"), **budgets)
    assert "\n" not in str(caught.value)


def test_the_least_can_be_asked_for():
    with pytest.raises(InputError) as caught:
        optimize(plan("vgg11"), budget_params=1000)
    least = int(str(caught.value).rsplit(" ", 1)[1].replace(",", ""))
    proposal = optimize(plan("vgg11"), budget_params=least)
    assert proposal.after.cost.parameters == least
    with pytest.raises(InputError, match="cannot be reached"):
        optimize(plan("vgg11"), budget_params=least - 1)


def test_a_stage_that_pools_twice():
    stages = parse_stages([[{"kind": "conv", "channels": 16, "pool": True}] * 2])
    with pytest.raises(InputError, match="stage 0 pools more than once"):
        optimize(stages)


def test_command_writes_a_model(tmp_path, capsys):
    out = tmp_path / "small.json"
    command = ["optimize", "cifar_vgg11", "--budget-params", "200k", "--out", str(out)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "1 x" not in shown
    assert "parameters         9,231,114 ->" in shown
    net = get_model(str(out), classes=10, input_size=32)
    assert count_graph(net, 32).parameters <= 200_000
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["spec"] == json.loads(out.read_text())
    assert sum(stage["macs"][1] for stage in found["stages"]) + 10 * net.stages[-1][-1].channels \
        == found["macs"][1]  # fmt: skip
    again = tmp_path / "smaller.json"
    assert main(["optimize", str(out), "--budget-params", "100k", "--out", str(again)]) == 0


def test_the_page_shows_what_is_proposed_today(tmp_path, capsys):
    for found in json.loads((ROOT / "docs/data/search.json").read_text())["proposals"]:
        command = found.pop("command").split()
        assert main(["optimize", *command, "--out", str(tmp_path / "x.json"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["asymmnet_large"], "asymmnet_large cannot be optimized: .* one of cifar_mobilenet, "),
        (["nonsense"], "unknown model 'nonsense'"),
        (["missing.json"], "missing.json: no such file"),
        (["cifar_vgg11", "--input-size", "31"], "input_size 31 is too small for 5 halvings"),
        (["cifar_vgg11", "--input-size", "0"], "--input-size must be at least 1, got 0"),
        (["cifar_vgg11", "--classes", "0"], "--classes must be at least 1, got 0"),
        (["cifar_vgg11", "--budget-params", "1k"], "cannot be reached: the minimum is"),
    ],
)
def test_command_says_what_is_wrong(arguments, message, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert main(["optimize", *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("asymmnet search: ")
    assert re.search(message, error)
    assert not out.exists()


@pytest.mark.parametrize("number", ["x", "", "1x", "nan", "1e999"])
def test_command_wants_numbers(number, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["optimize", "cifar_vgg11", "--budget-macs", number, "--out", "x.json"])
    assert "expected a number as 300000 or 1.5M" in capsys.readouterr().err


def test_command_wants_a_json_file(capsys):
    assert main(["optimize", "cifar_vgg11", "--out", "net.txt"]) == 2
    assert "--out must end with .json" in capsys.readouterr().err
