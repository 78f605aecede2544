"""The controlled comparison: its plan, its statistics, its tables; a small run is thorough."""

import json

import pytest

from benchmarks.evidence import harness, plan
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def stored():
    return harness.load(ROOT / harness.RESULTS)


def test_the_plan(stored):
    nets = harness.nets_of(stored)
    runs = plan.make_runs(nets)
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    assert sum(run.tunes for run in runs) == 3 * 2 * len(plan.RATES_OF_LEARNING)
    main = [net for net in nets if net.study == "main"]
    assert sum(run.net in main for run in runs if not run.tunes) == 5 * len(main)
    assert stored["recipe"] == json.loads(json.dumps(plan.RECIPE))


def test_pairs_at_equal_cost(stored):
    """The nets of ``nets`` are counted by a test that may import MXNet."""
    cost = {row["name"]: row["macs"] for row in stored["nets"]}
    pairs = [(name, name.replace("-r0-matched", "-r1")) for name in cost if "r0-matched" in name]
    assert len(pairs) == 7
    for zero, one in pairs:
        assert cost[zero] == pytest.approx(cost[one], rel=0.015)


def test_stored_costs(stored):
    for net, row in zip(harness.nets_of(stored), stored["nets"]):
        if not net.spec and net.model.startswith("asymmnet_") and "side" not in net.model:
            assert (net.cost.macs, net.cost.parameters) == (row["macs"], row["parameters"])
