"""Names decide which class is which, and a run goes on only on its own data."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.card import read_card
from gluon_asymmnet.cli import main
from gluon_asymmnet.data.bad_records import LeftOut
from gluon_asymmnet.data.boxes.records import DetectionRecords
from gluon_asymmnet.data.class_names import match_classes
from gluon_asymmnet.data.loader import RecordIterInput
from gluon_asymmnet.data.records.recordio import RecordFile
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import FolderTree, check_labels, match_source, open_source
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.train.checkpoint_files import write_manifest
from gluon_asymmnet.train.classifier import ClassifierTask, train
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from gluon_asymmnet.train.run_directory import RunDirectory, data_changes
from gluon_asymmnet.weights.load import newest_weights

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0), "white": (255,) * 3}


def encoded(name, suffix=".png"):
    rgb = np.full((16, 16, 3), COLOURS.get(name, (9, 9, 9)), np.uint8)
    return cv2.imencode(suffix, rgb[:, :, ::-1])[1].tobytes()


def write_tree(root, counts, suffix=".png"):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}{suffix}").write_bytes(encoded(name, suffix))
    return root


def write_records(path, names, labels):
    """Record files whose images have the colour of ``names[label]``."""
    with RecordWriter(path, path.with_suffix(".idx")) as writer:
        for key, label in enumerate(labels):
            writer.write(key, label, encoded(names[label] if names else ""))
    if names:
        path.with_suffix(".classes.txt").write_text("".join(f"{name}\n" for name in names))
    return path


def by_name(source, names):
    """Return the colours under each label: the name that each image really has."""
    return {(names[int(source.read(i).label)], source.read(i).image) for i in range(len(source))}


# --- Matching --------------------------------------------------------------------------------


def test_matching_by_hand():
    assert match_classes(["b", "a"], ["a", "b", "c"], "S", "M") == [1, 0]
    assert match_classes(["cafe\u0301"], ["x", "caf\u00e9"], "S", "M") == [1]  # as macOS writes it
    assert match_classes(["crane", "crane"], ["crane", "crane"], "S", "M") == [0, 1]
    with pytest.raises(InputError, match="only in S: 'feline'; only in M: 'cat'; rename it"):
        match_classes(["feline", "dog"], ["cat", "dog"], "S", "M", "rename it")
    with pytest.raises(InputError, match="only in S: none; only in M: 'b'"):
        match_classes(["a"], ["a", "b"], "S", "M", same=True)
    with pytest.raises(InputError, match="M has several classes named 'crane'"):
        match_classes(["crane"], ["crane", "crane"], "S", "M")


def test_a_validation_folder_without_a_class_keeps_the_numbers(tmp_path):
    names = ["blue", "green", "red"]
    tree = FolderTree(write_tree(tmp_path / "val", {"blue": 2, "red": 3}))
    matched = match_source(tree, names, 3, "the model")
    assert sorted(matched.label(i) for i in range(5)) == [0, 0, 2, 2, 2]
    assert by_name(matched, names) == {(name, encoded(name)) for name in ("blue", "red")}
    assert "no image of 1 classes: 'green'" in check_labels(matched, 3).line("data")


@pytest.mark.parametrize("names", [["red", "blue", "green"], ["green", "red"]])
def test_records_with_another_order_are_matched(tmp_path, names):
    ours = ["blue", "green", "red"]
    source = open_source(rec=write_records(tmp_path / "a.rec", names, [0, 1, 1, 0]))
    matched = match_source(source, ours, 3, "the model")
    assert by_name(matched, ours) == {(name, encoded(name)) for name in names[:2]}


def test_what_cannot_be_matched_is_refused(tmp_path):
    tree = FolderTree(write_tree(tmp_path / "val", {"blue": 1, "rouge": 1}))
    with pytest.raises(InputError, match=r"only in .*val: 'rouge'; only in the model: 'red'"):
        match_source(tree, ["blue", "red"], 2, "the model")
    with pytest.raises(InputError, match=r"has 2 classes \('blue', 'rouge'\), the model has 1000"):
        match_source(tree, None, 1000, "the model")
    assert match_source(tree, None, 2, "the model") is tree
    assert "the model has no class names: classes are matched by number" in tree.remarks
    plain = open_source(rec=write_records(tmp_path / "a.rec", None, [0, 1]))
    assert match_source(plain, ["blue", "red"], 2, "the model") is plain
    assert plain.remarks == ["no .classes.txt: classes are numbers"]


def test_the_mxnet_reader_takes_new_labels(tmp_path):
    rec = write_records(tmp_path / "a.rec", ["red", "blue"], [0, 1] * 4)
    made = RecordIterInput(rec, rec.with_suffix(".idx"), 4, 16, steps=2, new_labels=[7, 3])
    found = sorted(label for batch in made.epoch(0) for label in batch.label.asnumpy())
    assert found == [3] * 4 + [7] * 4


def test_detection_records_are_matched_by_name(tmp_path):
    rec = tmp_path / "a.rec"
    with RecordWriter(rec, rec.with_suffix(".idx")) as writer:
        for label in (0, 1):
            writer.write(label, [2, 5, label, 0, 0, 0.5, 0.5], encoded("red"))
    rec.with_suffix(".classes.txt").write_text("dog\ncat\n")
    source = DetectionRecords(rec, classes=["ant", "cat", "dog"])
    assert [source.annotation(i).labels.tolist() for i in range(2)] == [[2], [1]]
    with pytest.raises(InputError, match=r"only in .*a\.rec: 'dog'"):
        DetectionRecords(rec, classes=["cat", "hound"])


# --- What is in the data ---------------------------------------------------------------------


def test_folders_say_what_is_left_out(tmp_path):
    root = write_tree(tmp_path / "t", {"blue": 2, "red": 1})
    (root / "__MACOSX").mkdir()
    for name in (".DS_Store", "red/._0.png", "red/notes.txt", "readme.md"):
        (root / name).write_bytes(b"x")
    line = check_labels(FolderTree(root)).line("training set")
    assert line == (
        "training set: 3 images, 2 classes; ignored 3 hidden files or folders: '.DS_Store', "
        "'__MACOSX', 'red/._0.png'; ignored 2 files that are not pictures: 'readme.md', "
        "'red/notes.txt'; 1 to 2 images per class"
    )
    (root / "empty").mkdir()
    (root / "empty/notes.txt").write_bytes(b"x")
    with pytest.raises(InputError, match="no picture in the class folders 'empty'; add some, or"):
        FolderTree(root)
    shutil.rmtree(root / "empty")
    (root / "red/a.gif").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"formats that are not read: 'red/a\.gif'; convert"):
        FolderTree(root)


def test_labels_with_wide_gaps_are_refused(tmp_path):
    rec = write_records(tmp_path / "a.rec", None, [3, 77, 90210])
    with pytest.raises(InputError, match=r"only 3 of the numbers 0 to 90210 \(3, 77, 90210\)"):
        check_labels(open_source(rec=rec))
    one = write_records(tmp_path / "b.rec", None, [1, 2, 2])  # counted from 1
    found = check_labels(open_source(rec=one))
    assert found.classes == 3
    assert "no image of 1 classes: 0" in found.remarks


def test_a_label_in_a_list_of_one_is_a_label(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        for key in range(4):
            writer.write(key, [float(key % 2)], encoded("red"))
    source = open_source(rec=tmp_path / "a.rec")
    assert check_labels(source).classes == 2
    assert [source.read(i).label for i in range(4)] == [0, 1, 0, 1]
    with RecordFile(tmp_path / "a.rec") as plain:
        assert plain.read(1).label.tolist() == [1.0]  # as MXNet's own reader gives it


def test_an_index_is_looked_for_beside_its_records(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rec = write_records(tmp_path / "a.rec", ["blue", "red"], [0, 1] * 4)
    settings = config(tmp_path, data_dir="", rec_train=str(rec), rec_val="", data_backend="mxnet")
    task = ClassifierTask(settings, [mx.cpu()])
    assert len(list(task.batches(0, 0))) == 2
    rec.with_suffix(".idx").rename(tmp_path / "b.idx")
    message = (
        r"a\.idx: no such index, which MXNet's reader needs: `asymmnet records repair .*a\.rec"
    )
    with pytest.raises(InputError, match=message):
        ClassifierTask(settings, [mx.cpu()])
    (tmp_path / "b.idx").rename(rec.with_suffix(".idx"))
    with pytest.raises(FileNotFoundError, match=r"c\.idx: no such index file; there is .*a\.idx"):
        open_source(rec=rec, idx=tmp_path / "c.idx")


# --- Runs ------------------------------------------------------------------------------------


def config(root, **changes):
    return resolve(ClassifierConfig, {
        "model": "asymmnet_small", "width": 0.35, "dataset": "custom", "input_size": 32,
        "batch_size": 4, "lr": 0.01, "lr_mode": "step", "num_epochs": 1, "warmup_epochs": 0,
        "data_backend": "opencv", "threads": 1, "num_workers": 1, "log_interval": 0,
        "data_dir": str(root / "data"), "save_dir": str(root / "runs"), **changes,
    })  # fmt: skip


def run_dir(root):
    return root / "runs/custom/asymmnet_small_baseline"


def write_data(root, train=None, val=None):
    write_tree(root / "data/train", train or {"blue": 4, "green": 4, "red": 4})
    write_tree(root / "data/val", val or {"blue": 2, "green": 2, "red": 2})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of one epoch, whose paths are relative to it."""
    root, before = tmp_path_factory.mktemp("finished"), Path.cwd()
    write_data(root)
    os.chdir(root)
    try:
        train(config(Path()))
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def root(finished, tmp_path, monkeypatch):
    """A copy of it, as the working directory."""
    shutil.copytree(finished, tmp_path / "c")
    monkeypatch.chdir(tmp_path / "c")
    return Path()


