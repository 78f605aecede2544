"""A short part of the campaign of faults, and its report; all of it: ``make faults``."""

import json
import random

import pytest

from gluon_asymmnet.data.digits import DigitSet
from tests.conftest import ROOT
from tests.faults import others, report
from tests.faults.kills import Outcome, chain
from tests.faults.subject import classifier, read_end, write_records
from tests.faults.watch import EPOCH_END, NAMED, RENAMING, VALIDATION, WRITING

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def subject(digits: DigitSet, tmp_path_factory):
    return classifier(write_records(digits, tmp_path_factory.mktemp("faults") / "set"), epochs=3)


@pytest.fixture(scope="module")
def undisturbed(subject, tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed") / "run"
    done = subject.finish(place)
    assert done.returncode == 0, done.stderr
    return place


def test_killed_in_many_phases_it_ends_as_undisturbed(subject, undisturbed, tmp_path):
    reference = read_end(undisturbed / subject.folder)
    aims = [WRITING, RENAMING, VALIDATION, EPOCH_END]
    outcomes, left = chain(subject, reference, tmp_path / "run", aims, random.Random(1))
    assert left == []
    assert [o.problem for o in outcomes] == [""] * 4


def test_killed_with_the_authors_reader(digits, tmp_path):
    """ImageRecordIter goes on in mid-epoch, too, with one thread."""
    records = write_records(digits, tmp_path / "set")
    subject = classifier(records, "mxnet", epochs=2)
    done = subject.finish(tmp_path / "undisturbed")
    assert done.returncode == 0, done.stderr
    reference = read_end(tmp_path / "undisturbed" / subject.folder)
    outcomes, _ = chain(subject, reference, tmp_path / "run", [WRITING, NAMED], random.Random(2))
    assert [o.problem for o in outcomes] == [""] * 2


def test_a_damaged_checkpoint_costs_only_its_steps(subject, undisturbed, tmp_path):
    """The finished run, with its newest checkpoint damaged, does the last steps again: with three
    decoding threads, which change nothing.
    """
    reference = read_end(undisturbed / subject.folder)
    threads = subject._replace(command=(*subject.command, "--num-workers", "3"))
    scene = others.Scene(threads, reference, undisturbed, tmp_path / "run", random.Random(1))
    assert others.fallback(scene, others.flip, "net.params") == ""


def test_the_comparison_sees_one_bit(subject, undisturbed, tmp_path):
    """What calls a run survived must be able to fail."""
    reference = read_end(undisturbed / subject.folder)
    scene = others.Scene(subject, reference, undisturbed, tmp_path / "run", random.Random(1))
    folder = scene.copy()
    data = bytearray((folder / "best.params").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "best.params").write_bytes(data)
    assert len(read_end(folder).differences(reference)) == 1
    (folder / "metrics.jsonl").write_text("")
    assert "metrics.jsonl" in read_end(folder).differences(reference)


def test_the_page_of_the_campaign_is_that_of_its_data():
    folder = ROOT / "benchmarks"
    found = json.loads((folder / "faults.json").read_text())
    assert report.document(found) == (folder / "faults.md").read_text(), "run `make tables`"
    kills = [row for row in found["rows"] if row["kind"] == "SIGKILL"]
    assert sum(row["survived"] for row in kills) >= 200
    assert sum(row["survived"] for row in found["rows"]) - 200 >= 40
    assert found["problems"] == []


def test_the_report_counts_what_was_not_survived():
    outcomes = [Outcome("a", "SIGKILL", "start"), Outcome("a", "SIGKILL", "start", "gone")]
    environment = {"packages": {}, "platform": "x", "processors": 1, "python": "3"}
    found = report.summary(outcomes, environment, {"jobs": 1, "seed": 0, "minutes": 1, "load": 1})
    assert "2 SIGKILLs and 0 other faults" in report.document(found)
    assert "| start | 2 | 1 of 2 |" in report.document(found)
    assert "- SIGKILL, start, a: gone" in report.document(found)
