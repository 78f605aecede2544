"""Damaged records skipped in a training, and left out of a validation."""

import json
import shutil
import struct

import numpy as np
import pytest

from gluon_asymmnet.data.bad_records import SKIPPED_FILE, LeftOut, SkippedRecords
from gluon_asymmnet.data.boxes.digits import write_digits_voc
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.loader import RecordIterInput, ThreadedInput, epoch_order
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import FolderTree, check_labels, open_source
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve
from tests.record_files import grey, offsets, overwrite


def damaged_set(folder, bad=(5, 6, 17, 30)):
    """40 records of 4 classes; one image does not decode, one label cannot be meant, two frames
    are broken."""
    rng = np.random.default_rng(0)
    rec = folder / "t.rec"
    with RecordWriter(rec) as writer:
        for i in range(40):
            whole = encode(rng.integers(0, 256, (20, 24, 3), np.uint8))
            image = whole[: len(whole) // 2] if i == bad[0] else whole
            writer.write(i, 99 if i == bad[1] else i % 4, image)
        writer.add_file(rec.with_suffix(".classes.txt")).write(b"a\nb\nc\nd\n")
    at = offsets(rec)
    overwrite(rec, at[bad[2]], b"XXXX")
    overwrite(rec, at[bad[3]] + 4, struct.pack("<I", 1 << 20))
    return rec


def read(rec, *, limit=4, threads=2, epoch=0, first=0):
    skipped = SkippedRecords(limit)
    source = open_source(rec=rec, sample=not limit)
    made = ThreadedInput(
        source, 8, 16, steps=5, threads=threads, skipped=skipped, classes=4, seed=3
    )
    return list(made.epoch(epoch, first)), skipped


def equal(a, b):
    return all(np.array_equal(x, y) for p, q in zip(a, b) for x, y in zip(p, q))


def test_the_next_good_record_of_the_epoch_stands_in(tmp_path):
    """By hand: labels are those of the order with each bad record replaced by the next good one."""
    rec = damaged_set(tmp_path)
    for epoch in range(3):
        order = epoch_order(40, 5, 8, 3, epoch).ravel().tolist()
        expected = []
        for place in range(40):
            at = place
            while order[at % 40] in (5, 6, 17, 30):
                at += 1
            expected.append(order[at % 40] % 4)
        batches, _ = read(rec, epoch=epoch)
        assert [b.label.tolist() for b in batches] == np.reshape(expected, (5, 8)).tolist()
        assert (
            len({b.data[i].tobytes() for b in batches for i in range(8)}) == 40
        )  # no plain copies


def test_skipping_does_not_depend_on_threads_or_on_the_first_step(tmp_path):
    rec = damaged_set(tmp_path)
    once, one = read(rec, threads=1)
    again, five = read(rec, threads=5)
    assert len(once) == 5
    assert equal(once, again)
    assert equal(once[3:], read(rec, first=3)[0])
    assert one._known == five._known == {("training", i) for i in (5, 6, 17, 30)}


def test_what_is_listed_and_where_it_stops(tmp_path):
    rec, events = damaged_set(tmp_path), []
    skipped = SkippedRecords(4)
    skipped.log_to(tmp_path, lambda *event: events.append(event))
    made = ThreadedInput(
        open_source(rec=rec, sample=False), 8, 16, steps=5, classes=4, skipped=skipped, seed=3
    )
    for epoch in range(2):
        list(made.epoch(epoch))
    rows = [json.loads(line) for line in (tmp_path / SKIPPED_FILE).read_text().splitlines()]
    assert sorted(row["position"] for row in rows) == [5, 6, 17, 30]  # once each, in two epochs
    order = epoch_order(40, 5, 8, 3, 0).ravel().tolist()
    assert all(row["step"] <= 1 + order.index(row["position"]) // 8 for row in rows)
    reasons = {row["position"]: row["reason"] for row in rows}
    assert "truncated JPEG" in reasons[5]
    assert "label is 99, expected a whole number from 0 below 4" in reasons[6]
    assert "no record starts" in reasons[17]
    assert f"record 17 (key 17) at byte {offsets(rec)[17]}: " in reasons[17]
    assert events == [("skipped_records", row["step"], row["reason"]) for row in rows]

    with (tmp_path / SKIPPED_FILE).open("a") as file:
        file.write('{"step": 9, "posit')  # a kill cut the line
    resumed = SkippedRecords(4)
    resumed.log_to(tmp_path, lambda *event: events.append(event))
    for position in reasons:
        resumed.add(99, position, "met before")
    assert len(resumed) == 4
    assert len(events) == 4
    with pytest.raises(FormatError, match="another; --max-bad-records 4 allows no more; find all"):
        resumed.add(99, 7, "another")
    assert len((tmp_path / SKIPPED_FILE).read_text().splitlines()) == 4


def test_what_is_listed_has_the_step_of_the_whole_run(tmp_path):
    rec, skipped = damaged_set(tmp_path), SkippedRecords(4)
    skipped.log_to(tmp_path, lambda *_: None)
    source = open_source(rec=rec, sample=False)
    list(ThreadedInput(source, 8, 16, steps=5, classes=4, skipped=skipped, seed=3).epoch(2))
    order = epoch_order(40, 5, 8, 3, 2).ravel().tolist()
    for row in map(json.loads, (tmp_path / SKIPPED_FILE).read_text().splitlines()):
        assert 10 < row["step"] <= 11 + order.index(row["position"]) // 8


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_one_too_many_stops_with_its_name(tmp_path, limit):
    rec = damaged_set(tmp_path)
    advice = "asymmnet records verify" if limit else "no record starts"  # 0: found on opening
    with pytest.raises(FormatError, match=rf"t\.rec.*record \d+ .*{advice}"):
        read(rec, limit=limit)


def test_nothing_but_damage(tmp_path):
    with RecordWriter(tmp_path / "a.rec") as writer:
        for i in range(8):
            writer.write(i, 0, b"no image")
    made = ThreadedInput(
        open_source(rec=tmp_path / "a.rec"), 8, 16, steps=1, skipped=SkippedRecords(99)
    )
    with pytest.raises(FormatError, match="none of the 8 records of the epoch can be used"):
        list(made.epoch(0))


def test_labels_may_be_damaged_up_to_the_limit(tmp_path):
    rec = damaged_set(tmp_path)
    source = open_source(rec=rec, sample=False)
    assert check_labels(source, allowed=3).classes == 4
    with pytest.raises(FormatError, match="record 30"):
        check_labels(source, allowed=1)
    with pytest.raises(InputError, match="label 99 is not one of the 4 classes"):
        check_labels(source, allowed=2)


@pytest.mark.parametrize("label", [np.nan, np.inf, 3e38, -1])
def test_a_wild_label_does_not_decide_the_number_of_classes(tmp_path, label):
    with RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, 2, b"x")
        writer.write(1, label, b"x")
    source = open_source(rec=tmp_path / "a.rec")
    with pytest.raises(InputError, match=r"record 1 .*is not one of the 3 classes"):
        check_labels(source)
    assert check_labels(source, allowed=1).classes == 3


def test_a_picture_that_went_missing(tmp_path):
    for i in range(6):
        (tmp_path / "tree/a").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"tree/a/{i}.png").write_bytes(grey(i))
    tree, skipped = FolderTree(tmp_path / "tree"), SkippedRecords(1)
    (tmp_path / "tree/a/3.png").unlink()
    list(ThreadedInput(tree, 6, 16, steps=1, skipped=skipped).epoch(0))
    assert skipped._known == {("training", 3)}


