import json

import pytest

from gluon_asymmnet.arch import LARGE, plan_net
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.models.complexity import count_plan
from gluon_asymmnet.models.registry import ModelSpec
from tests.conftest import ROOT, run_python
from tests.test_arch import COUNTS


def planned(row):
    return ModelSpec(row["model"], row["width"], row["rate"], stem=row["stem"]).plan()


def label(row):
    return f"{row['model']}-w{row['width']}-r{row['rate']}-{row['stem']}"


def test_the_table_covers_every_width_and_rate():
    seen = {(r["model"], r["width"], r["rate"]) for r in COUNTS if "asymm" in r["model"]}
    widths, rates = (0.35, 0.5, 0.75, 1.0, 1.25, 1.5), (0, 1, 2)
    models = ("asymmnet_large", "asymmnet_small")
    assert seen == {(m, w, r) for m in models for w in widths for r in rates}


@pytest.mark.parametrize("row", [r for r in COUNTS if r["builds"]], ids=label)
def test_counts_of_the_authors_nets(row):
    cost = count_plan(planned(row))
    assert round(cost.macs / 1e6, 2) == row["macs_millions"]
    assert cost.parameters == row["parameters"]
    assert cost.parameters + cost.running == row["with_running"]
    assert cost.authors_parameters == row["authors_count"]


@pytest.mark.parametrize("row", [r for r in COUNTS if not r["builds"]], ids=label)
def test_nets_the_authors_cannot_build(row):
    if row["rate"] == 2:
        with pytest.raises(InputError, match="rates that fit: 0, 1"):
            planned(row)
    else:  # for the stem's sake only: ours is the net with the stem corrected
        fixed = next(
            r for r in COUNTS
            if label(r) == label({**row, "stem": "scaled"}) and r["builds"]
        )  # fmt: skip
        assert count_plan(planned(row)).parameters == fixed["parameters"]


def test_macs_of_the_parts():
    """Large at width 1, rate 1: the split of 216,918,096 that the authors' macc.txt adds up to."""
    cost = count_plan(plan_net(LARGE))
    parts = {"stem": 0, "depthwise": 0, "se": 0, "head": 0, "pointwise": 0}
    for row in cost.layers:
        path = row.name
        kind = next((k for k in ("stem", "depthwise") if path.endswith(k)), None)
        kind = kind or ("se" if ".se." in path else "pointwise" if ".blocks." in path else "head")
        parts[kind] += row.macs
    assert parts == {
        "stem": 5_419_008, "depthwise": 22_921_808, "pointwise": 176_468_992, "se": 2_073_088,
        "head": 10_035_200,
    }  # fmt: skip
    assert cost.macs == 216_918_096


def test_rate_zero_is_mobilenetv3():
    """5,481,752: imgclsmob's mobilenetv3_large_w1; torchvision's less its 1,280 biases."""
    assert count_plan(ModelSpec.parse("mobilenetv3_large").plan()).parameters == 5_481_752
    assert count_plan(ModelSpec("asymmnet_large", rate=0).plan()).parameters == 5_481_752


@pytest.mark.thorough
def test_summary_command():
    done = run_python("-m", "gluon_asymmnet", "summary", "asymmnet_large", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "variant": "asymmnet_large_w1.0_r1", "macs": 216_918_096, "parameters": 6_076_608,
        "running_statistics": 24_400, "authors_miscount": 5_991_776,
    }  # fmt: skip
    table = run_python("-m", "gluon_asymmnet", "summary", "asymmnet_small_0.5").stdout
    assert "features.blocks.3.se.reduce" in table
    assert "1,936,088  (wrong" in table


@pytest.mark.thorough
def test_summary_needs_no_mxnet():
    code = (
        "import sys; from gluon_asymmnet.cli import main; main(['summary', 'asymmnet_large']);"
        "sys.exit('mxnet' in sys.modules)"
    )
    assert run_python("-c", code, cwd=ROOT).returncode == 0
