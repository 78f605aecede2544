"""The measuring itself: processes, turns, tables.  No absolute times."""

import json

from gluon_asymmnet.bench.compare import compare
from gluon_asymmnet.bench.contenders import CONTENDERS, Case
from gluon_asymmnet.bench.report import table
from tests.conftest import ROOT, run_python


def test_contenders_take_turns_in_processes_of_their_own(capfd):
    case = Case("asymmnet_small", 0.35, 2, 32, threads=1)
    found = compare(["plain", "hybrid", "optimized", "onnxruntime"], case, rounds=2, calls=3)
    assert [t.name for t in found] == ["plain", "hybrid", "optimized"]
    assert all(t.calls == 6 and 0 < t.fastest <= t.median <= t.slowest for t in found)
    assert all(t.fastest <= t.p95 <= t.slowest and t.peak_mb > 50 for t in found)
    assert "left out: onnxruntime: " in capfd.readouterr().err  # no folder of exported files


def test_training_steps(capfd):
    case = Case("asymmnet_small", 0.35, 4, 32, threads=1)
    found = compare(["train_plain", "train_ours"], case, rounds=1, calls=2)
    assert [t.name for t in found] == ["train_plain", "train_ours"], capfd.readouterr().err


def test_table_by_hand():
    """A product of 2 * 2048**3 operations in 0.1 s, a net of 216,918,096 MACs in 10 and 5 ms."""
    case = {"kind": "infer", "model": "asymmnet_large", "width": 1.0, "batch": 1, "size": 224,
            "threads": 1, "p95": 0.02, "peak_mb": 100.0}  # fmt: skip
    rows = [{**case, "name": name, "median": seconds} for name, seconds in
            (("plain", 0.01), ("optimized", 0.005), ("matmul", 0.1))]  # fmt: skip
    text = table(rows)
    assert "| optimized | 5.00 | 20.00 | 200.0 | 2.00 | 100 | 0.51 |" in text
    limit = 1e3 * 2 * 216_918_096 * 0.1 / (2 * 2048**3)
    assert f"| {limit:.2f} |" in text


def test_every_contender_says_what_it_is():
    assert all(function.__doc__ for function in CONTENDERS.values())


def test_the_script(tmp_path):
    done = run_python(
        ROOT / "benchmark.py", "train", "--models", "asymmnet_small", "--widths", "0.35",
        "--batches", "2", "--sizes", "32", "--threads", "1", "--rounds", "1", "--only",
        "train_ours,train_task", "--out", tmp_path / "m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "m.json").read_text())
    assert [row["name"] for row in measured["rows"]] == ["train_ours", "train_task"]
    assert measured["machine"]["packages"]["mxnet"] == "1.9.1"
    assert (tmp_path / "m.md").read_text().startswith("# Measured")
    bad = run_python(ROOT / "benchmark.py", "infer", "--threads", "0")
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
