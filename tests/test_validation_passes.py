import argparse
import json
from collections import Counter

import numpy as np
import pytest

from gluon_asymmnet._mxnet import mx
from gluon_asymmnet.cli.evaluate import (
    add_published_flags,
    check_published_flags,
    report_published,
)
from gluon_asymmnet.data.images import encode
from gluon_asymmnet.data.records.writer import RecordWriter
from gluon_asymmnet.errors import InputError
from gluon_asymmnet.evaluation.classification import Evaluation
from gluon_asymmnet.evaluation.published import (
    PUBLISHED,
    ValidationPass,
    pass_results,
    validation_passes,
)
from tests.conftest import ROOT

CURVE = json.loads((ROOT / "gluon_asymmnet/report/published_curve.json").read_text())
TOP1, TOP5 = (CURVE["columns"].index(name) for name in ("top1", "top5"))


def printed(share, images):
    """The multiple of ``1 / images`` nearest to ``share``, as the log prints it."""
    return f"{round(share * images) / images:.6f}"


def test_every_published_reading_has_the_denominator_of_its_pass():
    passes = validation_passes(50_000, 2048, 360)
    assert len(CURVE["epochs"]) == 360
    for epoch, (walked, row) in enumerate(zip(passes, CURVE["epochs"])):
        for share in (row[TOP1], row[TOP5]):
            assert printed(share, walked.images) == f"{share:.6f}", epoch
    assert Counter(walked.images for walked in passes) == {51_200: 150, 49_152: 210}


def test_no_published_reading_is_of_50000_images():
    def fits(row, images):
        return all(printed(row[i], images) == f"{row[i]:.6f}" for i in (TOP1, TOP5))

    assert not any(fits(row, 50_000) for row in CURVE["epochs"])


def test_the_published_reading():
    walked = validation_passes(50_000, 2048, 360)[358]
    assert walked == PUBLISHED.validation_pass == ValidationPass(50_000, start=1568, stop=720)
    np.testing.assert_array_equal(walked.positions, [*range(1568, 50_000), *range(720)])
    assert (walked.images, walked.counted_twice, walked.left_out) == (
        49_152,
        range(0),
        range(720, 1568),
    )
    best = max(CURVE["epochs"], key=lambda row: row[TOP1])
    assert best is CURVE["epochs"][358]
    assert f"{PUBLISHED.top1:.6f}" == f"{best[TOP1]:.6f}" == "0.754232"
    assert f"{PUBLISHED.top5:.6f}" == f"{best[TOP5]:.6f}" == "0.925090"


