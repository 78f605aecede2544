"""The measuring itself: processes, turns, tables.  No absolute times."""

import json

import numpy as np
import pytest

from benchmarks import (
    candidates,
    detectors,
    exported,
    int8,
    photographs,
    pipeline,
    readers,
    scaled,
    shifts,
    startup,
    suite,
)
from benchmarks.candidates import Case
from benchmarks.compare import compare
from benchmarks.report import table
from benchmarks.suite import Plan
from gluon_asymmnet.data.image_headers import image_info
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.transforms import Normalization
from gluon_asymmnet.errors import RunError
from gluon_asymmnet.export.formats import export_all
from tests.conftest import ROOT, run_python
from tests.random_nets import random_model

pytestmark = pytest.mark.thorough


def test_candidates_take_turns_in_processes_of_their_own(capfd):
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
            "threads": 1, "p95": 0.02, "peak_mb": 100.0, "beside": 0.01}  # fmt: skip
    rows = [{**case, "name": name, "median": seconds} for name, seconds in
            (("plain", 0.01), ("optimized", 0.005), ("matmul", 0.1))]  # fmt: skip
    text = table(rows)
    assert "| optimized | 5.00 | 20.00 | 200.0 | 2.00 | 100 | 0.51 |" in text
    limit = 1e3 * 2 * 216_918_096 * 0.1 / (2 * 2048**3)
    assert f"| {limit:.2f} |" in text


def test_every_candidate_says_what_it_is():
    for part in (candidates, detectors, exported, pipeline, shifts, readers):
        assert all(function.__doc__ for function in part.CANDIDATES.values())


def test_the_script(tmp_path):
    done = run_python(
        ROOT / "benchmark.py", "train", "--models", "asymmnet_small", "--widths", "0.35",
        "--batches", "2", "--sizes", "32", "--threads", "1", "--rounds", "1", "--only",
        "train_ours,train_task", "--out", tmp_path / "m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "m.json").read_text())
    ours, task = measured["rows"]
    assert (ours["name"], task["name"]) == ("train_ours", "train_task")
    assert task["beside"] == ours["beside"] == ours["median"]
    assert measured["machine"]["packages"]["mxnet"] == "1.9.1"
    assert (tmp_path / "m.md").read_text().startswith("# Measured")
    bad = run_python(ROOT / "benchmark.py", "infer", "--threads", "0")
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)


CASE = {"kind": "infer", "model": "asymmnet_large", "width": 1.0, "batch": 32, "size": 224,
        "threads": 2, "p95": 0.02, "beside": 0.01}  # fmt: skip


def test_a_candidate_that_could_not_be_built_says_why():
    rows = [{**CASE, "name": "plain", "median": 0.01, "peak_mb": 1.0},
            {**CASE, "name": "torch_compiled", "left_out": "no a|b compiler"}]  # fmt: skip
    lines = table(rows).splitlines()
    assert lines[-1] == "| torch_compiled | left out: no a/b compiler |  |  |  |  |  |"
    assert {line.count("|") for line in lines[2:]} == {8}


def test_input_table_by_hand():
    """256 images in 0.5 s are 512 a second; a batch of 32 in 1.6 s is 20."""
    case = {**CASE, "kind": "input", "data": "digits"}
    rows = [{**case, "name": "input_opencv", "median": 0.5, "images": 256},
            {**case, "name": "input_record_iter", "median": 0.625, "images": 256},
            {**case, "name": "read_records", "median": 0.7, "images": 256},
            {**case, "name": "train_task", "median": 1.6, "images": 32}]  # fmt: skip
    text = table(rows)
    assert "| input_opencv | 512 | 1.25 | 25.6 | yes |" in text
    assert "| read_records | 366 | 0.89 | 18.3 | no |" in text
    assert "| train_task | 20 | 0.05 |  |  |" in text


def test_memory_picture_and_startup_tables_by_hand():
    memory = {**CASE, "kind": "memory", "median": 1.0}
    text = table([
        {**memory, "name": "plain", "of": "infer", "peak_mb": 400.0},
        {**memory, "name": "openvino_f32", "of": "infer", "peak_mb": 100.0},
        {**memory, "name": "train_plain", "of": "train", "peak_mb": 2000.0},
        {**memory, "name": "train_ours", "of": "train", "peak_mb": 3000.0},
    ])  # fmt: skip
    assert "| openvino_f32 | infer | 100 | 0.25 |" in text
    assert "| train_ours | train | 3000 | 1.50 |" in text
    picture = {**CASE, "kind": "picture"}
    rows = [{**picture, "name": "prepare", "median": 0.002},
            {**picture, "name": "classify_mxnet", "median": 0.01}]  # fmt: skip
    assert "| classify_mxnet | 10.00 | 20.00 | 20 % |" in table(rows)
    startup = {**CASE, "kind": "startup", "name": "help", "median": 0.21}
    assert "| help | 0.21 | 0.02 |" in table([startup])


