"""The model of many machines by hand, and the measuring of real workers."""

import json

import pytest

from benchmarks import scaling_model as model
from tests.conftest import ROOT, run_python

GIGABIT = model.Link(1)  # 125 MB/s
SIZE = 25e6  # bytes: 0.2 s through it


def test_exchanges_by_hand():
    latency, message = 50e-6, 10e-6
    each = 2 * latency + 8 * message
    # one server: four workers' 25 MB in, then out
    assert model.kvstore_seconds(4, SIZE, GIGABIT, 1) == pytest.approx(1.6 + each)
    # a server per machine: each link carries 25 MB in each direction
    assert model.kvstore_seconds(4, SIZE, GIGABIT, 4) == pytest.approx(0.4 + each)
    assert model.kvstore_seconds(4, SIZE, GIGABIT, 4, 1 / 16) == pytest.approx(0.2125 + each)
    assert model.ring_seconds(4, SIZE, GIGABIT) == pytest.approx(0.3 + 6 * latency)
    assert model.ring_seconds(1, SIZE, GIGABIT) == model.kvstore_seconds(1, SIZE, GIGABIT, 1) == 0
    assert model.efficiency(0.3, 0.1) == pytest.approx(0.75)


def test_the_gradients_are_24_megabytes():
    """6,076,608 parameters; the paper's 5.99M is a miscount, see docs/reproduction.md."""
    assert model.gradient_bytes() == 4 * 6_076_608


def test_a_ring_beats_a_full_server_and_one_machine_is_perfect():
    for link in model.LINKS:
        for machines in model.MACHINES:
            one = model.kvstore_seconds(machines, SIZE, link, 1)
            assert model.ring_seconds(machines, SIZE / 2, link) < one


@pytest.mark.thorough
def test_two_workers_are_measured(tmp_path):
    done = run_python(
        ROOT / "benchmark.py", "scaling", "--models", "asymmnet_small", "--widths", "0.35",
        "--sizes", "32", "--batches", "2", "--rounds", "2", "--workers", "1,2",
        "--out", tmp_path / "scaling",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert (one["workers"], two["workers"]) == (1, 2)
    assert all(row[name] > 0 for row in (one, two) for name in ("step", "compute", "exchange"))
    assert "| 2 |" in done.stdout