def test_the_mxnet_reader_cannot_skip_and_says_so():
    settings = {"model": "asymmnet_small", "max_bad_records": 3}
    with pytest.raises(InputError, match="--max-bad-records 3 needs --data-backend opencv"):
        resolve(ClassifierConfig, {**settings, "data_backend": "mxnet"})
    assert resolve(ClassifierConfig, settings).data_backend == "opencv"


def test_the_mxnet_reader_stops_with_one_line(tmp_path):
    """Not with MXNet's stack, and not with the death of the process."""
    rec = tmp_path / "t.rec"
    with RecordWriter(rec) as writer:
        for i in range(40):
            writer.write(i, i % 4, b"no image" if i == 17 else grey(i))
    made = RecordIterInput(rec, rec.with_suffix(".idx"), 8, 16, steps=5)
    with pytest.raises(
        FormatError, match=r"t\.rec: MXNet's reader stopped, mostly at a damaged record"
    ):
        for batch in made.epoch(0):
            batch.data.wait_to_read()
    overwrite(rec, offsets(rec)[17], b"XXXX")  # this would end the process
    with pytest.raises(FormatError, match="record 17"):
        check_labels(open_source(rec=rec))


def classifier(rec, save_dir, **changes):
    return resolve(ClassifierConfig, {
        "model": "asymmnet_small", "width": 0.35, "dataset": "custom", "input_size": 32,
        "batch_size": 8, "num_epochs": 2, "warmup_epochs": 0, "data_backend": "opencv",
        "threads": 1, "rec_train": str(rec), "rec_train_idx": str(rec.with_suffix(".idx")),
        "rec_val": "", "save_dir": str(save_dir), "checkpoint_steps": 2, "max_bad_records": 4,
        **changes,
    })  # fmt: skip