def test_the_training_reader_walks_too():
    """The log counts 206 epochs of 626 iterations and 154 of 625."""
    steps = Counter(walked.images // 2048 for walked in validation_passes(1_281_167, 2048, 360))
    assert steps == {626: 206, 625: 154}


def test_by_hand():
    """Ten records, batches of four: 0-9 and 0, 1; then 2-9; then 0-9 and 0, 1 again."""
    first, second, third = validation_passes(10, 4, 3)
    assert first.positions.tolist() == [*range(10), 0, 1]
    assert (list(first.counted_twice), list(first.left_out)) == ([0, 1], [])
    assert second.positions.tolist() == list(range(2, 10))
    assert (list(second.counted_twice), list(second.left_out)) == ([], [0, 1])
    assert third == first


@pytest.mark.parametrize(
    ("records", "batch_size"), [(10, 4), (17, 17), (24, 10), (40, 8), (45, 44), (50, 16), (97, 32)]
)
def test_mxnets_reader_walks_like_that(tmp_path, records, batch_size):
    """The label of a record is its position."""
    image = encode(np.zeros((8, 8, 3), np.uint8))
    with RecordWriter(tmp_path / "a.rec", tmp_path / "a.idx") as writer:
        for position in range(records):
            writer.write(position, float(position), image)
    reader = mx.io.ImageRecordIter(
        path_imgrec=str(tmp_path / "a.rec"), path_imgidx=str(tmp_path / "a.idx"),
        data_shape=(3, 8, 8), batch_size=batch_size, preprocess_threads=2, verbose=False,
    )  # fmt: skip
    for walked in validation_passes(records, batch_size, 7):
        labels = [batch.label[0].asnumpy() for batch in reader]
        np.testing.assert_array_equal(np.concatenate(labels), walked.positions)
        counts = np.bincount(walked.positions, minlength=records)
        assert np.flatnonzero(counts == 2).tolist() == list(walked.counted_twice)
        assert np.flatnonzero(counts == 0).tolist() == list(walked.left_out)
        assert counts.max() <= 2
        reader.reset()


def test_what_cannot_be_walked():
    with pytest.raises(InputError, match="batch size 8 is above the number of records, 7"):
        validation_passes(7, 8, 1)
    with pytest.raises(InputError, match="batch size must be at least 1, got 0"):
        validation_passes(7, 0, 1)
    with pytest.raises(InputError, match="number of passes must be at least 1, got -1"):
        validation_passes(7, 7, -1)


def scored(images, classes=9, seed=0):
    """An exact result with random labels and ranks."""
    rng = np.random.default_rng(seed)
    ranked = np.argsort(rng.random((images, classes)), axis=1)[:, :5]
    labels = rng.integers(classes, size=images)
    hits = ranked == labels[:, None]
    top1, top5 = hits[:, 0].mean(), hits.any(axis=1).mean()
    return Evaluation(images, top1, top5, 0.0, labels, ranked, np.zeros(images, np.float32))


@pytest.mark.parametrize(("records", "batch_size"), [(10, 4), (1003, 64), (50, 50)])
def test_readings_are_counts_over_the_positions(records, batch_size):
    """Counted again image by image, in the order of the walk."""
    result = scored(records)
    found = pass_results(result, batch_size, 40)
    for number, (reading, walked) in enumerate(
        zip(found, validation_passes(records, batch_size, 40))
    ):
        pairs = [(result.labels[p], list(result.ranked[p])) for p in walked.positions]
        assert reading.number == number
        assert reading.top1 == sum(label == ranked[0] for label, ranked in pairs) / len(pairs)
        assert reading.top5 == sum(label in ranked for label, ranked in pairs) / len(pairs)


def parsed(*flags):
    parser = argparse.ArgumentParser()
    add_published_flags(parser)
    return parser.parse_args(list(flags))


def test_flags():
    args = parsed("--walk", "published", "--walk-batch-size", "4", "--passes", "3")
    check_published_flags(args, 10)
    result = scored(10)
    text, content = report_published(result, args)
    lines = text.splitlines()
    assert len(lines) == 4
    assert lines[1].split()[:2] == ["0", "12"] and lines[1].endswith("0 to 1 (2) counted twice")
    assert lines[2].split()[:2] == ["1", "8"] and lines[2].endswith("0 to 1 (2) left out")
    content = json.loads(json.dumps(content))
    assert content["batch_size"] == 4
    assert [p["images"] for p in content["passes"]] == [12, 8, 12]
    assert [p["twice"] for p in content["passes"]] == [[0, 1], None, [0, 1]]
    assert [p["never"] for p in content["passes"]] == [None, [0, 1], None]
    assert content["passes"][1]["top1"] == content["passes"][1]["top1_hits"] / 8


def test_one_flag_stands_for_the_two_words():
    assert parsed("--authors-validation") == parsed("--walk", "published")


def test_flags_that_do_not_fit():
    check_published_flags(parsed(), 10)
    with pytest.raises(InputError, match="batch size 2048 is above the number of records, 10"):
        check_published_flags(parsed("--walk", "published"), 10)
    with pytest.raises(InputError, match="passes must be at least 1, got 0"):
        check_published_flags(parsed("--walk", "published", "--passes", "0"), 5000)
    for flag in ("--passes", "--walk-batch-size"):
        with pytest.raises(InputError, match=f"{flag} goes with --walk published"):
            check_published_flags(parsed(flag, "3"), 10)
