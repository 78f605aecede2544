"""The page about runs: its numbers, that it is one file, and that it survives damaged runs."""

import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gluon_asymmnet.data.sources import open_source
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.evaluation.classification import Evaluation
from gluon_asymmnet.report import charts, classes, curves, predictions
from gluon_asymmnet.report.charts import Chart, Line
from gluon_asymmnet.report.facts import headline
from gluon_asymmnet.report.formatting import duration, moment
from gluon_asymmnet.report.markup import element, escape
from gluon_asymmnet.report.page import page
from gluon_asymmnet.report.predictions import _source
from gluon_asymmnet.report.published import deviations, is_published, published_curve
from gluon_asymmnet.report.run_files import _name, read_run
from gluon_asymmnet.report.status import lines, status
from tests.conftest import run_python, with_damaged_record
from tests.report_runs import (
    HOSTILE,
    classifier_run,
    detector_run,
    published_run,
    trained_run,
    write_lines,
)

VOID = {"meta", "img", "br", "hr", "col", "wbr"}


class Page(HTMLParser):
    """Reads a page and refuses what does not belong there."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words, self.tags, self.ids, self.targets = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form"), tag
        for name, value in attrs.items():
            assert not name.startswith("on"), (tag, name)
            assert "url(" not in value, (tag, name)
            if name in ("src", "srcset", "href", "xlink:href", "action", "data"):
                assert value.startswith("data:image/jpeg;base64," if tag == "img" else "#"), value
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "a":
            self.targets.append(attrs["href"][1:])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            assert "@import" not in data and "url(" not in data
        else:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def report_of(*folders, why="not asked for"):
    runs = [read_run(folder) for folder in folders]
    return page(runs, {run.path: why for run in runs})


def checked(text):
    found = Page(text)
    assert len(found.ids) == len(set(found.ids))
    assert set(found.targets) == set(found.ids)
    return found


# --- The file --------------------------------------------------------------------------------


def test_a_page_stands_alone_and_is_well_formed(tmp_path):
    classifier_run(tmp_path / "a")
    detector_run(tmp_path / "b")
    for folders in (["a"], ["b"], ["a", "b"]):
        text = report_of(*(tmp_path / name for name in folders))
        checked(text)
        assert text.startswith("<!doctype html>") and len(text) < 300_000
        # the browser, too, refuses scripts and the network
        assert 'content="default-src &#x27;none&#x27;;' in text
        assert "http://" not in text and "https://" not in text


def test_what_comes_from_files_is_escaped(tmp_path):
    folder = tmp_path / f"a{HOSTILE.replace('/', '')}"
    classifier_run(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tag_name": HOSTILE, HOSTILE: 1}))
    write_lines(
        folder / "events.jsonl", [dict.fromkeys(("time", "step", "kind", "message"), HOSTILE)]
    )
    rows = [{"epoch": 0, f"val_{HOSTILE}": 0.5, "seconds": HOSTILE}]
    write_lines(folder / "metrics.jsonl", rows)
    text = report_of(folder, why=HOSTILE)
    assert HOSTILE in checked(text).text
    assert "<script" not in text and "<img src=x" not in text


def test_escaping():
    assert escape("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert (
        element("p", element("b", "<"), "<", title='"') == '<p title="&quot;"><b>&lt;</b>&lt;</p>'
    )
    assert escape("\udcff\0") == "?\N{REPLACEMENT CHARACTER}"  # a file name that is not Unicode
    assert element("path", stroke_width=1, class_=None) == '<path stroke-width="1"></path>'


# --- The published curve ---------------------------------------------------------------------


def test_the_published_curve_is_that_of_the_paper():
    rows = published_curve().rows
    best = max(rows, key=lambda row: row["val_top1"])
    assert len(rows) == 360
    assert round(100 * best["val_top1"], 1) == 75.4  # arXiv:2104.07770, table 2
    assert round(max(row["val_top5"] for row in rows), 6) == 0.925625


def test_the_published_curve_stands_beside_runs_of_its_recipe(tmp_path):
    classifier_run(tmp_path / "same")
    run = read_run(tmp_path / "same")
    assert is_published(run) and deviations(run.config) == []
    text = checked(report_of(tmp_path / "same")).text
    # epoch 4, from the authors' log: 0.474473; ours is 0.48
    assert "published run at that epoch 47.45 % (ours +0.55 points)" in text
    assert "github.com/Spark001/AsymmNet" in text
    assert "has the recipe's name and differs" not in text


@pytest.mark.parametrize(
    ("settings", "shown", "differs"),
    [
        ({"recipe": "published", "lr": 1.3}, True, ["lr 1.3 instead of 2.6"]),
        ({"batch_size": 128}, True, ["batches of 1024 instead of 2048 images"]),
        ({"batch_size": 512, "num_gpus": 4, "data_backend": "opencv"}, True, []),
        ({"recipe": "readme"}, False, ["dropout 0.1 instead of 0.2"]),
    ],
)
def test_which_runs_are_of_the_published_recipe(tmp_path, settings, shown, differs):
    classifier_run(tmp_path / "run", **settings)
    run = read_run(tmp_path / "run")
    assert is_published(run) is shown
    found = deviations(run.config)
    assert set(differs) <= set(found) and bool(differs) == bool(found)
    text = checked(report_of(run.path)).text
    assert ("published run" in text) is shown
    assert all(note in text for note in differs if shown)


def test_a_run_equal_to_the_published_one_has_its_figures(tmp_path):
    published_run(tmp_path / "run")
    text = checked(report_of(tmp_path / "run")).text
    assert "75.42 % best top-1 (epoch 358)" in text  # the README of the authors
    assert "(ours +0.00 points)" in text
    assert "360 of 360" in text


# --- Charts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "limits", "ticks"),
    [
        ([0.3, 97.1], (0, 100), [0, 20, 40, 60, 80, 100]),
        ([52.0, 100.0], (0, 100), [50, 60, 70, 80, 90, 100]),
        ([0.12, 0.19], (0, math.inf), [0.12, 0.14, 0.16, 0.18, 0.2]),
        ([3.0, 3.0], (0, math.inf), [2.8, 2.9, 3.0, 3.1, 3.2]),
        ([0.0], (0, math.inf), [0, 0.2, 0.4, 0.6]),
        ([-3.0, 4.0], (-math.inf, math.inf), [-4, -2, 0, 2, 4]),
    ],
)
def test_ticks(values, limits, ticks):
    axis = charts.linear_axis(values, limits)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.low <= min(values) and max(values) <= axis.high


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.001, 0.1], [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]),
        ([1e-5, 1.0], [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]),
        ([1.0, 1.0], [1, 2, 5, 10]),
    ],
)
def test_logarithmic_ticks(values, ticks):
    axis = charts.log_axis(values)
    assert axis.ticks == pytest.approx(ticks[: len(axis.ticks)]) and len(axis.ticks) >= 2
    assert axis(axis.low) == 0 and axis(axis.high) == 100


def test_epochs_have_whole_ticks():
    assert charts.whole_axis(0, 29).ticks == [0, 5, 10, 15, 20, 25]
    assert charts.whole_axis(0, 359).ticks == [0, 100, 200, 300]
    assert charts.whole_axis(0, 2).ticks == [0, 1, 2]
    assert charts.whole_axis(4, 4).ticks == [4]


def test_a_curve_is_where_its_values_are_and_broken_where_there_are_none():
    line = Line("one", [(0, 0.0), (1, 50.0), (2, math.nan), (3, 100.0), (4, math.inf)])
    text = charts.draw(Chart("Accuracy", [line], "{:g} %".format))
    assert 'd="M0 100L25 50M75 0"' in text  # (4, inf) is a place without a value
    assert "epoch 1\none: 50 %" in text
    assert "<b>100 %</b>" in text  # the last value there is, in the legend


def test_a_colour_is_training_or_validation(tmp_path):
    classifier_run(tmp_path / "run")
    drawn = curves._charts([read_run(tmp_path / "run")], None)
    styles = {line.style for chart in drawn for line in chart.lines if "valid" in line.name}
    assert styles == {1}
    assert {line.style for chart in drawn for line in chart.lines if "train" in line.name} == {0}


def test_lines_differ_in_more_than_colour():
    lines = [Line(str(k), [(0, k), (1, k)], k) for k in range(6)]
    text = charts.draw(Chart("Loss", [*lines, Line("ref", [(0, 1)], charts.REFERENCE)], str))
    drawn = set(re.findall(r'class="line (s\w+)"(?: stroke-dasharray="([\d ]+)")?', text))
    assert len({dashes for _, dashes in drawn}) == len({style for style, _ in drawn}) == 7


def test_throughput_of_older_runs():
    assert curves.throughput({"images_per_s": 70.0, "images": 100, "seconds": 2.0}) == 70
    assert curves.throughput({"images": 100, "seconds": 2.0}) == 50
    assert math.isnan(curves.throughput({"images": 100, "seconds": 0}))


# --- Classes ---------------------------------------------------------------------------------


def evaluation(labels, predicted, confidence, classes=5):
    ranked = np.stack([np.asarray(predicted), (np.asarray(predicted) + 1) % classes], axis=1)
    labels = np.asarray(labels)
    return Evaluation(
        len(labels), float((labels == ranked[:, 0]).mean()), 1.0, 0.5, labels, ranked,
        np.asarray(confidence, np.float32),
    )  # fmt: skip


def test_worst_classes_pairs_and_samples_by_hand():
    found = evaluation(
        [0, 0, 0, 0, 1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 1, 0, 2, 2],
        [0.9, 0.8, 0.5, 0.7, 0.9, 0.9, 0.6, 0.4, 0.3],
    )  # fmt: skip
    matrix = found.confusion(5)
    assert predictions.worst_classes(matrix, 9) == [0, 2, 1]  # 1/2, 2/3, 1; 3 and 4 have no image
    pairs = predictions.worst_pairs(matrix, 9)
    assert pairs == [predictions.Pair(0, 1, 2, 4), predictions.Pair(2, 0, 1, 3)]
    assert predictions.most_wrong(found, 2) == [3, 6]
    assert predictions.some_right(found, 3) == [0, 4, 8]
    assert predictions.some_right(found, 99) == [0, 1, 4, 5, 7, 8]


def test_many_classes_are_pairs_and_not_a_matrix(tmp_path):
    classifier_run(tmp_path / "run")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 50)
    predicted = np.where(rng.random(50000) < 0.7, labels, rng.integers(0, 1000, 50000))
    predicted[:20] = 7  # of the 50 images of class 0
    found = evaluation(labels, predicted, rng.random(50000), 1000)
    names = [f"class {k}" for k in range(1000)]
    result = predictions.Predictions(tmp_path / "best.params", "val.rec", names, found, [], [])
    run = read_run(tmp_path / "run")
    text = page([run], {run.path: result})
    words = checked(text).text
    assert "Too many classes for a matrix (1,000)" in words and "Confusion matrix" not in words
    count = int(((labels == 0) & (predicted == 7)).sum())
    assert f"class 0 class 7 {count} of 50" in words
    assert len(text) < 300_000


def test_a_small_matrix_has_every_count():
    found = evaluation([0, 0, 0, 1, 2], [0, 0, 1, 1, 2], [0.9] * 5)
    result = predictions.Predictions(Path("last.params"), "val", list("abcde"), found, [], [])
    text = classes.classifier_section(None, result)
    assert 'title="a predicted as b: 1 of 3"' in text and 'title="a predicted as a: 2 of 3"' in text
    assert "chosen on this very set" not in text


def test_a_detectors_page(tmp_path):
    detector_run(tmp_path / "run")
    page_text = report_of(tmp_path / "run")
    text = checked(page_text).text
    assert "best mAP (epoch 2)" in text and "50.00 %" in text
    assert text.index("12.50 %") < text.index("75.00 %")  # the worst class first
    assert "01.jpg: not shown. not a picture" in text
    assert page_text.count("data:image/jpeg") == 1


# --- Several runs ----------------------------------------------------------------------------


def test_several_runs_are_compared(tmp_path):
    classifier_run(tmp_path / "x/one")
    classifier_run(tmp_path / "y/one", epochs=3, tag="two", lr=1.0)
    text = report_of(tmp_path / "x/one", tmp_path / "y/one")
    words = checked(text).text
    table = words[words.index("Settings in which the runs differ") : words.index("All settings")]
    assert "lr 2.6 1.0" in table and "tag_name one two" in table and "momentum" not in table
    assert str(tmp_path / "x/one").replace("/", "/ ").split()[-1] in words  # equal names: paths
    assert "5 of 360 3 of 360" in words


# --- Damaged and unfinished runs -------------------------------------------------------------


def test_a_directory_that_is_not_a_run(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        read_run(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no run \(no config.json\); expected"):
        read_run(tmp_path)
    classifier_run(tmp_path / "custom/one")
    with pytest.raises(InputError, match=r"there are runs below it: .*custom/one"):
        read_run(tmp_path)
    done = run_python("-m", "gluon_asymmnet", "report", tmp_path, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_damaged_lines_and_values_are_left_out_and_said(tmp_path):
    rows = classifier_run(tmp_path / "run")
    rows[1]["val_top1"] = rows[2]["train_loss"] = rows[2]["a\nb"] = math.nan
    lines = [json.dumps(row) for row in rows]
    lines.insert(3, '{"step": 12, "epo')
    cut = json.dumps({**rows[4], "epoch": 9})[:40]  # being written
    (tmp_path / "run/metrics.jsonl").write_text("\n".join([*lines, "null", cut]))
    (tmp_path / "run/events.jsonl").write_text('{"kind": "resumed", "message": "from x"}\n{"ki')
    run = read_run(tmp_path / "run")
    assert [row["epoch"] for row in run.metrics] == [0, 1, 2, 3, 4]
    assert [event["kind"] for event in run.events] == ["resumed"]
    assert run.problems == [
        "metrics.jsonl: 2 damaged line(s) left out: 4, 7",
        "metrics.jsonl: values that are not finite are not drawn: a\\nb, train_loss, val_top1",
    ]
    text = checked(report_of(run.path)).text
    assert all(problem in text for problem in run.problems) and "1 resumed." in text
    assert "48.00 % best top-1 (epoch 4)" in text


@pytest.mark.parametrize("name", ["metrics.jsonl", "card.json", "environment.json"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00", b"[1, 2]", b'{"epoch": "x"}\n'])
def test_files_that_are_missing_or_nonsense(tmp_path, name, content):
    classifier_run(tmp_path / "run")
    (tmp_path / "run" / name).unlink()
    if content is not None:
        (tmp_path / "run" / name).write_bytes(content)
    text = checked(report_of(tmp_path / "run")).text
    assert ("nothing to draw" in text) == (name == "metrics.jsonl")


_PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_JSON = st.recursive(
    _PLAIN | st.sampled_from([10**400, 5e-324, 1e308, [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)
_VALUES = (
    "step", "seconds", "images", "images_per_s", "lr", "train_loss", "val_top1", "val_top5",
    "val_loss", "val_mAP", "kind", "time", "message",
)  # fmt: skip
_SETTINGS = (
    "num_epochs", "lr", "lr_mode", "network", "data_dir", "rec_val", "batch_size", "num_gpus",
    "model",
)  # fmt: skip
_ROWS = st.lists(
    st.fixed_dictionaries(
        {"epoch": st.integers(0, 400) | _JSON}, optional=dict.fromkeys(_VALUES, _JSON)
    ),
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=_ROWS,
    card=st.dictionaries(st.sampled_from(["model", "macs"]), _JSON),
    config=st.dictionaries(st.sampled_from(_SETTINGS), _JSON),
)
@pytest.mark.thorough
def test_any_json_gives_a_page(tmp_path_factory, rows, card, config):
    folder = tmp_path_factory.mktemp("any")
    write_lines(folder / "metrics.jsonl", rows)
    write_lines(folder / "events.jsonl", rows)
    (folder / "config.json").write_text(json.dumps({"recipe": "published", **config}))
    (folder / "card.json").write_text(json.dumps(card))
    checked(report_of(folder))
    assert json.dumps(status(folder)) and lines(status(folder))


# --- A run that was really trained -----------------------------------------------------------


@pytest.mark.thorough
def test_the_command_on_a_trained_run(digits, tmp_path):
    folder = trained_run(digits, tmp_path)
    done = run_python("-m", "gluon_asymmnet", "report", folder, "-o", "out/page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out/page.html: 1 run(s)")
    text = (tmp_path / "out/page.html").read_text()
    found = checked(text)
    assert "<script" not in text and HOSTILE in found.text
    assert "best.params on the 449 images" in found.text
    best = read_run(folder).best["val_top1"]
    assert f"top-1 {100 * best:.2f} %" in found.text.split("449 images")[1][:200]
    counts = [int(n) for n in re.findall(r'title="[^"]*predicted as[^"]*: (\d+) of', text)]
    assert sum(counts) == 449  # every image is somewhere in the matrix
    assert found.tags.count("img") == 6 + min(12, 449 - round(best * 449))
    # a damaged image: left out as the run itself would, and the samples keep their images
    run, source = read_run(folder), open_source(rec=tmp_path / "digits/val.rec")
    rec = with_damaged_record(source.path, tmp_path / "bad.rec", 4)
    config = {**run.config, "rec_val": str(rec), "rec_val_idx": ""}
    why = predictions.predict_validation(run._replace(config=config))
    assert f"{rec}, record 4 (key 4): not a picture" in why
    config["max_bad_records"] = 1
    allowed = predictions.predict_validation(run._replace(config=config))
    assert (allowed.evaluation.images, allowed.evaluation.left_out) == (448, [4])
    assert "Damaged and left out: 1." in classes.classifier_section(run, allowed)
    for one in (*allowed.wrong, *allowed.right):
        assert one.jpeg == predictions.thumbnail(source.read(one.position).image)[0]
        assert one.label == source.label(one.position)
    # nothing to evaluate on: said in the page
    (tmp_path / "digits/val.rec").unlink()
    done = run_python("-m", "gluon_asymmnet", "report", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = checked((tmp_path / "report.html").read_text()).text
    assert re.search(r"not shown\. the validation set \S+val.rec does not exist", words)


# --- Text ------------------------------------------------------------------------------------


def test_durations_and_moments():
    shown = [duration(s) for s in (0, 59.6, 61, 3600 * 2 + 190, 86400 * 3 + 3600, math.nan)]
    assert shown == ["0 s", "1 min 00 s", "1 min 01 s", "2 h 03 min", "3 d 01 h", "\N{EM DASH}"]
    assert moment(1) == "1970-01-01 00:00:01 UTC"
    assert moment("2026-11-21T10:00:00+01:00") == "2026-11-21 09:00:00 UTC"
    assert (moment("noon"), moment(None), moment(1e30)) == ("noon", "\N{EM DASH}", "1e+30")


def test_why_a_run_ended_and_which_was_best(tmp_path):
    endings = {
        "a": ([], "killed, or the machine went down"),
        "b": (
            [("started", "x"), ("stopped", "by SIGTERM after step 9")],
            "by SIGTERM after step 9",
        ),
        "c": ([("ended", "no better validation for 3 epochs")], "no better validation for 3"),
        "d": ([("stopped", "by SIGINT"), ("resumed", "x")], "killed, or the machine went down"),
    }
    for name, (events, message) in endings.items():
        rows = classifier_run(tmp_path / name, epochs=2 + (name == "b"))
        assert rows
        write_lines(tmp_path / name / "events.jsonl",
                    [{"kind": kind, "message": text} for kind, text in events])  # fmt: skip
        run = read_run(tmp_path / name)
        assert message in run.ending
        assert run.state == ("finished" if name == "c" else "stopped")
    runs = [read_run(tmp_path / name) for name in endings]
    page = str(headline(runs, None))
    assert page.count("the best") == 1
    assert page.index("the best") > page.index("\N{BLACK STAR} 24")
    width = {"width": 0.35}
    assert _name("net_demo", width) == "net_demo, width 0.35"
    assert (
        _name("net_0.35_demo", width) == _name("net_0.35_demo", {"width": 1.0}) == "net_0.35_demo"
    )


def test_the_validation_set_is_found_from_where_the_run_was_started(digits, tmp_path, monkeypatch):
    classifier_run(tmp_path / "run")
    run = read_run(tmp_path / "run")
    relative = os.path.relpath(digits.val, digits.val.parent.parent)
    config = {**run.config, "data_dir": "", "rec_val": relative}
    config["rec_val_idx"] = "./dataset/imagenet/rec/val.idx"  # the default, which is not there
    monkeypatch.chdir(tmp_path)
    there = {"directory": str(digits.val.parent.parent)}
    assert len(_source(run._replace(config=config, environment=there))) == 449
    with pytest.raises(FormatError, match="does not exist; write the report in the folder"):
        _source(run._replace(config=config, environment={}))