def test_folder_and_preprocessing_tables_by_hand():
    """2,000 pictures: reading alone takes 2 s, the net alone 8, both in turn 20, together 12.5."""
    case = {**CASE, "kind": "folder", "images": 2000, "peak_mb": 300.0}
    seconds = {"folder_in_turn": 20.0, "folder_prepared": 2.0, "folder_inferred": 8.0,
               "folder_classified": 12.5}  # fmt: skip
    text = table([{**case, "name": name, "median": value} for name, value in seconds.items()])
    assert "| folder_classified | 160 | 1.60 | 64 % | 80 % | 300 |" in text
    case = {**CASE, "kind": "large", "batch": 1, "peak_mb": 200.0}
    rows = [{**case, "name": "prepare_large_opencv", "median": 0.2, "fastest": 0.14},
            {**case, "name": "prepare_large_scaled", "median": 0.03, "fastest": 0.02}]  # fmt: skip
    assert "| prepare_large_scaled | 30.00 | 20.00 | 7.00 | 200 |" in table(rows)


def test_detection_table_by_hand():
    """Of 20 ms in ONNX Runtime the suppression takes 1; the best of the others takes 25."""
    case = {**CASE, "kind": "detect", "batch": 1, "p95": 0.03, "peak_mb": 300.0}
    seconds = {
        "torchvision_onnx": 0.025,
        "gluoncv_ssd": 0.1,
        "detect_onnxruntime": 0.02,
        "detect_openvino": 0.04,
        "stage_net_openvino": 0.03,
        "stage_suppress": 0.001,
    }
    rows = [{**case, "name": n, "median": s, "fastest": s} for n, s in seconds.items()]
    text = table(rows)
    assert "| gluoncv_ssd | 100.00 | 30.00 | 100.00 | 0.25 |  | 300 |" in text
    assert "| detect_onnxruntime | 20.00 | 30.00 | 20.00 | 1.25 |  | 300 |" in text
    assert "| stage_net_openvino | 30.00 | 30.00 | 30.00 |  | 75 % | 300 |" in text
    assert "| stage_suppress | 1.00 | 30.00 | 1.00 |  | 5 % | 300 |" in text


def test_spread_heads_score_above_the_threshold_as_often_as_asked():
    """Logits of any size; the softmax is computed anew here."""
    rng = np.random.default_rng(0)
    for size in (1e-9, 30):
        logits = rng.normal(0, size, (3000, detectors.CLASSES + 1))
        scale, background = detectors.spread(logits)
        logits = logits * scale
        assert logits.std() == pytest.approx(1)
        logits[:, 0] += background
        powers = np.exp(logits)
        scores = (powers / powers.sum(1, keepdims=True))[:, 1:]
        assert (scores > detectors.THRESHOLD).sum() == detectors.ABOVE