@pytest.mark.thorough
def test_a_run_over_damaged_records_stops_and_resumes_bit_for_bit(tmp_path):
    """Stopped by its limit, resumed with a higher one and other threads: as if undisturbed."""
    from gluon_asymmnet.train.classifier import train

    rec = damaged_set(tmp_path)
    train(classifier(rec, tmp_path / "whole", num_workers=1))
    with pytest.raises(FormatError, match="--max-bad-records 3 allows no more; find all"):
        train(classifier(rec, tmp_path / "b", max_bad_records=3))
    train(classifier(rec, tmp_path / "b", num_workers=3))
    a, b = (tmp_path / name / "custom/asymmnet_small_baseline" for name in ("whole", "b"))
    assert (a / "last.params").read_bytes() == (b / "last.params").read_bytes()
    for folder in (a, b):
        rows = [json.loads(line) for line in (folder / SKIPPED_FILE).read_text().splitlines()]
        events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        told = [event for event in events if event["kind"] == "skipped_records"]
        assert sorted(row["position"] for row in rows) == [5, 6, 17, 30]
        assert [(e["step"], e["message"]) for e in told] == [(r["step"], r["reason"]) for r in rows]


def test_a_detector_skips_a_damaged_picture(tmp_path):
    from gluon_asymmnet.data.boxes.loader import DetectionInput

    root = write_digits_voc(tmp_path / "digits", images=(6, 2)).root
    source = VOCSource(root, [(2007, "trainval")])
    name = source.annotation(2).image_id.split("/")[1]
    (root / f"VOC2007/JPEGImages/{name}.jpg").write_bytes(b"\xff\xd8\xff no jpeg")
    (root / f"VOC2007/JPEGImages/{source.annotation(4).image_id.split('/')[1]}.jpg").unlink()

    def batches(limit):
        made = DetectionInput(
            source, 3, {32: lambda *found: (np.zeros(1), np.zeros((1, 4)))}, steps=2,
            skipped=SkippedRecords(limit),
        )  # fmt: skip
        return list(made.epoch(0))

    assert equal(batches(2), batches(2))
    with pytest.raises(FormatError, match=r"jpg: .*"):
        batches(0)


# --- Validation ------------------------------------------------------------------------------


