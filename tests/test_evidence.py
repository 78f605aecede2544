"""The controlled comparison: its plan, its statistics, its tables; a small run is thorough."""

import json

import pytest

from benchmarks.evidence import harness, plan, report
from benchmarks.evidence.statistics import detectable, holm, summarize
from benchmarks.suite import noise
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import InputError
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
    cost = {row["name"]: row["macs"] for row in stored["nets"]}
    pairs = [pair for pair in report.pairs(stored) if pair.question == report.EQUAL_COST]
    assert len(pairs) == 7
    for pair in pairs:
        assert cost[pair.net.name] == pytest.approx(cost[pair.against.name], rel=0.014)
        assert pair.net.study == pair.against.study == "main"


def test_stored_costs(stored):
    for net, row in zip(harness.nets_of(stored), stored["nets"]):
        if not net.spec and net.model.startswith("asymmnet_") and "side" not in net.model:
            assert (net.cost.macs, net.cost.parameters) == (row["macs"], row["parameters"])


def test_statistics_by_hand():
    """Mean 0.2, deviation sqrt(0.05), so t = 2; the 97.5 % of t with 4 degrees is 2.7764."""
    found = summarize([0.1, 0.3, 0.2, 0.5, -0.1])
    assert (found.count, found.mean) == (5, pytest.approx(0.2))
    assert found.half == pytest.approx(0.1 * 2.776445, rel=1e-6)
    assert found.p == pytest.approx(0.116117, abs=1e-6)
    assert summarize([0.4]) == (1, 0.4, None, None, None)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_power_is_that_of_cohens_tables():
    """A difference of half a deviation needs 34 pairs at level 0.05 and power 0.8."""
    assert detectable(1, 34) <= 0.5 < detectable(1, 33)
    assert detectable(2, 34) == pytest.approx(2 * detectable(1, 34))
    assert detectable(1, 34, comparisons=7) > detectable(1, 34)
    assert detectable(1, 2, comparisons=7) > 50  # from two pairs hardly anything is found


def test_tables_of_an_unfinished_plan(stored):
    """Two seeds of one pair: 90.1 and 90.3 against 90.0 and 90.0, so +0.2 with t = 2.

    A third seed is not compared: two kinds of processor.
    """

    def row(net, seed, correct, cpu="A"):
        return {"run": f"{net}/seed{seed}", "net": net, "seed": seed, "correct": correct,
                "cpu": cpu, "images": 10_000, "loss": 0.3, "cpu_seconds": 1200,
                "commit": "1a2b"}  # fmt: skip

    rows = [row("small-0.5-r1", 0, 9010), row("small-0.5-r1", 1, 9030),
            row("small-0.5-r0-matched", 0, 9000), row("small-0.5-r0-matched", 1, 9000),
            row("small-0.5-r1", 2, 9020),
            row("small-0.5-r1", 3, 9020), row("small-0.5-r0-matched", 3, 9900, "B"),
            row("small-0.5-r1", 4, 9020, "B")]  # fmt: skip
    tuned = [
        {
            "run": f"tune/small-0.5-r1/lr{lr}",
            "net": "small-0.5-r1",
            "lr": lr,
            "images": 6000,
            "commit": "1a2b",
            **found,
        }
        for lr, found in zip(plan.RATES_OF_LEARNING, ({"correct": 5400}, {"failure": "nan"}))
    ]
    data = {**stored, "rows": [*tuned, *rows]}
    assert "2 of 18 runs" in report.progress(data) and "2.7 core-hours" in report.progress(data)
    assert "Commit of the package: 1a2b." in report.progress(data)
    assert "| small-0.5-r1 | 90.00% | diverged |  | open |" in report.rates_table(data)
    assert "| 5 of 5 | 90.20 \N{PLUS-MINUS SIGN} 0.09 | 0.3000 |" in report.accuracy_table(data)
    table = report.pairs_table(data, report.EQUAL_COST)
    line = next(one for one in table.splitlines() if one.startswith("| small-0.5-r1 "))
    assert "| +0.5% | 2 of 5 | +0.20 \N{PLUS-MINUS SIGN} 1.27 | 0.295 | 0.295 |" in line
    assert "| all 7, mean |  |  | 0 of 5 |" in table