def test_detection_is_measured_in_each_engine(tmp_path):
    done = run_python(
        ROOT / "benchmark.py", "detect", "--models", "asymmnet_small", "--widths", "0.35",
        "--threads", "1", "--rounds", "1", "--only",
        "gluoncv_ssd,detect_onnxruntime,stage_suppress", "--out", tmp_path / "m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["gluoncv_ssd", "detect_onnxruntime", "stage_suppress"]
    assert rows[2]["median"] < rows[1]["median"]
    assert "torchvision_onnx: --environment torchvision=PYTHON names its Python" in done.stderr
    bad = run_python(ROOT / "benchmark.py", "detect", "--environment", "vision=python")
    assert (bad.returncode, len(bad.stderr.splitlines())) == (2, 1)
    assert "NAME of torchvision, got vision=python" in bad.stderr


def test_shift_primitives(tmp_path):
    """Batches of 2 at 20 pixels: maps of 3 x 3."""
    done = run_python(
        ROOT / "benchmark.py", "shift", "--batches", "2", "--sizes", "20", "--threads", "1",
        "--rounds", "1", "--only", "channel_shuffle,address_shift_flat,add", "--out",
        tmp_path / "m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "m.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["channel_shuffle", "address_shift_flat", "add"]
    assert all(row["shape"] == [2, 384, 3, 3] and row["median"] > 0 for row in rows)
    assert "| channel_shuffle | " in (tmp_path / "m.md").read_text()


def test_shift_table_by_hand():
    case = {**CASE, "kind": "shift", "shape": [32, 384, 28, 28], "beside": 0.04}
    rows = [{**case, "name": "channel_shuffle", "median": 0.04},
            {**case, "name": "add", "median": 0.016}]  # fmt: skip
    text = table(rows)
    assert text.startswith("**shift, 32 x 384 x 28 x 28: asymmnet_large 1.0, 224 px, batch 32, ")
    assert "| add | 16.000 | 20.000 | 2.50 |" in text


@pytest.mark.parametrize("primitive", shifts.SHIFT)
def test_primitives_make_maps_of_one_shape(primitive):
    case = Case("addressnet", 1.0, 2, 20)
    assert shifts.map_shape(case) == (2, 384, 3, 3)
    primitive(case)()


def test_a_models_name_may_carry_its_width():
    plan = Plan(models=("asymmnet_small", "asymmnet_large_0.35"), batches=(1,), threads=(1,))
    assert [case[:2] for case in plan.cases()] == [
        ("asymmnet_small", 1.0),
        ("asymmnet_large", 0.35),
    ]


def test_trainers_race_a_few_at_once_each_group_with_the_first():
    names = ["train_plain", *"abcde"]
    assert suite._groups("infer", names) == [names]
    assert suite._groups("train", names) == [
        ["train_plain", "a", "b", "c"],
        ["train_plain", "d", "e"],
    ]
    assert suite._groups("train", ["a"]) == [["a"]]


def test_readers_give_every_batch(digits):
    case = Case("asymmnet_small", 1.0, 64, 32, 2, str(digits.root))
    assert readers.read_records(case)() == 1348
    assert readers.input_opencv(case)() == 21


def test_the_input_pipeline_is_measured_beside_training(monkeypatch):
    monkeypatch.setattr(suite, "_PHOTOGRAPHS", 32)
    only = ("read_records", "input_record_iter")
    rows = suite.inputs(Plan(threads=(1,), rounds=1, only=only))
    found = [(row["data"], row["name"], row["images"]) for row in rows]
    assert found == [
        ("JPEG 500x375", "read_records", 32),
        ("JPEG 500x375", "input_record_iter", 32),
        ("the demo's digits", "read_records", 1348),
        ("the demo's digits", "input_record_iter", 1344),
    ]
    assert all(row["median"] > 0 for row in rows)
    assert "**input, the demo's digits: " in table(rows)


def test_startup_and_pictures():
    plan = Plan(models=("asymmnet_small_0.35",), batches=(1,), sizes=(32,), threads=(1,), rounds=1,
                only=("prepare", "classify_onnxruntime", "python", "help"))  # fmt: skip
    rows = suite.startup(plan)
    found = [(row["kind"], row["name"]) for row in rows]
    assert found == [("picture", "prepare"), ("picture", "classify_onnxruntime"),
                     ("startup", "python"), ("startup", "help")]  # fmt: skip
    by_name = {row["name"]: row["median"] for row in rows}
    assert all(by_name.values())
    assert by_name["python"] < by_name["help"]


def test_whole_processes_that_fail_are_an_error(tmp_path):
    with pytest.raises(RunError, match="first_answer_openvino ended with status 1: "):
        startup.time_processes(Case(folder=str(tmp_path / "none")), tmp_path / "a.jpg", rounds=1,
                          only=("first_answer_openvino",))  # fmt: skip


def test_photographs():
    small = photographs.crops(3, 16, Normalization())
    assert (small.shape, small.dtype) == ((3, 3, 16, 16), np.float32)
    sizes = {(info.height, info.width) for info in map(image_info, photographs.jpegs(3))}
    assert sizes == {(375, 500)}


def test_8_bits_from_the_command_to_the_page(digits, tmp_path):
    """With random weights, 32 pixels and few crops: the way, not the figures."""
    made = random_model(tmp_path, classes=10)
    made.net.save_parameters(str(tmp_path / "last.params"))
    made.card.save(tmp_path / "card.json")
    settings = dict(name="asymmnet_small_0.35", size=32, crops=16, engines=("onnxruntime",))
    (found,) = int8.measure(tmp_path, digits.root, threads=1, **settings)
    int8.write(found, str(tmp_path / "int8"))
    assert json.loads((tmp_path / "int8.json").read_text()) == found
    page = (tmp_path / "int8.md").read_text()
    (on_digits,), (on_photographs,) = found["digits"], found["photographs"]
    assert on_photographs["unseen"]["images"] == 16
    assert 0 < on_photographs["unseen"]["cosine"] <= 1
    score = on_digits["score"]
    assert f"| {100 * on_digits['float_top1']:.2f} % | {100 * score['top1']:.2f} % |" in page
    assert page.count("| block 10 |") == 2  # the last of each


def test_what_scaled_decoding_changes(tmp_path, capsys):
    """Of pictures below twice the size before the crop nothing, of a larger one the logits."""
    made = random_model(tmp_path / "net", classes=10)
    export_all(made, tmp_path / "net", formats=("onnx",))
    (tmp_path / "pictures").mkdir()
    photo = photographs.photographs()[0]
    for name, rgb in (("large", photo), ("small", photo[:50, :70])):
        (tmp_path / f"pictures/{name}.jpg").write_bytes(encode(rgb))
    (row,) = scaled.measure(tmp_path / "net", tmp_path / "pictures")
    assert (row["pictures"], row["scaled"]) == (2, 1)
    assert 0 < row["logits"] < 1 and row["same_best"] >= 0.5
    text = scaled.table([{**row, "same_best": 0.9, "best_in_5": 1.0, "logits": 0.1234}])
    assert "| 2 | 1 | 90.0 % | 100.0 % | 0.123 |" in text
