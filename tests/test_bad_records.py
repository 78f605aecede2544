"""Damaged records: repaired into a clean copy, and skipped in a training."""

import json
import os
import re
import shutil
import struct

import numpy as np
import pytest

from gluon_asymmnet.cli.records import build_parser
from gluon_asymmnet.data.bad_records import SKIPPED_FILE, LeftOut, SkippedRecords
from gluon_asymmnet.data.boxes.digits import write_digits_voc
from gluon_asymmnet.data.boxes.voc import VOCSource
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.loader import RecordIterInput, ThreadedInput, epoch_order
from gluon_asymmnet.data.records import verify
from gluon_asymmnet.data.records.recordio import MAGIC, RecordFile, pack
from gluon_asymmnet.data.records.repair import repair
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.data.sources import FolderTree, check_labels, open_source
from gluon_asymmnet.errors import FormatError, InputError
from gluon_asymmnet.train.classifier_config import ClassifierConfig
from gluon_asymmnet.train.config import resolve

KEYS = [10, 3, 77, 4, 5, 6, 7, 8]


def image(level, size=(12, 16)):
    return encode(np.full((*size, 3), level, np.uint8), ".png")


def write(path, payloads=None, keys=KEYS):
    with RecordWriter(path) as writer:
        for i, key in enumerate(keys):
            given = (payloads or {}).get(i)
            writer.write_payload(
                key, given if given is not None else pack(key, i % 4, image(9 * i))
            )
        writer.add_file(path.with_suffix(".lst")).write(
            b"".join(b"%d\t%d\timage %d.png\n" % (key, i % 4, i) for i, key in enumerate(keys))
        )
        writer.add_file(path.with_suffix(".classes.txt")).write(b"a\nb\nc\nd\n")
    return path


@pytest.fixture
def rec(tmp_path):
    return write(tmp_path / "a.rec")


def offsets(rec):
    lines = rec.with_suffix(".idx").read_text().splitlines()
    return [int(line.split("\t")[1]) for line in lines]


def edit(rec, at, data):
    content = bytearray(rec.read_bytes())
    content[at : at + len(data)] = data
    rec.write_bytes(content)


def check(rec, lost, tmp_path, places=1, **kwargs):
    """Repair; all but the records at ``lost`` must be there, byte for byte."""
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    out = tmp_path / "clean.rec"
    report = repair(rec, out, overwrite=True, **kwargs)
    keys = [key for i, key in enumerate(KEYS) if i not in lost]
    with RecordFile(out) as found:
        assert list(found.keys) == keys
        for i, key in enumerate(keys):
            n = KEYS.index(key)
            assert found.payload(i) == pack(key, n % 4, image(9 * n))
    assert verify.verify(out) == (len(keys), [], 0)
    listed = [int(x.split("\t")[0]) for x in out.with_suffix(".lst").read_text().splitlines()]
    assert listed == keys
    assert {n: (tmp_path / n).read_bytes() for n in before if not n.startswith("clean")} == {
        n: b for n, b in before.items() if not n.startswith("clean")
    }
    assert report.records == len(keys)
    assert len(report.dropped) == places
    return report


def test_a_sound_file_is_copied_byte_for_byte(rec, tmp_path):
    assert check(rec, [], tmp_path, places=0).index is None
    for suffix in (".rec", ".idx", ".lst", ".classes.txt"):
        assert (tmp_path / f"clean{suffix}").read_bytes() == rec.with_suffix(suffix).read_bytes()


def test_every_kind_of_damage_in_the_middle(rec, tmp_path):
    """What is damaged, and only that, is lost; the search goes on at the next magic."""
    sound, at = rec.read_bytes(), offsets(rec)

    def damaged(where, data, lost, reason, places=1):
        rec.write_bytes(sound)
        edit(rec, where, data)
        report = check(rec, lost, tmp_path, places)
        assert report.dropped[0].offset == at[lost[0]]
        assert [key for place in report.dropped for key in place.keys] == [KEYS[i] for i in lost]
        assert reason in report.dropped[0].reason

    length = at[4] - at[3] - 8
    damaged(at[3], b"XXXX", [3], f"no record starts at byte {at[3]}")
    damaged(at[3] + 4, struct.pack("<I", length + 40), [3], f"the next one starts at byte {at[4]}")
    damaged(at[3] + 4, struct.pack("<I", 1 << 28), [3], "claims 268435456 bytes")
    damaged(at[3] + 4, struct.pack("<I", length - 24), [3], "truncated PNG")
    damaged(at[3] + 4, struct.pack("<I", 8), [3], "fewer than the 24")
    damaged(at[3] + 4, struct.pack("<I", 3 << 29 | length), [3], "has flag 3")
    damaged(at[3] + 8, struct.pack("<I", 10**6), [3], "announces 1000000 labels")
    damaged(at[3] + 12, struct.pack("<f", np.nan), [3], "the label is nan")
    damaged(at[3] + 12, struct.pack("<f", 9), [3], "expected a whole number from 0 below 4")
    damaged(at[3] + 60, b"\0\xff\0", [3], "damaged PNG")
    damaged(at[0], b"\0" * 8, [0], "no record starts at byte 0")
    damaged(at[3], b"\0" * (at[6] - at[3]), [3, 4, 5], "no record starts")
    damaged(at[7], b"\0" * 9, [7], "no record starts")