def write_set(rec, count, without=()):
    rng = np.random.default_rng(1)
    images = [encode(rng.integers(0, 256, (40, 36, 3), np.uint8)) for _ in range(count)]
    with RecordWriter(rec) as writer:
        for i in range(count):
            if i not in without:
                writer.write(i, i % 4, images[i])
        writer.add_file(rec.with_suffix(".classes.txt")).write(b"a\nb\nc\nd\n")
    return images


def rows_of(folder, name):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def metrics_of(folder):
    """The metrics of each epoch, without times."""
    return [
        {k: v for k, v in row.items() if "seconds" not in k and "per_s" not in k}
        for row in rows_of(folder, "metrics.jsonl")
    ]


@pytest.mark.thorough
def test_a_damaged_validation_image_loses_no_epoch(tmp_path):
    """The run stops; repaired it ends as undisturbed, or it leaves the image out.

    The right values are those of a run whose validation set never had the image.
    """
    from gluon_asymmnet.train.classifier import train

    rec, val, fewer = (tmp_path / name for name in ("t.rec", "v.rec", "fewer.rec"))
    write_set(rec, 16)
    image = write_set(val, 10)[3]
    write_set(fewer, 10, without=[3])
    at = val.read_bytes().index(image)

    def run(name, **changes):
        # ema: a second validation of each epoch
        settings = {"max_bad_records": 0, "rec_val": str(val), "checkpoint_steps": 0, "ema": 0.5}
        train(classifier(rec, tmp_path / name, **{**settings, **changes}))
        return tmp_path / name / "custom/asymmnet_small_baseline"

    whole, expected = run("whole"), run("fewer", rec_val=str(fewer))
    overwrite(val, at, bytes(len(image)))
    with pytest.raises(FormatError, match=r"v\.rec, record 3 .*; --max-bad-records N allows N"):
        run("repaired")
    stopped = tmp_path / "repaired/custom/asymmnet_small_baseline"
    assert [path.name[-1] for path in (stopped / "checkpoints").iterdir()] == ["2"]  # of epoch 0
    assert not (stopped / "metrics.jsonl").exists() or not metrics_of(stopped)
    shutil.copytree(tmp_path / "repaired", tmp_path / "allowed")

    allowed = run("allowed", max_bad_records=1)
    assert metrics_of(allowed) == metrics_of(expected)
    assert len(metrics_of(allowed)) == 2
    for name in ("best.params", "last.params", "best-ema.params"):
        assert (allowed / name).read_bytes() == (expected / name).read_bytes()
    (row,) = rows_of(allowed, SKIPPED_FILE)  # once, in four validations
    assert (row["step"], row["set"], row["position"]) == (2, "validation", 3)
    assert "v.rec, record 3 (key 3): " in row["reason"]
    lines = [x for x in (allowed / "log.txt").read_text().splitlines() if "validation: " in x]
    assert len(lines) == 2
    assert all("(1 of 10 images left out, see skipped_records.jsonl)" in line for line in lines)

    overwrite(val, at, image)
    repaired = run("repaired")
    assert metrics_of(repaired) == metrics_of(whole) != metrics_of(expected)
    assert (repaired / "best.params").read_bytes() == (whole / "best.params").read_bytes()
    assert not (repaired / SKIPPED_FILE).exists()
    assert "left out" not in (repaired / "log.txt").read_text()


def test_validation_and_training_images_count_together(tmp_path):
    skipped = SkippedRecords(2)
    skipped.log_to(tmp_path, lambda *_: None)
    skipped.add(1, 7, "in training")
    LeftOut(skipped, 5).add(7, "in validation")
    LeftOut(skipped, 10).add(7, "again")
    rows = rows_of(tmp_path, SKIPPED_FILE)
    assert [(row["step"], row["set"]) for row in rows] == [(1, "training"), (5, "validation")]
    resumed = SkippedRecords(2)
    resumed.log_to(tmp_path, lambda *_: None)
    LeftOut(resumed, 15).add(7, "again")
    with pytest.raises(FormatError, match="another; --max-bad-records 2 allows no more; find all"):
        LeftOut(resumed, 15).add(8, "another")