@pytest.mark.thorough
def test_the_plot_of_an_unfinished_plan(stored, tmp_path):
    row = {"run": "v2-0.5-r1/seed0", "net": "v2-0.5-r1", "seed": 0, "correct": 9010}
    report.draw({**stored, "rows": [row]}, tmp_path / "plot.svg")
    assert "rate 1" in (tmp_path / "plot.svg").read_text()


@pytest.fixture
def small(tmp_path):
    """A harness with one tiny net, 192 noise images and all learning rates."""
    for name in ("train", "val", "test"):
        with RecordWriter(tmp_path / f"work/records/{name}.rec") as writer:
            for i, image in enumerate(noise(192)):
                writer.write(i, i % 10, image)
    settings = {"num_training_samples": 128, "num_epochs": 1, "warmup_epochs": 0}
    net = plan.Net("small-0.5-r1", "main", "small", 1, "asymmnet_small", 0.5, 1, settings, {})
    rows = [{"run": f"tune/small-0.5-r1/lr{lr}", "net": net.name, "seed": 0, "lr": lr,
             "correct": 1, "images": 192} for lr in plan.RATES_OF_LEARNING]  # fmt: skip
    costs = {"macs": 1, "parameters": 1}
    data = {"recipe": plan.RECIPE, "nets": [{**net._asdict(), **costs}], "rows": rows}
    (tmp_path / "evidence.json").write_text(json.dumps(data))
    return harness.Harness(tmp_path / "evidence.json", tmp_path / "work")


@pytest.mark.thorough
def test_runs_once_and_repeats(small):
    assert small.run(only="seed1", jobs=2) == 1
    (row,) = [row for row in harness.load(small.results)["rows"] if "tune" not in row["run"]]
    assert (row["run"], row["steps"], row["images"]) == ("small-0.5-r1/seed1", 2, 192)
    assert small.run(only="seed1") == 0
    assert "small-0.5-r1/seed1: equal: correct" in small.repeat("small-0.5-r1/seed1")
    assert not list((small.work / "runs").glob("*/"))
    with pytest.raises(InputError, match="no row of the run 'seed9'"):
        small.repeat("seed9")


def test_one_place_does_a_whole_group(small, capsys):
    """Seed 0 was finished elsewhere, seed 1 only begun there."""
    data = harness.load(small.results)
    net = harness.nets_of(data)[0]
    other = net._replace(name="small-0.5-r2", rate=2, study="rate 2")
    nets = [{**one._asdict(), "macs": 1, "parameters": 1} for one in (net, other)]
    done = [("small-0.5-r1", 0), ("small-0.5-r2", 0), ("small-0.5-r1", 1)]
    rows = [{"run": f"{name}/seed{seed}", "net": name, "seed": seed, "commit": "1a2b", "cpu": "B"}
            for name, seed in done]  # fmt: skip
    small.results.write_text(json.dumps({**data, "nets": nets, "rows": data["rows"] + rows}))
    assert small.run(only="no run has this name") == 0
    left = [row["run"] for row in harness.load(small.results)["rows"] if "tune" not in row["run"]]
    assert left == ["small-0.5-r1/seed0", "small-0.5-r2/seed0"]
    assert "another commit or processor did it: small-0.5-r1/seed1" in capsys.readouterr().out


@pytest.mark.thorough
def test_a_late_run_is_continued(small):
    """The deadline is over at once: nothing is started, and later all of it is done."""
    assert small.run(only="seed0", max_minutes=1e-9) == 0
    small.deadline = None
    assert small.run(only="seed0") == 1