def test_a_cut_end(rec, tmp_path):
    """Also what is no longer in the file is named, by the index."""
    at = offsets(rec)
    for cut in (at[6] + 5, at[6] + 40, at[7] - 9):
        os.truncate(rec, cut)
        report = check(rec, [6, 7], tmp_path, places=2)
        assert [(d.offset, d.keys) for d in report.dropped] == [(at[6], [7]), (cut, [8])]
        assert "the file ends before these records" in report.dropped[1].reason
        rec = write(tmp_path / f"{cut}.rec")
    os.truncate(rec, at[7])
    assert check(rec, [7], tmp_path).dropped[0].keys == [8]


def test_a_payload_with_the_magic_inside(tmp_path):
    """Its pieces are joined again; a broken chain of pieces is one damaged place."""
    split = pack(4, 3, image(1) + MAGIC * 2)
    rec = write(tmp_path / "a.rec", {3: split})
    out = tmp_path / "clean.rec"
    assert repair(rec, out) == (8, [], None)
    assert rec.read_bytes() == out.read_bytes()
    edit(rec, offsets(rec)[3] + 4, struct.pack("<I", 2 << 29 | 40))
    check(rec, [3], tmp_path)


@pytest.mark.parametrize("index", [b"no index", b"3\t0\n3\t8\n", None])
def test_without_a_sound_index_the_headers_give_the_keys(rec, tmp_path, index):
    at = offsets(rec)[2]
    edit(rec, at, b"XXXX")
    if index is None:
        rec.with_suffix(".idx").unlink()
    else:
        rec.with_suffix(".idx").write_bytes(index)
    report = check(rec, [2], tmp_path)
    assert (report.index is None) == (index is None)
    assert report.dropped[0].keys == []


def test_repeated_ids_get_free_keys(tmp_path):
    rec = write(tmp_path / "a.rec", {i: pack(7, 0, image(i)) for i in range(8)})
    rec.with_suffix(".idx").unlink()
    repair(rec, tmp_path / "b.rec")
    with RecordFile(tmp_path / "b.rec") as found:
        assert list(found.keys) == list(range(7, 15))


def test_the_source_is_never_written_over(rec, tmp_path):
    os.link(rec, tmp_path / "hard.rec")
    os.symlink(rec.with_suffix(".idx"), tmp_path / "soft.idx")
    for out in (rec, tmp_path / "x/../a.rec", tmp_path / "hard.rec", tmp_path / "soft.rec"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="belongs to the source, which stays as it is"):
            repair(rec, out, overwrite=True)
    with pytest.raises(InputError, match=r"b: expected a name that ends in \.rec"):
        repair(rec, tmp_path / "b")
    (tmp_path / "b.idx").write_text("mine")
    with pytest.raises(InputError, match=r"b\.idx exists and is not overwritten"):
        repair(rec, tmp_path / "b.rec")
    assert (tmp_path / "b.idx").read_text() == "mine"
    assert not (tmp_path / "b.rec").exists()


@pytest.mark.parametrize("content", [b"", b"no records at all", MAGIC * 3])
def test_nothing_usable_writes_nothing(tmp_path, content):
    (tmp_path / "a.rec").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.rec: .*(empty|nothing in its)"):
        repair(tmp_path / "a.rec", tmp_path / "b.rec")
    assert [p.name for p in tmp_path.iterdir()] == ["a.rec"]


def test_command(rec, tmp_path, capsys):
    parser = build_parser("asymmnet records")

    def run(*argv):
        args = parser.parse_args(["repair", *map(str, argv)])
        return args.run(args)

    assert run(rec, tmp_path / "b.rec") == 0
    edit(rec, offsets(rec)[1], b"XXXX")
    assert run(rec, tmp_path / "c.rec", "--json", tmp_path / "c.json") == 1
    first, second, third = capsys.readouterr().out.splitlines()
    at, end = offsets(rec)[1:3]
    assert first == f"{tmp_path}/b.rec: 8 records, 0 damaged places dropped"
    assert second.startswith(f"dropped at bytes {at} to {end} (key 3): no record starts at byte")
    assert third == f"{tmp_path}/c.rec: 7 records, 1 damaged places dropped"
    found = json.loads((tmp_path / "c.json").read_text())
    assert (found["records"], found["dropped"][0]["keys"]) == (7, [3])


# --- training --------------------------------------------------------------------------------


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
    edit(rec, at[bad[2]], b"XXXX")
    edit(rec, at[bad[3]] + 4, struct.pack("<I", 1 << 20))
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


@pytest.mark.parametrize("i", [0, 3, 7])
def test_a_bad_record_is_named_by_number_key_and_byte(rec, i):
    at = offsets(rec)[i]
    name = re.escape(f"{rec}: record {i} (key {KEYS[i]}) at byte {at}: no record starts")
    with RecordFile(rec, rec.with_suffix(".idx")) as file:
        edit(rec, at, b"XXXX")
        with pytest.raises(FormatError, match=f"^{name}"):
            file.read(i)
    with pytest.raises(FormatError, match=f"^{name}"):
        RecordFile(rec, rec.with_suffix(".idx"))


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
        (tmp_path / f"tree/a/{i}.png").write_bytes(image(i))
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
            writer.write(i, i % 4, b"no image" if i == 17 else image(i))
    made = RecordIterInput(rec, rec.with_suffix(".idx"), 8, 16, steps=5)
    with pytest.raises(
        FormatError, match=r"t\.rec: MXNet's reader stopped, mostly at a damaged record"
    ):
        for batch in made.epoch(0):
            batch.data.wait_to_read()
    edit(rec, offsets(rec)[17], b"XXXX")  # this would end the process
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
    edit(val, at, bytes(len(image)))
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

    edit(val, at, image)
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
    with pytest.raises(FormatError, match="none of the 3 images to validate can be used"):
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