def test_a_run_says_what_its_data_are(finished):
    events = [
        json.loads(line) for line in (run_dir(finished) / "events.jsonl").read_text().splitlines()
    ]
    said = next(event["message"] for event in events if event["kind"] == "data")
    assert said.startswith("training set: 12 images, 3 classes; 4 to 4 images per class | ")
    assert f"data: {said}" in (run_dir(finished) / "log.txt").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data / "train/red/0.png").unlink(), "training set: 12 images are 11"),
        (lambda data: (data / "val/red/0.png").rename(data / "val/red/9.png"),
         "validation set: images have other names, keys or sizes"),
        (lambda data: (data / "train/red/0.png").rename(data / "train/blue/9.png"),
         "training set: images have other names or labels"),
        (lambda data: (data / "train/red/0.png").write_bytes(encoded("red") + b"x"),
         "training set: images have other names, keys or sizes"),
        (lambda data: [(data / f"{s}/red").rename(data / f"{s}/rouge") for s in ("train", "val")],
         "training set: classes 'red' are now 'rouge'"),
    ],
)  # fmt: skip
def test_a_run_does_not_go_on_with_other_data(root, change, message):
    before = (run_dir(root) / "card.json").read_bytes()
    change(root / "data")
    with pytest.raises(InputError, match=f"a run on other data .*{message}.*--finetune runs/"):
        train(config(root))
    assert (run_dir(root) / "card.json").read_bytes() == before