def test_a_validation_without_a_readable_image(tmp_path):
    from gluon_asymmnet.data.transforms import Preprocessing
    from gluon_asymmnet.evaluation.classification import evaluate

    with RecordWriter(tmp_path / "a.rec") as writer:
        for i in range(3):
            writer.write(i, 0, b"no image")
    with pytest.raises(FormatError, match="none of the 3 images can be used"):
        evaluate(
            None, open_source(rec=tmp_path / "a.rec"), classes=4, preprocessing=Preprocessing(),
            left_out=LeftOut(SkippedRecords(9)),
        )  # fmt: skip


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_detectors_validation_leaves_out_a_damaged_picture(tmp_path, batch_size):
    """The right value: the average precision over the other pictures."""
    from gluon_asymmnet.evaluation.detection import detect, evaluate

    root = write_digits_voc(tmp_path / "digits", images=(2, 4)).root
    source = VOCSource(root, [(2007, "test")])
    examples = [source.read(i) for i in range(4)]

    def predict(images):
        """The first box of each picture, by its mean, which tells the pictures apart."""
        tops = [np.abs(x.mean() - means).argmin() for x in images]
        rows = [examples[i] for i in tops]
        boxes = [one.boxes[:1] * np.tile(32 / np.array(one.size), 2) for one in rows]
        labels = np.array([one.labels[:1] for one in rows], float)
        return labels[:, :, None], np.full((len(images), 1, 1), 0.5), np.array(boxes)

    from gluon_asymmnet.data.boxes.loader import validation_batches

    means = np.array([b.data[0].mean() for b in validation_batches(source, 1, 32)])
    others = [r for i, r in enumerate(detect(predict, source, 32, 1)) if i != 2]
    expected = evaluate(others, source.class_names, 32).original
    (root / f"VOC2007/JPEGImages/{examples[2].image_id.split('/')[1]}.jpg").unlink()

    def found(limit):
        left_out = LeftOut(SkippedRecords(limit))
        results = detect(predict, source, 32, batch_size, left_out=left_out)
        return evaluate(results, source.class_names, 32).original, left_out.positions

    result, positions = found(1)
    assert positions == [2]
    assert result.images == 3
    assert result.mean_ap_area == expected.mean_ap_area > 0
    with pytest.raises(FormatError, match=r"jpg: .*; --max-bad-records N allows N such records"):
        found(0)


@pytest.mark.thorough
def test_a_detectors_validation_loses_no_epoch(tmp_path):
    from gluon_asymmnet.train.detector import train
    from gluon_asymmnet.train.detector_config import DetectorConfig

    root = write_digits_voc(tmp_path / "digits", images=(4, 3)).root
    damaged = next((root / "VOC2007/JPEGImages").glob(
        VOCSource(root, [(2007, "test")]).annotation(1).image_id.split("/")[1] + ".jpg"
    ))  # fmt: skip
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])

    def run(**changes):
        return train(resolve(DetectorConfig, {
            "network": "asymmnet_small_0.35", "dataset": "custom", "dataset_root": str(root),
            "train_splits": "2007_trainval", "val_splits": "2007_test", "batch_size": 4,
            "num_epochs": 1, "warmup_epochs": 0, "threads": 1, "samples": 0,
            "save_prefix": f"{tmp_path}/", **changes,
        }))  # fmt: skip

    with pytest.raises(FormatError, match=r"jpg: .*; --max-bad-records N allows N such records"):
        run()
    folder = tmp_path / "ssd_300_asymmnet_small_0.35_custom"
    shutil.copytree(folder, tmp_path / "b" / folder.name)
    assert run(max_bad_records=1).finished
    assert len(metrics_of(folder)) == 1
    assert "(1 of 3 images left out" in (folder / "log.txt").read_text()
    damaged.write_bytes(whole)
    assert run(save_prefix=f"{tmp_path}/b/").finished
    assert "left out" not in (tmp_path / "b" / folder.name / "log.txt").read_text()