def test_a_run_without_a_fingerprint_takes_one(root):
    for path in run_dir(root).rglob("data.json"):
        path.unlink()
    for path in run_dir(root).rglob("manifest.json"):
        path.unlink()
        write_manifest(path.parent, 3)
    assert train(config(root)).finished
    assert json.loads((run_dir(root) / "data.json").read_text())["training set"]["images"] == 12


def test_a_damaged_fingerprint_is_taken_from_the_checkpoint(root):
    (run_dir(root) / "data.json").write_text("{")
    shutil.rmtree(root / "data/train/red")
    shutil.rmtree(root / "data/val/red")
    with pytest.raises(InputError, match="12 images are 8, classes 'red' are now none"):
        train(config(root))


def test_changes_by_hand():
    one = {"images": 2, "classes": ["a", "b"], "labels": 1, "files": 1}
    assert data_changes({"t": one}, {"t": one}) == []
    assert data_changes({"t": one}, {"t": {**one, "classes": ["b", "a"]}}) == [
        "t: the classes have another order"
    ]
    assert data_changes({"t": one}, {"t": {**one, "classes": 3}}) == [
        "t: 2 classes with names are 3 classes"
    ]
    assert data_changes({"t": one}, {}) == ["t: none now"]


@pytest.mark.thorough
def test_more_epochs_go_on_as_if_there_had_been_so_many(root, tmp_path):
    assert train(config(root, num_epochs=2)).steps == 6
    write_data(tmp_path / "whole")
    train(config(tmp_path / "whole", num_epochs=2))
    ours, theirs = (run_dir(r) / "last.params" for r in (root, tmp_path / "whole"))
    assert ours.read_bytes() == theirs.read_bytes()
    said = "1 epochs become 2: the step schedule has the same rates in those done"
    assert said in (run_dir(root) / "log.txt").read_text()
    assert said in (run_dir(root) / "events.jsonl").read_text()
    with pytest.raises(InputError, match="a run of 2 epochs, which cannot become 1: it may only"):
        train(config(root))


def test_more_epochs_of_a_cosine_are_refused(tmp_path):
    cosine = config(tmp_path, lr_mode="cosine")
    RunDirectory(tmp_path / "run", cosine, {}).close()
    more = dataclasses.replace(cosine, num_epochs=3)
    with pytest.raises(InputError, match="1 epochs, which cannot become 3: the cosine schedule "):
        RunDirectory(tmp_path / "run", more, {})


def test_a_validation_folder_without_a_class_is_scored_by_name(tmp_path):
    """The right value: the same pictures in the same classes, with the whole folder's names."""
    write_data(tmp_path, val={"green": 2, "red": 2})
    task = ClassifierTask(config(tmp_path), [mx.cpu()])
    bias = task._eval_net.output.bias
    weights = {n: p.data() for n, p in task.net._collect_params_with_prefix().items()}
    task._set_eval_weights(weights)
    bias.set_data(mx.nd.array([0, 0, 1000]))  # answers "red", label 2, whatever it sees
    assert task._evaluate(None, LeftOut(task.skipped))["top1"] == 0.5


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"train": {"blue": 4, "red": 4, "rouge": 4}, "val": {"blue": 2}},
         "train: 'rouge'; only in .*last.params: 'green'; --reset-output starts"),
        ({"train": {"blue": 6, "red": 6}, "val": {"blue": 2}},
         "train: none; only in .*last.params: 'green'; --reset-output starts"),
    ],
)  # fmt: skip
def test_weights_of_other_classes_name_the_way_out(finished, tmp_path, data, message):
    write_data(tmp_path, **data)
    weights = str(run_dir(finished) / "last.params")
    with pytest.raises(InputError, match=message):
        ClassifierTask(config(tmp_path, resume_params=weights), [mx.cpu()])
    bare = tmp_path / "bare.params"
    bare.write_bytes((run_dir(finished) / "last.params").read_bytes())
    if len(data["train"]) == 2:
        with pytest.raises(FormatError, match=r"output.*; --reset-output starts with a new"):
            ClassifierTask(config(tmp_path, resume_params=str(bare)), [mx.cpu()])


def test_weights_with_classes_in_another_order_decide_the_order(finished, tmp_path):
    shutil.copytree(run_dir(finished), tmp_path / "run")
    card = read_card(tmp_path / "run/card.json")
    dataclasses.replace(card, class_names=["red", "blue", "green"]).save(tmp_path / "run/card.json")
    write_data(tmp_path)
    weights = str(tmp_path / "run/last.params")
    task = ClassifierTask(config(tmp_path, resume_params=weights), [mx.cpu()])
    assert task.card.class_names == ["red", "blue", "green"]
    source = task._input._source if hasattr(task._input, "_source") else task._input.source
    assert by_name(source, task.class_names) == {(n, encoded(n)) for n in ("blue", "green", "red")}
    assert [task._validation.label(i) for i in range(6)] == [1, 1, 2, 2, 0, 0]


def test_a_dataset_of_1000_classes_needs_1000(tmp_path):
    write_data(tmp_path)
    message = r"--dataset imagenet has 1000 classes, .*train has 3 \('blue', 'green', 'red'\): --da"
    with pytest.raises(InputError, match=message):
        ClassifierTask(config(tmp_path, dataset="imagenet"), [mx.cpu()])


def test_eval_matches_by_name(finished, tmp_path, capsys):
    """The right value: the accuracy on the same pictures with the model's own folder names."""
    weights = run_dir(finished) / "last.params"
    data = finished / "data/train"
    shutil.copytree(data / "red", tmp_path / "val/red")
    result = tmp_path / "r.json"
    assert main(["eval", "imagenet", str(weights), "--data-dir", str(tmp_path / "val"),
                 "--predictions", str(tmp_path / "p.csv"), "--json", str(result)]) == 0  # fmt: skip
    said = capsys.readouterr().err
    assert "data: 4 images, 3 classes; classes matched by name; no image of 2 classes: " in said
    rows = (tmp_path / "p.csv").read_text().splitlines()
    label = rows[0].split(",").index("label")
    assert {row.split(",")[label] for row in rows[1:]} == {"2"}
    (tmp_path / "val/red").rename(tmp_path / "val/rouge")
    assert main(["eval", "imagenet", str(weights), "--data-dir", str(tmp_path / "val")]) == 2
    assert "only in the model: 'blue', 'green', 'red'" in capsys.readouterr().err


@pytest.mark.parametrize(("average", "name"), [(0.9, "best-ema.params"), (0.7, "best.params")])
def test_the_better_of_weights_and_average_is_opened(tmp_path, average, name):
    for file in ("best.params", "best-ema.params", "last.params"):
        (tmp_path / file).touch()
    rows = [{"val_top1": 0.8, "val_loss": 9, "val_ema_top1": 0.6, "val_ema_loss": 8},
            {"val_top1": 0.5, "val_loss": 9, "val_ema_top1": average}]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert newest_weights(tmp_path) == tmp_path / name
